"""Inputs for a proof, like the examples that were given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zoo.errors import UsageError
from zoo.inference.engine import Arrays
from zoo_onnx.given import array_of
from zoo_ort.modules import TensorEntry

Inputs = Callable[[np.random.Generator, int], Any] | Iterable[Any]
NOISE = 0.02  # relative, of inputs drawn from the examples
LENGTHS = (1, 2, 3, 7, 16)  # of chunks, in multiples of what a chunk must be


class Draws:
    """Draws the inputs of a step, or of a chunk of several, by name. `given` is a function
    `(rng, batch_size)` or recorded steps; without it, rows of the `examples` [B, …] are drawn, and
    for chunks of them stretches whose lengths are multiples of `multiple_of`."""

    def __init__(
        self,
        entries: Sequence[TensorEntry],
        examples: Sequence[npt.NDArray[Any]],
        given: Inputs | None,
        multiple_of: int = 1,
    ) -> None:
        self._multiple_of, self._chunks = multiple_of, 0
        self._entries, self._examples = entries, examples
        self._function: Any = given if callable(given) else None
        self._steps: list[Any] | None = None
        if given is not None and not callable(given):
            self._steps = [x if isinstance(x, tuple | list | dict) else (x,) for x in given]
            if not self._steps:
                raise UsageError("inputs has no recorded steps; give at least one.")
        self._at = 0

    def __call__(self, rng: np.random.Generator, batch_size: int) -> Arrays:
        """Inputs for a step: what the caller's function draws, the next of the recorded steps, or
        rows of the examples, all inputs of a row from one, half of them with a little noise."""
        if self._function is not None:
            return self._by_name(self._function(rng, batch_size), batch_size)
        if self._steps is not None:
            return self._next_recorded(self._steps, batch_size)
        rows = rng.integers(0, len(self._examples[0]), batch_size)
        noisy = rng.random(batch_size) < 0.5
        found = {
            entry.name: _with_noise(values[rows], values, noisy, rng)
            for entry, values in zip(self._entries, self._examples, strict=True)
        }
        times = {e.name: e.shape.index(None) + 1 for e in self._entries if None in e.shape}
        return found if not times else self._stretch(found, times, rng)

    def _stretch(self, values: Arrays, times: dict[str, int], rng: np.random.Generator) -> Arrays:
        """Steps that follow each other, with the first after the last, from any start."""
        length = self._multiple_of * LENGTHS[self._chunks % len(LENGTHS)]
        self._chunks += 1
        name, axis = next(iter(times.items()))
        start = rng.integers(0, values[name].shape[axis])
        return {
            name: value.take(np.arange(start, start + length), times[name], mode="wrap")
            if name in times
            else value
            for name, value in values.items()
        }

    def _next_recorded(self, steps: list[Any], batch_size: int) -> Arrays:
        """The next recorded step, its rows in turn where the batch has others."""
        step = steps[self._at % len(steps)]
        arrays = [_array(x) for x in (step.values() if isinstance(step, dict) else step)]
        rows = np.arange(batch_size) + self._at // len(steps)
        self._at += 1
        return self._by_name([array[rows % len(array)] for array in arrays], batch_size)

    def _by_name(self, drawn: Any, batch_size: int) -> Arrays:
        """UsageError for what is no inputs of a step."""
        if isinstance(drawn, Tensor | np.ndarray):
            drawn = (drawn,)
        values = list(drawn.values()) if isinstance(drawn, dict) else list(drawn)
        if len(values) != len(self._entries):
            raise UsageError(
                f"inputs must give {len(self._entries)} tensors for a step (got {len(values)})."
            )
        found = {}
        for entry, value in zip(self._entries, values, strict=True):
            array, wanted = _array(value), (batch_size, *entry.shape)
            if len(array.shape) != len(wanted) or any(
                size not in (None, found) for size, found in zip(wanted, array.shape, strict=True)
            ):
                raise UsageError(
                    f"inputs gave {entry.name} with shape {array.shape} instead of {wanted}."
                )
            found[entry.name] = array.astype(entry.dtype)
        return found


def _array(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, Tensor):
        return array_of(value.cpu(), 0) if value.dim() else value.detach().cpu().numpy()
    return np.asarray(value)


def _with_noise(
    rows: npt.NDArray[Any],
    examples: npt.NDArray[Any],
    noisy: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> npt.NDArray[Any]:
    """The rows, with relative noise in those that are `noisy`, where the result has the sign of
    the example and stays between the least and the largest of all. Whole numbers, which may be
    indices or flags in a float, stay as they are."""
    if rows.dtype.kind != "f" or bool((np.nan_to_num(examples) % 1 == 0).all()):
        return rows
    noise = rng.uniform(1 - NOISE, 1 + NOISE, rows.shape).astype(rows.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        moved = rows * noise
        within = (moved >= np.nanmin(examples)) & (moved <= np.nanmax(examples))
    chosen = within & noisy.reshape(-1, *(1,) * (rows.ndim - 1))
    return np.where(chosen, moved, rows).astype(rows.dtype)
