"""Recurrences whose state is a matrix: decayed, corrected by a product of rank one, and written to.

For each head, with a state S [K, V], keys and queries of K features and values of V:

    S_t = diag(w_t) S_{t-1} + b_t (a_tᵀ S_{t-1}) + k_t v_tᵀ,   o_t = S_tᵀ q_t

Without a and b it is linear attention with decay. The delta rule is that with b = -β a, for which
`delta_scan` and `delta_step` stand. Shapes are [T, B, N, K] for N heads; the decay is given as
log w, of size K, or 1 where a head decays as one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.nn.chunks import scan_in_chunks
from zoo.nn.replaceable import replaceable

CHUNK = 32  # steps


@replaceable
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


@replaceable
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
    arXiv:2312.06635, section 4; with a and b, arXiv:2406.06484, section 3). Decays are exponentials
    of what is never positive: nothing overflows.
    """
    exact = state_BNKV.dtype
    with torch.autocast(state_BNKV.device.type, enabled=False):
        if log_w is None:
            log_w = q_TBNK.new_zeros(1, 1, 1, 1)
        pairs = [q_TBNK, k_TBNK]
        if a_TBNK is not None and b_TBNK is not None:
            pairs += [a_TBNK, b_TBNK]
        shapes = (x.shape[:3] for x in (v_TBNV, *pairs))
        lead = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
        given = (x.to(exact).expand(*lead, x.shape[-1]) for x in (log_w, v_TBNV, *pairs))
        return scan_in_chunks(_chunk_size(len(q_TBNK), log_w.shape[-1]), state_BNKV, *given)


@replaceable
def delta_step(
    q_BNK: Tensor,
    k_BNK: Tensor,
    v_BNV: Tensor,
    beta_BN: Tensor,
    log_w: Tensor | None,
    state_BNKV: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step of the delta rule: a share β of the value that the decayed state holds for the key,
    which is of length 1, is replaced by v (Yang et al. 2024, arXiv:2412.06464, equation 10):

        S_t = w_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ,   o_t = S_tᵀ q_t

    Gives o [B, N, V] and the next state. `log_w` is of size 1; None without a decay.
    """
    k, a, b = as_rank_one(k_BNK, beta_BN, log_w)
    return matrix_step(q_BNK, k, v_BNV, log_w, state_BNKV, a, b)


@replaceable
def delta_scan(
    q_TBNK: Tensor,
    k_TBNK: Tensor,
    v_TBNV: Tensor,
    beta_TBN: Tensor,
    log_w: Tensor | None,
    state_BNKV: Tensor,
) -> tuple[Tensor, Tensor]:
    """All steps of the delta rule (see `delta_step`): o [T, B, N, V] and the last state."""
    k, a, b = as_rank_one(k_TBNK, beta_TBN, log_w)
    return matrix_scan(q_TBNK, k, v_TBNV, log_w, state_BNKV, a, b)


def as_rank_one(k: Tensor, beta: Tensor, log_w: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The arguments k, a and b of `matrix_step` and `matrix_scan` for the delta rule."""
    written = beta.unsqueeze(-1) * k
    return written, k, -(written if log_w is None else log_w.exp() * written)


def _chunk_size(steps: int, decays: int) -> int:
    """The steps of a chunk: a power of two where each key has a decay of its own."""
    if decays == 1:
        return -(-steps // -(-steps // CHUNK))
    powers = [CHUNK >> halvings for halvings in range(CHUNK.bit_length())]
    # measured on a CPU, a chunk costs as much as eight steps more
    return min(powers, key=lambda size: -(-steps // size) * (size + 8))
