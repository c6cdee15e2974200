"""zoo show"""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.console import note
from zoo.errors import UsageError
from zoo.inference.urls import is_url, shown_source
from zoo.registry.registry import Registry, load_registry
from zoo.registry.specs import STANDARD

REFERENCE = 256  # inputs and hidden units that the costs are also given for, in numbers
COSTS = {
    "parameters": "parameters",
    "state_bytes": "bytes of state per stream",
    "operations": "operations per token",
}


@click.command()
@click.argument("shown", metavar="CELL|FILE")
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE",
              help="Draw the dataflow of a step too: a .png, .svg or .pdf file.")  # fmt: skip
def command(shown: str, picture: Path | None) -> None:
    """Show a cell's card: its equations, state, costs and options; or what an exported file is."""
    registry = load_registry()
    if shown in registry.cells or not is_file(shown):
        show_cell(shown, picture, registry)
    elif picture is not None:
        raise UsageError("a picture is drawn of a cell; leave out --picture, or name the cell.")
    else:
        show_file(shown, registry)


def is_file(shown: str) -> bool:
    return is_url(shown) or Path(shown).is_file()


def show_file(path: str, registry: Registry) -> None:
    """Prints what an exported model says about itself."""
    from zoo.cli.export import describe_proof
    from zoo.inference.runtime import open_artifact

    info = open_artifact(path, "cpu", registry).info
    model, ends = info.model, info.ends
    of_text = info.tokenizer is not None
    reads = f"a vocabulary of {ends.outputs}"
    if not of_text:
        reads = f"{ends.inputs} {ends.reads} in, {ends.outputs} {ends.gives} out"
    layers = f"{model.layers} layers of " if model.layers > 1 else ""
    options = "".join(f" {name}={value}" for name, value in model.options.items())
    needs = "any ONNX runtime" if info.operators == STANDARD else "operators of one runtime too"
    lines = [
        f"{shown_source(path)}: the graph {info.graph!r} of "
        + ("a language model" if of_text else f"a model of {info.training.corpus}"),
        "",
        f"cell         {model.cell}{options}",
        f"size         {layers}{model.hidden} units, {reads}",
        f"precision    {info.precision}",
        f"operators    {info.operators}: for {needs}",
        "state        " + ", ".join(f"{x.name} {list(x.shape)} {x.dtype}" for x in info.state),
    ]
    if info.proof is not None:
        lines += ["", describe_proof(info.proof)]
    print("\n".join(lines))


def show_cell(cell: str, picture: Path | None, registry: Registry) -> None:
    """Prints a cell's card."""
    from zoo.introspection.cost import cost_at, cost_formulas
    from zoo.introspection.diagram import draw_cell
    from zoo.introspection.state import describe_state

    spec = registry.cells[cell]
    if picture is not None:
        draw_cell(spec, picture, registry)
        note(f"the dataflow of a step is drawn in {picture}")
    card = spec.card
    formulas = cost_formulas(spec, registry)
    width = max(len(formulas[name]) for name in COSTS)
    sizes = spec.sizes_taken({}, registry)
    some_only = any(size not in sizes for size in range(1, REFERENCE))
    hidden = sizes.at_least(REFERENCE)
    example = cost_at(spec, REFERENCE, hidden, registry)
    units = "inputs and hidden units" if hidden == REFERENCE else f"inputs, {hidden} hidden units"
    lines = [
        f"{spec.name}: {card.title}",
        f"{card.authors} ({card.year}). {card.paper}.",
        "",
        *(f"    {equation}" for equation in card.equations),
        "",
        "state",
        *(
            f"    {leaf.name}  {leaf.shape}  {leaf.meaning}"
            for leaf in describe_state(spec, registry)
        ),
        f"costs, and with {REFERENCE} {units}",
        *(
            f"    {meaning:<25}  {formulas[name]:<{width}}  {getattr(example, name):,}"
            for name, meaning in COSTS.items()
        ),
        "options",
        *(
            f"    {option.name}={option.default}  ({option.type_name})  {option.help}"
            for option in spec.options().values()
        ),
        *([f"takes hidden sizes {sizes} with its default options"] if some_only else []),
        "",
        f"causal: {'yes' if spec.causal else 'no'}",
        f"trains in parallel over time: {'yes' if card.parallel else 'no'}",
        f"from: {registry.cells.origin(cell)}; licence: {card.licence}",
    ]
    if card.checked_against:
        lines += ["", f"Checked against {card.checked_against}."]
    if card.notes:
        lines += ["", card.notes]
    print("\n".join(lines))
