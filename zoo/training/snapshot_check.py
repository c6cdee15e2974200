"""Whether a snapshot is one that a training can have taken: it is compared with what a trainer of
the same model, settings and text holds itself, before anything of it is taken over."""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.config import TrainConfig
from zoo.errors import one_line
from zoo.models.language_model import LanguageModel
from zoo.nn.state import named_leaves
from zoo.training.metrics import Metrics
from zoo.training.optimization import Optimization
from zoo.training.optimizer_check import check_optimizer, describe, is_finite, shown
from zoo.training.optimizer_state import PREFIX
from zoo.training.snapshot import Snapshot, SnapshotError, TrainingPosition

COMMON = ("epoch", "step", "tokens", "seconds", "tokens_per_second", "learning_rate")
WORDS = 624  # that torch's generator on a CPU makes at once, and then gives out one by one


class Outline(NamedTuple):
    """What decides how a snapshot may look: the model, how it is trained, how many windows an epoch
    and tokens a window have at least and at most, and which figures its metrics have beside those
    that all have."""

    model: LanguageModel
    optimization: Optimization
    windows: tuple[int, int]
    window_tokens: tuple[int, float]
    figures: frozenset[str]

    @property
    def config(self) -> TrainConfig:
        return self.optimization.config

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def check_snapshot(snapshot: Snapshot, outline: Outline) -> Any:
    """The `state_dict` of the snapshot's optimizer. SnapshotError, naming the first thing that is
    wrong, for a snapshot that the training cannot have taken."""
    _check_position(snapshot.position, outline)
    _check_metrics(snapshot, outline)
    _check_epoch_random(snapshot.position)
    others = dict(snapshot.tensors)
    names = [name for name in others if name.startswith(f"{PREFIX}.")]
    optimizer = {name: others.pop(name) for name in names}
    if outline.device.type == "cpu":
        others.pop("random.cuda", None)  # a training that began on a GPU
    _check_tensors(others, snapshot, outline)
    _check_generators(others, outline.device)
    weights = {name: others[f"model.{name}"] for name in outline.model.state_dict()}
    return check_optimizer(
        snapshot.optimizer,
        optimizer,
        outline.model,
        weights,
        outline.optimization,
        begun=snapshot.position.step > 0,
    )


def _check_position(position: TrainingPosition, outline: Outline) -> None:
    config, (fewest, most) = outline.config, outline.windows
    epoch, window, step = position.epoch, position.window, position.step
    if step == 0 and position.finished:
        raise SnapshotError("its position is step 0, and the end")
    if window > most:
        raise SnapshotError(f"its position is window {window} of {most}")
    # an epoch that is over stands at the window of the longest one; earlier ones may have been
    # left early, before a run was prolonged
    if not min(window, fewest) <= step <= (epoch - 1) * most + window:
        raise SnapshotError(f"its position is step {step}, and epoch {epoch}, window {window}")
    for name, tokens, windows in (
        ("tokens", position.tokens, step),
        ("meter_tokens", position.meter_tokens, position.meter_windows),
    ):
        if not _could_be(tokens, windows, outline):
            size = f"{config.steps} steps × {config.batch_size} rows"
            raise SnapshotError(
                f"its {name} are {tokens}, and {windows} windows of {size} have others"
            )
    if position.meter_began > position.seconds or position.waited > step:
        raise SnapshotError("its position is older than its metrics")


def _check_metrics(snapshot: Snapshot, outline: Outline) -> None:
    position, last, best = snapshot.position, snapshot.last, snapshot.best
    if last is None or best is None:
        if last is not best or position.finished:
            raise SnapshotError("it has no metrics")
    else:
        for metrics in (last, best):
            check_figures(metrics, outline)
        if last.step > position.step or last.seconds > position.seconds or best.step > last.step:
            raise SnapshotError("its position is older than its metrics")
    if position.meter_windows != position.step - (last.step if last is not None else 0):
        raise SnapshotError(
            f"its position has {position.meter_windows} windows since the last metrics, and its "
            f"steps are others"
        )


