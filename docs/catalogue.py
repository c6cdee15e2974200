"""The page of all cells, made from their cards when the documentation is built."""

import html
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

import zoo
from zoo.cli.show import COSTS, REFERENCE
from zoo.introspection.cost import cost_at, cost_formulas
from zoo.introspection.dataflow import Box, dataflow
from zoo.introspection.diagram import draw_dataflow
from zoo.introspection.state import describe_state
from zoo.ranking.page import write_page as write_ranking
from zoo.ranking.published import published_rows
from zoo.sweeps.page import write_page as write_sweep
from zoo.sweeps.table import Row, read_rows
from zoo.tasks import NamedTask, find_task, measure_baselines

HERE = Path(__file__).parent
EQUATIONS, DATAFLOWS = "_equations", "_dataflows"
RANKING, LEADERBOARD = "ranking", "leaderboard"
FEWEST, MOST = 3, 24  # operations of a step that is worth drawing
SIZE, LINE = 11, 0.27  # points, and inches from line to line
ACCENTS = {"\u0303": "tilde", "\u0302": "hat", "\u0304": "bar", "\u0307": "dot", "\u0308": "ddot"}
TOKEN = re.compile(
    r"(?P<script>[_^])(?:\{(?P<group>[^{}]*)\}|(?P<run>\([^()]*\)|-?[A-Za-z0-9\u0370-\u03ff]+(?:_[a-z0-9]+)*))"
    r"|(?P<letter>[^\W\d_])(?P<accent>[\u0302-\u0308])"
    r"|(?P<word>[A-Za-z]{2,})"
    r"|(?P<other>.)"
)


def to_mathtext(line: str) -> str:
    """A line of a card as Matplotlib's mathematics. What stands apart by three spaces or more is
    another equation, or, without a sign of equality, a remark in upright letters."""
    parts = [
        _mathematics(part) if not place or "=" in part else f"\\mathrm{{{_plain(part)}}}"
        for place, part in enumerate(re.split(r"   +", line.strip()))
    ]
    return "$" + r"\qquad ".join(parts) + "$"


def _mathematics(text: str) -> str:
    """Subscripts, superscripts and accents as TeX has them, words of several letters upright; all
    other signs stand for themselves."""
    found = []
    for token in TOKEN.finditer(unicodedata.normalize("NFD", text)):
        if script := token["script"]:
            within = token["group"] or token["run"].replace("_", ", ")
            found.append(f"{script}{{{_mathematics(within)}}}")
        elif accent := token["accent"]:
            found.append(f"\\{ACCENTS[accent]}{{{token['letter']}}}")
        elif word := token["word"]:
            found.append(f"\\mathrm{{{word}}}")
        else:
            found.append(_plain(token["other"]))
    return "".join(found)


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    return re.sub(r"([%$#&{}_^ ])", r"\\\1", text).replace("√", r"\sqrt{\,}").replace("ᵀ", "^{T}")


def draw_equations(lines: tuple[str, ...], path: Path) -> None:
    """Raises ValueError for a line that is no mathematics."""
    figure = Figure(figsize=(7, LINE * (len(lines) + 0.3)))
    for number, line in enumerate(lines):
        y = 1 - (number + 0.7) / (len(lines) + 0.3)
        figure.text(0.005, y, to_mathtext(line), size=SIZE, math_fontfamily="dejavuserif")
    figure.savefig(path, transparent=False, bbox_inches="tight", pad_inches=0.06)


def catalogue() -> str:
    """Every registered cell in Markdown, by year."""
    registry = zoo.load_registry()
    specs = sorted(zoo.list_cells(registry=registry), key=lambda spec: (spec.card.year, spec.name))
    lines = [
        "| cell | year | what it is | parallel over time | plugin |",
        "|---|---|---|---|---|",
    ]
    for spec in specs:
        parallel = "yes" if spec.card.parallel else ""
        plugin = registry.cells.origin(spec.name).name
        lines.append(
            f"| [`{spec.name}`](#{spec.name}) | {spec.card.year} | {_markdown(spec.card.title)} "
            f"| {parallel} | {plugin} |"
        )
    return "\n\n".join(["\n".join(lines), *(_entry(spec, registry) for spec in specs)])


