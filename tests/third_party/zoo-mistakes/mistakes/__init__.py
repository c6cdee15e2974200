"""Cells with the mistakes that authors make, and a right one that takes only some sizes."""

from collections.abc import Iterable

from zoo import CellSpec, ModelCard, StateField, hookimpl
from zoo.registry import CorpusSpec, ExporterSpec

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
    state = (StateField("h", "the hidden state"),)
    return ModelCard(title=title, authors="A", year=2026, paper="P", equations=(), state=state)


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    cells = [CellSpec(kebab(name), f"mistakes.cells:{name}", card(name)) for name in NAMES]
    heads = CellSpec(
        "heads", "mistakes.cells:Heads", card("Heads"), hidden_sizes="mistakes.cells:takes"
    )
    return [*cells, heads]


@hookimpl
def zoo_corpora() -> Iterable[CorpusSpec]:
    return [CorpusSpec("torn-page", "mistakes:torn_page", "A text that cannot be read")]


@hookimpl
def zoo_exporters() -> Iterable[ExporterSpec]:
    return [ExporterSpec("brittle", "mistakes:Brittle", "Cannot be made", graphs=("brittle",))]


def torn_page() -> str:
    return ["a page"][1]


class Brittle:
    def __init__(self) -> None:
        raise RuntimeError("no pen\nand no paper")


def kebab(name: str) -> str:
    """ "NoNextState" as "no-next-state"."""
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).removeprefix("-")
