"""The LSTM with peephole connections (Gers and Schmidhuber 2000; Gers, Schraudolph and Schmidhuber
2002, section 3): the gates also read the memory cell.

    i_t = σ(W_xi x_t + W_hi h_{t-1} + p_i ⊙ c_{t-1} + b_i)
    f_t = σ(W_xf x_t + W_hf h_{t-1} + p_f ⊙ c_{t-1} + b_f)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(W_xc x_t + W_hc h_{t-1} + b_c)
    o_t = σ(W_xo x_t + W_ho h_{t-1} + p_o ⊙ c_t + b_o)
    h_t = o_t ⊙ tanh(c_t)
"""

from math import sqrt
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from zoo import Cell
from zoo.nn import uniform


class PeepholeState(NamedTuple):
    h: Tensor  # [B, H], within (-1, 1) with squash=tanh
    c: Tensor  # [B, H], unbounded


class PeepholeLSTM(Cell):
    """Weights side by side, in the order i, f, c, o: `W_x` [I, 4·H], `W_h` [H, 4·H], `b` [4·H]; the
    peepholes `p_i`, `p_f`, `p_o` [H] are diagonal."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        squash: Annotated[
            Literal["tanh", "identity"],
            Field(description="Activation function of the memory before the output gate; the first "
                  "papers had none."),
        ] = "tanh",
        forget_bias: Annotated[
            float,
            Field(ge=-10, le=10, description="Added to the initial bias of the forget gate."),
        ] = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size)
        self.squash = squash
        bound = 1 / sqrt(hidden_size)  # as torch.nn.LSTM: the papers' networks had only a few cells
        self.W_x = uniform(bound, input_size, 4 * hidden_size)
        self.W_h = uniform(bound, hidden_size, 4 * hidden_size)
        self.b = uniform(bound, 4 * hidden_size)
        with torch.no_grad():
            self.b[hidden_size : 2 * hidden_size] += forget_bias
        self.p_i = uniform(bound, hidden_size)
        self.p_f = uniform(bound, hidden_size)
        self.p_o = uniform(bound, hidden_size)

    def init_state(self, batch_size: int) -> PeepholeState:
        return PeepholeState(
            self.zeros(batch_size, self.hidden_size), self.zeros(batch_size, self.hidden_size)
        )

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0} if self.squash == "tanh" else {}

    def recurrent_weights(self) -> dict[str, int]:
        return {"W_h": 0}

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W_x + self.b

    def advance(self, z: Tensor, state: PeepholeState) -> tuple[Tensor, PeepholeState]:
        to_i, to_f, to_c, to_o = (z + state.h @ self.W_h).chunk(4, -1)
        i = torch.sigmoid(to_i + self.p_i * state.c)
        f = torch.sigmoid(to_f + self.p_f * state.c)
        c = (f * state.c + i * torch.tanh(to_c)).to(state.c.dtype)
        o = torch.sigmoid(to_o + self.p_o * c)
        h = (o * (torch.tanh(c) if self.squash == "tanh" else c)).to(state.h.dtype)
        return h, PeepholeState(h, c)
