"""Sequences of a task as text."""

from __future__ import annotations

from collections.abc import Iterator

from zoo.tasks.named import NamedTask
from zoo.tasks.task import Array

NOT_ASKED = "·"
MOST = 60  # steps of a sequence


def shown_sequences(named: NamedTask, count: int = 3) -> Iterator[tuple[str, str]]:
    """The first sequences of training: what is read and what is asked, step by step."""
    batch = named.training(0, 0, count)
    for row in range(count):
        wanted = [
            _shown(target) if asked else NOT_ASKED
            for target, asked in zip(batch.targets[:, row], batch.asked[:, row], strict=True)
        ]
        yield _line(list(map(_shown, batch.inputs[:, row]))), _line(wanted)


def _line(words: list[str]) -> str:
    """The words, without those in the middle of many."""
    if len(words) > MOST:
        words = [*words[: MOST // 2], "…", *words[-MOST // 2 :]]
    return " ".join(words)


def _shown(value: Array) -> str:
    if value.ndim == 0:
        return str(int(value))
    return ",".join(f"{number:.2g}" for number in value)
