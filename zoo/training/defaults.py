"""Sizes that suit a text, a time and a machine: what is chosen for a run that does not say."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from zoo.config import CHOSEN, SECTIONS, Interface, ModelConfig, RunConfig
from zoo.data.dataset import Dataset
from zoo.errors import ZooError
from zoo.models.language_model import LanguageModel
from zoo.registry.registry import Registry
from zoo.training.data import TrainingData
from zoo.training.distributed import Processes

# The constants were found by training on python-docs and the Time Machine for 1.5 and 10 minutes on
# two cores; docs/reference/performance.md has what they reach.
ROWS = 16
STEPS = 16, 32  # for a short training, which needs many updates, and for a longer one
LONG = 3e6  # tokens from which it is a longer one
GPU_ROWS, GPU_STEPS = 64, 64  # a GPU takes as long for fewer
HIDDEN_WITHOUT_A_TIME = 256
GATES = 4  # products of hidden × hidden that a step is reckoned to have
SHARE_OF_RATE = 0.5  # of the machine's product rate that training is reckoned to reach
WIDEST_ONE_HOT, WIDEST_EMBEDDING = 512, 256
# epochs that need no dropout, the share for each doubling of them, and the most: of a cell without
# recurrent weights, of one with them, and of these weights. The epochs are as reckoned above; a
# cell with a kernel of its own reads twice as many
DROPOUT_ALONE, DROPOUT, RECURRENT_DROPOUT = (2, 0.16, 0.5), (0.6, 0.19, 0.3), (2.5, 0.075, 0.4)
ENOUGH_UPDATES, LARGEST_MULTIPLIER = 5_000, 4.0
EVALUATION_SHARE = 0.05  # of the time, for reading the held-out part
FEWEST_BETWEEN_REPORTS = 100
# validation loss often recovers as the rate falls: only a long time without a new best is
# overfitting
FEWEST_TO_WAIT, SHARE_TO_WAIT = 5, 0.4

TASK_HIDDEN, TASK_ROWS = 64, 64


def choose_settings(
    config: RunConfig,
    data: TrainingData,
    device: torch.device,
    processes: Processes,
    registry: Registry,
    parameters: int | None = None,
) -> RunConfig:
    """The config in which everything that neither a flag nor a recipe gave is decided. A recipe is
    an experiment of its own: with one, nothing is chosen. `parameters` is the size of the model,
    where another than the config's is meant."""
    if config.recipe is not None:
        return config
    found = data.choose(config, device, processes, registry, parameters)
    sections = {}
    for section, model in SECTIONS.items():
        settings = getattr(config, section)
        changes = {
            name: found[name]
            for name, field in model.model_fields.items()
            if field.json_schema_extra == CHOSEN
            and name not in settings.model_fields_set
            and name in found
        }
        sections[section] = settings.model_copy(update=changes)
    return config.model_copy(update=sections)


def choose_for_task(config: RunConfig, interface: Interface, registry: Registry) -> dict[str, Any]:
    """A value for every setting that can be left open, for a task: the sizes of a model that two
    cores train in a minute."""
    model = config.model
    sizes = registry.cells[model.cell].sizes_taken(model.options, registry)
    hidden = sizes.nearest(TASK_HIDDEN)
    if "hidden" in model.model_fields_set:
        hidden = model.hidden
    one_hot = interface.reads == "tokens" and interface.inputs <= WIDEST_ONE_HOT
    return {
        "hidden": hidden,
        "embedding": None if one_hot else min(hidden, WIDEST_EMBEDDING),
        "dropout": 0.0,
        "recurrent_dropout": 0.0,
        "batch_size": TASK_ROWS,
        "learning_rate": registry.cells[model.cell].learning_rate,
        "patience": None,
        "precision": "fp32",
    }


