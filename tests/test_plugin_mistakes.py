"""Mistakes in loggers, optimizers, schedules, tokenizers, recipes and exporters of a plugin: each
is reported as the plugin's, before training where that is possible, and nothing is lost."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

import zoo
from zoo.cli import run as zoo_command
from zoo.data import CharTokenizer
from zoo.errors import ContractError, FactoryError, RunError
from zoo.recipes import load_recipe
from zoo.registry import (
    ExporterSpec,
    LoggerSpec,
    OptimizerSpec,
    RecipeSpec,
    ScheduleSpec,
    TokenizerSpec,
)
from zoo.training import Event, Report, Started
from zoo.training.logging import pass_through_loggers

SMALL = {"hidden": 8, "batch_size": 4, "steps": 8, "max_tokens": 2000, "epochs": 3}
KINDS = {
    "tokenizers": TokenizerSpec,
    "optimizers": OptimizerSpec,
    "schedules": ScheduleSpec,
    "loggers": LoggerSpec,
}


def registry_with(**functions: Callable[..., Any]) -> zoo.registry.Registry:
    """A registry in which each table, such as `loggers`, also has the function under the name
    "mine"."""

    class Plugin:
        pass

    for table, function in functions.items():
        spec = KINDS[table]("mine", f"{function.__module__}:{function.__name__}")
        hook = zoo.hookimpl(lambda self, spec=spec: [spec])
        setattr(Plugin, f"zoo_{table}", hook)
    return zoo.load_registry(Plugin())


def weights(run: zoo.Run) -> dict[str, torch.Tensor]:
    return run.model.state_dict()


def sgd(parameters: Any, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(list(parameters.values()), learning_rate)


# loggers


def reads_all_first(events: Iterator[Event]) -> list[Event]:
    return list(events)


def forgets_to_yield(events: Iterator[Event]) -> None:
    return None


def gives_a_list(events: Iterator[Event]) -> list[Event]:
    return []


def takes_two(events: Iterator[Event], path: str) -> Iterator[Event]:
    return events


def returns_early(events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        yield event
        if isinstance(event, Report):
            return


def raises_at_start(events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, Started):
            raise OSError("no server")
        yield event


def raises_at_report(events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, Report):
            raise OSError("no disk")
        yield event


@pytest.mark.parametrize(
    ("logger", "told"),
    [
        (reads_all_first, "should yield each, unchanged, in order and as it comes"),
        (forgets_to_yield, "gives NoneType; it should give an iterator of events"),
        (gives_a_list, "gives list; it should give an iterator of events"),
        (takes_two, r"takes \(events.*path.*\) -> .*; it should take \(events\)"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_logger_that_is_none(logger: Any, told: str, text_file: Path) -> None:
    with pytest.raises(ContractError, match=rf"logger 'mine' \(plugin .*{told}"):
        zoo.train(str(text_file), out="r", log="mine", registry=registry_with(loggers=logger))
    assert not Path("r").exists()


def test_a_logger_that_ends_before_training_does(text_file: Path) -> None:
    registry = registry_with(loggers=returns_early)
    with pytest.raises(ContractError, match="does not pass on the events"):
        zoo.train(str(text_file), out="r", log="mine", registry=registry, **SMALL)
    assert len(zoo.load("r").metrics()) == 1  # what was trained is saved


def maps(events: Iterator[Event]) -> Iterator[Event]:
    return itertools.chain(events)


def test_any_iterator_is_one(text_file: Path) -> None:
    registry = registry_with(loggers=maps)
    assert len(zoo.train(str(text_file), log="mine", registry=registry, **SMALL).metrics()) == 3


def test_a_logger_that_fails_at_the_start_replaces_no_run(text_file: Path) -> None:
    before = weights(zoo.train(str(text_file), out="r", **SMALL))
    registry = registry_with(loggers=raises_at_start)
    for out, overwrite in (("r", True), ("new", False)):
        with pytest.raises(OSError, match="no server"):
            zoo.train(
                str(text_file), out=out, overwrite=overwrite, log="mine", registry=registry,
                **{**SMALL, "seed": 1},
            )  # fmt: skip
    after = weights(zoo.load("r"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(zoo.load("r").metrics()) == 3
    assert not Path("new").exists()


def test_a_failed_logger_leaves_a_saved_run_and_the_handler_of_ctrl_c(text_file: Path) -> None:
    """Also while somebody holds the exception, as a notebook does."""
    handler = signal.getsignal(signal.SIGINT)
    registry = registry_with(loggers=raises_at_report)
    with pytest.raises(OSError, match="no disk") as kept:
        zoo.train(str(text_file), out="r", log="mine", registry=registry, **SMALL)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(zoo.resume("r").metrics()) == 3
    assert kept.traceback


def test_only_the_first_process_has_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    events: Iterator[Event] = iter(())
    registry = registry_with(loggers=maps)
    monkeypatch.setenv("RANK", "1")
    assert pass_through_loggers(events, ["mine"], registry) is events
    monkeypatch.setenv("RANK", "0")
    assert pass_through_loggers(events, ["mine"], registry) is not events


# optimizers


class CountsInGroup(torch.optim.SGD):
    """Its rate falls with a counter that its parameter groups hold."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            group["history"] = (*group.get("history", ()), None)[-2:]
            group["lr"] /= group["count"] ** 0.5
        super().step()


