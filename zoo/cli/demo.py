"""zoo demo"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from zoo.cli.console import note


@click.command()
@click.option("--minutes", type=float, default=1.0, show_default=True, help="Time to train.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; else one under runs/.")
def command(minutes: float, out: Path | None) -> None:
    """From a text to ONNX Runtime: train for a minute, export, prove, generate."""
    from zoo.cli.export import describe_proof
    from zoo.cli.generate import print_stream
    from zoo.cli.progress import show
    from zoo.exporting.export import export
    from zoo.inference.runtime import open_source
    from zoo.runs.run import PLOT, free_folder
    from zoo.training.experiment import train_events

    out = out or free_folder("demo")
    note(f"$ zoo train --minutes {minutes:g} --out {out}")
    events = train_events(minutes=minutes, out=out)
    with closing(events):  # type: ignore[type-var]
        out = show(events) or out
    note(f"the curve is drawn in {out / PLOT}")
    note(f"$ zoo export {out}")
    exported = export(out)
    assert exported.info.proof is not None
    note(f"{exported.path.name}: {describe_proof(exported.info.proof)}")
    note(f"$ zoo generate {exported.path} --temperature 0.6")
    print_stream(open_source(exported.path), None, 400, temperature=0.6)
    note(f"next: `zoo serve {exported.path}` serves it, with a page to type into;")
    note(f"`zoo export {out} --to web` writes a page that any web server can show")
