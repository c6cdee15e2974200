"""Sources that are at URLs, and what messages call them. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard
from urllib.parse import urlsplit

from zoo.errors import UsageError, ZooError, printable

URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://\S*")


def is_url(source: str | Path) -> TypeGuard[str]:
    """Whether a source is at a URL, rather than a path."""
    return isinstance(source, str) and URL.match(source) is not None


def shown_url(url: str) -> str:
    """The URL as messages show it: without user, password and query, which may be secret."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{url.partition('://')[0]}://… is no URL: {error}.") from None
    query = "?…" if parts.query else ""
    return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}")


def shown_source(source: str | Path) -> str:
    """A path or URL as messages show it."""
    return shown_url(source) if is_url(source) else str(source)


@contextmanager
def errors_named_by_url(copies: Mapping[Path, str]) -> Iterator[None]:
    """Within the block, errors that name a copy name its URL instead."""
    try:
        yield
    except ZooError as error:
        message = str(error)
        for path, shown in copies.items():
            message = message.replace(str(path), shown)
        error.args = (message,)
        raise
