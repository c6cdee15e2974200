"""zoo export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli.console import note

if TYPE_CHECKING:
    from zoo.proof import Proof


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--graph", default="step", show_default=True, help="Which graph to write.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; else RUN/export.")
def command(run: Path, graph: str, out: Path | None) -> None:
    """Export a trained RUN, prove the file against PyTorch, and print its path."""
    from zoo.exporter import export

    exported = export(run, graph, out)
    proof = exported.info.proof
    assert proof is not None
    note(describe_proof(proof))
    print(exported.path)


def describe_proof(proof: Proof) -> str:
    """A proof in two lines."""
    batches = " and ".join(map(str, proof.batch_sizes))
    lines = (
        f"proved over {proof.steps} steps at batch sizes {batches}: largest difference "
        f"{proof.difference:.1e} from the same state, {proof.drift:.1e} running freely"
    )
    if proof.amplifies:
        lines += (
            f"\nthis model amplifies rounding (its own float32 and float64 runs part by "
            f"{proof.float64_gap:.1e}): long texts may differ between runtimes"
        )
    return lines
