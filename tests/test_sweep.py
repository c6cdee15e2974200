"""Sweeps: training, results, and resuming."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest
import torch
from matplotlib.axes import Axes

import zoo
from zoo.cli import run
from zoo.config import ModelConfig
from zoo.data.dataset import read_dataset
from zoo.errors import RunError
from zoo.models.parameter_budget import count_parameters, largest_hidden
from zoo.nn.cell import Cell
from zoo.registry.cell_spec import CellSpec, ModelCard
from zoo.registry.registry import Registry
from zoo.sweeps.events import MeasuringFailed, RunStarted, TrialFinished
from zoo.sweeps.plot import draw_sweep
from zoo.sweeps.runner import choose_cells, sweep_events
from zoo.sweeps.table import Row, read_rows, write_rows
from zoo.training.events import Report
from zoo.training.experiment import train_events

SMALL = ["--epochs", "1", "--batch-size", "4", "--steps", "8", "--max-tokens", "1500"]
SETTINGS = {"epochs": 1, "batch_size": 4, "steps": 8, "max_tokens": 1500}
COLUMNS = [
    "cell", "seed", "causal", "hidden", "layers", "parameters", "learning_rate", "rate_factor",
    "tokens", "seconds",
    "tokens_per_second", "held_out_bits_per_char", "train_bits_per_char",
    "training_tokens_per_second", "generate_tokens_per_second", "generate_int8_tokens_per_second",
    "state_bytes", "file_bytes", "file_int8_bytes", "year",
    "held_out_bits_per_token", "held_out_accuracy", "held_out_error", "run", "error",
]  # fmt: skip
CARD = ModelCard("A test", "nobody", 2024, "none", ("h = x",), ())


class Picky(Cell):
    """Supports even hidden sizes only, like a cell with heads; cannot be trained."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.weight = torch.nn.Parameter(torch.zeros(input_size, hidden_size))

    def init_state(self, batch_size: int) -> Any:
        raise RuntimeError("out of luck\nin many lines")


class Hidden(NamedTuple):
    h: torch.Tensor


