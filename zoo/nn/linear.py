"""Recurrences that are linear in their state, elementwise, and so parallel over time."""

from __future__ import annotations

from itertools import pairwise
from math import isqrt
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.nn.cell import Cell
from zoo.nn.replaceable import replaceable
from zoo.nn.state import map_leaves, rebuild

# of a scan that a CPU runs step by step, by measurement: the most steps, and the least elements
FEW_STEPS, LARGE_STEP = 64, 4096


class Complex(NamedTuple):
    """A complex tensor as two real ones: ONNX has no complex arithmetic."""

    re: Tensor
    im: Tensor


VariableT = TypeVar("VariableT", Tensor, Complex)


class LinearCell(Cell):
    """A cell whose state, given the inputs, is linear in the state before:

        state' = a ⊙ state + b,   a and b from z alone

    A subclass writes `init_state`, `coefficients`, and whatever it needs of `project` and
    `readout`. Each field of its state is a variable of the recurrence, a tensor or a `Complex`
    pair. What `readout` gets as h is the new state.
    """

    def coefficients(self, z: Any) -> tuple[Any, Any]:
        """The pair (a, b), each with the fields of the state, from the z of one step or of a whole
        sequence. A field of `a` may lack leading axes, as one does that is the same at all times;
        those of `b` have the shape of the state."""
        raise NotImplementedError

    def advance(self, z: Any, state: Any) -> tuple[Any, Any]:
        a, b = self.coefficients(z)
        state = rebuild(state, (linear_step(*parts) for parts in zip(a, state, b, strict=True)))
        return state, state

    def scan(self, z_T: Any, state: Any) -> tuple[Any, Any]:
        a, b = self.coefficients(z_T)
        h_T = rebuild(state, (linear_scan(*parts) for parts in zip(a, b, state, strict=True)))
        return h_T, map_leaves(lambda leaf: leaf[-1].clone(), h_T)


@replaceable
def linear_scan(a_T: VariableT, b_T: VariableT, start: VariableT) -> VariableT:
    """h_t = a_t ⊙ h_{t-1} + b_t for all t at once, from h_0 = `start`: [T, …] as b, in the dtype of
    `start`, real or complex, or `Complex` pairs. `a_T` may lack leading axes, or have ones in them.

    Time is cut into √T pieces of √T steps. The pieces advance side by side, then the state is
    carried from piece to piece: 2√T operations, and only products of a and sums, so that float32
    loses no more than it does step by step (a scan over logarithms does). On a CPU, few steps, or
    large ones, run one by one: fewer passes over memory. The gradient is the same scan backwards.
    """
    if isinstance(b_T, Complex):
        exact = start.re.dtype
        parts = (torch.complex(v.re.to(exact), v.im.to(exact)) for v in (a_T, b_T, start))
        found = _scanned(*parts)
        return Complex(found.real, found.imag)
    return _scanned(a_T, b_T, start)


def _scanned(a_T: Tensor, b_T: Tensor, start: Tensor) -> Tensor:
    a_T, b_T = a_T.to(start.dtype), b_T.to(start.dtype)
    a_T = a_T.reshape((1,) * (b_T.ndim - a_T.ndim) + a_T.shape)
    h_T: Tensor = _LinearScan.apply(a_T, b_T, start)  # type: ignore[no-untyped-call]
    return h_T


