"""The speeds of a benchmark beneath the machine's limits: a roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.benchmarking.benchmark import Row
from zoo.benchmarking.probes import PRODUCT
from zoo.benchmarking.roofline import Limits, Target, Work
from zoo.benchmarking.workloads import COMPILED, FORWARD, LOOP, WINDOW
from zoo.errors import UsageError
from zoo.files import write_atomically
from zoo.inference.artifact import GENERATE, SEQUENCE, STEP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"fp32": "#2b6cb0", "fp16": "#2f855a", "int8": "#c05621"}
MARKERS = {
    GENERATE: "*",
    STEP: "o",
    SEQUENCE: "D",
    LOOP: "v",
    COMPILED: "^",
    FORWARD: "s",
    PRODUCT: "_",
}
SIZES = {"*": 130, "_": 150}
MARGIN = 3.0  # around what is drawn, as a factor


def draw_roofline(
    rows: Sequence[Row], work: Work | None, limits: Sequence[Limits], path: Path, title: str
) -> None:
    """Draws a PNG with a panel for each target: operations per second against operations per byte,
    both logarithmic. Each precision has its roof. Each workload is a point beneath it, above its
    batch size ("16×64" where 64 tokens of 16 rows are read at once). UsageError where no limits
    were measured."""
    if work is None or not limits:
        raise UsageError("no limits were measured, so there is no roofline to draw.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    targets = list(dict.fromkeys(limit.target for limit in limits))
    figure = Figure(figsize=(1.0 + 6.2 * len(targets), 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(targets), sharex=True, sharey=True, squeeze=False)[0]
    shown = [row for row in rows if row.operations_per_byte is not None]
    for target, axes in zip(targets, panels, strict=True):
        roofs = {limit.precision: limit for limit in limits if limit.target == target}
        _draw_panel(axes, target, [row for row in shown if row.target == target], roofs, work)
    figure.suptitle(
        f"{title}\nat the bottom: texts together, times the tokens of each that are read at once",
        size=10,
    )
    names = [name for name in MARKERS if any(_kind(row) == name for row in shown)]
    precisions = list(dict.fromkeys(limit.precision for limit in limits))
    figure.legend(
        handles=[*_marker_handles(names), *_colour_handles(precisions)],
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=9,
    )
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, picture.getvalue())


def _draw_panel(
    axes: Axes, target: Target, rows: Sequence[Row], roofs: Mapping[str, Limits], work: Work
) -> None:
    per_token = 2e-9 * work.multiply_adds
    columns: dict[float, Row] = {}
    for row in rows:
        assert row.operations_per_byte is not None
        assert row.tokens_per_second is not None
        marker = MARKERS[_kind(row)]
        axes.scatter(
            row.operations_per_byte,
            row.tokens_per_second * per_token,
            marker=marker,
            s=SIZES.get(marker, 42),
            color=COLOURS.get(row.precision, "0.4"),
            alpha=0.85,
            linewidths=2.0 if marker == "_" else 0.5,
            edgecolors=None if marker == "_" else "white",
            zorder=3,
        )
        columns[row.operations_per_byte] = row
    low, high = min(columns) / MARGIN, max(columns) * MARGIN
    for precision, roof in roofs.items():
        colour = COLOURS.get(precision, "0.4")
        ridge = 2 * roof.multiply_adds_per_second / roof.bytes_per_second
        xs = sorted({low, min(max(ridge, low), high), high})
        axes.plot(xs, [1e-9 * roof.operations_per_second(x) for x in xs], color=colour, zorder=2)
        axes.text(
            high,
            2.15e-9 * roof.multiply_adds_per_second,
            f"{precision}: {2e-9 * roof.multiply_adds_per_second:,.0f} GFLOP/s, "
            f"{1e-9 * roof.bytes_per_second:.3g} GB/s ",
            color=colour, size=8.5, ha="right", va="bottom",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(low, high), title=str(target))
    axes.set(xlabel="operations per byte of memory", ylabel="GFLOP/s in matrix products")
    axes.set_ylim(bottom=axes.get_ylim()[0] / MARGIN)  # for the batch sizes
    for x, row in columns.items():
        axes.axvline(x, color="0.92", linewidth=0.8, zorder=0)
        text, height = (f"{row.batch}×{WINDOW}", 0.015) if row.reads else (f"{row.batch}", 0.055)
        axes.text(x, height, text, transform=axes.get_xaxis_transform(), size=8, ha="center",
                  color=COLOURS.get(row.precision, "0.4"),
                  bbox={"pad": 0.5, "color": "white"})  # fmt: skip
    axes.grid(visible=True, which="major", axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    scale = np.float64(per_token)
    tokens = axes.secondary_yaxis(
        "right", functions=(partial(np.multiply, 1 / scale), partial(np.multiply, scale))
    )
    tokens.set_ylabel("tokens per second")


def _kind(row: Row) -> str:
    """The workload without its precision."""
    return row.workload.removesuffix(f" {row.precision}")


def _marker_handles(names: Sequence[str]) -> list[object]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], linestyle="", marker=MARKERS[name], color="0.35", label=name,
               markersize=11 if MARKERS[name] in SIZES else 7,
               markeredgewidth=2 if name == PRODUCT else 0.5)
        for name in names
    ]  # fmt: skip


def _colour_handles(precisions: Sequence[str]) -> list[object]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=COLOURS.get(name, "0.4"), label=f"limit in {name}")
        for name in precisions
    ]
