"""Training as a person sees it: a live view on a terminal, plain lines elsewhere. All of it goes to
standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.console import duration, note

if TYPE_CHECKING:
    from rich.status import Status

    from zoo.cli.live import LiveView
    from zoo.training.events import Ended, Event, Finished, Started
    from zoo.training.metrics import Metrics

SECONDS_BETWEEN_LINES = 10.0


def show(events: Iterator[Event], loggers: Sequence[str] = ()) -> Path | None:
    """Renders the events until they end, and returns where the run is then. An interrupt is passed
    on, after a line that says what stands. Of several processes the first speaks."""
    from zoo.training.checkpointing import resume_command
    from zoo.training.distributed import is_first_process
    from zoo.training.events import Ended, Finished, Moved, Opened, Report, Sample, Started

    if not is_first_process():
        for _ in events:
            pass
        return None
    started: Started | None = None
    reading: Status | None = None
    view: LiveView | None = None
    metrics: Metrics | None = None
    finished: Finished | None = None
    ended: Ended | None = None
    last_line = time.monotonic()
    try:
        for event in events:
            if isinstance(event, Opened):
                reading = open_status(f"reading {event.corpus}")
            elif isinstance(event, Started):
                close_view(reading)
                started = event
                note(_introduction(event))
                view = open_view()
            if view is not None:
                view.follow(event)
            if isinstance(event, Report):
                metrics = event.metrics
                if view is None and time.monotonic() - last_line > SECONDS_BETWEEN_LINES:
                    last_line = time.monotonic()
                    note(_figures(metrics))
            elif isinstance(event, Sample):
                text = f"epoch {event.epoch}: {event.text!r}"
                if view is None:
                    note(text)
                else:
                    view.console.print(text, markup=False, highlight=False)
            elif isinstance(event, Moved):
                assert started is not None
                started = replace(started, run=event.run)
            elif isinstance(event, Finished):
                metrics, finished = event.metrics, event
            elif isinstance(event, Ended):
                ended = event
    except KeyboardInterrupt:
        close_view(reading)
        close_view(view)
        if started is not None:
            note(f"interrupted; resume with: {resume_command(started.run.path, loggers)}")
        raise
    finally:
        close_view(reading)
        close_view(view)
    assert started is not None
    path = started.run.path
    if ended is not None:
        note(_spent(ended))
    if metrics is not None:
        note(_figures(metrics))
    if finished is not None:
        note(_kept(finished, started.run.config.training.keep))
    elif metrics is None and started.resumed is not None:
        note("the training of this run has finished; nothing is left to do")
    following = f"zoo export {path}" if started.run.model.causal else f'zoo fill {path} "te_t"'
    if started.run.tokenizer_or_none is None:
        following = f"zoo score {path} {started.run.config.data.corpus_name}"
    note(f"the run is in {path}; next: {following}")
    return path


def open_view() -> LiveView | None:
    """A live view that has begun, where standard error is a terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    from zoo.cli.live import LiveView

    view = LiveView(Console(stderr=True))
    view.start()
    return view


def open_status(text: str) -> Status | None:
    """A line that says what is being done, until it is closed; where standard error is a
    terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.markup import escape

    status = Console(stderr=True).status(escape(text))
    status.start()
    return status


def close_view(view: LiveView | Status | None) -> None:
    if view is not None:
        view.stop()


def _introduction(started: Started) -> str:
    run, training = started.run, started.run.config.training
    model = run.config.model
    options = "".join(f", {key}={value}" for key, value in model.options.items())
    inputs = "one-hot inputs" if model.embedding is None else f"embedding {model.embedding}"
    budgets = ((training.epochs, "epoch"), (training.minutes, "minute"))
    budget = " or ".join(
        f"{count:g} {unit}{'' if count == 1 else 's'}" for count, unit in budgets if count
    )
    stop = (
        ""
        if training.patience is None
        else f", early stopping after {training.patience} evaluations without improvement"
    )
    if training.target_loss is not None:
        stop += f", to a validation loss of {training.target_loss:g}"
    resumed = ""
    if started.resumed is not None:
        resumed = f"\nresuming at epoch {started.resumed.epoch}, step {started.resumed.step}"
    dropout = f"dropout {model.dropout:g}"
    if training.recurrent_dropout:
        dropout += f", recurrent dropout {training.recurrent_dropout:g}"
    return (
        f"{model.cell}: {model.layers} × {model.hidden} hidden units{options}, {inputs}, "
        f"{dropout}, {run.model.parameter_count():,} parameters, on {started.device}\n"
        f"{started.data.what}\n"
        f"{budget}{stop}, {started.data.windows}, {training.optimizer} at "
        f"{training.learning_rate:g} ({training.schedule}), {training.precision}, "
        f"seed {training.seed}{resumed}"
    )


def _figures(metrics: Metrics) -> str:
    """epoch 6  train ppl 2.12  val ppl 3.17 (1.662 bits/char)  acc 69.5 %  44,807 tok/s  0:57"""
    parts = [f"epoch {metrics.epoch}"]
    for part, named in (("train", "train"), ("held_out", "val")):
        perplexity, error = (getattr(metrics, f"{part}_{x}") for x in ("perplexity", "error"))
        if perplexity is not None:
            parts.append(f"{named} ppl {perplexity:.3g}")
        if error is not None:
            parts.append(f"{named} error {error:.3g}")
    if metrics.held_out_bits_per_char is not None:
        parts[-1] += f" ({metrics.held_out_bits_per_char:.3f} bits/char)"
    if metrics.held_out_accuracy is not None:
        parts.append(f"acc {100 * metrics.held_out_accuracy:.1f} %")
    parts += [f"{metrics.tokens_per_second:,.0f} tok/s", duration(metrics.seconds)]
    return "  ".join(parts)


def _spent(ended: Ended) -> str:
    """12.1 s: reading 0.4, starting 2.2, training 8.6, evaluating 0.6, saving 0.3"""
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in ended.phases.items())
    return f"{sum(ended.phases.values()):.1f} s: {parts}"


def _kept(finished: Finished, keep: str) -> str:
    """Which weights the run has now, and whether training stopped early."""
    loss = "training" if finished.metrics.judged_in_training else "validation"
    reason = f"lowest {loss} loss" if keep == "best" else "the last"
    stopped = f"early stopping: the {loss} loss stopped improving; " if finished.early else ""
    metrics = finished.metrics
    return f"{stopped}kept the weights of epoch {metrics.epoch}, step {metrics.step:,} ({reason})"
