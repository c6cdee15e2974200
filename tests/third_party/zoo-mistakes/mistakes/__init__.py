"""Cells with the mistakes that authors make, and a right one that takes only some sizes."""

from collections.abc import Iterable

from zoo import CellSpec, ModelCard, hookimpl

NAMES = (
    "NoNextState",
    "Swapped",
    "WrongWidth",
    "WiderState",
    "Float64Leaf",
    "NoAdvance",
    "NoSizes",
    "SizesNotHandedOn",
    "NotACell",
    "OneLeafMore",
    "FixedView",
    "LoopOverRows",
    "OwnException",
    "RaisesWhenBuilt",
    "TupleState",
    "ForwardWithoutState",
    "ScanGivesLastOutput",
    "CoefficientsOfNoState",
)


def card(title: str) -> ModelCard:
    return ModelCard(title=title, authors="A", year=2026, paper="P", equations=(), state=())


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    cells = [CellSpec(kebab(name), f"mistakes.cells:{name}", card(name)) for name in NAMES]
    heads = CellSpec(
        "heads", "mistakes.cells:Heads", card("Heads"), hidden_sizes="mistakes.cells:takes"
    )
    return [*cells, heads]


def kebab(name: str) -> str:
    """ "NoNextState" as "no-next-state"."""
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).removeprefix("-")
