"""zoo cells"""

from __future__ import annotations

import click

from zoo.cli.console import print_rows
from zoo.registry.registry import list_cells, load_registry


@click.command()
@click.option("--filter", "pattern", default="*", metavar="GLOB", help='Only these, as "*gru*".')
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(pattern: str, as_json: bool) -> None:
    """List the cells."""
    registry = load_registry()
    rows = []
    for spec in list_cells(pattern, registry):
        row = {
            "name": spec.name,
            "plugin": registry.cells.origin(spec.name).name,
            "causal": spec.causal,
            "parallel": spec.card.parallel,
            "year": spec.card.year,
        }
        rows.append(row if as_json else {**row, "title": spec.card.title})
    print_rows(rows, as_json)
