"""What all runs of a sweep share, as its folder says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic_core import to_jsonable_python

from zoo.config import CHOSEN, RunConfig, setting_fields, setting_owners
from zoo.errors import RunError
from zoo.files import write_atomically
from zoo.sweeps.table import TABLE, Row, read_rows
from zoo.validation import FrozenModel, read_settings

MANIFEST = "sweep.json"


class Manifest(FrozenModel):
    """What all runs of a sweep share: the content of `sweep.json`. The settings that were
    given, None for those that were left open; what was chosen for them, as for the first cell;
    how many times its own learning rate each cell gets; and the text's fingerprint."""

    format: Literal[1] = 1
    given: dict[str, Any]
    chosen: dict[str, Any]
    rate_multiplier: float = 1.0
    text: str | None = None  # not there in an older sweep


def given_settings(
    config: RunConfig, parameters: int | None, tune_rate: bool, rates_of: str | Path | None
) -> dict[str, Any]:
    """The settings that the command gave, and None for those that are left to choose."""
    given: dict[str, Any] = {"recipe": config.recipe, "parameters": parameters}
    # None is what an older sweep.json has for them
    given["tune_rate"] = tune_rate or None
    given["rates_of"] = None if rates_of is None else str(rates_of)
    for name, section in setting_owners().items():
        settings = getattr(config, section)
        fixed = name in settings.model_fields_set or config.recipe is not None
        given[name] = getattr(settings, name) if fixed or name not in _choosable() else None
    del given["cell"], given["seed"]
    return given


def _choosable() -> list[str]:
    return [name for name, field in setting_fields().items() if field.json_schema_extra == CHOSEN]


def chosen_settings(config: RunConfig, given: dict[str, Any]) -> dict[str, Any]:
    """What the config has for the settings that were left open. Each cell has a learning rate of
    its own, and with a number of parameters a hidden size."""
    owners = setting_owners()
    own = {"learning_rate"} | ({"hidden"} if given["parameters"] is not None else set())
    shared = [name for name in _choosable() if given[name] is None and name not in own]
    return {name: getattr(getattr(config, owners[name]), name) for name in shared}


def write_manifest(path: Path, manifest: Manifest) -> None:
    if not (path / MANIFEST).exists():
        write_atomically(path / MANIFEST, manifest.model_dump_json(indent=2).encode())


def sweep_before(
    path: Path, given: dict[str, Any]
) -> tuple[Manifest | None, dict[tuple[str, int], Row]]:
    """The sweep that the folder holds, and its rows by cell and seed. RunError if it holds other
    things, or a sweep of other settings."""
    if not path.is_dir() or not any(path.iterdir()):
        return None, {}
    if not (path / MANIFEST).is_file():
        raise RunError(f"{path} exists and is not a sweep; choose another --out.")
    before = read_settings(Manifest, path / MANIFEST)
    for name, value in given.items():
        if (other := before.given.get(name)) != to_jsonable_python(value):
            raise RunError(
                f"the runs in {path} have {_told(name, other)}, this command has "
                f"{_told(name, value)}; choose another --out."
            )
    return before, {(row.cell, row.seed): row for row in read_rows(path / TABLE)}


def _told(name: str, value: Any) -> str:
    return f"no {name} given" if value is None else f"{name}={value}"
