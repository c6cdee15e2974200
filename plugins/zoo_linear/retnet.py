"""Multi-scale retention (Sun et al. 2023, arXiv:2307.08621, section 2): linear attention whose
heads each decay at a fixed rate, with rotated queries and keys."""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Cell
from zoo.nn import matrix_scan, matrix_step

EPSILON = 1e-6


class RetNetState(NamedTuple):
    S: Tensor  # [B, N, K, V]: for each head, keys by values
    n: Tensor  # [B], int64: number of steps so far


class RetNetInputs(NamedTuple):
    """For each of N heads; queries and keys [..., N, K], not rotated yet; values and gate
    [..., N, V]."""

    q: Tensor
    k: Tensor
    v: Tensor
    gate: Tensor


class RetNet(Cell):
    """Weights are stored as the equations multiply them: `W_Q`, `W_K` [I, N·K], `W_V`, `W_G`
    [I, N·V], `W_O` [N·V, H]. There are no biases.

    K is H / N, rounded up to an even number, V is `value_factor` · K.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        heads: Annotated[
            int, Field(ge=1, le=16, description="Heads; head j decays by 1 - 2^(-5-j) per step.")
        ] = 4,
        value_factor: Annotated[
            int, Field(ge=1, le=4, description="Value features per key feature.")
        ] = 2,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.heads = heads
        self.key_size = 2 * -(-hidden_size // (2 * heads))
        self.value_size = value_factor * self.key_size
        keys, values = heads * self.key_size, heads * self.value_size
        self.W_Q = nn.Parameter(torch.empty(input_size, keys))
        self.W_K = nn.Parameter(torch.empty(input_size, keys))
        self.W_V = nn.Parameter(torch.empty(input_size, values))
        self.W_G = nn.Parameter(torch.empty(input_size, values))
        self.W_O = nn.Parameter(torch.empty(values, hidden_size))
        # torchscale has a gain of 2^-2.5 for all but W_O, for inputs from a layer norm. With
        # smaller inputs, such as one-hot vectors, EPSILON would then outweigh the retention's
        # output
        for weight in (self.W_Q, self.W_K, self.W_V, self.W_G, self.W_O):
            nn.init.xavier_uniform_(weight)

    def init_state(self, batch_size: int) -> RetNetState:
        S = self.zeros(batch_size, self.heads, self.key_size, self.value_size)
        return RetNetState(S, torch.zeros(batch_size, dtype=torch.int64, device=S.device))

    def project(self, x: Tensor) -> RetNetInputs:
        def by_head(x: Tensor) -> Tensor:
            return torch.unflatten(x, -1, (self.heads, -1))

        q, k = x @ self.W_Q, x @ self.W_K * self.key_size**-0.5
        return RetNetInputs(by_head(q), by_head(k), by_head(x @ self.W_V), by_head(x @ self.W_G))

    def advance(self, z: RetNetInputs, state: RetNetState) -> tuple[Tensor, RetNetState]:
        q, k = self._rotate(z, state.n)
        # γ itself, which is exact in float32: exp(log γ) has a rounding error, which accumulates
        # over 1 / (1 - γ) steps and differs between runtimes
        decayed = self._decay(state.S).unsqueeze(-1) * state.S
        y, S = matrix_step(q, k, z.v, None, decayed)
        return y, RetNetState(S, state.n + 1)

    def scan(self, z_T: RetNetInputs, state: RetNetState) -> tuple[Tensor, RetNetState]:
        T = len(z_T.q)
        q, k = self._rotate(z_T, state.n + torch.arange(T, device=state.n.device).unsqueeze(-1))
        log_decay = self._decay(state.S).log().expand(*q.shape[:3], 1)
        y, S = matrix_scan(q, k, z_T.v, log_decay, state.S)
        return y, RetNetState(S, state.n + T)

    def readout(self, h: Tensor, z: RetNetInputs) -> Tensor:
        centred = h - h.mean(-1, keepdim=True)
        y = centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + EPSILON)
        return (F.silu(z.gate) * y).flatten(-2) @ self.W_O

    def _decay(self, like: Tensor) -> Tensor:
        """γ [N, 1]"""
        head = torch.arange(self.heads, dtype=like.dtype, device=like.device)
        return (1 - torch.exp2(-5 - head)).unsqueeze(-1)

    def _rotate(self, z: RetNetInputs, n: Tensor) -> tuple[Tensor, Tensor]:
        """q and k at the positions `n`, [B] or [T, B]: the pair j of features, which are j and
        j + K / 2, by the angle n · 10000^(-j / (K / 2 - 1))."""
        pairs = self.key_size // 2
        # in float64, since float32 is too coarse for the angles of late positions, and without
        # constants that are inexact in float32: torch.onnx rounds them to it
        pair = torch.arange(pairs, dtype=torch.float64, device=n.device)
        angle = torch.pow(10_000.0, -pair / max(pairs - 1, 1))
        phase = (n.to(torch.float64).unsqueeze(-1) * angle).unsqueeze(-2)  # [..., 1, K / 2]
        # older runtimes have no cosine in float64
        sin, half = torch.sin(phase).to(z.q.dtype), torch.sin(phase / 2)
        cos = (1 - 2 * half * half).to(z.q.dtype)
        one, other = torch.cat((z.q, z.k), -2).chunk(2, -1)
        q, k = torch.cat((one * cos - other * sin, other * cos + one * sin), -1).chunk(2, -2)
        return q, k
