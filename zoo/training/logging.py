"""Passing the events of training through loggers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing

from zoo.errors import ContractError
from zoo.registry.registry import Registry
from zoo.training.events import Event


def pass_through_loggers(
    events: Iterator[Event], names: Sequence[str], registry: Registry
) -> Iterator[Event]:
    """The same events, after the loggers of these names have had them, each once. UnknownNameError
    for a name that no logger is registered under; ContractError for a logger that changes, adds or
    leaves out an event."""
    for name in dict.fromkeys(names):
        registry.loggers[name].load_factory()  # all names are right before one logger is asked
    for name in dict.fromkeys(names):
        events = _passed_on(events, name, registry)
    return events


def _passed_on(events: Iterator[Event], name: str, registry: Registry) -> Iterator[Event]:
    spec, waiting = registry.loggers[name], deque[Event]()
    fault = ContractError(
        f"logger {name!r} ({registry.loggers.origin(name)}): {spec.factory} does not pass on the "
        f"events that it is given; it should yield each, unchanged and in order."
    )

    def given() -> Iterator[Event]:
        with closing(events):  # type: ignore[type-var]
            for event in events:
                waiting.append(event)
                yield event

    logged: Iterator[Event] = spec.load_factory()(given())

    def checked() -> Iterator[Event]:
        with closing(logged):  # type: ignore[type-var]
            for event in logged:
                if not waiting or waiting.popleft() is not event:
                    raise fault
                yield event
        if waiting:
            raise fault

    return checked()
