"""minLSTM (Feng et al. 2024, arXiv:2410.01201, section 3.2; its positive candidate is that of
appendix B.3.2)."""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from zoo.nn import LinearCell, uniform


class MinLSTMState(NamedTuple):
    h: Tensor  # [B, H]


class MinLSTMGates(NamedTuple):
    """Gates and candidate, from the input alone: [..., H] each."""

    ratio: Tensor  # log f - log i
    candidate: Tensor


class MinLSTM(LinearCell):
    """Weights are stored as the equations multiply them: `W_*` [I, H], `b_*` [H].

    Dividing both gates by their sum is f' = σ(log f - log i) and i' = σ(log i - log f), which is
    how they are computed: f + i may be too small to divide by.
    """

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
        self.W_f = uniform(bound, *shape)
        self.W_i = uniform(bound, *shape)
        self.W_h = uniform(bound, *shape)
        self.b_f = uniform(bound, hidden_size)
        self.b_i = uniform(bound, hidden_size)
        self.b_h = uniform(bound, hidden_size)

    def init_state(self, batch_size: int) -> MinLSTMState:
        return MinLSTMState(self.zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> MinLSTMGates:
        forget, take = x @ self.W_f + self.b_f, x @ self.W_i + self.b_i
        candidate = x @ self.W_h + self.b_h
        if self.positive:
            candidate = torch.where(candidate >= 0, candidate + 0.5, torch.sigmoid(candidate))
        return MinLSTMGates(F.softplus(-take) - F.softplus(-forget), candidate)

    def coefficients(self, z: MinLSTMGates) -> tuple[MinLSTMState, MinLSTMState]:
        forget, take = torch.sigmoid(z.ratio), torch.sigmoid(-z.ratio)
        return MinLSTMState(forget), MinLSTMState(take * z.candidate)

    def readout(self, h: MinLSTMState, z: MinLSTMGates) -> Tensor:
        return h.h
