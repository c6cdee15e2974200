"""Packages: what a model needs somewhere else, as a folder made of its exported files: a page of
the web, a repository of a server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from zoo.config import DEFAULT_MAX_LOSS
from zoo.errors import ContractError, NoTextError, UsageError
from zoo.exporting.export import Exported, export_all
from zoo.files import new_folder, replaced_at_once
from zoo.registry.registry import Registry, load_registry
from zoo.registry.specs import FULL, STANDARD

if TYPE_CHECKING:
    from zoo.runs.run import Run

MANIFEST = "zoo-package.json"  # which says that a folder is a package, and may be replaced by one


class Packager(Protocol):
    """Writes packages of one kind. It is made with the registry as its argument."""

    def write(self, files: Sequence[Exported], folder: Path) -> None:
        """Writes the package of one model into the empty folder `folder`. `files` are its graphs,
        proved, in the order of the spec's `graphs`. UsageError for a model that it cannot hold; the
        folder is then discarded."""


def package(
    run: Run | str | Path,
    to: str,
    precision: str = FULL,
    max_loss: float = DEFAULT_MAX_LOSS,
    out: str | Path | None = None,
    registry: Registry | None = None,
    *,
    exporter: str | None = None,
    runtime: str | None = None,
) -> Path:
    """Exports the graphs of a trained run that a package of the kind `to` needs, proves them as
    `zoo.export` does, and writes the package: the folder `out`, by default `export/NAME` in the
    run's folder. Its files have standard operators only. A package that was there is replaced when
    the new one is whole.

    Raises UnknownNameError for a kind that no plugin supplies, UsageError for a folder `out` that
    holds something else, NoTextError for a model of a task; otherwise as `zoo.export`.
    """
    from zoo.runs.run import Run, load

    registry = registry or load_registry()
    spec = registry.packages[to]
    packager: Packager = spec.load_factory()(registry)
    if not callable(getattr(packager, "write", None)):
        raise ContractError(f"{registry.packages.describe(to)} has no write(files, folder).")
    if not isinstance(run, Run):
        run = load(run, registry)
    if run.tokenizer_or_none is None:
        raise NoTextError
    folder = Path(out) if out is not None else run.path / "export" / to
    _require_replaceable(folder)
    with new_folder(folder), tempfile.TemporaryDirectory() as staged:
        files = export_all(
            run, spec.graphs, precision, max_loss, staged, registry,
            operators=STANDARD, exporter=exporter, runtime=runtime,
        )  # fmt: skip
        with replaced_at_once(folder) as staging:
            packager.write(files, staging)
            shown = {"package": to, "weights": files[0].info.weights}
            (staging / MANIFEST).write_text(json.dumps(shown, indent=1) + "\n", "utf-8")
    return folder


def _require_replaceable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another --out.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise UsageError(
            f"{folder} holds files of something else (it has no {MANIFEST}); choose another --out."
        )
