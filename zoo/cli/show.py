"""zoo show"""

from __future__ import annotations

import click

from zoo.registry import load_registry


@click.command()
@click.argument("cell")
def command(cell: str) -> None:
    """Show a cell's card: its equations, state and options."""
    registry = load_registry()
    spec = registry.cells[cell]
    card = spec.card
    lines = [
        f"{spec.name}: {card.title}",
        f"{card.authors} ({card.year}). {card.paper}.",
        "",
        *(f"    {equation}" for equation in card.equations),
        "",
        "state",
        *(
            f"    {field.name}  [{', '.join(('batch', *field.shape))}]  {field.meaning}"
            for field in card.state
        ),
        "options",
        *(
            f"    {option.name}={option.default}  ({option.type_name})  {option.help}"
            for option in spec.options().values()
        ),
        "",
        f"sees only the past: {'yes' if spec.causal else 'no'}",
        f"trains in parallel over time: {'yes' if card.parallel else 'no'}",
        f"from: {registry.cells.origin(cell)}; licence: {card.licence}",
    ]
    if card.notes:
        lines += ["", card.notes]
    print("\n".join(lines))
