"""zoo fill"""

from __future__ import annotations

import click

from zoo.cli.console import print_rows
from zoo.cli.settings import runtime_option


@click.command()
@click.argument("source")
@click.argument("text")
@click.option(
    "--mask", default="_", show_default=True, help="The character that stands for a masked token."
)
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Candidates to show."
)
@runtime_option
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(
    source: str, text: str, mask: str, top: int, runtime: str | None, as_json: bool
) -> None:
    """Fill the masked characters of TEXT ("time tra___er") with a non-causal model: a run
    folder, or the sequence graph exported from one."""
    from zoo.inference.infilling import fill
    from zoo.inference.runtime import open_source

    if len(mask) != 1:
        raise click.BadParameter("must be one character.", param_hint="'--mask'")
    filled = fill(open_source(source, runtime=runtime), text, mask, top)
    if as_json:
        rows = [
            {"position": found.position, "candidates": list(found.candidates)}
            for found in filled.masked
        ]
        print_rows([{"text": filled.text, "masked": rows}], as_json)
        return
    print(filled.text)
    for found in filled.masked:
        shown = "  ".join(f"{token!r} {share:.3f}" for token, share in found.candidates)
        print(f"{found.position:>4}  {shown}")
