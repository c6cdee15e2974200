"""Pages of interactive charts, drawn by Plotly, that open without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from zoo.errors import UsageError
from zoo.files import write_atomically


def load_charts() -> Any:
    """`plotly.graph_objects`. UsageError where it is not installed."""
    try:
        import plotly.graph_objects as charts
    except ModuleNotFoundError:
        raise UsageError(
            'the page needs Plotly; install it with: pip install "recurrent-zoo[rank]"'
        ) from None
    return charts


def write_charts(title: str, charts: Sequence[Any], path: Path) -> None:
    """Writes a page with a title and these charts below each other."""
    from plotly.io import to_html

    parts = [
        to_html(chart, full_html=False, include_plotlyjs=number == 0)
        for number, chart in enumerate(charts)
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<body style="font-family: sans-serif; margin: 2em">\n'
        f"<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    write_atomically(path, page.encode())
