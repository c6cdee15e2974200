"""The curves of runs, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from zoo.errors import UsageError
from zoo.files import write_atomically
from zoo.runs.metadata import Record
from zoo.runs.run import PLOT, Run

ACCURACY = "accuracy in validation"
# what runs are compared by, the first that all of them have
COMPARED = {
    "bits per character": ("held_out_bits_per_char", "train_bits_per_char"),
    "mean squared error in validation": ("held_out_error",),
    ACCURACY: ("held_out_accuracy",),
}
FEW_POINTS = 40  # of a curve: each is marked


def draw_perplexity(run: Run) -> None:
    """Draws `perplexity.png` from the run's metrics: errors where a task asks for numbers."""
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
    kind = "error" if lines[0].get("train_error") is not None else "perplexity"
    training = [line[f"train_{kind}"] for line in lines]
    axes.plot(tokens, training, marker=marker, label="train")
    held_out: list[Any] = [line[f"held_out_{kind}"] for line in lines]
    if any(value is not None for value in held_out):
        axes.plot(tokens, held_out, marker=marker, label="validation")
        best = min(held_out)
        bits = lines[held_out.index(best)].get("held_out_bits_per_char")
        label = f"best, {best:.3g}" + ("" if bits is None else f" ({bits:.3f} bits/char)")
        place = tokens[held_out.index(best)], best
        axes.plot(*place, "o", color="tab:orange", fillstyle="none", markersize=9, label=label)
    axes.set(xlabel="million tokens", ylabel=kind, yscale="log", title=run.path.name)
    for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_format(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 1)))
    axes.grid(which="both", alpha=0.25)
    axes.legend()
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(run.path / PLOT, picture.getvalue())


def compared_lines(
    record: Record, names: Sequence[str] = COMPARED["bits per character"]
) -> tuple[list[dict[str, Any]], list[float]]:
    """The lines of a run's metrics that have the first of these figures that any has, and these: of
    the held-out part, or of training for a run without one. None of either for a run that has
    none of them."""
    for name in names:
        lines = [line for line in record.metrics if line.get(name) is not None]
        if lines:
            return lines, [line[name] for line in lines]
    return [], []


def draw_comparison(records: Sequence[Record], path: Path) -> None:
    """Draws the runs' bits per character, of the held-out text where there is one, over tokens and
    over time, to `path`; of runs of tasks their accuracy, or error. UsageError for runs that have
    no figure in common."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kind = next(
        (kind for kind, names in COMPARED.items()
         if all(compared_lines(record, names)[0] for record in records)), None
    )  # fmt: skip
    if kind is None:
        alone = next((r for r in records if not r.metrics), None)
        raise UsageError(
            f"{alone.path} has no metrics to draw."
            if alone is not None
            else "the runs have no figure in common; compare runs of texts, or of one kind of task."
        )
    best = max if kind == ACCURACY else min
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for record in records:
        lines, bits = compared_lines(record, COMPARED[kind])
        label = f"{record.path.name} ({best(bits):.4g})"
        left.plot([line["tokens"] / 1e6 for line in lines], bits, label=label)
        right.plot([line["seconds"] / 60 for line in lines], bits, label=label)
    left.set(xlabel="million tokens", ylabel=kind)
    right.set(xlabel="minutes")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    right.legend(title="best", fontsize="small")
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(path, picture.getvalue())
