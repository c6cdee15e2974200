"""Tasks of memory: what a cell's state holds, for how long, and how it is found again."""

from collections.abc import Iterable

from zoo import hookimpl
from zoo.registry import TaskSpec, Trial
from zoo_tasks_memory import cards

COPYING, RECALL = "zoo_tasks_memory.copying", "zoo_tasks_memory.recall"


@hookimpl
def zoo_tasks() -> Iterable[TaskSpec]:
    mad = {"longest": 128}
    return [
        TaskSpec(
            "copying",
            f"{COPYING}:Copying",
            cards.COPYING,
            full={"blanks": 500},
            trial=Trial(400, {"blanks": 200}, quick=True),
        ),
        TaskSpec(
            "selective-copying",
            f"{COPYING}:SelectiveCopying",
            cards.SELECTIVE_COPYING,
            full={"longest": 4096, "symbols": 16},
            trial=Trial(1000),
        ),
        TaskSpec(
            "induction",
            f"{RECALL}:Induction",
            cards.INDUCTION,
            full={"longest": 256},
            trial=Trial(1000),
        ),
        TaskSpec(
            "mqar",
            f"{RECALL}:MultiQueryRecall",
            cards.MQAR,
            full={"pairs": 64, "vocab": 8192},
            trial=Trial(1000, {"pairs": 8}, quick=True),
        ),
        TaskSpec("fuzzy-recall", f"{RECALL}:fuzzy_recall", cards.FUZZY_RECALL, full=mad),
        TaskSpec("noisy-recall", f"{RECALL}:noisy_recall", cards.NOISY_RECALL, full=mad),
        TaskSpec("compression", f"{COPYING}:Compression", cards.COMPRESSION, full={"longest": 32}),
        TaskSpec(
            "adding",
            f"{COPYING}:Adding",
            cards.ADDING,
            full={"longest": 300},
            trial=Trial(1000, quick=True),
        ),
        TaskSpec(
            "delayed-match",
            f"{COPYING}:DelayedMatch",
            cards.DELAYED_MATCH,
            full={"longest": 200},
            trial=Trial(500),
        ),
    ]
