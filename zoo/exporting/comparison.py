"""Comparing what two engines compute, each output element against its own scale.

Integers and booleans must be equal. A float may differ by `tolerance` of the largest value that its
element has over all rows and steps, and by a few times what rounding does to the reference itself:
its float32 and float64 results from the same state. So a small output beside a large one in one
tensor is seen. Needs no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import VerificationError
from zoo.inference.engine import Arrays

# Two float32 computations differ by a few times what each differs from float64.
OWN_ROUNDING = 4.0
TYPICAL = 0.9  # quantile of the reference's own rounding over rows and steps
MAX_GAPS = 2**22  # numbers that are kept of an output to take that quantile of
# Share of an output's values that may lie on an edge (of a rounding, say) where the last bit of the
# input decides; the shares are of all its values over the steps.
MAX_TIES = 0.002
JUMP = 1e-3  # of an element's scale: more than rounding, as at an edge
TOLERANCES = {
    np.dtype(np.float16): 2e-3,  # two steps of its last bit
    np.dtype(np.float64): 1e-10,
}

Explain = Callable[[str, npt.NDArray[np.bool_], npt.NDArray[Any]], npt.NDArray[np.bool_]]


@dataclass
class _Output:
    """What is known of one output: arrays have its shape without rows and steps."""

    dtype: np.dtype[Any]
    points: int
    scale: npt.NDArray[np.float64]
    excess: npt.NDArray[np.float64]
    wanted: npt.NDArray[np.float64]
    found: npt.NDArray[np.float64]
    where: npt.NDArray[np.object_]
    gaps: list[npt.NDArray[np.float32]] = field(default_factory=list)
    every: int = 1
    ties: int = 0


class Comparison:
    """Collects pairs of results by `add`; `judge` says whether they are the same."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
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
        leading: int = 1,
        explain: Explain | None = None,
    ) -> None:
        """The results of one step, all from the same state: the reference's, the candidate's, and
        the reference's in float64. The first `leading` axes are rows (or steps and rows).

        `explain` says of values that differ whether the reference gives them too for inputs that
        differ in their last bits. Raises VerificationError for other names, shapes or dtypes, for
        integers that differ, and for values that are not finite in one of the two only.
        """
        require_same_form(wanted, found, where)
        for name, value in wanted.items():
            other = found[name]
            same = (value == other) | (_is_nan(value) & _is_nan(other))
            output = self._output(name, value, leading)
            output.points += int(np.prod(value.shape[:leading]))
            if value.dtype.kind in "biu":
                wrong = ~same
            else:
                wrong = ~same & ~(np.isfinite(value) & np.isfinite(other))
            if wrong.any() and explain is not None:
                explained = wrong & explain(name, wrong, other)
                output.ties += int(explained.sum())
                wrong &= ~explained
            if wrong.any():
                raise _different(name, value, other, tuple(np.argwhere(wrong)[0]), where)
            if value.dtype.kind == "f":
                gap = np.abs(value.astype(np.float64) - precise[name])
                self._measure(name, output, value, other, gap, where, leading, explain)

    def _output(self, name: str, value: npt.NDArray[Any], leading: int) -> _Output:
        if name not in self._outputs:
            shape = value.shape[leading:]
            self._outputs[name] = _Output(
                value.dtype,
                0,
                scale=np.zeros(shape),
                excess=np.zeros(shape),
                wanted=np.zeros(shape),
                found=np.zeros(shape),
                where=np.full(shape, "", object),
            )
        return self._outputs[name]

    def _measure(
        self,
        name: str,
        output: _Output,
        value: npt.NDArray[Any],
        other: npt.NDArray[Any],
        gap: npt.NDArray[np.float64],
        where: str,
        leading: int,
        explain: Explain | None,
    ) -> None:
        wanted, found = value.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(wanted) & np.isfinite(found)
        gap = np.where(np.isfinite(gap), gap, 0.0)
        with np.errstate(invalid="ignore"):
            difference = np.where(finite, np.abs(wanted - found), 0.0)
        size = np.where(finite, np.abs(wanted), 0.0)
        shape = output.scale.shape
        rows = (-1, *shape)
        output.scale = np.maximum(output.scale, size.reshape(rows).max(0, initial=0.0))
        excess = difference - OWN_ROUNDING * gap
        if explain is not None:
            suspect = excess > JUMP * np.maximum(output.scale, size)
            if suspect.any():
                explained = suspect & explain(name, suspect, other)
                output.ties += int(explained.sum())
                excess = np.where(explained, 0.0, excess)
        flat = excess.reshape(rows)
        worst = flat.argmax(0)
        highest = np.take_along_axis(flat, worst[None], 0)[0]
        larger = highest > output.excess
        if larger.any():
            output.excess = np.where(larger, highest, output.excess)
            for place, now in ((output.wanted, wanted), (output.found, found)):
                chosen = np.take_along_axis(now.reshape(rows), worst[None], 0)[0]
                np.copyto(place, chosen, where=larger)
            output.where[larger] = where
        kept = gap.reshape(rows).astype(np.float32)[:: output.every]
        output.gaps.append(kept)
        if sum(part.size for part in output.gaps) > MAX_GAPS:
            output.every *= 2
            output.gaps = [np.concatenate(output.gaps)[::2]]

    def _allowance(self, dtype: np.dtype[Any]) -> float:
        return TOLERANCES.get(dtype, self._tolerance) if self._tolerance < 1e-3 else self._tolerance

    def judge(self) -> None:
        """VerificationError, with the worst element, unless every output is the same."""
        for name, output in self._outputs.items():
            count = output.points * int(np.prod(output.scale.shape))
            if output.ties > max(2, MAX_TIES * count):
                raise VerificationError(
                    f"{name} differs in {output.ties} of {count} values where the last bits of the "
                    f"inputs decide; at most {int(max(2, MAX_TIES * count))} are expected."
                )
            if not output.gaps:
                continue
            own = np.quantile(np.concatenate(output.gaps), TYPICAL, axis=0)
            allowance = self._allowance(output.dtype)
            allowed = allowance * output.scale + OWN_ROUNDING * own
            over = output.excess - allowed
            if (over > 0).any():
                index = np.unravel_index(np.argmax(over / np.maximum(allowed, 1e-300)), over.shape)
                wanted, found = output.wanted[index], output.found[index]
                raise VerificationError(
                    f"{name}{_shown(index)} is {found:.9g} and should be {wanted:.9g} "
                    f"{output.where[index]}: it differs by {abs(wanted - found):.2g} (allowed: "
                    f"{allowed[index]:.2g}, as its values reach {output.scale[index]:.2g})."
                )


def relative_difference(
    reference: npt.NDArray[np.generic], found: npt.NDArray[np.generic]
) -> float:
    """The largest absolute difference, divided by the largest reference value where that exceeds
    1. Equal infinities, as an initial state may have them,
    are equal; any other value that is not finite gives the largest float there is."""
    wanted, other = reference.astype(np.float64), found.astype(np.float64)
    both = np.isinf(wanted) & (wanted == other)
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
