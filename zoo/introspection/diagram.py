"""The picture of a dataflow, from left to right.

Boxes stand in layers, each to the right of its sources; within a layer they are ordered so that few
lines cross, by barycentres, and a line has a place of its own in every layer that it passes
(Sugiyama, Tagawa and Toda 1981).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import IO, Any, TypeAlias

from zoo.errors import UsageError
from zoo.files import write_atomically
from zoo.introspection.dataflow import Box, dataflow
from zoo.registry.cell_spec import CellSpec
from zoo.registry.registry import Registry

Stop: TypeAlias = Any  # a Box, or a place in a layer that a line passes: the pair (source, layer)
Point: TypeAlias = tuple[float, float]

FORMATS = "png", "svg", "pdf"
SWEEPS = 40
ACROSS, DOWN = 1.05, 0.56  # inches between layers, and between boxes of a layer
HEIGHT, PASSING = 0.62, 0.6  # of a box, and of a line that passes, in units of DOWN
COLOURS = {
    "in": "#f0f0f0",
    "out": "#f0f0f0",
    "gate": "#fdd49e",
    "linear": "#fee8c8",
    "bias": "#fee8c8",
    "operation": "#deebf7",
}
LINE = "0.45"
WIDEST = 13  # characters of the weights' names
VARIABLE = re.compile(r"(.+)_\{(.*)\}|([^\W\d_]+)_([^\W_]+)")


def draw_cell(spec: CellSpec, path: str | Path, registry: Registry | None = None) -> None:
    """Draws the dataflow of one step of the cell, with its default options, to `path`, whose ending
    says in which format. UsageError for another than png, svg and pdf."""
    path = Path(path)
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise UsageError(f"a picture is a .png, .svg or .pdf file, and not {path.name}.")
    picture = BytesIO()
    draw_dataflow(dataflow(spec, registry), picture, form)
    write_atomically(path, picture.getvalue())


def draw_dataflow(boxes: list[Box], file: IO[bytes], form: str) -> None:
    """Draws the boxes into the file, in one of the FORMATS."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers, lines = arrange(boxes)
    place = place_layers(layers, lines)
    heights = [y for _, y in place.values()]
    figure = Figure(figsize=(ACROSS * len(layers), DOWN * (max(heights) - min(heights) + 1.2)))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5, len(layers) - 0.5), ylim=(max(heights) + 0.6, min(heights) - 0.6))
    axes.axis("off")
    for line in lines:
        _draw_line(axes, line, place)
    for box in boxes:
        _draw_box(axes, box, *place[box])
    figure.savefig(file, format=form, dpi=150, bbox_inches="tight", pad_inches=0.05)


