"""Training that has no memory left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import zoo
from zoo.cli import run as zoo_command
from zoo.errors import ZooError, wanted_memory
from zoo.training.trainer import Trainer

# as torch 2.11 says it
ON_GPU = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 1.20 GiB is free. Process 12 has 77.9 GiB memory in use. Of the allocated memory …"
)
ON_CPU = (
    "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: not enough memory: you tried "
    "to allocate 4294967296 bytes. can't allocate memory"
)
ADVICE = "lower --batch-size (it is 4; --accumulate makes up for it), --steps (8) or --hidden (8)."
SETTINGS = {"cell": "rnn", "hidden": 8, "batch_size": 4, "steps": 8, "epochs": 2, "out": "r"}


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (ON_GPU, "2.00 GiB more were wanted, of 79.10 GiB in all"),
        (ON_CPU, "4.00 GiB more were wanted"),
        ("Unable to allocate 3.64 TiB for an array with shape (1, 2)", "3.64 TiB more were wanted"),
        ("", ""),
    ],
)
def test_how_much_was_wanted(told: str, wanted: str) -> None:
    assert wanted_memory(MemoryError(told)) == wanted


def run_out(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Lets the learning fail after so many updates."""
    learn, updates = Trainer._learn, iter(range(after))

    def failing(self: Trainer, windows: object) -> None:
        if next(updates, None) is None:
            raise torch.OutOfMemoryError(ON_GPU)
        learn(self, windows)

    monkeypatch.setattr(Trainer, "_learn", failing)


def test_without_memory_for_one_update_nothing_is_left(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_out(monkeypatch, after=0)
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    assert zoo_command(["train", str(text_file), *arguments]) == 1
    told = f"out of memory: 2.00 GiB more were wanted, of 79.10 GiB in all; {ADVICE}"
    assert capsys.readouterr().err.splitlines()[-1] == f"zoo: error: {told}"
    assert not Path("r/model.safetensors").exists()


def test_a_run_without_memory_can_be_resumed(
    text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = zoo.train(str(text_file), **{**SETTINGS, "out": "whole"})
    with monkeypatch.context() as patched:
        run_out(patched, after=20)
        with pytest.raises(ZooError, match=r"go on from the last save: zoo train --resume --out r"):
            zoo.train(str(text_file), **SETTINGS)
    resumed = zoo.resume("r")
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
