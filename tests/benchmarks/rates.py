"""The learning rate at which a cell learns best in few updates: one epoch of the Time Machine, 200
thousand parameters, one seed, by factors of two from 0.008 up or down.

A cell's spec has about a third of it, and at most 0.01: longer trainings want less, and
`zoo.choosing` gives short ones more.

    python tests/benchmarks/rates.py [CELL ...]
"""

from __future__ import annotations

import math
import sys
import tempfile

import zoo

FIRST, LEAST, MOST = 0.008, 0.0003, 0.064


def held_out_bits(cell: str, rate: float) -> float:
    """Bits per character; infinitely many for a training that diverged."""
    with tempfile.TemporaryDirectory() as folder:
        (row,) = zoo.sweep(
            "time-machine", cells=[cell], parameters=200_000, epochs=1, seeds=1,
            learning_rate=rate, out=f"{folder}/sweep",
        )  # fmt: skip
    bits = row.held_out_bits_per_char
    return math.inf if bits is None else bits


def main() -> None:
    for cell in sys.argv[1:] or [spec.name for spec in zoo.list_cells()]:
        found = {rate: held_out_bits(cell, rate) for rate in (FIRST, 2 * FIRST)}
        factor = 2.0 if found[2 * FIRST] < found[FIRST] else 0.5
        rate = 2 * FIRST if factor > 1 else FIRST
        while LEAST <= rate * factor <= MOST:
            found[rate * factor] = held_out_bits(cell, rate * factor)
            if found[rate * factor] >= found[rate]:
                break
            rate *= factor
        told = ", ".join(f"{bits:.3f} at {rate:g}" for rate, bits in sorted(found.items()))
        print(f"{cell:<13} {min(found, key=found.__getitem__):g}: {told}", flush=True)


if __name__ == "__main__":
    main()