def choose_for_text(
    config: RunConfig,
    data: Dataset,
    device: torch.device,
    processes: Processes,
    registry: Registry,
    parameters: int | None,
) -> dict[str, Any]:
    """The same for a text."""
    model, training = config.model, config.training
    tokens, vocab_size = len(data.train), data.tokenizer.vocab_size
    on_gpu = device.type == "cuda"

    def settled(section: Any, name: str, value: Any) -> Any:
        return getattr(section, name) if name in section.model_fields_set else value

    hidden, readable = HIDDEN_WITHOUT_A_TIME, math.inf
    if training.minutes is not None:
        rate = processes.agree(_product_rate(device))[0] * processes.count
        work = 60 * training.minutes * rate * SHARE_OF_RATE
        hidden = _hidden(work, tokens)
    sizes = registry.cells[model.cell].sizes_taken(model.options, registry)
    hidden = settled(model, "hidden", sizes.nearest(hidden))
    if training.minutes is not None:
        layers = GATES * hidden * (hidden + min(vocab_size, hidden)) * model.layers
        readable = work / (6 * (layers + hidden * vocab_size))
    if training.epochs is not None:
        readable = min(readable, training.epochs * tokens)
    rows, steps = (GPU_ROWS, GPU_STEPS) if on_gpu else (ROWS, STEPS[readable >= LONG])
    # a text too short for a few windows of this size has smaller ones
    rows = settled(training, "batch_size", _multiple(rows, tokens // (4 * steps), processes.count))
    steps = settled(training, "steps", max(1, min(steps, tokens // (4 * rows))))
    # reading a token costs a third of learning it
    evaluated = min(len(data.held_out), training.evaluation_tokens)
    updates = readable / (rows * steps * training.accumulate)
    between = max(FEWEST_BETWEEN_REPORTS, round(evaluated / (3 * EVALUATION_SHARE * rows * steps)))
    reports = readable / min(tokens, between * rows * steps)
    waited = max(FEWEST_TO_WAIT, round(SHARE_TO_WAIT * reports))
    embedding = None if vocab_size <= WIDEST_ONE_HOT else min(hidden, WIDEST_EMBEDDING)
    sized = {"hidden": hidden, "embedding": settled(model, "embedding", embedding)}
    count, recurrent = _outline(model.model_copy(update=sized), vocab_size, registry)
    recurrent = recurrent and settled(training, "recurrent_dropout", 1.0) > 0
    epochs, fullness = readable / tokens, min(1.0, (parameters or count) / tokens)
    own_rate = registry.cells[model.cell].learning_rate
    return {
        **sized,
        "dropout": _dropout(epochs, fullness, *(DROPOUT if recurrent else DROPOUT_ALONE)),
        "recurrent_dropout": _dropout(epochs, fullness, *RECURRENT_DROPOUT) if recurrent else 0.0,
        "batch_size": rows,
        "steps": steps,
        "learning_rate": multiplied_rate(own_rate, _rate_multiplier(updates)),
        "patience": waited if len(data.held_out) else None,
        "precision": "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp32",
        "report_every": between,
    }


def _hidden(work: float, tokens: int) -> int:
    """Hidden units, a multiple of 64, for a training of `work` floating-point operations on a text
    of so many tokens. Weights and tokens grow in the same proportion with the compute (Hoffmann et
    al. 2022); a short text gets fewer units."""
    by_work = 512 * math.sqrt(math.sqrt(work / 1.4e13))
    by_text = 64 * math.cbrt(tokens / 1000)
    return min(2048, max(64, round(min(by_work, by_text) / 64) * 64))


def _dropout(epochs: float, fullness: float, free: float, share: float, most: float) -> float:
    """The share to drop when the text is read `epochs` times. A model with fewer parameters than
    the text has tokens cannot memorise it, and gets less: `fullness` times as much."""
    doublings = math.log2(max(1.0, epochs / free))
    return round(min(most, share * doublings) * fullness, 2)


def _outline(config: ModelConfig, vocab_size: int, registry: Registry) -> tuple[float, bool]:
    """Parameters of the model, and whether its cell has recurrent weights to drop; infinitely many
    and none where it cannot be built, which is said later."""
    try:
        with torch.device("meta"):
            model = LanguageModel(config, vocab_size, registry)
        return model.parameter_count(), all(model.stack.recurrent_weights())
    except ZooError:
        return math.inf, False


def _rate_multiplier(updates: float) -> float:
    """How many times its own learning rate a cell gets in a training of so many updates. With 600
    of them most cells learn best at about three times the rate that serves them for ten minutes."""
    return round(min(LARGEST_MULTIPLIER, max(1.0, math.sqrt(ENOUGH_UPDATES / updates))), 1)


def multiplied_rate(own_rate: float, multiplier: float) -> float:
    """The rate, multiplied, to three digits."""
    return float(f"{own_rate * multiplier:.3g}")


def rate_multiplier_of(config: RunConfig, registry: Registry) -> float:
    """How many times its own learning rate the cell was given by `choose_settings`."""
    return round(config.training.learning_rate / registry.cells[config.model.cell].learning_rate, 1)


def _multiple(wanted: int, possible: int, of: int) -> int:
    """The largest multiple up to both, or the smallest there is."""
    return max(of, min(wanted, possible) // of * of)


def _product_rate(device: torch.device) -> float:
    """Floating-point operations per second in a product like those of a step."""
    left, right = torch.ones(32, 512, device=device), torch.ones(512, 2048, device=device)
    best = math.inf
    for _ in range(40):
        began = time.perf_counter()
        product = left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * left.numel() * product.shape[1] / best
