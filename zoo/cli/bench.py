"""zoo bench"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.console import note, print_rows
from zoo.cli.doctor import dependency_versions
from zoo.cli.settings import exporter_option, runtime_option
from zoo.config import PROVIDERS
from zoo.inference.urls import shown_source

if TYPE_CHECKING:
    from zoo.benchmarking.benchmark import Row
    from zoo.benchmarking.roofline import Limits


@click.command()
@click.argument("source")
@click.option("--batch", "batches", type=click.IntRange(min=1), multiple=True,
              default=(1, 16, 256), show_default=True,
              help="Rows to compute together; may be given again.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True,
              help="Rounds; each measures every workload once.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=0.2,
              show_default=True, help="Seconds for each workload in a round.")  # fmt: skip
@click.option("--provider", type=click.Choice(PROVIDERS), default="auto",
              show_default=True,
              help="Where to run: auto is the CPU, and CUDA where it runs.")  # fmt: skip
@click.option("--compile/--no-compile", "compiled", default=True, show_default=True,
              help="Try torch.compile too, for a minute at most for each batch size.")  # fmt: skip
@exporter_option
@runtime_option
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png",
              help="Draw the speeds.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True,
              help="Print an object of exact numbers: the machine, and the rows.")  # fmt: skip
def command(source: str, plot: Path | None, as_json: bool, **settings: Any) -> None:
    """Measure how many tokens per second SOURCE gives in each workload.

    SOURCE is a run folder, a folder of exported files, or one of them. Of a run, what is not in its
    folder `export` is exported for the measurement, and PyTorch is measured too. A CPU is measured
    with one thread and with one for each core. Tokens are written at temperature 1, or, by
    "PyTorch forward" and the sequence graph, read 64 at a time.

    Each round measures every workload, and the machine's limits. The table shows the median of the
    rounds, their extremes, the ratio to PyTorch's loop (or its forward pass, where tokens are
    read), and the share of the limit that binds: of the speed at which memory gives as many bytes
    as the weights are, once for each step, or of the speed of a matrix product in float32. The
    share can exceed 1 in int8, and where tokens are read, as then a step need not wait for the one
    before.

    Nothing else should run meanwhile: threads that wait for each other suffer most from it.
    """
    from zoo.benchmarking.benchmark import Benchmark, benchmark_events

    if plot is not None and (plot.suffix != ".png" or not plot.parent.is_dir()):
        raise click.BadParameter(
            "must be a .png file in a folder that exists.", param_hint="--plot"
        )
    for event in benchmark_events(source, **settings):
        if isinstance(event, Benchmark):
            found = event
        else:
            note(event)
    title = f"{found.machine['processor']}, {found.machine['cores']} cores"
    load = found.machine["load"]
    note(title if load is None else f"{title}; load {load:.1f} when this began")
    for limits in found.limits:
        note(_describe(limits, found.multiply_adds))
    if as_json:
        exact = {
            "machine": {**found.machine, "versions": dict(dependency_versions())},
            "multiply_adds": found.multiply_adds,
            "limits": [_flat(entry) for entry in found.limits],
            "rows": [_flat(row) for row in found.rows],
        }
        print(json.dumps(exact, indent=2))
    else:
        print_rows([_shown(row) for row in found.rows], as_json=False)
    if plot is not None:
        from zoo.benchmarking.plot import draw_speeds

        draw_speeds(found.rows, plot, f"{Path(shown_source(source)).name} on {title}")


def _flat(entry: Limits | Row) -> dict[str, Any]:
    found = asdict(entry)
    return {**found.pop("target"), **found}


def _describe(limits: Limits, multiply_adds: int) -> str:
    speeds = limits.multiply_adds_per_second
    products = ", ".join(f"{2e-9 * speed:,.0f}" for speed in speeds.values())
    return (
        f"{limits.target}: reads {4e-6 * multiply_adds:.3g} MB of weights at "
        f"{1e-9 * limits.bytes_per_second:.3g} GB/s, multiplies at {products} GFLOP/s "
        f"(batch {', '.join(map(str, speeds))})"
    )


def _shown(row: Row) -> dict[str, str]:
    speeds = (row.tokens_per_second, row.lowest, row.highest)
    speed, lowest, highest = ("" if speed is None else f"{speed:,.0f}" for speed in speeds)
    shares = {"memory": row.memory_share, "arithmetic": row.arithmetic_share}
    known = {limit: share for limit, share in shares.items() if share is not None}
    binding = max(known, key=known.__getitem__, default="")
    return {
        "workload": row.workload,
        "on": str(row.target),
        "batch": str(row.batch),
        "tokens_per_second": speed,
        "lowest": lowest,
        "highest": highest,
        "ratio": "" if row.ratio is None else f"{row.ratio:.2f}",
        "share of the limit": row.reason or (f"{binding} {known[binding]:.2f}" if known else ""),
    }
