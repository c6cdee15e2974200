"""The cells of a sweep as a page: what each reaches against what it costs, and its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from zoo.charts import load_charts, write_charts
from zoo.runs.metadata import read_metrics
from zoo.sweeps.table import Figure, Row, figure_of

PAGE = "sweep.html"
CURVES = ("held_out_bits_per_char", "held_out_accuracy", "held_out_error")


class Cost(NamedTuple):
    """A column of what a cell costs, in words."""

    column: str
    label: str


COSTS = (
    Cost("training_tokens_per_second", "training, tokens a second, measured"),
    Cost("tokens_per_second", "training, tokens a second, in the runs"),
    Cost("generate_tokens_per_second", "generating, tokens a second"),
    Cost("generate_int8_tokens_per_second", "generating in int8, tokens a second"),
    Cost("state_bytes", "bytes of state"),
    Cost("file_bytes", "bytes of the file"),
    Cost("file_int8_bytes", "bytes of the int8 file"),
    Cost("parameters", "parameters"),
    Cost("year", "year of the paper"),
)


def write_page(title: str, rows: Sequence[Row], path: Path, runs: Path | None = None) -> None:
    """Writes a page with a chart of the cells, each with its figures, and, where the folder of the
    `runs` is given, their curves. UsageError where Plotly is missing."""
    charts = load_charts()
    shown = [_against_costs(charts, rows)]
    if runs is not None:
        shown.append(_curves(charts, {row: read_metrics(runs / row.run) for row in rows}))
    write_charts(title, shown, path)


def _against_costs(charts: Any, rows: Sequence[Row]) -> Any:
    """A point for each cell, the mean of its runs; hollow for a non-causal one, whose figures are
    of masked tokens. A menu chooses what they are drawn against."""
    figure = figure_of(rows)
    cells = {
        cell: own
        for cell in sorted({row.cell for row in rows})
        if (own := [r for r in rows if r.cell == cell and getattr(r, figure.column) is not None])
    }
    costs = [
        cost for cost in COSTS
        if any(getattr(row, cost.column) is not None for own in cells.values() for row in own)
    ]  # fmt: skip
    chart = charts.Figure()
    for number, cost in enumerate(costs):
        points = {cell: own for cell, own in cells.items() if _mean(own, cost.column) is not None}
        chart.add_trace(
            charts.Scatter(
                x=[_mean(own, cost.column) for own in points.values()],
                y=[_mean(own, figure.column) for own in points.values()],
                text=list(points), mode="markers+text", textposition="top center",
                textfont={"size": 9}, visible=number == 0, showlegend=False,
                customdata=[_told(own, figure) for own in points.values()],
                marker={"symbol": ["circle" if own[0].causal else "circle-open"
                                   for own in points.values()]},
                hovertemplate="%{text}<br>%{customdata}<extra></extra>",
            )
        )  # fmt: skip
    buttons = [
        {"label": cost.label, "method": "update",
         "args": [{"visible": [cost is each for each in costs]},
                  {"xaxis.title.text": cost.label, "xaxis.type": _scale(cost)}]}
        for cost in costs
    ]  # fmt: skip
    chart.update_layout(
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"}],
        xaxis={"title": {"text": costs[0].label}, "type": _scale(costs[0])} if costs else {},
        yaxis_title=figure.label, width=1000, height=700,
    )  # fmt: skip
    return chart


def _scale(cost: Cost) -> str:
    return "linear" if cost.column == "year" else "log"


def _told(own: Sequence[Row], figure: Figure) -> str:
    first = own[0]
    values = ", ".join(str(figure.of(row)) for row in own)
    lines = [f"{values}: {figure.label}"]
    if first.parameters is not None:
        lines.append(f"{first.parameters:,} parameters, {first.layers} × {first.hidden} units")
    if first.learning_rate is not None and first.tokens is not None:
        lines.append(f"learning rate {first.learning_rate:.2g}, {first.tokens:,} tokens")
    lines += [
        f"{cost.label}: {mean:,.0f}"
        for cost in COSTS
        if cost.column not in ("parameters", "year")
        and (mean := _mean(own, cost.column)) is not None
    ]
    return "<br>".join(lines)


def _curves(charts: Any, metrics: Mapping[Row, Sequence[Mapping[str, Any]]]) -> Any:
    """What each run gets on the held-out part, by the tokens read; a click in the legend takes a
    cell out, two show it alone."""
    column = next(
        (
            column for column in CURVES
            if any(line.get(column) is not None for lines in metrics.values() for line in lines)
        ),
        CURVES[0],
    )  # fmt: skip
    chart = charts.Figure()
    told: set[str] = set()
    for row, lines in metrics.items():
        points = [(line["tokens"], line[column]) for line in lines if line.get(column) is not None]
        x, y = zip(*points, strict=True) if points else ((), ())
        chart.add_trace(
            charts.Scatter(
                x=x, y=y, name=row.cell, legendgroup=row.cell, showlegend=row.cell not in told,
                mode="lines", hovertemplate=f"{row.run}: %{{y:.4g}} at %{{x:,}}<extra></extra>",
            )
        )  # fmt: skip
        told.add(row.cell)
    chart.update_layout(
        xaxis_title="tokens of training", yaxis_title=column.replace("_", " "),
        width=1000, height=600,
    )  # fmt: skip
    return chart


def _mean(rows: Sequence[Row], column: str) -> float | None:
    values = [value for row in rows if (value := getattr(row, column)) is not None]
    return fmean(values) if values else None
