"""zoo rank"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.console import duration, note, print_rows
from zoo.cli.settings import parse_count
from zoo.errors import UsageError

if TYPE_CHECKING:
    from zoo.ranking import RankRow


@click.command()
@click.argument("cells")
@click.option("--tasks", metavar="NAMES",
              help="Names and patterns of tasks; without it, the quick ones.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True,
              help="Rows of each cell and task; their seeds count from --seed on.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="The first seed.")  # fmt: skip
@click.option("--parameters", callback=parse_count, metavar="N",
              help="The most parameters of a model (50000, 50k).  [default: 50k]")  # fmt: skip
@click.option("--state-bytes", callback=parse_count, metavar="N",
              help="Instead: the most bytes of its state.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=0), metavar="N",
              help="Train so many at once, each in a process with one thread; 0: in this "
              "process.  [default: one for each core]")  # fmt: skip
@click.option("--again", is_flag=True,
              help="Train anew what is there: after a change of the cell.")  # fmt: skip
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs", "rank"),
    show_default=True,
    help="Folder of the tables, the picture and the runs.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(out: Path, as_json: bool, **settings: Any) -> int:
    """Train CELLS on tasks that tell what a cell can do, and show where they stand beside the
    zoo's own.

    CELLS are names and patterns, with options behind a name: "gru,my-*,deltanet:heads=2". Each is
    trained with equally many parameters on equally many sequences, at up to five learning rates,
    and the best in validation is tested as in training and beyond. The same command goes on where
    it was stopped; with other cells, tasks or seeds it adds their rows.

    Exit code 1 if a row has no figures.
    """
    from zoo.ranking.page import page_of, write_page
    from zoo.ranking.published import alike, published_rows
    from zoo.ranking.ranks import read_ranks
    from zoo.ranking.runner import RANKS, TABLE, picture_of, rank_events

    rows: list[RankRow] = []
    total = 0
    for event in rank_events(out=out, **settings):
        if isinstance(event, int):
            total = event
            note(f"{total} rows: each cell on each task; a cell takes some minutes on each")
            continue
        rows.append(event)
        note(f"{len(rows)} of {total}: {event.task.removeprefix('task:')}, {event.cell}: "
             f"{outcome(event)}  {duration(event.seconds)}")  # fmt: skip
    published = published_rows()
    if as_json:
        print_rows([row.model_dump(mode="json") for row in rows], as_json)
    else:
        print_rows([shown(row, published) for row in rows], as_json)
    size = rows[0].size
    note(f"the rows are in {out / TABLE}, and drawn in {out / picture_of(size)}")
    own = {row.key: row for row in read_ranks(out / RANKS) if row.size == size}
    others = [row for row in published if row.key not in own and any(alike(row, own.values()))]
    page = out / page_of(picture_of(size))
    try:
        write_page([*others, *own.values()], page)
        note(f"beside the zoo's they are in {page}")
    except UsageError as error:  # of what is missing: the rows are there without it
        note(str(error))
    for row in rows:
        if row.evidence:
            note(f"{row.task.removeprefix('task:')}, {row.cell}: {row.verdict}: {row.evidence}")
    return 1 if any(not row.tests for row in rows) else 0


def outcome(row: RankRow) -> str:
    """The scores and the verdict, in a line."""
    tests = ", ".join(f"{each.shown} at {each.name}" for each in row.tests)
    return f"{row.verdict}" + (f" ({tests})" if tests else "")


def shown(row: RankRow, published: list[RankRow]) -> dict[str, object]:
    from zoo.ranking.published import standing

    found = standing(row, published)
    score, beyond = row.score, row.beyond
    return {
        "task": row.task.removeprefix("task:"),
        "cell": row.cell,
        "as trained": None if score is None else f"{score:.3f}",
        "beyond": None if beyond is None else f"{beyond:.3f}",
        "verdict": row.verdict,
        "place": None if found.best is None else f"{found.place} of {found.among}",
        "best": None if found.best is None else found.best.cell,
    }
