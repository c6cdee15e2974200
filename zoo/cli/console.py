"""Printing: tables to standard output, notes to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def note(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Minutes and seconds: "1:05"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def print_rows(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Rows with the same keys: as JSON, as a table on a terminal, as aligned plain columns else."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        note("nothing to show; `zoo plugins` says what was found")
        return
    cells = [[_text(value) for value in row.values()] for row in rows]
    header = [key.replace("_", " ") for key in rows[0]]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*header, box=None, pad_edge=False)
        for line in cells:
            table.add_row(*line)
        Console().print(table, markup=False)
        return
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for line in [header, *cells]:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
