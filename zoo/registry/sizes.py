"""Which hidden sizes a cell takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from zoo.config import MAX_HIDDEN
from zoo.errors import UsageError

SHOWN = 3


@dataclass(frozen=True)
class HiddenSizes:
    """The hidden sizes, from 1 to 65,536, that `cell` takes with its options: those of which
    `takes` is true."""

    cell: str
    takes: Callable[[int], bool]

    def __contains__(self, size: int) -> bool:
        return self.takes(size)

    def __str__(self) -> str:
        """The first few: "4, 8, 12, …"."""
        first = list(islice(filter(self.takes, range(1, MAX_HIDDEN + 1)), SHOWN + 1))
        more = ", …" if len(first) > SHOWN else ""
        return ", ".join(map(str, first[:SHOWN])) + more or "none"

    def at_most(self, size: int) -> int:
        """The largest size up to `size`; 0 if there is none."""
        return next(filter(self.takes, range(min(size, MAX_HIDDEN), 0, -1)), 0)

    def at_least(self, size: int) -> int:
        """The smallest size from `size` on, or else the largest there is; UsageError if the cell
        takes no size at all."""
        found = next(filter(self.takes, range(size, MAX_HIDDEN + 1)), 0) or self.at_most(size)
        if not found:
            raise UsageError(f"cell {self.cell!r} takes no hidden size with these options.")
        return found

    def nearest(self, size: int) -> int:
        """The size nearest to `size`; of two as near, the smaller."""
        below, above = self.at_most(size), self.at_least(size)
        return below if below and size - below <= abs(above - size) else above

    def require(self, size: int) -> None:
        """UsageError, with the nearest sizes, for a size that the cell does not take."""
        if size in self:
            return
        around = sorted({self.at_most(size), self.at_least(size)} - {0})
        near = " and ".join(map(str, around))
        raise UsageError(
            f"cell {self.cell!r} does not take hidden={size}; it takes {self}; near {size}: {near}."
        )
