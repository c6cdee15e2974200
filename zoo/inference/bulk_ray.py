"""Many records on a Ray cluster: actors that each open the model once and work on blocks of them.

Actors and not Ray Data, because the results are wanted as they come, in the order of the records,
and of an input without an end: a window of blocks does that, and needs neither pandas nor Arrow.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from zoo.errors import UsageError, ZooError, ZooWarning, one_line
from zoo.inference.bulk import LINE, Record, Result
from zoo.inference.ray_cluster import connected, import_ray
from zoo.inference.runtime import Source, open_source

BLOCK = 256  # records that an actor takes at a time
AHEAD = 3  # blocks for each actor that are sent and whose results were not taken
RETRIES = 3  # of a block, when the process or machine of an actor is lost

Numbered: TypeAlias = tuple[int, Record]
Work: TypeAlias = Callable[[Source, Iterable[Numbered]], Iterable[Result]]


def ray_lines(
    source: str | Path,
    records: Iterable[Numbered],
    address: str,
    work: Work,
    *,
    provider: str = "auto",
    actors: int | None = None,
    block_size: int = BLOCK,
    **opening: Any,
) -> Iterator[Result]:
    """What `work(source, records)` gives for numbered records, in the order of the records. Where a
    result depends on nothing but the record and its number, it is that of one process.

    `work` is sent to the actors: a function of a module, or a `functools.partial` of one. Each
    actor opens the source by its path (`opening` are further arguments of `open_source`), which
    must lead to the same model on every machine. There are as many as the cluster has free CPUs
    (for the provider "cuda": GPUs), or `actors`; they end with the iteration. At most `AHEAD`
    blocks for each of them are read ahead. A block whose process is lost is worked on again.

    `address` is that of `zoo.inference.ray_cluster.connected`. Raises what opening the source
    raises, and ZooError where the cluster loses a block again and again.
    """
    if block_size < 1 or (actors is not None and actors < 1):
        raise UsageError("block_size and actors must be at least 1.")
    if "://" not in str(source):
        source = Path(source).resolve()  # actors have folders of their own
    records = iter(records)
    blocks = iter(lambda: list(islice(records, block_size)), [])
    with connected(address) as ray:
        unit = "GPU" if provider == "cuda" else "CPU"
        count = actors or max(1, int(ray.available_resources().get(unit, 1)))
        remote = ray.remote(
            num_cpus=1,
            num_gpus=int(provider == "cuda"),
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
        )(Worker)
        opening["provider"] = provider
        pool = [remote.remote(str(source), opening, work) for _ in range(count)]
        try:
            yield from _in_order(ray, pool, blocks)
        finally:
            for actor in pool:
                ray.kill(actor)


class Worker:
    """An actor. It opens the source with the first block, so that what is wrong with the source
    comes as an answer; the actor lives on."""

    def __init__(self, given: str, opening: Mapping[str, Any], work: Work) -> None:
        self._given, self._opening, self._work = given, opening, work
        self._source: Source | None = None

    def results(self, block: Sequence[Numbered]) -> tuple[list[Result], list[str]] | ZooError:
        """The results of a block in order, and what was warned of; or the error of all of it."""
        try:
            if self._source is None:
                self._source = open_source(self._given, **self._opening)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ZooWarning)
                found = sorted(self._work(self._source, block), key=_line)
        except ZooError as error:
            # not every error of ours can be pickled, but these two can
            return (UsageError if isinstance(error, UsageError) else ZooError)(str(error))
        told = [str(each.message) for each in caught if issubclass(each.category, ZooWarning)]
        return found, told


def _line(result: Mapping[str, Any]) -> int:
    number: int = result[LINE]
    return number


def _in_order(
    ray: Any, pool: Sequence[Any], blocks: Iterator[Sequence[Numbered]]
) -> Iterator[Result]:
    """The results of the blocks in their order; each block goes to the actor with the least to
    do."""
    errors = import_ray("ray.exceptions")
    sent: deque[Any] = deque()
    unfinished: dict[Any, int] = {}  # the actor of each block
    warned = False
    while True:
        while len(sent) < AHEAD * len(pool) and (block := next(blocks, None)) is not None:
            if unfinished:
                done, _ = ray.wait([*unfinished], num_returns=len(unfinished), timeout=0)
                for each in done:
                    del unfinished[each]
            busy = [*unfinished.values()]
            actor = min(range(len(pool)), key=busy.count)
            sent.append(pool[actor].results.remote(block))
            unfinished[sent[-1]] = actor
        if not sent:
            return
        try:
            answer = ray.get(sent[0])
        except errors.RayTaskError:
            raise  # of what it did, not of where
        except errors.RayError as error:
            raise ZooError(f"the cluster lost a block of records: {one_line(error)}") from error
        unfinished.pop(sent.popleft(), None)
        if isinstance(answer, ZooError):
            raise answer
        found, told = answer
        if told and not warned:
            warned = True  # each block may have its own, and there may be many
            warnings.warn(told[0], ZooWarning, stacklevel=3)
        yield from found
