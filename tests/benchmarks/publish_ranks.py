"""Publishes what `zoo rank` gave: the rows that a cell of one's own is compared with, the picture
and the table of the page of tasks.

    zoo rank "CELL,…" --tasks "TASK,…" --out FOLDER
    python tests/benchmarks/publish_ranks.py FOLDER

Rows that were published before stay, unless FOLDER has them too, or the task's trial has changed.
`cp zoo/ranking/published.jsonl FOLDER/rank.jsonl` beforehand makes `zoo rank` leave them out. Their
seconds are not published: cells are trained beside each other.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from zoo.ranking.picture import Map, draw_ranks, short
from zoo.ranking.published import PUBLISHED, published_rows
from zoo.ranking.ranks import RankRow, read_ranks, write_ranks, write_table
from zoo.ranking.runner import choose_tasks
from zoo.registry.registry import load_registry

DOCS = Path(__file__).parents[2] / "docs"
PAGE, TABLE = DOCS / "reference" / "tasks.md", DOCS / "ranking" / "tasks.csv"
PICTURE = DOCS / "ranking" / "tasks.png"
PLACE = re.compile(r"(<!-- ranks -->\n).*?(<!-- end of ranks -->)", re.DOTALL)


def lines(rows: list[RankRow]) -> str:
    """A table of percents: as in training, and beyond."""
    shown = Map(rows)
    first, beyond = shown.scores

    def cell(name: str, task: str) -> str:
        found = [scores.get((name, task)) for scores in (first, beyond)]
        return " / ".join(f"{100 * each:.0f}" for each in found if each is not None)

    heads = ["cell", *(f"`{short(task)}`" for task in shown.tasks)]
    table = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    table += [
        f"| `{name}` | {' | '.join(cell(name, task) for task in shown.tasks)} |"
        for name in shown.cells
    ]
    return "\n".join(table)


def main(folder: Path) -> None:
    known = {row.key: row for row in published_rows()}
    for row in read_ranks(folder / "rank.jsonl"):
        known[row.key] = row.model_copy(update={"seconds": 0.0})
    batches = {named.name: count for named, count in choose_tasks("*", load_registry())}
    current = [key for key, row in known.items() if row.batches == batches[row.task]]
    rows = [known[key] for key in sorted(current)]
    write_ranks(rows, PUBLISHED)
    write_table(rows, TABLE)
    draw_ranks(rows, PICTURE)
    page, count = PLACE.subn(rf"\1{lines(rows)}\n\2", PAGE.read_text("utf-8"))
    assert count == 1, f"{PAGE} has no place for the table"
    PAGE.write_text(page, "utf-8")
    print(f"{len(rows)} rows are published")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
