"""HGRN2 (Qin et al. 2024, arXiv:2404.07904, section 3): a gated recurrence whose state is expanded
to a matrix by outer products, with the complement of the forget gate as the key."""

from math import log
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Cell
from zoo.nn import matrix_scan, matrix_step, uniform


class HGRN2State(NamedTuple):
    S: Tensor  # [B, N, D, D]: for each head, keys by values


class HGRN2Gates(NamedTuple):
    """For each of N heads: [..., N, D] each."""

    o: Tensor
    i: Tensor
    key: Tensor  # 1 - f
    log_f: Tensor


class HGRN2(Cell):
    """Weights are stored as the equations multiply them: `W_f`, `W_i`, `W_o` [I, N·D], each with a
    bias; `W_y` [N·D, H] and `b_y` after a layer norm of `scale` and `shift` [N·D].

    D is H / N, rounded up.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        heads: Annotated[
            int, Field(ge=1, le=64, description="Heads; each has a state of D by D.")
        ] = 4,
        lower_bound: Annotated[
            float, Field(ge=0, lt=1, description="β: lower bound of the forget gate.")
        ] = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.heads, self.lower_bound = heads, lower_bound
        self.head_size = -(-hidden_size // heads)
        inner = heads * self.head_size
        into, out = input_size**-0.5, inner**-0.5  # as in torch.nn.Linear
        self.W_f = uniform(into, input_size, inner)
        self.W_i = uniform(into, input_size, inner)
        self.W_o = uniform(into, input_size, inner)
        self.b_f = uniform(into, inner)
        self.b_i = uniform(into, inner)
        self.b_o = uniform(into, inner)
        self.scale = nn.Parameter(torch.ones(inner))
        self.shift = nn.Parameter(torch.zeros(inner))
        self.W_y = uniform(out, inner, hidden_size)
        self.b_y = uniform(out, hidden_size)

    def init_state(self, batch_size: int) -> HGRN2State:
        return HGRN2State(self.zeros(batch_size, self.heads, self.head_size, self.head_size))

    def project(self, x: Tensor) -> HGRN2Gates:
        forget = x @ self.W_f + self.b_f
        log_f = -F.softplus(-forget)  # logsigmoid: accurate where σ underflows
        if self.lower_bound:
            log_f = F.softplus(log(self.lower_bound) - forget) + log_f
        key = (1 - self.lower_bound) * torch.sigmoid(-forget)
        o, i = torch.sigmoid(x @ self.W_o + self.b_o), F.silu(x @ self.W_i + self.b_i)
        return HGRN2Gates(*(self._by_head(part) for part in (o, i, key, log_f)))

    def advance(self, z: HGRN2Gates, state: HGRN2State) -> tuple[Tensor, HGRN2State]:
        y, S = matrix_step(z.o, z.key, z.i, z.log_f, state.S)
        return y, HGRN2State(S)

    def scan(self, z_T: HGRN2Gates, state: HGRN2State) -> tuple[Tensor, HGRN2State]:
        y, S = matrix_scan(z_T.o, z_T.key, z_T.i, z_T.log_f, state.S)
        return y, HGRN2State(S)

    def readout(self, h: Tensor, z: HGRN2Gates) -> Tensor:
        y = h.flatten(-2)
        centred = y - y.mean(-1, keepdim=True)
        y = centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + 1e-5)
        return (self.scale * y + self.shift) @ self.W_y + self.b_y

    def _by_head(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.heads, self.head_size))
