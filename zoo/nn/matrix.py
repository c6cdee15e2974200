"""Recurrences whose state is a matrix: decayed, corrected by a product of rank one, and written to.

For each head, with a state S [K, V], keys and queries of K features and values of V:

    S_t = diag(w_t) S_{t-1} + b_t (a_tᵀ S_{t-1}) + k_t v_tᵀ,   o_t = S_tᵀ q_t

Without a and b it is linear attention with decay; a = k and b = -β k make it the delta rule. Shapes
are [T, B, N, K] for N heads; the decay is given as log w, of size K, or 1 where a head decays as
one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn import kernels

CHUNK_BY_HEAD, CHUNK_BY_KEY = 32, 16  # steps; a decay for each key costs a tensor [C, C, K]


def matrix_step(
    q_BNK: Tensor,
    k_BNK: Tensor,
    v_BNV: Tensor,
    log_w: Tensor | None,
    state_BNKV: Tensor,
    a_BNK: Tensor | None = None,
    b_BNK: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step: the output o [B, N, V] and the next state, in the state's dtype."""
    before = state_BNKV
    state = before if log_w is None else log_w.exp().unsqueeze(-1) * before
    if a_BNK is not None and b_BNK is not None:
        found = a_BNK.to(before.dtype).unsqueeze(-2) @ before  # [B, N, 1, V]
        state = state + b_BNK.unsqueeze(-1) * found
    state = (state + k_BNK.unsqueeze(-1) * v_BNV.unsqueeze(-2)).to(before.dtype)
    return (q_BNK.to(before.dtype).unsqueeze(-2) @ state).squeeze(-2), state


