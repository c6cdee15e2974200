"""What the plugin knows of one cell of torchrecurrent without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo import CellSpec, ModelCard, StateField

BIASES = (
    "What runs is torchrecurrent's own cell, in `cell`: its state_dict is theirs, to load and to "
    "give back. Where the equations have one bias b, it has one beside the weights of the input "
    "and one beside those of the state, and they add up."
)


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    `cell` is the class in torchrecurrent. `state` are the tensors that it takes and gives, in its
    order; the first of them is also the output, unless it returns `output_apart`. `initial` are
    the arguments with which it is built here and not by default there: initialisers by name, the
    notes say why. `bounds` are those of `zoo.Cell.state_bounds`.
    """

    name: str
    cell: str
    title: str
    authors: str
    year: int
    paper: str
    equations: tuple[str, ...]
    state: tuple[StateField, ...]
    output_apart: bool = False
    bounds: Mapping[str, float] = field(default_factory=dict)
    initial: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 6e-3
    licence: str = "MIT"
    notes: str = ""

    @property
    def class_name(self) -> str:
        """The class over it in `zoo_torchrecurrent.cells`."""
        return self.cell.removesuffix("Cell")

    def spec(self) -> CellSpec:
        return CellSpec(
            name=self.name,
            factory=f"zoo_torchrecurrent.cells:{self.class_name}",
            learning_rate=self.learning_rate,
            card=ModelCard(
                title=f"{self.title}, over torchrecurrent",
                authors=self.authors,
                year=self.year,
                paper=self.paper,
                equations=self.equations,
                state=self.state,
                licence=self.licence,
                checked_against="torchrecurrent's own cell is what runs",
                notes=f"{self.notes} {BIASES}".strip(),
            ),
        )


H = StateField("h", "the hidden state")
C = StateField("c", "the memory cell")
LAST_INPUT = StateField("x", "the input before")
