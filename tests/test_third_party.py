"""A third-party package with everything but a cell: tokenizer, optimizer, schedule, logger and
recipe. It is used in training, resuming, export and generation, by the zoo's own commands."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import zoo
from zoo.cli import run
from zoo.data import read_tokenizer
from zoo.errors import TokenizerError
from zoo.training import Report

PACKAGE = Path(__file__).parent / "third_party" / "zoo-words"
OWN = {"tokenizer": "words", "optimizer": "lion", "schedule": "linear", "logger": "csv",
       "recipe": "small-words"}  # fmt: skip


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """The package is on the path, with an entry point, as pip would install it; yields a function
    that uninstalls it."""
    info = tmp_path / "site" / "zoo_words-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-words\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\nwords = words\n")
    paths = [str(tmp_path / "site"), str(PACKAGE)]

    def uninstall() -> None:
        sys.path[:] = [path for path in sys.path if path not in paths]
        for name in [name for name in sys.modules if name.partition(".")[0] == "words"]:
            del sys.modules[name]

    sys.path[:0] = paths
    yield uninstall
    uninstall()


def train_small(text_file: Path, out: str) -> None:
    assert run(["train", str(text_file), "--recipe", "small-words", "--log", "csv",
                "--out", out]) == 0  # fmt: skip


def figures(folder: str) -> list[dict[str, Any]]:
    """The lines of metrics without the measured times."""
    timed = ("tokens_per_second", "seconds")
    lines = zoo.load(folder).metrics()
    return [{name: line[name] for name in line if name not in timed} for line in lines]


def test_all_its_parts_are_listed(
    installed: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run(["plugins"])
    listed = capsys.readouterr().out
    assert "zoo-words" in listed
    for kind, name in OWN.items():
        assert f"{kind} {name}" in listed
    run(["train", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for name in OWN.values():
        assert name in told
    assert "a small LSTM over words" in told


def test_from_training_to_text(
    installed: Callable[[], None], text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_small(text_file, "r")
    config = zoo.load("r").config
    assert (config.data.tokenizer, config.training.optimizer, config.training.schedule) == (
        "words", "lion", "linear",
    )  # fmt: skip
    assert config.recipe == "small-words"
    metrics = zoo.load("r").metrics()
    assert metrics[-1]["held_out_perplexity"] < metrics[0]["held_out_perplexity"]
    with Path("r/figures.csv").open(newline="") as file:
        written = [[float(value) for value in line if value] for line in csv.reader(file)]
    assert written == [
        [pytest.approx(value) for value in line.values() if value is not None] for line in metrics
    ]
    capsys.readouterr()
    assert run(["export", "r", "--graph", "all"]) == 0
    texts = set()
    for source in ("r", *map(str, sorted(Path("r/export").glob("[gs][et]*.onnx")))):
        capsys.readouterr()
        assert run(["generate", source, "--length", "40", "--temperature", "0.7"]) == 0
        texts.add(capsys.readouterr().out)
    (text,) = texts
    assert text.startswith("the quick")
    pieces = re.compile(r"\w+|\W")
    known = set(pieces.findall(text_file.read_text())) | {"\n", "\ufffd"}
    assert set(pieces.findall(text)) <= known


def test_a_resumed_training_equals_an_uninterrupted_one(
    installed: Callable[[], None], text_file: Path
) -> None:
    train_small(text_file, "whole")
    events = zoo.train_events(str(text_file), recipe="small-words", out="parts", log=["csv"])
    next(event for event in events if isinstance(event, Report))
    events.close()
    assert len(figures("parts")) == 1
    assert run(["train", "--resume", "--out", "parts", "--log", "csv"]) == 0
    whole, parts = (zoo.load(name).model.state_dict() for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert figures("whole") == figures("parts")
    assert len(Path("parts/figures.csv").read_text().splitlines()) == 3


def test_a_file_names_the_package_that_it_needs(
    installed: Callable[[], None], text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_small(text_file, "r")
    assert run(["export", "r"]) == 0
    assert json.loads(Path("r/tokenizer.json").read_text())["package"] == "zoo-words"
    described = zoo.load("r").tokenizer.model_dump_json()
    installed()  # that is, uninstalled
    with pytest.raises(TokenizerError, match="'words' is not installed"):
        read_tokenizer(described, zoo.load_registry())
    for source in ("r", "r/export/step.onnx"):
        capsys.readouterr()
        assert run(["generate", source]) != 0
        told = capsys.readouterr().err
        assert "install the package 'zoo-words'" in told
        assert len(told.splitlines()) == 1
    assert run(["train", str(text_file), "--optimizer", "lion", "--out", "other"]) != 0
    assert "optimizer 'lion' is not in the zoo" in capsys.readouterr().err
    assert not Path("other").exists()


def test_lion_equals_the_papers(installed: Callable[[], None]) -> None:
    """Two steps by hand, at learning rate 0.1 and weight decay 0.5, from 2 with gradients 1 and
    -10: the averages are 0 and 0.01, so the signs are those of 0.1 and of 0.009 - 1."""
    from words.optimizer import lion

    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = lion({"weight": weight}, 0.1, 0.5)
    for gradient, expected in ((1.0, 2 - 0.1 * (1 + 1)), (-10.0, 1.8 - 0.1 * (-1 + 0.9))):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        assert weight.item() == pytest.approx(expected)
