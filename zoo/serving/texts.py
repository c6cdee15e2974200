"""The text of a completion as its tokens come, with strings to stop at."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.data.tokenizer import Tokenizer


class StoppedText:
    """Text up to the first string in `stop`, which is not part of it. What may be the beginning of
    such a string is held back until it is clear."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._decoder = tokenizer.decoder()
        self._stop = stop
        self._held = ""
        self._ended = False

    def push(self, tokens: Sequence[int], last: bool) -> str:
        """What can be given of the text after these tokens, `last` if no more come."""
        if self._ended:
            return ""
        self._held += self._decoder.push(tokens) + (self._decoder.finish() if last else "")
        if found := [at for stop in self._stop if (at := self._held.find(stop)) >= 0]:
            self._ended = True
            return self._held[: min(found)]
        keep = 0 if last else max(map(self._overlap, self._stop), default=0)
        given, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        return given

    def _overlap(self, stop: str) -> int:
        """How many characters at the end of what is held may be the beginning of `stop`."""
        sizes = range(min(len(stop) - 1, len(self._held)), 0, -1)
        return next((size for size in sizes if self._held.endswith(stop[:size])), 0)
