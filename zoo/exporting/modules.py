"""A recurrent module that is to be exported, as a Python file defines it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from inspect import isroutine
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from zoo.config import DEFAULT_MAX_COST
from zoo.errors import UsageError, ZooError, near_names
from zoo.exporting.script import NAME as SCRIPT, running_as_a_script
from zoo.registry.specs import FULL

REQUIRED = ("module", "example_inputs", "state")
ALIKE = 0.8  # from which on two names are taken for one, misspelt


@dataclass(frozen=True, eq=False)
class ModuleSpec:
    """A recurrent module that is no language model, and how it is to be exported.

    `module(*inputs, state)` returns its outputs and the next state, and remembers nothing else. It
    computes one step, or, as a `sequence`, a chunk of any number of steps, at `time_axis` of the
    inputs (a number, or one for each input, None for an input without time), `multiple_of` at a
    time. Tensors are batch-first, [B, …]; `batch_axis` says where the batch of the state stands
    otherwise. Rows must not depend on each other, unless `independent_rows` is False.

    `example_inputs` are realistic values of some rows, and `state` is that before the first step.
    Inputs for a proof are drawn from the examples, or come from `inputs`: recorded steps, or a
    function `(rng, batch_size)` that draws those of a step. `input_names` and `output_names` are
    the names that the file is to have.

    `precision` is that of products with weights. What a lower one costs, which may be `max_cost`,
    is the share of the outputs' size by which they differ, or `metric(wanted, found)`.
    """

    module: nn.Module
    example_inputs: Tensor | Sequence[Tensor]
    state: Any
    input_names: Sequence[str] | None = None
    output_names: Sequence[str] | None = None
    inputs: Callable[..., Any] | Iterable[Any] | None = None
    batch_axis: Any = None
    independent_rows: bool = True
    precision: str = FULL
    metric: Callable[..., float] | None = None
    max_cost: float = DEFAULT_MAX_COST
    sequence: bool = False
    time_axis: int | Sequence[int | None] = 1
    multiple_of: int = 1


NAMES = tuple(field.name for field in fields(ModuleSpec))
TYPES: dict[str, tuple[tuple[Any, ...], str]] = {
    "module": ((nn.Module,), "a torch.nn.Module"),
    "example_inputs": ((Tensor, list, tuple), "a tensor or a sequence of tensors"),
    "input_names": ((list, tuple), "a list of texts"),
    "output_names": ((list, tuple), "a list of texts"),
    "inputs": ((Callable, Iterable), "a function or recorded steps"),
    "independent_rows": ((bool,), "True or False"),
    "precision": ((str,), "a text"),
    "metric": ((Callable,), "a function"),
    "max_cost": ((Real,), "a number"),
    "sequence": ((bool,), "True or False"),
    "time_axis": ((int, list, tuple), "a number, or one for each input"),
    "multiple_of": ((int,), "a number"),
}


@contextmanager
def read_module_spec(path: str | Path) -> Iterator[ModuleSpec]:
    """What the Python file at `path` defines by the names of `ModuleSpec`: `module`,
    `example_inputs` and `state`, and any of the others. With `time_axis` or `multiple_of` it is a
    sequence. Other names are for the file alone, unless one looks like a misspelling of these.

    The file runs as `python FILE` would run it, but under another name than `__main__`: it imports
    from its own folder, also while the block runs. What it prints goes to standard error; nothing
    is written beside it, and afterwards `sys` is as before.

    UsageError, in a line or two, for a file that cannot be read, that raises (also within the
    block), or that does not define what it should.
    """
    path = Path(path)
    content = _read(path)
    with running_as_a_script(path) as script:
        try:
            names = script.run(content)
        except (Exception, SystemExit) as error:
            raise UsageError(f"{path} raised {script.describe(error)}.") from error
        spec = _spec(path, names)
        try:
            yield spec
        except ZooError:
            raise
        except (Exception, SystemExit) as error:
            if not script.frames(error):
                raise
            raise UsageError(f"{path} raised {script.describe(error)}.") from error


def _read(path: Path) -> bytes:
    if path.suffix != ".py":
        raise UsageError(
            f"{path} is no Python file; give one (NAME.py) that defines "
            f"{', '.join(REQUIRED[:-1])} and {REQUIRED[-1]}."
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None


def _spec(path: Path, namespace: Mapping[str, Any]) -> ModuleSpec:
    defined = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    given = {
        name: defined[name]
        for name in NAMES
        if name in defined and (name in REQUIRED or defined[name] is not None)
    }
    for name in REQUIRED:
        if name not in given:
            raise UsageError(f"{path} does not define {name!r}; {_meant(name, defined)}")
    _require_no_misspelling(path, defined, given)
    for name, value in given.items():
        if not _fits(name, value):
            raise UsageError(f"{path}: {name} must be {TYPES[name][1]} (got {_shown(value)}).")
    of_time = [name for name in ("time_axis", "multiple_of") if name in given]
    if of_time and not given.setdefault("sequence", True):
        raise UsageError(f"{path}: {of_time[0]} is of sequences, and sequence is False.")
    return ModuleSpec(**given)


def _meant(name: str, defined: Mapping[str, Any]) -> str:
    """What a required name may be called in the file, which lacks it."""
    fitting = [
        other
        for other, value in defined.items()
        if other not in REQUIRED
        and not isinstance(value, type)
        and not _is_imported(value)
        and _fits(name, value)
    ]
    near = near_names(name, fitting)
    if not near and name == "module":  # few values are one
        near = " or ".join(map(repr, fitting))
    if near:
        return f"did you mean that by {near}?"
    return f"it should define {', '.join(REQUIRED[:-1])} and {REQUIRED[-1]}."


def _require_no_misspelling(
    path: Path, defined: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """UsageError for a name that is nearly one of an argument, with a value that the argument could
    have, and that no argument uses."""
    used = list(given.values())
    used += [part for value in used if isinstance(value, list | tuple) for part in value]
    free = [name for name in NAMES if name not in defined]
    for name, value in defined.items():
        if name in NAMES or any(value is other for other in used):
            continue
        for near in get_close_matches(name, free, 1, ALIKE):
            if _may_be_meant(value, near):
                raise UsageError(
                    f"{path} defines {name!r}, which is not used; did you mean {near!r}? A name of "
                    f"your own can begin with _."
                )


def _may_be_meant(value: Any, name: str) -> bool:
    if isinstance(value, type | Tensor | nn.Module) or _is_imported(value):
        return False
    if isinstance(value, str):
        return name in ("input_names", "output_names", "precision")
    return _fits(name, value)


def _fits(name: str, value: Any) -> bool:
    """Whether the argument can have this value, by its type."""
    if name not in TYPES:
        return True
    types, _ = TYPES[name]
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _is_imported(value: Any) -> bool:
    """Whether it is a function of another module."""
    return isroutine(value) and getattr(value, "__module__", SCRIPT) != SCRIPT


def _shown(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}, not an instance"
    return type(value).__name__
