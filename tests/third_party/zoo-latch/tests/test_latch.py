"""The law that every task must keep."""

from zoo.testing import check_task


def test_latch() -> None:
    check_task("latch")