class _LinearScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a_T: Tensor, b_T: Tensor, start: Tensor) -> Tensor:
        h_T = torch.empty_like(b_T, memory_format=torch.contiguous_format)
        scan_into(h_T, a_T, b_T, start)
        ctx.save_for_backward(a_T, h_T, start)
        return h_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_T: Tensor) -> tuple[Tensor | None, ...]:
        a_T, h_T, start = ctx.saved_tensors
        # what reaches h_t: its own gradient, and conj(a_{t+1}) times what reaches h_{t+1}
        later = _after_the_first(a_T.conj().resolve_conj())
        last = gradient_T[-1]
        reached = torch.empty_like(h_T)
        reached[-1] = last
        scan_into(reached[:-1], later, gradient_T[:-1], last, backwards=True)
        by_a = None
        if ctx.needs_input_grad[0] and a_T.shape == h_T.shape:
            by_a = torch.empty_like(a_T)
            torch.mul(reached[0], start.conj(), out=by_a[0])
            torch.mul(reached[1:], h_T[:-1].conj(), out=by_a[1:])
        elif ctx.needs_input_grad[0]:
            by_a = (reached[1:] * h_T[:-1].conj()).sum_to_size(*_after_the_first(a_T).shape)
            first = (reached[:1] * start.conj()).sum_to_size(*a_T[:1].shape)
            by_a = torch.cat((first, by_a)) if len(a_T) == len(h_T) > 1 else first + by_a
        return by_a, reached, (a_T[0].conj() * reached[0]).sum_to_size(*start.shape)


def _after_the_first(a_T: Tensor) -> Tensor:
    """`a_T` without its first time; the whole of what is the same at all times."""
    return a_T[1:] if len(a_T) > 1 else a_T


def scan_into(
    h_T: Tensor, a_T: Tensor, b_T: Tensor, start: Tensor, *, backwards: bool = False
) -> None:
    """Writes the scan, or, `backwards`, the one from the last time to the first, into `h_T`, which
    `b_T` may be. Records no gradient."""
    T = len(b_T)
    if T and b_T.is_cpu and (T <= FEW_STEPS or b_T[0].numel() >= LARGE_STEP):
        state, order = start, slice(None, None, -1) if backwards else slice(None)
        each = [x_T.unbind(0)[order] for x_T in (a_T.expand(T, *a_T.shape[1:]), b_T, h_T)]
        for a, b, h in zip(*each, strict=True):
            state = torch.addcmul(b, a, state, out=h)
    elif T:
        _scan_in_pieces(h_T, a_T, b_T, start, backwards)


def _scan_in_pieces(h_T: Tensor, a_T: Tensor, b_T: Tensor, start: Tensor, backwards: bool) -> None:
    T = len(b_T)
    steps = isqrt(T)
    pieces = T // steps
    rest = T - pieces * steps
    whole = slice(rest, T) if backwards else slice(0, T - rest)
    left = reversed(range(rest)) if backwards else range(T - rest, T)

    def cut(x_T: Tensor) -> Tensor:
        if len(x_T) == 1 and T > 1:
            return x_T.unsqueeze(0).expand(1, steps, *x_T.shape[1:])
        return torch.unflatten(x_T[whole], 0, (pieces, steps))

    a, b, h = cut(a_T), cut(b_T), cut(h_T)
    decay = a.new_empty(a.shape)  # from the beginning of the piece
    order = [*range(steps)]
    in_turn = [*range(pieces)]
    if backwards:
        order.reverse()
        in_turn.reverse()
    h[:, order[0]] = b[:, order[0]]
    decay[:, order[0]] = a[:, order[0]]
    for before, now in pairwise(order):
        torch.addcmul(b[:, now], a[:, now], h[:, before], out=h[:, now])
        torch.mul(decay[:, before], a[:, now], out=decay[:, now])
    carried = h.new_empty(pieces, *h.shape[2:])
    state, end = start, order[-1]
    ends = decay[:, end].expand(pieces, *decay.shape[2:])
    for piece in in_turn:
        carried[piece] = state
        state = torch.addcmul(h[piece, end], ends[piece], state)
    h.addcmul_(decay, carried.unsqueeze(1))
    a_T = a_T.expand(T, *a_T.shape[1:])
    for time in left:
        state = torch.addcmul(b_T[time], a_T[time], state, out=h_T[time])


def linear_step(a: VariableT, state: VariableT, b: VariableT) -> VariableT:
    """a ⊙ state + b, in the dtype of `state`."""
    if isinstance(state, Complex):
        return Complex(
            (a.re * state.re - a.im * state.im + b.re).to(state.re.dtype),
            (a.re * state.im + a.im * state.re + b.im).to(state.im.dtype),
        )
    return (a * state + b).to(state.dtype)
