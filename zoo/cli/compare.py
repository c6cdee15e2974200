"""zoo compare"""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.console import note


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("comparison.png"),
    show_default=True,
    help="The picture to write.",
)
def command(runs: tuple[Path, ...], out: Path) -> None:
    """Draw the curves of several RUNS together, over tokens and over time."""
    from zoo.runs.metadata import read_record
    from zoo.runs.plot import draw_comparison

    draw_comparison([read_record(run) for run in runs], out)
    note("curves of the validation text, or of the training text for a run without one")
    print(out)
