"""Wrappers of torchrecurrent's cells: the card of each gives its paper and equations.

One class wraps each of them as its `zoo_torchrecurrent.entry.Entry` says. Subclasses are written
here for those that have options, or a state or input unlike that of `zoo.Cell`. The others are made
from the table, at the end of this module.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import torch
import torchrecurrent
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo import Cell
from zoo_torchrecurrent.entry import Entry
from zoo_torchrecurrent.table import ENTRIES


class HiddenState(NamedTuple):
    h: Tensor  # [B, H]


class Memory(NamedTuple):
    c: Tensor  # [B, H]


class HiddenAndMemory(NamedTuple):
    h: Tensor  # [B, H]
    c: Tensor  # [B, H]


class ControlAndMemory(NamedTuple):
    v: Tensor  # [B, H]
    c: Tensor  # [B, H]


class HiddenAndInput(NamedTuple):
    h: Tensor  # [B, H]
    x: Tensor  # [B, I], the previous input


class MemoryAndInput(NamedTuple):
    c: Tensor  # [B, H]
    x: Tensor  # [B, I], the previous input


class PositionAndVelocity(NamedTuple):
    y: Tensor  # [B, H]
    z: Tensor  # [B, H]


class OutputAndContext(NamedTuple):
    y: Tensor  # [B, H]
    s: Tensor  # [B, H]


class HiddenAndPast(NamedTuple):
    h: Tensor  # [B, H]
    past: Tensor  # [B, delay, H], the states before h, the oldest first


STATES: dict[tuple[str, ...], Any] = {
    kind._fields: kind
    for kind in (
        HiddenState,
        Memory,
        HiddenAndMemory,
        ControlAndMemory,
        HiddenAndInput,
        MemoryAndInput,
        PositionAndVelocity,
        OutputAndContext,
        HiddenAndPast,
    )
}

Positive = Annotated[float, Field(gt=0, le=1, description="Step size of the discretisation.")]
Damping = Annotated[float, Field(ge=0, le=10, description="Strength of the damping.")]
Share = Annotated[float, Field(ge=0, le=1, description="Fraction of the state that is kept.")]


class Wrapped(Cell):
    """One of torchrecurrent's cells, `cell`, with its own names and shapes of the parameters:
    `cell.weight_ih` [G·H, I], `cell.weight_hh`, `cell.bias_ih`, `cell.bias_hh` and any others.
    `advance` runs it whole."""

    entry: ClassVar[Entry]

    def __init__(self, input_size: int, hidden_size: int, **arguments: Any) -> None:
        super().__init__(input_size, hidden_size)
        self.cell: nn.Module = self.make(input_size, **{**self.entry.initial, **arguments})

    def make(self, input_size: int, **arguments: Any) -> nn.Module:
        make: Any = getattr(torchrecurrent, self.entry.cell)
        cell: nn.Module = make(input_size, self.hidden_size, **arguments)
        return cell

    def init_state(self, batch_size: int) -> Any:
        state_type = STATES[tuple(leaf.name for leaf in self.entry.state)]
        sizes = (self.input_size if n == "x" else self.hidden_size for n in state_type._fields)
        return state_type(*(self.zeros(batch_size, size) for size in sizes))

    def state_bounds(self) -> dict[str, float]:
        return dict(self.entry.bounds)

    def run_cell(self, *given: Any) -> Any:
        """Returns what torchrecurrent's cell returns."""
        if not torch.compiler.is_exporting():
            return self.cell(*given)
        with PartsAsSlices():
            return self.cell(*given)

    def advance(self, z: Tensor, state: Any) -> tuple[Tensor, Any]:
        result = self.run_cell(z, state[0] if len(state) == 1 else tuple(state))
        output, after = result if self.entry.output_apart else (None, result)
        leaves = (after,) if isinstance(after, Tensor) else after
        new = type(state)(*(_like(a, b, z) for a, b in zip(leaves, state, strict=True)))
        return new[0] if output is None else output, new


class PartsAsSlices(TorchFunctionMode):
    """Replaces `chunk` along the first axis by slices. Many of torchrecurrent's cells split their
    parameters in every step. The exporter folds a slice of a parameter into a constant, but leaves
    a Split in the graph, where neither integer kernels nor lookup tables can replace the
    product."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.chunk and args[2:] in ((), (0,)) and not kwargs:
            whole, parts = args[:2]
            size = whole.shape[0] // parts
            return tuple(whole[part * size : (part + 1) * size] for part in range(parts))
        return func(*args, **(kwargs or {}))


def _like(leaf: Tensor, before: Tensor, x: Tensor) -> Tensor:
    """The leaf in the state's dtype; a copy where it is the input itself."""
    return leaf.to(before.dtype, copy=leaf is x)


