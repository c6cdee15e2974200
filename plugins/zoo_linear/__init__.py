"""Cells that are linear in their state, and so parallel over time."""

from collections.abc import Iterable

from zoo import CellSpec, hookimpl
from zoo_linear.diagonal_cards import DIAGONAL
from zoo_linear.gated_cards import GATED


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    return [*GATED, *DIAGONAL]
