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
    if name in DataConfig.model_fields and name not in ("corpus", "max_tokens")
}


@click.command()
@click.argument("corpora", metavar="CORPUS...", nargs=-1, required=True)
@settings_options(FIELDS)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(corpora: tuple[str, ...], as_json: bool, **settings: Any) -> None:
    """Show how CORPUS is divided into tokens, and how many there are. `zoo train` with the same
    options finds the tokens in the cache, and encodes nothing again."""
    from zoo.data.statistics import count_tokens

    given = {name: value for name, value in settings.items() if value is not None}
    corpus = corpora if len(corpora) > 1 else corpora[0]
    found = count_tokens(DataConfig.checked(corpus=corpus, **given))
    if as_json:
        print(json.dumps(found.model_dump(), indent=2))
        return
    print(f"{_counted(found.characters, 'character')}, {_counted(found.bytes, 'byte')} in UTF-8")
    ends = ""
    if found.documents is not None:
        ends = f" in {_counted(found.documents, 'document')}, ends included"
    print(
        f"{_counted(found.tokens, 'token')}{ends}; tokenizer {found.tokenizer}, vocabulary "
        f"{found.vocabulary:,}"
    )
    print(
        f"{_counted(found.characters_per_token, 'character')} and "
        f"{_counted(found.bytes_per_token, 'byte')} a token"
    )
    unknown = f"; {_counted(found.unknown, 'unknown character')}" if found.unknown else ""
    print(f"{found.used:,} of the {found.vocabulary:,} tokens of the vocabulary occur{unknown}")
    print("most frequent:", ", ".join(f"{text!r} {count:,}" for text, count in found.most_frequent))
    print("begins:", " ".join(map(repr, found.beginning)))


def _counted(number: float, what: str) -> str:
    """ "1 byte", "4,096 bytes", "0.9818 bytes" """
    shown = f"{number:,}" if isinstance(number, int) else f"{number:.4g}"
    return f"{shown} {what}{'' if shown == '1' else 's'}"
