"""zoo new"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; else NAME here.")
def command(name: str, out: Path | None) -> None:
    """Write a package with a new cell NAME (kebab-case) that works as it stands."""
    from zoo.scaffold import write_package

    folder = out or Path(name)
    for path in write_package(name, folder):
        print(path)
    print(f"next: pip install --editable {folder}; zoo check {name}; zoo train --cell {name}")
