"""zoo corpora"""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.console import note, print_rows
from zoo.cli.settings import settings_options
from zoo.config import setting_fields
from zoo.registry.registry import load_registry

READING = {name: setting_fields()[name] for name in ("glob", "field", "encoding")}


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the named corpora, or add one. Any path of a text is a corpus too, and - is standard
    input."""
    if context.invoked_subcommand is not None:
        return
    from zoo.data.named import named_texts

    rows = [
        {"name": c.name, "tokenizer": c.tokenizer, "licence": c.licence, "title": c.title}
        for c in load_registry().corpora.values()
    ]
    rows += [
        {"name": name, "tokenizer": text.tokenizer, "licence": "", "title": text.path}
        for name, text in named_texts().items()
    ]
    print_rows(rows, as_json)


@command.command("add")
@click.argument("name")
@click.argument("path")
@click.option("--tokenizer", default="char", show_default=True, help="The one to read it with.")
@click.option("--prompt", default="", help="A beginning that suits it; else its own.")
@settings_options(READING)
def add(name: str, path: str, tokenizer: str, prompt: str, **reading: Any) -> None:
    """Give NAME to the text at PATH: anything that `zoo train` reads."""
    from pathlib import Path

    from zoo.data.corpora import load_corpus
    from zoo.data.named import NamedText, add_text, named_texts
    from zoo.data.sources import HUB, STANDARD_INPUT, Reading
    from zoo.data.tokenizer import find_tokenizer
    from zoo.errors import UsageError

    registry = load_registry()
    if path == STANDARD_INPUT or path in registry.corpora or path in named_texts():
        raise UsageError(f"{path!r} is no place where a text stays; give a path or a URL.")
    find_tokenizer(tokenizer, registry)
    how = Reading(**{key: value for key, value in reading.items() if value is not None})
    load_corpus(path, registry, how)  # its faults are said now
    elsewhere = path.startswith(HUB) or "://" in path
    here = path if elsewhere else str(Path(path).expanduser().absolute())
    text = NamedText(path=here, reading=how, tokenizer=tokenizer, prompt=prompt)
    add_text(name, text, registry)
    note(f"{name} is {here}; next: zoo train {name}")


@command.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Forget the NAME of a text that was added; the text stays where it is."""
    from zoo.data.named import remove_text

    remove_text(name)
