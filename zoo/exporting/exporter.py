"""The contract of exporters, and the exporter of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from zoo.errors import UnknownNameError, UsageError
from zoo.inference.artifact import ArtifactInfo
from zoo.models.language_model import LanguageModel
from zoo.registry.registry import Registry
from zoo.registry.specs import ExporterSpec


class Exporter(Protocol):
    """Writes models in one format."""

    suffix: str

    def build(self, model: LanguageModel, info: ArtifactInfo) -> bytes:
        """The graph `info.graph` of the model in `info.precision`, without metadata, its inputs and
        outputs named as `info` says. Raises NoStepError for a graph that needs a step of a model
        without one, VerificationError for a graph that the format's own checker refuses."""

    def seal(self, graph: bytes, info: ArtifactInfo) -> bytes:
        """The file: the graph with `info` as its metadata, and a digest of all of it."""


def find_exporters(
    graphs: Sequence[str] | None,
    precision: str,
    registry: Registry,
    name: str | None = None,
) -> dict[str, Exporter]:
    """The exporter of each of these kinds of graph (of all that there are, for None), in this
    precision: the one called `name`, or else the only one. An exporter that writes several is one
    object. Raises UnknownNameError for a graph or precision that none writes, UsageError for one
    that several write, or for which there is no exporter in this precision."""
    specs = list(registry.exporters.values()) if name is None else [registry.exporters[name]]
    kinds = list(dict.fromkeys(kind for spec in specs for kind in spec.graphs))
    precisions = list(dict.fromkeys(kind for spec in specs for kind in spec.precisions))
    if precision not in precisions:
        raise UnknownNameError("precision", precision, precisions)
    for graph in graphs or ():
        if graph not in kinds:
            raise UnknownNameError("graph", graph, kinds)
    writers = {
        graph: [spec for spec in specs if graph in spec.graphs and precision in spec.precisions]
        for graph in (kinds if graphs is None else graphs)
    }
    found: dict[str, ExporterSpec] = {}
    for graph, able in writers.items():
        if len(able) > 1:
            names = " and ".join(spec.name for spec in able)
            raise UsageError(
                f"the exporters {names} both write the graph {graph!r} in {precision}; choose one "
                f"with --exporter NAME (exporter=NAME in Python)."
            )
        if able:
            found[graph] = able[0]
        elif graphs is not None:
            others = sorted({kind for spec in specs if graph in spec.graphs
                             for kind in spec.precisions})  # fmt: skip
            raise UsageError(
                f"no exporter writes the graph {graph!r} in {precision}; it is written in "
                f"{', '.join(others)}."
            )
    objects = {spec.name: spec.load_factory()() for spec in found.values()}
    return {graph: objects[spec.name] for graph, spec in found.items()}
