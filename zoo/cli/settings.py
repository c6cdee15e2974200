"""Command-line options made from the settings' own declarations, so that names, types, bounds,
defaults and help stand in one place."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from zoo.config import CHOSEN
from zoo.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(fields: Mapping[str, FieldInfo]) -> Callable[[F], F]:
    """A click option for each field. One that is not given arrives as None, so that recipes and
    defaults can fill it; bounds are checked where the settings are built."""

    def decorate(function: F) -> F:
        for name, field in reversed(list(fields.items())):
            function = _option(name, field)(function)
        return function

    return decorate


def _option(name: str, field: FieldInfo) -> Callable[[F], F]:
    annotation = _without_none(field.annotation)
    help_text = field.description or ""
    if field.json_schema_extra == CHOSEN:
        help_text += "  [default: chosen for text and time]"
    elif not field.is_required() and field.default_factory is None and field.default is not None:
        help_text += f"  [default: {field.default}]"
    if annotation is bool:
        flag = f"--{name.replace('_', '-')}/--no-{name.replace('_', '-')}"
        return click.option(flag, name, default=None, help=help_text)
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


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, str]:
    """`("k=v", …)` as a mapping."""
    parsed = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--option {pair!r} is not of the form name=value.")
        parsed[key] = value
    return parsed