def _draw_line(axes: Any, line: list[Stop], place: Mapping[Stop, Point]) -> None:
    """A smooth curve through the places of the line, and the tip of an arrow at its end."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    points = [place[stop] for stop in line]
    points[0] = points[0][0] + _width(line[0]) / 2, points[0][1]
    points[-1] = points[-1][0] - _width(line[-1]) / 2, points[-1][1]
    inner = [(d - b) / (c - a) for (a, b), (c, d) in zip(points, points[2:], strict=False)]
    slopes = [0.0, *inner, 0.0]
    vertices, codes = [points[0]], [Curve.MOVETO]
    for ((x, y), slope), ((to_x, to_y), to_slope) in pairwise(zip(points, slopes, strict=True)):
        third = (to_x - x) / 3
        vertices += [(x + third, y + slope * third), (to_x - third, to_y - to_slope * third)]
        vertices += [(to_x, to_y)]
        codes += [Curve.CURVE4] * 3
    axes.add_patch(PathPatch(Curve(vertices, codes), fill=False, color=LINE, lw=1, zorder=1))
    x, y = points[-1]
    tip = {"arrowstyle": "-|>", "color": LINE, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (x, y), (x - 0.02, y), zorder=3, arrowprops=tip)


def _draw_box(axes: Any, box: Box, x: float, y: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    width, weights = _width(box), _weights(box)
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - HEIGHT / 2),
            width,
            HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.12",
            mutation_aspect=ACROSS / DOWN,
            facecolor=COLOURS[box.kind],
            edgecolor="0.4",
            lw=0.8,
            zorder=2,
        )
    )
    centred = {"ha": "center", "va": "center", "zorder": 4, "math_fontfamily": "dejavuserif"}
    labels = ", ".join(_mathematics(name) for name in box.label.split(", "))
    axes.text(x, y - (0.11 if weights else 0), labels, size=9, **centred)
    named = ", ".join(_mathematics(name) for name in weights)
    axes.text(x, y + 0.17, named, size=6.5, color="0.3", **centred)


def _weights(box: Box) -> list[str]:
    """The names that stand in the box, or how many there are where they do not fit."""
    fits = len(_plain(", ".join(box.weights))) <= WIDEST
    if fits or not box.weights:
        return box.weights
    return [f"{len(box.weights)} weight{'s' if len(box.weights) > 1 else ''}"]


def _plain(name: str) -> str:
    return re.sub(r"[_{}]", "", name)


def _mathematics(name: str) -> str:
    """A name with a subscript as one; any other text as it is."""
    found = VARIABLE.fullmatch(name)
    if not found:
        return name
    base, subscript = found[1] or found[3], found[2] or found[4]
    if len(base) > 1:
        base = r"\mathrm{" + base.replace("_", r"\_") + "}"
    return f"${base}_{{{subscript}}}$"


def _width(stop: Stop) -> float:
    """Of a box, in units of ACROSS."""
    if not isinstance(stop, Box):
        return 0.0
    label, weights = len(_plain(stop.label)), len(_plain(", ".join(_weights(stop))))
    return min(0.84, max(0.34, 0.085 * label + 0.15, 0.056 * weights + 0.1))


def arrange(boxes: list[Box]) -> tuple[list[list[Stop]], list[list[Stop]]]:
    """The layers from left to right, and each line as the stops it makes."""
    depth: dict[Box, int] = {}
    for box in boxes:
        depth[box] = 1 + max((depth[source] for source in box.sources), default=-1)
    last = max(depth.values())
    for box in boxes:
        later = [depth[other] for other in boxes if box in other.sources]
        if box.kind == "out":
            depth[box] = last
        elif box.kind == "in" and later:
            depth[box] = min(later) - 1
    layers: list[list[Stop]] = [[] for _ in range(last + 1)]
    for box in boxes:
        layers[depth[box]].append(box)
    lines = []
    for box in boxes:
        for source in box.sources:
            passed = [(source, layer) for layer in range(depth[source] + 1, depth[box])]
            for stop in passed:
                if stop not in layers[stop[1]]:
                    layers[stop[1]].append(stop)
            lines.append([source, *passed, box])
    return layers, lines


def place_layers(layers: list[list[Stop]], lines: list[list[Stop]]) -> dict[Stop, Point]:
    """Where everything stands: x is the layer, and y grows downwards. Sorts the layers."""
    before: dict[Stop, set[Stop]] = {stop: set() for layer in layers for stop in layer}
    after: dict[Stop, set[Stop]] = {stop: set() for stop in before}
    for line in lines:
        for left, right in pairwise(line):
            before[right].add(left)
            after[left].add(right)
    around = {stop: before[stop] | after[stop] for stop in before}
    y = {stop: float(place) for layer in layers for place, stop in enumerate(layer)}

    def pull(layer: list[Stop], near: Mapping[Stop, set[Stop]]) -> dict[Stop, float]:
        return {s: fmean([y[other] for other in near[s]]) if near[s] else y[s] for s in layer}

    for _ in range(SWEEPS):
        for in_turn, near in ((layers, before), (layers[::-1], after)):
            for layer in in_turn:
                wanted = pull(layer, near)
                layer.sort(key=wanted.__getitem__)
                y.update(_apart(layer, wanted))
    for _ in range(SWEEPS):  # the order stands; now straighten
        for layer in layers:
            y.update(_apart(layer, pull(layer, around)))
    return {stop: (float(x), y[stop]) for x, layer in enumerate(layers) for stop in layer}


def _apart(layer: list[Stop], wanted: Mapping[Stop, float]) -> dict[Stop, float]:
    """Each where it is wanted, or as near as its neighbours allow: those that touch stand together
    around the mean of what they want."""
    groups: list[tuple[float, list[Stop]]] = []  # each with where its room begins
    for stop in layer:
        start, group = wanted[stop] - _room(stop) / 2, [stop]
        while groups and groups[-1][0] + sum(map(_room, groups[-1][1])) > start:
            group = groups.pop()[1] + group
            offsets = [sum(map(_room, group[:place])) for place in range(len(group))]
            start = fmean(
                [wanted[s] - _room(s) / 2 - o for s, o in zip(group, offsets, strict=True)]
            )
        groups.append((start, group))
    found = {}
    for start, group in groups:
        for stop in group:
            found[stop] = start + _room(stop) / 2
            start += _room(stop)
    return found


def _room(stop: Stop) -> float:
    return 1.0 if isinstance(stop, Box) else PASSING
