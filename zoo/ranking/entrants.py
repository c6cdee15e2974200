"""What is compared: cells, and cells with other options than their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from zoo.errors import NoStepError, UnknownNameError, UsageError
from zoo.registry.cell_spec import CellSpec
from zoo.registry.registry import Registry


@dataclass(frozen=True)
class Entrant:
    """A cell with options. Its name has them behind the cell's, as "deltanet:heads=2"."""

    name: str
    spec: CellSpec
    options: Mapping[str, Any]


def choose_entrants(cells: str | Sequence[str], registry: Registry) -> list[Entrant]:
    """Each that is meant, once, in order of name: "gru,*-scratch,deltanet:heads=2:key=value".
    Patterns mean the causal cells alone. UnknownNameError for one that means none, UsageError for
    options that a cell does not have, NoStepError for a cell without a step."""
    found: dict[str, Entrant] = {}
    for each in cells.split(",") if isinstance(cells, str) else cells:
        pattern, *pairs = each.strip().split(":")
        options = dict(map(_pair, pairs))
        names = [name for name in registry.cells if fnmatchcase(name, pattern)]
        if not names:
            raise UnknownNameError("cell", pattern, registry.cells, "`zoo cells`")
        for name in names:
            spec = registry.cells[name]
            if not spec.causal:
                if name == pattern:
                    raise NoStepError(f"cell {name!r}")
                continue
            entrant = _entrant(spec, options, registry)
            found[entrant.name] = entrant
    if not found:
        raise UsageError(
            "these are cells that read in both directions, without a step; name others."
        )
    return [found[name] for name in sorted(found)]


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{text!r} is no option; after a cell come options, as in gru:key=value.")
    return key.replace("-", "_"), value


def _entrant(spec: CellSpec, options: Mapping[str, str], registry: Registry) -> Entrant:
    parsed = spec.parse_options(options, registry)
    shown = "".join(f":{name}={_shown(parsed[name])}" for name in sorted(options))
    return Entrant(spec.name + shown, spec, {name: parsed[name] for name in options})


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
