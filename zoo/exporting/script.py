"""Running a Python file of the user's for what it defines, with nothing left behind."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import invalidate_caches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import walk_tb
from typing import Any

from zoo.errors import one_line
from zoo.registry.locations import shown_path

NAME = "__user_script__"  # of the file as a module: nothing else is imported under it


class Script:
    """A file that is run by `running_as_a_script`, with the modules that it imports from its own
    folder."""

    def __init__(self, path: Path) -> None:
        self._path, self._before = path.resolve(), frozenset(sys.modules)
        spec = spec_from_file_location(NAME, self._path)
        assert spec is not None
        self.module = module_from_spec(spec)

    def run(self, content: bytes) -> dict[str, Any]:
        """What the file, which has this content, defines."""
        names = vars(self.module)
        exec(compile(content, str(self._path), "exec", dont_inherit=True), names)
        return names

    def imported(self) -> list[str]:
        """The names of its modules in `sys.modules`."""
        found = []
        for name, module in list(sys.modules.items()):
            known = getattr(module, "__dict__", {})
            places = [known.get("__file__"), *(known.get("__path__") or ())]
            if self._owns(name, places):
                found.append(name)
        return found

    def frames(self, error: BaseException) -> list[str]:
        """ "file:line" of the calls in its modules that the error passed, the innermost last."""
        return [
            f"{shown_path(frame.f_code.co_filename)}:{line}"
            for frame, line in walk_tb(error.__traceback__)
            if self._owns(str(frame.f_globals.get("__name__")), [frame.f_code.co_filename])
        ]

    def describe(self, error: BaseException) -> str:
        """An exception in one line: "ZeroDivisionError: division by zero, at mine.py:3"."""
        what, places = one_line(error), self.frames(error)
        if isinstance(error, SyntaxError):
            what = error.msg
            if error.filename and error.lineno:
                places = [f"{shown_path(error.filename)}:{error.lineno}"]
        place = f", at {places[-1]}" if places else ""
        return f"{type(error).__name__}: {what}{place}"

    def _owns(self, name: str, places: Iterable[Any]) -> bool:
        """Whether the module of that name is the file, or was imported from beside it."""
        first, folder = name.partition(".")[0], self._path.parent
        if first == NAME:
            return True
        if first in self._before:
            return False
        paths = [Path(place) for place in places if isinstance(place, str)]
        return any(
            path.relative_to(folder).parts[0].partition(".")[0] == first
            for path in paths
            if folder in path.parents
        )


@contextmanager
def running_as_a_script(path: Path) -> Iterator[Script]:
    """The file can run as `python FILE` would run it, but under another name than `__main__`: it
    imports from its own folder, also while the block runs. What it prints goes to standard error,
    and nothing is written beside it. Afterwards `sys` is as before."""
    script = Script(path)
    paths, arguments, without_bytecode = sys.path[:], sys.argv, sys.dont_write_bytecode
    sys.path.insert(0, str(path.resolve().parent))
    sys.argv, sys.dont_write_bytecode = [str(path.resolve())], True
    sys.modules[NAME] = script.module
    invalidate_caches()
    try:
        with redirect_stdout(sys.stderr):
            yield script
    finally:
        for name in script.imported():
            del sys.modules[name]
        sys.path[:], sys.argv, sys.dont_write_bytecode = paths, arguments, without_bytecode
