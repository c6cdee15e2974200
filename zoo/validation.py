"""Models of data that comes from outside, and what is said of it when it is wrong."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from zoo.errors import RunError, UsageError, near_names, printable

MAX_MESSAGE, MAX_KEY = 400, 60  # characters of an error that tells what a file holds


class FrozenModel(BaseModel):
    """Frozen, and closed to unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """The settings with these values; UsageError, naming the first that is wrong."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise UsageError(first_problem(error)) from None


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def read_settings(model: type[SettingsT], path: Path) -> SettingsT:
    """The JSON file at `path`, checked against `model`; RunError if it is damaged or not ours."""
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(f"{path} is damaged or not ours: {first_problem(error)}") from None


def parse_json(text: str) -> Any:
    """JSON as the standard has it: Python reads NaN and Infinity too, which are no JSON. Raises
    ValueError, or RecursionError for lists within lists a thousand deep."""
    return json.loads(text, parse_constant=_no_number)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def first_problem(error: ValidationError) -> str:
    """The first of a validation's findings, as "where: what"."""
    finding = error.errors(include_url=False)[0]
    where = ".".join(str(part)[:MAX_KEY] for part in finding["loc"] if isinstance(part, str | int))
    what = _problem(finding)
    told = f"{where}: {what}" if where else what
    return printable(" ".join(told.split()))[:MAX_MESSAGE]  # keys of a file may hold anything


def _problem(finding: Mapping[str, Any]) -> str:
    """What is wrong with a value, with the near words of a closed list."""
    what: str = finding["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if finding["type"] == "literal_error":
        words = re.findall(r"'([^']*)'", finding["ctx"]["expected"])
        near = near_names(str(finding["input"]).lower(), words)
        hint = f"; did you mean {near}?" if near else ""
        return f"{what} (got {repr(finding['input'])[:MAX_KEY]}){hint}"
    return what


def parse_value(annotation: Any, value: Any, what: str) -> Any:
    """`value` as the annotated type, within its bounds; UsageError, naming `what`, if it is not."""
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
        got = "" if finding["type"] == "literal_error" else f" (got {value!r})"
        raise UsageError(f"{what}: {_problem(finding)}{got}") from None


def describe_type(annotation: Any) -> str:
    """An annotated type as a person reads it: "float, > 0, <= 1"."""
    if get_origin(annotation) is Annotated:
        inner, *notes = get_args(annotation)
        bounds = [text for note in notes for text in _bounds(note)]
        return ", ".join([describe_type(inner), *bounds])
    if get_origin(annotation) is Literal:
        return " | ".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(describe_type(part) for part in get_args(annotation))
    return "none" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _bounds(note: Any) -> list[str]:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = []
    for constraint in [note, *getattr(note, "metadata", [])]:
        for key, sign in signs.items():
            if (bound := getattr(constraint, key, None)) is not None:
                found.append(f"{sign} {bound}")
    return found
