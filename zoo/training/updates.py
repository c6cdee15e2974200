"""Updates of the weights: step by step, or as replays of CUDA graphs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.config import TrainConfig
from zoo.data.batches import Window
from zoo.errors import UsageError, ZooWarning
from zoo.models.language_model import LanguageModel
from zoo.nn.state import detach
from zoo.training.averaging import Average
from zoo.training.distributed import Processes
from zoo.training.documents import read_documents
from zoo.training.meter import Meter
from zoo.training.objectives import Examples, Objective
from zoo.training.optimization import Optimization
from zoo.training.precision import product_precision
from zoo.training.recorded_updates import NotRecordedError, RecordedUpdates
from zoo.training.recurrent_dropout import RecurrentDropout


class Updates:
    """Makes the updates of a training, by truncated backpropagation through time, and adds up their
    losses in `meter`.

    `optimizer` is the one that the settings name, `masks` the random numbers of the objective,
    `state` the one at the end of the last window, and `recorded` are the updates as CUDA graphs,
    None where they are made step by step. `end` is the token that ends a document, None where texts
    are read without a break.
    """

    def __init__(
        self,
        model: LanguageModel,
        objective: Objective,
        optimization: Optimization,
        average: Average | None,
        meter: Meter,
        config: TrainConfig,
        processes: Processes,
        end: int | None,
    ) -> None:
        self._model, self._objective, self._optimization = model, objective, optimization
        self._average, self._meter, self._config = average, meter, config
        self._processes, self._end = processes, end
        self._device = next(model.parameters()).device
        self._rows = processes.rows(config.batch_size)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        # every window has one shape; evaluation, whose rows have others, is not compiled
        if end is not None and (config.compile or config.cuda_graph):
            raise UsageError("--documents goes without --compile and --cuda-graph.")
        self.optimizer = optimization.make_optimizer(model)
        learner: Any = torch.compile(model, dynamic=False) if config.compile else model
        self._forward = processes.wrap(learner)
        self.masks = torch.Generator().manual_seed(config.seed)
        share = config.recurrent_dropout
        self._dropout = RecurrentDropout(model, share, self.masks) if share else None
        self.state: Any = None
        self.recorded = self._record()

    def restart(self, state: Any) -> None:
        """Goes on from another state, with other tensors in the optimizer."""
        self.state = state
        self.recorded = self._record()

    def make(self, windows: Sequence[Window], rate: float, number: int, *, first: bool) -> None:
        """Makes update `number` (from 0) from these windows; `first` says whether it is the first
        of the training."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if not self._replay(windows, rate, number, first):
            with product_precision(self._config.precision):
                self._step(windows, number)

    def _replay(self, windows: Sequence[Window], rate: float, number: int, first: bool) -> bool:
        """Whether updates are recorded, and this one was made so."""
        recorded = self.recorded
        if recorded is None:
            return False
        fresh = [window.fresh or not self._objective.carries_state for window in windows]
        try:
            if not first:
                recorded.prepare(fresh)
        except NotRecordedError as error:
            told = f"this training is not recorded as CUDA graphs, and is slower: {error}."
            warnings.warn(told, ZooWarning, stacklevel=2)
            self.recorded = None
            return False
        if self._dropout is not None:
            self._dropout.draw()
        examples = [self._objective.examples(window, self.masks) for window in windows]
        self.state = recorded.learn(examples, fresh, self.state, rate, number, replay=not first)
        return True

    def _step(self, windows: Sequence[Window], number: int) -> None:
        self.optimizer.zero_grad()
        with nullcontext() if self._dropout is None else self._dropout.dropped():
            for window in windows:
                loss = self._read(window.to(self._device))
                (loss / len(windows) if len(windows) > 1 else loss).backward()  # type: ignore[no-untyped-call]
                self._meter.add(loss)
                self._meter.count(1, window.inputs.numel())
        nn.utils.clip_grad_norm_(self._parameters, self._config.clip)
        self.optimizer.step()
        if self._average is not None:
            self._average.take_in(self._average.share(number))

    def _read(self, window: Window) -> Tensor:
        """The loss of a window, after which the state is that at its end."""
        config, rows = self._config, self._rows
        fresh = window.fresh or not self._objective.carries_state
        initial = None
        if fresh or self._end is not None:  # anew each time: a cell may learn it
            initial = self._model.init_state(rows.stop - rows.start)
        state = initial if fresh else detach(self.state)
        whole = self._objective.examples(window, self.masks)
        examples = whole.of_rows(rows)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            logits_TBV, self.state = read_documents(
                self._forward, examples.inputs, state, initial, self._end
            )
        logits, targets = examples.select(logits_TBV)
        exact = torch.promote_types(logits.dtype, torch.float32)
        return self._loss(logits.to(exact), targets, whole)

    def _loss(self, logits: Tensor, targets: Tensor, whole: Examples) -> Tensor:
        """The mean cross-entropy; of several processes, this one's part of it, such that the mean
        over the processes is that over all tokens (a process may have none of them)."""
        if self._processes.count == 1:
            return F.cross_entropy(logits, targets)
        total = F.cross_entropy(logits, targets, reduction="sum")
        count = whole.targets.numel() if whole.counted is None else whole.counted.sum()
        return total * (self._processes.count / count)

    def _record(self) -> RecordedUpdates | None:
        """The updates as CUDA graphs, where they can be recorded."""
        if not is_recorded(self._config, self._device, self._processes, self._end is not None):
            return None
        recordable = self._optimization.is_recordable
        return RecordedUpdates(
            self._model,
            self.optimizer,
            recordable,
            self._average,
            self._dropout,
            self._meter,
            self._config,
        )


def is_recorded(
    config: TrainConfig, device: torch.device, processes: Processes, documents: bool
) -> bool:
    """Whether a training's updates are recorded. UsageError where they should be and cannot."""
    on_gpu, alone = device.type == "cuda", processes.count == 1 and not config.compile
    if config.cuda_graph and not on_gpu:
        raise UsageError("--cuda-graph needs a GPU; leave it out on a CPU.")
    if config.cuda_graph and not alone:
        raise UsageError("--cuda-graph goes with one process and without --compile.")
    # a document that ends cuts a window in parts
    return config.cuda_graph is not False and on_gpu and alone and not documents
