"""Texts to train on, by name: the corpora that ship with the zoo (registered through the same hook
as everyone's), and all that `zoo.data.sources` opens."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

from zoo.data.copies import Copies
from zoo.data.cutting import END, Flow, joined, texts
from zoo.data.named import named_texts
from zoo.data.sources import (
    STANDARD_INPUT,
    Files,
    GivenText,
    Joint,
    Reading,
    Source,
    open_texts,
    shown_name,
)
from zoo.errors import CorpusError, UsageError, near_names
from zoo.registry.registry import Registry, load_registry

CACHE_VARIABLE = "ZOO_CACHE"
PROMPT_LENGTH = 16
DEFAULT_READING = Reading()
COPIES = "copies"  # of files of other machines: a folder of the cache

TIME_MACHINE_URL = "https://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt"
TIME_MACHINE_SHA256 = "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516"


@dataclass(frozen=True)
class Corpus:
    """A text, with the tokenizer that it is read with by default and a prompt that suits it."""

    name: str
    source: Source
    tokenizer: str = "char"
    prompt: str = ""

    def flow(self, separate: bool = False) -> Flow:
        """The text in pieces, from its beginning; with END after each document, if asked for."""
        return joined(self.source.documents(), separate)

    @property
    def text(self) -> str:
        """All of it, in memory."""
        return "".join(texts(self.flow()))


def load_corpus(
    name: str | Sequence[str],
    registry: Registry | None = None,
    reading: Reading = DEFAULT_READING,
) -> Corpus:
    """The corpus registered as `name`, the user's own of that name, or what
    `zoo.data.sources.open_texts` finds under it: a file, a folder, a pattern of files, a URL,
    "hf:NAME", or standard input ("-"). Of several names it is all their texts, in this order.

    A registered name goes before a file of that name; `./name` is always the file. Raises
    UsageError for a name that is none of these, and for a field of `reading` that was given and has
    no effect on any of the texts; CorpusError for a text that cannot be read or is empty.
    """
    registry = registry or load_registry()
    names = [name] if isinstance(name, str) else list(name)
    copies = Copies(cache_folder() / COPIES)
    opened = [_open(each, registry, reading, copies) for each in names]
    _require_effect(reading, opened)
    corpora = [_with_prompt(each) for each in opened]
    corpus = corpora[0]
    if len(corpora) > 1:
        stems = [PurePath(each.name).stem for each in corpora]
        if len(stems) > 3:  # a name of hundreds would be too long for a folder
            stems[1:] = ["and", str(len(stems) - 1), "more"]
        joint = Joint([each.source for each in corpora])
        corpus = replace(corpus, name="-".join(stems), source=joint)
    return corpus


class _Opened(NamedTuple):
    """A corpus by the name that was given, the fields of Reading that have an effect on it, and why
    the others have none."""

    name: str
    corpus: Corpus
    settings: frozenset[str]
    why_not: Mapping[str, str]


NO_EFFECT = {
    "glob": "which is no folder",
    "field": "which has no fields",
    "encoding": "which has an encoding of its own",
}


def _open(name: str, registry: Registry, reading: Reading, copies: Copies) -> _Opened:
    advice = partial(_advice, registry=registry)
    if name in registry.corpora:
        spec = registry.corpora[name]
        corpus = Corpus(name, GivenText(spec.load_factory()()), spec.tokenizer, spec.prompt)
        return _Opened(name, corpus, frozenset(), dict.fromkeys(NO_EFFECT, "a corpus of the zoo"))
    if (named := named_texts().get(name)) is not None:
        source = open_texts(named.path, named.reading, copies, advice)
        corpus = Corpus(name, source, named.tokenizer, named.prompt)
        why = "which is read as `zoo corpora add` was told"
        return _Opened(name, corpus, frozenset(), dict.fromkeys(NO_EFFECT, why))
    source = open_texts(name, reading, copies, advice)
    return _Opened(name, Corpus(_short_name(name), source), source.settings, NO_EFFECT)


def _short_name(name: str) -> str:
    """What a run's folder can be named after: the last part of a URL without a query, the folder of
    a pattern, the name of "." and ".."; any other name as it is."""
    scheme, separator, rest = name.partition("://")
    if separator:
        return PurePath(rest.partition("?")[0]).name or scheme
    path = PurePath(name)
    if "*" not in name and path.name not in ("", ".."):
        return name
    return Path(*(part for part in path.parts if "*" not in part)).resolve().name or "texts"


def _require_effect(reading: Reading, opened: Sequence[_Opened]) -> None:
    """UsageError for a field that was given and has no effect."""
    for field in sorted(reading.model_fields_set):
        if getattr(reading, field) is None or any(field in each.settings for each in opened):
            continue
        where = f"{_called(opened[0].name)}, {opened[0].why_not[field]}"
        if len(opened) > 1:
            where = f"any of the {len(opened)} texts"
        raise UsageError(f"--{field} has no effect on {where}; leave it out.")


def _with_prompt(opened: _Opened) -> Corpus:
    """The corpus with a prompt. CorpusError for one that is empty."""
    corpus = opened.corpus
    beginning = _beginning(corpus)
    if not beginning:
        raise CorpusError(f"{_called(opened.name)} is empty; there is nothing to learn from.")
    return replace(corpus, prompt=corpus.prompt or beginning)


def _called(name: str) -> str:
    return "standard input" if name == STANDARD_INPUT else shown_name(name)


def _advice(name: str, registry: Registry) -> str:
    near = near_names(name, [*registry.corpora, *named_texts()])
    return f"did you mean {near}?" if near else "`zoo corpora` lists the corpora."


def _beginning(corpus: Corpus) -> str:
    """The first characters of the first document with any, from the first that is no space."""
    if isinstance(corpus.source, Files):
        corpus = replace(corpus, source=replace(corpus.source, peek=True))
    found = ""
    for piece in corpus.flow(separate=True):
        found = (found + (piece or "")).lstrip() or (piece or found)[:PROMPT_LENGTH]
        if (piece is END or len(found) >= PROMPT_LENGTH) and not found.isspace():
            break
    return found[:PROMPT_LENGTH]


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
