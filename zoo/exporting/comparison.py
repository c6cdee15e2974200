"""Comparing what two engines compute, each output element against its own scale.

Integers and booleans must be equal. A float may differ by `tolerance` of its own size and of its
element's over all rows and steps, and by a few times what rounding does to the reference itself:
its float32 and float64 results from the same state. So a small output beside a large one is seen,
in one tensor or beside a spike. A state may differ by no more than a hundredth of how far it moves:
one that stands still is seen, however large it is. Needs no torch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import VerificationError
from zoo.inference.engine import Arrays

# Two float32 computations differ by a few times what each differs from float64.
OWN_ROUNDING = 4.0
TYPICAL = 0.5  # quantile of an element's sizes over rows and steps
OF_LARGEST = 0.1  # an element is at least this share of its largest value in size
OF_MOVE = 0.01  # of how far a state moves in a step
MAX_KEPT = 2**21  # numbers that are kept of an output to take that quantile of
# So many, and such a share of an output's values, end a proof before its end.
SURELY_MANY, MANY_TIES = 100, 0.1
MIN_TIES = 2
SURPRISES = 8  # after which a proof is judged before its end
JUMP = 100  # times what is allowed: more than rounding, as at an edge
TOLERANCES = {
    np.dtype(np.float16): 2e-3,  # two steps of its last bit
    np.dtype(np.float64): 1e-10,
}

OVERFLOWS = np.errstate(invalid="ignore", over="ignore")  # of numbers near the largest

Times = Mapping[str, tuple[int, ...]]
Explain = Callable[[str, npt.NDArray[np.bool_], npt.NDArray[Any]], npt.NDArray[np.bool_]]


@dataclass
class _Sample:
    """Some of an output's rows and steps, evenly spaced."""

    parts: list[npt.NDArray[np.float64]] = field(default_factory=list)
    every: int = 1
    kept: int = 0

    def add(self, rows: npt.NDArray[Any]) -> None:
        self.parts.append(rows[:: self.every].copy())
        self.kept += self.parts[-1].size
        if self.kept > MAX_KEPT:
            self.every *= 2
            self.parts = [np.concatenate(self.parts)[::2]]
            self.kept = self.parts[0].size

    def quantile(self, share: float) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = np.quantile(np.concatenate(self.parts), share, axis=0)
        return found


@dataclass
class _Output:
    """What is known of one output: arrays have its shape without rows and steps."""

    dtype: np.dtype[Any]
    points: int
    largest: npt.NDArray[np.float64]
    rounding: npt.NDArray[np.float64]
    excess: npt.NDArray[np.float64]
    wanted: npt.NDArray[np.float64]
    found: npt.NDArray[np.float64]
    where: npt.NDArray[np.object_]
    allowances: _Sample = field(default_factory=_Sample)
    ties: int = 0
    edges: int = 0
    surprises: int = 0  # steps with a large difference that the last bits do not explain

    @property
    def values(self) -> int:
        return self.points * math.prod(self.largest.shape)


