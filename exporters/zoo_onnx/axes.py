"""Where the batch and time axes of inputs, outputs and states stand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from zoo.errors import UsageError
from zoo_onnx import trees


@dataclass(frozen=True)
class Axes:
    """The batch axes of a module's inputs, outputs and states; and for a module over sequences the
    time axis of each input, with the batch as the first axis. None for an input that has none."""

    inputs: tuple[int, ...]
    output: int
    states: tuple[int, ...]
    times: tuple[int | None, ...]

    @property
    def over_time(self) -> bool:
        return any(axis is not None for axis in self.times)


def find_axes(
    module: nn.Module, inputs: int, form: trees.Form, batch_axis: Any, time_axis: Any
) -> Axes:
    """`batch_axis` and `time_axis` as `export_step` and `export_sequence` take them; time_axis is
    None for a step. UsageError for those that do not fit."""
    own = 1 if isinstance(module, nn.RNNBase) and not module.batch_first else 0
    if batch_axis is None:
        batch_axis = 1 if isinstance(module, nn.RNNBase) else 0
    times = time_axis if isinstance(time_axis, Sequence) else [time_axis] * inputs
    if len(times) != inputs or any(
        axis is not None and (not isinstance(axis, int) or axis < 1) for axis in times
    ):
        raise UsageError(
            f"time_axis must be a number from 1, or one for each of the {inputs} inputs (None for "
            f"one that has no time): 1 for [batch, time, …]."
        )
    return Axes((own,) * inputs, own, tuple(_of_states(batch_axis, form)), tuple(times))


def _of_states(given: Any, form: trees.Form) -> Iterator[int]:
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        yield from itertools.repeat(given, form.leaves)
        return
    parts = trees.children(given)
    if form.make is None or parts is None or tuple(map(str, parts[0])) != form.keys:
        raise UsageError(
            "batch_axis must be a number, or numbers in the form of the state: 1 for torch.nn's "
            "[layers, batch, hidden]."
        )
    for part, child in zip(parts[1], form.children, strict=True):
        yield from _of_states(part, child)


def open_shape(tensor: Tensor, batch: int, time: int | None) -> tuple[int | None, ...]:
    """Its shape without the batch; None for the time axis (counted with the batch first)."""
    shape: list[int | None] = [*tensor.shape[:batch], *tensor.shape[batch + 1 :]]
    if time is not None:
        shape[time - 1] = None
    return tuple(shape)
