"""The clockwork RNN (Koutník et al. 2014, arXiv:1402.3511, section 3).

    y_t = tanh(W_H y_{t-1} + W_I x_t + b)    in the modules that are due: t mod T_i = 0
    y_t = y_{t-1}                            in the others

Module i has the period T_i = 2^(i-1). W_H is block-upper-triangular: a module reads itself and the
slower ones.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell


class ClockworkState(NamedTuple):
    y: Tensor  # [B, H], within (-1, 1)
    t: Tensor  # [B], int64: steps since the beginning


class ClockworkRNN(Cell):
    """Units are divided among the modules as evenly as possible, the fastest first. `W_I` [I, H] is
    stored as it is multiplied; `W_H` [H, H] as the paper has it, rows for the units that receive:
    the part below its diagonal blocks is not used."""

    periods: Tensor  # [H], the period of each unit's module
    connected: Tensor  # [H, H], 1 where W_H is used

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        modules: Annotated[
            int,
            Field(ge=1, le=32, description="Number of modules; at most one for each unit."),
        ] = 5,
    ) -> None:
        super().__init__(input_size, hidden_size)
        modules = min(modules, hidden_size)
        module = torch.arange(hidden_size) * modules // hidden_size
        self.register_buffer("periods", 2**module, persistent=False)
        connected = (module.unsqueeze(1) <= module.unsqueeze(0)).to(torch.get_default_dtype())
        self.register_buffer("connected", connected, persistent=False)
        # from N(0, 0.1²), as in section 4
        self.W_I = nn.Parameter(torch.randn(input_size, hidden_size) * 0.1)
        self.W_H = nn.Parameter(torch.randn(hidden_size, hidden_size) * 0.1)
        self.b = nn.Parameter(torch.zeros(hidden_size))

    def init_state(self, batch_size: int) -> ClockworkState:
        y = self.zeros(batch_size, self.hidden_size)
        return ClockworkState(y, torch.zeros(batch_size, dtype=torch.int64, device=y.device))

    def state_bounds(self) -> dict[str, float]:
        return {"y": 1.0}

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W_I + self.b

    def advance(self, z: Tensor, state: ClockworkState) -> tuple[Tensor, ClockworkState]:
        candidate = torch.tanh(z + state.y @ (self.W_H * self.connected).T)
        turn = state.t.unsqueeze(-1) % self.periods == 0
        y = torch.where(turn, candidate.to(state.y.dtype), state.y)
        return y, ClockworkState(y, state.t + 1)
