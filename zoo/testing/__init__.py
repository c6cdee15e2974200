"""The laws that every cell must keep, for the zoo's own cells and for third-party ones.

In a plugin's test file:

    from zoo.testing import parametrize_with_laws

    @parametrize_with_laws("my-cell")
    def test_my_cell(check):
        check()

`zoo check my-cell` does the same in the terminal. `check_task` is for tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from zoo.config import OptionValue
from zoo.errors import ZooError
from zoo.registry.attribution import describe_failure
from zoo.registry.registry import Registry, load_registry
from zoo.testing.laws import CAUSAL_LAWS, LAWS, methods_return_what_they_should
from zoo.testing.subject import LawBroken, Measured, Subject
from zoo.testing.tasks import check_task

__all__ = [
    "LAWS",
    "LawBroken",
    "Measured",
    "Subject",
    "Verdict",
    "check_cell",
    "check_task",
    "parametrize_with_laws",
]

Law: TypeAlias = Callable[[Subject], Measured]


@dataclass(frozen=True)
class Verdict:
    """What a law found: whether it holds, its figure, and what broke it or what else it measured.
    `exempt` is the reason that the law was not applied, empty if it was."""

    law: str
    passed: bool
    figure: float | None = None
    finding: str = ""
    exempt: str = ""


def check_cell(
    name: str,
    *,
    layers: int = 1,
    hidden: int | None = None,
    options: Mapping[str, OptionValue] | None = None,
    registry: Registry | None = None,
    laws: Sequence[Law] = LAWS,
) -> Iterator[Verdict]:
    """Tests the registered cell against every law, or some `laws`, one after the other. UsageError
    for options that it does not have, or a number of `hidden` units that it does not take. Where
    its methods do not return what they should, that verdict is the last."""
    registry = registry or load_registry()
    subject = _subject(name, layers, hidden, options, registry)
    for law in laws:
        if reason := exemption(law, subject):
            yield Verdict(law.__name__, True, exempt=reason)
            continue
        try:
            measured = law(subject)
            yield Verdict(law.__name__, True, measured.figure, measured.note)
        except LawBroken as broken:
            yield Verdict(law.__name__, False, finding=str(broken))
            if law is methods_return_what_they_should:
                return
        except Exception as error:  # whatever a third-party cell raises is a finding
            known = isinstance(error, ZooError)
            found = str(error) if known else describe_failure(error, registry)
            yield Verdict(law.__name__, False, finding=found)


def _subject(
    name: str,
    layers: int,
    hidden: int | None,
    options: Mapping[str, OptionValue] | None,
    registry: Registry,
) -> Subject:
    spec = registry.cells[name]
    given = spec.parse_options(options or {}, registry)
    if hidden is None:
        return Subject(spec, given, layers, registry=registry)
    spec.sizes_taken(given, registry).require(hidden)
    return Subject(spec, given, layers, hidden_size=hidden, registry=registry)


def exemption(law: Law, subject: Subject) -> str:
    """Why the law does not apply: the cell is not causal, or its spec says so; else empty."""
    if law in CAUSAL_LAWS and not subject.spec.causal:
        return "the cell is not causal and has no step"
    return subject.spec.exceptions.get(law.__name__, "")


def parametrize_with_laws(
    *names: str,
    layers: int = 1,
    hidden: int | None = None,
    options: Mapping[str, OptionValue] | None = None,
    registry: Registry | None = None,
    laws: Sequence[Law] = LAWS,
) -> Callable[[Any], Any]:
    """A pytest decorator: the test runs once for each of the `laws` and cells, and its argument
    `check` is the law to call. A law that the cell is exempt from is skipped with the reason; so
    are all but the first where the methods of the cell do not return what they should."""
    import pytest

    registry = registry or load_registry()
    cases = []
    for name in names:
        subject = _subject(name, layers, hidden, options, registry)
        form = _first_of_all(subject) if methods_return_what_they_should in laws else None
        for law in laws:
            reason = exemption(law, subject)
            marks = [pytest.mark.skip(reason=reason)] if reason else []
            cases.append(
                pytest.param(_bind(law, subject, form), marks=marks, id=f"{name}-{law.__name__}")
            )
    return pytest.mark.parametrize("check", cases)


def _first_of_all(subject: Subject) -> Callable[[], bool]:
    """Whether the methods return what they should, looked at once."""

    @cache
    def keeps() -> bool:
        try:
            methods_return_what_they_should(subject)
        except LawBroken:
            return False
        return True

    return keeps


def _bind(law: Law, subject: Subject, form: Callable[[], bool] | None) -> Callable[[], Measured]:
    def check() -> Measured:
        if form is not None and law is not methods_return_what_they_should and not form():
            import pytest

            pytest.skip("the methods of the cell do not return what they should")
        return law(subject)

    return check
