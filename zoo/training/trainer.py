"""The trainer: truncated backpropagation through time, as an iterator of events.

It computes and yields; it writes nothing and prints nothing. Whoever iterates over it renders the
events, stores them, or stops early.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.config import TrainConfig
from zoo.data.batches import Window
from zoo.data.dataset import Dataset
from zoo.errors import ContractError, UsageError
from zoo.models.language_model import LanguageModel
from zoo.nn.state import detach, named_leaves, unflatten
from zoo.registry.registry import Registry, load_registry
from zoo.training import optimizer_state
from zoo.training.clock import Clock
from zoo.training.cuda_graphs import record_graph
from zoo.training.data import TrainingData
from zoo.training.distributed import ALONE, Processes
from zoo.training.documents import read_documents
from zoo.training.evaluation import perplexity
from zoo.training.events import Event, Finished, Progress, Report, Sample, Stopped
from zoo.training.judging import Judge
from zoo.training.meter import Meter
from zoo.training.objectives import Examples, loss_of
from zoo.training.optimization import Optimization
from zoo.training.recurrent_dropout import RecurrentDropout
from zoo.training.snapshot import Snapshot, TrainingPosition
from zoo.training.snapshot_check import Outline, check_snapshot
from zoo.training.text_data import TextData

SECONDS_BETWEEN_PROGRESS = 0.2


class Trainer:
    """Trains a model in place, on the device where it is.

    `events` continues from the current position. Between two events everything that the rest of the
    training depends on is in `snapshot`; a trainer of the same model, data and settings that takes
    it over by `restore` continues bit for bit on a CPU.

    Several processes train one model, each its own rows of every batch; all of them get the same
    events. What is decided by the time is decided by the clock of the first.
    """

    def __init__(
        self,
        model: LanguageModel,
        data: TrainingData,
        config: TrainConfig,
        prompt: str,
        processes: Processes = ALONE,
        registry: Registry | None = None,
        began: float | None = None,
    ) -> None:
        """`began` is the time, of `time.monotonic`, that the budget counts from; without it, that
        of the first step."""
        self.model, self._data, self._config, self._prompt = model, data, config, prompt
        self.processes = processes
        self._device = next(model.parameters()).device
        self._windows, self._longest_epoch = data.windows(config)
        self._rows = processes.rows(config.batch_size)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimization = Optimization.find(config, registry or load_registry())
        self._optimizer = self._optimization.make_optimizer(model)
        self._objective = data.objective(model)
        self._loss_of = loss_of(model.interface)
        self._end = data.end_of_text if self._objective.carries_state else None
        # every window has one shape; evaluation, whose rows have others, is not compiled
        if self._end is not None and (config.compile or config.cuda_graph):
            raise UsageError("--documents goes without --compile and --cuda-graph.")
        learner: Any = torch.compile(model, dynamic=False) if config.compile else model
        if config.cuda_graph:
            learner = record_graph(model, config, processes)
        self._forward = processes.wrap(learner)
        self._rng = np.random.default_rng(config.seed)
        self._masks = torch.Generator().manual_seed(config.seed)
        share = config.recurrent_dropout
        self._dropout = RecurrentDropout(model, share, self._masks) if share else None
        self._state: Any = None
        self._meter = Meter(0.0, self._device)
        self.clock = Clock(processes, config.minutes, began)
        self._judge = Judge(model, data, config, processes, self.clock)
        self._position = TrainingPosition(epoch_random=dict(self._rng.bit_generator.state))

    @property
    def finished(self) -> bool:
        """Whether the budget is spent."""
        return self._position.finished

    @property
    def seconds(self) -> float:
        """How long it has trained, after the last step; the same in all processes."""
        return self._position.seconds

    @property
    def outline(self) -> Outline:
        """What its snapshots are compared with before they are restored."""
        return Outline(
            self.model,
            self._optimization,
            (self._windows, self._longest_epoch),
            self._data.window_tokens(self._config),
            self._data.figures,
        )

    def events(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Trains until the budget is spent, early stopping ends it, or `stop()` says to after a
        step; leaves the model in evaluation mode, at the end with the weights that are to be kept.

        Raises ZooError where the loss is no longer finite.
        """
        last_progress = -math.inf
        self.clock.start(self.seconds, new=self._position.step == 0)
        self._tick()
        if not self._meter.windows:
            self._meter = Meter(self.seconds, self._device)
        self.model.train()
        while not self._position.finished:
            over = self._is_over()
            rest = self._rest_of_epoch() if not over else iter(())
            while windows := list(islice(rest, self._config.accumulate)):
                self._learn(windows)
                stopping = self._tick(stop)
                over = self._is_over()
                if not over and self._is_report_due(self._config.report_every):
                    yield self._report()
                    over = self._is_over()
                if self.seconds - last_progress > SECONDS_BETWEEN_PROGRESS:
                    last_progress = self.seconds
                    yield self._progress()
                if stopping:
                    yield Stopped()
                    self.model.eval()
                    return
                if over:
                    break
            else:  # an epoch from another offset may have one window more
                if not over:
                    self._move(window=self._longest_epoch)
            over = over or self._position.epoch >= (self._config.epochs or math.inf)
            shortest = min(self._config.report_every, self._windows) // 2
            if self._is_report_due(1 if over else max(1, shortest)):
                yield self._report()
            if shown := self._close_epoch(over or self._is_over()):
                yield shown
        self.model.eval()
        early = self._stops_early() and self._fraction_done() < 1
        yield Finished(self._judge.kept_metrics(), early)

    def _rest_of_epoch(self) -> Iterator[Window]:
        """The windows of the epoch that have not been read."""
        self._rng.bit_generator.state = self._position.epoch_random
        windows = self._data.epoch(self._config, self._rng, self._position.window)
        return (window.to(self._device) for window in windows)

    def _learn(self, windows: Sequence[Window]) -> None:
        """One update, by truncated backpropagation through time in each of the windows."""
        config = self._config
        rate = self._optimization.learning_rate(self._fraction_done(steps_ahead=len(windows) / 2))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        with nullcontext() if self._dropout is None else self._dropout.dropped():
            for window in windows:
                loss = self._read(window)
                (loss / len(windows) if len(windows) > 1 else loss).backward()  # type: ignore[no-untyped-call]
                self._meter.add(loss, window.tokens)
        nn.utils.clip_grad_norm_(self._parameters, config.clip)
        self._optimizer.step()
        if self._position.step == 0:
            self._pack_optimizer()  # an error about its state comes now, not at the first save
        if self._judge.average is not None:
            self._judge.average.update(self._position.step // config.accumulate)
        self._move(
            window=self._position.window + len(windows),
            step=self._position.step + len(windows),
            tokens=self._position.tokens + sum(window.tokens for window in windows),
        )

    def _read(self, window: Window) -> Tensor:
        """The loss of a window, after which the state is that at its end."""
        config, rows = self._config, self._rows
        fresh = window.fresh or not self._objective.carries_state
        initial = None
        if fresh or self._end is not None:  # anew each time: a cell may learn it
            initial = self.model.init_state(rows.stop - rows.start)
        state = initial if fresh else detach(self._state)
        whole = self._objective.examples(window, self._masks)
        examples = whole.of_rows(rows)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            logits_TBV, self._state = read_documents(
                self._forward, examples.inputs, state, initial, self._end
            )
        logits, targets = examples.select(logits_TBV)
        exact = torch.promote_types(logits.dtype, torch.float32)
        return self._loss(logits.to(exact), targets, whole)

    def _loss(self, logits: Tensor, targets: Tensor, whole: Examples) -> Tensor:
        """The mean loss; of several processes, this one's part of it, such that the mean over the
        processes is that over all tokens (a process may have none of them)."""
        if self.processes.count == 1:
            return self._loss_of(logits, targets)
        total = self._loss_of(logits, targets, reduction="sum")
        counted = whole.targets if whole.counted is None else whole.targets[whole.counted]
        count = counted.numel()
        return total * (self.processes.count / count)

    def _move(self, **changes: Any) -> None:
        self._position = self._position.model_copy(update=changes)

    def _tick(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Looks at the clock; whether to stop."""
        seconds, stopping = self.clock.tick(stop)
        self._move(seconds=seconds)
        return stopping

    def _fraction_done(self, steps_ahead: float = 0.0) -> float:
        config, position, shares = self._config, self._position, [0.0]
        if config.minutes is not None:
            shares.append(position.seconds / self.clock.last_step)
        if config.epochs is not None:
            of_epoch = min(1.0, (position.window + steps_ahead) / self._longest_epoch)
            shares.append((position.epoch - 1 + of_epoch) / config.epochs)
        return min(1.0, max(shares))

    def _is_over(self) -> bool:
        """Whether the time is up, or early stopping is due."""
        # after a late start too, something is learnt and reported
        out_of_time = self._position.step > 0 and self.seconds >= self.clock.last_step
        return out_of_time or self._stops_early()

    def _stops_early(self) -> bool:
        patience, target, best = self._config.patience, self._config.target_loss, self._judge.best
        if target is not None and best is not None and best.judged <= target:
            return True
        return patience is not None and self._position.waited >= patience

    def _is_report_due(self, windows: int) -> bool:
        return self._meter.windows >= windows

    def _progress(self) -> Progress:
        done = self._fraction_done()
        if self._meter.tokens:
            loss = float(self._meter.nats_per_token())
            rate = self._meter.tokens_per_second(self.seconds)
        else:
            assert self._judge.last is not None
            loss, rate = self._judge.last.train_loss, self._judge.last.tokens_per_second
        left = self.seconds * (1 - done) / done
        if self.model.interface.gives == "numbers":
            return Progress(done, self._position.epoch, None, rate, left, loss)
        return Progress(done, self._position.epoch, perplexity(loss), rate, left)

    def _report(self) -> Report:
        """The figures since the last report."""
        processes, meter = self.processes, self._meter
        nats = float(processes.sum(meter.nats_per_token())) / processes.count
        rate = meter.tokens_per_second(self.seconds)
        scores = self._judge.evaluate(self._position.evaluation_steps)
        if scores is not None and self._position.evaluation_steps is None:
            self._move(evaluation_steps=scores.steps)
        self._tick()  # the evaluation took time too
        learning_rate = self._optimization.learning_rate(self._fraction_done())
        better = self._judge.judge(self._position, nats, scores, rate, learning_rate)
        self._move(waited=0 if better else self._position.waited + 1)
        self._meter = Meter(self.seconds, self._device)
        assert self._judge.last is not None
        return Report(self._judge.last)

    def kept_weights(self) -> dict[str, Tensor]:
        """The weights that a user gets: the best, or the last, as the settings say."""
        return self._judge.kept_weights()

    def _close_epoch(self, over: bool) -> Sample | None:
        """Starts the next epoch, or ends training, when the model gets the weights that are kept; a
        sample of the one that is over, if one is due."""
        epoch, config = self._position.epoch, self._config
        tenth = int(self._fraction_done() * 10 + 1e-9)
        if config.sample_every is not None:
            due = epoch % config.sample_every == 0
        else:
            due = tenth > self._position.shown
        self._move(
            epoch=epoch + (not over),
            window=self._position.window if over else 0,
            shown=max(self._position.shown, tenth),
            epoch_random=dict(self._rng.bit_generator.state),
            finished=over,
        )
        if over:
            self.model.load_state_dict(self.kept_weights())
        if not (due or over):
            return None
        text = self._judge.sample(self._prompt, kept=over)
        return None if text is None else Sample(epoch, text)

    def snapshot(self) -> Snapshot:
        """Where the training stands. All processes take it at the same event."""
        gather, judge = self.processes.gather, self._judge
        tensors = {f"model.{name}": leaf for name, leaf in self.model.state_dict().items()}
        tensors |= {f"best.{name}": leaf for name, leaf in judge.best_weights.items()}
        if judge.average is not None:
            tensors |= {f"average.{name}": leaf for name, leaf in judge.average.weights.items()}
        kept, optimizer = self._pack_optimizer()
        tensors |= kept
        if self._state is not None:
            leaves = named_leaves(detach(self._state))
            tensors |= {f"state.{name}": gather(leaf) for name, leaf in leaves}
        tensors["random.cpu"] = gather(torch.get_rng_state()[None].to(self._device))
        if self._device.type == "cuda":
            random = torch.cuda.get_rng_state(self._device)
            tensors["random.cuda"] = gather(random[None].to(self._device))
        tensors["random.masks"] = self._masks.get_state()
        tensors["nats"] = self.processes.sum(self._meter.nats) / self.processes.count
        meter = self._meter
        self._move(meter_windows=meter.windows, meter_tokens=meter.tokens, meter_began=meter.began)
        detached = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        return Snapshot(detached, optimizer, self._position, judge.last, judge.best)

    def _pack_optimizer(self) -> tuple[dict[str, Tensor], Any]:
        try:
            return optimizer_state.pack(self._optimizer.state_dict())
        except TypeError as error:
            raise ContractError(
                f"{self._optimization.optimizer} cannot be saved: {error}; its state_dict should "
                f"hold tensors, numbers, texts and None, in dicts, lists and tuples."
            ) from None

    def restore(self, snapshot: Snapshot) -> None:
        """Takes over a snapshot. SnapshotError, before anything is changed, for one that is
        damaged or of another training."""
        optimizer = check_snapshot(snapshot, self.outline)
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in snapshot.tensors.items():
            kind, _, rest = name.partition(".")
            parts.setdefault(kind, {})[rest] = tensor
        position = snapshot.position
        self.model.load_state_dict(parts["model"])
        self._judge.restore(
            snapshot.last, snapshot.best, parts.get("best", {}), parts.get("average", {})
        )
        self._optimizer.load_state_dict(optimizer)
        self._state = None
        if position.step:
            initial, saved = self.model.init_state(1), parts.get("state", {})
            leaves = [saved[name][self._rows] for name, _ in named_leaves(initial)]
            self._state = unflatten(initial, [leaf.to(self._device) for leaf in leaves])
        self._restore_random(parts["random"], position)
        self._meter = Meter(position.meter_began, self._device)
        self._meter.nats += parts["nats"][""].to(self._device)
        self._meter.windows, self._meter.tokens = position.meter_windows, position.meter_tokens
        self._position = position

    def prolong(self) -> TrainingPosition:
        """Goes on after the end, to the budget that the settings have now: with the next epoch.
        UsageError where that is spent already."""
        config, position = self._config, self._position
        if position.finished:
            self._move(epoch=position.epoch + 1, window=0, waited=0, finished=False)
        spent = position.epoch if position.finished else position.epoch - 1
        if config.epochs is not None and spent >= config.epochs:
            raise UsageError(f"the run has read {spent} epochs already; give more by --epochs.")
        if config.minutes is not None and position.seconds >= 60 * config.minutes:
            raise UsageError(
                f"the run has trained for {position.seconds / 60:.3g} minutes already; give more "
                f"by --minutes."
            )
        return self._position

    def _restore_random(self, random: Mapping[str, Tensor], position: TrainingPosition) -> None:
        rank = self.processes.rank
        if len(random["cpu"]) == self.processes.count:
            torch.set_rng_state(random["cpu"][rank].clone())  # torch reads it from its beginning
            if self._device.type == "cuda" and "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"][rank].clone(), self._device)
        else:  # with another number of processes, dropout draws other numbers
            torch.manual_seed(self._config.seed + position.step * self.processes.count + rank)
        self._masks.set_state(random["masks"])
        self._rng.bit_generator.state = position.epoch_random


def training(
    model: LanguageModel, data: Dataset, config: TrainConfig, prompt: str
) -> Iterator[Event]:
    """The events of a new Trainer of a text."""
    return Trainer(model, TextData(data), config, prompt).events()
