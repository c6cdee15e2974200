"""Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al.
2000; Dive into Deep Learning, section 10.1)."""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Adopted, Cell, Registry, TorchCell
from zoo_gated.weights import gate_weights


class LSTMState(NamedTuple):
    h: Tensor  # [B, H], within (-1, 1)
    c: Tensor  # [B, H], unbounded


class LSTMGates(NamedTuple):
    """What each gate and the candidate get from the input: [..., H] each."""

    i: Tensor
    f: Tensor
    o: Tensor
    c: Tensor


class LSTMScratch(Cell):
    """Weights are stored as the equations multiply them: `W_x*` [I, H], `W_h*` [H, H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        std: Annotated[
            float, Field(gt=0, le=1, description="Standard deviation of the first weights.")
        ] = 0.01,
    ) -> None:
        super().__init__(input_size, hidden_size)
        sizes = input_size, hidden_size, std
        self.W_xi, self.W_hi, self.b_i = gate_weights(*sizes)
        self.W_xf, self.W_hf, self.b_f = gate_weights(*sizes)
        self.W_xo, self.W_ho, self.b_o = gate_weights(*sizes)
        self.W_xc, self.W_hc, self.b_c = gate_weights(*sizes)

    def init_state(self, batch_size: int) -> LSTMState:
        return LSTMState(
            self.zeros(batch_size, self.hidden_size), self.zeros(batch_size, self.hidden_size)
        )

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0}

    def project(self, x: Tensor) -> LSTMGates:
        return LSTMGates(
            i=x @ self.W_xi + self.b_i,
            f=x @ self.W_xf + self.b_f,
            o=x @ self.W_xo + self.b_o,
            c=x @ self.W_xc + self.b_c,
        )

    def advance(self, z: LSTMGates, state: LSTMState) -> tuple[Tensor, LSTMState]:
        i = torch.sigmoid(z.i + state.h @ self.W_hi)
        f = torch.sigmoid(z.f + state.h @ self.W_hf)
        o = torch.sigmoid(z.o + state.h @ self.W_ho)
        c = f * state.c + i * torch.tanh(z.c + state.h @ self.W_hc)
        h = o * torch.tanh(c)
        return h, LSTMState(h, c)


class LSTM(TorchCell):
    """The parameters are those of torch.nn.LSTM, with its names, shapes and initial values."""

    layer_type = nn.LSTM
    state_type = LSTMState

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0}

    def project(self, x: Tensor) -> Tensor:
        weight_ih, _, bias_ih, bias_hh = self.weights()
        return x @ weight_ih.T + (bias_ih + bias_hh)

    def advance(self, z: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        _, weight_hh, _, _ = self.weights()
        i, f, g, o = (z + state.h @ weight_hh.T).chunk(4, -1)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, LSTMState(h, c)


def adopt(layer: nn.RNNBase, registry: Registry) -> Adopted | None:
    """A trained one-layer torch.nn.LSTM as the cell `lstm`."""
    return LSTM.adopt(layer, "lstm")
