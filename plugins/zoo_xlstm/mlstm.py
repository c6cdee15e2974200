"""The mLSTM (Beck et al. 2024, arXiv:2405.04517, equations 19 to 27 and appendix A).

The input gate is an exponential, so C and n are kept divided by exp(m). With F the running sum of
log f, the stabiliser m_t = max(log f_t + m_{t-1}, ĩ_t) of a whole sequence is

    m_t = F_t + max(m_0, max_{s ≤ t} (ĩ_s - F_s))

Once it is known, so are the decays and the inputs of the memory at all times.
"""

from math import sqrt
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Cell
from zoo.nn import matrix_scan, matrix_step

FEWEST_UNITS = 4  # in a head; the norm of two units keeps their signs only
# The authors' packages have 1e-5 and 1e-6. A head whose outputs nearly cancel is scaled up by the
# norm, rounding errors included; in a stack they would grow from layer to layer.
NORM_EPSILON = 1e-4
LARGEST_LOG = 60.0  # exp of it and of its negative are well within float32


class MLSTMState(NamedTuple):
    """For N heads of D units."""

    C: Tensor  # [B, N, D, D], keys by values
    n: Tensor  # [B, N, D]
    m: Tensor  # [B, N]


class MLSTMInputs(NamedTuple):
    """Queries, keys and values [..., N, D], the gates' logarithms [..., N], and the output gate's
    pre-activation [..., N * D]."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_i: Tensor
    log_f: Tensor
    o: Tensor


class MLSTM(Cell):
    """`W_q`, `W_k`, `W_v`, `W_o` [I, N * D] and `W_i`, `W_f` [I, N] with a bias each, the scale of
    the norm [N * D], and `W_out` [N * D, H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        heads: Annotated[int, Field(ge=1, le=64, description="Heads, each with its memory.")] = 4,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.heads = heads
        self.units = max(FEWEST_UNITS, -(-hidden_size // heads))
        width = heads * self.units
        # initial values as in the authors' package xlstm, except W_out, which is smaller there in
        # deeper models
        small = sqrt(2 / (5 * input_size))
        self.W_q = nn.Parameter(torch.randn(input_size, width) * small)
        self.W_k = nn.Parameter(torch.randn(input_size, width) * small)
        self.W_v = nn.Parameter(torch.randn(input_size, width) * small)
        self.W_o = nn.Parameter(torch.randn(input_size, width) * small)
        self.b_q = nn.Parameter(torch.zeros(width))
        self.b_k = nn.Parameter(torch.zeros(width))
        self.b_v = nn.Parameter(torch.zeros(width))
        self.b_o = nn.Parameter(torch.zeros(width))
        self.W_i = nn.Parameter(torch.zeros(input_size, heads))
        self.W_f = nn.Parameter(torch.zeros(input_size, heads))
        self.b_i = nn.Parameter(0.1 * torch.randn(heads))
        self.b_f = nn.Parameter(torch.linspace(3, 6, heads))  # remembers for 20 to 400 steps
        self.scale = nn.Parameter(torch.ones(width))
        self.W_out = nn.Parameter(torch.randn(width, hidden_size) * sqrt(2 / (5 * width)))

    def init_state(self, batch_size: int) -> MLSTMState:
        N, D = self.heads, self.units
        zeros = self.zeros
        return MLSTMState(zeros(batch_size, N, D, D), zeros(batch_size, N, D), zeros(batch_size, N))

    def project(self, x: Tensor) -> MLSTMInputs:
        heads = (self.heads, self.units)
        return MLSTMInputs(
            q=torch.unflatten(x @ self.W_q + self.b_q, -1, heads),
            k=torch.unflatten(x @ self.W_k / sqrt(self.units) + self.b_k, -1, heads),
            v=torch.unflatten(x @ self.W_v + self.b_v, -1, heads),
            log_i=x @ self.W_i + self.b_i,
            log_f=-F.softplus(-(x @ self.W_f + self.b_f)),
            o=x @ self.W_o + self.b_o,
        )

    def advance(self, z: MLSTMInputs, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
        log_i, log_f = z.log_i.to(state.m.dtype), z.log_f.to(state.m.dtype)
        m = torch.maximum(log_f + state.m, log_i)
        log_w = (log_f + state.m - m).unsqueeze(-1)
        k = (log_i - m).exp().unsqueeze(-1) * z.k
        found, C = matrix_step(z.q, k, z.v, log_w, state.C)
        ones = torch.ones_like(k[..., :1])
        normaliser, n = matrix_step(z.q, k, ones, log_w, state.n.unsqueeze(-1))
        return _normalise(found, normaliser, m), MLSTMState(C, n.squeeze(-1), m)

    def scan(self, z_T: MLSTMInputs, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
        log_i, log_f = z_T.log_i.to(state.m.dtype), z_T.log_f.to(state.m.dtype)
        total = log_f.cumsum(0)
        # rounding errors in m change no output: decays and inputs are relative to it
        m = total + torch.maximum(state.m, (log_i - total).cummax(0).values)
        before = torch.cat((state.m.unsqueeze(0), m[:-1]))
        log_w = (log_f + before - m).unsqueeze(-1)
        k = (log_i - m).exp().unsqueeze(-1) * z_T.k
        # the normaliser is the memory of a constant value of 1
        v = torch.cat((z_T.v, torch.ones_like(z_T.v[..., :1])), -1)
        memory = torch.cat((state.C, state.n.unsqueeze(-1)), -1)
        found, memory = matrix_scan(z_T.q, k, v, log_w, memory)
        h = _normalise(found[..., :-1], found[..., -1:], m)
        end = MLSTMState(memory[..., :-1].clone(), memory[..., -1].clone(), m[-1].clone())
        return h, end

    def readout(self, h: Tensor, z: MLSTMInputs) -> Tensor:
        centred = h - h.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        normal = (centred * torch.rsqrt(variance + NORM_EPSILON)).flatten(-2)
        return (torch.sigmoid(z.o) * self.scale * normal) @ self.W_out


def _normalise(found: Tensor, normaliser: Tensor, m: Tensor) -> Tensor:
    """h̃ [..., N, D]. Equation 21 has max(|nᵀq|, 1), before both are divided by exp(m); m is limited
    so that the divisor is neither zero nor infinite."""
    floor = m.clamp(-LARGEST_LOG, LARGEST_LOG).neg().exp().unsqueeze(-1)
    return found / torch.maximum(normaliser.abs(), floor)
