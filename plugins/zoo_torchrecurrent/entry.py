"""A cell of torchrecurrent, described without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo import CellSpec, ModelCard, StateField

BIASES = (
    "torchrecurrent's own cell runs, as `cell`: its state_dict can be loaded from and into "
    "torchrecurrent. Where the equations have one bias b, it has two, of the input and of the "
    "state, which are added."
)


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    `cell` is the class in torchrecurrent. `state` are the tensors that it takes and returns, in its
    order; the first is also the output, unless it returns `output_apart`. `initial` are arguments
    that differ from torchrecurrent's defaults: initialisers by name; the notes say why. `bounds`
    are those of `zoo.Cell.state_bounds`.
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
        """Its wrapper class in `zoo_torchrecurrent.cells`."""
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
LAST_INPUT = StateField("x", "the previous input")
