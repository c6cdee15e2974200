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
from zoo.nn.fused import (
    Recurrence,
    block_product_over_steps,
    plus_block_product,
    run_fused,
    sigmoid_gradient,
    tanh_gradient,
)

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

    def forward(self, x_TBI: Tensor, state: SLSTMState | None = None) -> tuple[Tensor, SLSTMState]:
        if state is None:
            state = self.init_state(x_TBI.shape[1])
        start = tuple(torch.unflatten(leaf, -1, (self.heads, self.units)) for leaf in state)
        h_TBND, last = run_fused(SLSTMRecurrence, x_TBI, (self.W, self.b), start, (self.R,))
        return h_TBND.flatten(-2), SLSTMState(*(leaf.flatten(-2) for leaf in last))


class SLSTMRecurrence(Recurrence):
    """From z [B, N, 4·D] (i, f, the cell input g, and o) and h R. With ȧ the gradient at a sum,
    d = m_{t-1} + log σ(f), m_t = max(d, i), f' = exp(d - m_t) and i' = exp(i - m_t):

    ċ_t = ċ + ḣ_t o / n_t,   ṅ_t = ṅ - ḣ_t h_t / n_t,   ċ_{t-1} = ċ_t f',   ṅ_{t-1} = ṅ_t f',
    ȧ_o = ḣ_t (c_t / n_t) o(1 - o),   ȧ_g = ċ_t i' (1 - g²),   ḣ_{t-1} = ȧ Rᵀ,
    p = (ċ_t c_{t-1} + ṅ_t n_{t-1}) f',   q = (ċ_t g + ṅ_t) i'    at d - m_t and at i - m_t,
    ḋ = ṁ_t - q and ȧ_i = q  where m_t = d,   ḋ = p and ȧ_i = ṁ_t - p  where m_t = i,
    ȧ_f = ḋ σ(-f),   ṁ_{t-1} = ḋ
    """

    states = 4
    kept = (1,)  # f'; z becomes i', σ(-f), g and o

    @staticmethod
    def forward(
        z_BK: Tensor,
        before: tuple[Tensor, ...],
        weights: tuple[Tensor, ...],
        after: tuple[Tensor, ...],
        kept: tuple[Tensor, ...],
    ) -> None:
        (h_before, c_before, n_before, m_before), (h, c, n, m), (f,) = before, after, kept
        i, forget, g, o = plus_block_product(z_BK, h_before, weights[0], out=z_BK).chunk(4, -1)
        decayed = m_before - F.softplus(forget.neg_())
        torch.maximum(decayed, i, out=m)
        torch.sub(decayed, m, out=f).exp_()
        i.sub_(m).exp_()
        forget.sigmoid_()
        g.tanh_()
        o.sigmoid_()
        torch.mul(f, c_before, out=c).addcmul_(i, g)
        torch.addcmul(i, f, n_before, out=n)
        torch.mul(o, c, out=h).div_(n)

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
        (grad_h, grad_c, grad_n, grad_m), (_, c_before, n_before, _) = gradients, before
        (h, c, n, _), (f,) = after, kept
        i, forgotten, g, o = z_BK.chunk(4, -1)
        by_i, by_f, by_g, by_o = gradient_BK.chunk(4, -1)
        quotient = grad_h / n
        sigmoid_gradient(quotient * c, o, into=by_o)
        grad_c = torch.addcmul(grad_c, quotient, o)
        grad_n = torch.addcmul(grad_n, quotient, h, value=-1)
        tanh_gradient(grad_c * i, g, into=by_g)
        through_i = torch.addcmul(grad_n, grad_c, g).mul_(i)
        grad_c.mul_(f)
        grad_n.mul_(f)
        through_f = (grad_c * c_before).addcmul_(grad_n, n_before)
        keeps_scale = f == 1
        grad_m_before = torch.where(keeps_scale, grad_m - through_i, through_f)
        torch.where(keeps_scale, through_i, grad_m - through_f, out=by_i)
        torch.mul(grad_m_before, forgotten, out=by_f)
        grad_h = plus_block_product(outside_BH, gradient_BK, transposed[0])
        return grad_h, grad_c, grad_n, grad_m_before

    @staticmethod
    def weight_gradients(
        before_TBH: Tensor, kept_T: tuple[Tensor, ...], gradient_TBK: Tensor
    ) -> tuple[Tensor, ...]:
        return (block_product_over_steps(before_TBH, gradient_TBK),)
