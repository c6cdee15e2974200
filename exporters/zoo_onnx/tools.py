"""The recurrences of `zoo.nn` in a trace: each call becomes nodes of the exporter's own.

Linear attention and the delta rule become one operator of ONNX Runtime (`fused`) where the runtime
has it and its form fits. Other recurrences become loops (see `zoo_onnx.scans`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import repeat
from math import isqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.nn import (
    Complex,
    delta_scan,
    delta_step,
    linear_scan,
    matrix_scan,
    matrix_step,
    selective_scan,
)
from zoo.nn.matrix import as_rank_one
from zoo_onnx.scans import Scans
from zoo_ort.fused import FUSED_DOMAIN

STEPS = 128  # of a chunk of an elementwise recurrence: 16 pieces of 8 steps
# elements of a step; with more, its operators have enough to do, and pieces are more work
SMALL_STEP = 1024
# Features of a head that LinearAttention is used for. On CUDA it keeps a head's state in the memory
# of one block: 128 by 128 fit, 256 by 256 are refused when it runs.
LARGEST_HEAD = 128
HEAD_STEPS = 32  # of a chunk of a matrix recurrence
Rule = Callable[..., Any]


class Tools(TorchFunctionMode):
    """Within it, the tools of `zoo.nn` are nodes: with fused operators, if `fused`, and as
    recurrences of `scans`; without those, whole sequences are computed as torch does."""

    def __init__(self, fused: bool, scans: Scans | None = None) -> None:
        super().__init__()
        self.fused, self.scans = fused, scans

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        if self.fused and (rule := FUSED.get(function)):
            found = rule(*arguments, **keywords)
            if found is not None:
                return found
        if rule := LOOPS.get(function):
            return rule(self.scans, *arguments, **keywords)
        return function(*arguments, **keywords)


def _attention(
    rule: str, over_time: bool, state: Tensor, *given: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """LinearAttention of q, k, v, log w and β, [T, B, N, …] (β [T, B, N]), or [B, N, …] of one
    step: the outputs o and the state after them. None where the operator cannot compute these."""
    if any(x is not None and x.dtype != torch.float32 for x in (state, *given)):
        return None
    q, _, v, *_ = given
    assert q is not None
    assert v is not None
    heads, values = v.shape[-2:]
    if max(q.shape[-1], values) > LARGEST_HEAD:
        return None
    rows, times = state.shape[0], q.shape[0] if over_time else 1

    def packed(x: Tensor | None) -> Tensor | None:
        """[B, T, …], with the features of all heads on one axis. Of one step it is one change of
        shape, since each node counts."""
        if x is None:
            return None
        return x.transpose(0, 1).reshape(rows, times, -1) if over_time else x.reshape(rows, 1, -1)

    o, after = torch.onnx.ops.symbolic_multi_out(
        f"{FUSED_DOMAIN}::LinearAttention",
        [*map(packed, given[:3]), state, *map(packed, given[3:])],
        {"update_rule": rule, "q_num_heads": heads, "kv_num_heads": heads, "scale": 1.0},
        dtypes=[torch.float32, torch.float32],
        shapes=[(rows, times, heads * values), tuple(state.shape)],
        version=1,
    )
    if not over_time:
        return o.reshape(rows, heads, values), after
    return torch.unflatten(o, -1, (heads, values)).transpose(0, 1), after


def _fused_matrix(
    over_time: bool,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_w: Tensor | None,
    state: Tensor,
    *rank_one: Tensor | None,
) -> tuple[Tensor, Tensor] | None:
    if any(x is not None for x in rank_one):
        return None
    return _attention("linear" if log_w is None else "gated", over_time, state, q, k, v, log_w)


def _fused_delta(
    over_time: bool,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_w: Tensor | None,
    state: Tensor,
) -> tuple[Tensor, Tensor] | None:
    rule = "delta" if log_w is None else "gated_delta"
    return _attention(rule, over_time, state, q, k, v, log_w, beta)


FUSED: dict[Any, Rule] = {
    matrix_scan: partial(_fused_matrix, True),
    matrix_step: partial(_fused_matrix, False),
    delta_scan: partial(_fused_delta, True),
    delta_step: partial(_fused_delta, False),
}


class _MatrixSteps(nn.Module):
    """One step of a matrix recurrence, in few operators: the state is read once, before it changes.
    Its inputs are prepared for all steps at once:

        found = reads S,   S' = w ⊙ S + writes (found_1, v)

    `reads` [B, N, R, K] are (a, w ⊙ q), or w ⊙ q alone; `writes` [B, N, K, R] are (b, k), or k;
    w [B, N, K or 1, 1], if there is a decay, and v [B, N, 1, V]."""

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        state, reads, writes, v, *decay = values
        found = reads @ state
        v = v if reads.shape[-2] == 1 else torch.cat((found[..., :1, :], v), -2)
        kept = decay[0] * state if decay else state
        return (kept + writes @ v).clone(), found.clone()


def _matrix_scan(
    scans: Scans | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_w: Tensor | None,
    state: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A matrix recurrence as a loop, over chunks where each head decays as one: in the products of
    the others' chunks ONNX Runtime loses more time than it gains."""
    if scans is None:
        return matrix_scan(q, k, v, log_w, state, a, b)
    exact = state.dtype
    q, k, v = q.to(exact), k.to(exact), v.to(exact)
    if a is None and (log_w is None or log_w.shape[-1] == 1):
        log_w = q.new_zeros((*q.shape[:3], 1)) if log_w is None else log_w
        (after,), (o,) = scans.emit(
            _HeadStep(), [state], [q, k, v, log_w], chunk=_HeadChunk(), steps=HEAD_STEPS
        )
        return o, after
    decay = [] if log_w is None else [log_w.to(exact).exp()]
    wq = decay[0] * q if decay else q
    reads = wq.unsqueeze(-2) if a is None else torch.stack((a.to(exact), wq), -2)
    writes = k.unsqueeze(-1) if b is None else torch.stack((b.to(exact), k), -1)
    inputs = [reads, writes, v.unsqueeze(-2), *(w.unsqueeze(-1) for w in decay)]
    (after,), (found,) = scans.emit(_MatrixSteps(), [state], inputs)
    o = found[..., -1, :] + (k * q).sum(-1, keepdim=True) * v
    if b is not None:
        o = o + (b * q).sum(-1, keepdim=True) * found[..., 0, :]
    return o, after


