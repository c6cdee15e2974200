"""zoo score"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.console import print_rows
from zoo.cli.settings import provider_option, runtime_option, settings_options
from zoo.config import setting_fields
from zoo.errors import UsageError

if TYPE_CHECKING:
    from zoo.inference.runtime import Source

READING = {name: setting_fields()[name] for name in ("glob", "field", "encoding")}


@click.command()
@click.argument("source")
@click.argument("corpus")
@click.option(
    "--last",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    help="Score only this share of the text, at its end.",
)
@settings_options(READING)
@provider_option
@runtime_option
@click.option("--json", "as_json", is_flag=True, help="Print an object of exact numbers.")
def command(
    source: str,
    corpus: str,
    last: float,
    provider: str,
    runtime: str | None,
    as_json: bool,
    **reading: Any,
) -> None:
    """Measure how well a run or an exported file predicts CORPUS: anything that `zoo train`
    reads. Of a task (task:NAME) it measures each of its tests."""
    from zoo.inference.runtime import open_source
    from zoo.inference.scoring import score
    from zoo.tasks.named import is_task

    opened = open_source(source, provider, runtime=runtime, scores=True)
    given = {name: value for name, value in reading.items() if value is not None}
    if is_task(corpus):
        if given or last != 1:
            raise UsageError("--last, --glob, --field and --encoding are for texts.")
        _score_task(opened, corpus, as_json)
        return
    found = score(opened, corpus, last=last, **given).model_dump()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    rows = [
        {name: f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
         for name, value in found.items()}
    ]  # fmt: skip
    print_rows(rows, as_json=False)


def _score_task(opened: Source, task: str, as_json: bool) -> None:
    from zoo.inference.task_scoring import score_task

    found = score_task(opened, task)
    if as_json:
        print(json.dumps(found.model_dump(exclude_none=True), indent=2))
        return
    rows: list[dict[str, object]] = []
    for test in found.settings:
        if test.error is not None:
            rows.append({"name": test.name, "error": f"{test.error:.3g}"})
        else:
            rows.append({"name": test.name, "accuracy": f"{test.accuracy:.4f}"})
    print_rows(rows, as_json=False)
