"""The recurrence of Elman (1990), written from the equations.

    h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h)

Dive into Deep Learning, section 9.4, equation 9.4.5, with the initial values of section 9.5.
"""

from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from zoo import Cell


class RNNState(NamedTuple):
    h: Tensor  # [B, H], within (-1, 1)


class RNNScratch(Cell):
    """Weights are stored as the equations multiply them: `W_xh` [I, H], `W_hh` [H, H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        std: Annotated[
            float, Field(gt=0, le=1, description="Standard deviation of the first weights.")
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

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W_xh + self.b_h

    def advance(self, z: Tensor, state: RNNState) -> tuple[Tensor, RNNState]:
        h = torch.tanh(z + state.h @ self.W_hh)
        return h, RNNState(h)

    def forward(self, x_TBI: Tensor, state: RNNState | None = None) -> tuple[Tensor, RNNState]:
        if state is None:
            state = self.init_state(x_TBI.shape[1])
        z_TBH = self.project(x_TBI).to(state.h.dtype)
        with torch.autocast(x_TBI.device.type, enabled=False):  # the state keeps its dtype
            h_TBH = TanhRecurrence.apply(z_TBH, state.h, self.W_hh)  # type: ignore[no-untyped-call]
        return h_TBH, RNNState(h_TBH[-1])


class TanhRecurrence(torch.autograd.Function):
    """h_t = tanh(z_t + h_{t-1} W) for all t, from z [T, B, H], h_0 [B, H] and W [H, H].

    Autograd would add up the gradient of W step by step; here it is one product over all steps:
    with δ_t the gradient at the sum inside tanh,

        δ_t = (∂L/∂h_t + δ_{t+1} Wᵀ) ⊙ (1 - h_t²),   ∂L/∂W = Σ_t h_{t-1}ᵀ δ_t
    """

    @staticmethod
    def forward(ctx: Any, z_TBH: Tensor, h_BH: Tensor, W: Tensor) -> Tensor:
        steps = [h_BH]
        for z in z_TBH.unbind(0):
            steps.append(torch.addmm(z, steps[-1], W).tanh_())
        h_TBH = torch.stack(steps[1:])
        ctx.save_for_backward(h_TBH, h_BH, W)
        return h_TBH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_TBH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h_TBH, h_BH, W = ctx.saved_tensors
        W_t = W.T.contiguous()
        slopes, gradients = (1 - h_TBH.square()).unbind(0), gradient_TBH.unbind(0)
        deltas = [gradients[-1] * slopes[-1]]
        for gradient, slope in zip(gradients[-2::-1], slopes[-2::-1], strict=True):
            deltas.append(torch.addmm(gradient, deltas[-1], W_t).mul_(slope))
        delta_TBH = torch.stack(deltas[::-1])
        before_TBH = torch.cat((h_BH.unsqueeze(0), h_TBH[:-1]))
        gradient_W = before_TBH.flatten(0, 1).T @ delta_TBH.flatten(0, 1)
        return delta_TBH, deltas[-1] @ W_t, gradient_W
