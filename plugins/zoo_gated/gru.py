"""The gated recurrent unit (Cho et al. 2014, equations 5 to 8; Dive into Deep Learning, section
10.2)."""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Adopted, Cell, Registry, TorchCell
from zoo_gated.weights import gate_weights


class GRUState(NamedTuple):
    h: Tensor  # [B, H], within (-1, 1)


class GRUGates(NamedTuple):
    """What each gate gets from the input: [..., H] each."""

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
            float, Field(gt=0, le=1, description="Standard deviation of the first weights.")
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
