"""Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al.
2000; Dive into Deep Learning, section 10.1).

    f_t = σ(W_xf x_t + W_hf h_{t-1} + b_f),  and alike i_t and o_t
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(W_xc x_t + W_hc h_{t-1} + b_c),   h_t = o_t ⊙ tanh(c_t)

With an initial b_f above 0 the memory lasts, and gradients reach further back, before anything is
learned: it is positive in Gers et al. (2000), and 1 in Jozefowicz, Zaremba and Sutskever (2015, An
empirical exploration of recurrent network architectures, ICML).
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell
from zoo.nn import Adopted, TorchCell
from zoo.nn.fused import (
    Recurrence,
    plus_product,
    product_over_steps,
    run_fused,
    sigmoid_gradient,
    tanh_gradient,
)
from zoo.registry import Registry
from zoo_gated.weights import gate_weights


class LSTMState(NamedTuple):
    h: Tensor  # [B, H], within (-1, 1)
    c: Tensor  # [B, H], unbounded


class LSTMGates(NamedTuple):
    """The input's terms of the gates and the candidate: [..., H] each."""

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
            float, Field(gt=0, le=1, description="Standard deviation of the initial weights.")
        ] = 0.01,
        forget_bias: Annotated[
            float,
            Field(ge=-10, le=10, description="Added to the initial bias of the forget gate."),
        ] = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size)
        sizes = input_size, hidden_size, std
        self.W_xi, self.W_hi, self.b_i = gate_weights(*sizes)
        self.W_xf, self.W_hf, self.b_f = gate_weights(*sizes)
        nn.init.constant_(self.b_f, forget_bias)
        self.W_xo, self.W_ho, self.b_o = gate_weights(*sizes)
        self.W_xc, self.W_hc, self.b_c = gate_weights(*sizes)

    def init_state(self, batch_size: int) -> LSTMState:
        return LSTMState(
            self.zeros(batch_size, self.hidden_size), self.zeros(batch_size, self.hidden_size)
        )

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0}

    def recurrent_weights(self) -> dict[str, int]:
        return {"W_hi": 0, "W_hf": 0, "W_ho": 0, "W_hc": 0}

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

    def forward(self, x_TBI: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        if state is None:
            state = self.init_state(x_TBI.shape[1])
        inputs = torch.cat((self.W_xc, self.W_xi, self.W_xf, self.W_xo), 1)
        biases = torch.cat((self.b_c, self.b_i, self.b_f, self.b_o))
        weights = torch.cat((self.W_hc, self.W_hi, self.W_hf, self.W_ho), 1)
        h_TBH, last = run_fused(LSTMRecurrence, x_TBI, (inputs, biases), state, (weights,))
        return h_TBH, LSTMState(*last)


class LSTMRecurrence(Recurrence):
    """From z [B, 4·H] (the candidate g, then i, f, o) and h W, with ȧ the gradient at a gate's sum:

    ċ_t = ċ + ḣ_t o (1 - tanh² c_t),   ȧ_i = ċ_t g i(1 - i),   ȧ_f = ċ_t c_{t-1} f(1 - f),
    ȧ_o = ḣ_t tanh(c_t) o(1 - o),   ȧ_g = ċ_t i (1 - g²),   ḣ_{t-1} = ȧ Wᵀ,   ċ_{t-1} = ċ_t f
    """

    states = 2
    kept = (1,)  # tanh(c); z becomes the gates

    @staticmethod
    def forward(
        z_BK: Tensor,
        before: tuple[Tensor, ...],
        weights: tuple[Tensor, ...],
        after: tuple[Tensor, ...],
        kept: tuple[Tensor, ...],
    ) -> None:
        (h, c), (bent,) = after, kept
        gates = plus_product(z_BK, before[0], weights[0], out=z_BK)
        H = h.shape[-1]
        gates[:, :H].tanh_()
        gates[:, H:].sigmoid_()
        g, i, f, o = gates.chunk(4, -1)
        torch.mul(f, before[1], out=c).addcmul_(i, g)
        torch.tanh(c, out=bent)
        torch.mul(o, bent, out=h)

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
        (grad_h, grad_c), (bent,) = gradients, kept
        g, i, f, o = z_BK.chunk(4, -1)
        by_g, by_i, by_f, by_o = gradient_BK.chunk(4, -1)
        through_h = torch.empty_like(grad_h)
        tanh_gradient(grad_h * o, bent, into=through_h)
        grad_c = through_h.add_(grad_c)
        tanh_gradient(grad_c * i, g, into=by_g)
        sigmoid_gradient(grad_c * g, i, into=by_i)
        sigmoid_gradient(grad_c * before[1], f, into=by_f)
        sigmoid_gradient(grad_h * bent, o, into=by_o)
        return plus_product(outside_BH, gradient_BK, transposed[0]), grad_c.mul_(f)

    @staticmethod
    def weight_gradients(
        before_TBH: Tensor, kept_T: tuple[Tensor, ...], gradient_TBK: Tensor
    ) -> tuple[Tensor, ...]:
        return (product_over_steps(before_TBH, gradient_TBK),)


class LSTM(TorchCell):
    """The parameters are those of torch.nn.LSTM, with its names, shapes and initial values, but for
    `forget_bias`, which is added to bias_ih."""

    layer_type = nn.LSTM
    state_type = LSTMState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        forget_bias: Annotated[
            float,
            Field(ge=-10, le=10, description="Added to the initial bias of the forget gate."),
        ] = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size)
        _, _, bias_ih, _ = self.weights()
        with torch.no_grad():
            bias_ih[hidden_size : 2 * hidden_size] += forget_bias

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
