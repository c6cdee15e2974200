"""How a cell is registered: its spec, its card and its options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zoo.errors import (
    ContractError,
    FactoryError,
    UsageError,
    ZooError,
    is_out_of_memory,
    near_names,
)
from zoo.registry.locations import defined_at, describe_raised
from zoo.registry.specs import Spec

if TYPE_CHECKING:
    from zoo.registry.sizes import HiddenSizes

REGISTRY = "registry"
HINT = " A cell that takes only some hidden sizes says so in its spec, by `hidden_sizes`."


@dataclass(frozen=True)
class StateField:
    """What a leaf of a cell's state means. `name` is that of the leaf, as `init_state` gives it
    ("h", or "h.re" for a tuple within the state), or of a tuple whose leaves have one meaning."""

    name: str
    meaning: str


@dataclass(frozen=True)
class ModelCard:
    """What a person wants to know about a cell before using it.

    `equations` are lines of plain text, in the paper's own symbols. `parallel` says whether
    training can run over all time steps at once. `licence` is that of the implementation.
    `checked_against` names what the tests compare the cell with: another
    implementation, given the same weights, or an example worked by hand.
    """

    title: str
    authors: str
    year: int
    paper: str
    equations: tuple[str, ...]
    state: tuple[StateField, ...]
    parallel: bool = False
    licence: str = "Apache-2.0"
    checked_against: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        for name in ("equations", "state"):
            if not isinstance(getattr(self, name), tuple):
                raise TypeError(f"a card's {name} must be a tuple (got {getattr(self, name)!r})")
        if not isinstance(self.year, int):
            raise TypeError(f"a card's year must be a number (got {self.year!r})")


@dataclass(frozen=True)
class Option:
    """One option of a cell, read from its factory's signature: nowhere else is it declared."""

    name: str
    annotation: Any
    default: Any
    help: str

    @property
    def type_name(self) -> str:
        """The type as a person reads it, with its bounds: "float, > 0, ≤ 1"."""
        from zoo.validation import describe_type

        return describe_type(self.annotation)


