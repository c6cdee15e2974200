"""The user's own named texts, and what is known of each, in a file of the user's settings."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from zoo.data.sources import Reading, shown_name
from zoo.errors import CorpusError, UsageError, near_names
from zoo.files import write_atomically
from zoo.registry.registry import Registry
from zoo.registry.specs import NAME
from zoo.validation import FrozenModel

CONFIG_VARIABLE = "ZOO_CONFIG"
FILE = "corpora.json"
LONGEST_NAME = 100  # characters: a run's folder is named after it


class NamedText(FrozenModel):
    """Where a text is (an absolute path, a URL, or "hf:NAME"), how it is read, and what a corpus
    has besides."""

    path: str = Field(min_length=1)
    reading: Reading = Reading()
    tokenizer: str = "char"
    prompt: str = ""


NAMED = TypeAdapter(dict[str, NamedText])


def named_texts() -> dict[str, NamedText]:
    """All of them by name. CorpusError for a file that is damaged."""
    path = _file()
    try:
        return NAMED.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError):
        raise CorpusError(f"{path} is damaged; mend it or remove it.") from None


def add_text(name: str, text: NamedText, registry: Registry) -> None:
    """Names a text. UsageError for a name that is taken or is none."""
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        fits = NAME.fullmatch(near) and len(near) <= LONGEST_NAME
        hint = f"; {near!r} would be one" if fits else ""
        raise UsageError(f"'{shown_name(name)}' is not a name like 'my-books'{hint}.")
    known = named_texts()
    if name in registry.corpora or name in known:
        raise UsageError(f"there is a corpus {name!r} already; choose another name.")
    _write({**known, name: text})


def remove_text(name: str) -> None:
    """Forgets a name; the text stays where it is. UsageError if it is not one of the user's."""
    known = named_texts()
    if name not in known:
        near = near_names(name, known)
        hint = f"did you mean {near}?" if near else "`zoo corpora` lists the corpora."
        raise UsageError(f"you have not added a corpus '{shown_name(name)}'; {hint}")
    _write({other: text for other, text in known.items() if other != name})


def _write(texts: dict[str, NamedText]) -> None:
    path = _file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, NAMED.dump_json(texts, indent=2))


def _file() -> Path:
    """`corpora.json` in `ZOO_CONFIG`, or in the platform's folder for settings."""
    if folder := os.environ.get(CONFIG_VARIABLE):
        return Path(folder).expanduser() / FILE
    import platformdirs

    return platformdirs.user_config_path("recurrent-zoo") / FILE
