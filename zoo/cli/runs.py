"""zoo runs"""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.console import print_rows
from zoo.errors import UsageError


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER (by default runs/) with their best figures."""
    from zoo.runs.metadata import find_records

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; train something, or name the folder of runs.")
    rows = []
    for record in find_records(folder):
        model, last = record.config.model, (record.metrics or [{}])[-1]
        exact = {
            "run": str(record.path),
            "cell": model.cell,
            "layers": model.layers,
            "hidden": model.hidden,
            "corpus": record.config.data.corpus_name,
            "tokens": last.get("tokens"),
            "minutes": last["seconds"] / 60 if last else None,
            "train_perplexity": record.best("train_perplexity"),
            "held_out_bits_per_char": record.best("held_out_bits_per_char"),
            "held_out_accuracy": record.highest("held_out_accuracy"),
            "held_out_error": record.best("held_out_error"),
            "finished": record.finished,
        }
        rows.append(exact if as_json else {key: _shown(value) for key, value in exact.items()})
    print_rows(rows, as_json)


def _shown(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.3f}" if value >= 0.001 or value == 0 else f"{value:.1e}"
    return f"{value:,}" if type(value) is int else value
