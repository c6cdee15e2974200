"""zoo check"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from zoo.cli.console import note
from zoo.cli.settings import parse_pairs
from zoo.config import MAX_HIDDEN
from zoo.errors import UnknownNameError
from zoo.registry.registry import list_cells, load_registry

if TYPE_CHECKING:
    from zoo.testing import Verdict


@click.command()
@click.argument("cell")
@click.option("--layers", type=click.IntRange(1, 8), default=1, show_default=True,
              help="Check this many of it on each other.")  # fmt: skip
@click.option("--hidden", type=click.IntRange(1, MAX_HIDDEN), default=None,
              help="Hidden units; without it, 8, or the next that it takes.")  # fmt: skip
@click.option(
    "--option", "pairs", multiple=True, metavar="K=V", help="Option of the cell; `zoo show CELL`."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--markdown", is_flag=True, help="A table of laws and cells.")
def command(
    cell: str,
    layers: int,
    hidden: int | None,
    pairs: tuple[str, ...],
    as_json: bool,
    markdown: bool,
) -> int:
    """Test a CELL, or all that match a pattern ("*-scratch"), against the laws of the zoo.

    Exit code 1 if one is broken.
    """
    from zoo.testing import LAWS, check_cell

    registry = load_registry()
    names = [spec.name for spec in list_cells(cell, registry)]
    if not names:
        raise UnknownNameError("cell", cell, registry.cells, "`zoo cells`")
    found = {}
    for name in names:
        verdicts = []
        for verdict in check_cell(
            name, layers=layers, hidden=hidden, options=parse_pairs(pairs), registry=registry
        ):
            verdicts.append(verdict)
            if not (as_json or markdown):
                mark = "exempt" if verdict.exempt else "kept" if verdict.passed else "BROKEN"
                law = verdict.law.replace("_", " ")
                said = f"{figure(verdict.figure)}  {verdict.exempt or verdict.finding}"
                print(f"{name}  {mark:<6}  {law:<33}  {said.strip()}".rstrip(), flush=True)
        found[name] = verdicts
        if len(verdicts) == 1 and not (as_json or markdown):
            note(f"{name}: the other laws are checked when this one is kept")
    if as_json:
        rows = [{"cell": name, **asdict(verdict)} for name in names for verdict in found[name]]
        print(json.dumps(rows, indent=2))
    if markdown:
        laws = [law.__name__.replace("_", " ") for law in LAWS]
        print(f"| cell | {' | '.join(laws)} |")
        print("|---|" + "---|" * len(laws))
        for name, verdicts in found.items():
            cells = [*map(_in_table, verdicts), *["not checked"] * (len(laws) - len(verdicts))]
            print(f"| `{name}` | {' | '.join(cells)} |")
    return 0 if all(verdict.passed for verdicts in found.values() for verdict in verdicts) else 1


def _in_table(verdict: Verdict) -> str:
    if verdict.exempt:
        return "exempt"
    return f"kept {figure(verdict.figure)}".strip() if verdict.passed else "BROKEN"


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
