"""Where in the source something is written or was raised, as "file:line"."""

from __future__ import annotations

import inspect
from pathlib import Path
from traceback import walk_tb
from typing import Any

from zoo.errors import one_line


def describe_raised(error: BaseException, module: str) -> str:
    """An exception in one line, with the innermost file and line that lie in the package of the
    module: "ZeroDivisionError: division by zero, at mine.py:3"."""
    package = module.partition(".")[0]
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package:
            place = f", at {shown_path(frame.f_code.co_filename)}:{line}"
    return f"{type(error).__name__}: {one_line(error)}{place}"


def shown_path(file: str) -> str:
    """The path of a source file, from the current folder if it lies below that."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def defined_at(thing: Any) -> str:
    """ "file:line" where a function or class is defined; its name where that is not known."""
    thing = inspect.unwrap(thing)
    try:
        return (
            f"{shown_path(inspect.getsourcefile(thing) or '')}:{inspect.getsourcelines(thing)[1]}"
        )
    except (OSError, TypeError):
        return f"{thing.__module__}.{thing.__qualname__}"
