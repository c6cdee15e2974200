"""Sizes that suit a text, a machine and a time: what is chosen for a run that does not say."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from zoo.config import CHOSEN, SECTIONS, RunConfig
from zoo.dataset import Dataset
from zoo.processes import Processes

# Each constant was found by training on python-docs and the Time Machine, 1.5 and 10 minutes long
# on two cores; docs/reference/performance.md has the figures.
LEARNING_RATE = 8e-3
ROWS, STEPS = 16, 32
GPU_ROWS, GPU_STEPS = 64, 64  # a GPU takes as long for fewer
SHARE_OF_RATE = 0.5  # of the machine's product rate that training reaches
WIDEST_ONE_HOT, WIDEST_EMBEDDING = 512, 256
EVALUATION_SHARE = 0.05  # of the time, for reading the held-out part
PATIENCE = 5


def choose_settings(
    config: RunConfig, data: Dataset, device: torch.device, processes: Processes
) -> RunConfig:
    """The config in which everything that neither a flag nor a recipe gave is decided. A recipe is
    an experiment of its own: with one, nothing is chosen."""
    if config.recipe is not None:
        return config
    found = _choose(config, data, device, processes)
    sections = {}
    for section, model in SECTIONS.items():
        settings = getattr(config, section)
        open_ = {
            name
            for name, field in model.model_fields.items()
            if field.json_schema_extra == CHOSEN and name not in settings.model_fields_set
        }
        changes = {name: value for name, value in found.items() if name in open_}
        sections[section] = settings.model_copy(update=changes)
    return config.model_copy(update=sections)


def _choose(
    config: RunConfig, data: Dataset, device: torch.device, processes: Processes
) -> dict[str, Any]:
    """A value for every setting that can be left open, of which `config` may have given some."""
    model, training = config.model, config.training
    tokens, on_gpu = len(data.train), device.type == "cuda"
    vocab_size = data.tokenizer.vocab_size

    def settled(section: Any, name: str, value: Any) -> Any:
        return getattr(section, name) if name in section.model_fields_set else value

    # as many updates as the time allows; a text too short for a few of them has smaller ones
    rows, steps = (GPU_ROWS, GPU_STEPS) if on_gpu else (ROWS, STEPS)
    rows = settled(training, "batch_size", _at_most(rows, tokens // (4 * steps), processes.count))
    steps = settled(training, "steps", max(1, min(steps, tokens // (4 * rows))))
    rate = processes.agree(_product_rate(device))[0] * processes.count
    hidden = settled(model, "hidden", _hidden(config, tokens, rate))
    weights = 4 * hidden * (hidden + min(vocab_size, 256)) * model.layers
    epochs = training.epochs or math.inf
    if training.minutes is not None:
        affordable = 60 * training.minutes * rate * SHARE_OF_RATE / (6 * weights)
        epochs = min(epochs, affordable / tokens)
    evaluated = min(len(data.held_out), training.evaluation_tokens)
    return {
        "batch_size": rows,
        "steps": steps,
        "hidden": hidden,
        "embedding": None if vocab_size <= WIDEST_ONE_HOT else min(hidden, WIDEST_EMBEDDING),
        "dropout": _dropout(epochs),
        "learning_rate": LEARNING_RATE,
        "patience": PATIENCE if len(data.held_out) else None,
        "precision": "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp32",
        # reading a token costs a third of learning it
        "report_every": max(100, round(evaluated / (3 * EVALUATION_SHARE * rows * steps))),
    }


def _at_most(wanted: int, possible: int, multiple: int) -> int:
    """The largest multiple up to both, or the smallest there is."""
    return max(multiple, min(wanted, possible) // multiple * multiple)


def _hidden(config: RunConfig, tokens: int, rate: float) -> int:
    """Hidden units"""
    training = config.training
    if training.minutes is not None:
        return 512
    return 256


def _dropout(epochs: float) -> float:
    """The share to drop when the text is read `epochs` times."""
    return 0.0


def _product_rate(device: torch.device) -> float:
    """Floating-point operations per second of a product of the size that a step has."""
    left, right = torch.randn(64, 512, device=device), torch.randn(512, 2048, device=device)
    work = 2 * left.numel() * right.shape[1]
    left @ right
    best = math.inf
    for _ in range(20):
        began = time.perf_counter()
        product = left @ right
        float(product[0, 0])  # waits for a GPU
        best = min(best, time.perf_counter() - began)
    return work / best