def matrix_scan(
    q_TBNK: Tensor,
    k_TBNK: Tensor,
    v_TBNV: Tensor,
    log_w: Tensor | None,
    state_BNKV: Tensor,
    a_TBNK: Tensor | None = None,
    b_TBNK: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """All steps: the outputs o [T, B, N, V] and the last state, in the state's dtype.

    Within a chunk of steps everything is a product of matrices: a query meets the keys before it by
    how far they have decayed until then. Only the state goes from chunk to chunk (Yang et al. 2024,
    arXiv:2312.06635, section 4; with a and b, arXiv:2406.06484, section 3). Decays are taken as
    differences of logarithms, which are never positive: nothing overflows.
    """
    kernel = kernels.find_kernel(q_TBNK, v_TBNV, log_w, state_BNKV, a_TBNK)
    if kernel is not None:
        return kernels.scan_by_kernel(
            kernel, q_TBNK, k_TBNK, v_TBNV, log_w, state_BNKV, a_TBNK, b_TBNK
        )
    exact = state_BNKV.dtype
    with torch.autocast(state_BNKV.device.type, enabled=False):
        T = len(q_TBNK)
        if log_w is None:
            log_w = q_TBNK.new_zeros(1, 1, 1, 1).expand(*q_TBNK.shape[:3], 1)
        size = min(T, CHUNK_BY_HEAD if log_w.shape[-1] == 1 else CHUNK_BY_KEY)
        count = -(-T // size)

        def cut(x_T: Tensor) -> Tensor:
            """[T, B, N, D] to [chunks, B, N, C, D]; what is added at the end changes nothing."""
            padded = F.pad(x_T.to(exact), (0, 0) * 3 + (0, count * size - T))
            return torch.unflatten(padded, 0, (count, size)).permute(0, 2, 3, 1, 4)

        q, k, v, log_w = cut(q_TBNK), cut(k_TBNK), cut(v_TBNV), cut(log_w)
        until = log_w.cumsum(-2)  # log of the decay from the beginning of the chunk
        whole = until[..., -1:, :]
        reach = _decays(until, until, 0)
        seen = _meet(q, k, reach)
        from_start = q * until.exp()
        kept = (k * (whole - until).exp()).transpose(-1, -2)
        written = kept @ v
        outputs = seen @ v
        carry = whole.exp().transpose(-1, -2)
        state = state_BNKV
        found = []
        if a_TBNK is None or b_TBNK is None:
            # unbound at once: the gradient of an index is a whole tensor for each chunk
            for o, q_0, w, kv in _by_chunk(outputs, from_start, carry, written):
                found.append(o + q_0 @ state)
                state = w * state + kv
        else:
            a, b = cut(a_TBNK), cut(b_TBNK)
            before = until - log_w
            earlier = _decays(before, until, -1)
            # u_t = a_tᵀ S_{t-1} needs the u before it: a triangular system in each chunk
            unit = torch.eye(size, dtype=exact, device=q.device)
            system = unit - _meet(a, b, earlier)
            right = torch.cat((_meet(a, k, earlier) @ v, a * before.exp()), -1)
            solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
            of_values, of_state = solved.split((v.shape[-1], a.shape[-1]), -1)
            corrected = _meet(q, b, reach)
            kept_b = (b * (whole - until).exp()).transpose(-1, -2)
            for o, q_0, w, kv, u_v, u_s, q_u, b_u in _by_chunk(
                outputs, from_start, carry, written, of_values, of_state, corrected, kept_b
            ):
                u = u_v + u_s @ state
                found.append(o + q_0 @ state + q_u @ u)
                state = w * state + kv + b_u @ u
        o_TBNV = torch.stack(found).permute(0, 3, 1, 2, 4).flatten(0, 1)[:T]
    return o_TBNV, state


def delta_step(
    q_BNK: Tensor,
    k_BNK: Tensor,
    v_BNV: Tensor,
    beta_BN: Tensor,
    log_w: Tensor | None,
    state_BNKV: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step of the delta rule, of which a share β of what S holds for a key is replaced, after
    a decay w [B, N, 1] of each head:

        S_t = w_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ
    """
    written, removed = _delta_rule(k_BNK, beta_BN, log_w)
    return matrix_step(q_BNK, written, v_BNV, log_w, state_BNKV, k_BNK, removed)


def delta_scan(
    q_TBNK: Tensor,
    k_TBNK: Tensor,
    v_TBNV: Tensor,
    beta_TBN: Tensor,
    log_w: Tensor | None,
    state_BNKV: Tensor,
) -> tuple[Tensor, Tensor]:
    """All steps of the delta rule."""
    if kernels.suit(q_TBNK, v_TBNV, state_BNKV, kernels.DELTA):
        return kernels.delta_scan_by_kernel(q_TBNK, k_TBNK, v_TBNV, beta_TBN, log_w, state_BNKV)
    written, removed = _delta_rule(k_TBNK, beta_TBN, log_w)
    return matrix_scan(q_TBNK, written, v_TBNV, log_w, state_BNKV, k_TBNK, removed)


def _delta_rule(k: Tensor, beta: Tensor, log_w: Tensor | None) -> tuple[Tensor, Tensor]:
    """What is written at a key, and, negative, what is removed there."""
    written = beta.unsqueeze(-1) * k
    return written, -(written if log_w is None else log_w.exp() * written)


def _by_chunk(*parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(part.unbind(0) for part in parts), strict=True)


def _decays(until: Tensor, since: Tensor, diagonal: int) -> Tensor:
    """exp(until_t - since_s) [..., C, C, K] for s up to t (or t - 1: `diagonal`), and else 0."""
    difference = until.unsqueeze(-2) - since.unsqueeze(-3)
    size = until.shape[-2]
    later = torch.ones(size, size, dtype=torch.bool, device=until.device).triu(diagonal + 1)
    return difference.masked_fill(later.unsqueeze(-1), -torch.inf).exp()


def _meet(one: Tensor, other: Tensor, decays: Tensor) -> Tensor:
    """Σ_k one_tk decay_tsk other_sk, [..., C, C]."""
    if decays.shape[-1] == 1:
        return (one @ other.transpose(-1, -2)) * decays.squeeze(-1)
    return torch.einsum("...tsk,...sk->...ts", one.unsqueeze(-2) * decays, other)
