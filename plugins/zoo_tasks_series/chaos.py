"""Chaotic series, computed as they are needed."""

from __future__ import annotations

from collections import deque
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zoo.tasks import Batch, Task

Floats = npt.NDArray[np.float64]
Ahead = Annotated[int, Field(ge=1, le=1000)]
WARM = 20  # first positions, at which nothing is asked
Length = Annotated[int, Field(ge=2 * WARM + 2, le=2**20)]
SETTLING = 200  # steps that are thrown away


def forecast(series: Floats, ahead: int) -> Batch:
    """From the values [T, B, 1] that come, the value so many steps later."""
    inputs, targets = series[:-ahead], series[ahead:]
    counted = np.zeros(inputs.shape[:2], bool)
    counted[WARM:] = True
    return Batch(inputs.astype(np.float32), targets.astype(np.float32), counted)


class MackeyGlass(Task):
    """The values of the Mackey–Glass equation with a delay of 17 in, the value 15 steps later out,
    in standard units.

        dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x(t)
    """

    features = numbers = 1
    DELAY, SUBSTEPS = 17, 10
    MEAN, SPREAD = 0.93, 0.24

    def __init__(self, longest: Length = 100, ahead: Ahead = 15) -> None:
        self._ahead = ahead
        self.training = {"length": (longest // 2, longest)}
        self.tests = {f"length {n}": {"length": n} for n in (longest, 2 * longest)}

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        history = deque(1.2 + 0.2 * (rng.random((self.DELAY * self.SUBSTEPS, rows)) - 0.5))
        x, found, size = history[-1], [], 1 / self.SUBSTEPS
        for step in range((SETTLING + length + self._ahead) * self.SUBSTEPS):
            late = history.popleft()
            x = x + size * (0.2 * late / (1 + late**10) - 0.1 * x)
            history.append(x)
            if step % self.SUBSTEPS == 0 and step >= SETTLING * self.SUBSTEPS:
                found.append((x - self.MEAN) / self.SPREAD)
        return forecast(np.stack(found)[..., None], self._ahead)


class Lorenz(Task):
    """The first coordinate of the Lorenz system in, every 0.02 of its time, and what it is some
    steps later out, in standard units.

        dx/dt = 10 (y - x),  dy/dt = x (28 - z) - y,  dz/dt = x y - 8/3 z
    """

    features = numbers = 1
    SIZE, SPREAD = 0.02, 7.9

    def __init__(self, longest: Length = 100, ahead: Ahead = 10) -> None:
        self._ahead = ahead
        self.training = {"length": (longest // 2, longest)}
        self.tests = {f"length {n}": {"length": n} for n in (longest, 2 * longest)}

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        point, found = rng.normal(0, 5, (3, rows)) + np.array([[0.0], [0.0], [25.0]]), []
        for step in range(SETTLING + length + self._ahead):
            point = self.later(point)
            if step >= SETTLING:
                found.append(point[0] / self.SPREAD)
        return forecast(np.stack(found)[..., None], self._ahead)

    def later(self, point: Floats) -> Floats:
        """The point a step later, by the classical Runge–Kutta method."""
        size = self.SIZE
        first = _slope(point)
        second = _slope(point + size / 2 * first)
        third = _slope(point + size / 2 * second)
        fourth = _slope(point + size * third)
        after: Floats = point + size / 6 * (first + 2 * second + 2 * third + fourth)
        return after


def _slope(point: Floats) -> Floats:
    x, y, z = point
    return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])