class AntisymmetricRNN(Wrapped):
    entry = ENTRIES["AntisymmetricRNNCell"]

    def __init__(
        self, input_size: int, hidden_size: int, epsilon: Positive = 0.1, gamma: Damping = 0.5
    ) -> None:
        super().__init__(input_size, hidden_size, epsilon=epsilon, gamma=gamma)


class GatedAntisymmetricRNN(AntisymmetricRNN):
    entry = ENTRIES["GatedAntisymmetricRNNCell"]


class coRNN(Wrapped):
    entry = ENTRIES["coRNNCell"]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        dt: Positive = 0.1,
        gamma: Annotated[
            float, Field(gt=0, le=10, description="Stiffness: the frequency, squared.")
        ] = 1.0,
        epsilon: Damping = 1.0,
    ) -> None:
        super().__init__(input_size, hidden_size, dt=dt, gamma=gamma, epsilon=epsilon)


class LEM(Wrapped):
    entry = ENTRIES["LEMCell"]

    def __init__(self, input_size: int, hidden_size: int, dt: Positive = 1.0) -> None:
        super().__init__(input_size, hidden_size, dt=dt)


class UnICORNN(Wrapped):
    entry = ENTRIES["UnICORNNCell"]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        dt: Positive = 0.3,
        alpha: Annotated[
            float, Field(ge=0, le=10, description="Restoring force towards zero.")
        ] = 1.0,
    ) -> None:
        super().__init__(input_size, hidden_size, dt=dt, alpha=alpha)


class MiRU1(Wrapped):
    entry = ENTRIES["MiRU1Cell"]

    def __init__(self, input_size: int, hidden_size: int, update_coefficient: Share = 0.5) -> None:
        super().__init__(input_size, hidden_size, update_coefficient=update_coefficient)


class MiRU2(Wrapped):
    entry = ENTRIES["MiRU2Cell"]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        update_coefficient: Share = 0.5,
        reset_coefficient: Annotated[
            float, Field(ge=0, le=1, description="Fraction of the state that the candidate reads.")
        ] = 0.5,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            update_coefficient=update_coefficient,
            reset_coefficient=reset_coefficient,
        )


class SCRN(Wrapped):
    entry = ENTRIES["SCRNCell"]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        alpha: Annotated[
            float, Field(ge=0, le=1, description="Initial fraction of the context that is kept.")
        ] = 0.5,
    ) -> None:
        super().__init__(input_size, hidden_size, alpha=alpha)


class JANET(Wrapped):
    """torchrecurrent takes and returns the one state twice, as h and as c."""

    entry = ENTRIES["JANETCell"]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        beta: Annotated[
            float,
            Field(ge=-10, le=10, description="β, initially: how far writing exceeds forgetting."),
        ] = 1.0,
    ) -> None:
        super().__init__(input_size, hidden_size, beta=beta)

    def advance(self, z: Tensor, state: Memory) -> tuple[Tensor, Memory]:
        _, c = self.run_cell(z, (state.c, state.c))
        c = c.to(state.c.dtype)
        return c, Memory(c)


class IntersectionRNN(Wrapped):
    """`W_in` [I, H], where the input is not of the hidden size."""

    entry = ENTRIES["IntersectionRNNCell"]

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W_in: nn.Parameter | None = None
        if input_size != hidden_size:
            self.W_in = nn.Parameter(torch.empty(input_size, hidden_size))
            nn.init.xavier_uniform_(self.W_in)

    def make(self, input_size: int, **arguments: Any) -> nn.Module:
        return super().make(self.hidden_size, **arguments)

    def project(self, x: Tensor) -> Tensor:
        return x if self.W_in is None else x @ self.W_in


class tauGRU(Wrapped):
    """torchrecurrent's cell takes h_{n-d} beside h_n; its layer keeps the states between in lists
    that start with zeros."""

    entry = ENTRIES["tauGRUCell"]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        delay: Annotated[
            int, Field(ge=1, le=1000, description="Steps after which a state is fed back.")
        ] = 10,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.delay = delay

    def init_state(self, batch_size: int) -> HiddenAndPast:
        H = self.hidden_size
        return HiddenAndPast(self.zeros(batch_size, H), self.zeros(batch_size, self.delay, H))

    def advance(self, z: Tensor, state: HiddenAndPast) -> tuple[Tensor, HiddenAndPast]:
        h = self.run_cell(z, state.h, state.past[:, 0]).to(state.h.dtype)
        past = torch.cat((state.past[:, 1:], state.h.unsqueeze(1)), 1)
        return h, HiddenAndPast(h, past)


class Plain(Wrapped):
    """A cell without options."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)


for _entry in ENTRIES.values():
    if _entry.class_name not in globals():
        globals()[_entry.class_name] = type(
            _entry.class_name, (Plain,), {"entry": _entry, "__module__": __name__}
        )
