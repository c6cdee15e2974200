"""Resumes mutated copies of a run.

    python -m mutants.resume_mutated STOPPED WHOLE SEED COUNT REGIME…

STOPPED is a run that was stopped, WHOLE the same without a stop. Prints a line for each mutant: its
number, the regime, and the outcome. The regimes are applied in turn. A mutant that crashes the
process, or takes longer than SECONDS of the processor, ends it.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch

import zoo
from zoo.errors import ZooError
from zoo.runs.metadata import find_records, read_record
from zoo.training import experiment
from zoo.training.events import Started

from .outcomes import told
from .run_files import FILES, REGIMES, Files

SECONDS = 10
MOST_EVENTS = 60  # of a training that a mutant makes longer, which is then stopped
MAX_MEMORY = 2 * 2**20  # KiB
DRAWN = 10  # every so many is drawn too, which takes longer than its training


def main() -> None:
    stopped, whole, seed, count, *regimes = sys.argv[1:]
    torch.set_num_threads(1)
    torch.compile = lambda model, **_: model  # a compiler takes minutes
    os.fsync = lambda handle: None
    warnings.filterwarnings("error", module="zoo")
    warnings.simplefilter("ignore", zoo.ZooWarning)  # about a prompt that was mutated
    original, uninterrupted = read(Path(stopped)), result(Path(whole))
    draw = experiment.draw_perplexity
    rngs = {regime: Random(f"{regime} {seed}") for regime in regimes}
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary) / "whole" / "run", original)  # what is imported takes seconds
        assert outcome(Path(temporary) / "whole" / "run", uninterrupted) == "same"
        for number in range(int(count)):
            regime = regimes[number % len(regimes)]
            mutated = REGIMES[regime](original, rngs[regime])
            folder = Path(temporary) / str(number) / "run"
            write(folder, mutated)
            experiment.draw_perplexity = draw if number % DRAWN == 0 else lambda run: None
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            found = outcome(folder, uninterrupted)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if mutated == original and not found.startswith("same"):
                found = f"FAULT: unchanged: {found}"
            print(number, regime, found, flush=True)
            if "FAULT" not in found:
                remove(folder.parent)


def read(folder: Path) -> Files:
    return {name: (folder / name).read_bytes() for name in FILES}


def write(folder: Path, files: Files) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def outcome(folder: Path, uninterrupted: Any) -> str:
    """ "same" for the bits of the uninterrupted run, "other" for another end, "ended" for an error
    in training, "refused" for one before it; or "FAULT" for what must not happen."""
    before, begun = contents(folder), False
    try:
        for count, event in enumerate(events := experiment.resume_events(folder)):
            begun = begun or isinstance(event, Started)
            if count == MOST_EVENTS:
                events.close()
        found = "same" if result(folder) == uninterrupted else "other"
    except ZooError as error:
        found = f"{'ended' if begun else 'refused'}: {told(error, folder)}"
        if not begun and contents(folder) != before:
            return f"FAULT: files changed: {found}"
    except Exception as error:
        return f"FAULT {'in training' if begun else 'on resuming'}: {error!r}"
    if os.listdir(folder.parent) != [folder.name]:
        return f"FAULT: it has moved: {found}"
    for use in uses(folder):
        try:
            use()
        except ZooError as error:
            if "FAULT" in (line := told(error, folder)):
                return f"{line} in use; {found}"
        except Exception as error:
            return f"FAULT in use: {error!r}; {found}"
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if used < MAX_MEMORY else f"FAULT: {used:,} KiB of memory; {found}"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def result(folder: Path) -> Any:
    """All that is to be the same, however often the training was stopped."""
    run = zoo.load(folder)
    timed = ("seconds", "tokens_per_second")
    lines = [[pair for pair in line.items() if pair[0] not in timed] for line in run.metrics()]
    weights = {name: leaf.numpy().tobytes() for name, leaf in run.model.state_dict().items()}
    return weights, lines, (folder / "samples.txt").read_bytes()


def uses(folder: Path) -> Iterator[Any]:
    """What reads a run folder beside resuming."""
    yield lambda: read_record(folder)
    yield lambda: list(find_records(folder.parent))
    yield lambda: zoo.load(folder).metrics()


if __name__ == "__main__":
    main()
