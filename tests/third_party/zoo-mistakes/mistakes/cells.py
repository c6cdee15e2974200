"""Each cell is the right one, with one mistake."""

from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from zoo import Cell
from zoo.nn import LinearCell


class State(NamedTuple):
    h: Tensor


class Pair(NamedTuple):
    h: Tensor
    c: Tensor


class Right(Cell):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W = nn.Parameter(torch.randn(input_size, hidden_size) * 0.5)
        self.U = nn.Parameter(torch.randn(hidden_size, hidden_size) * 0.3)

    def init_state(self, batch_size: int) -> Any:
        return State(self.zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W

    def advance(self, z: Tensor, state: Any) -> Any:
        h = torch.tanh(z + state.h @ self.U).to(state.h.dtype)
        return h, State(h)


class NoNextState(Right):
    def advance(self, z: Tensor, state: Any) -> Any:
        return torch.tanh(z + state.h @ self.U)


class Swapped(Right):
    def advance(self, z: Tensor, state: Any) -> Any:
        h, state = super().advance(z, state)
        return state, h


class WrongWidth(Right):
    def readout(self, h: Tensor, z: Tensor) -> Tensor:
        return torch.cat((h, z), -1)


class WiderState(Right):
    def advance(self, z: Tensor, state: Any) -> Any:
        h = torch.tanh(z + state.h @ self.U)
        return h, State(torch.cat((h, h), -1))


class Float64Leaf(Right):
    def init_state(self, batch_size: int) -> Any:
        return State(torch.zeros(batch_size, self.hidden_size, dtype=torch.float64))


class NoAdvance(Cell):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W = nn.Parameter(torch.randn(input_size, hidden_size) * 0.5)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.hidden_size))


class NoSizes(Right):
    def __init__(self) -> None:
        super().__init__(8, 8)


class SizesNotHandedOn(Cell):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()


class NotACell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()


class OneLeafMore(Right):
    def advance(self, z: Tensor, state: Any) -> Any:
        h, _ = super().advance(z, state)
        return h, Pair(h, h * 2)


class FixedView(Right):
    def advance(self, z: Tensor, state: Any) -> Any:
        h, state = super().advance(z.view(32, -1), state)
        return h, state


class LoopOverRows(Right):
    def advance(self, z: Tensor, state: Any) -> Any:
        rows = [torch.tanh(a + b @ self.U) for a, b in zip(z, state.h)]
        h = torch.stack(rows)
        return h, State(h)


class OwnException(Right):
    def project(self, x: Tensor) -> Tensor:
        return {"x": x}["y"]


class RaisesWhenBuilt(Right):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        raise ValueError("not today")


class TupleState(Right):
    def init_state(self, batch_size: int) -> Any:
        return (self.zeros(batch_size, self.hidden_size),)


class ForwardWithoutState(Right):
    def forward(self, x_TBI: Tensor, state: Any) -> Any:
        return super().forward(x_TBI, state)


class ScanGivesLastOutput(Right):
    def scan(self, z_T: Tensor, state: Any) -> Any:
        h_T, state = super().scan(z_T, state)
        return h_T[-1], state


class CoefficientsOfNoState(LinearCell):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W = nn.Parameter(torch.randn(input_size, hidden_size) * 0.5)

    def init_state(self, batch_size: int) -> Any:
        return State(self.zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W

    def coefficients(self, z: Tensor) -> Any:
        return (), ()


class Heads(Right):
    """Right; the heads must divide the hidden units."""

    def __init__(
        self, input_size: int, hidden_size: int, heads: Annotated[int, Field(ge=1, le=64)] = 4
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.heads = heads

    def advance(self, z: Tensor, state: Any) -> Any:
        h, _ = super().advance(z, state)
        by_head = torch.unflatten(h, -1, (self.heads, self.hidden_size // self.heads))
        h = (by_head - by_head.mean(-1, keepdim=True) * 0.5).flatten(-2)
        return h, State(h)


def takes(hidden_size: int, heads: int) -> bool:
    return hidden_size % heads == 0
