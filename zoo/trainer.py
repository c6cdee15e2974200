"""The trainer: truncated backpropagation through time, as an iterator of events.

It computes and yields; it writes nothing and prints nothing. Whoever iterates over it renders the
events, stores them, or stops early.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.batches import BATCHES, Window, windows_per_epoch
from zoo.config import Sampling, TrainConfig
from zoo.dataset import Dataset
from zoo.errors import ZooError
from zoo.filling import fill_ids
from zoo.model import LanguageModel, ModelScorer, ModelStepper
from zoo.objectives import choose_objective
from zoo.position import Position
from zoo.state import detach

SAMPLE_LENGTH = 50
EVALUATION_ROWS, EVALUATION_STEPS = 32, 256
SECONDS_BETWEEN_PROGRESS = 0.2


@dataclass(frozen=True)
class Metrics:
    """How training stands: a line of `metrics.jsonl`.

    `epoch` and `step` (windows) count from 1; `tokens` and `seconds` from the start. Perplexities
    are exp of the mean cross-entropy in nats per token: over the windows since the line before,
    with the weights as they were then, and over the held-out part (None without one).
    `held_out_accuracy` is the share of tokens that get the highest logit. For a model that sees the
    future all of them are about the masked tokens.
    """

    epoch: int
    step: int
    tokens: int
    seconds: float
    train_perplexity: float
    train_bits_per_token: float
    held_out_perplexity: float | None
    held_out_bits_per_token: float | None
    held_out_bits_per_char: float | None
    held_out_accuracy: float | None
    tokens_per_second: float
    learning_rate: float


@dataclass(frozen=True)
class Progress:
    """Several times a second: the share that is done, and figures since the last Report."""

    fraction: float
    epoch: int
    perplexity: float
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Report:
    """At the end of each epoch, and within a long one every `report_every` windows."""

    metrics: Metrics


@dataclass(frozen=True)
class Sample:
    """What the model now says after the prompt; `text` begins with it. A model that sees the future
    shows the beginning of the text with every seventh token filled in."""

    epoch: int
    text: str


@dataclass(frozen=True)
class Finished:
    """The end; `metrics` are those of the last Report."""

    metrics: Metrics


Event: TypeAlias = Progress | Report | Sample | Finished


class Meter:
    """Loss and speed since it was made."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []  # read only when asked for: nothing waits for a GPU
        self.tokens = 0
        self.began = time.perf_counter()

    def add(self, loss: Tensor, tokens: int) -> None:
        """The mean loss of a window, and its number of tokens (of all windows alike)."""
        self.losses.append(loss.detach())
        self.tokens += tokens

    def nats_per_token(self) -> float:
        return float(torch.stack(self.losses).mean())

    def tokens_per_second(self) -> float:
        return self.tokens / (time.perf_counter() - self.began)


def training(
    model: LanguageModel, data: Dataset, config: TrainConfig, prompt: str
) -> Iterator[Event]:
    """Trains `model` in place, on the device where it is, and leaves it in evaluation mode.

    Raises CorpusError for a text too short for one window, ZooError where the loss is no longer
    finite.
    """
    device = next(model.parameters()).device
    tokens, held_out = (torch.from_numpy(part).to(device) for part in (data.train, data.held_out))
    windows = windows_per_epoch(len(tokens), config.batch_size, config.steps)
    parameters = list(model.parameters())
    optimizer = OPTIMIZERS[config.optimizer](parameters, config.learning_rate)
    rng = np.random.default_rng(config.seed)
    objective, masks = choose_objective(model), torch.Generator().manual_seed(config.seed)
    state: Any = None
    step = total_tokens = 0
    started, last_progress = time.monotonic(), 0.0
    meter = Meter()
    samples_due = _sample_schedule(config)

    def fraction_done() -> float:
        if config.minutes is not None:
            return min(1.0, (time.monotonic() - started) / (60 * config.minutes))
        assert config.epochs is not None
        return min(1.0, step / (windows * config.epochs))

    def report() -> Metrics:
        nats = meter.nats_per_token()
        scores = evaluate(model, held_out) if len(held_out) else None
        if not math.isfinite(nats + (scores.nats_per_token if scores else 0.0)):
            raise ZooError(
                f"the loss is no longer finite at step {step}; lower --learning-rate or --clip."
            )
        bits = None if scores is None else scores.nats_per_token / math.log(2)
        return Metrics(
            epoch=epoch,
            step=step,
            tokens=total_tokens,
            seconds=time.monotonic() - started,
            train_perplexity=perplexity(nats),
            train_bits_per_token=nats / math.log(2),
            held_out_perplexity=None if scores is None else perplexity(scores.nats_per_token),
            held_out_bits_per_token=bits,
            held_out_bits_per_char=None if bits is None else bits / data.held_out_chars_per_token,
            held_out_accuracy=None if scores is None else scores.accuracy,
            tokens_per_second=meter.tokens_per_second(),
            learning_rate=config.learning_rate,
        )

    metrics = None
    model.train()
    for epoch in count(1):
        out_of_time = False
        cut = BATCHES[config.batches](tokens, config.batch_size, config.steps, rng)
        for number, window in enumerate(cut, start=1):
            fresh = window.fresh or not objective.carries_state
            state = model.init_state(config.batch_size) if fresh else detach(state)
            examples = objective.examples(window, masks)
            logits_TBV, state = model(examples.inputs, state)
            loss = F.cross_entropy(*examples.select(logits_TBV))
            for parameter in parameters:
                parameter.grad = None
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, config.clip)
            optimizer.step()
            step += 1
            total_tokens += window.inputs.numel()
            meter.add(loss, window.inputs.numel())

            done = fraction_done()
            if time.monotonic() - last_progress > SECONDS_BETWEEN_PROGRESS:
                last_progress = time.monotonic()
                nats = meter.nats_per_token()
                left = (last_progress - started) * (1 - done) / done
                yield Progress(done, epoch, perplexity(nats), meter.tokens_per_second(), left)
            out_of_time = config.minutes is not None and done >= 1
            if out_of_time:
                break
            if number % config.report_every == 0:
                metrics = report()
                yield Report(metrics)
                meter = Meter()
        if meter.tokens:
            metrics = report()
            yield Report(metrics)
        finished = out_of_time or epoch == config.epochs
        if finished or samples_due(epoch, fraction_done()):
            yield Sample(epoch, _sample(model, data, prompt))
        if finished:
            break
        meter = Meter()
    model.eval()
    assert metrics is not None
    yield Finished(metrics)