class _HeadStep(nn.Module):
    """One step of a matrix recurrence with one decay for each head."""

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        state, q, k, v, log_w = values
        o, after = matrix_step(q, k, v, log_w, state)
        return after.clone(), o.clone()


class _HeadChunk(nn.Module):
    """So many steps of it as products of matrices (see `zoo.nn.matrix_scan`, whose form for a
    gradient has more operators)."""

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        state, *inputs = values
        steps = len(inputs[0])
        q, k, v, log_w = (x.permute(1, 2, 0, 3) for x in inputs)  # [B, N, C, ...]
        before = state.new_ones(steps, steps).tril()
        decayed = before @ log_w  # of the state, until each step
        whole = decayed[..., -1:, :]
        between = (decayed - decayed.mT).clamp(max=0).exp() * before
        o = ((q @ k.mT) * between) @ v + (q * decayed.exp()) @ state
        written = (k * (whole - decayed).exp()).mT @ v
        return (whole.exp() * state + written).clone(), o.permute(2, 0, 1, 3).clone()


def _delta_scan(
    scans: Scans | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_w: Tensor | None,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    written, a, b = as_rank_one(k, beta, log_w)
    return _matrix_scan(scans, q, written, v, log_w, state, a, b)


class _LinearSteps(nn.Module):
    """A linear recurrence of leaves (one, or the two parts of complex numbers) over inputs b, with
    a among the inputs as well, or, if `constant`, among the weights. With `many`, of many steps."""

    def __init__(self, leaves: int, constant: bool, many: bool) -> None:
        super().__init__()
        self.leaves, self.constant, self.many = leaves, constant, many

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        count = self.leaves
        h, first, second = values[:count], values[count : 2 * count], values[2 * count :]
        b, a = (first, second) if self.constant else (second, first)
        if not self.many:
            h = _advanced(a, h, b)
            return tuple(leaf.clone() for leaf in (*h, *h))
        h_T = _in_pieces(a, b, h)
        return (*(part[-1].clone() for part in h_T), *h_T)


def _in_pieces(a_T: Any, b_T: Any, h: Any) -> list[Tensor]:
    """The parts of h_T for a fixed number of steps, as `zoo.nn.linear_scan` computes it: pieces
    side by side, then the state from piece to piece. `a_T` without an axis of time is the same at
    all times."""
    times, axes = len(b_T[0]), b_T[0].ndim
    steps = next(size for size in range(isqrt(times), 0, -1) if times % size == 0)
    pieces = times // steps

    def by_step(parts: Any) -> list[tuple[Tensor, ...]]:
        """[T, …] as one [pieces, 1, …] for each step."""
        cut = [torch.split(torch.unflatten(part, 0, (pieces, steps)), 1, 1) for part in parts]
        return list(zip(*cut, strict=True))

    b = by_step(b_T)
    a = by_step(a_T) if a_T[0].ndim == axes else [tuple(a_T)] * steps
    found, decay = [b[0]], [a[0]]
    for now in range(1, steps):
        found.append(_advanced(a[now], found[-1], b[now]))
        decay.append(_times(decay[-1], a[now]))
    state, carried = tuple(part[None, None] for part in h), []
    whole = a_T[0].ndim == axes
    ends = zip(*(torch.split(part, 1) for part in found[-1]), strict=True)
    kept = (
        zip(*(torch.split(part, 1) for part in decay[-1]), strict=True)
        if whole
        else repeat(decay[-1])
    )
    for piece, (end, through) in enumerate(zip(ends, kept, strict=False)):
        carried.append(state)
        if piece + 1 < pieces:
            state = _advanced(through, state, end)

    def joined(values: Any, axis: int) -> tuple[Tensor, ...]:
        return tuple(torch.cat(parts, axis) for parts in zip(*values, strict=True))

    if not whole:
        decay = [
            tuple(part.reshape((1,) * (axes + 1 - part.ndim) + part.shape) for part in each)
            for each in decay
        ]
    h_T = _advanced(joined(decay, 1), joined(carried, 0), joined(found, 1))
    return [part.flatten(0, 1) for part in h_T]


def _times(a: Any, b: Any) -> tuple[Tensor, ...]:
    """The product of real or complex numbers."""
    if len(a) == 1:
        return (a[0] * b[0],)
    return (a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0])


