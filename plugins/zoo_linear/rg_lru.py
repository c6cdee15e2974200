"""Griffin's recurrent block with the real-gated linear recurrent unit (De et al. 2024,
arXiv:2402.19427, sections 2.3 and 2.4 and appendix A).

    g_t = GeLU(W_y x_t + b_y),   v_t = W_x x_t + b_x
    u_t = b_c + Σ_{j=0..3} w_j ⊙ v_{t-3+j}                the short convolution
    r_t = σ(W_a u_t + b_a),   i_t = σ(W_i u_t + b_i)      W_a, W_i block-diagonal
    log a_t = c r_t ⊙ log σ(Λ),   c = 8
    h_t = a_t ⊙ h_{t-1} + √(1 - a_t²) ⊙ (i_t ⊙ u_t);   at the first step h_1 = i_1 ⊙ u_1
    y_t = W_o (h_t ⊙ g_t) + b_o
"""

import math
from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Cell
from zoo.nn import block_product, convolve, convolve_step, linear_scan

C = 8.0
# Least 1 - a²: the slope of its root is then at most 1000, where RecurrentGemma's code clips it.
SMALLEST = 2.5e-7


class RGLRUState(NamedTuple):
    h: Tensor  # [B, H]
    window: Tensor  # [B, width - 1, H], the last inputs of the convolution
    begun: Tensor  # [B], int64: 0 before the first step, then 1


class RGLRUInputs(NamedTuple):
    v: Tensor  # [..., H], the recurrent branch
    gate: Tensor  # [..., H], the other branch


class RGLRU(Cell):
    """`linear_x` and `linear_y` map I to H features, `linear_out` H to H. `conv_weight` [width, H],
    `conv_bias` and `Lambda` [H]; `W_a` and `W_i` [N, H/N, H/N] and `b_a` and `b_i` [N, H/N] for N
    blocks."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        blocks: Annotated[
            int | None,
            Field(
                ge=1,
                le=65_536,
                description="Blocks of the gates' weights; by default the largest divisor of "
                "hidden up to 4.",
            ),
        ] = None,
        width: Annotated[
            int, Field(ge=2, le=64, description="Kernel size of the convolution.")
        ] = 4,
    ) -> None:
        super().__init__(input_size, hidden_size)
        H = hidden_size
        blocks = blocks or max(n for n in range(1, 5) if H % n == 0)
        self.blocks, self.width = blocks, width
        size = H // blocks
        self.linear_x = _linear(input_size, H)
        self.linear_y = _linear(input_size, H)
        self.linear_out = _linear(H, H)
        # ten times as large as in RecurrentGemma's code: a single layer then learns faster
        self.conv_weight = nn.Parameter(torch.randn(width, H) / math.sqrt(width))
        self.conv_bias = nn.Parameter(torch.zeros(H))
        self.W_a = nn.Parameter(torch.randn(blocks, size, size) / math.sqrt(size))
        self.W_i = nn.Parameter(torch.randn(blocks, size, size) / math.sqrt(size))
        self.b_a = nn.Parameter(torch.zeros(blocks, size))
        self.b_i = nn.Parameter(torch.zeros(blocks, size))
        # section 2.4: σ(Λ)^c uniform between 0.9 and 0.999 (in RecurrentGemma's code σ(Λ), squared)
        log_a = torch.log(0.9 + 0.099 * torch.rand(H, dtype=torch.float64)) / C
        self.Lambda = nn.Parameter((log_a - torch.log(-torch.expm1(log_a))).float())

    def init_state(self, batch_size: int) -> RGLRUState:
        return RGLRUState(
            self.zeros(batch_size, self.hidden_size),
            self.zeros(batch_size, self.width - 1, self.hidden_size),
            torch.zeros(batch_size, dtype=torch.int64, device=self.Lambda.device),
        )

    def project(self, x: Tensor) -> RGLRUInputs:
        return RGLRUInputs(self.linear_x(x), F.gelu(self.linear_y(x), approximate="tanh"))

    def advance(self, z: RGLRUInputs, state: RGLRUState) -> tuple[Tensor, RGLRUState]:
        u, window = convolve_step(z.v, state.window, self.conv_weight, self.conv_bias)
        a, scale, driven = self._gates(u, row_by_row)
        scale = torch.where(state.begun.unsqueeze(-1) > 0, scale, 1.0)
        h = (a * state.h + scale * driven).to(state.h.dtype)
        return h, RGLRUState(h, window, torch.ones_like(state.begun))

    def readout(self, h: Tensor, z: RGLRUInputs) -> Tensor:
        y: Tensor = self.linear_out(h * z.gate)
        return y

    def scan(self, z_T: RGLRUInputs, state: RGLRUState) -> tuple[Tensor, RGLRUState]:
        u_TBH, window = convolve(z_T.v, state.window, self.conv_weight, self.conv_bias)
        a, scale, driven = self._gates(u_TBH, block_product)
        first = torch.where(state.begun.unsqueeze(-1) > 0, scale[0], 1.0)
        scale = torch.cat((first.unsqueeze(0), scale[1:]))
        h_TBH = linear_scan(a, scale * driven, state.h)
        return h_TBH, RGLRUState(h_TBH[-1].clone(), window, torch.ones_like(state.begun))

    def _gates(
        self, u: Tensor, product: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """a, √(1 - a²) and i ⊙ u, from u [..., H]. `product` is that with a block-diagonal
        matrix."""
        r = torch.sigmoid(product(u, self.W_a) + self.b_a.flatten())
        i = torch.sigmoid(product(u, self.W_i) + self.b_i.flatten())
        log_a = -C * r * F.softplus(-self.Lambda)
        # 1 - e^{2x} as -tanh(x)(1 + e^{2x}), which is exact near 0 too; ONNX has no expm1
        rest = -torch.tanh(log_a) * (1 + torch.exp(2 * log_a))
        return torch.exp(log_a), torch.sqrt(rest.clamp(min=SMALLEST)), i * u


def row_by_row(u_BH: Tensor, weight_NKC: Tensor) -> Tensor:
    """`block_product` for the few rows of a step, without moving axes."""
    blocked = torch.unflatten(u_BH, -1, (len(weight_NKC), 1, -1))
    return (blocked @ weight_NKC).flatten(-3)


def takes(hidden_size: int, blocks: int | None, **_: object) -> bool:
    """Whether the blocks divide the hidden units."""
    return blocks is None or hidden_size % blocks == 0


def _linear(input_size: int, output_size: int) -> nn.Linear:
    """Normal weights of variance 1/input_size and zero bias, as in RecurrentGemma's code."""
    layer = nn.Linear(input_size, output_size)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(input_size))
    nn.init.zeros_(layer.bias)
    return layer
