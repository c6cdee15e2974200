"""The quasi-recurrent network (Bradbury et al. 2016, arXiv:1611.01576, section 2): gates from a
convolution over the last inputs, then pooling over time."""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from zoo import Cell
from zoo.nn import linear_scan, uniform


class QRNNState(NamedTuple):
    c: Tensor  # [B, H]
    x: Tensor  # [B, window - 1, I]: the previous inputs, the latest last


class QRNN(Cell):
    """`W` [window · I, gates · H] holds the filters, the oldest input's rows first, of z, f and, as
    far as the pooling has them, o and i; `b` [gates · H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        window: Annotated[int, Field(ge=2, le=64, description="Kernel size, in time steps.")] = 2,
        pooling: Annotated[
            Literal["f", "fo", "ifo"],
            Field(description="Gates: f forget, o output, i input."),
        ] = "fo",
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.window, self.pooling = window, pooling
        rows, columns = window * input_size, (len(pooling) + 1) * hidden_size
        bound = rows**-0.5  # as in torch.nn.Linear, which the authors' torchqrnn uses
        self.W = uniform(bound, rows, columns)
        self.b = uniform(bound, columns)

    def init_state(self, batch_size: int) -> QRNNState:
        return QRNNState(
            self.zeros(batch_size, self.hidden_size),
            self.zeros(batch_size, self.window - 1, self.input_size),
        )

    def state_bounds(self) -> dict[str, float]:
        # without an input gate c is a weighted mean of values of tanh
        return {} if self.pooling == "ifo" else {"c": 1.0}

    def advance(self, z: Tensor, state: QRNNState) -> tuple[Tensor, QRNNState]:
        x_BKI = torch.cat((state.x, z.to(state.x.dtype).unsqueeze(1)), 1)
        forget, taken, out = self._gates(x_BKI.flatten(1))
        c = (forget * state.c + taken).to(state.c.dtype)
        return self._output(c, out), QRNNState(c, x_BKI[:, 1:].contiguous())

    def scan(self, z_T: Tensor, state: QRNNState) -> tuple[Tensor, QRNNState]:
        T = len(z_T)
        x = torch.cat((state.x.transpose(0, 1), z_T.to(state.x.dtype)))
        inputs = torch.cat([x[first : first + T] for first in range(self.window)], -1)
        forget, taken, out = self._gates(inputs)
        c_TBH = linear_scan(forget, taken, state.c)
        window = x[T:].transpose(0, 1).contiguous()
        return self._output(c_TBH, out), QRNNState(c_TBH[-1].clone(), window)

    def _gates(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """f, the term added to f ⊙ c, and o, from the inputs of the filters."""
        gates = (inputs @ self.W + self.b).chunk(len(self.pooling) + 1, -1)
        candidate, forget = torch.tanh(gates[0]), torch.sigmoid(gates[1])
        take = torch.sigmoid(gates[3]) if self.pooling == "ifo" else torch.sigmoid(-gates[1])
        out = None if self.pooling == "f" else torch.sigmoid(gates[2])
        return forget, take * candidate, out

    def _output(self, c: Tensor, out: Tensor | None) -> Tensor:
        return c if out is None else out * c
