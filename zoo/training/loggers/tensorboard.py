"""Training as TensorBoard shows it: event files, written as the events of training pass by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError
from zoo.training.events import Event, Moved, Report, Sample, Started

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER, TRAINING, HELD_OUT = "tensorboard", "training", "held-out"
# TensorBoard draws equal names of different folders into one chart.
CURVES = {
    TRAINING: {
        "perplexity": "train_perplexity",
        "bits_per_char": "train_bits_per_char",
        "error": "train_error",
        "learning_rate": "learning_rate",
        "tokens_per_second": "tokens_per_second",
    },
    HELD_OUT: {
        "perplexity": "held_out_perplexity",
        "bits_per_char": "held_out_bits_per_char",
        "error": "held_out_error",
        "accuracy": "held_out_accuracy",
    },
}


def write_tensorboard(events: Iterator[Event]) -> Iterator[Event]:
    """The events of `zoo.train_events` or `zoo.resume_events`, each passed on after what it says
    has been written for TensorBoard, into the folder `tensorboard` of the run.

    Curves are drawn over steps, which are windows. A run that is resumed hides what was written
    after its last save; one that had no event files, or has moved to another folder, gets the
    curves from its metrics first. Raises UsageError, before anything is trained, where the
    tensorboard package is missing.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError(
            "TensorBoard's event files need one more package; "
            'install it with: pip install "recurrent-zoo[tensorboard]"'
        ) from None
    return _write(events)


def _write(events: Iterator[Event]) -> Iterator[Event]:
    with closing(events), ExitStack() as opened:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Started):
                started, written = event, set[int]()
                writers = _open(event, opened)
                step = event.resumed.step if event.resumed is not None else 0
            elif isinstance(event, Moved):
                writers = _open(replace(started, run=event.run), opened)
                written = {line["step"] for line in event.run.metrics()}
            elif isinstance(event, Report):
                step = event.metrics.step
                if step not in written:
                    _write_figures(writers, asdict(event.metrics))
            elif isinstance(event, Sample):
                text = "".join(f"    {line}\n" for line in event.text.split("\n"))  # as it stands
                writers[TRAINING].add_text("sample", text, step)
                writers[TRAINING].flush()
            yield event


def _open(started: Started, opened: ExitStack) -> dict[str, SummaryWriter]:
    """The writer of each folder."""
    from torch.utils.tensorboard import SummaryWriter

    folder = started.run.path.resolve() / FOLDER
    begun = folder.is_dir()
    purge = started.resumed.step + 1 if started.resumed is not None and begun else None
    writers = {}
    for part in CURVES if started.held_out_tokens else (TRAINING,):
        writers[part] = SummaryWriter(folder / part, purge_step=purge)
        opened.callback(writers[part].close)
    if not begun:
        for line in started.run.metrics():
            _write_figures(writers, line)
    return writers


def _write_figures(writers: dict[str, SummaryWriter], line: dict[str, Any]) -> None:
    """A line of metrics; one of an older run may lack a figure. All of it is on the disk before
    training continues: a run that fails early is removed, and closing a writer must then find
    nothing left to write."""
    for part, writer in writers.items():
        for tag, name in CURVES[part].items():
            if (value := line.get(name)) is not None:
                writer.add_scalar(tag, value, line["step"])
        writer.flush()
