"""Whether a module is a step of a recurrence: nothing is remembered beside its state, nothing is
random, and each row of a batch is computed by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.errors import UsageError
from zoo.inference.engine import Arrays
from zoo_onnx.draws import Draws
from zoo_onnx.given import array_of
from zoo_onnx.memory import Attributes
from zoo_onnx.reference import ModuleReference
from zoo_onnx.rounding import Rounding

# Attributes that torch's own modules change: references to what they hold elsewhere.
TORCHS_OWN = frozenset(
    ("training", "_buffers", "_parameters", "_modules", "_flat_weights", "_flat_weight_refs")
)
# What another batch size may do to a result, as a share of the largest.
ROUNDING, HALF_ROUNDING = 1e-5, 2e-3
CALLS = 4  # between two of the same arguments


def require_no_memory(reference: ModuleReference, draw: Draws) -> None:
    """Calls the module with the same arguments before and after others: if the results differ,
    something beside the state remembers, or is random."""
    reference.attributes.put_back()
    tensors = dict(reference.tensors)
    rng, rows = np.random.default_rng(0), reference.rows

    def others() -> list[Tensor]:
        return reference.tensors_of(draw(rng, rows))

    _, reached = reference.call(others(), reference.initial)
    _forget(reference, tensors)
    first = reference.named(reference.call(reference.inputs, reached))
    reference.remembered = _changed(reference, tensors)
    state = reached
    for _ in range(CALLS):
        _, state = reference.call(others(), state)
    again = reference.named(reference.call(reference.inputs, reached))
    changed = _changed(reference, tensors)
    if not _are_equal(first, again) and not changed:
        raise UsageError(
            f"{reference.called} gives another result for the same inputs and state: it draws "
            f"random numbers, or depends on what is neither input nor state. Make that an input."
        )
    if not _are_equal(first, again):
        telling = _influential(reference, changed, tensors, reached, first)
        raise UsageError(
            f"{reference.called} remembers {' and '.join(telling[:3])} from step to step beside "
            f"its state; make {'it' if len(telling) == 1 else 'them'} part of the state."
        )
    _forget(reference, tensors)


def _forget(reference: ModuleReference, tensors: dict[str, Tensor]) -> None:
    reference.attributes.put_back()
    reference.tensors = dict(tensors)


def _changed(reference: ModuleReference, tensors: dict[str, Tensor]) -> list[str]:
    """Attributes and buffers that hold something else than in `tensors` and at the start."""
    buffers = [
        name
        for name in tensors
        if not torch.equal(reference.tensors[name].nan_to_num(), tensors[name].nan_to_num())
    ]
    attributes = [
        name for name in reference.attributes.changed() if name.rpartition(".")[2] not in TORCHS_OWN
    ]
    return [*buffers, *attributes]


def _influential(
    reference: ModuleReference,
    changed: Sequence[str],
    tensors: dict[str, Tensor],
    state: Sequence[Tensor],
    first: Arrays,
) -> list[str]:
    """Those of the changed that change the results when only they are kept."""
    later, kept = dict(reference.tensors), Attributes(reference.module)
    found = []
    for name in changed:
        kept.put_back()
        reference.attributes.put_back([other for other in changed if other != name])
        reference.tensors = dict(tensors)
        if name in tensors:
            reference.tensors[name] = later[name]
        if not _are_equal(first, reference.named(reference.call(reference.inputs, state))):
            found.append(name)
    _forget(reference, tensors)
    return found or list(changed)


def require_independent_rows(reference: ModuleReference, draw: Draws, rounding: Rounding) -> None:
    """Each row of the examples gives alone, and in another order, what it gives among the
    others; so it does from a later state."""
    together = [
        array_of(x, axis) for x, axis in zip(reference.inputs, reference.axes.inputs, strict=True)
    ]
    rows = len(together[0])
    rng = np.random.default_rng(0)
    inputs = dict(zip([entry.name for entry in reference.info.inputs], together, strict=True))
    if rows < 3:
        inputs, rows = draw(rng, 4), 4
    state = reference.init_state(rows)
    for _ in range(2):
        whole, after = reference.step(inputs, state)
        precise = rounding.precise_step(inputs, state)
        wanted = {**whole, **reference.state_to_arrays(after)}
        for order in (rng.permutation(rows), np.arange(rows)[:1], np.arange(rows)[-1:]):
            index = torch.from_numpy(order)
            part = [
                leaf.index_select(axis, index)
                for leaf, axis in zip(state, reference.axes.states, strict=True)
            ]
            try:
                found, end = reference.step({name: x[order] for name, x in inputs.items()}, part)
            except UsageError as error:
                raise UsageError(
                    f"{reference.called} works for a batch of {rows} rows and not for one of "
                    f"{len(order)}: {error}"
                ) from None
            got = {**found, **reference.state_to_arrays(end)}
            for name, value in wanted.items():
                if not _is_near(value[order], got[name], precise[name][order], value):
                    raise UsageError(
                        f"{reference.called} mixes the rows of a batch: {name} of a row is another "
                        f"without the other rows. Compute each row by itself, or export with "
                        f"independent_rows=False."
                    )
        state = after


def require_joined_chunks(reference: ModuleReference, rounding: Rounding) -> None:
    """A sequence gives in two chunks, the second from the state after the first, what it gives as
    one: outputs over time, and the last state."""
    inputs, length = reference.inputs, reference.length // reference.multiple_of
    names = [entry.name for entry in reference.info.outputs]
    times = {name: axes[0] for name, axes in reference.output_times.items() if len(axes) == 1}
    length *= reference.multiple_of
    whole, end = reference.call(reference.part(inputs, 0, length), reference.initial)
    wanted = reference.named((whole, end))
    arrays = dict(
        zip(
            [entry.name for entry in reference.info.inputs],
            [array_of(x, axis) for x, axis in zip(
                reference.part(inputs, 0, length), reference.axes.inputs, strict=True)],
            strict=True,
        )
    )  # fmt: skip
    precise = rounding.precise_step(arrays, reference.initial)
    for cut in sorted({reference.multiple_of, length // 2 // reference.multiple_of
                       * reference.multiple_of}):  # fmt: skip
        first, middle = reference.call(reference.part(inputs, 0, cut), reference.initial)
        second, last = reference.call(reference.part(inputs, cut, length), middle)
        parts = reference.named((first, middle)), reference.named((second, last))
        for name, value in wanted.items():
            if name in names and name not in times:
                continue  # of a chunk as a whole
            found = parts[1][name]
            if name in times:
                found = np.concatenate([part[name] for part in parts], times[name])
            near = found.shape == value.shape and _is_near(value, found, precise[name], value)
            if not near:
                raise UsageError(
                    f"{reference.called} depends on where a sequence is cut: {name} of {length} "
                    f"steps is another in chunks of {cut} and {length - cut}. Keep what the next "
                    f"chunk needs in the state, or say by multiple_of which lengths are whole."
                )


class RandomOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators that draw random numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in function.tags:
            self.found.append(f"torch.{function.overloadpacket.__name__}")
        return function(*arguments, **(keywords or {}))


def _are_equal(one: Arrays, other: Arrays) -> bool:
    return all(
        np.array_equal(value, other[name], equal_nan=value.dtype.kind == "f")
        for name, value in one.items()
    )


def _is_near(
    wanted: npt.NDArray[Any],
    found: npt.NDArray[Any],
    precise: npt.NDArray[Any],
    whole: npt.NDArray[Any],
) -> bool:
    """Whether a batch of another size gives the same up to rounding: its kernels may add in another
    order."""
    if wanted.dtype.kind != "f":
        return bool((wanted == found).all())
    finite = np.isfinite(whole)
    size = np.abs(whole, where=finite, out=np.zeros(whole.shape)).max(initial=0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(wanted.astype(np.float64) - precise)
        share = HALF_ROUNDING if wanted.dtype == np.float16 else ROUNDING
        allowed = share * size + 16 * np.where(np.isfinite(gap), gap, 0.0)
        near = np.abs(wanted.astype(np.float64) - found) <= allowed
    same = (wanted == found) | (np.isnan(wanted) & np.isnan(found))
    return bool((near | same).all())
