"""The contracts of exporters, and finding the one that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from zoo.errors import UnknownNameError, UsageError
from zoo.exporting.modules import ModuleSpec
from zoo.inference.artifact import ArtifactInfo, Proof
from zoo.models.language_model import LanguageModel
from zoo.registry.registry import Registry
from zoo.registry.specs import AUTO, ExporterSpec


class Exporter(Protocol):
    """Writes models in one format."""

    suffix: str

    def build(self, model: LanguageModel, info: ArtifactInfo) -> bytes:
        """The graph `info.graph` of the model in `info.precision`, without metadata, its inputs and
        outputs named as `info` says. `info.operators` is "standard", "auto", where the exporter
        chooses, or another set that its spec names. Raises UsageError for operators that it cannot
        write here, NoStepError for a graph that needs a step of a model without one,
        VerificationError for a graph that the format's own checker refuses."""

    def seal(self, graph: bytes, info: ArtifactInfo) -> bytes:
        """The file: the graph with `info` as its metadata, which name the operators that it needs,
        and a digest of all of it."""


class ModuleExporter(Protocol):
    """Writes recurrent modules that are no language models in one format. It is made without
    arguments."""

    suffix: str

    def export(self, spec: ModuleSpec, path: Path) -> Proof:
        """Writes the module to `path` in the precision that `spec` says, after the file was proved
        against it, and returns the proof. Raises UsageError for a module that cannot be exported,
        and VerificationError for a file whose results differ or whose precision costs more than
        `spec.max_cost`; nothing is written then."""

    def verify(self, path: Path, spec: ModuleSpec, provider: str = "auto") -> Proof:
        """Proves the file against the module again, in the file's own precision, and returns the
        new proof. `provider` is "cpu" or "cuda"; "auto" is where every file of the format runs.
        Raises VerificationError as `export` does, and for a file of another module or of other
        weights; ArtifactError for a file that is not of this format, damaged, or of a language
        model."""


def find_exporters(
    graphs: Sequence[str] | None,
    precision: str,
    registry: Registry,
    name: str | None = None,
    operators: str = AUTO,
) -> dict[str, Exporter]:
    """The exporter of each of these kinds of graph (of all that there are, for None), in this
    precision: the one called `name`, or else the only one. An exporter that writes several is one
    object. Raises UnknownNameError for a graph, precision or operators that none writes, UsageError
    for one that several write, or for which there is no exporter in this precision."""
    specs = list(registry.exporters.values()) if name is None else [registry.exporters[name]]
    kinds = list(dict.fromkeys(kind for spec in specs for kind in spec.graphs))
    precisions = list(dict.fromkeys(kind for spec in specs for kind in spec.precisions))
    if precision not in precisions:
        raise UnknownNameError("precision", precision, precisions)
    sets = list(dict.fromkeys(kind for spec in specs for kind in spec.operators))
    if operators not in (AUTO, *sets):
        raise UnknownNameError("operators", operators, sets)
    for graph in graphs or ():
        if graph not in kinds:
            raise UnknownNameError("graph", graph, kinds)
    writers = {
        graph: [
            spec
            for spec in specs
            if graph in spec.graphs
            and precision in spec.precisions
            and operators in (AUTO, *spec.operators)
        ]
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


def find_module_exporter(
    registry: Registry,
    name: str | None = None,
    *,
    precision: str | None = None,
    file: Path | None = None,
) -> ModuleExporter:
    """The exporter of modules called `name`, or else the only one: in this precision, or of the
    format of a file. Raises UnknownNameError for a name or precision that there is not, UsageError
    where none or several could be meant."""
    specs = list(registry.exporters.values()) if name is None else [registry.exporters[name]]
    able = [spec for spec in specs if spec.modules is not None]
    if not able:
        raise UsageError(
            "no exporter that is installed writes modules."
            if name is None
            else f"the exporter {name} writes language models only."
        )
    if precision is not None:
        precisions = list(dict.fromkeys(kind for spec in able for kind in spec.precisions))
        if precision not in precisions:
            raise UnknownNameError("precision", precision, precisions)
        able = [spec for spec in able if precision in spec.precisions]
    found: dict[str, ModuleExporter] = {spec.name: spec.load_modules()() for spec in able}
    if file is not None and len(found) > 1:
        found = {key: one for key, one in found.items() if one.suffix == file.suffix} or found
    if len(found) > 1:
        raise UsageError(
            f"the exporters {' and '.join(found)} both write modules; choose one with "
            f"--exporter NAME."
        )
    return next(iter(found.values()))