def _entry(spec: zoo.CellSpec, registry: zoo.registry.Registry) -> str:
    card = spec.card
    formulas = cost_formulas(spec, registry)
    example = cost_at(spec, REFERENCE, REFERENCE, registry)
    alternative = html.escape("\n".join(card.equations), quote=True).replace("\n", "&#10;")
    parts = [
        f"({spec.name})=\n## {spec.name}",
        f"**{_markdown(card.title)}.** {_markdown(card.authors)} ({card.year}). "
        f"{_markdown(card.paper)}.",
        f'<img class="equations" src="../{EQUATIONS}/{spec.name}.svg" alt="{alternative}">',
        _dataflow(spec),
        "| state | shape | |\n|---|---|---|\n"
        + "\n".join(
            f"| `{leaf.name}` | `{leaf.shape}` | {_markdown(leaf.meaning)} |"
            for leaf in describe_state(spec, registry)
        ),
        f"| cost of a layer | | with {REFERENCE} inputs and hidden units |\n|---|---|---|\n"
        + "\n".join(
            f"| {meaning} | {formulas[name]} | {getattr(example, name):,} |"
            for name, meaning in COSTS.items()
        ),
    ]
    if options := spec.options():
        parts.append(
            "| option | default | |\n|---|---|---|\n"
            + "\n".join(
                f"| `{option.name}` | `{option.default}` "
                f"| {_markdown(option.type_name)}. {_markdown(option.help)} |"
                for option in options.values()
            )
        )
    facts = [
        "Trains in parallel over time." if card.parallel else "",
        "" if spec.causal else "Not causal.",
        f"Checked against {_markdown(card.checked_against)}." if card.checked_against else "",
        _markdown(card.notes),
        "" if card.licence == "Apache-2.0" else f"Licence of the implementation: {card.licence}.",
    ]
    return "\n\n".join([*filter(None, parts), " ".join(filter(None, facts))])


def _dataflow(spec: zoo.CellSpec) -> str:
    if not boxes_worth_drawing(spec.name):
        return ""
    alternative = f"The dataflow of a step of {spec.name}."
    return f'<img class="dataflow" src="../{DATAFLOWS}/{spec.name}.svg" alt="{alternative}">'


def leaderboard() -> str:
    """A table for each sweep whose rows are in the folder `leaderboard`, the best cell first."""
    parts = []
    for name, rows in _sweeps():
        page = f'<a href="../{LEADERBOARD}/{name}.html">As a page to point at</a>'
        parts += [f"## {name}", f"![](../{LEADERBOARD}/{name}.png)", page, _board(rows)]
    return "\n\n".join(parts) or "No sweep has been made for this page yet."


def _sweeps() -> Iterator[tuple[str, list[Row]]]:
    """The name and the rows of causal cells of each sweep in the folder."""
    for path in sorted((HERE / LEADERBOARD).glob("*.csv")):
        yield path.stem, [row for row in read_rows(path) if row.causal]


def _board(rows: Sequence[Row]) -> str:
    """The cells in order of their bits; columns in which there is no figure are left out."""
    cells: dict[str, list[Row]] = {}
    for row in rows:
        if row.held_out_bits_per_char is not None:
            cells.setdefault(row.cell, []).append(row)
    ranked = [cells[name] for name in sorted(cells, key=lambda name: _bits(cells[name]))]
    columns = {heading: [figure(own) for own in ranked] for heading, figure in COLUMNS.items()}
    columns = {heading: figures for heading, figures in columns.items() if any(figures)}
    lines = [f"| {' | '.join(columns)} |", "|---|" + "--:|" * (len(columns) - 1)]
    lines += [f"| {' | '.join(figures)} |" for figures in zip(*columns.values(), strict=True)]
    failed = sorted({row.cell for row in rows if row.error})
    said = f"\n\nFailed: {', '.join(failed)}." if failed else ""
    return "\n".join(lines) + said


def _bits(rows: Sequence[Row]) -> float:
    return fmean(row.held_out_bits_per_char for row in rows)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _bytes(value: int | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e6:.2f} MB" if value >= 100_000 else f"{value / 1e3:.1f} kB"


