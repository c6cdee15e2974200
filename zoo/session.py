"""A session: one stream of text with its own state and its own random numbers, over PyTorch or an
exported file alike. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from zoo.config import DEFAULT_LENGTH, Sampling
from zoo.errors import UsageError, ZooError
from zoo.generator import Arrays, Source, encode_prompt, open_source
from zoo.registry import Registry
from zoo.sampling import choose

LOGITS, RANDOM = "logits", "random"


class Session:
    """Text goes in by `feed`, comes out by `sample`; both move the state on.

    Sessions over one source share nothing but its weights: interleaved, each gives what it gives
    alone. `feed(prompt)` and then `sample(n)` gives what `zoo.generate(source, prompt, length=n)`
    gives after the prompt, with the same seed.
    """

    def __init__(
        self,
        source: Source | str | Path,
        seed: int = 0,
        provider: str = "auto",
        registry: Registry | None = None,
    ) -> None:
        self._source = (
            source if isinstance(source, Source) else open_source(source, provider, registry)
        )
        self._rng = np.random.default_rng(seed)
        self._state = self._source.stepper.init_state(1)
        self._logits: np.ndarray[Any, Any] | None = None

    def feed(self, text: str) -> None:
        """Reads `text`. Characters that the model never saw become `<unk>`, with one warning."""
        for token in encode_prompt(self._source.tokenizer, text):
            self._advance(int(token))

    def stream(self, length: int = DEFAULT_LENGTH, **sampling: Any) -> Iterator[str]:
        """`length` tokens that the model goes on with, piece by piece. `sampling` is `temperature`,
        `top_k` and `top_p`. The state is always that after the last piece that was taken."""
        settings = Sampling.checked(**sampling)
        if length < 0:
            raise UsageError(f"length must be at least 0 (got {length}).")
        if self._logits is None:
            raise UsageError("nothing has been read yet; feed some text before sampling.")
        return self._source.tokenizer.stream(self._tokens(length, settings))

    def sample(self, length: int = DEFAULT_LENGTH, **sampling: Any) -> str:
        """What `stream` gives, in one piece."""
        return "".join(self.stream(length, **sampling))

    def snapshot(self) -> bytes:
        """All there is to this session, as safetensors: the state's leaves by name, the logits
        after the last token, and the random numbers' position."""
        arrays = dict(self._source.stepper.state_to_arrays(self._state))
        if self._logits is not None:
            arrays[LOGITS] = self._logits
        position = json.dumps(self._rng.bit_generator.state).encode()
        arrays[RANDOM] = np.frombuffer(position, np.uint8)
        return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    def restore(self, snapshot: bytes) -> None:
        """Goes back to a snapshot of a session over this model, in whatever runtime it was taken.

        Raises ZooError for one that is damaged or of another model; nothing has changed then.
        """
        try:
            arrays: Arrays = load(snapshot)
            position = json.loads(arrays.pop(RANDOM).tobytes())
            rng = np.random.default_rng()
            rng.bit_generator.state = position
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ZooError(f"the snapshot is damaged: {type(error).__name__}.") from None
        logits = arrays.pop(LOGITS, None)
        stepper = self._source.stepper
        wanted = _form(stepper.state_to_arrays(stepper.init_state(1)))
        if _form(arrays) != wanted:
            raise ZooError(
                f"the snapshot is of another model: its state is {_form(arrays)}, "
                f"and this one's is {wanted}."
            )
        if logits is not None and logits.shape != (1, stepper.vocab_size):
            raise ZooError("the snapshot is of another model: its vocabulary has another size.")
        self._state, self._logits = stepper.state_from_arrays(arrays), logits
        self._rng = rng

    def fork(self) -> Session:
        """Another session that goes on from here, independently."""
        twin = Session(self._source)
        twin.restore(self.snapshot())
        return twin

    def _tokens(self, length: int, settings: Sampling) -> Iterator[int]:
        for _ in range(length):
            assert self._logits is not None
            if not np.isfinite(self._logits).all():
                raise ZooError("the model's logits are not finite; go back to a snapshot.")
            token = choose(self._logits, self._rng.random(1, dtype=np.float32), settings)
            self._advance(int(token[0]))
            yield int(token[0])

    def _advance(self, token: int) -> None:
        self._logits, self._state = self._source.stepper.step(np.array([token]), self._state)


def _form(arrays: Arrays) -> dict[str, tuple[Any, ...]]:
    return {name: (*array.shape, str(array.dtype)) for name, array in sorted(arrays.items())}
