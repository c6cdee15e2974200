"""The rows that the zoo comes with, which a cell of one's own is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.ranking.ranks import RankRow, read_ranks

PUBLISHED = Path(__file__).with_name("published.jsonl")


def published_rows() -> list[RankRow]:
    """What `zoo rank` gave for the zoo's own cells."""
    return read_ranks(PUBLISHED)


def alike(row: RankRow, others: Iterable[RankRow]) -> list[RankRow]:
    """Those whose models are as large as the row's, and were trained on as much."""
    terms = "task", "size", "layers", "batches"
    return [
        each for each in others if all(getattr(each, term) == getattr(row, term) for term in terms)
    ]


class Standing(NamedTuple):
    """Where a row stands among others that are alike: its place, among so many, and the best of the
    others. A place is that of the mean score of all tests; equals share it."""

    place: int
    among: int
    best: RankRow | None


def standing(row: RankRow, others: Sequence[RankRow]) -> Standing:
    """Among `others`, of which each cell counts once, with the mean of its seeds."""
    cells: dict[str, list[RankRow]] = {}
    for each in alike(row, others):
        if each.cell != row.cell and each.tests:
            cells.setdefault(each.cell, []).append(each)
    scores = {cell: mean_score(rows) for cell, rows in cells.items()}
    own = mean_score([row])
    better = sum(score > own for score in scores.values())
    best = max(scores, key=lambda cell: scores[cell], default=None)
    return Standing(better + 1, len(scores) + 1, cells[best][0] if best is not None else None)


def mean_score(rows: Sequence[RankRow]) -> float:
    """The mean of all tests of the rows, to two digits; 0 without any."""
    found = [test.score for row in rows for test in row.tests]
    return round(sum(found) / len(found), 2) if found else 0.0
