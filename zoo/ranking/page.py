"""The map of tasks and cells as a page: a map for each kind of test, and the curves of a task."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from zoo.charts import load_charts, write_charts
from zoo.ranking.picture import COLOURS, TITLES, Map, short
from zoo.ranking.ranks import RankRow


def page_of(picture: str) -> str:
    """The name of the page beside a picture."""
    return str(Path(picture).with_suffix(".html"))


def write_page(rows: Sequence[RankRow], path: Path) -> None:
    """Writes a page with the map, where each field tells its figures, and the learning curves of
    each task. UsageError where Plotly is missing."""
    charts = load_charts()
    shown = Map(rows)
    curves = [_curves(charts, [row for row in rows if row.task == task]) for task in shown.tasks]
    write_charts("Cells and tasks", [_heat_map(charts, rows, shown), *curves], path)


def _heat_map(charts: Any, rows: Sequence[RankRow], shown: Map) -> Any:
    figure = charts.Figure()
    told = {(row.cell, row.task): row for row in rows}
    names = [short(task) for task in shown.tasks]
    for number, (title, scores) in enumerate(zip(TITLES, shown.scores, strict=True)):
        grid = [[scores.get((cell, task)) for task in shown.tasks] for cell in shown.cells]
        texts = [[_told(told.get((cell, task))) for task in shown.tasks] for cell in shown.cells]
        figure.add_trace(
            charts.Heatmap(
                z=grid, x=names, y=shown.cells, customdata=texts, zmin=0, zmax=1,
                colorscale=COLOURS, visible=number == 0, name=title,
                hovertemplate="%{y}, %{x}: %{z:.3f}<br>%{customdata}<extra></extra>",
            )
        )  # fmt: skip
    buttons = [
        {"label": title, "method": "update",
         "args": [{"visible": [title == each for each in TITLES]}]}
        for title in TITLES
    ]  # fmt: skip
    figure.update_layout(
        updatemenus=[{"type": "buttons", "direction": "right", "buttons": buttons,
                      "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"}],
        yaxis={"autorange": "reversed", "dtick": 1}, height=220 + 20 * len(shown.cells),
        width=320 + 70 * len(names), margin={"l": 200},
    )  # fmt: skip
    return figure


def _told(row: RankRow | None) -> str:
    if row is None:
        return ""
    lines = [row.verdict, *(f"{test.name}: {test.shown}" for test in row.tests)]
    if row.parameters is not None:
        lines.append(f"{row.parameters:,} parameters, seed {row.seed}")
    return "<br>".join([*lines, escape(row.evidence)])


def _curves(charts: Any, rows: Sequence[RankRow]) -> Any:
    """What each cell gets in validation, by the batches of training."""
    figure = charts.Figure()
    for row in sorted(rows, key=lambda row: (row.cell, row.seed)):
        x, y = zip(*row.curve, strict=True) if row.curve else ((), ())
        name = row.cell if row.seed == 0 else f"{row.cell}, seed {row.seed}"
        figure.add_trace(charts.Scatter(x=x, y=y, name=name, mode="lines"))
    of_errors = any(test.error is not None for row in rows for test in row.tests)
    figure.update_layout(
        title=short(rows[0].task), xaxis_title="batches of 64 sequences", width=1000, height=500,
        yaxis_title="mean squared error in validation" if of_errors else "right in validation",
    )  # fmt: skip
    if of_errors:
        figure.update_yaxes(type="log")
    return figure
