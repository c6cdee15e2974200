"""Gated linear attention (Yang et al. 2023, arXiv:2312.06635, sections 4.2 and 4.4).

Per head, with a matrix S [K, V], keys and queries of K features and values of V:

    S_t = diag(α_t) S_{t-1} + k_tᵀ v_t,   o_t = q_t S_t / √K
    α_t = σ(x_t W_α1 W_α2 + b_α)^{1/τ}
    y_t = (swish(x_t W_r) ⊙ RMSNorm(o_t)) W_O
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Cell
from zoo.nn import matrix_scan, matrix_step
from zoo_delta.heads import by_head, drawn, head_count, rms_norm, silu


class GLAState(NamedTuple):
    S: Tensor  # [B, N, K, V], keys to values


class GLAInputs(NamedTuple):
    q: Tensor  # [..., N, K], scaled
    k: Tensor  # [..., N, K]
    v: Tensor  # [..., N, V]
    log_decay: Tensor  # log α [..., N, K], negative
    gate: Tensor  # [..., N, V], before the swish


class GLA(Cell):
    """N = min(`heads`, ⌊H / 8⌋) heads, or one, with keys of K = ⌈H / 2N⌉ features and values of
    V = ⌈H / N⌉, as in the paper where N divides H. Weights: `W_q`, `W_k` [I, N K], `W_v`, `W_r`
    [I, N V], `W_a1` [I, rank] and `W_a2` [rank, N K] for the decay, `W_o` [N V, H]; `norm` [V] is
    shared by the heads."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        heads: Annotated[
            int, Field(ge=1, le=64, description="Most heads; each has 8 features or more.")
        ] = 4,
        gate_rank: Annotated[
            int, Field(ge=1, le=256, description="Rank of the decay's projection.")
        ] = 16,
        tau: Annotated[
            float,
            Field(
                ge=1,
                le=1000,
                description=("Temperature τ: the decay is the τ-th root of a sigmoid."),
            ),
        ] = 16.0,
    ) -> None:
        super().__init__(input_size, hidden_size)
        heads = head_count(heads, hidden_size)
        self.heads, self.tau = heads, tau
        self.key_size = -(-hidden_size // (2 * heads))
        self.value_size = -(-hidden_size // heads)
        keys, values = heads * self.key_size, heads * self.value_size
        self.W_q, self.W_k = drawn(input_size, keys), drawn(input_size, keys)
        self.W_v, self.W_r = drawn(input_size, values), drawn(input_size, values)
        self.W_a1, self.W_a2 = drawn(input_size, gate_rank), drawn(gate_rank, keys)
        self.b_a = nn.Parameter(torch.zeros(keys))
        self.norm = nn.Parameter(torch.ones(self.value_size))
        self.W_o = drawn(values, hidden_size)

    def init_state(self, batch_size: int) -> GLAState:
        return GLAState(self.zeros(batch_size, self.heads, self.key_size, self.value_size))

    def project(self, x: Tensor) -> GLAInputs:
        heads = self.heads
        decay = x @ self.W_a1 @ self.W_a2 + self.b_a
        return GLAInputs(
            q=by_head(x @ self.W_q * self.key_size**-0.5, heads),
            k=by_head(x @ self.W_k, heads),
            v=by_head(x @ self.W_v, heads),
            log_decay=by_head(-F.softplus(-decay) / self.tau, heads),
            gate=by_head(x @ self.W_r, heads),
        )

    def advance(self, z: GLAInputs, state: GLAState) -> tuple[Tensor, GLAState]:
        o, S = matrix_step(z.q, z.k, z.v, z.log_decay, state.S)
        return o, GLAState(S)

    def scan(self, z_T: GLAInputs, state: GLAState) -> tuple[Tensor, GLAState]:
        o, S = matrix_scan(z_T.q, z_T.k, z_T.v, z_T.log_decay, state.S)
        return o, GLAState(S)

    def readout(self, h: Tensor, z: GLAInputs) -> Tensor:
        return (silu(z.gate) * rms_norm(h, self.norm)).flatten(-2) @ self.W_o
