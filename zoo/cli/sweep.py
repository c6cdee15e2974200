"""zoo sweep"""

from __future__ import annotations

import sys
from contextlib import closing, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.console import duration, note, print_rows
from zoo.cli.settings import (
    exporter_option,
    parse_count,
    parse_pairs,
    runtime_option,
    settings_options,
)
from zoo.cli.train import FIELDS
from zoo.errors import UsageError

if TYPE_CHECKING:
    from zoo.sweeps.table import Figure, Row


@click.command()
@click.argument("corpus", required=False)
@click.option("--cells", required=True, metavar="NAMES",
              help='Names and patterns, as "gru,lstm,*-scratch".')  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True,
              help="Runs of each cell; their seeds count from --seed, or 0, on.")  # fmt: skip
@click.option("--parameters", callback=parse_count, metavar="N",
              help="Instead of --hidden: for each cell the largest hidden size with which the "
              "model has at most N parameters (200000, 200k, 1.5M).")  # fmt: skip
@click.option("--tune-rate", is_flag=True,
              help="Train the first seed of each cell at several learning rates, by factors of two "
              "for as long as that helps, and take the best for all its seeds.")  # fmt: skip
@click.option("--rates-of", type=click.Path(path_type=Path), metavar="SWEEP",
              help="Take the rates that another sweep found best, given by its folder or table; "
              "each cell has as many times its usual rate as there.")  # fmt: skip
@click.option("--measure", is_flag=True,
              help="Measure the first run of each cell too, on the machine as it then is: the "
              "speed of its training, and, exported, the speed and size of its files.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), metavar="N",
              help="Train N runs at once, each in a process with one thread; needs Ray, "
              "as recurrent-zoo[ray] has it.")  # fmt: skip
@click.option("--ray", metavar="ADDRESS",
              help="Train on the Ray cluster at HOST:PORT, or (auto) on that of this "
              "machine; with --workers at most N runs at once.")  # fmt: skip
@exporter_option
@runtime_option
@settings_options({name: field for name, field in FIELDS.items() if name != "cell"})
@click.option(
    "--option", "pairs", multiple=True, metavar="K=V", help="Option that all the cells have."
)
@click.option("--recipe", metavar="NAME", help="Begin from a named experiment; not from its cell.")
@click.option("--out", type=click.Path(path_type=Path),
              help="Folder of the sweep; else runs/sweep-CORPUS.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(pairs: tuple[str, ...], out: Path | None, as_json: bool, **settings: Any) -> int:
    """Train many cells on CORPUS, a text or task:NAME, with the same settings and several seeds,
    and compare them.

    The folder of the sweep gets a run folder for each cell and seed, a table, sweep.csv, a
    picture, sweep.png, and, with Plotly, a page, sweep.html. The same command resumes a sweep that
    was stopped; with other --cells or more --seeds it adds their runs. All other settings, those of
    `zoo train`, hold for all runs.

    Exit code 1 if a run failed; the others are trained all the same.
    """
    from zoo.cli.progress import close_view, open_view
    from zoo.sweeps.events import MeasuringFailed, RunStarted, TrialFinished
    from zoo.sweeps.page import PAGE, write_page
    from zoo.sweeps.runner import PICTURE, sweep_events
    from zoo.sweeps.table import TABLE, Row, figure_of, read_rows
    from zoo.training.events import Moved, Started

    if pairs:
        settings["options"] = parse_pairs(pairs)
    rows: list[Row] = []
    labels: dict[str, str] = {}  # of runs by their folders: several may be under way
    in_parallel = settings["workers"] is not None or settings["ray"] is not None
    view = None
    events = sweep_events(out=out, **settings)
    # Ray prints on standard output when a process is lost
    with redirect_stdout(sys.stderr), closing(events):  # type: ignore[type-var]
        try:
            for event in events:
                if isinstance(event, RunStarted):
                    folder = event.folder.parent
                    run = f"{event.cell}, seed {event.seed} ({event.number} of {event.total})"
                    if event.factor != 1:
                        run += f", rate × {event.factor:g}"
                    labels[event.folder.name] = run
                    if in_parallel:
                        note(f"{run}: sent to a worker")
                elif isinstance(event, MeasuringFailed):
                    close_view(view)
                    view = None
                    name = event.folder.name
                    note(f"{labels.get(name, name)}: not measured: {event.reason}")
                elif isinstance(event, Row | TrialFinished):
                    close_view(view)
                    view = None
                    row = event if isinstance(event, Row) else event.row
                    if row is event:
                        rows.append(row)
                    note(f"{labels.get(row.run, row.run)}: {_outcome(row)}")
                else:
                    if isinstance(event, Started):
                        parameters = event.run.model.parameter_count()
                        again = " again" if event.resumed is not None else ""
                        note(f"{run}: training{again}, {parameters:,} parameters")
                        view = open_view()
                    elif isinstance(event, Moved):
                        labels[event.run.path.name] = run
                    if view is not None:
                        view.follow(event)
        except KeyboardInterrupt:
            close_view(view)
            note("interrupted; the same command continues it")
            raise
        finally:
            close_view(view)
    rows.sort(key=lambda row: (row.cell, row.seed))
    exact = [row.model_dump() for row in rows]
    figure = figure_of(rows)
    print_rows(exact if as_json else [_shown(row, figure) for row in rows], as_json)
    drawn = f"{folder / PICTURE}"
    with suppress(UsageError):  # of Plotly, which is not there: the picture tells as much
        write_page(folder.name, read_rows(folder / TABLE), folder / PAGE, folder)
        drawn += f" and {PAGE}"
    note(f"all runs of the sweep are in {folder / TABLE}, and drawn in {drawn}")
    failed = [row.run for row in rows if row.error]
    if failed:
        note(f"{len(failed)} of {len(rows)} runs failed: {', '.join(failed)}")
    return 1 if failed else 0


def _outcome(row: Row) -> str:
    if row.error:
        return f"failed: {row.error}"
    assert row.seconds is not None
    from zoo.sweeps.table import figure_of

    figure = figure_of([row])
    named = {"held_out_bits_per_char": "bits/char", "held_out_accuracy": "right"}
    held_out = figure.column.startswith("held_out")
    known = f"val {figure.of(row)} {named.get(figure.column, 'error')}  " if held_out else ""
    return f"{known}{row.tokens_per_second:,.0f} tok/s  {duration(row.seconds)}"


def _shown(row: Row, figure: Figure) -> dict[str, object]:
    speed = row.tokens_per_second
    name = figure.column.replace("held_out", "val")
    return {
        "cell": row.cell,
        "seed": row.seed,
        "hidden": row.hidden,
        "parameters": None if row.parameters is None else f"{row.parameters:,}",
        "tokens": None if row.tokens is None else f"{row.tokens:,}",
        "tokens_per_second": None if speed is None else f"{speed:,.0f}",
        name: row.error or figure.of(row),
    }
