"""zoo verify"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from zoo.cli.console import print_rows
from zoo.cli.export import describe_proof
from zoo.cli.settings import exporter_option, provider_option, runtime_option
from zoo.config import DEFAULT_MAX_COST, DEFAULT_MAX_LOSS
from zoo.errors import UsageError
from zoo.inference.urls import shown_source

OF_RUNS = "length", "seeds", "temperature", "max_loss", "runtime"


@click.command()
@click.argument("file")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    required=True,
    help="The run it came from; of a module, the Python file (.py) that defines it.",
)
@click.option("--length", type=click.IntRange(min=1), default=2000, show_default=True,
              help="Tokens of each text.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=0), default=5, show_default=True,
              help="Texts that are drawn, beside the greedy one.")  # fmt: skip
@click.option("--temperature", type=float, default=0.8, show_default=True,
              help="Temperature at which they are drawn.")  # fmt: skip
@click.option("--max-loss", type=click.FloatRange(min=0), default=DEFAULT_MAX_LOSS,
              show_default=True,
              help="Most that a lower precision may cost: in bits per token, or on a task in "
              "accuracy.")  # fmt: skip
@click.option("--max-cost", type=click.FloatRange(min=0),
              show_default=f"the Python file's, else {DEFAULT_MAX_COST}",
              help="The same of a module, as a share of its outputs' size.")  # fmt: skip
@provider_option
@exporter_option
@runtime_option
def command(
    file: str,
    against: Path,
    length: int,
    seeds: int,
    temperature: float,
    max_loss: float,
    max_cost: float | None,
    provider: str,
    exporter: str | None,
    runtime: str | None,
) -> None:
    """Prove an exported FILE against its run or its module: step by step and, if it generates text
    in full precision, by the texts of both. A module's FILE, of `zoo export-module`, gets other
    inputs than those of its own proof."""
    if against.suffix == ".py":
        _require_not_given(OF_RUNS, "language models", file, against)
        _verify_module(file, against, provider, max_cost, exporter)
        return
    _require_not_given(("max_cost",), "modules", file, against)
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


def _verify_module(
    file: str, against: Path, provider: str, max_cost: float | None, exporter: str | None
) -> None:
    from zoo.exporting.exporter import find_module_exporter
    from zoo.exporting.modules import read_module_spec
    from zoo.inference.runtime import local_file
    from zoo.registry.registry import load_registry

    registry = load_registry()
    path = local_file(file, registry)
    with read_module_spec(against) as module:
        if max_cost is not None:
            module = replace(module, max_cost=max_cost)
        verifier = find_module_exporter(registry, exporter, file=path)
        proof = verifier.verify(path, module, provider)
    print(describe_proof(proof, chunks=module.sequence))


def _require_not_given(options: tuple[str, ...], of: str, file: str, against: Path) -> None:
    context = click.get_current_context()
    for name in options:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise UsageError(
                f"--{name.replace('_', '-')} is for {of}, and {shown_source(file)} is compared "
                f"with {against}."
            )
