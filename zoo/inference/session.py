"""A session: one stream of text with its own state and its own random numbers, over PyTorch or an
exported file alike. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.config import DEFAULT_LENGTH, Sampling
from zoo.data.tokenizer import encode_prompt
from zoo.errors import UsageError
from zoo.inference.generation import check_length
from zoo.inference.position import Position, Stops
from zoo.inference.runtime import Source, open_source
from zoo.inference.snapshot import Snapshot, read_snapshot, write_snapshot
from zoo.registry.registry import Registry


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
        """The whole session, as `zoo.inference.snapshot` describes it."""
        return write_snapshot(self._source.engine, Snapshot(*self._position.snapshot()))

    def restore(self, snapshot: bytes) -> None:
        """Goes back to a snapshot of a session over this model, in whatever runtime it was taken.

        Raises ZooError for one that is damaged or of another model; nothing has changed then.
        """
        found = read_snapshot(self._source.engine, snapshot)
        self._position.restore(*found)
        self._fed = found.last is not None

    def fork(self) -> Session:
        """An independent session that continues from here."""
        twin = Session(self._source)
        twin.restore(self.snapshot())
        return twin
