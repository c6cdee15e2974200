"""Curves drawn with characters: eight dots of a braille pattern in each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

# The dots of a character, by row and column; their bits stand so in Unicode's braille block.
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
BLANK = 0x2800
DOT_ROWS, DOT_COLUMNS = len(DOTS), len(DOTS[0])

ROWS = 7
LEAST_WIDTH, LEAST_HEIGHT = 48, 16  # of a terminal that has room for curves


class Curve(NamedTuple):
    """Points of a rising x and a positive y, in one of rich's styles."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


def draw(
    curves: Sequence[Curve], columns: int, rows: int = ROWS
) -> tuple[list[Text], dict[str, int]]:
    """The curves in `rows` lines of `columns` characters, and the line in which each ends. The y
    axis is logarithmic and spans just them; x begins at 0. Where two curves meet in a character, it
    has the later one's style. Each has a point."""
    points = [point for curve in curves for point in curve.points]
    right = max(x for x, _ in points)
    low, high = (math.log(bound(y for _, y in points)) for bound in (min, max))
    last_column, last_row = DOT_COLUMNS * columns - 1, DOT_ROWS * rows - 1
    bits = [[0] * columns for _ in range(rows)]
    styles = [[""] * columns for _ in range(rows)]
    ends = {}
    for curve in curves:
        xs = [round(x / right * last_column) for x, _ in curve.points]
        shares = [(high - math.log(y)) / ((high - low) or 1.0) for _, y in curve.points]
        ys = [round(share * last_row) for share in shares]
        for x, y in _joined(list(zip(xs, ys, strict=True))):
            line, character = y // DOT_ROWS, x // DOT_COLUMNS
            bits[line][character] |= DOTS[y % DOT_ROWS][x % DOT_COLUMNS]
            styles[line][character] = curve.style
        ends[curve.name] = ys[-1] // DOT_ROWS
    lines = [
        Text.assemble(*((chr(BLANK + b), style) for b, style in zip(*line, strict=True)))
        for line in zip(bits, styles, strict=True)
    ]
    return lines, ends


def _joined(places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The places, and those on the straight lines from each to the next."""
    yield from places[:1]
    for (column, row), (to_column, to_row) in pairwise(places):
        steps = max(abs(to_column - column), abs(to_row - row))
        for step in range(1, steps + 1):
            share = step / steps
            yield (
                round(column + share * (to_column - column)),
                round(row + share * (to_row - row)),
            )


class PerplexityCurves:
    """What rich renders below the bar: perplexities on the training and the validation text over
    tokens, as wide as the terminal; nothing where there is no room, no braille, or less than two
    points."""

    def __init__(self) -> None:
        self._training: list[tuple[float, float]] = []
        self._held_out: list[tuple[float, float]] = []

    def add(self, tokens: int, training: float, held_out: float | None) -> None:
        self._training.append((tokens, training))
        if held_out is not None:
            self._held_out.append((tokens, held_out))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        room = width >= LEAST_WIDTH and console.height >= LEAST_HEIGHT
        if len(self._training) < 2 or not room or options.ascii_only:
            return
        curves = [
            curve
            for curve in (
                Curve("train ppl", "blue", self._training),
                Curve("val ppl", "yellow", self._held_out),
            )
            if curve.points
        ]
        values = [y for curve in curves for _, y in curve.points]
        scale = {0: f"{max(values):.3g}", ROWS - 1: f"{min(values):.3g}"}
        left = max(map(len, scale.values()))
        names = {curve.name: f"{curve.name} {curve.points[-1][1]:.3g}" for curve in curves}
        columns = width - left - max(map(len, names.values())) - 3
        lines, ends = draw(curves, columns)
        curves.sort(key=lambda curve: -curve.points[-1][1])
        legend = {
            line: (names[curve.name], curve.style)
            for line, curve in zip(_apart([ends[c.name] for c in curves]), curves, strict=True)
        }
        for number, line in enumerate(lines):
            yield Text.assemble(
                f"{scale.get(number, ''):>{left}} │", line, " ", legend.get(number, "")
            )
        tokens = f"{self._training[-1][0]:,} tokens"
        yield Text(f"{'':>{left}} └{tokens:─>{columns}}")


def _apart(lines: list[int]) -> list[int]:
    """The lines to write the names of curves in that end in `lines`: no two the same."""
    if len(lines) == 2 and lines[0] == lines[1]:
        return [lines[0], lines[0] + 1] if lines[0] < ROWS - 1 else [lines[0] - 1, lines[0]]
    return lines