class Comparison:
    """Collects pairs of results by `add`; `judge` says whether they are the same. Elements may
    differ by `floor` of the largest in their output, where all of them are of one kind."""

    def __init__(self, tolerance: float, floor: float = 0.0) -> None:
        self._tolerance, self._floor = tolerance, floor
        self._outputs: dict[str, _Output] = {}

    @property
    def ties(self) -> int:
        """Values that only the rounding of the inputs decides otherwise."""
        return sum(output.ties for output in self._outputs.values())

    def add(
        self,
        wanted: Arrays,
        found: Arrays,
        precise: Arrays,
        where: str,
        *,
        times: Times | None = None,
        before: Arrays | None = None,
        explain: Explain | None = None,
    ) -> None:
        """The results of one step, all from the same state: the reference's, the candidate's, and
        the reference's in float64. The first axis are the rows; `times` are by name the axes of
        outputs that are steps; `before` is the state, by the names of the next.

        `explain` says of values that differ whether the reference gives them too for inputs that
        differ in their last bits. Raises VerificationError for other names, shapes or dtypes, for
        integers that differ, and for values that are not finite in one of the two only.
        """
        require_same_form(wanted, found, where)
        for name, value in wanted.items():
            other = found[name]
            same = (value == other) | (_is_nan(value) & _is_nan(other))
            repeated = (0, *(times or {}).get(name, ()))
            output = self._output(name, value, repeated)
            output.points += math.prod(value.shape[axis] for axis in repeated)
            if value.dtype.kind in "biu":
                wrong = ~same
                output.edges += int((value != precise[name]).sum())
            else:
                wrong = ~same & ~(np.isfinite(value) & np.isfinite(other))
            if wrong.any() and explain is not None:
                explained = wrong & explain(name, wrong, other)
                output.ties += int(explained.sum())
                wrong &= ~explained
            if wrong.any():
                raise _different(name, value, other, tuple(np.argwhere(wrong)[0]), where)
            if value.dtype.kind == "f":
                start = None if before is None else before.get(name)
                self._measure(
                    name, output, value, other, precise[name], start, where, repeated, explain
                )
            if output.surprises >= SURPRISES:
                output.surprises = 0
                self.judge()
            if output.ties > max(SURELY_MANY, MANY_TIES * output.values):
                raise _too_many_ties(name, output)

    def _output(self, name: str, value: npt.NDArray[Any], repeated: tuple[int, ...]) -> _Output:
        if name not in self._outputs:
            shape = tuple(n for axis, n in enumerate(value.shape) if axis not in repeated)
            self._outputs[name] = _Output(
                value.dtype,
                0,
                largest=np.zeros(shape),
                rounding=np.zeros(shape),
                excess=np.zeros(shape),
                wanted=np.zeros(shape),
                found=np.zeros(shape),
                where=np.full(shape, "", object),
            )
        return self._outputs[name]

    @OVERFLOWS
    def _measure(
        self,
        name: str,
        output: _Output,
        value: npt.NDArray[Any],
        other: npt.NDArray[Any],
        precise: npt.NDArray[Any],
        before: npt.NDArray[Any] | None,
        where: str,
        repeated: tuple[int, ...],
        explain: Explain | None,
    ) -> None:
        wanted, found = value.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(wanted) & np.isfinite(found)
        difference = np.where(finite, np.abs(wanted - found), 0.0)
        gap = np.abs(wanted - precise)
        allowance = self._share(output.dtype) * np.abs(wanted)
        if before is not None:
            allowance = np.fmin(allowance, OF_MOVE * np.abs(wanted - before))
        gap = np.where(np.isfinite(gap), gap, 0.0)
        allowance = np.where(np.isfinite(allowance), allowance, 0.0)

        def rows(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            moved = np.moveaxis(values, repeated, range(len(repeated)))
            return moved.reshape(-1, *output.largest.shape)

        output.largest = np.maximum(output.largest, rows(allowance).max(0, initial=0.0))
        excess = difference - OWN_ROUNDING * gap - allowance
        excess = np.where(np.isnan(excess), np.inf, excess)  # nothing allows for what overflows
        output.allowances.add(rows(allowance))
        output.rounding = np.maximum(output.rounding, rows(gap).max(0, initial=0.0))
        if explain is not None:
            jump = JUMP * np.maximum(np.expand_dims(output.largest, repeated), allowance)
            output.edges += int((gap > jump).sum())
            suspect = excess > jump
            if suspect.any():
                suspect &= excess > OWN_ROUNDING * np.expand_dims(output.rounding, repeated)
            if suspect.any():
                explained = suspect & explain(name, suspect, other)
                output.ties += int(explained.sum())
                output.surprises += bool((suspect & ~explained).any())
                excess = np.where(explained, 0.0, excess)
        flat = rows(excess)
        worst = flat.argmax(0)
        highest = np.take_along_axis(flat, worst[None], 0)[0]
        larger = highest > output.excess
        if larger.any():
            output.excess = np.where(larger, highest, output.excess)
            for place, now in ((output.wanted, wanted), (output.found, found)):
                chosen = np.take_along_axis(rows(now), worst[None], 0)[0]
                np.copyto(place, chosen, where=larger)
            output.where[larger] = where

    def _share(self, dtype: np.dtype[Any]) -> float:
        return TOLERANCES.get(dtype, self._tolerance) if self._tolerance < 1e-3 else self._tolerance

    @OVERFLOWS
    def judge(self) -> None:
        """VerificationError, with the worst element, unless every output is the same."""
        for name, output in self._outputs.items():
            if output.ties > _most_ties(output):
                raise _too_many_ties(name, output)
            if not output.allowances.parts:
                continue
            own = output.rounding
            # an element that is always 0 has no size of its own: rounding is that of the others
            own = np.where(output.largest == 0, own.max(initial=0.0), own)
            allowed = output.allowances.quantile(TYPICAL)
            allowed = np.maximum(allowed, OF_LARGEST * output.largest) + OWN_ROUNDING * own
            allowed += self._floor / self._share(output.dtype) * output.largest.max(initial=0.0)
            over = output.excess - np.minimum(allowed, sys.float_info.max)
            if (over > 0).any():
                index = np.unravel_index(np.argmax(over / np.maximum(allowed, 1e-300)), over.shape)
                wanted, found = output.wanted[index], output.found[index]
                raise VerificationError(
                    f"{name}{_shown(index)} is {found:.9g} and should be {wanted:.9g} "
                    f"{output.where[index]}: it differs by {abs(wanted - found):.2g} (allowed: "
                    f"{allowed[index]:.2g})."
                )


def _most_ties(output: _Output) -> int:
    """A few times the values that the reference in float64 decides otherwise."""
    return int(max(MIN_TIES, OWN_ROUNDING * output.edges))


def _too_many_ties(name: str, output: _Output) -> VerificationError:
    return VerificationError(
        f"{name} differs in {output.ties} of {output.values} values where the last bits of the "
        f"inputs decide; at most {_most_ties(output)} are expected."
    )


@OVERFLOWS
def relative_difference(
    reference: npt.NDArray[np.generic], found: npt.NDArray[np.generic]
) -> float:
    """The largest absolute difference, divided by the largest reference value where that exceeds 1.
    Infinities and NaN that both have are equal; any other value that is not finite gives the
    largest float there is."""
    wanted, other = reference.astype(np.float64), found.astype(np.float64)
    both = (np.isinf(wanted) & (wanted == other)) | (np.isnan(wanted) & np.isnan(other))
    wanted, other = wanted[~both], other[~both]
    gap = np.abs(wanted - other).max(initial=0.0)
    size = max(1.0, np.abs(wanted).max(initial=0.0))
    finite = np.isfinite(gap) and np.isfinite(size)
    return float(gap / size) if finite else sys.float_info.max


def largest_difference(wanted: Arrays, found: Arrays) -> float:
    return max(
        (relative_difference(value, found[name]) for name, value in wanted.items()), default=0
    )


def require_same_form(wanted: Arrays, found: Arrays, where: str) -> None:
    """VerificationError unless names, shapes and dtypes are the same."""
    if list(wanted) != list(found):
        raise VerificationError(f"outputs are {list(found)} and should be {list(wanted)}, {where}.")
    for name, reference in wanted.items():
        value = found[name]
        if value.shape != reference.shape:
            raise VerificationError(
                f"{name} has shape {value.shape} and should have {reference.shape}, {where}."
            )
        if value.dtype != reference.dtype:
            raise VerificationError(
                f"{name} is {value.dtype} and should be {reference.dtype}, {where}."
            )


def _different(
    name: str, wanted: npt.NDArray[Any], found: npt.NDArray[Any], index: tuple[int, ...], where: str
) -> VerificationError:
    return VerificationError(
        f"{name}{_shown(index)} is {found[index]} and should be {wanted[index]}, {where}."
    )


def _shown(index: tuple[Any, ...]) -> str:
    return f"[{', '.join(str(int(number)) for number in index)}]" if index else ""


def _is_nan(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
