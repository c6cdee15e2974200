"""The time of a training, and what of a budget in minutes is left for steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from zoo.training.distributed import Processes

ENDING = 1.5  # seconds: for the plot of a run, and for what else follows the last save
EVALUATION_SHARE, LEAST_EVALUATION = 0.025, 0.25  # of the time, for one evaluation; in seconds
SLOWER = 4.0


class Clock:
    """All processes have the time of the first one's. A budget of `minutes` counts from `began`, a
    time of `time.monotonic`, or from `start`; it holds the last evaluation and the last save, so
    the last step ends before it by as long as these have taken."""

    def __init__(self, processes: Processes, minutes: float | None, began: float | None) -> None:
        self._processes = processes
        self._budget = math.inf if minutes is None else 60 * minutes
        self._began = began
        self._zero = time.monotonic()
        self._ending = ENDING
        self.starting = self.evaluating = 0.0  # seconds, for those who want to know
        self.longest_save = self._longest_evaluation = 0.0

    def start(self, seconds: float, new: bool) -> None:
        """Goes on after so many seconds of training; a `new` one at the time since `began`."""
        now = time.monotonic()
        self._zero = now - seconds
        if new and self._began is not None:
            self._zero = self._began
            self.starting = now - self._began

    def tick(self, stop: Callable[[], bool] = lambda: False) -> tuple[float, bool]:
        """The seconds of training by now, and whether to stop: the same in all processes."""
        ending = ENDING + self.longest_save + self._longest_evaluation
        now = time.monotonic() - self._zero
        seconds, stopping, self._ending = self._processes.agree(now, stop(), ending)
        return seconds, bool(stopping)

    @property
    def last_step(self) -> float:
        """The second in which the last step ends."""
        return max(self._budget / 2, self._budget - self._ending)

    def evaluated(self, seconds: float) -> None:
        """Counts an evaluation that took so long."""
        self.evaluating += seconds
        self._longest_evaluation = max(self._longest_evaluation, seconds)

    def longest_evaluation(self, first: bool) -> float:
        """The seconds that one evaluation may take. The `first` finds out how much of the text
        that is, and the others read as much, unless the machine has become so much slower."""
        most = max(LEAST_EVALUATION, EVALUATION_SHARE * self._budget)
        return most if first else SLOWER * most
