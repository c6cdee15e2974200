"""Passing the events of training through loggers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

from zoo.errors import ContractError
from zoo.registry.registry import Registry
from zoo.training.distributed import is_first_process
from zoo.training.events import Event


def pass_through_loggers(
    events: Iterator[Event], names: Sequence[str], registry: Registry
) -> Iterator[Event]:
    """The same events, after the loggers of these names have had them, each once. Of several
    processes only the first has loggers.

    UnknownNameError for a name that no logger is registered under; ContractError for a logger that
    takes something else than events, gives no iterator, or changes, adds or leaves out an event.
    """
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    # all names are right before one logger is called
    factories = {name: registry.loggers.load_function(name, "events") for name in names}
    if is_first_process():
        for name, factory in factories.items():
            events = _passed_on(events, factory, registry.loggers.describe(name))
    return events


def _passed_on(
    events: Iterator[Event], logger: Callable[[Iterator[Event]], Any], called: str
) -> Iterator[Event]:
    waiting = deque[Event]()
    started = ended = False
    fault = ContractError(
        f"{called} does not pass on the events that it is given; it should yield each, unchanged, "
        f"in order and as it comes."
    )

    def given() -> Iterator[Event]:
        nonlocal ended
        if not started:
            raise fault  # it reads all events before it gives the first
        with closing(events):  # type: ignore[type-var]
            for event in events:
                waiting.append(event)
                yield event
        ended = True

    source = given()
    logged = logger(source)
    if not isinstance(logged, Iterator):
        raise ContractError(
            f"{called} gives {type(logged).__name__}; it should give an iterator of events."
        )
    started = True

    def checked() -> Iterator[Event]:
        try:
            for event in logged:
                if not waiting or waiting.popleft() is not event:
                    raise fault
                yield event
            if waiting or not ended:
                raise fault
        finally:  # a traceback that somebody keeps must not keep training unfinished
            if hasattr(logged, "close"):
                logged.close()
            source.close()  # type: ignore[attr-defined]

    return checked()
