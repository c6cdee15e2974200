"""Recurrent cells of three decades, each from its paper's equations."""

from collections.abc import Iterable

from zoo import CellSpec, hookimpl
from zoo_classic import gated_cards, oscillator_cards, simple_cards


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    return [*simple_cards.SPECS, *gated_cards.SPECS, *oscillator_cards.SPECS]
