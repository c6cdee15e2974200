"""Opening what runs a model: a run folder or an exported file, by the runtime that a plugin
registers for it. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias

from zoo.config import PROVIDERS
from zoo.data.tokenizer import Tokenizer
from zoo.errors import NoStepError, NoTextError, RunError, UsageError, require_choice
from zoo.inference.artifact import ArtifactInfo
from zoo.inference.engine import Engine, HasState
from zoo.inference.urls import errors_named_by_url, is_url, shown_source
from zoo.registry.registry import Registry, load_registry
from zoo.registry.specs import RuntimeSpec

MEASURE = "measure"
Threads: TypeAlias = 'int | Literal["measure"] | None'


@dataclass(frozen=True)
class Source:
    """Something that runs a model: a run in PyTorch, or an exported file.

    `engine` computes; the protocols of `zoo.inference` that it keeps say what can be done with it.
    `tokenizer_or_none` is None of a model of a task. `prompt` is the one that the model was trained
    to show its samples with; `runs_on` names what computes.
    """

    engine: HasState
    tokenizer_or_none: Tokenizer | None
    prompt: str
    runs_on: str

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; NoTextError of a model of a task."""
        if self.tokenizer_or_none is None:
            raise NoTextError
        return self.tokenizer_or_none

    def writer(self) -> Engine:
        """The engine, if it can generate; NoStepError of a non-causal model, NoTextError of one
        that writes no text."""
        if self.tokenizer_or_none is None:
            raise NoTextError
        if not isinstance(self.engine, Engine):
            raise NoStepError("this model")
        return self.engine

    @property
    def fingerprint(self) -> str:
        """The weights and their precision, as "SHA256-fp32": sources that have one can go on from
        each other's states. Empty where it is not known."""
        return ""


@dataclass(frozen=True)
class Artifact(Source):
    """An opened file: a Source that also says what it holds."""

    info: ArtifactInfo

    @property
    def fingerprint(self) -> str:
        return f"{self.info.weights}-{self.info.precision}" if self.info.weights else ""


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
    """What runs the model at the path or URL `source`: a run folder (by PyTorch), an exported file,
    or a folder of files exported from one run. Of a folder the runtime takes the graph that
    generates, or one that `scores`, and reads prompts with the sequence graph if there is one; of a
    file, that file alone. Nothing is written.

    A URL, of whatever `fsspec` opens, leads to an exported file or a folder of them. A copy is kept
    in the cache, and is used again until the server has another version. After "#sha256=HEX" the
    file must have this digest, or ArtifactError is raised.

    `provider` is "auto", "cpu" or "cuda"; ProviderError if it does not run here. `threads` are
    those that an exported file runs with on a CPU: a number, "measure" to try a few on this machine
    and take the fastest (a part of a second), or None for the runtime's rule. `runtime` names one
    where several can open the path; UsageError if it is left out then. RunError for a path that
    none opens.
    """
    require_choice("provider", provider, PROVIDERS)
    _require_threads(threads)
    registry = registry or load_registry()
    found = _find(source, registry, runtime)
    opener: Runtime = found.spec.load_factory()(registry)
    with errors_named_by_url(found.urls):
        return opener.open(found.files, provider, threads, scores=scores)


def open_artifact(
    source: str | Path,
    provider: str,
    registry: Registry,
    *,
    runtime: str | None = None,
    threads: Threads = None,
) -> Artifact:
    """The exported file at a path or URL; otherwise as `open_source`. RunError for something
    else."""
    require_choice("provider", provider, PROVIDERS)
    _require_threads(threads)
    found = _find(source, registry, runtime)
    path = _only(found.urls, source) if found.urls else Path(source)
    opener: Runtime = found.spec.load_factory()(registry)
    with errors_named_by_url(found.urls):
        opened = opener.open([path], provider, threads)
        if not isinstance(opened, Artifact):
            raise RunError(f"{path} is no exported file; `zoo export` writes one.")
    return opened


def local_files(source: str | Path, registry: Registry) -> list[Path]:
    """A path as it is; of a URL, copies of the exported files that `open_source` finds there."""
    if not is_url(source):
        return [Path(source)]
    return list(_fetch(source, registry.runtimes.values()))


def local_file(source: str | Path, registry: Registry) -> Path:
    """The only one of `local_files`; UsageError where there are several."""
    return _only(local_files(source, registry), source)


def _only(paths: Collection[Path], source: str | Path) -> Path:
    if len(paths) > 1:
        raise UsageError(f"{shown_source(source)} holds several exported files; name one.")
    return next(iter(paths))


def _require_threads(threads: Threads) -> None:
    numeric = isinstance(threads, int) and not isinstance(threads, bool) and threads >= 1
    if not (threads is None or threads == MEASURE or numeric):
        raise UsageError(f'threads must be a number of 1 or more, or "measure" (got {threads!r}).')


class _Found(NamedTuple):
    """The runtime for a source and its files. Of copies of remote files `urls` has the URLs, as
    messages show them."""

    spec: RuntimeSpec
    files: list[Path]
    urls: Mapping[Path, str]


def _find(source: str | Path, registry: Registry, name: str | None) -> _Found:
    """The runtime for a source, and the files in it or at it that match the runtime's pattern."""
    specs = list(registry.runtimes.values()) if name is None else [registry.runtimes[name]]
    urls: Mapping[Path, str] = {}
    if is_url(source):
        urls = _fetch(source, specs)
        paths = {spec: [path for path in urls if _matches(path, spec)] for spec in specs}
    else:
        paths = {spec: _matching(Path(source), spec) for spec in specs}
        if not any(paths.values()):
            raise _unopened(Path(source), sorted(spec.files for spec in specs))
    found = [(spec, files) for spec, files in paths.items() if files]
    if len(found) > 1:
        names = " and ".join(spec.name for spec, _ in found)
        raise UsageError(
            f"the runtimes {names} both open {shown_source(source)}; choose one with --runtime "
            f"NAME, or in Python with zoo.open_source(path, runtime=NAME)."
        )
    return _Found(*found[0], urls)


def _unopened(path: Path, patterns: Sequence[str]) -> RunError:
    """Why no runtime opens a path."""
    if not path.exists():
        return RunError(f"{path} does not exist; give a run folder or an exported file.")
    if path.is_dir():
        return RunError(f"{path} is not a run folder: it has no {' and no '.join(patterns)}.")
    return RunError(
        f"{path} is neither a run folder nor a file that a runtime here opens "
        f"({', '.join(patterns) or 'none'})."
    )


def _fetch(url: str, specs: Iterable[RuntimeSpec]) -> Mapping[Path, str]:
    """Copies of what runtimes open at a URL. One that looks for a file of a certain name opens a
    folder by it, of which all else would be missing."""
    from zoo.inference.remote import fetch_models

    of_files = [spec for spec in specs if "*" in spec.files]
    patterns = ", ".join(sorted(spec.files for spec in of_files)) or "none"
    return fetch_models(url, lambda name: any(_matches(name, spec) for spec in of_files), patterns)


def _matches(path: str | Path, spec: RuntimeSpec) -> bool:
    return fnmatchcase(Path(path).name, spec.files)


def _matching(path: Path, spec: RuntimeSpec) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob(spec.files))
    return [path] if path.exists() and _matches(path, spec) else []


def exported_files(folder: Path, registry: Registry) -> list[Path]:
    """What is in the folder that a runtime opens, in order of name."""
    found = {path for spec in registry.runtimes.values() for path in folder.glob(spec.files)}
    return sorted(found)
