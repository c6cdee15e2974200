"""The models of a server, each opened once, with the scheduler that works on it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from zoo.errors import UsageError, ZooError
from zoo.inference.engine import Engine, Scorer
from zoo.inference.runtime import Source, open_source
from zoo.inference.urls import shown_source
from zoo.registry.registry import Registry
from zoo.serving.scheduler import Scheduler
from zoo.serving.settings import ServeConfig


class ServedModel:
    """A model under a name. Streams are kept under its `fingerprint`: that of the source, so files
    of one run and one precision share them, or where it has none, one of the name."""

    def __init__(self, name: str, source: Source, scorer: Scorer | None, config: ServeConfig):
        self.name, self.source = name, source
        self.engine: Engine = source.writer()
        self.scheduler = Scheduler(self.engine, scorer, config.rows, config.queue)
        self.created = int(time.time())
        unknown = sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        self.fingerprint = source.fingerprint or unknown


def open_models(
    sources: Iterable[str], config: ServeConfig, registry: Registry, provider: str = "auto"
) -> dict[str, ServedModel]:
    """The models by name: `NAME=SOURCE`, or a source whose file or folder gives the name.
    UsageError for two of one name, and for a model that does not generate."""
    models: dict[str, ServedModel] = {}
    try:
        for given in sources:
            name, source = named_source(given)
            if name in models:
                raise UsageError(f"two models are called {name!r}; name one with NAME={source}.")
            opened = open_source(source, provider, registry)
            opened.writer()
            scorer = _scorer(source, opened, provider, registry)
            models[name] = ServedModel(name, opened, scorer, config)
    except BaseException:
        for model in models.values():
            model.scheduler.close()
        raise
    return models


def named_source(given: str) -> tuple[str, str]:
    """The name and the path of a source; without a name, that of its file or folder."""
    name, equals, source = given.partition("=")
    if equals and name and "/" not in name and ":" not in name:
        return name, source
    path = Path(shown_source(given).partition("?")[0])
    if path.suffix and path.stem.partition(".")[0] in ("step", "generate", "sequence"):
        path = path.parent
    if path.name == "export" and path.parent.name:
        path = path.parent
    return path.resolve().name or "model", given


def _scorer(source: str, opened: Source, provider: str, registry: Registry) -> Scorer | None:
    """What gives the probabilities of the same model's tokens, if anything there does."""
    if isinstance(opened.engine, Scorer):
        return opened.engine
    with suppress(ZooError):
        engine = open_source(source, provider, registry, scores=True).engine
        if isinstance(engine, Scorer):
            return engine
    return None
