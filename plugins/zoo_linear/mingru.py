"""minGRU (Feng et al. 2024, arXiv:2410.01201, section 3.1; its positive candidate is that of
appendix B.3.1)."""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from zoo.nn import LinearCell, uniform


class MinGRUState(NamedTuple):
    h: Tensor  # [B, H]


class MinGRUGates(NamedTuple):
    """Gates and candidate, from the input alone: [..., H] each."""

    z: Tensor  # before its sigmoid
    candidate: Tensor


class MinGRU(LinearCell):
    """Weights are stored as the equations multiply them: `W_*` [I, H], `b_*` [H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        candidate: Annotated[
            Literal["linear", "positive"],
            Field(description="h̃: linear, or g of the linear layer, which is positive."),
        ] = "linear",
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.positive = candidate == "positive"
        shape = input_size, hidden_size
        bound = input_size**-0.5  # as in torch.nn.Linear
        self.W_z = uniform(bound, *shape)
        self.W_h = uniform(bound, *shape)
        self.b_z = uniform(bound, hidden_size)
        self.b_h = uniform(bound, hidden_size)

    def init_state(self, batch_size: int) -> MinGRUState:
        return MinGRUState(self.zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> MinGRUGates:
        candidate = x @ self.W_h + self.b_h
        if self.positive:
            candidate = torch.where(candidate >= 0, candidate + 0.5, torch.sigmoid(candidate))
        return MinGRUGates(x @ self.W_z + self.b_z, candidate)

    def coefficients(self, z: MinGRUGates) -> tuple[MinGRUState, MinGRUState]:
        keep, update = torch.sigmoid(-z.z), torch.sigmoid(z.z)
        return MinGRUState(keep), MinGRUState(update * z.candidate)

    def readout(self, h: MinGRUState, z: MinGRUGates) -> Tensor:
        return h.h
