"""Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al.
2000; Dive into Deep Learning, section 10.1)."""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Adopted, Cell, Recurrence, Registry, TorchCell, product_over_steps, run_fused
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

    def forward(self, x_TBI: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        if state is None:
            state = self.init_state(x_TBI.shape[1])
        inputs = torch.cat((self.W_xi, self.W_xf, self.W_xo, self.W_xc), 1)
        biases = torch.cat((self.b_i, self.b_f, self.b_o, self.b_c))
        weights = torch.cat((self.W_hi, self.W_hf, self.W_ho, self.W_hc), 1)
        z_TBK = x_TBI @ inputs + biases
        h_TBH, last = run_fused(LSTMRecurrence, z_TBK, state, (weights,))
        return h_TBH, LSTMState(*last)


class LSTMRecurrence(Recurrence):
    """From z [B, 4·H] (i, f, o, and the candidate g) and h W, with ȧ the gradient at a gate's sum:

    ċ_t = ċ + ḣ_t o (1 - tanh² c_t),   ȧ_i = ċ_t g i(1 - i),   ȧ_f = ċ_t c_{t-1} f(1 - f),
    ȧ_o = ḣ_t tanh(c_t) o(1 - o),   ȧ_g = ċ_t i (1 - g²),   ḣ_{t-1} = ȧ Wᵀ,   ċ_{t-1} = ċ_t f
    """

    states = 2

    @staticmethod
    def forward(
        z_BK: Tensor, state: tuple[Tensor, ...], weights: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        h, c = state
        H = h.shape[-1]
        gates = torch.addmm(z_BK, h, weights[0])
        gates[:, : 3 * H].sigmoid_()
        gates[:, 3 * H :].tanh_()
        i, f, o, g = gates.chunk(4, -1)
        c = torch.addcmul(f * c, i, g)
        bent = torch.tanh(c)
        return (o * bent, c), (gates, bent)

    @staticmethod
    def prepare(saved_T: tuple[Tensor, ...], before_T: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        gates_TBK, bent_TBH = saved_T
        H = bent_TBH.shape[-1]
        i, f, o, g = gates_TBK.chunk(4, -1)
        slopes = gates_TBK[..., : 3 * H] * (1 - gates_TBK[..., : 3 * H])
        # what ċ_t is multiplied with, for i, f and g; what ḣ_t is, for o; and the way from ḣ to ċ
        by_c = torch.cat((slopes[..., :H] * g, slopes[..., H : 2 * H] * before_T[1]), -1)
        by_h = slopes[..., 2 * H :] * bent_TBH
        return by_c, by_h, i * (1 - g.square()), o * (1 - bent_TBH.square()), f

    @staticmethod
    def backward(
        gradients: tuple[Tensor, ...], prepared: tuple[Tensor, ...], transposed: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        by_c, by_h, by_g, h_to_c, f = prepared
        grad_h, grad_c = gradients
        grad_c = torch.addcmul(grad_c, grad_h, h_to_c)
        both = torch.cat((grad_c, grad_c), -1)
        gates = torch.cat((both * by_c, grad_h * by_h, grad_c * by_g), -1)
        return gates, (gates @ transposed[0], grad_c * f)

    @staticmethod
    def weight_gradients(
        before_TBH: Tensor, prepared_T: tuple[Tensor, ...], gradient_TBK: Tensor
    ) -> tuple[Tensor, ...]:
        return (product_over_steps(before_TBH, gradient_TBK),)


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
