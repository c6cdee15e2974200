"""Gated DeltaNet (Yang, Kautz and Hatamizadeh 2024, arXiv:2412.06464, section 3).

DeltaNet with the decay of Mamba-2, a scalar for each head, and an output gate:

    α_t = exp(-exp(A) softplus(x_t W_α + b_Δ))
    S_t = α_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ,   o_t = S_tᵀ q_t / √K
    y_t = (SiLU(x_t W_g) ⊙ RMSNorm(o_t)) W_O
"""

from __future__ import annotations

from math import log
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo_delta.delta_rule import DeltaRule
from zoo_delta.heads import by_head, drawn, head_count, rms_norm, silu


class GatedDeltaInputs(NamedTuple):
    qkv: Tensor  # [..., N (2 K + V)]
    beta: Tensor  # [..., N], within (0, 1), or (0, 2)
    log_decay: Tensor  # log α [..., N], negative
    gate: Tensor  # [..., N, V], before the SiLU


class GatedDeltaNet(DeltaRule):
    """N = min(`heads`, ⌊H / 8⌋) heads, or one, with K = ⌈3 H / 4 N⌉ and V = 2 K. Beside the weights
    of `DeltaRule`: `W_a` [I, N], `A_log` and `dt_bias` [N] for the decay, `W_g` [I, N V], `W_o`
    [N V, H] and `norm` [V], shared by the heads."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        heads: Annotated[
            int, Field(ge=1, le=64, description="Most heads; each has 8 features or more.")
        ] = 4,
        short_conv: Annotated[
            bool, Field(description="Convolve q, k and v over the last four steps.")
        ] = True,
        negative_eigenvalues: Annotated[
            bool,
            Field(
                description="β within (0, 2), so that eigenvalues of the transition are within "
                "[-α, α], not [0, α]."
            ),
        ] = False,
    ) -> None:
        heads = head_count(heads, hidden_size)
        # the authors' sizes: N K is ¾ and N V 1½ times the width of the model
        key_size = -(-3 * hidden_size // (4 * heads))
        value_size = 2 * key_size
        super().__init__(
            input_size, hidden_size, heads, key_size, value_size, short_conv, negative_eigenvalues
        )
        self.W_a = drawn(input_size, heads)
        # as in Mamba-2: exp(A) uniform over (0, 16), the first steps softplus(b) log-uniform over
        # (0.001, 0.1); the lower bound is above 0, whose logarithm is not finite
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1e-3, 16).log())
        first = torch.empty(heads).uniform_(log(1e-3), log(0.1)).exp()
        self.dt_bias = nn.Parameter(torch.log(torch.expm1(first)))
        self.W_g = drawn(input_size, heads * value_size)
        self.norm = nn.Parameter(torch.ones(value_size))
        self.W_o = drawn(heads * value_size, hidden_size)

    def project(self, x: Tensor) -> GatedDeltaInputs:
        return GatedDeltaInputs(
            qkv=x @ self.W_qkv,
            beta=self.beta(x),
            log_decay=-self.A_log.exp() * F.softplus(x @ self.W_a + self.dt_bias),
            gate=by_head(x @ self.W_g, self.heads),
        )

    def log_decay(self, z: GatedDeltaInputs) -> Tensor:
        return z.log_decay.unsqueeze(-1)

    def readout(self, h: Tensor, z: GatedDeltaInputs) -> Tensor:
        return (silu(z.gate) * rms_norm(h, self.norm)).flatten(-2) @ self.W_o
