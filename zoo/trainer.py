"""The trainer: truncated backpropagation through time, as an iterator of events.

It computes and yields; it writes nothing and prints nothing. Whoever iterates over it renders the
events, stores them, or stops early.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.batches import BATCHES, Window, windows_per_epoch
from zoo.config import Sampling, Settings, TrainConfig
from zoo.dataset import Dataset
from zoo.errors import ZooError, one_line
from zoo.filling import fill_ids
from zoo.model import LanguageModel, ModelScorer, ModelStepper
from zoo.objectives import choose_objective
from zoo.position import Position
from zoo.state import detach, named_leaves, unflatten

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


@dataclass(frozen=True)
class Stopped:
    """It was asked to stop, and has, after a whole step."""


Event: TypeAlias = Progress | Report | Sample | Finished | Stopped


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


class Place(Settings):
    """Where training is: what goes into `training.safetensors` beside the tensors.

    `window` windows of epoch `epoch` have been read, `step` in all. `epoch_random` is the position
    of the random numbers that the epoch's windows are cut with, `shown` the tenths of the run that
    a sample was shown of, `meter_tokens` the tokens since the last line of metrics.
    """

    epoch: int = Field(1, ge=1)
    window: int = Field(0, ge=0)
    step: int = Field(0, ge=0)
    tokens: int = Field(0, ge=0)
    seconds: float = Field(0.0, ge=0)
    shown: int = Field(0, ge=0)
    meter_tokens: int = Field(0, ge=0)
    epoch_random: dict[str, Any]
    finished: bool = False


class Trainer:
    """Trains a model in place, on the device where it is.

    `events` goes on from where it is. Between two events everything that the rest of the training
    depends on is in `snapshot`; a trainer of the same model, data and settings that takes it over
    by `restore` goes on as if nothing had happened, to the bit on a CPU.
    """

    def __init__(
        self, model: LanguageModel, data: Dataset, config: TrainConfig, prompt: str
    ) -> None:
        self.model, self._data, self._config, self._prompt = model, data, config, prompt
        device = next(model.parameters()).device
        self._tokens, self._held_out = (
            torch.from_numpy(part).to(device) for part in (data.train, data.held_out)
        )
        windows = windows_per_epoch(len(self._tokens), config.batch_size, config.steps)
        self._windows = windows
        self._parameters = list(model.parameters())
        self._optimizer = OPTIMIZERS[config.optimizer](self._parameters, config.learning_rate)
        self._rng = np.random.default_rng(config.seed)
        self._objective = choose_objective(model)
        self._masks = torch.Generator().manual_seed(config.seed)
        self._state: Any = None
        self._meter = Meter()
        self._last_metrics: Metrics | None = None
        self._before = 0.0  # seconds of training before this process
        self._began = time.monotonic()
        self._place = Place(epoch_random=dict(self._rng.bit_generator.state))

    @property
    def finished(self) -> bool:
        """Whether the budget is spent."""
        return self._place.finished

    def events(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Trains until the budget is spent, or `stop()` says to after a step; leaves the model in
        evaluation mode.

        Raises CorpusError for a text too short for one window, ZooError where the loss is no longer
        finite.
        """
        config, last_progress = self._config, 0.0
        self._began, self._before = time.monotonic(), self._place.seconds
        self._meter.began = time.perf_counter()
        self.model.train()
        while not self._place.finished:
            out_of_time = False
            for window in self._rest_of_epoch():
                self._learn(window)
                done = self._fraction_done()
                out_of_time = config.minutes is not None and done >= 1
                if not out_of_time and self._place.window % config.report_every == 0:
                    yield self._report()
                if time.monotonic() - last_progress > SECONDS_BETWEEN_PROGRESS:
                    last_progress = time.monotonic()
                    yield self._progress(done)
                if stop():
                    yield Stopped()
                    self.model.eval()
                    return
                if out_of_time:
                    break
            if self._meter.tokens:
                yield self._report()
            if sample := self._close_epoch(out_of_time):
                yield sample
        self.model.eval()
        assert self._last_metrics is not None
        yield Finished(self._last_metrics)

    def _rest_of_epoch(self) -> Iterator[Window]:
        """The windows of the epoch that have not been read."""
        config = self._config
        cut = BATCHES[config.batches](self._tokens, config.batch_size, config.steps, self._rng)
        return islice(cut, self._place.window, None)

    def _learn(self, window: Window) -> None:
        """One step of truncated backpropagation through time."""
        fresh = window.fresh or not self._objective.carries_state
        state = self.model.init_state(self._config.batch_size) if fresh else detach(self._state)
        examples = self._objective.examples(window, self._masks)
        logits_TBV, self._state = self.model(examples.inputs, state)
        loss = F.cross_entropy(*examples.select(logits_TBV))
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, self._config.clip)
        self._optimizer.step()
        tokens = window.inputs.numel()
        self._meter.add(loss, tokens)
        self._move(
            window=self._place.window + 1,
            step=self._place.step + 1,
            tokens=self._place.tokens + tokens,
        )

    def _move(self, **changes: Any) -> None:
        self._place = self._place.model_copy(update=changes)

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def _fraction_done(self) -> float:
        config = self._config
        if config.minutes is not None:
            return min(1.0, self._seconds() / (60 * config.minutes))
        assert config.epochs is not None
        return min(1.0, self._place.step / (self._windows * config.epochs))

    def _progress(self, done: float) -> Progress:
        if self._meter.tokens:
            nats, rate = self._meter.nats_per_token(), self._meter.tokens_per_second()
        else:
            assert self._last_metrics is not None
            nats = self._last_metrics.train_bits_per_token * math.log(2)
            rate = self._last_metrics.tokens_per_second
        left = self._seconds() * (1 - done) / done
        return Progress(done, self._place.epoch, perplexity(nats), rate, left)

    def _report(self) -> Report:
        """The figures since the last report."""
        nats = self._meter.nats_per_token()
        rate = self._meter.tokens_per_second()
        scores = evaluate(self.model, self._held_out) if len(self._held_out) else None
        if not math.isfinite(nats + (scores.nats_per_token if scores else 0.0)):
            raise ZooError(
                f"the loss is no longer finite at step {self._place.step}; lower --learning-rate "
                f"or --clip."
            )
        bits = None if scores is None else scores.nats_per_token / math.log(2)
        by_char = None if bits is None else bits / self._data.held_out_chars_per_token
        self._last_metrics = Metrics(
            epoch=self._place.epoch,
            step=self._place.step,
            tokens=self._place.tokens,
            seconds=self._seconds(),
            train_perplexity=perplexity(nats),
            train_bits_per_token=nats / math.log(2),
            held_out_perplexity=None if scores is None else perplexity(scores.nats_per_token),
            held_out_bits_per_token=bits,
            held_out_bits_per_char=by_char,
            held_out_accuracy=None if scores is None else scores.accuracy,
            tokens_per_second=rate,
            learning_rate=self._config.learning_rate,
        )
        self._meter = Meter()
        return Report(self._last_metrics)

    def _close_epoch(self, out_of_time: bool) -> Sample | None:
        """Goes on to the next epoch, or to the end; a sample of the one that is over, if one is
        due."""
        epoch, config = self._place.epoch, self._config
        finished = out_of_time or epoch == config.epochs
        tenth = int(self._fraction_done() * 10 + 1e-9)
        if config.sample_every is not None:
            due = epoch % config.sample_every == 0
        else:
            due = tenth > self._place.shown
        self._move(
            epoch=epoch + (not finished),
            window=0,
            shown=max(self._place.shown, tenth),
            epoch_random=dict(self._rng.bit_generator.state),
            finished=finished,
        )
        if not (due or finished):
            return None
        return Sample(epoch, _sample(self.model, self._data, self._prompt))

    def snapshot(self) -> tuple[dict[str, Tensor], Place, Metrics | None]:
        """Tensors by name, the place, and the last line of metrics."""
        tensors = {f"model.{name}": leaf for name, leaf in self.model.state_dict().items()}
        for index, kept in self._optimizer.state_dict()["state"].items():
            for name, value in kept.items():
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
        if self._state is not None:
            tensors |= {f"state.{name}": leaf for name, leaf in named_leaves(self._state)}
        tensors["random.torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        tensors["random.masks"] = self._masks.get_state()
        if self._meter.losses:
            tensors["losses"] = torch.stack(self._meter.losses)
        self._move(seconds=self._seconds(), meter_tokens=self._meter.tokens)
        detached = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        return detached, self._place, self._last_metrics

    def restore(self, tensors: Mapping[str, Tensor], place: Place, metrics: Metrics | None) -> None:
        """Takes over a snapshot. Raises ZooError for one of another model or optimizer."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            parts.setdefault(kind, {})[rest] = tensor
        device = next(self.model.parameters()).device
        try:
            self.model.load_state_dict(parts["model"])
            kept: dict[int, dict[str, Tensor]] = {}
            for name, tensor in parts.get("optimizer", {}).items():
                index, _, rest = name.partition(".")
                kept.setdefault(int(index), {})[rest] = tensor
            groups = self._optimizer.state_dict()["param_groups"]
            self._optimizer.load_state_dict({"state": kept, "param_groups": groups})
            self._state = None
            if "state" in parts:
                like = self.model.init_state(1)
                leaves = [parts["state"][name].to(device) for name, _ in named_leaves(like)]
                self._state = unflatten(like, leaves)
            random = parts["random"]
            torch.set_rng_state(random["torch"])
            if torch.cuda.is_available() and "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"])
            self._masks.set_state(random["masks"])
            self._rng.bit_generator.state = place.epoch_random
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise ZooError(f"the saved training does not fit: {one_line(error)}") from None
        self._meter = Meter()
        if "losses" in parts:
            self._meter.losses = list(parts["losses"][""].to(device).unbind())
        self._meter.tokens = place.meter_tokens
        self._place, self._last_metrics = place, metrics


def training(
    model: LanguageModel, data: Dataset, config: TrainConfig, prompt: str
) -> Iterator[Event]:
    """The events of a new Trainer."""
    return Trainer(model, data, config, prompt).events()


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
