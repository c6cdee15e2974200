"""zoo check"""

from __future__ import annotations

import json

import click

from zoo.cli.settings import parse_pairs


@click.command()
@click.argument("cell")
@click.option("--layers", type=click.IntRange(1, 8), default=1, show_default=True,
              help="Check this many of it on each other.")  # fmt: skip
@click.option(
    "--option", "pairs", multiple=True, metavar="K=V", help="Option of the cell; `zoo show CELL`."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(cell: str, layers: int, pairs: tuple[str, ...], as_json: bool) -> int:
    """Hold a CELL to the laws that every cell must keep; exit code 1 if one is broken."""
    from zoo.testing import check_cell

    verdicts = []
    for verdict in check_cell(cell, layers=layers, options=parse_pairs(pairs)):
        verdicts.append(verdict)
        if not as_json:
            mark = "exempt" if verdict.exempt else "kept" if verdict.passed else "BROKEN"
            figure = "" if verdict.figure is None else f"{verdict.figure:.2g}"
            said = verdict.exempt or verdict.finding
            print(f"{mark:<7} {verdict.law.replace('_', ' '):<36} {figure:<8} {said}".rstrip())
    if as_json:
        rows = [
            {
                "law": verdict.law,
                "passed": verdict.passed,
                "figure": verdict.figure,
                "finding": verdict.finding,
                "exempt": verdict.exempt,
            }
            for verdict in verdicts
        ]
        print(json.dumps(rows, indent=2))
    return 0 if all(verdict.passed for verdict in verdicts) else 1
