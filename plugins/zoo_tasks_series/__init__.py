"""Series: chaotic ones, and data that packages ship (of the extra `tasks`) or the Hub
(`datasets`)."""

from collections.abc import Iterable

from zoo import hookimpl
from zoo.registry import TaskSpec, Trial
from zoo_tasks_series import cards

CHAOS, STORED = "zoo_tasks_series.chaos", "zoo_tasks_series.stored"


@hookimpl
def zoo_tasks() -> Iterable[TaskSpec]:
    longer = {"longest": 1000}
    return [
        TaskSpec(
            "mackey-glass",
            f"{CHAOS}:MackeyGlass",
            cards.MACKEY_GLASS,
            full=longer,
            trial=Trial(500),
        ),
        TaskSpec("lorenz", f"{CHAOS}:Lorenz", cards.LORENZ, full=longer),
        TaskSpec("digits-rows", f"{STORED}:digits_rows", cards.DIGITS_ROWS),
        TaskSpec("digits-permuted", f"{STORED}:digits_permuted", cards.DIGITS_PERMUTED),
        TaskSpec("mnist", f"{STORED}:mnist", cards.MNIST),
        TaskSpec("sunspots", f"{STORED}:sunspots", cards.SUNSPOTS),
        TaskSpec("carbon-dioxide", f"{STORED}:carbon_dioxide", cards.CARBON_DIOXIDE),
    ]
