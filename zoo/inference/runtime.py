"""Opening what runs a model: a run folder or an exported file, by the runtime that a plugin
registers for it. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from zoo.config import PROVIDERS
from zoo.data.tokenizer import Tokenizer
from zoo.errors import NoStepError, RunError, UsageError, require_choice
from zoo.inference.artifact import ArtifactInfo
from zoo.inference.engine import Engine, HasState
from zoo.registry.registry import Registry, load_registry
from zoo.registry.specs import RuntimeSpec

MEASURE = "measure"
Threads: TypeAlias = 'int | Literal["measure"] | None'


@dataclass(frozen=True)
class Source:
    """Something that runs a model: a run in PyTorch, or an exported file.

    `engine` computes; the protocols of `zoo.inference` that it keeps say what can be done with it.
    `prompt` is the one that the model was trained to show its samples with; `runs_on` names what
    computes.
    """

    engine: HasState
    tokenizer: Tokenizer
    prompt: str
    runs_on: str

    def writer(self) -> Engine:
        """The engine, if it can generate; NoStepError of a non-causal model."""
        if not isinstance(self.engine, Engine):
            raise NoStepError("this model")
        return self.engine


@dataclass(frozen=True)
class Artifact(Source):
    """An opened file: a Source that also says what it holds."""

    info: ArtifactInfo


@dataclass(frozen=True)
class ProviderReport:
    """Whether an execution provider really runs a small graph here, and if not, why."""

    provider: str
    runs: bool
    reason: str = ""


class Runtime(Protocol):
    """Runs exported files of one format."""

    def open(
        self,
        files: Sequence[Path],
        provider: str,
        threads: Threads = None,
        *,
        scores: bool = False,
    ) -> Source:
        """A model, checked and ready, from its `files` (at least one, all of one model): from the
        one that generates best there, or from one that `scores`. Other files are not looked at, and
        nothing is written.

        `provider` is "auto", "cpu" or "cuda"; `threads` are those of a CPU: a number, "measure" for
        the fastest of a few, or None for the runtime's rule. Raises ArtifactError for files that
        are damaged, not of this format or of several models, ProviderError for a provider that does
        not run."""

    def probe(self) -> Sequence[ProviderReport]:
        """Each provider that this runtime was built with, tried on a small graph."""


def open_source(
    source: str | Path,
    provider: str = "auto",
    registry: Registry | None = None,
    *,
    runtime: str | None = None,
    threads: Threads = None,
    scores: bool = False,
) -> Source:
    """What runs the model at the path `source`: a run folder (by PyTorch), an exported file, or a
    folder of files exported from one run. Of a folder the runtime takes the graph that generates,
    or one that `scores`, and reads long prompts with the sequence graph if there is one; of a file,
    that file alone. Nothing is written.

    `provider` is "auto", "cpu" or "cuda"; ProviderError if it does not run here. `threads` are
    those that an exported file runs with on a CPU: a number, "measure" to try a few on this machine
    and take the fastest (a part of a second), or None for the runtime's rule. `runtime` names one
    where several can open the path; UsageError if it is left out then. RunError for a path that
    none opens.
    """
    require_choice("provider", provider, PROVIDERS)
    _require_threads(threads)
    path, registry = Path(source), registry or load_registry()
    spec, files = _find(path, registry, runtime)
    opener: Runtime = spec.load_factory()(registry)
    return opener.open(files, provider, threads, scores=scores)


def open_artifact(
    path: Path,
    provider: str,
    registry: Registry,
    *,
    runtime: str | None = None,
    threads: Threads = None,
) -> Artifact:
    """The exported file at `path`; otherwise as `open_source`. RunError for something else."""
    require_choice("provider", provider, PROVIDERS)
    _require_threads(threads)
    spec, _ = _find(path, registry, runtime)
    opener: Runtime = spec.load_factory()(registry)
    opened = opener.open([path], provider, threads)
    if not isinstance(opened, Artifact):
        raise RunError(f"{path} is no exported file; `zoo export` writes one.")
    return opened


def _require_threads(threads: Threads) -> None:
    numeric = isinstance(threads, int) and not isinstance(threads, bool) and threads >= 1
    if not (threads is None or threads == MEASURE or numeric):
        raise UsageError(f'threads must be a number of 1 or more, or "measure" (got {threads!r}).')


def _find(path: Path, registry: Registry, name: str | None) -> tuple[RuntimeSpec, list[Path]]:
    """The runtime for a path, and the files in it or at it that match the runtime's pattern."""
    if not path.exists():
        raise RunError(f"{path} does not exist; give a run folder or an exported file.")
    specs = registry.runtimes.values() if name is None else [registry.runtimes[name]]
    found = [(spec, files) for spec in specs if (files := _matching(path, spec.files))]
    if len(found) > 1:
        names = " and ".join(spec.name for spec, _ in found)
        raise UsageError(
            f"the runtimes {names} both open {path}; choose one with --runtime NAME, or in Python "
            f"with zoo.open_source(path, runtime=NAME)."
        )
    if not found:
        patterns = sorted(spec.files for spec in specs)
        if path.is_dir():
            raise RunError(f"{path} is not a run folder: it has no {' and no '.join(patterns)}.")
        raise RunError(
            f"{path} is neither a run folder nor a file that a runtime here opens "
            f"({', '.join(patterns) or 'none'})."
        )
    return found[0]


def _matching(path: Path, pattern: str) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob(pattern))
    return [path] if fnmatchcase(path.name, pattern) else []


def exported_files(folder: Path, registry: Registry) -> list[Path]:
    """What is in the folder that a runtime opens, in order of name."""
    found = {path for spec in registry.runtimes.values() for path in folder.glob(spec.files)}
    return sorted(found)
