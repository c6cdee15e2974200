"""zoo export-module"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from zoo.cli.console import note
from zoo.cli.export import describe_proof
from zoo.cli.settings import WrittenOption, exporter_option
from zoo.config import DEFAULT_MAX_COST
from zoo.errors import UsageError


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File; else named as SPEC, here.")
@click.option(
    "--precision",
    cls=WrittenOption,
    words="precisions",
    metavar="NAME",
    help="Of matrix products, in place of SPEC's",
)
@click.option(
    "--max-cost",
    type=click.FloatRange(min=0),
    show_default=f"SPEC's, else {DEFAULT_MAX_COST}",
    help="Most that a lower precision may cost, as a share of the outputs' size or by SPEC's "
    "metric.",
)
@exporter_option
def command(
    spec: Path,
    out: Path | None,
    precision: str | None,
    max_cost: float | None,
    exporter: str | None,
) -> None:
    """Export the recurrent module that the Python file SPEC defines, prove it against PyTorch, and
    print the file's path. The module need not be a language model, nor built with the zoo.

    SPEC defines three names: `module`, a torch.nn.Module whose `module(*inputs, state)` returns its
    outputs and the next state; `example_inputs`, a tensor [batch, …] or several; and `state`, the
    state before the first step.

    SPEC may also define other fields of `zoo.exporting.ModuleSpec`: `input_names`, `output_names`,
    `inputs`, `batch_axis`, `independent_rows`, `precision`, `metric` and `max_cost`. A module that
    takes chunks of a sequence has `sequence = True`, or a `time_axis` or `multiple_of`.
    """
    from zoo.exporting.exporter import find_module_exporter
    from zoo.exporting.modules import read_module_spec
    from zoo.registry.registry import load_registry

    given: dict[str, Any] = {"precision": precision, "max_cost": max_cost}
    registry = load_registry()
    with read_module_spec(spec) as module:
        module = replace(module, **{k: value for k, value in given.items() if value is not None})
        writer = find_module_exporter(registry, exporter, precision=module.precision)
        path = out or Path(spec.stem + writer.suffix)
        if path.suffix != writer.suffix or path.is_dir():
            raise UsageError(f"--out {path} should be a file, {path.stem}{writer.suffix}.")
        proof = writer.export(module, path)
    note(f"{path.name}: {describe_proof(proof, chunks=module.sequence)}")
    print(path)
