"""Tasks and cells as a map of colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from statistics import fmean

from zoo.files import write_atomically
from zoo.ranking.ranks import RankRow

COLOURS = "viridis"
TITLES = ("as in training", "longer, or with more to keep")
DARK = 0.6  # of the colours, above which text on them is dark


class Map:
    """The mean scores of each cell and task, at the lengths of training and beyond. Cells come in
    the order of their mean, the best first, and tasks with those that most cells solve first."""

    def __init__(self, rows: Sequence[RankRow]) -> None:
        self.scores: list[dict[tuple[str, str], float]] = []
        for test in range(2):
            found: dict[tuple[str, str], list[float]] = {}
            for row in rows:
                if len(row.tests) > test:
                    found.setdefault((row.cell, row.task), []).append(row.tests[test].score)
            self.scores.append({key: fmean(values) for key, values in found.items()})
        self.cells = self._in_order({row.cell for row in rows}, 0)
        self.tasks = self._in_order({row.task for row in rows}, 1)

    def _in_order(self, names: set[str], part: int) -> list[str]:
        def mean(name: str) -> float:
            known = [
                value for one in self.scores for key, value in one.items() if key[part] == name
            ]
            return -fmean(known) if known else 0.0

        return sorted(names, key=lambda name: (mean(name), name))


def short(task: str) -> str:
    """The name of a task without its prefix and options."""
    return task.removeprefix("task:").partition(":")[0]


def draw_ranks(rows: Sequence[RankRow], path: Path) -> None:
    """Draws the map: on the left the scores at the lengths of training, on the right beyond."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = Map(rows)
    across, down = len(shown.tasks), len(shown.cells)
    figure = Figure(figsize=(3 + 2 * 0.55 * across, 2.2 + 0.24 * down), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    colours = colormaps[COLOURS].with_extremes(bad="0.93")
    for axes, title, scores in zip(panels, TITLES, shown.scores, strict=True):
        grid = [
            [scores.get((cell, task), math.nan) for task in shown.tasks] for cell in shown.cells
        ]
        axes.imshow(grid, cmap=colours, vmin=0, vmax=1, aspect="auto")
        for y, line in enumerate(grid):
            for x, value in enumerate(line):
                if not math.isnan(value):
                    colour = "black" if value > DARK else "white"
                    text = f"{100 * value:.0f}"
                    axes.text(x, y, text, ha="center", va="center", size=7, color=colour)
        axes.set_title(title, size=9)
        axes.set_xticks(range(across), map(short, shown.tasks), rotation=60, ha="right", size=8)
        axes.set_yticks(range(down), shown.cells, size=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.supxlabel("percent right, or of the error without a memory that is gone", size=8)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(path, picture.getvalue())
