"""Updates of the weights that are recorded once and replayed: on a GPU, where starting each of the
many small kernels of a recurrence takes longer than the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from traceback import extract_tb
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.config import TrainConfig
from zoo.errors import one_line
from zoo.models.language_model import LanguageModel
from zoo.nn.state import detach, flatten, map_leaves
from zoo.registry.locations import shown_path
from zoo.training.averaging import Average
from zoo.training.cuda_graphs import GraphRecorder, Staging
from zoo.training.meter import Meter
from zoo.training.objectives import Examples
from zoo.training.precision import product_precision
from zoo.training.recurrent_dropout import RecurrentDropout

NOT_COUNTED = -100  # the target that torch's cross-entropy leaves out


class NotRecordedError(Exception):
    """What cannot be recorded, and why, as the end of a sentence. Nothing has been changed."""


class Recorder(Protocol):
    """How work is recorded; see GraphRecorder."""

    def rehearse(self, work: Callable[[], None]) -> None: ...
    def record(self, work: Callable[[], None]) -> Callable[[], None]: ...


class Part(NamedTuple):
    """What is done for one window: whether it starts from the initial state, is the `first` of its
    update, and the `last`, after which the weights are updated. `kinds` are the values of `fresh`
    in windows whose gradients it sees."""

    fresh: bool
    first: bool
    last: bool
    kinds: frozenset[bool]

    @classmethod
    def of_update(cls, fresh: Sequence[bool]) -> list[Part]:
        last = len(fresh) - 1
        return [
            cls(one, index == 0, index == last, frozenset(fresh if index == last else [one]))
            for index, one in enumerate(fresh)
        ]


class RecordedUpdates:
    """The updates of a training, each of one window or more, as replays of what was recorded:
    forward and backward pass, clipping, the optimizer's step (if it is `recordable`), the running
    average, and the sum of the losses, which nobody waits for.

    What changes from update to update is copied into tensors that stay: the window, the learning
    rate, the share of the average, and how many windows the update has. So does the state, which is
    `state`.
    """

    def __init__(
        self,
        model: LanguageModel,
        optimizer: Optimizer,
        recordable: bool,
        average: Average | None,
        dropout: RecurrentDropout | None,
        meter: Meter,
        config: TrainConfig,
        recorder: Recorder | None = None,
    ) -> None:
        """`recorder` is that of the model's device."""
        self._device = next(model.parameters()).device
        self._model, self._optimizer, self._recordable = model, optimizer, recordable
        self._average, self._dropout = average, dropout
        self._meter, self._config = meter, config
        self._recorder = recorder or GraphRecorder(self._device)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        shape = 2, config.steps, config.batch_size
        self._tokens = torch.zeros(shape, dtype=torch.int64, device=self._device)
        self._staging = Staging(self._tokens)
        with torch.no_grad():
            initial = detach(model.init_state(config.batch_size))
        self.state = map_leaves(torch.clone, initial)
        self._rate, self._share, self._windows = (
            torch.zeros((), device=self._device) for _ in range(3)
        )
        self._values: dict[str, float] = {}
        self._replays: dict[Part, Callable[[], None]] = {}
        # gradients that are read outside of the graph that computes them: each window adds to them
        self._sums: list[Tensor] = []
        self._reached: dict[bool, list[bool]] = {}

    def prepare(self, fresh: Sequence[bool]) -> None:
        """Records what an update of such windows needs and is not there yet. NotRecordedError where
        that fails."""
        for part in Part.of_update(fresh):
            if part not in self._replays:
                try:
                    self._record(part)
                except Exception as error:  # whatever a cell or an optimizer does
                    self._drop_gradients()
                    raise NotRecordedError(f"{one_line(error, 200)} ({_where(error)})") from None

    def learn(
        self,
        windows: Sequence[Examples],
        fresh: Sequence[bool],
        state: Any,
        rate: float,
        number: int,
        *,
        replay: bool = True,
    ) -> Any:
        """Update `number` (from 0), from `state` where the first window is not fresh. Returns the
        state after the windows. Without `replay` the same is done step by step: the first update of
        a training makes what the optimizer keeps."""
        if not fresh[0] and state is not self.state:
            self._set_state(state)
        self._set(self._rate, "rate", rate)
        self._set(self._windows, "windows", len(windows))
        if self._average is not None:
            self._set(self._share, "share", self._average.share(number))
        parts = Part.of_update(fresh)
        for part, examples in zip(parts, windows, strict=True):
            targets = examples.targets
            if examples.counted is not None:
                targets = targets.masked_fill(~examples.counted, NOT_COUNTED)
            self._staging.put(examples.inputs, targets)
            if replay:
                self._replays[part]()
            else:
                self._do(part)
            if part.last and not self._recordable:
                if replay:
                    self._give_sums(part)
                self._step()
            self._staging.used()
        self._drop_gradients()
        self._meter.count(len(windows), len(windows) * self._tokens[0].numel())
        return self.state

    def _record(self, part: Part) -> None:
        if part.fresh not in self._reached:

            def rehearse() -> None:
                self._drop_gradients()
                with product_precision(self._config.precision):
                    loss, _ = self._read(part.fresh)
                    loss.backward()  # type: ignore[no-untyped-call]

            self._recorder.rehearse(rehearse)
            self._reached[part.fresh] = [p.grad is not None for p in self._parameters]
        if self._is_summed(part) and not self._sums:
            self._sums = [torch.zeros_like(p) for p in self._parameters]

        def work() -> None:
            self._give_sums(part)
            self._do(part)

        self._replays[part] = self._recorder.record(work)
        self._drop_gradients()

    def _is_summed(self, part: Part) -> bool:
        """Whether gradients are added up in tensors that stay, and are not new in each graph."""
        return not (part.first and part.last and self._recordable)

    def _give_sums(self, part: Part) -> None:
        """Gives each parameter that a window of the update reaches its sum as the gradient; what
        none reaches has no gradient, and so no step."""
        self._drop_gradients()
        for kind in part.kinds if self._is_summed(part) else ():
            for index, parameter in enumerate(self._parameters):
                if self._reached[kind][index]:
                    parameter.grad = self._sums[index]

    def _do(self, part: Part) -> None:
        """The work of a part, which runs or is recorded."""
        with product_precision(self._config.precision):
            self._work(part)

    def _work(self, part: Part) -> None:
        if part.first and self._sums and self._is_summed(part):
            torch._foreach_zero_(self._sums)
        if part.first and self._dropout is not None:
            self._dropout.drop()
        loss, state = self._read(part.fresh)
        one_of_several = not (part.first and part.last)
        (loss / self._windows if one_of_several else loss).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self._meter.add(loss)
            self._set_state(state)
        if part.last:
            if self._dropout is not None:
                self._dropout.restore()
            nn.utils.clip_grad_norm_(self._parameters, self._config.clip)
            if self._recordable:
                self._step()

    def _read(self, fresh: bool) -> tuple[Tensor, Any]:
        """The loss of the window, and the state at its end."""
        config = self._config
        inputs, targets = self._tokens.unbind(0)
        state = self._model.init_state(config.batch_size) if fresh else self.state
        with torch.autocast(self._device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            logits_TBV, state = self._model(inputs, state)
        exact = torch.promote_types(logits_TBV.dtype, torch.float32)
        logits = logits_TBV.flatten(0, 1).to(exact)
        loss = F.cross_entropy(logits, targets.flatten(), ignore_index=NOT_COUNTED)
        return loss, detach(state)

    def _step(self) -> None:
        """The optimizer's step, and the running average's."""
        if self._recordable:
            with self._rate_on_device():
                self._optimizer.step()
        else:
            self._optimizer.step()
        if self._average is not None:
            self._average.take_in(self._share)

    @contextmanager
    def _rate_on_device(self) -> Iterator[None]:
        """Within the block the optimizer has the learning rate as a tensor. Outside of it its
        groups are as those of any other training, and are saved so."""
        recording = self._device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        groups = self._optimizer.param_groups
        before = [(group["lr"], group.get("capturable")) for group in groups]
        for group in groups:
            group["lr"] = self._rate
            if recording and "capturable" in group:
                group["capturable"] = True
        try:
            yield
        finally:
            for group, (rate, capturable) in zip(groups, before, strict=True):
                group["lr"] = rate
                if "capturable" in group:
                    group["capturable"] = capturable

    def _set(self, tensor: Tensor, name: str, value: float) -> None:
        if self._values.get(name) != value:
            tensor.fill_(value)
            self._values[name] = value

    @torch.no_grad()
    def _set_state(self, state: Any) -> None:
        own = flatten(self.state)
        places = {leaf.untyped_storage().data_ptr() for leaf in own}
        # a leaf that a cell hands on as another must not be overwritten before it is read
        new = [
            leaf.clone() if leaf.untyped_storage().data_ptr() in places else leaf
            for leaf in flatten(state)
        ]
        torch._foreach_copy_(own, new)

    def _drop_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def _where(error: Exception) -> str:
    """The innermost line that is not torch's own."""
    frames = [frame for frame in extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    return f"{shown_path(frames[-1].filename)}, line {frames[-1].lineno}"
