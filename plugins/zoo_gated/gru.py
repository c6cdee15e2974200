"""The gated recurrent unit (Cho et al. 2014, equations 5 to 8; Dive into Deep Learning, section
10.2)."""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell
from zoo.nn import Adopted, TorchCell
from zoo.nn.fused import (
    Recurrence,
    plus_product,
    product,
    product_over_steps,
    run_fused,
    sigmoid_gradient,
    tanh_gradient,
)
from zoo.registry import Registry
from zoo_gated.weights import gate_weights


class GRUState(NamedTuple):
    h: Tensor  # [B, H], within (-1, 1)


class GRUGates(NamedTuple):
    """The input's terms of the gates and the candidate: [..., H] each."""

    r: Tensor
    z: Tensor
    n: Tensor


class GRUScratch(Cell):
    """Weights are stored as the equations multiply them: `W_x*` [I, H], `W_h*` [H, H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        std: Annotated[
            float, Field(gt=0, le=1, description="Standard deviation of the initial weights.")
        ] = 0.01,
        reset: Annotated[
            Literal["before", "after"],
            Field(description="Reset the state before its product with W_hh, or the product."),
        ] = "before",
    ) -> None:
        super().__init__(input_size, hidden_size)
        sizes = input_size, hidden_size, std
        self.W_xr, self.W_hr, self.b_r = gate_weights(*sizes)
        self.W_xz, self.W_hz, self.b_z = gate_weights(*sizes)
        self.W_xh, self.W_hh, self.b_h = gate_weights(*sizes)
        self.b_hh = nn.Parameter(torch.zeros(hidden_size)) if reset == "after" else None

    def init_state(self, batch_size: int) -> GRUState:
        return GRUState(self.zeros(batch_size, self.hidden_size))

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0}

    def recurrent_weights(self) -> dict[str, int]:
        return {"W_hr": 0, "W_hz": 0, "W_hh": 0}

    def project(self, x: Tensor) -> GRUGates:
        return GRUGates(
            x @ self.W_xr + self.b_r, x @ self.W_xz + self.b_z, x @ self.W_xh + self.b_h
        )

    def advance(self, z: GRUGates, state: GRUState) -> tuple[Tensor, GRUState]:
        r = torch.sigmoid(z.r + state.h @ self.W_hr)
        update = torch.sigmoid(z.z + state.h @ self.W_hz)
        if self.b_hh is None:
            recurrent = (r * state.h) @ self.W_hh
        else:
            recurrent = r * (state.h @ self.W_hh + self.b_hh)
        candidate = torch.tanh(z.n + recurrent)
        h = update * state.h + (1 - update) * candidate
        return h, GRUState(h)

    def forward(self, x_TBI: Tensor, state: GRUState | None = None) -> tuple[Tensor, GRUState]:
        if self.b_hh is not None:  # reset=after has no fused path
            return super().forward(x_TBI, state)
        if state is None:
            state = self.init_state(x_TBI.shape[1])
        inputs = torch.cat((self.W_xr, self.W_xz, self.W_xh), 1)
        biases = torch.cat((self.b_r, self.b_z, self.b_h))
        weights = torch.cat((self.W_hr, self.W_hz), 1), self.W_hh
        h_TBH, (h,) = run_fused(GRURecurrence, x_TBI, (inputs, biases), state, weights)
        return h_TBH, GRUState(h)


class GRURecurrence(Recurrence):
    """From z [B, 3·H] (r, u, and the candidate n), with ȧ the gradient at a sum:

    ȧ_n = ḣ (1 - u)(1 - n²),   ȧ_u = ḣ (h_{t-1} - n) u(1 - u),   p = ȧ_n W_nᵀ,
    ȧ_r = p h_{t-1} r(1 - r),   ḣ_{t-1} = ḣ u + p r + [ȧ_r ȧ_u] W_ruᵀ
    """

    kept = (1,)  # r h; z becomes r, u and n

    @staticmethod
    def forward(
        z_BK: Tensor,
        before: tuple[Tensor, ...],
        weights: tuple[Tensor, ...],
        after: tuple[Tensor, ...],
        kept: tuple[Tensor, ...],
    ) -> None:
        (h,), (reset,) = before, kept
        r, u, n = z_BK.chunk(3, -1)
        gates = z_BK[:, : 2 * h.shape[-1]]
        plus_product(gates, h, weights[0], out=gates).sigmoid_()
        torch.mul(r, h, out=reset)
        plus_product(n, reset, weights[1], out=n).tanh_()
        torch.lerp(n, h, u, out=after[0])

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
        (grad_h,), (h,) = gradients, before
        r, u, n = z_BK.chunk(3, -1)
        by_r, by_u, by_n = gradient_BK.chunk(3, -1)
        kept_grad = grad_h * u
        tanh_gradient(grad_h - kept_grad, n, into=by_n)
        through = product(by_n, transposed[1])
        sigmoid_gradient(through * h, r, into=by_r)
        sigmoid_gradient(grad_h * (h - n), u, into=by_u)
        gates_grad = gradient_BK[:, : 2 * h.shape[-1]]
        kept_grad.add_(outside_BH).addcmul_(through, r)
        return (plus_product(kept_grad, gates_grad, transposed[0], out=kept_grad),)

    @staticmethod
    def weight_gradients(
        before_TBH: Tensor, kept_T: tuple[Tensor, ...], gradient_TBK: Tensor
    ) -> tuple[Tensor, ...]:
        H = before_TBH.shape[-1]
        return (
            product_over_steps(before_TBH, gradient_TBK[..., : 2 * H]),
            product_over_steps(kept_T[-1], gradient_TBK[..., 2 * H :]),
        )


class GRU(TorchCell):
    """The parameters are those of torch.nn.GRU, with its names, shapes and initial values."""

    layer_type = nn.GRU
    state_type = GRUState

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0}

    def advance(self, z: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        _, weight_hh, _, bias_hh = self.weights()
        x_r, x_z, x_n = z.chunk(3, -1)
        h_r, h_z, h_n = (state.h @ weight_hh.T + bias_hh).chunk(3, -1)
        r, update = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        candidate = torch.tanh(x_n + r * h_n)
        h = (1 - update) * candidate + update * state.h
        return h, GRUState(h)


def adopt(layer: nn.RNNBase, registry: Registry) -> Adopted | None:
    """A trained one-layer torch.nn.GRU as the cell `gru`."""
    return GRU.adopt(layer, "gru")
