"""The live view of a training on a terminal: a bar, and the curves below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn

from zoo.cli.console import duration
from zoo.cli.curves import PerplexityCurves
from zoo.training.events import Event, Progress as TrainingProgress, Report, Started


class LiveView(Progress):
    """Shows what `follow` is given until it is stopped, and is then gone."""

    def __init__(self, console: Console) -> None:
        self.curves = PerplexityCurves()  # first: what is made next asks for it
        super().__init__(
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("epoch {task.fields[epoch]}"),
            TextColumn("train {task.fields[loss]}"),
            TextColumn("{task.fields[speed]} tok/s"),
            TextColumn("{task.fields[left]} left"),
            console=console,
            transient=True,
        )
        self.bar = self.add_task("", total=1.0, epoch=1, loss="…", speed="…", left="…")

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield self.curves

    def follow(self, event: Event) -> None:
        if isinstance(event, Started):
            for line in event.run.metrics():  # those from before a run was resumed
                self._add(line)
        elif isinstance(event, TrainingProgress):
            self.update(
                self.bar,
                completed=event.fraction,
                epoch=event.epoch,
                loss=f"error {event.error:.3g}"
                if event.perplexity is None
                else f"ppl {event.perplexity:.3g}",
                speed=f"{event.tokens_per_second:,.0f}",
                left=duration(event.seconds_left),
            )
        elif isinstance(event, Report):
            self._add(asdict(event.metrics))

    def _add(self, line: Mapping[str, Any]) -> None:
        kind = "error" if line.get("train_error") is not None else "perplexity"
        self.curves.add(line["tokens"], line[f"train_{kind}"], line[f"held_out_{kind}"])
