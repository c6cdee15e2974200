"""The simple recurrent unit (Lei et al., arXiv:1709.02755): the unit of its first versions
("Training RNNs as fast as CNNs", 2017), and with peepholes that of its last (EMNLP 2018)."""

from math import exp, sqrt
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell
from zoo.nn import LinearCell, uniform


class SRUState(NamedTuple):
    c: Tensor  # [B, H]


class SRUInputs(NamedTuple):
    """The input's terms: [..., H] each."""

    candidate: Tensor
    forget: Tensor  # before its sigmoid
    reset: Tensor  # before its sigmoid
    skip: Tensor


class SRU(LinearCell):
    """Weights are stored as the equations multiply them: `W*` [I, H], `b_*` and `v_*` [H].

    The highway connection adds the input itself if it has the size of the hidden state, else its
    product with `W_x`, as in the authors' code.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        peephole: Annotated[
            bool, Field(description="Let the gates read the previous state; not parallel.")
        ] = False,
        highway_bias: Annotated[
            float,
            Field(ge=-10, le=10, description="Initial bias of r; below zero favours the input."),
        ] = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size)
        # var 1/I for W, and with peepholes half of that for the gates, the other half coming from
        # v; α preserves the variance of the output (section 3.2 of the last version)
        self.alpha = sqrt(1 + 2 * exp(highway_bias)) if peephole else 1.0
        bound = sqrt(3 / input_size)
        gate_bound = bound * sqrt(0.5) if peephole else bound
        shape = input_size, hidden_size
        self.W = uniform(bound, *shape)
        self.W_f = uniform(gate_bound, *shape)
        self.W_r = uniform(gate_bound, *shape)
        self.b_f = nn.Parameter(torch.zeros(hidden_size))
        self.b_r = nn.Parameter(torch.full((hidden_size,), highway_bias))
        self.v_f = self.v_r = self.W_x = None
        if peephole:
            self.v_f = uniform(sqrt(1.5), hidden_size)
            self.v_r = uniform(sqrt(1.5), hidden_size)
        if input_size != hidden_size:
            self.W_x = uniform(bound, *shape)

    def init_state(self, batch_size: int) -> SRUState:
        return SRUState(self.zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> SRUInputs:
        skip = x if self.W_x is None else x @ self.W_x
        return SRUInputs(
            x @ self.W, x @ self.W_f + self.b_f, x @ self.W_r + self.b_r, self.alpha * skip
        )

    def coefficients(self, z: SRUInputs) -> tuple[SRUState, SRUState]:
        return (
            SRUState(torch.sigmoid(z.forget)),
            SRUState(torch.sigmoid(-z.forget) * z.candidate),
        )

    def advance(self, z: SRUInputs, state: SRUState) -> tuple[Any, SRUState]:
        if self.v_f is None or self.v_r is None:
            return super().advance(z, state)
        forget = torch.sigmoid(z.forget + self.v_f * state.c)
        reset = torch.sigmoid(z.reset + self.v_r * state.c)
        c = (forget * state.c + (1 - forget) * z.candidate).to(state.c.dtype)
        return reset * c + (1 - reset) * z.skip, SRUState(c)

    def scan(self, z_T: SRUInputs, state: SRUState) -> tuple[Any, SRUState]:
        return super().scan(z_T, state) if self.v_f is None else Cell.scan(self, z_T, state)

    def readout(self, h: Any, z: SRUInputs) -> Tensor:
        if isinstance(h, Tensor):
            return h
        reset = torch.sigmoid(z.reset)
        return reset * torch.tanh(h.c) + (1 - reset) * z.skip
