"""Tasks of state tracking, stacks and counting: what a cell's transitions can follow, whatever its
memory."""

from collections.abc import Iterable

from zoo import hookimpl
from zoo.registry import TaskSpec, Trial
from zoo_tasks_state import cards

AUTOMATA, LANGUAGES = "zoo_tasks_state.automata", "zoo_tasks_state.languages"


@hookimpl
def zoo_tasks() -> Iterable[TaskSpec]:
    return [
        TaskSpec(
            "parity",
            f"{AUTOMATA}:Parity",
            cards.PARITY,
            full={"longest": 40, "end": True},
            trial=Trial(1000, quick=True),
        ),
        TaskSpec(
            "modular-arithmetic",
            f"{AUTOMATA}:ModularArithmetic",
            cards.MODULAR_ARITHMETIC,
            full={"longest": 20, "end": True},
            trial=Trial(2500, quick=True),
        ),
        TaskSpec(
            "modular-arithmetic-brackets",
            f"{LANGUAGES}:Brackets",
            cards.BRACKETS,
            full={"operations": 10, "end": True},
        ),
        TaskSpec(
            "s3",
            f"{AUTOMATA}:words_s3",
            cards.S3,
            full={"longest": 256},
            trial=Trial(1500, quick=True),
        ),
        TaskSpec("a5", f"{AUTOMATA}:words_a5", cards.A5, full={"longest": 256}, trial=Trial(1500)),
        TaskSpec("s5", f"{AUTOMATA}:words_s5", cards.S5, full={"longest": 256}),
        TaskSpec(
            "dyck",
            f"{LANGUAGES}:Dyck",
            cards.DYCK,
            full={"longest": 100, "depth": 5},
            trial=Trial(1000),
        ),
        TaskSpec(
            "counting", f"{LANGUAGES}:Counting", cards.COUNTING, full={"most": 40}, trial=Trial(500)
        ),
    ]
