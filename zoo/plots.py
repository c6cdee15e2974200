"""The pictures: curves of runs, the speeds of a benchmark, the cells of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from zoo.checkpoint import write_atomically
from zoo.errors import UsageError
from zoo.records import Record
from zoo.run import PLOT, Run

if TYPE_CHECKING:
    from zoo.benchmark import Row
    from zoo.sweep_table import Row as SweepRow

HEADINGS = ("writing", "reading")
CPU_COLOURS, CUDA_COLOUR = ("#9ecae1", "#3182bd"), "#e6550d"
FEW_POINTS = 40  # of a curve: each is marked
FARTHEST = 2.0  # times the best bits
SMALL: dict[str, Any] = {"size": 7, "va": "center", "color": "0.3"}


def draw_perplexity(run: Run) -> None:
    """Draws `perplexity.png` from the run's metrics."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    lines = run.metrics()
    if not lines:
        return
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    tokens = [line["tokens"] / 1e6 for line in lines]
    marker = "." if len(lines) <= FEW_POINTS else ""
    training = [line["train_perplexity"] for line in lines]
    axes.plot(tokens, training, marker=marker, label="training")
    held_out: list[Any] = [line["held_out_perplexity"] for line in lines]
    if any(value is not None for value in held_out):
        axes.plot(tokens, held_out, marker=marker, label="held out")
        best = min(held_out)
        bits = lines[held_out.index(best)]["held_out_bits_per_char"]
        label = f"best, {best:.3g} ({bits:.3f} bits per character)"
        place = tokens[held_out.index(best)], best
        axes.plot(*place, "o", color="tab:orange", fillstyle="none", markersize=9, label=label)
    axes.set(xlabel="million tokens", ylabel="perplexity", yscale="log", title=run.path.name)
    for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_format(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 1)))
    axes.grid(which="both", alpha=0.25)
    axes.legend()
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(run.path / PLOT, picture.getvalue())


def draw_speeds(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draws the speeds of a benchmark as a PNG: a panel for each batch size, a bar for each way and
    place, and on it a line from the slowest round to the fastest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    batches = list(dict.fromkeys(row.batch for row in rows))
    places = list(dict.fromkeys(row.place for row in rows))
    colours = dict(zip((p for p in places if p.provider == "cpu"), CPU_COLOURS, strict=False))
    thickness = 0.8 / len(places)
    labels = _labels(rows)
    columns = min(3, len(batches))
    lines = math.ceil(len(batches) / columns)
    height = 1.4 + lines * (0.5 + len(labels) * (0.14 + 0.2 * len(places)))
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
            bars = [other.place for other in here if other.way == row.way]
            aside = bars.index(row.place) - (len(bars) - 1) / 2
            y = labels.index(row.way) + aside * thickness
            speed, text = row.tokens_per_second, " not measured"
            if speed is not None:
                colour = colours.get(row.place, CUDA_COLOUR)
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
    handles = [Patch(color=colours.get(place, CUDA_COLOUR), label=str(place)) for place in places]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(places), frameon=False)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, picture.getvalue())


def _labels(rows: Sequence[Row]) -> list[str]:
    """The ways from top to bottom, under a heading for each kind."""
    found = []
    for reads, heading in enumerate(HEADINGS):
        if ways := dict.fromkeys(row.way for row in rows if row.reads == bool(reads)):
            found += [heading, *ways]
    return found


def draw_comparison(records: Sequence[Record], path: Path) -> None:
    """Draws the runs' bits per character, of the held-out text where there is one, over tokens and
    over time, to `path`. UsageError for a run that has no metrics."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for record in records:
        if not record.metrics:
            raise UsageError(f"{record.path} has no metrics to draw.")
        held_out = record.best("held_out_bits_per_char") is not None
        figure_name = "held_out_bits_per_char" if held_out else "train_bits_per_token"
        lines = [line for line in record.metrics if line.get(figure_name) is not None]
        bits = [line[figure_name] for line in lines]
        label = f"{record.path.name} ({min(bits):.3f})"
        left.plot([line["tokens"] / 1e6 for line in lines], bits, label=label)
        right.plot([line["seconds"] / 60 for line in lines], bits, label=label)
    left.set(xlabel="million tokens", ylabel="bits per character")
    right.set(xlabel="minutes")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    right.legend(title="best", fontsize="small")
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(path, picture.getvalue())


def draw_sweep(rows: Sequence[SweepRow], path: Path) -> None:
    """Draws the cells of a sweep, the best above: bits per character on the left, of the held-out
    text where there is one, and the speed of training on the right, as it was measured or else in
    the runs; a dot for the mean of a cell's runs, and a line for each. Twice the best bits are the
    edge, where those that are farther off stand as a triangle. Cells that see the future stand
    apart, as their bits are others."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    causal = {row.cell: row.causal for row in rows}
    held_out = any(row.held_out_bits_per_char is not None for row in rows)
    bits_name = "held_out_bits_per_char" if held_out else "train_bits_per_char"
    bits = {cell: _values(rows, cell, bits_name) for cell in causal}
    measured = {cell: _values(rows, cell, "training_tokens_per_second") for cell in causal}
    in_runs = {cell: _values(rows, cell, "tokens_per_second") for cell in causal}
    # those of a quiet and of a busy machine do not belong on one axis
    speeds = measured if all(measured[cell] for cell in causal if causal[cell]) else in_runs
    order = sorted(
        causal, key=lambda cell: (not causal[cell], fmean(bits[cell]) if bits[cell] else math.inf)
    )
    figure = Figure(figsize=(10, 1.3 + 0.21 * len(order)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    # one run that diverged would press all others together
    best = bits[order[0]] if order else []
    edge = FARTHEST * fmean(best) if best else math.inf
    panels_values = (bits, "{:.3f}", "#3182bd", edge), (speeds, "{:,.0f}", "#e6550d", math.inf)
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
    label = f"bits per character, {'held-out text' if held_out else 'training'}"
    hollow = "" if all(causal.values()) else "\n(hollow: of the masked tokens)"
    left.set_xlabel(label + hollow)
    right.set_xlabel("tokens per second in training")
    if any(speeds.values()):
        right.set_xscale("log")
        right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        right.xaxis.set_minor_formatter(NullFormatter())
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(path, picture.getvalue())


def _values(rows: Sequence[SweepRow], cell: str, figure: str) -> list[float]:
    found = (getattr(row, figure) for row in rows if row.cell == cell)
    return [value for value in found if value is not None]
