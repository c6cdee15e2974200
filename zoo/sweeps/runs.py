"""The runs of a sweep: how each is trained, and the row of the table that it gives."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from zoo.config import Interface, RunConfig
from zoo.errors import CorpusError, ProviderError, UnknownNameError
from zoo.models.parameter_budget import count_parameters, count_state_bytes, largest_hidden
from zoo.recipes import load_recipe
from zoo.registry.attribution import describe_error
from zoo.registry.cell_spec import CellSpec
from zoo.registry.registry import Registry
from zoo.runs.metadata import CONFIG, read_record
from zoo.runs.run import read_interface
from zoo.sweeps.events import RunStarted, SweepEvent
from zoo.sweeps.manifest import Manifest
from zoo.sweeps.table import Row
from zoo.training.defaults import multiplied_rate
from zoo.training.events import Event, Moved
from zoo.training.experiment import resume_events, train_events

EVEN = {"recurrent_dropout": 0.0}  # unless it is given: not every cell has what it drops


@dataclass(frozen=True)
class Runs:
    """What the runs of a sweep have in common. It can be sent to another process."""

    recipe: str | None
    settings: dict[str, Any]
    manifest: Manifest
    interface: Interface

    def row(self, run: RunStarted, registry: Registry) -> Generator[SweepEvent, None, Row]:
        """Trains the run, if it has not ended before, and reads its row. An error that concerns
        this run alone is the row's; CorpusError, ProviderError and UnknownNameError are raised."""
        spec = registry.cells[run.cell]
        try:
            with closing(self._train(run, spec, registry)) as events:  # type: ignore[type-var]
                for event in events:
                    if isinstance(event, Moved):
                        run = replace(run, folder=event.run.path)
                    yield event
            return _read_row(run, spec, registry)
        except (CorpusError, ProviderError, UnknownNameError):  # the other runs would meet the same
            raise
        except Exception as error:
            return failed_row(run, spec, describe_error(error, registry))

    def _train(self, run: RunStarted, spec: CellSpec, registry: Registry) -> Iterator[Event]:
        given = self.manifest.given
        if not (run.folder / CONFIG).is_file():
            own = {**EVEN, **self.settings, **self.manifest.chosen}
            own |= {"cell": spec.name, "seed": run.seed}
            rate = given["learning_rate"]
            if rate is None:
                rate = multiplied_rate(spec.learning_rate, self.manifest.rate_multiplier)
            own["learning_rate"] = rate * run.factor
            if (parameters := given["parameters"]) is not None:
                chosen = load_recipe(self.recipe, registry) if self.recipe is not None else None
                model = RunConfig.build(own, chosen).model
                own["hidden"] = largest_hidden(parameters, model, spec, self.interface, registry)
            elif given["hidden"] is None:
                sizes = spec.sizes_taken(own.get("options") or {}, registry)
                own["hidden"] = sizes.nearest(own["hidden"])
            yield from train_events(recipe=self.recipe, out=run.folder, registry=registry, **own)
        elif not read_record(run.folder).finished:
            yield from resume_events(run.folder, registry)


def failed_row(run: RunStarted, spec: CellSpec, reason: str) -> Row:
    """The row of a run that failed."""
    return Row(cell=spec.name, seed=run.seed, causal=spec.causal, run=run.folder.name, error=reason)


def _read_row(run: RunStarted, spec: CellSpec, registry: Registry) -> Row:
    """The row of a run that has ended."""
    record = read_record(run.folder)
    _, interface = read_interface(run.folder, record.config, registry)
    model, last = record.config.model, record.metrics[-1]
    return Row(
        cell=spec.name,
        seed=record.config.training.seed,
        causal=spec.causal,
        hidden=model.hidden,
        layers=model.layers,
        parameters=count_parameters(model, interface, registry),
        state_bytes=count_state_bytes(model, interface, registry),
        year=spec.card.year,
        tokens=last["tokens"],
        seconds=last["seconds"],
        tokens_per_second=median(line["tokens_per_second"] for line in record.metrics),
        learning_rate=record.config.training.learning_rate,
        rate_factor=run.factor,
        held_out_bits_per_char=record.best("held_out_bits_per_char"),
        held_out_bits_per_token=record.best("held_out_bits_per_token"),
        held_out_accuracy=record.highest("held_out_accuracy"),
        held_out_error=record.best("held_out_error"),
        train_bits_per_char=last.get("train_bits_per_char"),  # not there in an older run
        run=run.folder.name,
    )
