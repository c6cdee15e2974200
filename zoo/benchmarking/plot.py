"""The speeds of a benchmark, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from zoo.benchmarking.benchmark import Row
from zoo.files import write_atomically

HEADINGS = ("writing", "reading")


CPU_COLOURS, CUDA_COLOUR = ("#9ecae1", "#3182bd"), "#e6550d"


def draw_speeds(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draws the speeds of a benchmark as a PNG: a panel for each batch size, a bar for each
    workload and target, and on it a line from the slowest round to the fastest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    batches = list(dict.fromkeys(row.batch for row in rows))
    targets = list(dict.fromkeys(row.target for row in rows))
    colours = dict(zip((p for p in targets if p.provider == "cpu"), CPU_COLOURS, strict=False))
    thickness = 0.8 / len(targets)
    labels = _labels(rows)
    columns = min(3, len(batches))
    lines = math.ceil(len(batches) / columns)
    height = 1.4 + lines * (0.5 + len(labels) * (0.14 + 0.2 * len(targets)))
    figure = Figure(figsize=(2.2 + 3.2 * columns, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(batches) :]:
        axes.remove()
    for batch, axes in zip(batches, grid.flat, strict=False):
        here = [row for row in rows if row.batch == batch]
        speeds = [row.tokens_per_second for row in here if row.tokens_per_second is not None]
        base = 10.0 ** math.floor(math.log10(min(speeds) / 1.5))
        axes.set(xscale="log", xlim=(base, max(speeds) * 6))
        for row in here:
            bars = [other.target for other in here if other.workload == row.workload]
            aside = bars.index(row.target) - (len(bars) - 1) / 2
            y = labels.index(row.workload) + aside * thickness
            speed, text = row.tokens_per_second, " not measured"
            if speed is not None:
                colour = colours.get(row.target, CUDA_COLOUR)
                axes.barh(y, speed - base, 0.9 * thickness, left=base, color=colour)
                axes.plot([row.lowest, row.highest], [y, y], color="0.2", linewidth=1)
                text = f" {speed:,.0f}"
            axes.text(row.highest or base, y, text, va="center", size=7.5, color="0.2")
        axes.set_title(f"{batch} text{'s together' if batch > 1 else ''}", size=10)
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    for axes in grid[:, 0]:
        for tick in axes.set_yticks(range(len(labels)), labels):
            if tick.label1.get_text() in HEADINGS:
                tick.label1.set(weight="bold", color="0.2")
    grid[0, 0].set_ylim(len(labels) - 0.5, -0.3)
    figure.suptitle(f"{title}\ntokens per second", size=11)
    handles = [
        Patch(color=colours.get(target, CUDA_COLOUR), label=str(target)) for target in targets
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(targets), frameon=False)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, picture.getvalue())


def _labels(rows: Sequence[Row]) -> list[str]:
    """The workloads from top to bottom, under a heading for each kind."""
    found = []
    for reads, heading in enumerate(HEADINGS):
        if workloads := dict.fromkeys(row.workload for row in rows if row.reads == bool(reads)):
            found += [heading, *workloads]
    return found