class Scores(NamedTuple):
    """Mean cross-entropy, and the share of tokens that got the highest logit."""

    nats_per_token: float
    accuracy: float


def evaluate(model: LanguageModel, tokens: Tensor) -> Scores:
    """How well the model does its objective on the text `tokens` (at least 2).

    The text is cut into up to 32 rows, each read from the initial state; at most one token for
    each row is left over at the end. Tokens to be masked are the same ones every time.
    """
    rows = max(1, min(EVALUATION_ROWS, (len(tokens) - 1) // EVALUATION_STEPS))
    length = (len(tokens) - 1) // rows
    inputs_TB = tokens[: rows * length].view(rows, length).t().contiguous()
    targets_TB = tokens[1 : rows * length + 1].view(rows, length).t().contiguous()
    objective, masks = choose_objective(model), torch.Generator().manual_seed(0)
    was_training = model.training
    model.eval()
    nats = torch.zeros((), dtype=torch.float64, device=tokens.device)
    right = torch.zeros((), dtype=torch.int64, device=tokens.device)
    total = 0
    with torch.no_grad():
        state = model.init_state(rows)
        for start in range(0, length, EVALUATION_STEPS):
            part = slice(start, start + EVALUATION_STEPS)
            if not objective.carries_state:
                state = model.init_state(rows)
            window = Window(inputs_TB[part], targets_TB[part], fresh=start == 0)
            examples = objective.examples(window, masks)
            logits_TBV, state = model(examples.inputs, state)
            logits, wanted = examples.select(logits_TBV)
            nats += F.cross_entropy(logits, wanted, reduction="sum")
            right += (logits.argmax(-1) == wanted).sum()
            total += len(wanted)
    model.train(was_training)
    return Scores(float(nats) / total, int(right) / total)


def perplexity(nats_per_token: float) -> float:
    """exp of the mean cross-entropy; held below the largest number that JSON can carry."""
    return math.exp(min(nats_per_token, 700.0))


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def _sample_schedule(config: TrainConfig) -> Callable[[int, float], bool]:
    """Whether a sample is due at the end of an epoch: every `sample_every` epochs, or in each tenth
    of the run."""
    shown = 0

    def due(epoch: int, fraction: float) -> bool:
        nonlocal shown
        if config.sample_every is not None:
            return epoch % config.sample_every == 0
        tenth = int(fraction * 10 + 1e-9)
        shown, is_due = max(shown, tenth), tenth > shown
        return is_due

    return due


def _sample(model: LanguageModel, data: Dataset, prompt: str) -> str:
    was_training = model.training
    model.eval()
    if model.causal:
        ids = data.tokenizer.encode(prompt)
        position = Position(ModelStepper(model))
        position.feed(ids)
        continuation = position.write(SAMPLE_LENGTH, Sampling())
        text = prompt + data.tokenizer.decode(continuation)
    else:
        ids = data.train[:SAMPLE_LENGTH].copy()
        ids[::7] = model.mask_token
        ids[::7] = fill_ids(ModelScorer(model), ids)[::7].argmax(-1)
        text = data.tokenizer.decode(ids.tolist())
    model.train(was_training)
    return text