def _advanced(a: Any, h: Any, b: Any) -> tuple[Tensor, ...]:
    """a ⊙ h + b of real or complex numbers."""
    if len(h) == 1:
        return (a[0] * h[0] + b[0],)
    return (a[0] * h[0] - a[1] * h[1] + b[0], a[0] * h[1] + a[1] * h[0] + b[1])


def _linear_scan(scans: Scans | None, a_T: Any, b_T: Any, start: Any) -> Any:
    """All h of a linear recurrence. ONNX has no complex numbers."""
    h, a, b = (list(x) if isinstance(x, Complex) else [x] for x in (start, a_T, b_T))
    a, b = ([part.to(h[0].dtype) for part in x] for x in (a, b))
    axes = b[0].ndim
    constant = all(
        part.ndim < axes - 1 or (part.ndim < axes and part.shape[0] == 1)
        or (part.ndim == axes and part.shape[0] == part.shape[1] == 1)
        for part in a
    )  # fmt: skip
    if constant:
        a = [part.reshape(part.shape[max(0, part.ndim - axes + 2) :]) for part in a]
        inputs, weights = b, a
    else:
        inputs, weights = [*(part.expand(b[0].shape) for part in a), *b], []
    if scans is None:
        found = _in_pieces(a, b, h)
        return Complex(*found) if len(found) == 2 else found[0]
    rows = SMALL_STEP // h[0][0].numel()
    _, found = scans.emit(
        _LinearSteps(len(h), constant, many=False),
        h,
        inputs,
        weights,
        chunk=_LinearSteps(len(h), constant, many=True) if rows else None,
        steps=STEPS,
        rows=rows + 1,
    )
    return Complex(*found) if len(found) == 2 else found[0]


class _SelectiveStep(nn.Module):
    """One step of the selective scan. [B, D] of inputs are columns, so that each decay is one
    product."""

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        state, delta, driven, B, C, A = values
        state = (delta * A).exp() * state + driven * B
        return state.clone(), (state @ C).clone()


class _ComplexSelectiveStep(nn.Module):
    """The same of complex states."""

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        re, im, delta, driven, B_re, B_im, C_re, C_im, A_re, A_im = values
        size, angle = (delta * A_re).exp(), delta * A_im
        decay = size * angle.cos(), size * angle.sin()
        re, im = _advanced(decay, (re, im), (driven * B_re, driven * B_im))
        return re.clone(), im.clone(), (re @ C_re - im @ C_im).clone()


def _selective_scan(
    scans: Scans | None, delta: Tensor, u: Tensor, A: Any, B: Any, C: Any, start: Any
) -> tuple[Tensor, Any]:
    if scans is None:
        return selective_scan(delta, u, A, B, C, start)
    state = list(start) if isinstance(start, Complex) else [start]
    exact = state[0].dtype
    A, B, C = (
        [part.to(exact) for part in (x if isinstance(x, Complex) else [x])] for x in (A, B, C)
    )
    delta, u = delta.to(exact), u.to(exact)
    inputs = [delta.unsqueeze(-1), (delta * u).unsqueeze(-1)]
    inputs += [*(part.unsqueeze(-2) for part in B), *(part.unsqueeze(-1) for part in C)]
    body = _SelectiveStep() if len(state) == 1 else _ComplexSelectiveStep()
    after, (y,) = scans.emit(body, state, inputs, A)
    return y.squeeze(-1), after[0] if len(after) == 1 else Complex(*after)


class _Largest(nn.Module):
    """The largest value until now."""

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        largest = torch.maximum(*values)
        return largest.clone(), largest.clone()


class _Cummax(NamedTuple):
    values: Tensor
    indices: None  # nothing here computes them


def _cummax(scans: Scans | None, x: Tensor, dim: int) -> Any:
    """torch.cummax along time, of which ONNX has nothing."""
    if scans is None or isinstance(x.shape[0], int) or dim != 0:
        return torch.cummax(x, dim)
    _, (values,) = scans.emit(_Largest(), [torch.full_like(x[0], -torch.inf)], [x])
    return _Cummax(values, None)


LOOPS: dict[Any, Rule] = {
    torch.cummax: _cummax,
    Tensor.cummax: _cummax,
    matrix_scan: _matrix_scan,
    delta_scan: _delta_scan,
    linear_scan: _linear_scan,
    selective_scan: _selective_scan,
}
