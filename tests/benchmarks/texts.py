"""Training on texts of any size: the time to the first step, with and without tokens in the cache,
the memory of the process, and the size of the cache; and whether `--minutes` is kept.

The texts are lines of python-docs in random order, again and again, or made-up Chinese (words of
the 6,000 first Han characters, with frequencies as Zipf's), each written once to the folder. Every
training is a process of its own.

    python tests/benchmarks/texts.py FOLDER [MEGABYTES ...]
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from zoo.data.corpora import python_docs

MINUTES = 0.2
KINDS = ("english", "chinese")
TOKENIZERS = ("char", "byte", "bpe")


class Training(NamedTuple):
    """Seconds until the first step and until the end, since the process was started; the largest
    resident memory; and seconds of reading and encoding, as the command tells them."""

    started: float
    ended: float
    megabytes: float
    reading: float


def make(kind: str, path: Path, size: int) -> Path:
    """A text of so many bytes, if it is not there."""
    if not path.exists():
        rng = random.Random(0)
        lines = english() if kind == "english" else list(chinese(rng))
        left = size
        with path.open("wb") as file:
            while left > 0:
                rng.shuffle(lines)
                written = "".join(lines).encode()[:left]
                file.write(written.decode("utf-8", "ignore").encode())
                left -= len(written)
    return path


def english() -> list[str]:
    return python_docs().splitlines(keepends=True)


def chinese(rng: random.Random) -> Iterator[str]:
    """Sentences of random words."""
    characters = [chr(0x4E00 + index) for index in range(6000)]
    rng.shuffle(characters)
    by_rank = [1 / (rank + 3) for rank in range(20_000)]
    words = [
        "".join(rng.choices(characters, by_rank[:6000], k=rng.choice((1, 2, 2, 2, 3))))
        for _ in by_rank
    ]
    for _ in range(20_000):
        chosen = rng.choices(words, by_rank, k=rng.randint(5, 30))
        yield "".join(w + ("，" if rng.random() < 0.15 else "") for w in chosen) + "。\n"


def train(text: Path, tokenizer: str, cache: Path) -> Training:
    command = [
        sys.executable, "-m", "zoo", "train", str(text), "--tokenizer", tokenizer,
        "--minutes", str(MINUTES), "--out", "run", "--overwrite",
    ]  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cache,
        env={**os.environ, "ZOO_CACHE": str(cache)},
    )
    watch = Watch(process)
    assert process.stderr is not None
    started, reading = 0.0, 0.0
    for line in process.stderr:
        started = started or time.monotonic() - began
        if ": reading " in line:
            reading = float(line.split("reading ")[1].split(",")[0])
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed")
    return Training(started, time.monotonic() - began, watch.largest(), reading)


class Watch(threading.Thread):
    """The largest resident memory of a process, in megabytes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self._process, self._kilobytes = process, 0
        self.start()

    def run(self) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        while self._process.poll() is None:
            try:
                lines = status.read_text().splitlines()
            except OSError:
                return
            for line in lines:
                if line.startswith("VmRSS:"):
                    self._kilobytes = max(self._kilobytes, int(line.split()[1]))
            time.sleep(0.02)

    def largest(self) -> float:
        self.join()
        return self._kilobytes / 1024


def main(folder: Path, sizes: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    print(
        "text          tokenizer     MB   first step: cold   warm   --minutes 0.2   MB held  cache"
    )
    for kind in KINDS:
        for size in sizes if kind == "english" else [size for size in sizes if size <= 100]:
            text = make(kind, folder / f"{kind}-{size}.txt", size * 10**6)
            for tokenizer in TOKENIZERS:
                with tempfile.TemporaryDirectory(dir=folder) as cache:
                    cold = train(text, tokenizer, Path(cache))
                    warm = train(text, tokenizer, Path(cache))
                    kept = sum(f.stat().st_size for f in Path(cache, "tokens").rglob("*.bin"))
                over = max(cold.ended - cold.reading, warm.ended) - 60 * MINUTES
                print(
                    f"{kind:12}  {tokenizer:9}  {size:5,}  {cold.started:14.1f} s  "
                    f"{warm.started:5.1f} s  {over:+11.1f} s  {cold.megabytes:8.0f}  "
                    f"{kept / text.stat().st_size:5.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]).absolute(), [int(word) for word in sys.argv[2:]] or [1, 10, 100])
