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
    x: Tensor  # [B, window - 1, I]: the inputs before, the latest last


class QRNN(Cell):
    """`W` [window · I, gates · H] holds the filters, the oldest input's rows first, of z, f and, as
    far as the pooling has them, o and i; `b` [gates · H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        window: Annotated[
            int, Field(ge=2, le=64, description="Inputs that the gates see, the present one too.")
        ] = 2,
        pooling: Annotated[
            Literal["f", "fo", "ifo"],
            Field(description="Gates: to forget; to put out, too; to take in, too."),
        ] = "fo",
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.window, self.pooling = window, pooling
        rows, columns = window * input_size, (len(pooling) + 1) * hidden_size
        bound = rows**-0.5  # as torch.nn.Linear begins, which the authors' torchqrnn has here
        self.W = uniform(bound, rows, columns)
        self.b = uniform(bound, columns)

    def init_state(self, batch_size: int) -> QRNNState:
        return QRNNState(
            self.zeros(batch_size, self.hidden_size),
            self.zeros(batch_size, self.window - 1, self.input_size),
        )

    def state_bounds(self) -> dict[str, float]:
        # without an input gate c is a mean of values of tanh
        return {} if self.pooling == "ifo" else {"c": 1.0}

    def advance(self, z: Tensor, state: QRNNState) -> tuple[Tensor, QRNNState]:
        x_BKI = torch.cat((state.x, z.to(state.x.dtype).unsqueeze(1)), 1)
        forget, taken, out = self._gates(x_BKI.flatten(1))
        c = (forget * state.c + taken).to(state.c.dtype)
        return self._put_out(c, out), QRNNState(c, x_BKI[:, 1:].contiguous())

    def scan(self, z_T: Tensor, state: QRNNState) -> tuple[Tensor, QRNNState]:
        T = len(z_T)
        x = torch.cat((state.x.transpose(0, 1), z_T.to(state.x.dtype)))
        seen = torch.cat([x[first : first + T] for first in range(self.window)], -1)
        forget, taken, out = self._gates(seen)
        c_TBH = linear_scan(forget, taken, state.c)
        window = x[T:].transpose(0, 1).contiguous()
        return self._put_out(c_TBH, out), QRNNState(c_TBH[-1].clone(), window)

    def _gates(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """f, what is added to f ⊙ c, and o, from the inputs that the filters see."""
        gates = (seen @ self.W + self.b).chunk(len(self.pooling) + 1, -1)
        candidate, forget = torch.tanh(gates[0]), torch.sigmoid(gates[1])
        take = torch.sigmoid(gates[3]) if self.pooling == "ifo" else torch.sigmoid(-gates[1])
        out = None if self.pooling == "f" else torch.sigmoid(gates[2])
        return forget, take * candidate, out

    def _put_out(self, c: Tensor, out: Tensor | None) -> Tensor:
        return c if out is None else out * c
