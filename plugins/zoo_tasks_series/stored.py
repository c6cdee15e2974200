"""Data that packages ship: handwritten digits, and series that were measured."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from zoo.tasks import Batch, Part, Task
from zoo_tasks_series.chaos import Ahead, Length, forecast

SHARES: dict[Part, tuple[float, float]] = {
    "training": (0.0, 0.7),
    "validation": (0.7, 0.85),
    "test": (0.85, 1.0),
}
Array = npt.NDArray[Any]


def part_of(items: Array, part: Part) -> Array:
    """The share of the items that belongs to a part: no item belongs to two."""
    first, last = (round(share * len(items)) for share in SHARES[part])
    return items[first:last]


@cache
def digit_images() -> tuple[Array, Array]:
    """Images [1797, 8, 8] of values from 0 to 1, and what they show, in a fixed random order."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    return digits.images[order] / 16, digits.target[order]


class Digits(Task):
    """Images of 8 × 8 in, row by row or pixel by pixel in one random order; after the last, the
    digit out."""

    classes = 10

    def __init__(self, pixels: Literal["rows", "permuted"] = "rows") -> None:
        images, labels = digit_images()
        shape = (8, 8) if pixels == "rows" else (64, 1)
        order = slice(None) if pixels == "rows" else np.random.default_rng(1).permutation(64)
        self._images = images.reshape(-1, 64)[:, order].reshape(-1, *shape).astype(np.float32)
        self._labels = labels
        self.features = shape[1]
        self.training, self.tests = {}, {"images kept apart": {}}

    def batch_of(self, part: Part, rng: np.random.Generator, rows: int, **setting: int) -> Batch:
        images, labels = part_of(self._images, part), part_of(self._labels, part)
        chosen = rng.integers(0, len(images), rows)
        inputs = images[chosen].swapaxes(0, 1)
        targets, counted = np.zeros(inputs.shape[:2], np.int64), np.zeros(inputs.shape[:2], bool)
        targets[-1], counted[-1] = labels[chosen], True
        return Batch(inputs, targets, counted)


def digits_rows() -> Digits:
    return Digits("rows")


def digits_permuted() -> Digits:
    return Digits("permuted")


class MeasuredSeries(Task):
    """A series that was measured, in standard units of its first part, in; what it is some steps
    later out. The parts follow each other in time."""

    features = numbers = 1

    def __init__(self, series: Array, longest: int, ahead: int) -> None:
        past = part_of(series, "training")
        self._series = (series - past.mean()) / past.std()
        self._ahead = ahead
        self.training = {"length": longest}
        self.tests = {"the last years": {"length": longest}}

    def batch_of(self, part: Part, rng: np.random.Generator, rows: int, **setting: int) -> Batch:
        own, length = part_of(self._series, part), setting["length"] + self._ahead
        length = min(length, len(own) - 1)
        starts = rng.integers(0, len(own) - length + 1, rows)
        windows = own[np.arange(length)[:, None] + starts]
        return forecast(windows[..., None], self._ahead)


def sunspots(longest: Length = 40, ahead: Ahead = 1) -> MeasuredSeries:
    """The yearly number of sunspots since 1700."""
    from statsmodels.datasets import sunspots as shipped

    return MeasuredSeries(np.asarray(shipped.load_pandas().data["SUNACTIVITY"]), longest, ahead)


def carbon_dioxide(longest: Length = 104, ahead: Ahead = 4) -> MeasuredSeries:
    """The change of carbon dioxide above Mauna Loa from week to week, 1958 to 2001."""
    from statsmodels.datasets import co2 as shipped

    weekly = shipped.load_pandas().data["co2"].interpolate()
    return MeasuredSeries(np.diff(weekly.to_numpy()), longest, ahead)