@dataclass(frozen=True)
class CellSpec(Spec):
    """A cell as a plugin registers it.

    `factory` names a callable `(input_size, hidden_size, **options) -> Cell`. One that builds other
    cells declares a keyword `registry` beside its options. One that wraps another cell takes
    `**options` too: `wraps` is the name of its own option that names the wrapped cell, and all
    options that it does not declare are that cell's. `causal` is False for a non-causal cell, which
    has `forward` and no `step`. `adopt` names a function that takes trained torch.nn layers over as
    this cell (see `zoo.nn.adopt_layer`). `learning_rate` is the highest at which it trains well
    with AdamW, a few hundred units and thousands of updates; runs that name none choose theirs from
    it. `exceptions` are laws of `zoo.testing` that the cell cannot keep, each with the reason.

    `hidden_sizes` names a function `(hidden_size, **options) -> bool` that says whether the cell
    takes a hidden size; without it the cell takes all. It is given every option, and `registry`
    where the factory is.
    """

    name: str
    factory: str
    card: ModelCard
    causal: bool = True
    adopt: str = ""
    learning_rate: float = 2e-3
    exceptions: Mapping[str, str] = field(default_factory=dict)
    hidden_sizes: str = ""
    wraps: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.card, ModelCard):
            raise TypeError(f"{self.name}: card must be a ModelCard (got {self.card!r})")

    def options(self) -> dict[str, Option]:
        """The options that the factory's signature declares beyond the two sizes. The type of one
        without an annotation is that of its default; FactoryError for one without a default.
        Imports torch."""
        found = {}
        for parameter in self._parameters():
            if parameter.kind is parameter.VAR_KEYWORD or parameter.name == REGISTRY:
                continue
            if parameter.default is parameter.empty:
                raise FactoryError(
                    f"{self.name}: option {parameter.name!r} of {self.factory} has no default; "
                    f"give it one in the signature."
                )
            annotation = parameter.annotation
            if annotation is parameter.empty:
                annotation = Any if parameter.default is None else type(parameter.default)
            notes = getattr(annotation, "__metadata__", ())
            help_text = next((n.description for n in notes if getattr(n, "description", "")), "")
            found[parameter.name] = Option(parameter.name, annotation, parameter.default, help_text)
        return found

    def parse_options(self, given: Mapping[str, Any], registry: Any = None) -> dict[str, Any]:
        """`given`, with each value (text or already typed) checked and converted; the options of
        a wrapped cell, which `registry` has, likewise.

        Raises UsageError for an option that the cell does not have or a value out of its bounds.
        """
        from zoo.validation import parse_value

        declared = self.options()
        named = {key.replace("-", "_"): value for key, value in given.items()}
        own = {
            name: parse_value(
                declared[name].annotation, value, f"option {name!r} of cell {self.name!r}"
            )
            for name, value in named.items()
            if name in declared
        }
        others = {name: value for name, value in named.items() if name not in declared}
        if others and self.wraps:
            others = self._wrapped(own, registry).parse_options(others, registry)
        elif others:
            unknown = next(iter(others))
            near = near_names(unknown, declared)
            has = ", ".join(declared) or "none"
            hint = f"did you mean {near}?" if near else f"it has: {has}."
            raise UsageError(f"cell {self.name!r} has no option {unknown!r}; {hint}")
        return {**own, **others}

    def all_options(self, given: Mapping[str, Any], registry: Any = None) -> dict[str, Any]:
        """Every option of the cell, and of a cell that it wraps: `given`, checked as in
        `parse_options`, and the defaults of the others."""
        parsed = self.parse_options(given, registry)
        declared = {name: option.default for name, option in self.options().items()}
        own = {name: parsed.get(name, default) for name, default in declared.items()}
        if not self.wraps:
            return own
        others = {name: value for name, value in parsed.items() if name not in declared}
        return {**own, **self._wrapped(own, registry).all_options(others, registry)}

    def _wrapped(self, own: Mapping[str, Any], registry: Any) -> CellSpec:
        """The spec of the cell that this one wraps with these options of its own."""
        if registry is None:
            raise self._needs_registry()
        name = own.get(self.wraps, self.options()[self.wraps].default)
        wrapped: CellSpec = registry.cells[name]
        return wrapped

    def _needs_registry(self) -> UsageError:
        return UsageError(
            f"cell {self.name!r} builds other cells; give it registry=zoo.load_registry()."
        )

    def build(
        self, input_size: int, hidden_size: int, *, registry: Any = None, **options: Any
    ) -> Any:
        """A new `zoo.Cell`. Sizes are numbers of features, at least 1. `registry` is the
        `zoo.registry.Registry` in which a cell that builds others finds them; UsageError where such
        a cell is given none, and for a hidden size that the cell does not take."""
        if self.hidden_sizes:
            self.sizes_taken(options, registry).require(hidden_size)
        factory, arguments = self.load_factory(), self._arguments(options, registry)
        try:
            return factory(input_size, hidden_size, **arguments)
        except Exception as error:
            if isinstance(error, ZooError) or is_out_of_memory(error):
                raise
            origin = f" ({registry.cells.origin(self.name)})" if registry is not None else ""
            hint = HINT if isinstance(error, ValueError | RuntimeError) else ""
            raise ContractError(
                f"cell {self.name!r}{origin}: {self.factory} raised "
                f"{describe_raised(error, self.factory.partition(':')[0])} "
                f"(input_size={input_size}, hidden_size={hidden_size}).{hint}"
            ) from error

    def sizes_taken(self, options: Mapping[str, Any], registry: Any = None) -> HiddenSizes:
        """The hidden sizes that the cell takes with these options."""
        from zoo.registry.sizes import HiddenSizes

        if not self.hidden_sizes:
            return HiddenSizes(self.name, lambda size: True)
        takes = self._load(self.hidden_sizes)
        arguments = self._arguments(self.all_options(options, registry), registry)
        return HiddenSizes(self.name, lambda size: bool(takes(size, **arguments)))

    def _arguments(self, options: Mapping[str, Any], registry: Any) -> dict[str, Any]:
        """What the factory is given beside the sizes."""
        arguments = self.parse_options(options, registry)
        if any(parameter.name == REGISTRY for parameter in self._parameters()):
            if registry is None:
                raise self._needs_registry()
            arguments[REGISTRY] = registry
        return arguments

    def _parameters(self) -> list[inspect.Parameter]:
        """The factory's parameters beyond the two sizes."""
        factory = self.load_factory()
        signature = inspect.signature(factory, eval_str=True)
        try:
            signature.bind_partial(1, 1)
        except TypeError:
            raise ContractError(
                f"cell {self.name!r}: {self.factory} takes {signature}; it should take "
                f"(input_size, hidden_size), then its options. See {defined_at(factory)}."
            ) from None
        return list(signature.parameters.values())[2:]
