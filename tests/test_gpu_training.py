"""Training on a CUDA device, whose updates are recorded as CUDA graphs.

`pytest -m gpu tests` runs these; they are skipped where PyTorch finds no CUDA device.
"""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import pytest
import torch

import zoo
from zoo.config import RunConfig
from zoo.data.dataset import read_dataset
from zoo.models.language_model import LanguageModel
from zoo.training.events import Report
from zoo.training.fine_tuning import freeze
from zoo.training.snapshot import Snapshot
from zoo.training.trainer import Trainer

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True, scope="module")
def _cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device")


def learn(
    text_file: Path, stops: tuple[int, ...] = (), **settings: object
) -> tuple[list[float], Snapshot, bool]:
    """The training losses of all reports, the end, and whether it was recorded; it is stopped
    after so many windows, and resumed in another trainer."""
    given = {"cell": "rnn", "hidden": 24, "batch_size": 4, "steps": 10, "epochs": 2,
             "report_every": 5, "learning_rate": 0.01, "max_tokens": 900}  # fmt: skip
    losses: list[float] = []
    snapshot = None
    for stop in (*stops, None):
        config = RunConfig.build({**given, "corpus": str(text_file), **settings})
        data = read_dataset(config.data)
        torch.manual_seed(0)
        wanted = config.model.model_copy(
            update={"mask_token": not zoo.get_cell(config.model.cell).causal}
        )
        model = LanguageModel(wanted, data.tokenizer.vocab_size).cuda()
        freeze(model, config.training.freeze)
        trainer = Trainer(model, data, config.training, "the")
        if snapshot is not None:
            trainer.restore(snapshot)
        looks = itertools.count(1)
        for event in trainer.events(lambda: next(looks) == stop):  # noqa: B023
            if isinstance(event, Report):
                losses.append(event.metrics.train_bits_per_token)
        snapshot = trainer.snapshot()
    assert trainer.finished
    return losses, snapshot, trainer._updates.recorded is not None


KINDS = {
    "plain": {},
    "scratch": {"cell": "rnn-scratch", "optimizer": "sgd", "schedule": "constant", "clip": 0.3,
                "learning_rate": 0.5},
    "concise": {"cell": "rnn", "optimizer": "sgd", "learning_rate": 0.5},
    "muon": {"cell": "gru-scratch", "optimizer": "muon"},
    "several windows": {"cell": "lstm", "accumulate": 3, "ema": 0.9},
    "an average": {"cell": "mingru", "ema": 0.9, "warmup": 0.3},
    "shuffled": {"cell": "gru", "batches": "random", "accumulate": 2, "warmup": 0.3},
    "masked": {"cell": "bidirectional"},
    "dropped units": {"cell": "lstm", "recurrent_dropout": 0.3, "accumulate": 2},
    "layers": {"cell": "lstm-scratch", "layers": 2, "embedding": 8, "residual": True},
    "slstm": {"cell": "slstm"},
    "bf16": {"cell": "lstm-scratch", "precision": "bf16"},
    "retnet": {"cell": "retnet"},
    "gated-deltanet": {"cell": "gated-deltanet"},
    "frozen": {"cell": "gru", "freeze": ("head.*",)},
}  # fmt: skip
DRAWN = {"cell": "lstm", "dropout": 0.4, "layers": 2, "embedding": 8}


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_updates_learn_what_others_learn(kind: str, text_file: Path) -> None:
    with warnings.catch_warnings():
        # torch's, of a gradient that is added on another stream than it was computed on
        warnings.filterwarnings("error", message=".*AccumulateGrad.*")
        (wanted, plain, _), (found, end, recorded) = (
            learn(text_file, cuda_graph=graph, **KINDS[kind]) for graph in (False, None)
        )
    assert recorded
    assert len(wanted) > 3
    # twice as many rounding errors as between two runs, in two epochs of training
    assert found == pytest.approx(wanted, rel=1e-3)
    assert end.tensors.keys() == plain.tensors.keys()
    for name, leaf in end.tensors.items():
        assert (leaf.shape, leaf.dtype) == (plain.tensors[name].shape, plain.tensors[name].dtype)


@pytest.mark.parametrize("kind", [*KINDS, "dropout"])
def test_a_resumed_recorded_training_is_the_same_to_the_bit(kind: str, text_file: Path) -> None:
    settings = {**KINDS, "dropout": DRAWN}[kind]
    (losses, end, _), (again, resumed, recorded) = (
        learn(text_file, stops, **settings) for stops in ((), (9, 4))
    )
    assert recorded
    assert losses == again
    for name, leaf in end.tensors.items():
        assert torch.equal(leaf, resumed.tensors[name]), name


def test_dropout_is_drawn_anew_in_each_replay(text_file: Path) -> None:
    """With a rate of almost nothing the same window has another loss each time."""
    losses, _, recorded = learn(
        text_file, **{**DRAWN, "learning_rate": 1e-12, "report_every": 1, "steps": 100}
    )
    assert recorded
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("cell", [spec.name for spec in zoo.list_cells()])
def test_every_cell_can_be_recorded(cell: str, text_file: Path) -> None:
    wanted, _, _ = learn(text_file, cell=cell, cuda_graph=False, epochs=1)
    found, _, recorded = learn(text_file, cell=cell, epochs=1)
    assert recorded
    assert found == pytest.approx(wanted, rel=1e-3)


def test_what_cannot_be_recorded_is_learnt_all_the_same(
    text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout before it: the random numbers go on as if nothing had been tried."""
    wanted, _, _ = learn(text_file, cuda_graph=False, **DRAWN)
    cell = zoo.get_cell("lstm").load_factory()
    forward = cell.forward

    def read(self, x_TBI, state=None):  # type: ignore[no-untyped-def]
        y_TBH, state = forward(self, x_TBI, state)
        assert float(y_TBH.sum()) != 1
        return y_TBH, state

    monkeypatch.setattr(cell, "forward", read)
    with pytest.warns(zoo.errors.ZooWarning, match="not recorded as CUDA graphs.*test_gpu_train"):
        found, _, recorded = learn(text_file, **DRAWN)
    assert not recorded
    assert found == pytest.approx(wanted, rel=1e-3)


def test_a_failed_recording_leaves_the_device_as_it_was(
    text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails in the middle of the recording, where the rehearsal passed."""
    wanted, _, _ = learn(text_file, cuda_graph=False, **DRAWN)
    cell = zoo.get_cell("lstm").load_factory()
    forward = cell.forward

    def read(self, x_TBI, state=None):  # type: ignore[no-untyped-def]
        y_TBH, state = forward(self, x_TBI, state)
        if torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()
        return y_TBH, state

    monkeypatch.setattr(cell, "forward", read)
    with pytest.warns(zoo.errors.ZooWarning, match="not recorded as CUDA graphs"):
        found, _, recorded = learn(text_file, **DRAWN)
    assert not recorded
    assert found == pytest.approx(wanted, rel=1e-3)


def test_a_training_that_does_not_fit_says_how_much_was_wanted(text_file: Path) -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 50e6) / total)
    told = r"out of memory: [\d.]+ MiB more were wanted, of [\d.]+ GiB in all; lower --batch-size"
    try:
        with pytest.raises(zoo.errors.ZooError, match=told):
            zoo.train(
                str(text_file), cell="rnn-scratch", hidden=1024, batch_size=8, steps=500, out="r",
                epochs=1, precision="fp32",
            )  # fmt: skip
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
