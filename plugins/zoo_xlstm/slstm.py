"""The sLSTM (Beck et al. 2024, arXiv:2405.04517, equations 8 to 18).

The input gate is an exponential, so c and n are kept divided by exp(m). Their quotient does not
depend on m, but arithmetic does: of the two factors f' and i' one is always 1.
"""

from math import sqrt
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Cell

NOTHING = -1e30  # log scale of an empty memory: the first input is stored unscaled, and n ≥ 1


class SLSTMState(NamedTuple):
    h: Tensor  # [B, H], within (-1, 1)
    c: Tensor  # [B, H]
    n: Tensor  # [B, H]
    m: Tensor  # [B, H]


class SLSTM(Cell):
    """For N heads of D units: `W` [I, N * 4 * D], `R` [N, D, 4 * D] and `b` [N * 4 * D], where a
    head's columns are those of i, f, z and o."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        heads: Annotated[
            int, Field(ge=1, le=64, description="Heads; the most that divide the hidden size.")
        ] = 4,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.heads = max(n for n in range(1, heads + 1) if hidden_size % n == 0)
        D = self.units = hidden_size // self.heads
        # initial values as in the authors' package xlstm, with its option of recurrent weights
        # that are not zero
        self.W = nn.Parameter(torch.randn(input_size, 4 * hidden_size) * sqrt(2 / (5 * input_size)))
        self.R = nn.Parameter((2 * torch.rand(self.heads, D, 4 * D) - 1) / sqrt(hidden_size))
        bias = torch.zeros(self.heads, 4, D)
        share = torch.arange(D) / max(D - 1, 1)
        bias[:, 1] = 5 - 12 * share**0.3  # from 5 (remember) to -7 (forget)
        self.b = nn.Parameter(bias.flatten())

    def init_state(self, batch_size: int) -> SLSTMState:
        h, c, n, m = (self.zeros(batch_size, self.hidden_size) for _ in range(4))
        return SLSTMState(h, c, n, m + NOTHING)

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0}

    def project(self, x: Tensor) -> Tensor:
        return torch.unflatten(x @ self.W + self.b, -1, (self.heads, 4 * self.units))

    def advance(self, z: Tensor, state: SLSTMState) -> tuple[Tensor, SLSTMState]:
        before = torch.unflatten(state.h, -1, (self.heads, 1, self.units))
        gates = z + (before @ self.R).squeeze(-2)
        log_i, forget, cell_input, output = (
            gate.flatten(-2).to(state.m.dtype) for gate in gates.chunk(4, -1)
        )
        kept = state.m - F.softplus(-forget)
        m = torch.maximum(kept, log_i)
        f, i = (kept - m).exp(), (log_i - m).exp()
        c = f * state.c + i * torch.tanh(cell_input)
        n = f * state.n + i
        h = torch.sigmoid(output) * c / n
        return h, SLSTMState(h, c, n, m)
