"""The recurrence of `zoo.nn.matrix` in chunks of steps, with its derivative.

Per head and chunk of C steps there are P = 1 pair of queries and keys, q and k, or P = 2: a and b
are the second. Rows of the same step stand together, so that a chunk has C·P of them. With
x the values v, and after each the u = aᵀ S of its step, and y the gradients of o and of the sums u:

    M = (queries · keysᵀ, each pair by its decay, what is later left out)
    o = M_q x + from_start_q S,     S' = carry S + to_endᵀ x
    (1 - M_ab) u = M_ak v + from_start_a S

from_start are the queries, decayed since the chunk's beginning, to_end the keys, decayed until its
end. Backwards everything is a product again. Of the decays, only logarithms have gradients: where x
is a query or key with a factor exp(l), and g its gradient, that of l is x g.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Terms(NamedTuple):
    """What the outputs of all chunks are made of, n chunks of Z heads: kept for the gradient."""

    queries: Tensor  # [n, Z, C, P, K]
    keys: Tensor  # [n, Z, C, P, K]
    log_w: Tensor  # [n, Z, C, W]
    decayed: Tensor  # [n, Z, C, P, W], the decay from the beginning of the chunk to each query
    left: Tensor  # [n, Z, C, 1, W], and from each key to the end
    products: Tensor  # [n, Z, C·P, C·P]
    inverse: Tensor | None  # [n, Z, C, C], of 1 - M_ab
    x: Tensor  # [n, Z, C, P, V]
    states: Tensor  # [n, Z, K, V], before each chunk


def scan_in_chunks(
    size: int, start: Tensor, log_w: Tensor, v: Tensor, *pairs: Tensor
) -> tuple[Tensor, Tensor]:
    """The outputs [T, B, N, V] and the last state, in chunks of `size` steps, a power of two if W
    is not 1. `pairs` are q, k, and possibly a, b: [T, B, N, K]; all of one dtype."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (start, log_w, v, *pairs)):
        return _Scan.apply(size, start, log_w, v, *pairs)  # type: ignore[no-any-return, no-untyped-call]
    o, end, _ = _run(size, start, log_w, v, *pairs)
    return o, end


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, size: int, start: Tensor, log_w: Tensor, v: Tensor, *pairs: Tensor
    ) -> tuple[Tensor, Tensor]:
        o, end, terms = _run(size, start, log_w, v, *pairs)
        ctx.set_materialize_grads(False)
        ctx.sizes = len(v), *start.shape[:2]
        ctx.save_for_backward(*terms)
        return o, end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_o: Tensor | None, by_end: Tensor | None) -> tuple[Any, ...]:
        terms = Terms(*ctx.saved_tensors)
        _, needs_start, needs_decay, *_ = ctx.needs_input_grad
        with torch.autocast(terms.x.device.type, enabled=False):
            found = _run_backwards(terms, ctx.sizes, by_o, by_end, needs_start, needs_decay)
        return None, *found


def _run(
    size: int, start: Tensor, log_w_T: Tensor, v_T: Tensor, *pairs: Tensor
) -> tuple[Tensor, Tensor, Terms]:
    T, B, N = v_T.shape[:3]
    queries, keys = _cut(size, *pairs[::2]), _cut(size, *pairs[1::2])
    log_w, v = _cut(size, log_w_T).squeeze(3), _cut(size, v_T)
    count, Z, C, P, _ = queries.shape
    products, decayed, left = _products(queries, keys, log_w)
    from_start, to_end, carry = queries * decayed, keys * left, decayed[:, :, -1, :1].mT
    state = start.flatten(0, 1)
    states, inverse = [state], None
    # of the state after each chunk, first what the values add to it
    after = to_end[..., 0, :].mT @ v.squeeze(3)
    if P == 1:
        x = v
        for chunk in range(count):
            state = after[chunk].addcmul_(carry[chunk], state)
            states.append(state)
    else:
        parts = products.view(count, Z, C, P, C, P)
        inverse = _inverse(parts[..., 1, :, 1])
        x = torch.cat((v, torch.empty_like(v)), 3)
        # contiguous: of matrices without a unit stride each would be copied and multiplied alone
        by_value = inverse @ (parts[..., 1, :, 0].contiguous() @ v.squeeze(3))
        by_state = inverse @ from_start[..., 1, :]
        for chunk in range(count):
            u = torch.baddbmm(by_value[chunk], by_state[chunk], state)
            x[chunk, :, :, 1] = u
            state = after[chunk].addcmul_(carry[chunk], state)
            state.baddbmm_(to_end[chunk, :, :, 1].mT, u)
            states.append(state)
    before = torch.stack(states[:-1]) if count > 1 else states[0].unsqueeze(0)
    o = from_start[..., 0, :] @ before
    o.flatten(0, 1).baddbmm_(
        products.view(count * Z, C, P, C * P)[:, :, 0], x.view(count * Z, C * P, -1)
    )
    end = state.clone() if count > 1 else state  # not a part of the states of all chunks
    terms = Terms(queries, keys, log_w, decayed, left, products, inverse, x, before)
    return _joined(o, T, B, N), end.view(start.shape), terms


