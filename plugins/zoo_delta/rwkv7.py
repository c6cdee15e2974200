"""The time mixing of RWKV-7 "Goose" (Peng et al. 2025, arXiv:2503.14456, section 4).

    x^□_t = x_t + μ_□ ⊙ (x_{t-1} - x_t)                for each □ of r, w, k, v, a, g
    r_t, k_t, v_t = x^r_t W_r, x^k_t W_k, x^v_t W_v
    w_t = exp(-e^{-1/2} σ(tanh(x^w_t W_w1) W_w2 + b_w))
    a_t = σ(x^a_t W_a1 W_a2 + b_a),   g_t = σ(x^g_t W_g1) W_g2
    κ_t = k_t ⊙ ξ,   k̃_t = k_t ⊙ (1 + (a_t - 1) ⊙ α)   removal key and replacement key

Per head, with κ̂ = κ / |κ| and, as the paper writes it, rows for vectors:

    S_t = S_{t-1} (diag(w_t) - κ̂_tᵀ (a_t ⊙ κ̂_t)) + v_tᵀ k̃_t
    p_t = LayerNorm(r_t S_tᵀ) + (r_t · (ρ ⊙ k̃_t)) v_t
    y_t = (g_t ⊙ p_t) W_o

Here S is kept transposed, keys to values.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell
from zoo.nn import matrix_scan, matrix_step
from zoo_delta.heads import by_head, drawn

STRONGEST = exp(-0.5)  # of -log w; no feature decays to less than exp(-0.607) = 0.545 in a step


class RWKV7State(NamedTuple):
    S: Tensor  # [B, N, K, K], keys to values
    x: Tensor  # [B, I], the previous input


class Mixed(NamedTuple):
    """The terms of a step that the recurrence and the output use: [..., N, K] each, `gate` [..., N
    K]."""

    r: Tensor
    log_decay: Tensor  # log w
    k: Tensor  # k̃
    v: Tensor
    removal: Tensor  # κ̂
    a: Tensor
    gate: Tensor


class Read(NamedTuple):
    o: Tensor  # r_t S_tᵀ [..., N, K]
    bonus: Tensor  # u_t [..., N, K]
    gate: Tensor  # [..., N K]


class RWKV7(Cell):
    """N = ⌈H / `head_size`⌉ heads of K = ⌈H / N⌉ features. Weights, with C = N K: `mu` [6, I] for
    r, w, k, v, a and g; `W_r`, `W_k`, `W_v` [I, C]; for the decay w, the in-context learning rate a
    and the gate g `W_*1` [I, rank] and `W_*2` [rank, C]; `b_w`, `b_a`, `xi`, `alpha`, `rho`,
    `norm_weight`, `norm_bias` [C]; `W_o` [C, H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        head_size: Annotated[int, Field(ge=1, le=256, description="Most features of a head.")] = 64,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.heads = -(-hidden_size // head_size)
        self.head_size = -(-hidden_size // self.heads)
        width = self.heads * self.head_size
        # Initial values as in the authors' RWKV-LM (RWKV-v7/train_temp), first layer, except that
        # theirs rely on a layer norm before (so that inputs have a norm of √I) and a residual
        # connection around. There W_r, W_k and W_v are divided by √I, W_g2 by ten, and W_o is zero.
        channel = torch.arange(input_size) / input_size
        powers = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)
        self.mu = nn.Parameter(torch.stack([1 - channel**power for power in powers]))
        self.W_r = _uniform(input_size, width, 0.5)
        self.W_k = _uniform(input_size, width, 0.05)
        self.W_v = _uniform(input_size, width, 0.5)
        rank, gate_rank = _rank(2.5, width), _rank(5, width)
        self.W_w1, self.W_w2 = _low_rank(input_size, rank, width, 0.1)
        self.W_a1, self.W_a2 = _low_rank(input_size, rank, width, 0.1)
        self.W_g1, self.W_g2 = _low_rank(input_size, gate_rank, width, 1)
        along = torch.linspace(0, 1, width)
        within = torch.linspace(-1, 1, self.head_size).repeat(self.heads)
        within = within * within.abs()
        self.b_w = nn.Parameter(6 * along - 5.5 + 2.5 * within)
        self.b_a = nn.Parameter(0.3 * within + 0.4 * (along - 0.5) - 0.19)
        self.xi = nn.Parameter(0.71 - 0.1 * (along - 0.5))
        self.alpha = nn.Parameter(torch.full((width,), 1.02))
        self.rho = nn.Parameter(torch.full((width,), -0.04))
        self.norm_weight = nn.Parameter(torch.ones(width))
        self.norm_bias = nn.Parameter(torch.zeros(width))
        self.W_o = drawn(width, hidden_size)

    def init_state(self, batch_size: int) -> RWKV7State:
        return RWKV7State(
            self.zeros(batch_size, self.heads, self.head_size, self.head_size),
            self.zeros(batch_size, self.input_size),
        )

    def advance(self, z: Tensor, state: RWKV7State) -> tuple[Read, RWKV7State]:
        mixed = self._mix(z, state.x)
        read, S = self._recur(matrix_step, mixed, state.S)
        return read, RWKV7State(S, z.to(state.x.dtype).clone())

    def scan(self, z_T: Tensor, state: RWKV7State) -> tuple[Read, RWKV7State]:
        x = z_T.to(state.x.dtype)
        before = torch.cat((state.x.unsqueeze(0), x[:-1]))
        read, S = self._recur(matrix_scan, self._mix(x, before), state.S)
        return read, RWKV7State(S, x[-1].clone())

    def readout(self, h: Read, z: Tensor) -> Tensor:
        o = h.o - h.o.mean(-1, keepdim=True)
        epsilon = 1e-5 * self.head_size
        o = o * torch.rsqrt(o.square().mean(-1, keepdim=True) + epsilon)
        p = o.flatten(-2) * self.norm_weight + self.norm_bias + h.bonus.flatten(-2)
        return (h.gate * p) @ self.W_o

    def _mix(self, x: Tensor, before: Tensor) -> Mixed:
        """The terms of one step, or of all steps, that use nothing of the state but the previous
        input."""
        shift = before - x
        x_r, x_w, x_k, x_v, x_a, x_g = (x + mu * shift for mu in self.mu.unbind(0))
        w = torch.tanh(x_w @ self.W_w1) @ self.W_w2 + self.b_w
        a = torch.sigmoid(x_a @ self.W_a1 @ self.W_a2 + self.b_a)
        k = x_k @ self.W_k
        removal = self._by_head(k * self.xi)
        norm = removal.square().sum(-1, keepdim=True)
        return Mixed(
            r=self._by_head(x_r @ self.W_r),
            log_decay=self._by_head(-STRONGEST * torch.sigmoid(w)),
            k=self._by_head(k * (1 + (a - 1) * self.alpha)),
            v=self._by_head(x_v @ self.W_v),
            removal=removal * torch.rsqrt(norm + 1e-12),
            a=self._by_head(a),
            gate=torch.sigmoid(x_g @ self.W_g1) @ self.W_g2,
        )

    def _recur(self, run: Any, mixed: Mixed, start: Tensor) -> tuple[Read, Tensor]:
        """Runs `matrix_step` or `matrix_scan`. Returns the outputs and the last S."""
        r, log_decay, k, v, removal, a, gate = mixed
        o, S = run(r, k, v, log_decay, start, removal, -(a * removal))
        return Read(o, (r * self._by_head(self.rho) * k).sum(-1, keepdim=True) * v, gate), S

    def _by_head(self, x: Tensor) -> Tensor:
        return by_head(x, self.heads)


def _uniform(rows: int, columns: int, size: float) -> nn.Parameter:
    return nn.Parameter((2 * torch.rand(rows, columns) - 1) * size)


def _rank(factor: float, width: int) -> int:
    """The authors' rank for the two factors of a weight: about √C, in steps of 32."""
    return min(width, max(32, 32 * round(factor * sqrt(width) / 32)))


def _low_rank(rows: int, rank: int, columns: int, gain: float) -> tuple[nn.Parameter, nn.Parameter]:
    second = nn.init.orthogonal_(torch.empty(rank, columns), gain)
    return nn.Parameter(torch.zeros(rows, rank)), nn.Parameter(second)
