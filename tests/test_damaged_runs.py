"""Resuming runs whose files were damaged: each is resumed or refused in one line, and one that is
refused is left as it was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import zoo
from zoo.errors import RunError
from zoo.registry import OptimizerSpec
from zoo.training.events import Progress
from zoo.training.experiment import resume_events

from .mutants.outcomes import count_outcomes
from .mutants.run_files import REGIMES

SIZES = {"cell": "gru", "hidden": 4, "steps": 8, "batch_size": 4, "max_tokens": 700, "epochs": 3,
         "report_every": 8, "sample_every": 1, "patience": 50}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "muon": {"optimizer": "muon", "layers": 2, "embedding": 3, "dropout": 0.2, "ema": 0.9},
    "sgd": {"optimizer": "sgd", "batches": "random", "keep": "last"},
}
STOPPED_AT = 28  # windows: between two lines of metrics, in the second epoch

Runs = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run of a kind that was stopped, and one that was not, made once."""
    folder = tmp_path_factory.mktemp("runs")
    text = folder / "fox.txt"
    text.write_text("the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 20)

    def make(kind: str) -> tuple[Path, Path]:
        stopped, whole = folder / f"{kind}-stopped", folder / f"{kind}-whole"
        if not whole.exists():
            settings = {**SIZES, **KINDS[kind]}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("zoo.training.trainer.SECONDS_BETWEEN_PROGRESS", -1.0)
                stop_after(STOPPED_AT, zoo.train_events(str(text), out=stopped, **settings))
            zoo.train(str(text), out=whole, **settings)
        return stopped, whole

    return make


def stop_after(windows: int, events: Iterator[Any]) -> None:
    for event in events:
        windows -= isinstance(event, Progress)
        if not windows:
            break
    events.close()  # type: ignore[attr-defined]


def resume_mutants(runs: tuple[Path, Path], seed: int, count: int) -> Counter[str]:
    given = *map(str, runs), str(seed), str(count), *REGIMES
    return count_outcomes("resume_mutated", *given, count=count)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_mutants_are_resumed_or_refused(runs: Runs, kind: str) -> None:
    found = resume_mutants(runs(kind), 0, 60)
    assert found["refused:"] >= 25
    assert found["same"] >= 5


@pytest.mark.slow
@pytest.mark.rotates("kind", list(KINDS))
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", KINDS)
def test_more_mutants_are_resumed_or_refused(runs: Runs, kind: str) -> None:
    found = resume_mutants(runs(kind), 1, 1000)
    assert found["refused:"] >= 400
    assert found["same"] >= 100
    assert found["other"] >= 20


@pytest.fixture
def stopped(runs: Runs) -> Path:
    """A copy of the stopped run in the current folder."""
    return copy(runs("adamw")[0])


def copy(run: Path) -> Path:
    Path("r").mkdir()
    for path in run.iterdir():
        Path("r", path.name).write_bytes(path.read_bytes())
    return Path("r")


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor], dict[str, Any]], object]) -> None:
    """Edits the tensors and the metadata of `training.safetensors`, whose optimizer is parsed."""
    path = folder / "training.safetensors"
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        saved = json.loads(file.metadata()["zoo"])
    saved["optimizer"] = json.loads(saved["optimizer"])
    edit(tensors, saved)
    saved["optimizer"] = json.dumps(saved["optimizer"])
    save_file(tensors, path, {"zoo": json.dumps(saved)})


def settings(saved: dict[str, Any]) -> list[Any]:
    """The optimizer's settings for its first group of parameters: lists of a name and a value."""
    state = dict(saved["optimizer"]["dict"])
    found: list[Any] = state["param_groups"]["list"][0]["dict"]
    return found


def setting(saved: dict[str, Any], name: str) -> list[Any]:
    return next(pair for pair in settings(saved) if pair[0] == name)


def fill(name: str, value: float) -> Callable[..., object]:
    return lambda tensors, saved: tensors[name].view(-1)[:1].fill_(value)


def reshape(name: str, *shape: int) -> Callable[..., object]:
    return lambda tensors, saved: tensors.update({name: tensors[name].new_zeros(shape)})


def put(part: str, name: str, value: Any) -> Callable[..., object]:
    return lambda tensors, saved: saved[part].update({name: value})


def set_words(name: str, left: int, following: int) -> Callable[..., object]:
    """Where torch's generator stands in its words."""

    def edit(tensors: dict[str, torch.Tensor], saved: dict[str, Any]) -> None:
        state = tensors[name].view(-1)
        state[8:12] = torch.tensor([left], dtype=torch.int32).view(torch.uint8)
        state[16:24] = torch.tensor([following], dtype=torch.int64).view(torch.uint8)

    return edit


