"""zoo verify"""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.console import print_rows
from zoo.cli.export import describe_proof
from zoo.cli.settings import exporter_option, provider_option, runtime_option
from zoo.config import DEFAULT_MAX_LOSS


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--against", type=click.Path(path_type=Path), required=True, help="The run it came from."
)
@click.option("--length", type=click.IntRange(min=1), default=2000, show_default=True,
              help="Tokens of each text.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=0), default=5, show_default=True,
              help="Texts that are drawn, beside the greedy one.")  # fmt: skip
@click.option("--temperature", type=float, default=0.8, show_default=True,
              help="Temperature at which they are drawn.")  # fmt: skip
@click.option("--max-loss", type=click.FloatRange(min=0), default=DEFAULT_MAX_LOSS,
              show_default=True,
              help="Most that a lower precision may cost, in bits per token.")  # fmt: skip
@provider_option
@exporter_option
@runtime_option
def command(
    file: Path,
    against: Path,
    length: int,
    seeds: int,
    temperature: float,
    max_loss: float,
    provider: str,
    exporter: str | None,
    runtime: str | None,
) -> None:
    """Prove an exported FILE against its run: step by step and, if it generates in full precision,
    by the texts of both."""
    from zoo.exporting.verification import verify

    result = verify(
        file,
        against,
        provider,
        length=length,
        seeds=seeds,
        temperature=temperature,
        max_loss=max_loss,
        exporter=exporter,
        runtime=runtime,
    )
    print(describe_proof(result.proof))
    rows = []
    for sampling, seed, differences in result.texts:
        rows.append(
            {
                "text": "greedy" if sampling.greedy else f"temperature {sampling.temperature:g}",
                "seed": "" if sampling.greedy else seed,
                "tokens": length,
                "differences": len(differences),
                "margins": ", ".join(f"{d.margin:.1e}" for d in differences[:5]),
            }
        )
    if rows:
        print_rows(rows, as_json=False)
