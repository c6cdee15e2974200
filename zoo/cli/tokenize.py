"""zoo tokenize"""

from __future__ import annotations

import json
from typing import Any

import click

from zoo.cli.settings import settings_options
from zoo.config import DataConfig, setting_fields

FIELDS = {
    name: field
    for name, field in setting_fields().items()
    if name in DataConfig.model_fields and name not in ("corpus", "held_out", "max_tokens")
}


@click.command()
@click.argument("corpora", metavar="CORPUS...", nargs=-1, required=True)
@settings_options(FIELDS)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(corpora: tuple[str, ...], as_json: bool, **settings: Any) -> None:
    """Show how CORPUS is divided into tokens, and how many there are. What is encoded here is
    encoded for `zoo train` too."""
    from zoo.data.statistics import count_tokens

    given = {name: value for name, value in settings.items() if value is not None}
    corpus = corpora if len(corpora) > 1 else corpora[0]
    found = count_tokens(DataConfig.checked(corpus=corpus, held_out=0, **given))
    if as_json:
        print(json.dumps(found.model_dump(), indent=2))
        return
    print(f"{found.characters:,} characters, {found.bytes:,} bytes in UTF-8")
    ends = f", {found.documents:,} of them ends of documents" if found.documents is not None else ""
    print(f"{found.tokens:,} tokens of {found.vocabulary:,} ({found.tokenizer}){ends}")
    print(
        f"{found.characters_per_token:.4g} characters and {found.bytes_per_token:.4g} bytes a token"
    )
    print(f"{found.used:,} of the vocabulary occur; {found.unknown:,} characters are unknown")
    print("most frequent:", ", ".join(f"{text!r} {count:,}" for text, count in found.most_frequent))
    print("begins:", " ".join(map(repr, found.beginning)))
