"""zoo export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli.console import note
from zoo.cli.settings import RegisteredOption, WrittenOption, exporter_option, runtime_option
from zoo.config import DEFAULT_MAX_LOSS
from zoo.errors import UsageError
from zoo.registry.specs import ALL, AUTO, FULL, STANDARD

if TYPE_CHECKING:
    from zoo.inference.artifact import Proof


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--graph",
    cls=WrittenOption,
    words="graphs",
    metavar="NAME",
    help="Kind of graph, or 'all' for every one that the model can have; step without it",
)
@click.option(
    "--precision",
    default=FULL,
    show_default=True,
    cls=WrittenOption,
    words="precisions",
    metavar="NAME",
    help="Of matrix products",
)
@click.option(
    "--operators",
    default=AUTO,
    cls=WrittenOption,
    words="operators",
    metavar="NAME",
    help="standard runs anywhere; others are a runtime's own. Without it, the fastest that the "
    "installed runtime has",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(min=0),
    default=DEFAULT_MAX_LOSS,
    show_default=True,
    help="Most that a lower precision may cost: in bits per token, or on a task in accuracy.",
)
@click.option(
    "--to",
    cls=RegisteredOption,
    table="packages",
    metavar="PACKAGE",
    help="Write a package of several files instead",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder; else RUN/export, or of a package RUN/export/PACKAGE.",
)
@exporter_option
@runtime_option
def command(
    run: Path,
    graph: str | None,
    precision: str,
    operators: str,
    max_loss: float,
    to: str | None,
    out: Path | None,
    exporter: str | None,
    runtime: str | None,
) -> None:
    """Export a trained RUN, prove each file against PyTorch, and print its path."""
    from zoo.exporting.export import export_all

    if to is not None:
        from zoo.exporting.packaging import package

        if graph is not None:
            raise UsageError("a package has graphs of its own; leave out --graph or --to.")
        if operators not in (AUTO, STANDARD):
            raise UsageError("a package is to run anywhere; leave out --operators or --to.")
        print(package(run, to, precision, max_loss, out, exporter=exporter, runtime=runtime))
        return
    graph = graph or "step"
    graphs = None if graph == ALL else (graph,)
    written = export_all(
        run, graphs, precision, max_loss, out,
        operators=operators, exporter=exporter, runtime=runtime,
    )  # fmt: skip
    for exported in written:
        proof = exported.info.proof
        assert proof is not None
        note(f"{exported.path.name}: {describe_proof(proof)}")
        if exported.info.operators != STANDARD:
            note(
                f"it has operators of one runtime ({exported.info.operators}); for others export "
                f"with --operators standard"
            )
        print(exported.path)


def describe_proof(proof: Proof, chunks: bool = False) -> str:
    """A proof in a line or two; `chunks` for one whose steps are chunks of a sequence."""
    batches = " and ".join(map(str, proof.batch_sizes))
    lines = (
        f"proved over {proof.steps} {'chunks' if chunks else 'steps'} at batch sizes {batches}: "
        f"largest difference {proof.difference:.1e} from the same state"
    )
    if proof.drift is not None:
        lines += f", {proof.drift:.1e} free-running"
    if proof.ties:
        lines += f", {proof.ties} rounding ties"
    if proof.cost_bits is not None:
        lines += (
            f"\nthe precision costs {proof.cost_bits:+.4f} bits per token "
            f"({proof.cost_measured_on})"
        )
    if proof.cost is not None:
        lines += f"\nthe precision costs {proof.cost:.2g} ({proof.cost_measured_on})"
    if proof.amplifies:
        lines += (
            f"\nthis model amplifies rounding (its own float32 and float64 runs differ by up to "
            f"{proof.float64_gap:.1e}): long texts may differ between runtimes"
        )
    return lines
