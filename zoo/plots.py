"""The pictures in a run folder."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from zoo.checkpoint import write_atomically
from zoo.run import PLOT, Run


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
    axes.plot(tokens, [line["train_perplexity"] for line in lines], label="training")
    held_out: list[Any] = [line["held_out_perplexity"] for line in lines]
    if any(value is not None for value in held_out):
        axes.plot(tokens, held_out, label="held out")
    axes.set(xlabel="million tokens", ylabel="perplexity", yscale="log", title=run.path.name)
    for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_format(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    axes.grid(which="both", alpha=0.25)
    axes.legend()
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(run.path / PLOT, picture.getvalue())
