"""Command-line options made from the settings' own declarations, so that names, types, bounds,
defaults and help stand in one place."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from zoo.config import CHOSEN, PROVIDERS
from zoo.errors import UsageError, ZooError

if TYPE_CHECKING:
    from zoo.registry.registry import Registry

REGISTRY = "zoo.registry"  # of the command whose help is shown: it is loaded once
F = TypeVar("F", bound=Callable[..., Any])


def settings_options(fields: Mapping[str, FieldInfo]) -> Callable[[F], F]:
    """A click option for each field. One that is not given arrives as None, so that recipes and
    defaults can fill it; bounds are checked where the settings are built."""

    def decorate(function: F) -> F:
        for name, field in reversed(list(fields.items())):
            function = _option(name, field)(function)
        return function

    return decorate


class ListingOption(click.Option):
    """An option whose help ends with the words that the installed plugins know. The registry is
    asked when the help is shown, not whenever the command is imported."""

    def listing(self, registry: Registry) -> str:
        raise NotImplementedError

    def get_help_record(self, context: click.Context) -> tuple[str, str] | None:
        from zoo.registry.registry import load_registry

        record = super().get_help_record(context)
        assert record is not None
        if REGISTRY not in context.meta:
            context.meta[REGISTRY] = load_registry()
        try:
            words = f": {self.listing(context.meta[REGISTRY])}."
        except ZooError as error:  # of a plugin; the help of all else is shown
            words = f": cannot be listed: {error}"
        text, bracket, default = record[1].partition("  [default")
        return record[0], f"{text}{words}{bracket}{default}"


class RegisteredOption(ListingOption):
    """An option whose value is a name of one table of the registry."""

    def __init__(self, *declarations: Any, table: str, **settings: Any) -> None:
        super().__init__(*declarations, **settings)
        self._table = table

    def listing(self, registry: Registry) -> str:
        return ", ".join(registry.tables()[self._table])


class WrittenOption(ListingOption):
    """An option whose value is one of the `graphs`, `precisions` or `operators` of the
    exporters."""

    def __init__(self, *declarations: Any, words: str, **settings: Any) -> None:
        super().__init__(*declarations, **settings)
        self._words = words

    def listing(self, registry: Registry) -> str:
        specs = registry.exporters.values()
        return ", ".join(dict.fromkeys(w for spec in specs for w in getattr(spec, self._words)))


runtime_option = click.option(
    "--runtime",
    cls=RegisteredOption,
    table="runtimes",
    metavar="NAME",
    help="What opens the model, where several runtimes can",
)
exporter_option = click.option(
    "--exporter",
    cls=RegisteredOption,
    table="exporters",
    metavar="NAME",
    help="What writes the file, where several exporters can",
)
provider_option = click.option(
    "--provider",
    type=click.Choice(PROVIDERS),
    default="auto",
    show_default=True,
    help="Where to compute.",
)


def _option(name: str, field: FieldInfo) -> Callable[[F], F]:
    annotation = _without_none(field.annotation)
    help_text = field.description or ""
    if field.json_schema_extra == CHOSEN:
        help_text += "  [default: chosen for text and time]"
    elif (
        not field.is_required()
        and field.default_factory is None
        and field.default not in (None, ())
    ):
        default = field.default
        shown = default.human_readable(decimal=True) if isinstance(default, ByteSize) else default
        help_text += f"  [default: {shown}]"
    if annotation is bool:
        flag = f"--{name.replace('_', '-')}/--no-{name.replace('_', '-')}"
        return click.option(flag, name, default=None, help=help_text)
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "registered" in extra:
        return click.option(
            f"--{name.replace('_', '-')}", name, cls=RegisteredOption,
            table=extra["registered"], default=None, help=help_text, metavar="NAME",
        )  # fmt: skip
    if get_origin(annotation) is tuple:
        return click.option(
            f"--{name.replace('_', '-')}", name, type=str, multiple=True, metavar="TEXT",
            callback=lambda context, option, given: given or None,
            help=f"{help_text} May be given again.",
        )  # fmt: skip
    if annotation is ByteSize:
        annotation = str  # "10MB"; it is parsed where the settings are built
    kind: Any = (
        click.Choice(get_args(annotation)) if get_origin(annotation) is Literal else annotation
    )
    return click.option(
        f"--{name.replace('_', '-')}", name, type=kind, default=None, help=help_text
    )


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def parse_count(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """The callback of an option that counts, where k stands for thousands and M for millions."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text)
    if not found:
        raise click.BadParameter(f"{text!r} is not a number like 200000, 200k or 1.5M.")
    return round(float(found[1]) * {"": 1, "k": 1_000, "m": 1_000_000}[found[2].lower()])


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, str]:
    """`("k=v", …)` as a mapping."""
    parsed = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--option {pair!r} is not of the form name=value.")
        parsed[key] = value
    return parsed
