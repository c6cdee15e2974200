"""Updates that are recorded and replayed, with a recorder that runs the work itself: on a CPU they
must learn what the plain trainer learns. tests/test_gpu.py records them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from zoo.config import RunConfig, TrainConfig
from zoo.data.dataset import Dataset, read_dataset
from zoo.errors import ZooWarning
from zoo.models.language_model import LanguageModel
from zoo.training import recorded_updates, updates
from zoo.training.events import Report
from zoo.training.recorded_updates import Part
from zoo.training.trainer import Trainer

Work = Callable[[], None]
UNREADABLE = "the host reads a number that the device computes"


class Waiting(TorchDispatchMode):
    """Raises where a GPU would have to be waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            raise RuntimeError(UNREADABLE)
        return func(*args, **(kwargs or {}))


class Rerun:
    """Replays by running again."""

    def __init__(self, device: torch.device) -> None:
        self.recorded = 0

    def rehearse(self, work: Work) -> None:
        with torch.random.fork_rng(devices=[]), Waiting():
            work()

    def record(self, work: Work) -> Work:
        self.recorded += 1
        return work


@pytest.fixture
def recorded_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_recorded(config: TrainConfig, *_: object) -> bool:
        return config.cuda_graph is not False

    monkeypatch.setattr(recorded_updates, "GraphRecorder", Rerun)
    monkeypatch.setattr(updates, "is_recorded", is_recorded)


def small(text_file: Path, **settings: object) -> tuple[LanguageModel, Dataset, TrainConfig]:
    given = {"cell": "rnn", "hidden": 12, "batch_size": 4, "steps": 10, "epochs": 2}
    config = RunConfig.build({**given, "corpus": str(text_file), **settings})
    data = read_dataset(config.data)
    model = config.model
    if model.cell == "bidirectional":
        model = model.model_copy(update={"mask_token": True})
    torch.manual_seed(0)
    return LanguageModel(model, data.tokenizer.vocab_size), data, config.training


def learn(text_file: Path, stops: int = 0, **settings: object) -> tuple[list[float], Trainer]:
    """The training losses of all reports; the training is stopped and resumed so many times."""
    given = {"report_every": 5, "learning_rate": 0.01, "max_tokens": 700, **settings}
    losses: list[float] = []
    snapshot = None
    while True:
        model, data, config = small(text_file, **given)
        trainer = Trainer(model, data, config, "the")
        if snapshot is not None:
            trainer.restore(snapshot)
        else:
            torch.manual_seed(1)
        steps = iter(range(7))
        for event in trainer.events(lambda: stops > 0 and next(steps, None) is None):  # noqa: B023
            if isinstance(event, Report):
                losses.append(event.metrics.train_bits_per_token)
        if trainer.finished:
            return losses, trainer
        snapshot = trainer.snapshot()
        stops -= 1