class CountsInState(torch.optim.SGD):
    """It keeps an int, a list of tensors and a dict for each parameter."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                count = state.setdefault("step", 0)
                assert isinstance(count, int)
                averages = state.setdefault("averages", [torch.zeros_like(parameter)])
                state.setdefault("more", {"last": None})["last"] = float(count)
                averages[0].mul_(0.9).add_(parameter.grad)
                parameter.grad.copy_(averages[0] / (1 + count) ** 0.5)
                state["step"] = count + 1
        super().step()


class KeepsAnObject(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        super().step()
        self.state[self.param_groups[0]["params"][0]]["kept"] = object()


def counts_in_group(parameters: Any, learning_rate: float, weight_decay: float) -> Any:
    return CountsInGroup(parameters.values(), learning_rate)


def counts_in_state(parameters: Any, learning_rate: float, weight_decay: float) -> Any:
    return CountsInState(parameters.values(), learning_rate)


def keeps_an_object(parameters: Any, learning_rate: float, weight_decay: float) -> Any:
    return KeepsAnObject(parameters.values(), learning_rate)


def lbfgs(parameters: Any, learning_rate: float, weight_decay: float) -> Any:
    return torch.optim.LBFGS(list(parameters.values()), learning_rate)


def no_optimizer(parameters: Any, learning_rate: float, weight_decay: float) -> None:
    return None


def takes_the_model(model: Any) -> None:
    return None


@pytest.mark.parametrize("optimizer", [counts_in_group, counts_in_state])
def test_all_that_an_optimizer_keeps_is_resumed(optimizer: Any, text_file: Path) -> None:
    registry = registry_with(optimizers=optimizer)
    settings = {**SMALL, "optimizer": "mine", "learning_rate": 0.1, "registry": registry}
    whole = zoo.train(str(text_file), out="whole", **settings)
    events = zoo.train_events(str(text_file), out="parts", **settings)
    next(event for event in events if isinstance(event, Report))
    events.close()
    parts = zoo.resume("parts", registry)
    assert all(torch.equal(leaf, weights(parts)[name]) for name, leaf in weights(whole).items())


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (takes_the_model, r"it should take \(parameters, learning_rate, weight_decay\)"),
        (no_optimizer, r"gives NoneType; it should give a torch\.optim\.Optimizer"),
        (lbfgs, "the step of LBFGS needs a closure"),
        (keeps_an_object, r"cannot be saved: optimizer\.state\.0\.kept is object"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_optimizer_that_cannot_be_used(optimizer: Any, told: str, text_file: Path) -> None:
    registry = registry_with(optimizers=optimizer)
    with pytest.raises(ContractError, match=rf"optimizer 'mine' \(plugin .*{told}"):
        zoo.train(str(text_file), out="r", optimizer="mine", registry=registry, **SMALL)
    assert not Path("r").exists()


def test_a_run_of_another_format_is_not_resumed(text_file: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    zoo.train(str(text_file), out="r", **SMALL)
    path = Path("r/training.safetensors")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        saved = file.metadata()["zoo"]
    save_file(tensors, path, {"zoo": saved.replace('"format":3', '"format":2')})
    with pytest.raises(RunError, match="saved by another version of the zoo"):
        zoo.resume("r")
    assert zoo.generate("r", "the", length=5)


# schedules


def gives_nothing(fraction: float) -> None:
    return None


def rises(fraction: float) -> float:
    return 1 + fraction


def turns_negative(fraction: float) -> float:
    return 1 - 1.5 * fraction


def ends_in_nan(fraction: float) -> float:
    return float("nan") if fraction == 1 else 1.0


def of_numpy(fraction: float) -> np.float32:
    return np.float32(1 - fraction)


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        (gives_nothing, "gives None at 0 of training"),
        (rises, r"gives 1\.5 at 0\.5 of training"),
        (turns_negative, r"gives -0\.5 at 1 of training"),
        (ends_in_nan, "gives nan at 1 of training"),
        (forgets_to_yield, None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_schedule_that_gives_no_rate(schedule: Any, told: str, text_file: Path) -> None:
    told = told or "gives None"
    registry = registry_with(schedules=schedule)
    with pytest.raises(ContractError, match=rf"schedule 'mine' \(plugin .*{told}"):
        zoo.train(str(text_file), out="r", schedule="mine", registry=registry, **SMALL)
    assert not Path("r").exists()


def test_a_schedule_of_numpy_numbers(text_file: Path) -> None:
    registry = registry_with(schedules=of_numpy)
    run = zoo.train(str(text_file), schedule="mine", registry=registry, **SMALL)
    rates = [line["learning_rate"] for line in run.metrics()]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 3


# tokenizers


class AnotherKind(CharTokenizer):
    kind: Literal["other"] = "other"  # type: ignore[assignment]


class WithoutEncode(zoo.data.Tokenizer):
    kind: Literal["mine"] = "mine"

    @classmethod
    def from_text(cls, text: str, vocab: int = 0) -> WithoutEncode:
        return cls()

    @property
    def vocab_size(self) -> int:
        return 3


class Mine(CharTokenizer):
    kind: Literal["mine"] = "mine"  # type: ignore[assignment]


class OffByOne(Mine):
    def encode(self, text: str) -> Any:
        return super().encode(text) + 1


class OfInt32(Mine):
    def encode(self, text: str) -> Any:
        return super().encode(text).astype(np.int32)


class OfLists(Mine):
    def encode(self, text: str) -> Any:
        return super().encode(text).tolist()


class Silent(Mine):
    def decode(self, ids: Any) -> str:
        return ""


def not_a_class(text: str) -> None:
    return None


@pytest.mark.parametrize(
    ("tokenizer", "told"),
    [
        (not_a_class, "is no subclass of zoo.data.Tokenizer"),
        (AnotherKind, "has kind 'other'; its kind should be the name"),
        (WithoutEncode, "has no encode; it should define it. See .*test_plugin_mistakes.py:"),
        (OffByOne, r"encode gives tokens from 2 to 30; .* of 30 they should be 0 to 29"),
        (OfInt32, r"encode gives an array \[\d+\] of int32; it should give one \[T\] of int64"),
        (OfLists, "encode gives list; it should give one"),
        (Silent, "decode gives an empty text"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_tokenizer_that_is_none(tokenizer: Any, told: str, text_file: Path) -> None:
    registry = registry_with(tokenizers=tokenizer)
    with pytest.raises(ContractError, match=rf"tokenizer 'mine' \(plugin .*{told}"):
        zoo.train(str(text_file), out="r", tokenizer="mine", registry=registry, **SMALL)
    assert not Path("r").exists()


# recipes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "hidden = 24",
            "recipe mine: 'hidden' is no section of a recipe; it has the sections data",
        ),
        ("[modle]\nhidden = 4", "recipe mine: 'modle' is no section .* did you mean 'model'"),
        ("[model]\nhiden = 4", r"recipe mine: \[model\] has no setting 'hiden'; did you mean"),
        ('data = "t.txt"', r"recipe mine: 'data' must be a section, \[data\], of settings"),
        ("[[data]]\nsteps = 3", "recipe mine: 'data' must be a section"),
        ("[recipe]\nname = 3", "recipe mine: 'recipe' is no section"),
        ("title = ", "recipe mine is damaged"),
    ],
)
def test_a_recipe_file_that_is_none(text: str, told: str) -> None:
    Path("mine.toml").write_text(text)
    with pytest.raises(RunError, match=told):
        load_recipe("mine.toml", zoo.load_registry())


def test_a_recipe_file_in_latin_1() -> None:
    Path("mine.toml").write_bytes("title = 'Prüfung'".encode("latin-1"))
    with pytest.raises(RunError, match=r"recipe mine\.toml is not UTF-8 text"):
        load_recipe("mine.toml", zoo.load_registry())


def test_the_corpus_of_a_recipe_may_lie_beside_it(text_file: Path) -> None:
    Path("folder").mkdir()
    Path("folder/mine.txt").write_text(text_file.read_text())
    content = '[data]\ncorpus = "mine.txt"\nmax_tokens = 2000\n[training]\nepochs = 1\n'
    Path("folder/mine.toml").write_text(content + "batch_size = 4\nsteps = 8\n")
    run = zoo.train(recipe="folder/mine.toml", out="r")
    assert run.config.data.corpus == "folder/mine.txt"
    assert run.config.recipe == "mine"


@pytest.mark.parametrize("package", ["zoo.errors", "", "no_such_package", "zoo.recipes"])
def test_a_recipe_that_is_not_there(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The help of all else is still shown, and the registry is loaded once for it."""

    class Plugin:
        @zoo.hookimpl
        def zoo_recipes(self) -> list[RecipeSpec]:
            return [RecipeSpec("gone", package)]

    registry = zoo.load_registry(Plugin())
    with pytest.raises(FactoryError, match=r"recipe 'gone' \(plugin .*there is no gone\.toml"):
        load_recipe("gone", registry)
    loads: list[int] = []

    def load_registry() -> zoo.registry.Registry:
        loads.append(1)
        return registry

    monkeypatch.setattr("zoo.registry.registry.load_registry", load_registry)
    assert zoo_command(["train", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "gone (cannot be read: recipe 'gone'" in told
    assert "d2l-scratch (" in told
    assert loads == [1]


# exporters


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"graphs": "lookup"}, "graphs must be a tuple of words"),
        ({"graphs": ()}, "graphs must be a tuple of words"),
        ({"graphs": ("Lookup 2",)}, "graphs cannot have the word 'Lookup 2'"),
        ({"graphs": ("all",)}, "graphs cannot have the word 'all'"),
        ({"graphs": ("step",), "precisions": ["int4"]}, "precisions must be a tuple"),
        ({"graphs": ("step",), "modules": "mine.Mine"}, "modules 'mine.Mine' is not 'module:attr"),
        ({"graphs": ("step",), "modules": ("mine:Mine",)}, r"modules \('mine:Mine',\) is not 'mod"),
    ],
)
def test_words_that_an_exporter_cannot_have(words: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"mine: {told}"):
        ExporterSpec("mine", "mine:Mine", "mine", **words)
