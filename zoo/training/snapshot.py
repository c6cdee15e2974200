"""All that the rest of a training depends on."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import Field
from torch import Tensor

from zoo.errors import ZooError
from zoo.training.metrics import Metrics
from zoo.validation import FrozenModel

Count = Annotated[int, Field(ge=0, le=2**53)]  # a float holds it too
Seconds = Annotated[float, Field(ge=0, le=1e10)]  # three centuries


class TrainingPosition(FrozenModel):
    """Where training is: what goes into `training.safetensors` beside the tensors.

    `window` windows of epoch `epoch` have been read, `step` in all. `epoch_random` is the position
    of the random numbers that the epoch's windows are cut with, `shown` the tenths of the run that
    a sample was shown of, `meter_windows` and `meter_tokens` what was read since the last line of
    metrics, `meter_began` its `seconds`, and `waited` the lines since the best one. Each evaluation
    reads `evaluation_steps` tokens of each row, which the first one found to take its share of the
    time.
    """

    epoch: int = Field(1, ge=1, le=2**53)
    window: Count = 0
    step: Count = 0
    tokens: Count = 0
    seconds: Seconds = 0.0
    shown: int = Field(0, ge=0, le=10)
    meter_windows: Count = 0
    meter_tokens: Count = 0
    meter_began: Seconds = 0.0
    waited: Count = 0
    evaluation_steps: int | None = Field(None, ge=1, le=2**53)
    epoch_random: dict[str, Any]
    finished: bool = False


class Snapshot(NamedTuple):
    """Everything that the rest of a training depends on: tensors by name, what the optimizer keeps
    beside tensors (see `zoo.training.optimizer_state`), the position, the last line of metrics and
    that of the best weights."""

    tensors: dict[str, Tensor]
    optimizer: Any
    position: TrainingPosition
    last: Metrics | None
    best: Metrics | None


class SnapshotError(ZooError):
    """A snapshot that is damaged, or of another training. The message says what is wrong with it,
    as the end of a sentence about it."""
