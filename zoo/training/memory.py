"""What a training says that has no memory left."""

from __future__ import annotations

from zoo.errors import ZooError, wanted_memory
from zoo.runs.run import Run
from zoo.training.checkpointing import resume_command


def too_large(error: Exception, run: Run, kept: bool) -> ZooError:
    """The error to raise in place of one that says that memory is exhausted; `kept` says whether
    the run's folder can be resumed."""
    training, wanted = run.config.training, wanted_memory(error)
    told = (
        f"out of memory{': ' if wanted else ''}{wanted}; lower --batch-size (it is "
        f"{training.batch_size}; --accumulate makes up for it), --steps ({training.steps}) or "
        f"--hidden ({run.config.model.hidden})."
    )
    if kept:
        told += f" When there is memory, go on from the last save: {resume_command(run.path)}"
    return ZooError(told)
