"""What runs a model: the protocols that generation, scoring and proofs are written over, whatever
computes. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from zoo.config import Interface
from zoo.data.tokenizer import Ids
from zoo.errors import ZooError
from zoo.inference.sampling import Samplings, choose

Logits: TypeAlias = npt.NDArray[np.floating]
Uniform: TypeAlias = npt.NDArray[np.float32]
Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


class HasState(Protocol):
    """The recurrent state of `batch_size` rows, as data that only its engine looks into.

    `vocab_size` is the number of tokens, or of a model of a task that of its outputs. Such an
    engine has an `interface` too: where that reads features, tokens [T, B] below are features
    [T, B, F] in float32, and where it gives numbers, these take the place of logits.
    """

    vocab_size: int

    def init_state(self, batch_size: int) -> Any:
        """The state before the first token."""

    def state_to_arrays(self, state: Any) -> Arrays:
        """The leaves of a state by name ("layer0.h"), batch-first."""

    def state_from_arrays(self, arrays: Arrays) -> Any:
        """The state with these leaves."""


def interface_of(engine: HasState) -> Interface:
    """What the model of an engine reads and gives."""
    own: Interface | None = getattr(engine, "interface", None)
    return own or Interface.of_text(engine.vocab_size)


def random_inputs(engine: HasState, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Tokens, or features, of any value that the model reads."""
    interface = interface_of(engine)
    if interface.reads == "tokens":
        return rng.integers(0, interface.inputs, shape)
    return rng.standard_normal((*shape, interface.inputs), dtype=np.float32)


@runtime_checkable
class Engine(HasState, Protocol):
    """Reads tokens and writes more. `chunk` is how many it writes at a time without losing speed.

    A token is read by the call after the one that wrote it: `write` returns a state that has not
    read its last token.
    """

    chunk: int

    def read(self, tokens: Ids, state: Any) -> Any:
        """The state after the tokens [T, B]; T may be 0."""

    def write(
        self, last: Ids, state: Any, uniform: Uniform, sampling: Samplings
    ) -> tuple[Ids, Any]:
        """Tokens [N, B] that continue `last` [B], each chosen with its number of `uniform` [N, B]
        (see `zoo.inference.sampling.choose`), N at least 1; and the state that has read `last` and
        all of them but the last. `sampling` is that of all rows, or one for each; a row's tokens
        do not depend on the others'. Raises ZooError where the model's logits are not finite."""


@runtime_checkable
class Stepper(HasState, Protocol):
    """One step of a language model, with its state handed in and out."""

    def step(self, tokens: Ids, state: Any) -> tuple[Logits, Any]:
        """Logits [B, V] after one more token [B] in each row, and the next state."""


@runtime_checkable
class Scorer(HasState, Protocol):
    """Logits of whole sequences; all that a non-causal model can give.

    `mask_token` is its input token for a masked token; None for a model without one.
    """

    mask_token: int | None

    def logits(self, tokens: Ids, state: Any) -> tuple[Logits, Any]:
        """Logits [T, B, V], one for each token [T, B], and the state after the last; T at least
        1."""


class StepLoop:
    """What a Stepper needs to be an Engine and a Scorer: loops over its `step`."""

    chunk = 1
    mask_token: int | None = None

    def read(self: Any, tokens: Ids, state: Any) -> Any:
        for column in tokens:
            _, state = self.step(column, state)
        return state

    def write(
        self: Any, last: Ids, state: Any, uniform: Uniform, sampling: Samplings
    ) -> tuple[Ids, Any]:
        written = []
        for row in uniform:
            logits, state = self.step(last, state)
            if not np.isfinite(logits).all():
                raise NotFiniteError
            last = choose(logits, row, sampling)
            written.append(last)
        return np.stack(written), state

    def logits(self: Any, tokens: Ids, state: Any) -> tuple[Logits, Any]:
        found = []
        for column in tokens:
            logits, state = self.step(column, state)
            found.append(logits)
        return np.stack(found), state


class NotFiniteError(ZooError):
    """The model computed numbers that are not finite."""

    def __init__(self) -> None:
        super().__init__(
            "the model's logits are not finite: its weights are, or its state has become so; "
            "train it again with a lower learning rate, or go back to a snapshot."
        )


def is_finite(state: Iterable[npt.NDArray[Any]], initial: Iterable[npt.NDArray[Any]]) -> bool:
    """Whether the leaves of a state are finite, but for infinities that are there from the
    beginning; `initial` is the initial state of one row."""
    return all(
        bool((np.isfinite(leaf) | (leaf == first)).all())
        for leaf, first in zip(state, initial, strict=True)
    )


def select_rows(engine: HasState, state: Any, rows: Sequence[int]) -> Any:
    """The state of these rows of the batch, in this order."""
    arrays = engine.state_to_arrays(state)
    return engine.state_from_arrays({name: leaf[list(rows)] for name, leaf in arrays.items()})


def join_rows(engine: HasState, states: Sequence[Any]) -> Any:
    """One state whose batch is the batches of `states`, one after the other."""
    parts = [engine.state_to_arrays(state) for state in states]
    return engine.state_from_arrays(
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    )
