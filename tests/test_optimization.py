"""Optimizers and schedules that torch does not have, against their parts and by hand."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch

import zoo
from zoo.config import ModelConfig, TrainConfig
from zoo.errors import UnknownNameError
from zoo.training.optimization import Optimization

REGISTRY = zoo.load_registry()


def model() -> zoo.LanguageModel:
    torch.manual_seed(0)
    return zoo.LanguageModel(ModelConfig(cell="gru", hidden=12, layers=2), 20, REGISTRY)


def give_gradients(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def muon_of(model: zoo.LanguageModel) -> torch.optim.Optimizer:
    config = TrainConfig(optimizer="muon", learning_rate=0.01, weight_decay=0.1)
    return Optimization.find(config, REGISTRY).make_optimizer(model)


def test_muon_takes_the_recurrent_matrices_and_adamw_the_rest() -> None:
    """After three steps each weight equals that of torch's own optimizer."""
    ours, theirs = model(), model()
    named = dict(theirs.named_parameters())
    matrices = {n: p for n, p in named.items() if n.startswith("stack.") and p.dim() == 2}
    decayed = [p for n, p in named.items() if n not in matrices and p.dim() > 1]
    vectors = [p for p in named.values() if p.dim() < 2]
    assert matrices
    assert decayed
    assert vectors
    parts = [
        torch.optim.Muon(matrices.values(), 0.01, weight_decay=0.1,
                         adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1},
                           {"params": vectors, "weight_decay": 0.0}], 0.01),
    ]  # fmt: skip
    optimizer = muon_of(ours)
    for step, rate in enumerate((0.01, 0.004, 0.001)):
        for group in [*optimizer.param_groups, *(g for part in parts for g in part.param_groups)]:
            group["lr"] = rate
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizer.step()
        for part in parts:
            part.step()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, named[name])


def test_a_saved_muon_continues_bit_for_bit() -> None:
    first = model()
    optimizer = muon_of(first)
    for step in range(2):
        give_gradients(first, step)
        optimizer.step()
    second = deepcopy(first)
    restored = muon_of(second)
    restored.load_state_dict(deepcopy(optimizer.state_dict()))
    for step in range(2, 4):
        for each, of in ((first, optimizer), (second, restored)):
            for group in of.param_groups:
                group["lr"] = 0.02 / step
            give_gradients(each, step)
            of.step()
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("cell", ["gru-scratch", "lru"])
def test_training_with_muon_is_resumed_bit_for_bit(cell: str, text_file: Path) -> None:
    settings = {"cell": cell, "hidden": 8, "epochs": 3, "max_tokens": 2000, "optimizer": "muon",
                "batch_size": 4, "steps": 8, "schedule": "constant"}  # fmt: skip
    whole = zoo.train(str(text_file), out="whole", **settings)
    events = zoo.train_events(str(text_file), out="parts", **settings)
    for event in events:
        if type(event).__name__ == "Report":
            break
    events.close()
    parts = zoo.resume("parts")
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("setting", "near"), [("optimizer", "adamw"), ("schedule", "cosine")])
def test_unknown_names_are_refused_with_suggestions(setting: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{near}'"):
        Optimization.find(TrainConfig(**{setting: near + "s"}), REGISTRY)
