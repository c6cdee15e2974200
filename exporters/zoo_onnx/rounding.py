"""What rounding does to a module itself: its results in float64, and those of inputs and states
that differ in their last bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.errors import UsageError
from zoo.exporting.comparison import Explain
from zoo.inference.engine import Arrays
from zoo_onnx.memory import Attributes
from zoo_onnx.reference import ModuleReference

LAST_BITS = 4  # in the last place, by which inputs are changed to see whether a value is on an edge
NEARBY = 8  # runs with such changes
# Of an output's size, between its dtype and float64: more than rounding does mostly.
LARGE_GAP, LARGE_GAPS = 1e-4, {np.dtype(np.float16): 0.03}


class Rounding:
    """Of a reference that has been described; it must be running."""

    def __init__(self, reference: ModuleReference) -> None:
        self._reference = reference
        self._double = self._in_float64()
        generator = torch.Generator().manual_seed(0)
        self._near_weights = {
            name: _nudged(value, generator, 1) for name, value in reference.tensors.items()
        }

    def precise_step(self, inputs: Arrays, state: Sequence[Tensor]) -> Arrays:
        """Of each output and next state what rounding makes of it that differs most: its result in
        float64, or with other last bits of inputs, state and weights, which stands for sums in
        another order. Where the module has no float64, or computes something else in it, as with an
        epsilon of its dtype, more runs with other last bits take its place."""
        reference = self._reference
        tensors, base = reference.tensors_of(inputs), reference.results(inputs, state)
        generator = torch.Generator().manual_seed(1)
        given, before = ([_nudged(x, generator, 1) for x in values] for values in (tensors, state))
        near = reference.named(reference.call(given, before, self._near_weights))
        if self._double is None:
            return _farther(base, near, self._farthest(base, tensors, state))
        with self._in_double():
            double = reference.named(reference.call(_double(tensors), _double(state), self._double))
        gaps = {name: _gap(value, double[name]) for name, value in base.items()}
        large = {
            name: gap > LARGE_GAPS.get(base[name].dtype, LARGE_GAP) * _size(base[name])
            for name, gap in gaps.items()
        }
        if any(far.any() for far in large.values()):
            others = self._farthest(base, tensors, state)
            double = {
                name: np.where(far & (_gap(base[name], others[name]) < gaps[name]),
                               others[name], double[name])
                for name, far in large.items()
            }  # fmt: skip
        return _farther(base, near, double)

    def _farthest(self, base: Arrays, tensors: Sequence[Tensor], state: Sequence[Tensor]) -> Arrays:
        far = dict(base)
        for near in self._nearby(tensors, state):
            far = _farther(base, near, far)
        return far

    def explain(self, inputs: Arrays, state: Sequence[Tensor]) -> Explain:
        """See `zoo.exporting.comparison`: whether inputs and a state that differ in their last bits
        give the other value too."""
        reference = self._reference
        runs: list[Arrays] = []

        def explained(
            name: str, wrong: npt.NDArray[np.bool_], found: npt.NDArray[Any]
        ) -> npt.NDArray[np.bool_]:
            if not runs:
                tensors = reference.tensors_of(inputs)
                runs.append(reference.results(inputs, state))
                runs.extend(self._nearby(tensors, state))
            values = np.stack([run[name] for run in runs])
            if found.dtype.kind in "biu":
                on_edge: npt.NDArray[np.bool_] = wrong & (values == found).any(0)
                return on_edge
            low, high = np.fmin.reduce(values, 0), np.fmax.reduce(values, 0)
            with np.errstate(invalid="ignore", over="ignore"):
                pad = 1e-3 * (high - low)
                between: npt.NDArray[np.bool_] = (
                    wrong & (low < high) & (found >= low - pad) & (found <= high + pad)
                )
            return between

        return explained

    def _in_float64(self) -> dict[str, Tensor] | None:
        """Weights in float64; None where the module does not compute with them."""
        reference = self._reference
        double = {
            name: value.double() if value.is_floating_point() else value
            for name, value in reference.tensors.items()
        }
        given = (*reference.inputs, *reference.initial)
        if not any(x.is_floating_point() for x in (*double.values(), *given)):
            return double
        try:
            with self._in_double():
                outputs, after = reference.call(
                    _double(reference.inputs), _double(reference.initial), double
                )
        except UsageError:
            return None
        same = [x.shape for x in after] == [x.shape for x in reference.initial]
        floats = [x for x in (*outputs, *after) if x.is_floating_point()]
        return double if same and any(x.dtype == torch.float64 for x in floats) else None

    @contextmanager
    def _in_double(self) -> Iterator[None]:
        """Tensors that the module makes for itself are float64 too; what it keeps is not kept."""
        before = torch.get_default_dtype()
        kept = Attributes(self._reference.module) if self._reference.remembered else None
        torch.set_default_dtype(torch.float64)
        try:
            if kept is not None:
                self._reference.attributes.put_back()
            yield
        finally:
            torch.set_default_dtype(before)
            if kept is not None:
                kept.put_back()

    def _nearby(self, tensors: Sequence[Tensor], state: Sequence[Tensor]) -> Iterator[Arrays]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(NEARBY):
            given, before = (
                [_nudged(x, generator, LAST_BITS) for x in values] for values in (tensors, state)
            )
            yield self._reference.named(
                self._reference.call(given, before, self._reference.tensors)
            )


def _gap(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """How far two arrays are apart; 0 where that is no number, and for integers."""
    if one.dtype.kind != "f":
        return np.zeros(one.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(one.astype(np.float64) - other)
    return np.where(np.isfinite(gap), gap, 0.0)


def _size(values: npt.NDArray[Any]) -> float:
    if values.dtype.kind != "f":
        return 0.0
    return float(
        np.abs(values, where=np.isfinite(values), out=np.zeros(values.shape)).max(initial=0)
    )


def _farther(base: Arrays, one: Arrays, other: Arrays) -> Arrays:
    """Of two results the one that differs more from `base`, elementwise."""
    found = {}
    for name, value in base.items():
        if value.dtype.kind == "f":
            farther = _gap(value, one[name]) > _gap(value, other[name])
        else:
            farther = one[name] != value
        found[name] = np.where(farther, one[name], other[name])
    return found


def _nudged(tensor: Tensor, generator: torch.Generator, bits: int) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    size = bits * torch.finfo(tensor.dtype).eps
    noise = (2 * torch.rand(tensor.shape, generator=generator) - 1).to(tensor.dtype)
    return torch.where(tensor.isfinite(), tensor * (1 + size * noise), tensor)


def _double(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [x.double() if x.is_floating_point() else x for x in tensors]
