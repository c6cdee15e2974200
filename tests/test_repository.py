"""The repository: CI's shares cover every test, and git ignores no source file."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

import zoo

ROOT = Path(__file__).parent.parent
SHARES = 3


def test_three_consecutive_shares_run_every_cell(
    collected: list[tuple[pytest.Item, int | None]],
) -> None:
    """Each rotating test is in one share of three, with the others of its cell; the shares are
    about equal."""
    rotating = [(item, index % SHARES) for item, index in collected if index is not None]
    cells: dict[str, set[int]] = {}
    for item, share in rotating:
        if item.get_closest_marker("every_cell"):
            cells.setdefault(item.callspec.params["name"], set()).add(share)
    if len(cells) < 2:
        pytest.skip("only some of the tests were collected")
    assert set(cells) == {spec.name for spec in zoo.list_cells() if spec.causal}
    assert all(len(shares) == 1 for shares in cells.values())
    sizes = Counter(share for _, share in rotating)
    assert sorted(sizes) == list(range(SHARES))
    assert max(sizes.values()) < 1.2 * min(sizes.values())


def test_git_ignores_no_file_of_a_package() -> None:
    """A test that reads an ignored file would fail in a clone only."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "--others", "--ignored", "--exclude-standard"]
    folders = ["zoo", "plugins", "exporters", "tests"]
    ignored = subprocess.run([*command, "--", *folders], capture_output=True, text=True, check=True)
    files = [line for line in ignored.stdout.splitlines() if "__pycache__" not in line]
    assert files == []