def _run_backwards(
    terms: Terms,
    sizes: tuple[int, int, int],
    by_o: Tensor | None,
    by_end: Tensor | None,
    needs_start: bool,
    needs_decay: bool,
) -> list[Tensor | None]:
    """The gradients of start, log w, v, and of the pairs."""
    queries, keys, log_w, decayed, left, products, inverse, x, states = terms
    count, Z, C, P, K = queries.shape
    V = x.shape[-1]
    B, N = sizes[1:]
    from_start, to_end, carry = queries * decayed, keys * left, decayed[:, :, -1, :1].mT
    y = x.new_zeros(x.shape)
    if by_o is not None:
        y[..., :1, :] = _cut(C, by_o)
    by_states: list[Tensor | None] = [None] * count  # those after each chunk
    by_state = None if by_end is None else by_end.reshape(Z, K, V)
    parts = products.view(count, Z, C, P, C, P)
    by_u = parts[..., 0, :, 1].contiguous().mT @ y[..., 0, :] if P == 2 else None
    for chunk in reversed(range(count)):
        by_states[chunk] = by_state
        if by_u is not None and inverse is not None:
            by_sum = by_u[chunk]
            if by_state is not None:
                by_sum = torch.baddbmm(by_sum, to_end[chunk, :, :, 1], by_state)
            y[chunk, :, :, 1] = inverse[chunk].mT @ by_sum
        if chunk or needs_start:
            read = from_start[chunk].flatten(1, 2).mT @ y[chunk].flatten(1, 2)
            by_state = read if by_state is None else read.addcmul_(carry[chunk], by_state)
    rows_y, rows_x = y.flatten(2, 3), x.flatten(2, 3)
    by_v = parts[..., 0].flatten(2, 3).mT @ rows_y
    by_from_start = (rows_y @ states.mT).view(queries.shape)
    by_queries, by_keys, by_rows, by_until = _products_backwards(
        rows_y @ rows_x.mT, queries, keys, log_w
    )
    by_queries.addcmul_(by_from_start, decayed)
    by_rows += _of_decay(from_start.mul_(by_from_start), log_w)
    if by_states[-1] is not None or count > 1:
        nothing = torch.zeros_like(states[0])
        later = torch.stack([nothing if found is None else found for found in by_states])
        by_v += to_end[..., 0, :] @ later
        by_to_end = (rows_x @ later.mT).view(keys.shape)
        by_keys.addcmul_(by_to_end, left)
        if needs_decay:
            through = _of_decay(to_end.mul_(by_to_end), log_w).sum(3)
            by_until -= through
            by_carry = _of_decay((states * later).sum(-1).unsqueeze(2), log_w) * carry.mT
            by_until[:, :, -1:] += through.sum(2, keepdim=True) + by_carry
    by_log_w = None
    if needs_decay:
        by_log_w = _from_the_end(by_rows.sum(3) + by_until)
        if P == 2:
            by_log_w -= by_rows[:, :, :, 1]
        by_log_w = _joined(by_log_w, *sizes)
    pairs = (part[:, :, :, p] for p in range(P) for part in (by_queries, by_keys))
    by_start = None if by_state is None or not needs_start else by_state.view(B, N, K, V)
    return [by_start, by_log_w, _joined(by_v, *sizes), *(_joined(part, *sizes) for part in pairs)]


