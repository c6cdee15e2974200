"""What plugins register, each kind as a frozen spec.

Nothing here imports torch: a spec names its factory as "module:attribute", which is imported when
the thing is first built or shown. Listing the cells therefore stays quick.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from zoo.errors import (
    FactoryError,
)
from zoo.registry.locations import describe_raised

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
REFERENCE = re.compile(r"[\w.]+:\w+")
WORD = r"^[a-z][a-z0-9_-]*$"  # of a kind of graph, and of a precision
STANDARD = "standard"  # the operators of a format alone
AUTO = "auto"  # the operators that the installed runtime computes fastest
FULL = "fp32"  # the precision that models are trained in and compared in
ALL, MODULE = "all", "module"  # every kind of graph; a step of something that is no language model


class Named:
    """What every spec has: a kebab-case `name`, and the `module` that has what it names."""

    name: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} is not kebab-case (like 'gru-scratch')")

    @property
    def module(self) -> str:
        raise NotImplementedError


class Spec(Named):
    """A spec with a `factory`, as "module:attribute"."""

    factory: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not REFERENCE.fullmatch(self.factory):
            raise ValueError(f"{self.name}: factory {self.factory!r} is not 'module:attribute'")

    @property
    def module(self) -> str:
        return self.factory.partition(":")[0]

    def load_factory(self) -> Any:
        """Imports what `factory` names; FactoryError where that fails."""
        return self._load(self.factory)

    def _load(self, reference: str) -> Any:
        try:
            return load_reference(reference)
        except Exception as error:  # a plugin's module
            raise FactoryError(
                f"{self.name}: {reference} cannot be imported: "
                f"{describe_raised(error, reference.partition(':')[0])}"
            ) from error


def _require_words(name: str, field: str, words: Any) -> None:
    """TypeError or ValueError for what are no words of kinds of graph, or precisions."""
    if not isinstance(words, tuple) or not words:
        raise TypeError(f"{name}: {field} must be a tuple of words (got {words!r})")
    for word in words:
        if not re.fullmatch(WORD, word) or word in (ALL, MODULE):
            raise ValueError(f"{name}: {field} cannot have the word {word!r}")


def load_reference(reference: str) -> Any:
    """Imports what "module:attribute" names."""
    module, _, attribute = reference.partition(":")
    return getattr(import_module(module), attribute)


@dataclass(frozen=True)
class CorpusSpec(Spec):
    """A text that can be named. `factory` names a callable `() -> str`; `tokenizer` is the one it
    is read with unless another is asked for; `prompt` is a beginning that suits it."""

    name: str
    factory: str
    title: str
    tokenizer: str = "char"
    prompt: str = ""
    licence: str = ""


@dataclass(frozen=True)
class TokenizerSpec(Spec):
    """A tokenizer. `factory` names a subclass of `zoo.data.Tokenizer` whose `kind` is `name`."""

    name: str
    factory: str
    title: str = ""


@dataclass(frozen=True)
class OptimizerSpec(Spec):
    """An optimizer. `factory` names a function `(parameters, learning_rate, weight_decay) ->
    torch.optim.Optimizer`: `parameters` are the model's by their names, a dict of nn.Parameter
    ("stack.cells.0.W_xh", "head.weight"), `learning_rate` is the peak rate. Before each step the
    trainer sets the rate of every parameter group, and it calls `step()` without a closure. The
    optimizer's `state_dict` is saved with the run: tensors, numbers, texts and None, in dicts,
    lists and tuples."""

    name: str
    factory: str
    title: str = ""


@dataclass(frozen=True)
class ScheduleSpec(Spec):
    """A learning-rate schedule. `factory` names a function `(fraction) -> float`: the share of the
    peak learning rate, from 0 to 1, when `fraction` of training, from 0 to 1, is done. The warm-up
    is not part of it."""

    name: str
    factory: str
    title: str = ""


@dataclass(frozen=True)
class RecipeSpec(Named):
    """A named experiment: the file NAME.toml in the package `package`, with a title and the
    sections `data`, `model` and `training`."""

    name: str
    package: str

    @property
    def module(self) -> str:
        return self.package


@dataclass(frozen=True)
class LoggerSpec(Spec):
    """Something that writes training down. `factory` names a function from the iterator of a
    training's events (`zoo.train_events`) to an iterator of the same events: it passes each on,
    unchanged, after or before it has written what it wants. It is called before training starts, of
    several processes in the first only, and raises UsageError there if it cannot work. `title` says
    what it writes and where."""

    name: str
    factory: str
    title: str = ""


@dataclass(frozen=True)
class ExporterSpec(Spec):
    """A format that trained models can be written in. `factory` names a `zoo.exporting.Exporter`;
    `graphs` are the kinds of graph that it writes ("step", "generate", "sequence"), `precisions`
    those that its products can have ("fp32", "fp16", "int8"), `operators` the sets that its files
    can be made of ("standard" runs anywhere). All are open words, of small letters, digits, - and
    _. `modules`, of a format that other recurrent modules can be written in
    too, names a `zoo.exporting.ModuleExporter`, as "module:attribute"."""

    name: str
    factory: str
    title: str
    graphs: tuple[str, ...]
    precisions: tuple[str, ...] = (FULL,)
    modules: str | None = None
    operators: tuple[str, ...] = (STANDARD,)

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("graphs", "precisions", "operators"):
            _require_words(self.name, field, getattr(self, field))
        if self.modules is None:
            return
        if not isinstance(self.modules, str) or not REFERENCE.fullmatch(self.modules):
            raise ValueError(f"{self.name}: modules {self.modules!r} is not 'module:attribute'")

    def load_modules(self) -> Any:
        """Imports what `modules` names; FactoryError where that fails."""
        assert self.modules is not None
        return self._load(self.modules)


@dataclass(frozen=True)
class PackageSpec(Spec):
    """A folder that takes a model somewhere: `zoo export RUN --to NAME`. `factory` names a callable
    `(registry) -> zoo.exporting.Packager`, `graphs` are the kinds of graph that it is made of, and
    `title` says what the folder is for."""

    name: str
    factory: str
    title: str
    graphs: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_words(self.name, "graphs", self.graphs)


@dataclass(frozen=True)
class RuntimeSpec(Spec):
    """Something that runs models: the files whose names match the shell pattern `files`
    ("*.onnx"), and the folders that hold such files. `factory` names a callable
    `(registry) -> zoo.inference.Runtime`."""

    name: str
    factory: str
    title: str
    files: str
