"""Figures of training as a table that a spreadsheet opens."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict

from zoo.training import Event, Report, Started


def write_csv(events: Iterator[Event]) -> Iterator[Event]:
    """Each event, after its figures are in figures.csv: those of a resumed training go on below the
    lines that its metrics have."""
    for event in events:
        if isinstance(event, Started):
            path = event.run.path / "figures.csv"
            lines = event.run.metrics()
            with path.open("w", newline="") as file:
                csv.writer(file).writerows(line.values() for line in lines)
        elif isinstance(event, Report):
            with path.open("a", newline="") as file:
                csv.writer(file).writerow(asdict(event.metrics).values())
        yield event