FAULTS: dict[str, tuple[Callable[..., object], str]] = {
    "weights": (
        fill("model.head.bias", float("nan")),
        "model.head.bias' has numbers that are",
    ),
    "best weights": (fill("best.head.bias", float("inf")), "best.head.bias' has numbers that are"),
    "moments": (
        fill("optimizer.state.0.exp_avg", float("nan")),
        "exp_avg' has numbers that are",
    ),
    # a fused optimizer writes past the end of a moment that is too small
    "small moments": (
        reshape("optimizer.state.0.exp_avg", 1),
        r"exp_avg' is float32 \[1\], where the training has float32 \[12, ",
    ),
    "negative moments": (
        fill("optimizer.state.0.exp_avg_sq", -1.0),
        "its optimizer makes weights that are not finite",
    ),
    "no moments": (
        lambda tensors, saved: tensors.pop("optimizer.state.0.exp_avg"),
        "the state of its optimizer is no longer whole",
    ),
    "a tensor more": (
        lambda tensors, saved: tensors.update(other=torch.zeros(2)),
        r"its 'other' is float32 \[2\], where the training has none",
    ),
    "state": (reshape("state.layer0.h", 4, 5), r"'state.layer0.h' is float32 \[4, 5\]"),
    "loss": (fill("nats", float("inf")), "'nats' has numbers that are not finite"),
    "random numbers": (set_words("random.cpu", 600, 624), "its random.cpu is no state of a random"),
    "no random numbers": (set_words("random.masks", 0, 0), "its random.masks is no state: Invalid"),
    "random numbers of NumPy": (
        put("position", "epoch_random", {"bit_generator": "PCG64", "state": {"state": -1}}),
        "its epoch_random is no state",
    ),
    "epoch": (put("position", "epoch", 4), "its position is epoch 4 of 3"),
    "window": (put("position", "window", 20), "its position is window 20 of 19"),
    "step": (put("position", "step", 29), "position is step 29, and epoch 2, window 9"),
    "tokens": (
        put("position", "tokens", 1),
        "its tokens are 1, and 28 windows of 8 steps ×",
    ),
    "seconds": (
        put("position", "seconds", 1e300),
        "position.seconds: must be less than or",
    ),
    "metrics": (put("metrics", "tokens", 32), "a step that is not that of their tokens"),
    "figures": (put("best", "held_out_accuracy", None), "its metrics have held_out_accuracy None"),
    "sizes": (put("sizes", "metrics.jsonl", 17), "metrics.jsonl is damaged: no entry ends where"),
    "groups": (
        lambda tensors, saved: settings(saved).append(["new", 1]),
        "'optimizer.param_groups.0.new' is not one of this optimizer's",
    ),
    "settings": (
        lambda tensors, saved: setting(saved, "differentiable").__setitem__(1, True),
        "its optimizer cannot continue: RuntimeError: ",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_nothing_is_changed(stopped: Path, fault: str) -> None:
    edit, told = FAULTS[fault]
    change(stopped, edit)
    (stopped / ".progress.json.unfinished").write_text("of a save that was killed")
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(RunError, match=told) as caught:
        list(resume_events(stopped))
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300
    assert "can still be used" in message or "move it away" in message
    assert zoo.generate(stopped, "the", length=5)


def test_settings_that_are_missing_are_the_optimizers_own(stopped: Path, runs: Runs) -> None:
    """As in a run that an older PyTorch saved."""
    change(stopped, lambda tensors, saved: settings(saved).remove(["amsgrad", False]))
    resumed, whole = zoo.resume(stopped), zoo.load(runs("adamw")[1])
    for name, leaf in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], leaf)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{}", "line 2: metrics.epoch: Field required"),
        ("[" * 100_000, "line 2: "),
        ("1" * 5000, "line 2: "),
        ("", "line 2: Expecting value"),
    ],
)
def test_damaged_metrics_can_be_moved_away(stopped: Path, line: str, told: str) -> None:
    path = stopped / "metrics.jsonl"
    first, _, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, f"{line}\n", *rest]))
    change(stopped, put("sizes", path.name, path.stat().st_size))
    with pytest.raises(RunError, match=rf"metrics.jsonl is damaged: {told}.*; move it away"):
        list(resume_events(stopped))
    path.rename("elsewhere")
    assert [line["step"] for line in zoo.resume(stopped).metrics()][:1] == [32]


def keeps_more_and_more(
    parameters: dict[str, Any], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    class Optimizer(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step()
            for parameter in parameters.values():
                state = self.state[parameter]
                state.setdefault("all", []).append(parameter.detach().mean())
                if len(state["all"]) > 5:
                    state["slow"] = parameter.detach().clone()

    return Optimizer(list(parameters.values()), learning_rate, momentum=0.5)


def test_an_optimizer_whose_state_changes_its_form(text_file: Path) -> None:
    class Plugin:
        @zoo.hookimpl
        def zoo_optimizers(self) -> list[OptimizerSpec]:
            return [OptimizerSpec("mine", f"{__name__}:keeps_more_and_more")]

    registry = zoo.load_registry(Plugin())
    settings = {**SIZES, "optimizer": "mine", "registry": registry}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.training.trainer.SECONDS_BETWEEN_PROGRESS", -1.0)
        stop_after(STOPPED_AT, zoo.train_events(str(text_file), out="parts", **settings))
    whole = zoo.train(str(text_file), out="whole", **settings)
    resumed = zoo.resume("parts", registry)
    for name, leaf in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], leaf)