class Untraceable(Cell):
    """A cell whose control flow depends on its state: it can be trained, but not exported."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W = torch.nn.Parameter(torch.randn(input_size, hidden_size))

    def init_state(self, batch_size: int) -> Hidden:
        return Hidden(self.zeros(batch_size, self.hidden_size))

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.W

    def advance(self, z: torch.Tensor, state: Hidden) -> tuple[torch.Tensor, Hidden]:
        h = torch.tanh(z + state.h) if state.h.sum() > -1e9 else z
        return h, Hidden(h)


def even(hidden_size: int) -> bool:
    return hidden_size % 2 == 0


def with_picky() -> Registry:
    class Plugin:
        @zoo.hookimpl
        def zoo_cells(self) -> list[CellSpec]:
            return [
                CellSpec("picky", f"{__name__}:Picky", CARD, hidden_sizes=f"{__name__}:even"),
                CellSpec("untraceable", f"{__name__}:Untraceable", CARD),
            ]

    return zoo.load_registry(Plugin())


def table(folder: str) -> list[dict[str, str]]:
    with Path(folder, "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_from_the_command_line(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", str(text_file), "--cells", "rnn,gru*", "--seeds", "2", "--hidden", "8",
               *SMALL]  # fmt: skip
    assert run([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    names = [(cell, str(seed)) for cell in ("gru", "gru-scratch", "rnn") for seed in (0, 1)]
    found = table("runs/sweep-fox")
    assert list(found[0]) == COLUMNS
    assert [(row["cell"], row["seed"]) for row in found] == names
    assert "rnn, seed 1 (6 of 6): training, 5" in err
    assert Path("runs/sweep-fox/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert err.splitlines()[-1].endswith("/sweep.png and sweep.html")
    page = Path("runs/sweep-fox/sweep.html").read_text()
    for row in found:  # its point among the costs, and its curve
        assert f"{float(row['held_out_bits_per_char']):.3f}" in page
        assert f"{row['run']}: %{{y" in page
    for row, told in zip(found, json.loads(out), strict=True):
        model = zoo.load(Path("runs/sweep-fox", row["run"]))
        lines = model.metrics()
        assert {name: "" if told[name] is None else str(told[name]) for name in told} == row
        assert (model.config.model.cell, str(model.config.training.seed)) in names
        assert row["parameters"] == str(model.model.parameter_count())
        assert row["tokens"] == str(lines[-1]["tokens"])
        assert float(row["seconds"]) == lines[-1]["seconds"]
        speeds = [line["tokens_per_second"] for line in lines]
        assert float(row["tokens_per_second"]) == median(speeds)
        held_out = [line["held_out_bits_per_char"] for line in lines]
        assert float(row["held_out_bits_per_char"]) == min(held_out)
        assert float(row["train_bits_per_char"]) == lines[-1]["train_bits_per_char"]
        assert (row["layers"], row["hidden"], row["error"]) == ("1", "8", "")
    alone = zoo.train(str(text_file), cell="gru", seed=1, hidden=8, recurrent_dropout=0.0,
                      **SETTINGS)  # fmt: skip
    swept = zoo.load("runs/sweep-fox/gru-seed1").model.state_dict()
    assert all(torch.equal(swept[name], leaf) for name, leaf in alone.model.state_dict().items())


def test_repeating_a_command_trains_only_new_cells(text_file: Path) -> None:
    def events(cells: str, seeds: int = 1) -> list[object]:
        return list(sweep_events(str(text_file), cells=cells, seeds=seeds, out="s", hidden=8,
                                 **SETTINGS))  # fmt: skip

    first = events("lstm")
    assert [type(e) for e in first if isinstance(e, RunStarted | Report | Row)] == [
        RunStarted,
        Report,
        Row,
    ]
    before = Path("s/sweep.csv").read_bytes()
    assert [type(event) for event in events("lstm")] == [RunStarted, Row]
    assert Path("s/sweep.csv").read_bytes() == before
    assert [type(e) for e in events("gru") if isinstance(e, Report)] == [Report]
    events("lstm", seeds=2)
    assert [(row["cell"], row["seed"]) for row in table("s")] == [
        ("gru", "0"), ("lstm", "0"), ("lstm", "1"),
    ]  # fmt: skip
    assert read_rows(Path("s/sweep.csv"))[1] == first[-1]


def test_an_interrupted_run_is_resumed(text_file: Path) -> None:
    settings = {**SETTINGS, "epochs": 3, "hidden": 8, "cells": "gru", "seeds": 1, "out": "s"}
    events = sweep_events(str(text_file), **settings)
    next(event for event in events if isinstance(event, Report))
    events.close()
    assert not Path("s/sweep.csv").exists()
    (row,) = zoo.sweep(str(text_file), **settings)
    whole = zoo.train(str(text_file), cell="gru", out="whole", recurrent_dropout=0.0,
                      **{**SETTINGS, "epochs": 3, "hidden": 8})  # fmt: skip
    found = zoo.load("s/gru-seed0")
    assert [line["epoch"] for line in found.metrics()] == [1, 2, 3]
    for name, leaf in whole.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], leaf)
    assert row.held_out_bits_per_char == min(
        line["held_out_bits_per_char"] for line in whole.metrics()
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_stops_it_cleanly(text_file: Path) -> None:
    command = [sys.executable, "-m", "zoo", "sweep", str(text_file), "--cells", "gru,lstm",
               "--hidden", "8", "--epochs", "100000", "--out", "s"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = Path("s/gru-seed0/metrics.jsonl")
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not (metrics.exists() and metrics.read_bytes()):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.rstrip().endswith("interrupted; the same command continues it")
    assert "Traceback" not in err
    assert json.loads(Path("s/gru-seed0/progress.json").read_text())["step"] > 0


def test_a_failing_run_is_recorded_and_does_not_stop_the_others(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("zoo.sweeps.runner.load_registry", with_picky)
    command = ["sweep", str(text_file), "--cells", "picky,rnn", "--seeds", "1", "--hidden", "8",
               "--out", "s", *SMALL]  # fmt: skip
    assert run(command) == 1
    out, err = capsys.readouterr()
    assert (
        "picky, seed 0 (1 of 2): failed: cell 'picky' (plugin 'Plugin'): init_state raised " in err
    )
    assert err.endswith("1 of 2 runs failed: picky-seed0\n")
    assert "RuntimeError: out of luck" in out
    failed, good = table("s")
    assert failed["cell"] == "picky"
    assert "init_state raised RuntimeError: out of luck, at " in failed["error"]
    assert {failed[name] for name in COLUMNS[3:13]} == {""}
    assert float(good["held_out_bits_per_char"]) > 0
    assert [path.name for path in Path("s").iterdir() if path.is_dir()] == ["rnn-seed0"]
    # it is trained again, and its row replaced
    monkeypatch.setattr(Picky, "init_state", lambda self, batch_size: 1 / 0)
    assert run(command) == 1
    failed, good = table("s")
    assert "init_state raised ZeroDivisionError: division by zero, at " in failed["error"]
    assert good["error"] == ""


def test_a_budget_of_parameters(text_file: Path) -> None:
    """A GRU of torch.nn has 3 (V H + H H + 2 H) parameters, and its head H V + V; an LSTM 4 and
    the same head."""
    rows = zoo.sweep(str(text_file), cells=["lstm", "gru"], seeds=1, parameters=5000, out="s",
                     **SETTINGS)  # fmt: skip
    vocab = zoo.load("s/gru-seed0").tokenizer.vocab_size

    def count(gates: int, hidden: int) -> int:
        return gates * (vocab * hidden + hidden**2 + 2 * hidden) + hidden * vocab + vocab

    for row, gates in zip(rows, (3, 4), strict=True):
        best = max(hidden for hidden in range(1, 100) if count(gates, hidden) <= 5000)
        assert (row.hidden, row.parameters) == (best, count(gates, best))
        assert zoo.load(Path("s", row.run)).config.model.hidden == best


def test_options_apply_to_the_cells_in_the_sweep(text_file: Path) -> None:
    settings = {**SETTINGS, "options": {"std": 0.05}}
    (row,) = zoo.sweep(str(text_file), cells="gru-scratch", seeds=1, hidden=8, out="s", **settings)
    assert row.error == ""
    assert zoo.load("s/gru-scratch-seed0").config.model.options["std"] == 0.05


def test_dropout_is_chosen_for_the_size_of_the_sweep(text_file: Path) -> None:
    """A text that is read 64 times gets the most dropout, 0.5, scaled by parameters per token for a
    model with fewer parameters than tokens."""
    settings = {"epochs": 64, "batch_size": 4, "steps": 8, "max_tokens": 3000, "patience": 1}
    zoo.sweep(str(text_file), cells="rnn", seeds=1, parameters=1000, out="s", **settings)
    run = zoo.load("s/rnn-seed0")
    tokens = len(read_dataset(run.config.data, zoo.load_registry(), run.tokenizer).train)
    assert 2000 < tokens < 3000
    assert run.config.model.dropout == round(0.5 * 1000 / tokens, 2)


def test_unspecified_settings_are_chosen_once_for_all_runs(
    text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = iter((2, 3))
    monkeypatch.setattr(
        "zoo.sweeps.runner.choose_settings", lambda config, *_: config.model_copy(
            update={"training": config.training.model_copy(update={"clip": 9.0,
                    "learning_rate": 0.008, "report_every": next(rows)})})
    )  # fmt: skip
    for cells in ("gru", "lstm"):
        zoo.sweep(str(text_file), cells=cells, seeds=1, hidden=8, out="s", **SETTINGS)
    kept = json.loads(Path("s/sweep.json").read_text())
    assert (kept["given"]["report_every"], kept["chosen"]["report_every"]) == (None, 2)
    for cell in ("gru", "lstm"):
        training = zoo.load(f"s/{cell}-seed0").config.training
        assert training.report_every == 2
        assert training.clip == 1.0  # not a setting that has a computed default
        # twice gru's default was chosen, so each cell gets twice its default
        assert training.learning_rate == 2 * zoo.get_cell(cell).learning_rate
    assert (zoo.get_cell("gru").learning_rate, kept["rate_multiplier"]) == (0.004, 2.0)


def test_several_processes_are_refused(text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.sweeps.runner.join_processes", lambda device: object())
    with pytest.raises(zoo.UsageError, match="a sweep trains in one process"):
        zoo.sweep(str(text_file), cells="gru", out="s")
    assert not Path("s").exists()


def test_the_largest_hidden_size() -> None:
    registry = with_picky()
    picky = registry.cells["picky"]
    config = ModelConfig(cell="picky")
    # with 10 tokens: 10 H for the cell, 10 H + 10 for the head
    for parameters, hidden in ((50, 2), (89, 2), (90, 4), (91, 4), (20_010, 1000)):
        assert largest_hidden(parameters, config, picky, 10, registry) == hidden
    with pytest.raises(zoo.UsageError, match="with hidden=2, its least, picky has 50 parameters"):
        largest_hidden(49, config, picky, 10, registry)
    assert largest_hidden(10**9, config, picky, 10, registry) == 65_536


@pytest.mark.parametrize("cell", ["slstm", "gru", "mlstm"])
def test_the_largest_size_is_found_though_parameters_are_not_monotonic(cell: str) -> None:
    """sLSTM has one head at a prime size, with four times the recurrent weights of four heads."""
    registry = zoo.load_registry()
    config, spec = ModelConfig(cell=cell), registry.cells[cell]
    counts = {
        size: count_parameters(config.model_copy(update={"hidden": size}), 28, registry)
        for size in range(1, 300)
    }
    for parameters in (5_000, 20_000, 60_000):
        best = max(size for size, count in counts.items() if count <= parameters)
        assert best < 250  # none above 300
        assert largest_hidden(parameters, config, spec, 28, registry) == best


TUNED: dict[str, Any] = {**SETTINGS, "cells": "rnn", "hidden": 8, "out": "s", "tune_rate": True}


@pytest.mark.parametrize("usual", [0.02, 0.64])
def test_a_tuned_rate_is_used_for_all_seeds(text_file: Path, usual: float) -> None:
    """From a rate that is too small the search goes up, from one too large down, to a rate better
    than both neighbours."""
    rows = zoo.sweep(str(text_file), seeds=2, learning_rate=usual, **TUNED)
    bits = {}
    for folder in Path("s").glob("rnn-seed0*"):
        run = zoo.load(folder)
        rate = run.config.training.learning_rate
        assert folder.name == f"rnn-seed0-rate-x{rate / usual:g}" or (rate == usual)
        bits[rate] = min(line["held_out_bits_per_char"] for line in run.metrics())
    best = min(bits, key=bits.__getitem__)
    assert {best / 2, best, 2 * best} <= bits.keys()
    assert (best > usual) == (usual < 0.1)
    assert [row.learning_rate for row in rows] == [best, best]
    assert [row.rate_factor for row in rows] == [best / usual, best / usual]
    assert rows[0].held_out_bits_per_char == bits[best]
    assert zoo.load(Path("s", rows[1].run)).config.training.seed == 1
    assert read_rows(Path("s/sweep.csv")) == rows
    again = list(sweep_events(str(text_file), seeds=2, learning_rate=usual, **TUNED))
    assert {type(event) for event in again} == {RunStarted, TrialFinished, Row}
    assert [event for event in again if isinstance(event, Row)] == rows


def test_a_rate_at_which_training_fails_is_lowered(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train_if_small(learning_rate: float, **settings: Any) -> Any:
        if learning_rate > 0.1:
            raise zoo.ZooError("the loss is no longer finite")
        return train_events(learning_rate=learning_rate, **settings)

    monkeypatch.setattr("zoo.sweeps.runs.train_events", train_if_small)
    command = ["sweep", str(text_file), "--cells", "rnn", "--hidden", "8", "--seeds", "1", "--out",
               "s", "--tune-rate", "--learning-rate", "0.32", *SMALL]  # fmt: skip
    assert run(command) == 0
    err = capsys.readouterr().err
    assert "rnn, seed 0 (1 of 1): failed: the loss is no longer finite\n" in err
    assert "rnn, seed 0 (1 of 1), rate × 0.5: failed: the loss is no longer finite\n" in err
    assert "rnn, seed 0 (1 of 1), rate × 0.25: training, " in err
    assert "rate × 2:" not in err
    (row,) = read_rows(Path("s/sweep.csv"))
    assert row.error == ""
    assert row.learning_rate <= 0.08
    # without tuning, the same folder would mix tuned rates with others
    assert run([word for word in command if word != "--tune-rate"]) == 1
    assert "have tune_rate=True, this command has no tune_rate given" in capsys.readouterr().err


def test_rates_can_be_taken_from_another_sweep(text_file: Path) -> None:
    """The factors of that sweep are used, not its rates. A cell that it does not have keeps its own
    rate."""
    Path("other").mkdir()
    found = Row(cell="rnn", seed=0, causal=True, learning_rate=8.0, rate_factor=0.25, run="a")
    failed = Row(cell="lstm", seed=0, causal=True, run="b", error="diverged")
    write_rows([found, failed], Path("other/sweep.csv"))
    settings = {**SETTINGS, "cells": "gru,lstm,rnn", "hidden": 8, "seeds": 2, "rates_of": "other",
                "out": "s", "learning_rate": 0.01}  # fmt: skip
    rows = zoo.sweep(str(text_file), **settings)
    names = [f"{cell}-seed{seed}" for cell in ("gru", "lstm", "rnn") for seed in (0, 1)]
    assert [row.run.removesuffix("-rate-x0.25") for row in rows] == names
    for row in rows:
        rate = zoo.load(Path("s", row.run)).config.training.learning_rate
        assert rate == row.learning_rate == (0.0025 if row.cell == "rnn" else 0.01)
        assert row.rate_factor == (0.25 if row.cell == "rnn" else 1.0)
    again = list(sweep_events(str(text_file), **settings))
    assert [event for event in again if not isinstance(event, RunStarted)] == rows
    with pytest.raises(RunError, match=r"have rates_of=other, this command has rates_of=other.sw"):
        zoo.sweep(str(text_file), **{**settings, "rates_of": Path("other/sweep.csv")})


def test_a_folder_without_rates_is_an_error(text_file: Path) -> None:
    settings = {**SETTINGS, "cells": "rnn", "hidden": 8, "out": "s"}
    with pytest.raises(RunError, match="nowhere tells no learning rates; give the folder"):
        zoo.sweep(str(text_file), rates_of="nowhere", **settings)
    with pytest.raises(zoo.UsageError, match="tune_rate and rates_of exclude each other"):
        zoo.sweep(str(text_file), rates_of="nowhere", tune_rate=True, **settings)
    assert not Path("s").exists()


def test_rates_are_tuned_on_the_validation_text(text_file: Path) -> None:
    with pytest.raises(zoo.UsageError, match="compared on a held-out text"):
        zoo.sweep(str(text_file), held_out=0, **TUNED)
    assert not Path("s").exists()


def test_a_changed_text_of_the_same_name_is_an_error(text_file: Path) -> None:
    settings = {**SETTINGS, "cells": "rnn", "seeds": 1, "hidden": 8, "out": "s"}
    zoo.sweep(str(text_file), **settings)
    text_file.write_text(text_file.read_text().replace("fox", "cat"))
    with pytest.raises(RunError, match=r"the runs in s are of another text than .* is now"):
        zoo.sweep(str(text_file), **settings)


def test_a_cell_that_cannot_be_imported_does_not_stop_the_others(text_file: Path) -> None:
    class Plugin:
        @zoo.hookimpl
        def zoo_cells(self) -> list[CellSpec]:
            return [CellSpec("gone", "nowhere_at_all:Gone", CARD)]

    failed, good = zoo.sweep(
        str(text_file), cells="gone,rnn", seeds=1, hidden=8, out="s",
        registry=zoo.load_registry(Plugin()), **SETTINGS,
    )  # fmt: skip
    assert failed.error == (
        "gone: nowhere_at_all:Gone cannot be imported: ModuleNotFoundError: No module named "
        "'nowhere_at_all'"
    )
    assert good.error == ""


def test_cells_are_chosen_by_names_and_patterns() -> None:
    registry = zoo.load_registry()
    for cells in ("rnn-scratch, lstm,gru*", ["gru*", "lstm", "rnn-scratch", "gru"]):
        names = [spec.name for spec in choose_cells(cells, registry)]
        assert names == ["gru", "gru-scratch", "lstm", "rnn-scratch"]
    with pytest.raises(zoo.UsageError, match=r"cell 'lst' is not in the zoo; did you mean 'lstm'"):
        choose_cells("gru,lst", registry)


def test_non_causal_cells_are_marked(text_file: Path) -> None:
    rows = zoo.sweep(str(text_file), cells="bidirectional,rnn", seeds=1, hidden=8, out="s",
                     **SETTINGS)  # fmt: skip
    assert [row.causal for row in rows] == [False, True]
    assert [row["causal"] for row in table("s")] == ["False", "True"]


REFUSED = [
    (["--hidden", "9"], 1, "the runs in s have hidden=8, this command has hidden=9; choose"),
    (["--parameters", "1k"], 2, "parameters and hidden exclude each other"),
    (["--cells", "gru,grv"], 2, "cell 'grv' is not in the zoo; did you mean 'gru'"),
    (["--cells", ","], 2, "cell '' is not in the zoo"),
    (["--cells", "x*"], 2, "cell 'x*' is not in the zoo; `zoo cells` lists what there is."),
    (["--seeds", "0"], 2, "0 is not in the range x>=1"),
    (["--parameters", "many"], 2, "'many' is not a number like 200000, 200k or 1.5M"),
    (["--option", "foo=1"], 2, "cell 'rnn' has no option 'foo'"),
    (["--minutes", "1"], 1, "the runs in s have no minutes given, this command has minutes=1.0"),
    (["--dropout", "0"], 1, "the runs in s have no dropout given, this command has dropout=0.0"),
    (["--out", "{folder}"], 1, "exists and is not a sweep; choose another --out."),
    (["--out", "{file}/below"], 1, "cannot be written: Not a directory"),
    (["--cell", "rnn"], 2, "No such option"),
    (["--rates-of", "new", "--out", "new"], 1, "new tells no learning rates; give the folder"),
    (["--held-out", "0.0001", "--out", "new"], 1, "the text is too short to hold out"),
    (["--batch-size", "5000", "--out", "new"], 1, "the text is too short"),
]  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    (folder / "fox.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    zoo.sweep(str(folder / "fox.txt"), cells="rnn", seeds=1, hidden=8, out=folder / "s",
              **SETTINGS)  # fmt: skip
    return folder


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED)
def test_invalid_arguments_are_refused_before_training(
    arguments: list[str],
    code: int,
    message: str,
    swept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(swept)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    paths = {"folder": tmp_path / "thesis", "file": swept / "fox.txt"}
    before = sorted(swept.rglob("*"))
    given = [argument.format(**paths) for argument in arguments]
    command = ["sweep", str(swept / "fox.txt"), "--cells", "rnn", "--hidden", "8", *SMALL,
               "--out", "s", *given]  # fmt: skip
    assert run(command) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("rnn, seed")]
    assert out == ""
    assert len(lines) == 1
    assert message in lines[0]
    assert sorted(swept.rglob("*")) == before


def test_standard_input_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", "-", "--cells", "rnn"]) == 2
    assert "a sweep reads its text for every run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content"),
    [("sweep.json", "[1"), ("sweep.json", "7"), ("sweep.csv", "cell,seed\nrnn,many\n"),
     ("sweep.csv", "cell,seed\nrnn\n")],
)  # fmt: skip
def test_a_damaged_sweep_is_an_error(
    file: str, content: str, swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(swept / "s", tmp_path / "s")
    Path("s", file).write_text(content)
    command = ["sweep", str(swept / "fox.txt"), "--cells", "rnn", "--hidden", "8", *SMALL]
    assert run([*command, "--out", "s"]) == 1
    err = capsys.readouterr().err
    assert f"s/{file} is damaged" in err
    assert len(err.splitlines()) == 1


def test_trained_runs_are_measured_once(text_file: Path) -> None:
    """The first run of each causal cell is measured; a second sweep keeps existing measurements."""
    settings = {"hidden": 16, "epochs": 1, "batch_size": 8, "steps": 16, "out": "s"}
    rows = zoo.sweep(str(text_file), cells="rnn,bidirectional", seeds=2, measure=True, **settings)
    by_run = {row.run: row for row in rows}
    first = by_run["rnn-seed0"]
    file = zoo.export("s/rnn-seed0", graph="generate", out="f").path
    assert first.file_bytes == pytest.approx(file.stat().st_size, rel=0.02)
    assert first.file_int8_bytes < first.file_bytes
    speeds = (
        first.training_tokens_per_second,
        first.generate_tokens_per_second,
        first.generate_int8_tokens_per_second,
    )
    assert min(speeds) > 0
    assert (first.state_bytes, first.year) == (16 * 4, 1990)
    assert by_run["bidirectional-seed0"].state_bytes == 2 * 16 * 4
    for other in ("rnn-seed1", "bidirectional-seed0", "bidirectional-seed1"):
        assert by_run[other].file_bytes is None
    again = zoo.sweep(str(text_file), cells="rnn", seeds=2, **settings)
    assert again == [by_run["rnn-seed0"], by_run["rnn-seed1"]]


def test_a_run_that_cannot_be_measured_keeps_its_row(text_file: Path) -> None:
    """The table has its training metrics, the reason is reported, and the next sweep measures it
    again."""
    registry = with_picky()
    settings = {**SETTINGS, "hidden": 8, "out": "s", "seeds": 1}
    for _ in range(2):
        events = list(
            sweep_events(
                str(text_file), cells="untraceable", measure=True, registry=registry, **settings
            )
        )
        (failure,) = [event for event in events if isinstance(event, MeasuringFailed)]
        assert "cannot be traced" in failure.reason
        (row,) = [event for event in events if isinstance(event, Row)]
        assert row.error == ""
        assert row.held_out_bits_per_char is not None
        assert row.file_bytes is None
    (written,) = table("s")
    assert float(written["held_out_bits_per_char"]) == row.held_out_bits_per_char


def test_a_diverged_run_is_plotted_at_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The edge is twice the best causal cell's bits; those of masked tokens are lower, and do not
    count."""
    drawn: list[tuple[str, float]] = []

    def record(axes: Axes, x: object, y: object, form: str, **options: object) -> object:
        if form in "o>":
            drawn.append((form, float(x)))  # type: ignore[arg-type]
        return plot(axes, x, y, form, **options)

    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", record)
    bits = {"both": 0.5, "far": 11.0, "good": 2.0, "weak": 3.9}
    rows = [
        Row(cell=cell, seed=0, causal=cell != "both", held_out_bits_per_char=found, run=cell)
        for cell, found in bits.items()
    ]
    draw_sweep(rows, Path("sweep.png"))
    assert drawn == [("o", 2.0), ("o", 3.9), (">", 4.0), ("o", 0.5)]
