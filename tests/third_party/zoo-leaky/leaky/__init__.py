"""What the zoo is told about the cell. Keep torch out of this file: `zoo cells` reads it."""

from collections.abc import Iterable

from zoo import CellSpec, ModelCard, StateField, hookimpl


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    return [
        CellSpec(
            name="leaky",
            factory="leaky.cell:Leaky",
            card=ModelCard(
                title="Leaky-integrator network",
                authors="Your name",
                year=2026,
                paper="Where it is described",
                equations=("h_t = (1 - a) h_{t-1} + a tanh(x_t W_x + h_{t-1} W_h + b)",),
                state=(StateField("h", "the leaky average"),),
            ),
        )
    ]
