"""The live view of training in a terminal: curves of braille dots, worked out by hand."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import zoo
from zoo.cli.curves import Curve, PerplexityCurves, draw
from zoo.cli.live import LiveView
from zoo.cli.progress import show


def dots(line: str) -> set[tuple[int, int]]:
    """Row and column of the dots in a line of braille, by Unicode's numbering 1 to 8."""
    numbering = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1)]
    return {
        (row, 2 * index + column)
        for index, character in enumerate(line)
        for number, (row, column) in enumerate(numbering)
        if (ord(character) - 0x2800) >> number & 1
    }


def test_points_are_drawn_at_their_coordinates() -> None:
    """Four characters are 8 columns of dots, two lines 8 rows. Over x from 0 to 7 and y from 1 to
    2 ** 7 on a logarithmic axis, x = 7, y = 2 ** (7 - row) is the last column in that row."""
    points = [(float(x), 2.0 ** (7 - x)) for x in range(8)]
    lines, ends = draw([Curve("a", "red", points)], columns=4, rows=2)
    found = dots(lines[0].plain) | {(row + 4, column) for row, column in dots(lines[1].plain)}
    assert found == {(i, i) for i in range(8)}
    assert ends == {"a": 1}


def test_points_are_joined_and_the_later_curve_is_on_top() -> None:
    level = Curve("level", "red", [(2.0, 8.0), (4.0, 8.0)])
    falling = Curve("falling", "blue", [(4.0, 8.0), (4.0, 1.0)])
    lines, ends = draw([level, falling], columns=2, rows=1)
    # x = 2 of 4 is column 1.5 of 0 to 3, which rounds to the even 2
    assert dots(lines[0].plain) == {(0, 2), (0, 3), (1, 3), (2, 3), (3, 3)}
    assert [(s.start, s.end, s.style) for s in lines[0].spans if s.style] == [(1, 2, "blue")]
    assert ends == {"level": 0, "falling": 0}


def test_a_constant_curve_is_a_level_line() -> None:
    (line,), _ = draw([Curve("a", "", [(0.0, 5.0), (3.0, 5.0)])], columns=2, rows=1)
    assert dots(line.plain) == {(0, 0), (0, 1), (0, 2), (0, 3)}


def rendered(curves: PerplexityCurves, width: int, height: int = 24, **settings: object) -> str:
    output = io.StringIO()
    console = Console(
        file=output, force_terminal=True, width=width, height=height, _environ={}, **settings
    )
    console.print(curves)
    return output.getvalue()


def falling() -> PerplexityCurves:
    curves = PerplexityCurves()
    for tokens, training, held_out in ((1000, 20.0, 16.0), (2000, 8.0, 9.0), (4000, 5.0, 6.0)):
        curves.add(tokens, training, held_out)
    return curves


def test_the_plot_fits_the_terminal() -> None:
    for width in (50, 80, 133):
        lines = rendered(falling(), width, color_system=None).splitlines()
        assert len(lines) == 8
        assert max(map(len, lines)) == width
        assert lines[0].startswith("20 │")
        assert lines[6].startswith(" 5 │")
        assert lines[6].endswith(" train ppl 5")
        assert lines[5].endswith(" val ppl 6")
        assert lines[7].endswith("─4,000 tokens")
        inside = [line[4 : 4 + width - 2 - 3 - len("train ppl 5")] for line in lines[:7]]
        # 1,000 of 4,000 tokens is a quarter of the way
        first = min(column for line in inside for _, column in dots(line))
        assert first == round((2 * len(inside[0]) - 1) / 4)


def test_labels_on_the_same_line_are_written_on_two() -> None:
    curves = PerplexityCurves()
    curves.add(1, 9.0, 9.0)
    curves.add(2, 3.0, 3.01)
    lines = rendered(curves, 60, color_system=None).splitlines()
    assert lines[5].endswith("val ppl 3.01")
    assert lines[6].endswith("train ppl 3")


def test_nothing_is_drawn_without_space_or_data() -> None:
    assert rendered(falling(), 40) == ""
    assert rendered(falling(), 80, height=10) == ""
    curves = PerplexityCurves()
    assert rendered(curves, 80) == ""
    curves.add(1000, 9.0, None)
    assert rendered(curves, 80) == ""
    curves.add(2000, 8.0, None)
    assert "val ppl" not in rendered(curves, 80)


def test_colours_can_be_disabled() -> None:
    assert "\x1b[34m" in rendered(falling(), 80, color_system="standard")
    assert "\x1b[3" not in rendered(falling(), 80, color_system="standard", no_color=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def events(text_file: object) -> Iterator[object]:
    return zoo.train_events(
        str(text_file), hidden=8, epochs=3, batch_size=4, steps=8, max_tokens=2000, out="r"
    )


def test_a_terminal_shows_bar_and_curves_and_clears_them(
    events: Iterator[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", terminal)
    show(events)
    text = terminal.getvalue()
    assert "tok/s" in text
    assert "│⠀" in text
    *_, after = text.rpartition("\x1b[1A\x1b[2K")  # where the live view was cleared
    assert "s: reading" in after
    assert "\nepoch 3  train ppl" in after.replace("\r", "")
    assert "│" not in after


def test_without_a_terminal_the_output_is_plain_lines(
    events: Iterator[object], capsys: pytest.CaptureFixture[str]
) -> None:
    show(events)
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "│" not in err
    assert "the run is in r" in err


def test_a_resumed_run_shows_its_earlier_metrics(fox_run: zoo.Run) -> None:
    from zoo.training.events import Started

    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, _environ={})
    view = LiveView(console)
    view.follow(Started(fox_run, "cpu", 100, 10))
    console.print(view.curves)
    last = fox_run.metrics()[-1]
    assert f"{last['tokens']:,} tokens" in console.file.getvalue()


@pytest.mark.parametrize(
    ("settings", "column", "reason"),
    [
        ({"keep": "best"}, "held_out_bits_per_token", "(lowest validation loss)"),
        ({"keep": "best", "held_out": 0}, "train_bits_per_token", "(lowest training loss)"),
        ({"keep": "last"}, None, "(the last)"),
    ],
)
def test_the_last_line_says_which_weights_were_kept_and_why(
    settings: dict[str, object],
    column: str | None,
    reason: str,
    text_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The message names the report of the kept weights; a learning rate that is too high makes an
    early one best."""
    show(
        zoo.train_events(
            str(text_file), cell="rnn", hidden=8, epochs=6, batch_size=4, steps=8, out="r",
            max_tokens=600, learning_rate=2.0, schedule="constant", **settings,
        )
    )  # fmt: skip
    lines = zoo.load("r").metrics()
    kept = lines[-1] if column is None else min(lines, key=lambda line: line[column])
    assert (column is None) == (kept is lines[-1])
    *_, figures, message, _ = capsys.readouterr().err.splitlines()
    assert figures.startswith(f"epoch {kept['epoch']}  train ppl {kept['train_perplexity']:.3g}  ")
    assert message == f"kept the weights of epoch {kept['epoch']}, step {kept['step']} {reason}"


def test_early_stopping_is_reported(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(
        zoo.train_events(
            str(text_file), cell="rnn", hidden=8, epochs=50, batch_size=4, steps=8, out="r",
            max_tokens=600, learning_rate=2.0, patience=2,
        )
    )  # fmt: skip
    lines = zoo.load("r").metrics()
    assert len(lines) < 50
    message = capsys.readouterr().err.splitlines()[-2]
    assert message.startswith("early stopping: the validation loss stopped improving; kept the")
