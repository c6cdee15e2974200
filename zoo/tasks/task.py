"""What a task is: it draws sequences, and says what is right. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.config import Interface
from zoo.errors import ContractError, ZooError
from zoo.registry.locations import describe_raised

Array: TypeAlias = npt.NDArray[Any]
Range: TypeAlias = int | tuple[int, int]
Part: TypeAlias = Literal["training", "validation", "test"]


class Batch(NamedTuple):
    """Sequences of one length. `inputs` are tokens [T, B] or features [T, B, F], `targets` classes
    [T, B] or numbers [T, B, N], and `counted` [T, B] says which positions are asked; None for all
    of them."""

    inputs: Array
    targets: Array
    counted: Array | None = None

    @property
    def asked(self) -> Array:
        """`counted`, with all positions where it is None."""
        shape = self.targets.shape[:2]
        return np.ones(shape, bool) if self.counted is None else self.counted


class Task:
    """The base class of tasks. A subclass says what is read (so many `tokens`, or `features`) and
    what is asked (so many `classes`, or `numbers`), and writes `batch`.

    `training` are the arguments of `batch` in training and validation: a number, or the least and
    the most of numbers that are drawn anew for each batch. `tests` are those of each test, by its
    name: the first as the most of training, the second, if there is one, beyond it; these two are
    what a ranking shows. `whole` is True where a sequence counts as right only if all that is asked
    in it is.
    """

    tokens: int = 0
    features: int = 0
    classes: int = 0
    numbers: int = 0
    whole: ClassVar[bool] = False
    training: Mapping[str, Range] = MappingProxyType({})
    tests: Mapping[str, Mapping[str, int]] = MappingProxyType({})

    def batch(self, rng: np.random.Generator, rows: int, *args: Any, **setting: Any) -> Batch:
        """So many new sequences; the same again for a generator in the same state."""
        raise NotImplementedError

    def batch_of(self, part: Part, rng: np.random.Generator, rows: int, **setting: int) -> Batch:
        """The same for a part of the data. A task whose sequences come from a stored data set
        overrides this one, and keeps the parts apart."""
        return self.batch(rng, rows, **setting)

    def answer(self, inputs: Array) -> Array | None:
        """The targets of these inputs, worked out slowly by another way than in `batch`, where the
        inputs decide them: for tests. What is not asked may be anything."""
        return None

    @property
    def interface(self) -> Interface:
        """What a model of the task reads and gives. ContractError where that is not said."""
        called = type(self).__name__
        if bool(self.tokens) == bool(self.features) or bool(self.classes) == bool(self.numbers):
            raise ContractError(
                f"task {called} should have tokens or features, and classes or numbers, above 0."
            )
        return Interface.checked(
            reads="tokens" if self.tokens else "features",
            inputs=self.tokens or self.features,
            gives="classes" if self.classes else "numbers",
            outputs=self.classes or self.numbers,
        )


def draw(task: Task, part: Part, rng: np.random.Generator, rows: int) -> Batch:
    """A batch with the settings of training, which are drawn first."""
    setting = {}
    for name, value in task.training.items():
        least, most = (value, value) if isinstance(value, int) else value
        if least > most:
            raise ContractError(
                f"task {type(task).__name__}: training has {name} from {least} to {most}."
            )
        setting[name] = least if isinstance(value, int) else int(rng.integers(least, most + 1))
    return drawn(task, part, rng, rows, setting)


def drawn(
    task: Task, part: Part, rng: np.random.Generator, rows: int, setting: Mapping[str, int]
) -> Batch:
    """A batch with this setting, in the types of the model. ContractError for one that cannot be
    drawn, or is not what the task says."""
    try:
        return _checked(task, task.batch_of(part, rng, rows, **setting), rows)
    except ZooError:
        raise
    except Exception as error:  # a plugin's own code
        shown = ", ".join(f"{name}={value}" for name, value in setting.items())
        told = describe_raised(error, type(task).__module__)
        raise ContractError(
            f"task {type(task).__name__} gave no batch with {shown or 'no arguments'}: {told}"
        ) from error


def _checked(task: Task, batch: Batch, rows: int) -> Batch:
    interface, called = task.interface, type(task).__name__

    def wrong(what: str) -> ContractError:
        return ContractError(f"task {called}: {what}; see zoo.tasks.Batch.")

    if not isinstance(batch, Batch):
        raise wrong(f"batch gave a {type(batch).__name__}")
    inputs, targets, counted = (
        np.asarray(batch.inputs), np.asarray(batch.targets), batch.counted
    )  # fmt: skip
    length = len(inputs) if inputs.ndim else 0
    for name, found, kind, size in (
        ("inputs", inputs, interface.reads == "tokens", interface.inputs),
        ("targets", targets, interface.gives == "classes", interface.outputs),
    ):
        wanted = (length, rows) if kind else (length, rows, size)
        if not length or found.shape != wanted:
            raise wrong(f"its {name} have the shape {found.shape} and should have {wanted}")
        if kind and (found.dtype.kind not in "iu" or not 0 <= found.min() <= found.max() < size):
            raise wrong(f"its {name} are not whole numbers from 0 to {size - 1}")
        if not kind and not np.isfinite(found).all():
            raise wrong(f"its {name} are not finite")
    if counted is not None:
        counted = np.asarray(counted)
        if counted.shape != (length, rows) or counted.dtype != np.bool_ or not counted.any():
            raise wrong(f"counted is not boolean of the shape {(length, rows)}, with some True")
    return Batch(
        inputs.astype(np.int64 if interface.reads == "tokens" else np.float32, copy=False),
        targets.astype(np.int64 if interface.gives == "classes" else np.float32, copy=False),
        counted,
    )
