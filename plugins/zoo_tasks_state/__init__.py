"""Tasks of state tracking: what a cell's transitions can follow, whatever its memory."""

from collections.abc import Iterable

from zoo import hookimpl
from zoo.registry import TaskSpec
from zoo_tasks_state.cards import PARITY

MODULE = "zoo_tasks_state"


@hookimpl
def zoo_tasks() -> Iterable[TaskSpec]:
    return [TaskSpec("parity", f"{MODULE}.automata:Parity", PARITY, full={"longest": 40})]
