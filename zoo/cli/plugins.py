"""zoo plugins"""

from __future__ import annotations

import warnings

import click

from zoo.cli.console import print_rows
from zoo.errors import PluginWarning
from zoo.registry.registry import load_registry


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(as_json: bool) -> None:
    """List the plugins that were found, what each supplies, and what failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # the table says it
        registry = load_registry()
    rows = []
    for plugin in registry.plugins:
        supplied = [f"{kind} {name}" for kind, name in registry.supplied_by(plugin)]
        rows.append(
            {
                "plugin": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "supplies": ", ".join(supplied) if not as_json else supplied,
                "error": plugin.error,
            }
        )
    print_rows(rows, as_json)
    for conflict in registry.duplicates():
        click.echo(f"zoo: warning: {conflict}", err=True)