COLUMNS: dict[str, Callable[[list[Row]], str]] = {
    "cell": lambda own: f"[`{own[0].cell}`](cells.md#{own[0].cell})",
    "year": lambda own: str(own[0].year),
    "bits per character": lambda own: f"{_bits(own):.3f}",
    "lowest to highest": lambda own: _span([row.held_out_bits_per_char for row in own]),
    "hidden": lambda own: str(own[0].hidden),
    "learning rate": lambda own: _rate(own[0].learning_rate),
    "training, tokens/s": lambda own: _count(own[0].training_tokens_per_second),
    "generating, tokens/s": lambda own: _count(own[0].generate_tokens_per_second),
    "in int8, tokens/s": lambda own: _count(own[0].generate_int8_tokens_per_second),
    "state": lambda own: _bytes(own[0].state_bytes),
    "file": lambda own: _bytes(own[0].file_bytes),
    "int8 file": lambda own: _bytes(own[0].file_int8_bytes),
}


def _span(bits: list[float]) -> str:
    return f"{min(bits):.3f} to {max(bits):.3f}" if len(bits) > 1 else ""


def _markdown(text: str) -> str:
    """Text in which only backticks mean something to Markdown."""
    return re.sub(r"([*_<\[\]|])", r"\\\1", text)


def write_built_files(app, exception) -> None:
    """What pages show or link to and is not in the repository, beside these pages."""
    if exception is None and app.builder.name == "html":
        for folder, write in BUILT.items():
            path = Path(app.outdir) / folder
            path.mkdir(exist_ok=True)
            write(path)


def _write_equations(folder: Path) -> None:
    for spec in zoo.list_cells():
        draw_equations(spec.card.equations, folder / f"{spec.name}.svg")


def _write_dataflows(folder: Path) -> None:
    for spec in zoo.list_cells():
        if boxes := boxes_worth_drawing(spec.name):
            with (folder / f"{spec.name}.svg").open("wb") as file:
                draw_dataflow(boxes, file, "svg")


def _write_ranking(folder: Path) -> None:
    write_ranking(published_rows(), folder / "tasks.html")


def _write_leaderboards(folder: Path) -> None:
    for name, rows in _sweeps():
        write_sweep(name, rows, folder / f"{name}.html")


BUILT = {
    EQUATIONS: _write_equations,
    DATAFLOWS: _write_dataflows,
    RANKING: _write_ranking,
    LEADERBOARD: _write_leaderboards,
}


@cache
def boxes_worth_drawing(name: str) -> list[Box]:
    """The cell's dataflow; none where a reader would learn nothing from it: for a single box, or a
    wall of them."""
    spec = zoo.get_cell(name)
    boxes = dataflow(spec) if spec.causal else []
    operations = sum(box.kind not in ("in", "out") for box in boxes)
    return boxes if FEWEST <= operations <= MOST else []


def tasks() -> str:
    """Every task with its card and its baselines, in Markdown."""
    registry = zoo.load_registry()
    return "\n\n".join("\n\n".join(_task(find_task(name, registry))) for name in registry.tasks)


def _task(named: NamedTask) -> Iterator[str]:
    spec, card, interface = named.spec, named.spec.card, named.task.interface
    yield f"## {spec.name}"
    yield f"**{card.title}.** {card.authors} ({card.year}): {card.paper}."
    yield card.definition
    yield f"It measures: {card.measures[0].lower()}{card.measures[1:]}"
    if card.results:
        yield "\n".join(f"- {result}" for result in card.results)
    whole = " of whole sequences" if named.task.whole else ""
    measure = "mean squared error" if interface.gives == "numbers" else f"accuracy{whole}"
    facts = [
        f"reads {interface.inputs} {interface.reads}, gives {interface.outputs} {interface.gives}",
        f"measured by {measure}",
        f"options {_options(spec.options())}",
    ]
    if spec.full:
        facts.append(f"in the paper {_options(spec.full)}")
    if card.package:
        facts.append(f'needs `pip install "{card.package}"`')
    if card.downloads:
        facts.append("downloads its data when that is first needed")
    yield "; ".join(facts) + "."
    if card.downloads:  # a page is built without a network
        return
    lines = ["| test | constant | by position | by the last two inputs |", "|---|---|---|---|"]
    for test, *figures in measure_baselines(named):
        cells = ["" if figure is None else f"{figure:.3f}" for figure in figures]
        lines.append(f"| {test} | {' | '.join(cells)} |")
    yield "\n".join(lines)


def _options(values: Mapping[str, object]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in values.items()) or "none"
