"""All that the rest of a training depends on."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import Field
from torch import Tensor

from zoo.config import FrozenModel
from zoo.training.metrics import Metrics


class TrainingPosition(FrozenModel):
    """Where training is: what goes into `training.safetensors` beside the tensors.

    `window` windows of epoch `epoch` have been read, `step` in all. `epoch_random` is the position
    of the random numbers that the epoch's windows are cut with, `shown` the tenths of the run that
    a sample was shown of, `meter_windows` and `meter_tokens` what was read since the last line of
    metrics, `meter_began` its `seconds`, and `waited` the lines since the best one.
    """

    epoch: int = Field(1, ge=1)
    window: int = Field(0, ge=0)
    step: int = Field(0, ge=0)
    tokens: int = Field(0, ge=0)
    seconds: float = Field(0.0, ge=0)
    shown: int = Field(0, ge=0)
    meter_windows: int = Field(0, ge=0)
    meter_tokens: int = Field(0, ge=0)
    meter_began: float = Field(0.0, ge=0)
    waited: int = Field(0, ge=0)
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