def check_figures(metrics: Metrics, outline: Outline) -> None:
    """SnapshotError for metrics that the training cannot have had."""
    for name, value in asdict(metrics).items():
        least = 1 if name in ("epoch", "step") or name.endswith("perplexity") else 0
        if value is not None and not least <= value <= sys.float_info.max:
            raise SnapshotError(f"its metrics have {name} out of range")
        if (value is None) is (name in outline.figures or name in COMMON):
            raise SnapshotError(f"its metrics have {name} {value}")
    if not _could_be(metrics.tokens, metrics.step, outline) or metrics.epoch > 2**53:
        raise SnapshotError("its metrics have a step that is not that of their tokens")


def _could_be(tokens: int, windows: int, outline: Outline) -> bool:
    """Whether so many windows can have so many tokens."""
    least, most = outline.window_tokens
    return windows * least <= tokens <= (windows * most if windows else 0)


def _check_epoch_random(position: TrainingPosition) -> None:
    probe = np.random.default_rng().bit_generator
    try:
        probe.state = position.epoch_random
        taken = dict(probe.state)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise SnapshotError(f"its epoch_random is no state: {one_line(error, 100)}") from None
    if taken != position.epoch_random:
        raise SnapshotError("its epoch_random is no state of a random generator")


def _check_tensors(tensors: Mapping[str, Tensor], snapshot: Snapshot, outline: Outline) -> None:
    """Names, shapes and dtypes, and that numbers are finite; of all but the optimizer's."""
    wanted = _wanted(snapshot, outline)
    for name in sorted(tensors.keys() | wanted.keys()):
        found = describe(tensors[name]) if name in tensors else "missing"
        expected = describe(wanted[name]) if name in wanted else "none"
        if found != expected:
            raise SnapshotError(f"its {shown(name)} is {found}, where the training has {expected}")
        # a state may begin as infinite, say a running maximum
        if not is_finite(tensors[name]) and (
            tensors[name].isnan().any() or is_finite(wanted[name])
        ):
            raise SnapshotError(f"its {shown(name)} has numbers that are not finite")


def _wanted(snapshot: Snapshot, outline: Outline) -> dict[str, Tensor]:
    """Tensors of the names, shapes and dtypes that the snapshot should have."""
    model, config = outline.model, outline.config
    weights, generator = model.state_dict(), torch.Generator().get_state()
    wanted = {"nats": torch.zeros((), dtype=torch.float64), "random.masks": generator}
    wanted |= {f"model.{name}": leaf for name, leaf in weights.items()}
    if config.keep == "best" and snapshot.best is not None:
        wanted |= {f"best.{name}": leaf for name, leaf in weights.items()}
    if config.ema is not None:
        wanted |= {f"average.{name}": leaf.detach() for name, leaf in model.named_parameters()}
    if snapshot.position.step:
        for name, leaf in named_leaves(model.init_state(1)):
            wanted[f"state.{name}"] = leaf.expand(config.batch_size, *leaf.shape[1:])
    # one for each process, and another number of them may resume
    found = snapshot.tensors.get("random.cpu", generator)
    processes = len(found) if found.dim() == 2 else 0
    if processes == 0 or config.batch_size % processes:
        processes = 1
    wanted["random.cpu"] = generator.expand(processes, -1)
    if outline.device.type == "cuda" and "random.cuda" in snapshot.tensors:
        wanted["random.cuda"] = torch.cuda.get_rng_state(outline.device).expand(processes, -1)
    return wanted


def _check_generators(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """That torch takes the states of its random generators, and would not read past the end of
    their words: it gives out the one at `following` and the next until `left` is 1, and does not
    ask whether there are so many."""
    states = [(torch.device("cpu"), "random.masks", tensors["random.masks"])]
    states += [(torch.device("cpu"), "random.cpu", state) for state in tensors["random.cpu"]]
    states += [(device, "random.cuda", state) for state in tensors.get("random.cuda", ())]
    for place, name, state in states:
        try:
            torch.Generator(place).set_state(state.clone())
        except RuntimeError as error:
            raise SnapshotError(f"its {name} is no state: {one_line(error, 100)}") from None
        if place.type == "cpu":
            _, left, _, following = struct.unpack("@QiiQ", state.numpy().tobytes()[:24])
            if left != 1 and following + left - 1 != WORDS:
                raise SnapshotError(f"its {name} is no state of a random generator")
