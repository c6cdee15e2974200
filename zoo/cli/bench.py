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
@click.option("--threads", type=click.IntRange(min=1), multiple=True,
              help="Threads on a CPU; may be given again.  [default: 1, and one for each core]",
              )  # fmt: skip
@click.option("--compile/--no-compile", "compiled", default=True, show_default=True,
              help="Try torch.compile too, for a minute at most for each batch size.")  # fmt: skip
@exporter_option
@runtime_option
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png",
              help="Draw the speeds.")  # fmt: skip
@click.option("--roofline", type=click.Path(path_type=Path), metavar="FILE.png",
              help="Draw the speeds beneath the machine's limits.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True,
              help="Print exact numbers: the machine, its limits, and the rows.")  # fmt: skip
def command(
    source: str, plot: Path | None, roofline: Path | None, as_json: bool, **settings: Any
) -> None:
    """Measure how many tokens per second SOURCE gives in each workload.

    SOURCE is a run folder, a folder of exported files, or one of them. Of a run, what is not in its
    folder `export` is exported for the measurement, and PyTorch is measured too. Tokens are
    written at temperature 1, or, by "PyTorch forward" and the sequence graph, read 64 at a time.

    Each round measures every workload, and the machine's limits. The table shows the median of the
    rounds, their extremes, and the ratios to PyTorch: to its eager loop (or its forward pass, where
    tokens are read) and to the loop through torch.compile. The limit is the tokens per second that
    the machine allows at most: memory has to give the weights once for each step (once for each 64,
    where tokens are read) and take the state, and the products must be computed. The share is the
    speed as a part of the limit; what is below that of "PyTorch product" has time to lose outside
    of the products.

    Nothing else should run meanwhile: threads that wait for each other suffer most from it.
    """
    from zoo.benchmarking.benchmark import Benchmark, benchmark_events

    for option, path in {"--plot": plot, "--roofline": roofline}.items():
        if path is not None and (path.suffix != ".png" or not path.parent.is_dir()):
            raise click.BadParameter(
                "must be a .png file in a folder that exists.", param_hint=option
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
        note(_describe(limits))
    if as_json:
        exact = {
            "machine": {**found.machine, "versions": dict(dependency_versions())},
            "work": None if found.work is None else asdict(found.work),
            "limits": [_flat(entry) for entry in found.limits],
            "rows": [_flat(row) for row in found.rows],
        }
        print(json.dumps(exact, indent=2))
    else:
        compiled = any(row.compiled_ratio is not None for row in found.rows)
        print_rows([_shown(row, compiled) for row in found.rows], as_json=False)
    name = Path(shown_source(source)).name
    if plot is not None:
        from zoo.benchmarking.plot import draw_speeds

        draw_speeds(found.rows, plot, f"{name} on {title}")
    if roofline is not None:
        from zoo.benchmarking.roofline_plot import draw_roofline

        draw_roofline(found.rows, found.work, found.limits, roofline, f"{name} on {title}")


def _flat(entry: Limits | Row) -> dict[str, Any]:
    found = asdict(entry)
    return {**found.pop("target"), **found}


def _describe(limits: Limits) -> str:
    return (
        f"{limits.target}, {limits.precision}: reads {1e-6 * limits.weight_bytes:.3g} MB of "
        f"weights at {1e-9 * limits.bytes_per_second:.3g} GB/s, multiplies at "
        f"{2e-9 * limits.multiply_adds_per_second:,.0f} GFLOP/s at most"
    )


def _shown(row: Row, compiled: bool) -> dict[str, str]:
    """The keys are the table's header; that of compiled code is there if some of it was."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:,.0f}"

    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    return {
        "workload": row.workload,
        "on": str(row.target),
        "batch": str(row.batch),
        "tokens per second": number(row.tokens_per_second),
        "lowest": number(row.lowest),
        "highest": number(row.highest),
        "times PyTorch": ratio(row.ratio),
        **({"times compiled": ratio(row.compiled_ratio)} if compiled else {}),
        "limit of the machine": f"{row.limit:,.0f} by {row.limited_by}" if row.limit else "",
        "share of the limit": row.reason or ratio(row.share),
    }
