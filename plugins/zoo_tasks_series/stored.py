"""Data that packages ship, or the Hub: handwritten digits, and series that were measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from zoo import UsageError, ZooError
from zoo.tasks import Batch, Part, Task
from zoo_tasks_series.chaos import Ahead, Length, forecast

SHARES: dict[Part, tuple[float, float]] = {
    "training": (0.0, 0.7),
    "validation": (0.7, 0.85),
    "test": (0.85, 1.0),
}
Array = npt.NDArray[Any]
Images = dict[Part, tuple[Array, Array]]
Pixels = Literal["rows", "pixels", "permuted"]
MNIST = "ylecun/mnist"  # of the Hub


def part_of(items: Array, part: Part) -> Array:
    """The share of the items that belongs to a part: no item belongs to two."""
    first, last = (round(share * len(items)) for share in SHARES[part])
    return items[first:last]


class LabelledImages(Task):
    """Square images in, row by row or pixel by pixel, these in their own or in one random order;
    after the last, what the image shows out."""

    classes = 10

    def __init__(
        self, images: Callable[[], Images], size: int, largest: int, pixels: Pixels
    ) -> None:
        """`images` gives values from 0 to `largest` [N, size, size], with the class of each [N]. It
        is called when they are first needed."""
        self._images, self._largest = images, np.float32(largest)
        self.features = size if pixels == "rows" else 1
        self._shape = (size**2 // self.features, self.features)
        shuffled = np.random.default_rng(1).permutation(size**2)
        self._order = shuffled if pixels == "permuted" else np.arange(size**2)
        self.training, self.tests = {}, {"images kept apart": {}}

    def batch_of(self, part: Part, rng: np.random.Generator, rows: int, **setting: int) -> Batch:
        images, labels = self._images()[part]
        chosen = rng.integers(0, len(images), rows)
        values = images[chosen].reshape(rows, -1)[:, self._order] / self._largest
        inputs = values.reshape(rows, *self._shape).swapaxes(0, 1)
        targets, counted = np.zeros(inputs.shape[:2], np.int64), np.zeros(inputs.shape[:2], bool)
        targets[-1], counted[-1] = labels[chosen], True
        return Batch(inputs, targets, counted)


@cache
def digit_images() -> Images:
    """1,797 images of handwritten digits, 8 × 8, in a fixed random order."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = digits.images[order].astype(np.float32), digits.target[order]
    return {part: (part_of(images, part), part_of(labels, part)) for part in SHARES}


def digits_rows() -> LabelledImages:
    digit_images()  # says here if the package is missing
    return LabelledImages(digit_images, 8, 16, "rows")


def digits_permuted() -> LabelledImages:
    digit_images()
    return LabelledImages(digit_images, 8, 16, "permuted")


@cache
def mnist_images() -> Images:
    """The 70,000 images of MNIST, 28 × 28, from the Hub: its 10,000 for tests, and for validation
    the last 5,000 of the others. ZooError where they cannot be had."""
    import datasets

    def read(split: str) -> tuple[Array, Array]:
        try:
            rows = datasets.load_dataset(MNIST, split=split).with_format("numpy")[:]
        except Exception as error:  # of many kinds, from many packages
            told = " ".join(str(error).split())
            raise ZooError(f"hf:{MNIST} cannot be read: {told}") from None
        return np.asarray(rows["image"], np.uint8), np.asarray(rows["label"])

    (images, labels), kept = read("train"), 5_000
    return {
        "training": (images[:-kept], labels[:-kept]),
        "validation": (images[-kept:], labels[-kept:]),
        "test": read("test"),
    }


def mnist(pixels: Pixels = "pixels") -> LabelledImages:
    import datasets  # noqa: F401

    return LabelledImages(mnist_images, 28, 255, pixels)


class MeasuredSeries(Task):
    """A series that was measured, in standard units of its first part, in; what it is some steps
    later out. The parts follow each other in time."""

    features = numbers = 1

    def __init__(self, series: Array, longest: int, ahead: int) -> None:
        shortest = min(len(part_of(series, part)) for part in SHARES)
        if longest + ahead >= shortest:
            raise UsageError(f"longest and ahead must be below {shortest} together, here.")
        past = part_of(series, "training")
        self._series = (series - past.mean()) / past.std()
        self._ahead = ahead
        self.training = {"length": longest}
        self.tests = {"the last years": {"length": longest}}

    def batch_of(self, part: Part, rng: np.random.Generator, rows: int, **setting: int) -> Batch:
        own, length = part_of(self._series, part), setting["length"] + self._ahead
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
