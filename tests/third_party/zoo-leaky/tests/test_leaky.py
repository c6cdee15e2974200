"""The laws that every cell must keep: `zoo check leaky` shows their figures."""

from collections.abc import Callable

from zoo.testing import parametrize_with_laws


@parametrize_with_laws("leaky")
def test_laws(check: Callable[[], object]) -> None:
    check()


@parametrize_with_laws("leaky", layers=3, options={"leak": 0.2})
def test_laws_in_a_stack(check: Callable[[], object]) -> None:
    check()
