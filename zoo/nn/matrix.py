"""Recurrences whose state is a matrix: decayed, corrected by a product of rank one, and written to.

For each head, with a state S [K, V], keys and queries of K features and values of V:

    S_t = diag(w_t) S_{t-1} + b_t (a_tᵀ S_{t-1}) + k_t v_tᵀ,   o_t = S_tᵀ q_t

Without a and b it is linear attention with decay; a = k and b = -β k make it the delta rule. Shapes
are [T, B, N, K] for N heads; the decay is given as log w, of size K, or 1 where a head decays as
one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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
            for chunk in range(count):
                found.append(outputs[chunk] + from_start[chunk] @ state)
                state = carry[chunk] * state + written[chunk]
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
            for chunk in range(count):
                u = of_values[chunk] + of_state[chunk] @ state
                found.append(outputs[chunk] + from_start[chunk] @ state + corrected[chunk] @ u)
                state = carry[chunk] * state + written[chunk] + kept_b[chunk] @ u
        o_TBNV = torch.stack(found).permute(0, 3, 1, 2, 4).flatten(0, 1)[:T]
    return o_TBNV, state


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
