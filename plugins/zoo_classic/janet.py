"""JANET, an LSTM with nothing but its forget gate (van der Westhuizen and Lasenby 2018,
arXiv:1804.04849, section 3).

    s_t = U_f h_{t-1} + W_f x_t + b_f
    c̃_t = tanh(U_c h_{t-1} + W_c x_t + b_c)
    c_t = σ(s_t) ⊙ c_{t-1} + (1 - σ(s_t - β)) ⊙ c̃_t
    h_t = c_t

With β > 0 more is written than is forgotten.
"""

from math import exp
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell
from zoo_classic.weights import glorot


class JANETState(NamedTuple):
    c: Tensor  # [B, H], within (-e^β, e^β)


class JANET(Cell):
    """Weights side by side, in the order f, c: `W` [I, 2·H], `U` [H, 2·H], `b` [2·H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        beta: Annotated[
            float, Field(ge=0, le=10, description="β: how far writing exceeds forgetting.")
        ] = 1.0,
        longest: Annotated[
            float,
            Field(gt=2, description="T_max: longest initial memory, in steps."),
        ] = 10.0,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.beta = beta
        self.W = glorot(input_size, hidden_size, gates=2)
        # the state reaches e^β: weights scaled for a bound of 1 would saturate the gates
        self.U = glorot(hidden_size, hidden_size, gates=2, gain=exp(-beta))
        # the chrono initialiser (Tallec and Ollivier 2018): b_f = log U(1, T_max - 1), b_c = 0
        spans = torch.empty(hidden_size).uniform_(1, longest - 1)
        self.b = nn.Parameter(torch.cat((spans.log(), torch.zeros(hidden_size))))

    def init_state(self, batch_size: int) -> JANETState:
        return JANETState(self.zeros(batch_size, self.hidden_size))

    def state_bounds(self) -> dict[str, float]:
        # σ(s) M + 1 - σ(s - β) ≤ M for every s where M = sup (1 + e^s) / (1 + e^(s - β)) = e^β
        return {"c": exp(self.beta)}

    def recurrent_weights(self) -> dict[str, int]:
        return {"U": 0}

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W + self.b

    def advance(self, z: Tensor, state: JANETState) -> tuple[Tensor, JANETState]:
        s, candidate = (z + state.c @ self.U).chunk(2, -1)
        written = 1 - torch.sigmoid(s - self.beta)
        c = (torch.sigmoid(s) * state.c + written * torch.tanh(candidate)).to(state.c.dtype)
        return c, JANETState(c)