def _cut(size: int, *pair: Tensor) -> Tensor:
    """One or two tensors [T, B, N, D] as [chunks, Z, C, P, D]. Zeros are added at the end, which
    change nothing."""
    T, B, N, D = pair[0].shape
    count = -(-T // size)
    found = pair[0].new_empty(count, B, N, size, len(pair), D)
    if count * size > T:
        found[-1].zero_()
    for p, x_T in enumerate(pair):
        by_time = found[:, :, :, :, p].permute(0, 3, 1, 2, 4)
        whole = T // size
        by_time[:whole] = x_T[: whole * size].view(whole, size, B, N, D)
        if count * size > T:
            by_time[-1, : T - whole * size] = x_T[whole * size :]
    return found.flatten(1, 2)


def _joined(x: Tensor, T: int, B: int, N: int) -> Tensor:
    """[chunks, Z, C, D] as [T, B, N, D]."""
    return x.view(len(x), B, N, *x.shape[2:]).permute(0, 3, 1, 2, 4).flatten(0, 1)[:T]


def _inverse(strictly_lower: Tensor) -> Tensor:
    """(1 - M)⁻¹."""
    unit = torch.eye(
        strictly_lower.shape[-1], dtype=strictly_lower.dtype, device=strictly_lower.device
    )
    found: Tensor = torch.linalg.solve_triangular(
        unit - strictly_lower, unit.expand_as(strictly_lower), upper=False, unitriangular=True
    )
    return found


def _from_the_end(x: Tensor) -> Tensor:
    """Σ_{s ≥ t} x_s over the steps of a chunk."""
    return x.flip(2).cumsum(2).flip(2)


def _of_decay(x: Tensor, log_decay: Tensor) -> Tensor:
    """The gradient of a logarithm: summed over the keys where these decay as one."""
    return x.sum(-1, keepdim=True) if log_decay.shape[-1] == 1 else x


def _products(queries: Tensor, keys: Tensor, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """M [n, Z, C·P, C·P], and the decays from the beginning of the chunk and to its end."""
    count, Z, C, P, _ = queries.shape
    if log_w.shape[-1] == 1:
        until = log_w.cumsum(-2)
        rows = _to_queries(until, log_w, P)
        found = (queries.flatten(2, 3) @ keys.flatten(2, 3).mT).mul_(_decays(rows, until))
        return found, rows.exp_(), (until[:, :, -1:] - until).exp_().unsqueeze(3)
    found = queries.new_zeros(count * Z, C * P, C * P)
    _diagonal(found, P).copy_((queries[..., :1, :] * keys).sum(-1).flatten(0, 1))
    since, rest = _to_queries(log_w, log_w, P), torch.zeros_like(log_w).unsqueeze(3)
    for level in _levels(queries, keys, since, rest):
        level.block(found).copy_(level.product())
    return found.view(count, Z, C * P, C * P), since.exp_(), rest.exp_()


def _products_backwards(
    gradient: Tensor, queries: Tensor, keys: Tensor, log_w: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From the gradient of M those of queries, keys, and the logarithms of the decays from the
    beginning of the chunk to each query [n, Z, C, P, W] and to each key [n, Z, C, W]."""
    count, Z, C, P, _ = queries.shape
    if log_w.shape[-1] == 1:
        until = log_w.cumsum(-2)
        gradient.mul_(_decays(_to_queries(until, log_w, P), until))
        by_queries = (gradient @ keys.flatten(2, 3)).view(queries.shape)
        by_keys = (gradient.mT @ queries.flatten(2, 3)).view(keys.shape)
        by_rows = _of_decay(queries * by_queries, log_w)
        by_until = _of_decay(keys * by_keys, log_w).sum(3).neg_()
        return by_queries, by_keys, by_rows, by_until
    gradient = gradient.view(count * Z, C * P, C * P)
    by_queries, by_keys = torch.zeros_like(queries), torch.zeros_like(keys)
    since, rest = _to_queries(log_w, log_w, P), torch.zeros_like(log_w).unsqueeze(3)
    for level in _levels(queries, keys, since, rest):
        level.add_gradients(level.block(gradient), by_queries, by_keys)
    # the step itself, on the diagonal, does not decay
    by_rows, by_until = queries * by_queries, (keys * by_keys).sum(3).neg_()
    diagonal = _diagonal(gradient, P).view(count, Z, C, P, 1)
    by_queries[..., :1, :] += (diagonal * keys).sum(3, keepdim=True)
    by_keys.addcmul_(diagonal, queries[..., :1, :])
    return by_queries, by_keys, by_rows, by_until


def _to_queries(until: Tensor, log_w: Tensor, P: int) -> Tensor:
    """A new tensor [n, Z, C, P, W]: the second queries see what the step before left."""
    return torch.stack((until, until - log_w)[:P], 3)


def _decays(rows: Tensor, until: Tensor) -> Tensor:
    """[n, Z, C·P, C·P], 0 for what is later; of the second queries, the same step is later too."""
    count, Z, C, P, _ = rows.shape
    difference = rows - until.mT.unsqueeze(2)  # [n, Z, C, P, C]
    step = torch.arange(C, device=rows.device)
    last = step.unsqueeze(-1) - torch.arange(P, device=rows.device)
    difference.masked_fill_(last.unsqueeze(-1) < step, -torch.inf)
    found = difference.exp_().unsqueeze(-1).expand(-1, -1, -1, -1, -1, P)
    return found.reshape(count, Z, C * P, C * P)


def _diagonal(x: Tensor, P: int) -> Tensor:
    """A view [X, C, P] of what the first query of each step meets at this step."""
    size = x.shape[-1] // P
    return x.view(-1, size, P, size, P)[:, :, 0].diagonal(0, 1, 2).transpose(1, 2)


class _Level(NamedTuple):
    """The queries of every second run of `half` steps, with the keys of the run before."""

    half: int
    decayed: Tensor  # [X, blocks, half, P, K], since the end of the run before
    left: Tensor  # [X, blocks, half, 1, K], of the keys until then
    queries: Tensor  # decayed
    keys: Tensor

    def product(self) -> Tensor:
        return self._rows(self.queries) @ self._rows(self.keys).mT

    def block(self, x: Tensor) -> Tensor:
        """A view [X, blocks, half·P, half·P] of these products in x [X, C·P, C·P]."""
        blocks, run = self.queries.shape[1], self.half * self.queries.shape[3]
        cut = x.view(-1, blocks, 2, run, blocks, 2, run)[:, :, 1, :, :, 0]
        return cut.diagonal(0, 1, 3).movedim(-1, 1)

    def add_gradients(self, gradient: Tensor, by_queries: Tensor, by_keys: Tensor) -> None:
        of_queries = (gradient @ self._rows(self.keys)).view(self.queries.shape)
        of_keys = (gradient.mT @ self._rows(self.queries)).view(self.keys.shape)
        _halves(by_queries, self.half)[:, :, 1].addcmul_(of_queries, self.decayed)
        _halves(by_keys, self.half)[:, :, 0].addcmul_(of_keys, self.left)

    def _rows(self, x: Tensor) -> Tensor:
        return x.flatten(2, 3)


def _levels(queries: Tensor, keys: Tensor, since: Tensor, rest: Tensor) -> Iterator[_Level]:
    """Every query meets every earlier key once: in neighbouring steps, pairs of steps, and so on up
    to the halves of the chunk. Between two runs of steps a key decays until the end of its run, and
    a query from there. Both logarithms are sums of what lies between, never positive and rounded by
    no more than they are large; those for the runs of the next level, in the end of the whole
    chunk, are written over `since` [n, Z, C, P, W], of the step alone, and `rest` [n, Z, C, 1, W],
    zeros."""
    half = 1
    while half < queries.shape[2]:
        since_runs, rest_runs = _halves(since, half), _halves(rest, half)
        decayed, left = since_runs[:, :, 1].exp(), rest_runs[:, :, 0].exp()
        yield _Level(
            half,
            decayed,
            left,
            _halves(queries, half)[:, :, 1] * decayed,
            _halves(keys, half)[:, :, 0] * left,
        )
        both = since_runs[:, :, :, -1:, :1]  # [X, blocks, 2, 1, 1, W], of the runs themselves
        rest_runs[:, :, 0] += both[:, :, 1]
        since_runs[:, :, 1] += both[:, :, 0]
        half *= 2


def _halves(x: Tensor, half: int) -> Tensor:
    """A view [X, blocks, 2, half, P, K] of [n, Z, C, P, K]."""
    return x.view(-1, x.shape[2] // (2 * half), 2, half, *x.shape[3:])
