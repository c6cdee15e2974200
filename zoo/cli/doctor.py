"""zoo doctor"""

from __future__ import annotations

import platform
from importlib.metadata import requires, version

import click
from packaging.requirements import Requirement

from zoo.cli.console import print_rows
from zoo.registry.registry import load_registry


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(as_json: bool) -> None:
    """Show versions, and which devices and execution providers really run a small graph here."""
    rows = [
        _row("Python", True, f"{platform.python_version()} on {platform.platform()}"),
        _row("recurrent-zoo", True, version("recurrent-zoo")),
    ]
    rows += [_row(name, True, found) for name, found in dependency_versions()]
    registry = load_registry()
    for plugin in registry.plugins:
        if plugin.error is not None:
            rows.append(_row(f"plugin {plugin.name}", False, plugin.error))
    for spec in registry.runtimes.values():
        for report in spec.load_factory()(registry).probe():
            detail = "runs a small graph" if report.runs else report.reason
            rows.append(_row(f"{spec.name} {report.provider}", report.runs, detail))
    print_rows(rows, as_json)


def _row(what: str, works: bool, detail: str) -> dict[str, object]:
    return {"what": what, "works": works, "detail": detail}


def dependency_versions() -> list[tuple[str, str]]:
    """The installed distributions that the zoo itself requires, with their versions."""
    required = map(Requirement, requires("recurrent-zoo") or [])
    here = [r for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [(requirement.name, version(requirement.name)) for requirement in here]
