"""DeltaNet (Schlag et al. 2021, arXiv:2102.11174), with the layer of Yang et al. 2024,
arXiv:2406.06484: short convolutions, SiLU and L2-normalised keys and queries.

    q_t, k_t = L2norm(SiLU(conv(x W_q))_t), …,   v_t = SiLU(conv(x W_v))_t,   β_t = σ(x_t W_β)
    S_t = (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ,   o_t = S_tᵀ q_t / √K
    y_t = RMSNorm(o_t) W_O
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo_delta.delta_rule import DeltaRule
from zoo_delta.heads import drawn, head_count, rms_norm


class DeltaInputs(NamedTuple):
    qkv: Tensor  # [..., N (2 K + V)]
    beta: Tensor  # [..., N], within (0, 1), or (0, 2)


class DeltaNet(DeltaRule):
    """N = min(`heads`, ⌊H / 8⌋) heads, or one, with K = V = ⌈H / N⌉. Beside the weights of
    `DeltaRule`: `W_o` [N V, H] and `norm` [V], shared by the heads."""

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
                "[-1, 1], not [0, 1]."
            ),
        ] = False,
    ) -> None:
        heads = head_count(heads, hidden_size)
        size = -(-hidden_size // heads)
        super().__init__(
            input_size, hidden_size, heads, size, size, short_conv, negative_eigenvalues
        )
        self.norm = nn.Parameter(torch.ones(size))
        self.W_o = drawn(heads * size, hidden_size)

    def project(self, x: Tensor) -> DeltaInputs:
        return DeltaInputs(x @ self.W_qkv, self.beta(x))

    def readout(self, h: Tensor, z: DeltaInputs) -> Tensor:
        return rms_norm(h, self.norm).flatten(-2) @ self.W_o
