"""zoo corpora"""

from __future__ import annotations

import click

from zoo.cli.console import print_rows
from zoo.registry.registry import load_registry


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(as_json: bool) -> None:
    """List the named corpora. Any path of a UTF-8 text file is a corpus too, and - is standard
    input."""
    corpora = load_registry().corpora.values()
    rows = [
        {"name": c.name, "tokenizer": c.tokenizer, "licence": c.licence, "title": c.title}
        for c in corpora
    ]
    print_rows(rows, as_json)
