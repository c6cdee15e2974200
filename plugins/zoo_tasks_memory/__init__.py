"""Tasks of memory: what a cell's state holds, for how long, and how it is found again."""

from collections.abc import Iterable

from zoo import hookimpl
from zoo.registry import TaskSpec
from zoo_tasks_memory import cards

COPYING, RECALL = "zoo_tasks_memory.copying", "zoo_tasks_memory.recall"


@hookimpl
def zoo_tasks() -> Iterable[TaskSpec]:
    mad = {"longest": 128}
    return [
        TaskSpec("copying", f"{COPYING}:Copying", cards.COPYING, full={"blanks": 500}),
        TaskSpec(
            "selective-copying",
            f"{COPYING}:SelectiveCopying",
            cards.SELECTIVE_COPYING,
            full={"longest": 4096, "symbols": 16},
        ),
        TaskSpec("induction", f"{RECALL}:Induction", cards.INDUCTION, full={"longest": 256}),
        TaskSpec(
            "mqar", f"{RECALL}:MultiQueryRecall", cards.MQAR, full={"pairs": 64, "vocab": 8192}
        ),
        TaskSpec("fuzzy-recall", f"{RECALL}:fuzzy_recall", cards.FUZZY_RECALL, full=mad),
        TaskSpec("noisy-recall", f"{RECALL}:noisy_recall", cards.NOISY_RECALL, full=mad),
        TaskSpec("compression", f"{COPYING}:Compression", cards.COMPRESSION, full={"longest": 32}),
        TaskSpec("adding", f"{COPYING}:Adding", cards.ADDING, full={"longest": 300}),
        TaskSpec(
            "delayed-match", f"{COPYING}:DelayedMatch", cards.DELAYED_MATCH, full={"longest": 200}
        ),
    ]
