"""A session: one stream of text with its own state and its own random numbers, over PyTorch or an
exported file alike. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from zoo.config import DEFAULT_LENGTH, Sampling
from zoo.data.tokenizer import encode_prompt
from zoo.errors import UsageError, ZooError
from zoo.inference.engine import Arrays, is_finite
from zoo.inference.generation import check_length
from zoo.inference.position import Position, Stops
from zoo.inference.runtime import Source, open_source
from zoo.registry.registry import Registry

LAST, RANDOM = "last_token", "random"


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
        self._position = Position(self._source.writer(), seed, self._source.tokenizer.end_of_text)
        self._fed = False

    def feed(self, text: str) -> None:
        """Reads `text`. Characters outside the vocabulary become `<unk>`, with one warning."""
        self._position.feed(encode_prompt(self._source.tokenizer, text))
        self._fed = True

    def stream(
        self, length: int = DEFAULT_LENGTH, *, stop: Sequence[str | int] = (), **sampling: Any
    ) -> Iterator[str]:
        """`length` tokens that continue the text, piece by piece, or fewer where it comes to a
        token or text in `stop`. `sampling` is `temperature`, `top_k` and `top_p`. The state is
        always that after the last piece that was taken."""
        settings = Sampling.checked(**sampling)
        stops = Stops(stop, self._source.tokenizer)
        check_length(length)
        if not self._fed:
            raise UsageError("nothing has been read yet; feed some text before sampling.")
        return self._source.tokenizer.stream(self._position.write(length, settings, stops))

    def sample(
        self, length: int = DEFAULT_LENGTH, *, stop: Sequence[str | int] = (), **sampling: Any
    ) -> str:
        """What `stream` gives, in one piece."""
        return "".join(self.stream(length, stop=stop, **sampling))

    def snapshot(self) -> bytes:
        """The whole session, as safetensors: the state's leaves by name, the last token
        (which the state has not read yet), and the random numbers' position."""
        state, last, random = self._position.snapshot()
        arrays = dict(self._source.engine.state_to_arrays(state))
        if last is not None:
            arrays[LAST] = np.array(last)
        arrays[RANDOM] = np.frombuffer(json.dumps(random).encode(), np.uint8)
        return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    def restore(self, snapshot: bytes) -> None:
        """Goes back to a snapshot of a session over this model, in whatever runtime it was taken.

        Raises ZooError for one that is damaged or of another model; nothing has changed then.
        """
        engine = self._source.engine
        try:
            arrays: Arrays = load(snapshot)
            random = json.loads(arrays.pop(RANDOM).tobytes())
        except (SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise ZooError(f"the snapshot is damaged: {type(error).__name__}.") from None
        last = arrays.pop(LAST, None)
        initial = engine.state_to_arrays(engine.init_state(1))
        found, wanted = _form(arrays), _form(initial)
        if others := sorted(name for name, _ in found.items() ^ wanted.items()):
            name = others[0]
            raise ZooError(
                f"the snapshot is of another model: its {name[:40]!r} is "
                f"{found.get(name, 'missing')}, and this one's is {wanted.get(name, 'missing')}."
            )
        if not is_finite(arrays.values(), initial.values()):
            raise ZooError("the snapshot is damaged: its state has numbers that are not finite.")
        is_token = last is not None and last.size == 1 and last.dtype.kind == "i"
        token = None if last is None else int(last.flat[0]) if is_token else -1
        if token is not None and not 0 <= token < engine.vocab_size:
            raise ZooError("the snapshot is of another model: its last token is not in this one's.")
        try:
            self._position.restore(engine.state_from_arrays(arrays), token, random)
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise ZooError(f"the snapshot is damaged: {type(error).__name__}.") from None
        self._fed = token is not None

    def fork(self) -> Session:
        """An independent session that continues from here."""
        twin = Session(self._source)
        twin.restore(self.snapshot())
        return twin


def _form(arrays: Arrays) -> dict[str, str]:
    return {name: f"{array.dtype} {[*array.shape]}" for name, array in arrays.items()}
