"""The cells of a sweep, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any

from zoo.files import write_atomically
from zoo.sweeps.table import Row, figure_of

FARTHEST = 2.0  # times the best bits


SMALL: dict[str, Any] = {"size": 7, "va": "center", "color": "0.3"}


def draw_sweep(rows: Sequence[Row], path: Path) -> None:
    """Draws the cells of a sweep, the best above: bits per character on the left, of the held-out
    text where there is one, or what a task has instead, and the speed of training on the right, as
    it was measured or else in the runs; a dot for the mean of a cell's runs, and a line for each.
    Twice the best bits are the edge, where those that are farther off stand as a triangle.
    Non-causal cells stand apart where their bits are others."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    causal = {row.cell: row.causal for row in rows}
    figure_shown = figure_of(rows)
    bits = {cell: _values(rows, cell, figure_shown.column) for cell in causal}
    measured = {cell: _values(rows, cell, "training_tokens_per_second") for cell in causal}
    in_runs = {cell: _values(rows, cell, "tokens_per_second") for cell in causal}
    # those of a quiet and of a busy machine do not belong on one axis
    speeds = measured if all(measured[cell] for cell in causal if causal[cell]) else in_runs
    order = sorted(
        causal,
        key=lambda cell: (
            not causal[cell],
            (-1 if figure_shown.high else 1) * fmean(bits[cell]) if bits[cell] else math.inf,
        ),
    )
    figure = Figure(figsize=(10, 1.3 + 0.21 * len(order)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    # one run that diverged would press all others together
    best = bits[order[0]] if order else []
    edge = FARTHEST * fmean(best) if best and not figure_shown.high else math.inf
    panels_values = (
        (bits, figure_shown.form, "#3182bd", edge),
        (speeds, "{:,.0f}", "#e6550d", math.inf),
    )
    for axes, (values, form, colour, most) in zip(panels, panels_values, strict=True):
        for y, cell in enumerate(order):
            if not values[cell]:
                axes.text(0.01, y, "no figure", transform=axes.get_yaxis_transform(), **SMALL)
                continue
            mean, filled = fmean(values[cell]), colour if causal[cell] else "white"
            shown = [min(value, most) for value in values[cell]]
            axes.plot(shown, [y] * len(shown), "|", color=colour, markersize=9)
            dot = "o" if mean <= most else ">"
            axes.plot(min(mean, most), y, dot, color=colour, markerfacecolor=filled, markersize=5)
            place = max(shown), y
            axes.annotate(form.format(mean), place, (6, 0), textcoords="offset points", **SMALL)
        axes.margins(x=0.12)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", which="both", labelsize=8, labeltop=len(order) > 30)
    left, right = panels
    left.set_yticks(range(len(order)), order, size=8)
    left.set_ylim(len(order) - 0.4, -0.6)
    of_texts = figure_shown.column.endswith("per_char") and not all(causal.values())
    hollow = "\n(hollow: of the masked tokens)" if of_texts else ""
    left.set_xlabel(figure_shown.label + hollow)
    right.set_xlabel("tokens per second in training")
    if any(speeds.values()):
        right.set_xscale("log")
        right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        right.xaxis.set_minor_formatter(NullFormatter())
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(path, picture.getvalue())


def _values(rows: Sequence[Row], cell: str, figure: str) -> list[float]:
    found = (getattr(row, figure) for row in rows if row.cell == cell)
    return [value for value in found if value is not None]
