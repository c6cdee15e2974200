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
from zoo.nn.fused import Recurrence, find_kernels, run_fused, sigmoid_gradient, tanh_gradient

KERNELS = "zoo_xlstm.slstm_kernels"
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
        h_TBH, last = run_fused(SLSTMRecurrence, x_TBI, (self.W, self.b), state, (self.R,))
        return h_TBH, SLSTMState(*last)


class SLSTMRecurrence(Recurrence):
    """From z [B, N·4·D] and h R, with ȧ the gradient at a gate's sum and q = c_t / n_t:

    ċ_t = ċ + ḣ o / n_t,   ṅ_t = ṅ - ḣ o q / n_t,   ȧ_o = ḣ q o(1 - o),
    ȧ_z = ċ_t i (1 - z²),   u = f (ċ_t c_{t-1} + ṅ_t n_{t-1}),   w = i (ċ_t z + ṅ_t),
    ṁ_t = ṁ - u - w, which belongs to u where f is 1 and to w where i is,
    ȧ_i = w,   ȧ_f = u σ(-a_f),   ṁ_{t-1} = u,   ċ_{t-1} = f ċ_t,   ṅ_{t-1} = f ṅ_t,
    ḣ_{t-1} = ȧ Rᵀ
    """

    states = 4
    kept = (1,)  # σ(-a_f); z becomes i, f, the cell's input and o

    @staticmethod
    def cut(weight: Tensor) -> Tensor:
        return weight

    @staticmethod
    def forward(
        z_BK: Tensor,
        before: tuple[Tensor, ...],
        weights: tuple[Tensor, ...],
        after: tuple[Tensor, ...],
        kept: tuple[Tensor, ...],
    ) -> None:
        heads = len(weights[0])
        h, c, n, m = (by_head(leaf, heads) for leaf in before)
        new_h, new_c, new_n, new_m = (by_head(leaf, heads) for leaf in after)
        (forgotten,) = (by_head(leaf, heads) for leaf in kept)
        gates = by_head(z_BK, heads)
        if (kernels := find_kernels(KERNELS, z_BK)) is not None:
            gates.transpose(0, 1).baddbmm_(h.transpose(0, 1), weights[0])
            kernels.forward(z_BK, before, after, kept[0], heads)
            return
        gates += (h.transpose(0, 1) @ weights[0]).transpose(0, 1)
        i, f, cell_input, o = gates.chunk(4, -1)
        torch.sigmoid(-f, out=forgotten)
        remembered = F.logsigmoid(f).add_(m)
        torch.maximum(remembered, i, out=new_m)
        f.copy_(remembered.sub_(new_m).exp_())
        i.sub_(new_m).exp_()
        cell_input.tanh_()
        o.sigmoid_()
        torch.mul(f, c, out=new_c).addcmul_(i, cell_input)
        torch.addcmul(i, f, n, out=new_n)
        torch.mul(o, new_c, out=new_h).div_(new_n)

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
        heads = len(transposed[0])
        if (kernels := find_kernels(KERNELS, z_BK)) is not None:
            own = kernels.backward(gradients, z_BK, before, after, kept[0], gradient_BK, heads)
            by_h = by_head(outside_BH, heads).transpose(0, 1)
            by_h.baddbmm_(by_head(gradient_BK, heads).transpose(0, 1), transposed[0])
            return outside_BH, *own
        grad_h, grad_c, grad_n, grad_m = (by_head(leaf, heads) for leaf in gradients)
        _, c, n, _ = (by_head(leaf, heads) for leaf in before)
        _, new_c, new_n, _ = (by_head(leaf, heads) for leaf in after)
        (forgotten,) = (by_head(leaf, heads) for leaf in kept)
        i, f, cell_input, o = by_head(z_BK, heads).chunk(4, -1)
        gradient = by_head(gradient_BK, heads)
        by_i, by_f, by_cell_input, by_o = gradient.chunk(4, -1)
        quotient = new_c / new_n
        sigmoid_gradient(grad_h * quotient, o, into=by_o)
        through = grad_h * o / new_n
        grad_c = grad_c + through
        grad_n = grad_n - through * quotient
        tanh_gradient(grad_c * i, cell_input, into=by_cell_input)
        kept_grad = (grad_c * c).addcmul_(grad_n, n).mul_(f)
        added_grad = (grad_c * cell_input).add_(grad_n).mul_(i)
        # m is the larger of two; where they are equal, half belongs to each
        scale_grad = grad_m - kept_grad - added_grad
        share = ((f == 1).to(f.dtype) - (i == 1).to(f.dtype) + 1) / 2
        kept_grad.addcmul_(scale_grad, share)
        by_i.copy_(added_grad.addcmul_(scale_grad, 1 - share))
        by_f.copy_(kept_grad * forgotten)
        by_h = (gradient.transpose(0, 1) @ transposed[0]).transpose(0, 1)
        own = by_head(outside_BH, heads) + by_h, grad_c.mul_(f), grad_n.mul_(f), kept_grad
        return tuple(leaf.flatten(1) for leaf in own)

    @staticmethod
    def weight_gradients(
        before_TBH: Tensor,
        kept_T: tuple[Tensor, ...],
        gradient_TBK: Tensor,
        weights: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        heads = len(weights[0])
        before, gradient = (
            by_head(leaf.flatten(0, 1), heads).transpose(0, 1)
            for leaf in (before_TBH, gradient_TBK)
        )
        return (before.mT @ gradient,)


def by_head(leaf: Tensor, heads: int) -> Tensor:
    """[B, N·D] as [B, N, D]."""
    return torch.unflatten(leaf, -1, (heads, -1))
