"""Texts to train on: the corpora that ship with the zoo (registered through the same hook as
everyone's), files, and standard input."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import CorpusError, UsageError, near_names
from zoo.registry.registry import Registry, load_registry

CACHE_VARIABLE = "ZOO_CACHE"
STANDARD_INPUT = "-"
PROMPT_LENGTH = 16

TIME_MACHINE_URL = "https://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt"
TIME_MACHINE_SHA256 = "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516"


@dataclass(frozen=True)
class Corpus:
    """A text, with the tokenizer that it is read with by default and a prompt that suits it."""

    name: str
    text: str
    tokenizer: str
    prompt: str


def load_corpus(name: str, registry: Registry | None = None) -> Corpus:
    """The corpus registered as `name`, the UTF-8 text file at that path, or standard input ("-").

    A registered name goes before a file of that name; `./name` is always the file. Raises
    UsageError for a name that is neither, CorpusError for a text that cannot be read or is empty.
    """
    registry = registry or load_registry()
    if name in registry.corpora:
        spec = registry.corpora[name]
        text, tokenizer, prompt = spec.load_factory()(), spec.tokenizer, spec.prompt
    else:
        text, tokenizer, prompt = _read_text(name, registry), "char", ""
    if not text:
        raise CorpusError(f"{_called(name)} is empty; there is nothing to learn from.")
    beginning = (text.lstrip() or text)[:PROMPT_LENGTH]
    return Corpus(name, text, tokenizer, prompt or beginning)


def _read_text(name: str, registry: Registry) -> str:
    """A file's or standard input's text, its line ends as "\\n"."""
    try:
        raw = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
    except FileNotFoundError:
        near = near_names(name, registry.corpora)
        hint = f"did you mean {near}?" if near else "`zoo corpora` lists the corpora."
        raise UsageError(f"{name!r} is neither a corpus nor a file; {hint}") from None
    except OSError as error:
        raise CorpusError(f"{name} cannot be read: {error.strerror}.") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{_called(name)} is not UTF-8 text (byte {error.start}); convert it first."
        ) from None
    if "\0" in text:
        raise CorpusError(f"{_called(name)} is not text: it holds zero bytes.")
    return text.replace("\r\n", "\n")


def _called(name: str) -> str:
    return "standard input" if name == STANDARD_INPUT else name


def cache_folder() -> Path:
    """Where downloaded corpora are kept: `ZOO_CACHE`, or the platform's cache folder."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("recurrent-zoo"))


def python_docs() -> str:
    """All help topics of the running Python, in order of name. The text differs a little between
    Python versions."""
    try:
        from pydoc_data.topics import topics  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise CorpusError(
            "this Python comes without pydoc_data; install the full standard library, or train on "
            "a text file."
        ) from None
    return "\n\n".join(topics[name].strip("\n") for name in sorted(topics)) + "\n"


def time_machine() -> str:
    """The Time Machine as section 9.2 of Dive into Deep Learning prepares it: in each line every
    run of non-letters becomes a space, the line is stripped and put in lower case, and the lines
    are joined with nothing between (so that "him" and "was" make "himwas")."""
    text = _download(TIME_MACHINE_URL, TIME_MACHINE_SHA256, "timemachine.txt").read_text("utf-8")
    lines = (re.sub("[^A-Za-z]+", " ", line).strip().lower() for line in text.splitlines())
    return "".join(lines)


def _download(url: str, sha256: str, file_name: str) -> Path:
    """The file from the cache if it is there with the right checksum, else from `url`."""
    import pooch

    folder = cache_folder()
    logger = pooch.get_logger()
    logger.setLevel("WARNING")
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", file_name, folder))
    except (OSError, ValueError) as error:  # no network or no such folder; a wrong checksum
        reason = str(getattr(error, "strerror", None) or type(error).__name__)
        raise CorpusError(
            f"{file_name} is not in {folder} and could not be downloaded ({reason}).\n"
            f"Put the file there (SHA-256 {sha256[:12]}…), or set {CACHE_VARIABLE} to where it is."
        ) from None
