"""How a task is registered: its spec and its card."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.errors import ContractError, FactoryError, UsageError, ZooError, near_names
from zoo.registry.locations import describe_raised
from zoo.registry.specs import Spec


@dataclass(frozen=True)
class TaskCard:
    """What a person wants to know about a task before using it.

    `definition` says what is shown and what is asked, in a few sentences; `measures` what a cell
    needs to solve it. `results` are known results of the literature, a line each. `package` is what
    pip is to install, where the task needs something that is not always there. `downloads` says
    that its data comes from another machine, when it is first needed.
    """

    title: str
    authors: str
    year: int
    paper: str
    definition: str
    measures: str
    results: tuple[str, ...] = ()
    package: str = ""
    downloads: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.results, tuple):
            raise TypeError(f"a card's results must be a tuple (got {self.results!r})")
        if not isinstance(self.year, int):
            raise TypeError(f"a card's year must be a number (got {self.year!r})")


@dataclass(frozen=True)
class Trial:
    """How cells are compared on a task by `zoo rank`: each is trained on so many `batches` of 64
    sequences, at each learning rate that is tried. `options` are those of the task; `quick` says
    that the task is among those that are run where none are named."""

    batches: int
    options: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.batches, int) or self.batches < 1 or self.batches % 100:
            raise TypeError(f"a trial's batches must be hundreds (got {self.batches!r})")


@dataclass(frozen=True)
class TaskSpec(Spec):
    """A task as a plugin registers it.

    `factory` names a callable that returns a `zoo.tasks.Task`: a subclass of it, mostly. Its
    parameters are the options of the task, each with a default, and bounds in its annotation, as a
    cell's options have them; the defaults are a size that two cores train in minutes. `full` are
    the options of the size in the paper. `trial` says how cells are compared on it; None if they
    are not.
    """

    name: str
    factory: str
    card: TaskCard
    full: Mapping[str, Any] = field(default_factory=dict)
    trial: Trial | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.card, TaskCard):
            raise TypeError(f"{self.name}: card must be a TaskCard (got {self.card!r})")
        if not isinstance(self.trial, Trial | None):
            raise TypeError(f"{self.name}: trial must be a Trial (got {self.trial!r})")

    def options(self) -> dict[str, Any]:
        """The options that the factory's signature declares, with their defaults. FactoryError for
        one without."""
        return {name: parameter.default for name, parameter in self._parameters().items()}

    def build(self, **options: Any) -> Any:
        """The task with these options. UsageError for one that it does not have or that is out of
        its bounds, or for a package that is missing."""
        given, factory = self.parse_options(**options), self.load_factory()
        try:
            return factory(**given)
        except ZooError:
            raise
        except ModuleNotFoundError as error:
            raise UsageError(
                f"task {self.name!r} needs the module {error.name}; install it with: "
                f'pip install "{self.card.package or error.name}"'
            ) from None
        except Exception as error:  # a plugin's own code
            told = describe_raised(error, self.module)
            raise ContractError(f"task {self.name!r} cannot be built: {told}") from error

    def parse_options(self, **options: Any) -> dict[str, Any]:
        """Options that may be texts as values of the declared types. UsageError for one that the
        task does not have or that is out of its bounds."""
        from zoo.validation import parse_value

        declared = self._parameters()
        for name in options.keys() - declared.keys():
            near = near_names(name, declared)
            hint = f"did you mean {near}?" if near else f"it has: {', '.join(declared) or 'none'}."
            raise UsageError(f"task {self.name!r} has no option {name!r}; {hint}")
        return {
            name: parse_value(_type_of(declared[name]), value, f"option {name!r} of {self.name!r}")
            for name, value in options.items()
        }

    def _parameters(self) -> dict[str, inspect.Parameter]:
        found = {}
        for parameter in inspect.signature(self.load_factory(), eval_str=True).parameters.values():
            if parameter.default is parameter.empty:
                raise FactoryError(
                    f"{self.name}: option {parameter.name!r} of {self.factory} has no default; "
                    f"give it one in the signature."
                )
            found[parameter.name] = parameter
        return found


def _type_of(parameter: inspect.Parameter) -> Any:
    """The annotation, or else the type of the default."""
    if parameter.annotation is parameter.empty:
        return type(parameter.default)
    return parameter.annotation
