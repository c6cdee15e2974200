"""What went wrong in a trace, in a sentence that names the line of the module."""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import (
    ConstraintViolationError,
    GuardOnDataDependentSymNode,
)

from zoo.errors import one_line
from zoo.registry.locations import shown_path

# Where no line of a user's module stands.
OWN_FOLDER = str(Path(__file__).parent)
FOREIGN = tuple(
    str(path)
    for path in (
        Path(torch.__file__).parent,
        Path(__file__).parent,
        Path(sysconfig.get_path("stdlib")),
        "<",
    )
)
IN_TRACE = re.compile(r'File "([^"]+)", line (\d+)')


def explain_capture(error: BaseException) -> str:
    """Why torch.export refused a module."""
    chain = list(_chain(error))
    if any(isinstance(e, GuardOnDataDependentSymNode) for e in chain):
        return (
            f"the value of a tensor decides its control flow{_place_of(chain)}; use torch.where, "
            f"and convert no tensors to Python numbers."
        )
    if any(isinstance(e, ConstraintViolationError) for e in chain) or "Constraints" in str(error):
        return one_size(_fixed_by(chain))
    return f"{type(chain[-1]).__name__}: {one_line(chain[-1])}{_place_of(chain)}"


def one_size(place: str) -> str:
    """That a module works for the traced sizes only, because of the line at `place`."""
    return (
        f"it would work for one size of the batch (or of a chunk) only"
        f"{f' because of {place}' if place else ''}; use operators on whole tensors instead of a "
        f"loop over rows (over steps: zoo_onnx.OverTime), and sizes as they come from shapes."
    )


def calling_line() -> str:
    """The innermost line of a user's module that is being computed, "file:line"; empty where none
    is."""
    frame: FrameType | None = sys._getframe(2)  # the caller's caller
    while frame is not None and not frame.f_code.co_filename.startswith(OWN_FOLDER):
        if _is_own(frame.f_code.co_filename):
            return f"{shown_path(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def explain_translation(error: BaseException) -> str:
    """Why torch.onnx refused a traced program."""
    chain = list(_chain(error))
    node = next(
        (frame.f_locals["node"] for e in chain for frame, _ in walk_tb(e.__traceback__)
         if isinstance(frame.f_locals.get("node"), torch.fx.Node)), None
    )  # fmt: skip
    if node is None:
        return one_line(chain[-1])
    name = getattr(node.target, "_opname", str(node.target))
    places = [place for place in IN_TRACE.findall(str(node.meta.get("stack_trace")))
              if _is_own(place[0])]  # fmt: skip
    where = f" ({shown_path(places[-1][0])}:{places[-1][1]})" if places else ""
    return (
        f"ONNX has no operator for torch's {name}{where}, or none for these arguments; compute it "
        f"with others."
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _is_own(file: str) -> bool:
    return not file.startswith(FOREIGN) or "site-packages" in file.removeprefix(FOREIGN[0])


def _place_of(chain: list[BaseException]) -> str:
    for error in chain:
        places = [
            (frame.f_code.co_filename, line)
            for frame, line in walk_tb(error.__traceback__)
            if _is_own(frame.f_code.co_filename)
        ]
        if places:
            return f" at {shown_path(places[-1][0])}:{places[-1][1]}"
    return ""


def _fixed_by(chain: list[BaseException]) -> str:
    """The line that made a number of a symbolic size, as the tracer noted it."""
    environments: dict[int, Any] = {}
    for error in chain:
        for frame, _ in walk_tb(error.__traceback__):
            env = frame.f_locals.get("shape_env")
            if env is not None:
                environments[id(env)] = env
    for env in environments.values():
        slocs = [*env.replacements_slocs.values(), *(guard.sloc for guard in env.guards)]
        for sloc in slocs:
            place = sloc.framework_loc
            file = getattr(place, "filename", None)
            if file and _is_own(file):
                return f"{shown_path(file)}:{place.lineno}"
    return ""
