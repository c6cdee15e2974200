"""The recurrence of Elman (1990), written from the equations.

    h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h)

Dive into Deep Learning, section 9.4, equation 9.4.5, with the initial values of section 9.5.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell
from zoo.nn.fused import Recurrence, plus_product, product_over_steps, run_fused, tanh_gradient


class RNNState(NamedTuple):
    h: Tensor  # [B, H], within (-1, 1)


class RNNScratch(Cell):
    """Weights are stored as the equations multiply them: `W_xh` [I, H], `W_hh` [H, H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        std: Annotated[
            float, Field(gt=0, le=1, description="Standard deviation of the initial weights.")
        ] = 0.01,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.W_xh = nn.Parameter(torch.randn(input_size, hidden_size) * std)
        self.W_hh = nn.Parameter(torch.randn(hidden_size, hidden_size) * std)
        self.b_h = nn.Parameter(torch.zeros(hidden_size))

    def init_state(self, batch_size: int) -> RNNState:
        return RNNState(self.zeros(batch_size, self.hidden_size))

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0}

    def recurrent_weights(self) -> dict[str, int]:
        return {"W_hh": 0}

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W_xh + self.b_h

    def advance(self, z: Tensor, state: RNNState) -> tuple[Tensor, RNNState]:
        h = torch.tanh(z + state.h @ self.W_hh)
        return h, RNNState(h)

    def forward(self, x_TBI: Tensor, state: RNNState | None = None) -> tuple[Tensor, RNNState]:
        if state is None:
            state = self.init_state(x_TBI.shape[1])
        h_TBH, (h,) = run_fused(TanhRecurrence, x_TBI, (self.W_xh, self.b_h), state, (self.W_hh,))
        return h_TBH, RNNState(h)


class TanhRecurrence(Recurrence):
    """h_t = tanh(z_t + h_{t-1} W). With δ_t the gradient at the sum inside tanh,

    δ_t = (∂L/∂h_t + δ_{t+1} Wᵀ) ⊙ (1 - h_t²),   ∂L/∂W = Σ_t h_{t-1}ᵀ δ_t
    """

    @staticmethod
    def forward(
        z_BK: Tensor,
        before: tuple[Tensor, ...],
        weights: tuple[Tensor, ...],
        after: tuple[Tensor, ...],
        kept: tuple[Tensor, ...],
    ) -> None:
        plus_product(z_BK, before[0], weights[0], out=z_BK)
        torch.tanh(z_BK, out=after[0])

    @staticmethod
    def backward(
        gradients: tuple[Tensor, ...],
        outside_BH: Tensor,
        before: tuple[Tensor, ...],
        after: tuple[Tensor, ...],
        z_BK: Tensor,
        kept: tuple[Tensor, ...],
        transposed: tuple[Tensor, ...],
        gradient_BK: Tensor,
    ) -> tuple[Tensor, ...]:
        tanh_gradient(gradients[0], after[0], into=gradient_BK)
        return (plus_product(outside_BH, gradient_BK, transposed[0]),)

    @staticmethod
    def weight_gradients(
        before_TBH: Tensor, kept_T: tuple[Tensor, ...], gradient_TBK: Tensor
    ) -> tuple[Tensor, ...]:
        return (product_over_steps(before_TBH, gradient_TBK),)
