"""Shared fixtures: small trained runs, and the corpus that is not in the repository."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import pytest
import torch

import zoo
from zoo.data.corpora import TIME_MACHINE_SHA256, cache_folder

SENTENCE = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. "


EVERY_ITEM: pytest.StashKey[list[pytest.Item]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--share",
        metavar="K/N",
        default="1/1",
        help="of the slow tests that run for many cells, run the K-th of N parts (say 2/3)",
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    share = config.getoption("share")
    return None if share == "1/1" else f"share {share} of the slow tests that rotate"


def position(item: pytest.Item) -> int | None:
    """The index of a slow test for --share: tests of one cell, or of one value of the parameter
    that `rotates` names, have the same index. None for a test that always runs."""
    if not item.get_closest_marker("slow"):
        return None
    assert isinstance(item, pytest.Function)
    if item.get_closest_marker("every_cell"):
        return list(zoo.load_registry().cells).index(item.callspec.params["name"])
    if marker := item.get_closest_marker("rotates"):
        parameter, values = marker.args
        return list(values).index(item.callspec.params[parameter])
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrises tests marked `every_cell` with the causal cells, as `name`; all but the first
    cell of each plugin are slow."""
    if not metafunc.definition.get_closest_marker("every_cell"):
        return
    cells = zoo.load_registry().cells
    first: set[str] = set()
    for plugin in set(cells.origins().values()):
        own = [name for name, origin in cells.origins().items() if origin == plugin]
        first.update([name for name in own if cells[name].causal][:1])
    others = [name for name in cells if cells[name].causal and name not in first]
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in others]
    metafunc.parametrize("name", [*sorted(first), *slow])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Selects the requested share, and runs the tests with the longest timeouts first, so that no
    process waits for another's last test."""
    config.stash[EVERY_ITEM] = list(items)
    part, parts = map(int, config.getoption("share").split("/"))
    others = [
        item for item in items if (index := position(item)) is not None
        and index % parts != part - 1
    ]  # fmt: skip
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]

    def seconds(item: pytest.Item) -> float:
        marker = item.get_closest_marker("timeout")
        return float(item.config.getini("timeout") if marker is None else marker.args[0])

    items.sort(key=seconds, reverse=True)


@pytest.fixture
def collected(request: pytest.FixtureRequest) -> list[tuple[pytest.Item, int | None]]:
    """All collected tests, including deselected ones, with their `position`."""
    return [(item, position(item)) for item in request.config.stash[EVERY_ITEM]]


@pytest.fixture(autouse=True, scope="session")
def _cached_operator_registry() -> Iterator[None]:
    """Caches torch.onnx's operator registry, which it builds at each export: a third of the time of
    exporting a small model."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    collect = vars(ONNXRegistry)["from_torchlib"]
    ONNXRegistry.from_torchlib = staticmethod(lru_cache(ONNXRegistry.from_torchlib))
    yield
    ONNXRegistry.from_torchlib = collect


@pytest.fixture(autouse=True, scope="session")
def _one_thread_per_process() -> None:
    """Test processes that run in parallel must not compete for the cores."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"  # also for the processes that they start


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache with the downloads of the user's, whose tokens are those of the tests."""
    cache = tmp_path_factory.mktemp("cache")
    for path in cache_folder().glob("*") if cache_folder().is_dir() else ():
        if path.is_file():
            (cache / path.name).symlink_to(path.resolve())
    os.environ["ZOO_CACHE"] = str(cache)
    os.environ["ZOO_CONFIG"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run and write in their own temporary folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "fox.txt"
    path.write_text(SENTENCE * 120, "utf-8")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., zoo.Run]:
    """Trains a small model once for each cell and options, and returns the same run again."""
    runs: dict[object, zoo.Run] = {}
    folder = tmp_path_factory.mktemp("trained")
    text = folder / "fox.txt"
    text.write_text(SENTENCE * 120, "utf-8")

    def train(cell: str = "rnn", **settings: object) -> zoo.Run:
        key = (cell, repr(sorted(settings.items())))
        if key not in runs:
            # with so few updates the default is four times as high: a sharper model, which
            # amplifies rounding
            rate = zoo.get_cell(cell).learning_rate
            given = {"hidden": 24, "epochs": 6, "batch_size": 8, "steps": 16, "learning_rate": rate}
            given |= settings
            runs[key] = zoo.train(
                str(text), cell=cell, out=folder / f"run{len(runs)}", prompt="the ", **given
            )
        return runs[key]

    return train


@pytest.fixture(scope="session")
def fox_run(trained: Callable[..., zoo.Run]) -> zoo.Run:
    return trained()


@pytest.fixture(scope="session")
def fox_file(fox_run: zoo.Run) -> Path:
    return zoo.export(fox_run).path


@pytest.fixture(scope="session")
def fox_folder(fox_run: zoo.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All graphs of the run, in a folder."""
    from zoo.exporting import export_all

    folder = tmp_path_factory.mktemp("exported")
    export_all(fox_run, out=folder)
    return folder


@pytest.fixture
def time_machine() -> Path:
    """The file of the Time Machine; skips the test if it is not in the corpus cache."""
    path = cache_folder() / "timemachine.txt"
    if not path.is_file() or sha256(path.read_bytes()).hexdigest() != TIME_MACHINE_SHA256:
        pytest.skip("the Time Machine is not in the corpus cache; `zoo train time-machine` gets it")
    return path