KINDS = {
    "plain": {},
    "sgd": {"optimizer": "sgd", "schedule": "constant", "learning_rate": 0.5, "clip": 0.3},
    "muon": {"optimizer": "muon"},
    "several windows": {"accumulate": 3, "ema": 0.9},
    "shuffled": {"batches": "random", "accumulate": 2, "warmup": 0.3},
    "masked": {"cell": "bidirectional"},
    "dropped units": {"cell": "lstm", "recurrent_dropout": 0.3, "accumulate": 2},
    "dropout": {"dropout": 0.4, "layers": 2, "embedding": 8},
    "bf16": {"precision": "bf16", "cell": "lstm-scratch"},
    "retnet": {"cell": "retnet"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_updates_learn_the_same(kind: str, text_file: Path, recorded_on_cpu: None) -> None:
    (wanted, plain), (found, recorded) = (
        learn(text_file, cuda_graph=graph, **KINDS[kind]) for graph in (False, None)
    )
    assert plain._updates.recorded is None
    assert recorded._updates.recorded is not None
    assert len(wanted) > 3
    assert found == pytest.approx(wanted, rel=2e-4)
    for one, other in zip(
        recorded.snapshot().tensors.values(), plain.snapshot().tensors.values(), strict=True
    ):
        assert one.shape == other.shape
        assert one.dtype == other.dtype


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_recorded_training_is_the_same_to_the_bit(
    kind: str, text_file: Path, recorded_on_cpu: None
) -> None:
    ends = [learn(text_file, stops, **KINDS[kind])[1].model.state_dict() for stops in (0, 2)]
    for one, other in zip(*(end.values() for end in ends), strict=True):
        assert torch.equal(one, other)


def test_what_cannot_be_recorded_is_said_and_learnt_step_by_step(
    text_file: Path, recorded_on_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, _ = learn(text_file, cuda_graph=False)
    cell = zoo.get_cell("rnn").load_factory()
    forward = cell.forward

    def read(self, x_TBI, state=None):  # type: ignore[no-untyped-def]
        assert float(x_TBI.sum()) > 0
        return forward(self, x_TBI, state)

    monkeypatch.setattr(cell, "forward", read)
    told = rf"not recorded as CUDA graphs, and is slower: {UNREADABLE} \(.*{Path(__file__).name}"
    with pytest.warns(ZooWarning, match=told):
        found, trainer = learn(text_file)
    assert trainer._updates.recorded is None
    assert found == pytest.approx(wanted, rel=1e-5)


def test_parts_of_an_update() -> None:
    """A window of several is added to the others; the last one knows which kinds there were."""
    both = frozenset({True, False})
    assert Part.of_update([False]) == [(False, True, True, {False})]
    assert Part.of_update([True, False, False]) == [
        (True, True, False, {True}), (False, False, False, {False}), (False, False, True, both),
    ]  # fmt: skip


def test_each_kind_of_window_is_recorded_once(text_file: Path, recorded_on_cpu: None) -> None:
    """Two epochs of 15 windows or more, in threes: first and later ones, with and without another
    kind before."""
    _, trainer = learn(text_file, accumulate=3)
    assert trainer._updates.recorded is not None
    assert (
        trainer._updates.recorded._recorder.recorded == len(trainer._updates.recorded._replays) <= 7
    )


class Shifted(zoo.Cell):
    """h_t = tanh(w ⊙ (x_t + d_{t-1})), d_t = h_{t-1}: the next d is the very tensor that h was. Its
    first state is learnt, so windows that carry the state give it no gradient."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.w = torch.nn.Parameter(torch.full((input_size, hidden_size), 0.1))
        self.first = torch.nn.Parameter(torch.full((hidden_size,), 0.5))

    def init_state(self, batch_size: int) -> Pair:
        return Pair(self.first.expand(batch_size, -1), self.zeros(batch_size, self.hidden_size))

    def advance(self, z: torch.Tensor, state: Pair) -> tuple[torch.Tensor, Pair]:
        h = torch.tanh(z @ self.w + state.d)
        return h, Pair(h, state.h)


class Pair(NamedTuple):
    h: torch.Tensor
    d: torch.Tensor


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_learnt_initial_state(
    accumulate: int, text_file: Path, recorded_on_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parameter without a gradient gets no step, not even the optimizer's decay or momentum."""
    monkeypatch.setattr(zoo.get_cell("indrnn").__class__, "load_factory", lambda self: Shifted)
    ends = [
        learn(text_file, cell="indrnn", accumulate=accumulate, steps=2, cuda_graph=graph,
              learning_rate=0.1, max_tokens=120)[1].model.state_dict()
        for graph in (False, None)
    ]  # fmt: skip
    moved = ends[0]["stack.cells.0.first"]
    assert not torch.equal(moved, torch.full_like(moved, 0.5))
    for one, other in zip(*(end.values() for end in ends), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [spec.name for spec in zoo.list_cells()])
def test_no_cell_waits_for_the_device(cell: str, text_file: Path, recorded_on_cpu: None) -> None:
    _, trainer = learn(text_file, cell=cell, epochs=1, max_tokens=200)
    assert trainer._updates.recorded is not None
