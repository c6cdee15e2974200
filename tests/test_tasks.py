"""Tasks: what they draw, and a model of features and numbers. Expected figures are those that the
definitions give: shares by counting, variances by hand."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.cli import run
from zoo.config import Interface, ModelConfig
from zoo.errors import (
    ArtifactError,
    ContractError,
    NoTextError,
    RunError,
    UnknownNameError,
    UsageError,
)
from zoo.exporting.export import describe
from zoo.inference import ArtifactInfo, score_task
from zoo.registry import TaskCard, TaskSpec
from zoo.tasks import Batch, NamedTask, Task, find_task, measure_baselines
from zoo.testing import LawBroken, check_task
from zoo.training import Report

REGISTRY = zoo.load_registry()
CARD = TaskCard("A test", "nobody", 2026, "none", "Nothing.", "Nothing.")
SMALL = {"hidden": 12, "batch_size": 8, "learning_rate": 0.01}


@pytest.mark.parametrize(
    "name", [n for n in REGISTRY.tasks if not REGISTRY.tasks[n].card.downloads]
)
def test_a_task_keeps_its_law(name: str) -> None:
    check_task(name, REGISTRY)


@pytest.mark.parametrize("name", [n for n in REGISTRY.tasks if REGISTRY.tasks[n].full])
def test_the_full_size_can_be_drawn(name: str) -> None:
    full = find_task(f"task:{name}:full", REGISTRY)
    batch = full.training(0, 0, 4)
    assert batch.inputs.shape[1] == 4
    assert full.fingerprint != find_task(name, REGISTRY).fingerprint


def test_the_groups_are_the_papers() -> None:
    """S3, A5 and S5 have 6, 60 and 120 elements, which do not all commute; each row and column of a
    group's table has every element once, and products are associative."""
    for name, order in (("s3", 6), ("a5", 60), ("s5", 120)):
        task = find_task(name, REGISTRY).task
        table = task.table
        assert task.tokens == task.classes == order
        assert all(sorted(line) == list(range(order)) for line in (*table, *table.T))
        assert not (table == table.T).all()
        a, b, c = np.random.default_rng(0).integers(0, order, (3, 50))
        assert (table[table[a, b], c] == table[a, table[b, c]]).all()


def test_chance_is_what_the_definitions_say() -> None:
    """The sum of two uniform numbers has variance 1/6; eight symbols, a bit, and six elements are
    guessed right one time in eight, two and six."""
    for name, chance in (("copying", 1 / 8), ("parity", 1 / 2), ("s3", 1 / 6)):
        for baseline in measure_baselines(find_task(name, REGISTRY)):
            assert baseline.constant == pytest.approx(chance, abs=0.05)
            assert baseline.local == pytest.approx(chance, abs=0.06)
    for baseline in measure_baselines(find_task("adding", REGISTRY)):
        assert baseline.constant == pytest.approx(1 / 6, rel=0.2)


class Copied(Task):
    """Two bits in, the same out: a constant gets half of the bits, and a quarter of both."""

    tokens = classes = 2
    training, tests = {}, {"both": {}}
    whole = True

    def batch(self, rng: np.random.Generator, rows: int) -> Batch:
        bits = rng.integers(0, 2, (2, rows))
        return Batch(bits, bits)


def test_baselines_of_whole_sequences_are_of_whole_sequences() -> None:
    spec = TaskSpec("copied", f"{__name__}:Copied", CARD)
    (found,) = measure_baselines(NamedTask("task:copied", spec, {}, Copied()))
    assert found.constant == pytest.approx(0.25, abs=0.06)
    assert found.position == pytest.approx(0.25, abs=0.06)
    assert found.local == 1.0


def test_questions_of_recall_follow_a_power_law() -> None:
    """The distance of the first of the drawn places is k with a weight of 1/k^0.99."""
    task = find_task("mqar", REGISTRY).task
    batch = task.batch(np.random.default_rng(0), 20_000, pairs=1)
    distances = Counter(((batch.counted.argmax(0) - 2) // 2).tolist())
    weights = np.array([1 / k**0.99 for k in (1, 2, 3)])
    for slot, weight in enumerate(weights / weights.sum()):
        assert distances[slot] / 20_000 == pytest.approx(weight, abs=0.01)


def test_brackets_are_never_deeper_than_they_may_be() -> None:
    task = find_task("dyck:depth=3", REGISTRY).task
    batch = task.batch(np.random.default_rng(0), 64, length=60, depth=3)
    depths = np.where(batch.inputs < 2, 1, -1).cumsum(0)
    assert (depths.min(), depths.max()) == (0, 3)


def test_the_parts_of_stored_data_are_apart() -> None:
    task = find_task("digits-rows", REGISTRY).task
    seen = {}
    for part in ("training", "validation", "test"):
        batch = task.batch_of(part, np.random.default_rng(0), 4000)
        seen[part] = {image.tobytes() for image in batch.inputs.swapaxes(0, 1)}
    for one, other in itertools.combinations(seen.values(), 2):
        assert not one & other
    assert sum(map(len, seen.values())) > 1500  # of 1797


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The Hub's MNIST, with few images: an image of class n has a bright row 2n, and noise."""
    datasets = pytest.importorskip("datasets")
    stored = pytest.importorskip("zoo_tasks_series.stored")
    rng, parts = np.random.default_rng(0), {}
    for split, count in (("train", 5_400), ("test", 200)):
        labels = rng.integers(0, 10, count)
        images = rng.integers(0, 20, (count, 28, 28), dtype=np.uint8)
        images[np.arange(count), 2 * labels] = 255
        features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
        parts[split] = datasets.Dataset.from_dict({"image": images, "label": labels}, features)

    def load_dataset(name: str, split: str) -> Any:
        assert name == "ylecun/mnist"
        return parts[split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    stored.mnist_images.cache_clear()
    yield {split: rows.with_format("numpy")[:] for split, rows in parts.items()}
    stored.mnist_images.cache_clear()


def test_mnist_is_read_by_pixels_or_rows(mnist: dict[str, Any]) -> None:
    known = {image.tobytes(): label for image, label in zip(*mnist["test"].values(), strict=True)}
    for pixels, shape in (("pixels", (784, 64, 1)), ("rows", (28, 64, 28))):
        task = find_task(f"mnist:pixels={pixels}", REGISTRY).task
        inputs, targets, asked = task.batch_of("test", np.random.default_rng(0), 64)
        assert inputs.shape == shape
        assert asked[-1].all()
        assert not asked[:-1].any()
        images = np.rint(inputs.swapaxes(0, 1).reshape(64, -1) * 255).astype(np.uint8)
        assert targets[-1].tolist() == [known[image.tobytes()] for image in images]
    one, other = (
        find_task(name, REGISTRY).task.batch_of("test", np.random.default_rng(0), 64).inputs
        for name in ("mnist", "mnist:pixels=permuted")
    )
    order = np.random.default_rng(1).permutation(784)
    assert np.array_equal(one[order], other)


def test_mnist_keeps_the_law_and_is_learnt(mnist: dict[str, Any]) -> None:
    check_task("mnist", REGISTRY)
    run = zoo.train("task:mnist:pixels=rows", cell="gru", epochs=4, out="m", **SMALL)
    (outcome,) = score_task(run.path, "task:mnist:pixels=rows").settings
    assert outcome.accuracy > 0.9


def test_mnist_without_a_network_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(name: str, split: str) -> Any:
        raise ConnectionError("Couldn't reach it\non the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(zoo.ZooError, match=r"hf:ylecun/mnist cannot be read: Couldn't reach it"):
        zoo.train("task:mnist", cell="gru", **SMALL)
    assert not Path("runs").exists()


def test_lorenz_has_its_fixed_points() -> None:
    """At (±sqrt(72), ±sqrt(72), 27) the system stands still (Lorenz 1963)."""
    from zoo_tasks_series.chaos import Lorenz

    x = math.sqrt(72)
    point = np.array([[x, -x], [x, -x], [27.0, 27.0]])
    assert np.allclose(Lorenz().later(point), point, atol=1e-12)


def test_mackey_glass_is_in_standard_units() -> None:
    batch = find_task("mackey-glass", REGISTRY).training(0, 0, 64)
    assert batch.inputs.mean() == pytest.approx(0, abs=0.15)
    assert batch.inputs.std() == pytest.approx(1, abs=0.15)


class Wrong(Task):
    """Gives whatever a test puts in."""

    tokens, classes = 2, 2
    given: Batch

    def __init__(self) -> None:
        self.training, self.tests = {"length": 5}, {"length 5": {"length": 5}}

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        return Wrong.given


class Plugin:
    __name__ = "wrong"

    @zoo.hookimpl
    def zoo_tasks(self) -> Iterator[TaskSpec]:
        yield TaskSpec("wrong", "test_tasks:Wrong", CARD)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> zoo.registry.Registry:
    import sys

    monkeypatch.setitem(sys.modules, "test_tasks", sys.modules[__name__])
    return zoo.load_registry(Plugin())


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        ((np.zeros((5, 3), int), np.zeros((5, 64), int)), "inputs have the shape"),
        ((np.full((5, 64), 2), np.zeros((5, 64), int)), "whole numbers from 0 to 1"),
        ((np.zeros((5, 64)), np.zeros((5, 64), int)), "whole numbers from 0 to 1"),
        ((np.zeros((5, 64), int), np.zeros((4, 64), int)), "targets have the shape"),
        ((np.zeros((5, 64), int), np.zeros((5, 64), int), np.zeros((5, 64))), "counted"),
        ((np.zeros((5, 64), int), np.zeros((5, 64), int), np.zeros((5, 64), bool)), "some True"),
    ],
)
def test_a_wrong_batch_is_told(
    registry: zoo.registry.Registry, batch: tuple[np.ndarray, ...], told: str
) -> None:
    Wrong.given = Batch(*batch)
    with pytest.raises(ContractError, match=told):
        find_task("wrong", registry).training(0, 0, 64)


def test_what_batch_raises_is_told(registry: zoo.registry.Registry) -> None:
    Wrong.given = 7 // 2
    with pytest.raises(ContractError, match="gave a int"):
        find_task("wrong", registry).training(0, 0, 64)
    del Wrong.given
    with pytest.raises(ContractError, match="no batch with length=5: AttributeError"):
        find_task("wrong", registry).training(0, 0, 64)


class Leaking(Task):
    """Stored sequences, of which validation has some of training's."""

    tokens = classes = 2
    training, tests = {}, {"all": {}}

    def batch_of(self, part: str, rng: np.random.Generator, rows: int, **setting: int) -> Batch:
        first = {"training": 0, "validation": 900, "test": 2000}[part]
        numbers = first + rng.integers(0, 1000, rows)
        bits = (numbers >> np.arange(12)[:, None]) & 1
        return Batch(bits, bits ^ (rng.random(bits.shape) < 0.2))


def test_the_law_of_tasks_sees_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TaskSpec("leaking", f"{__name__}:Leaking", CARD)
    named = NamedTask("task:leaking", spec, {}, Leaking())
    monkeypatch.setattr("zoo.testing.tasks.find_task", lambda *_: named)
    with pytest.raises(LawBroken, match="in training and among those to be tested on"):
        check_task("leaking", REGISTRY)


def test_a_series_is_not_cut_shorter_than_was_asked() -> None:
    pytest.importorskip("statsmodels")
    with pytest.raises(UsageError, match="below 46 together"):
        find_task("sunspots:longest=45", REGISTRY)


def test_options_are_shown_as_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tasks", "parity:full"]) == 0
    full = REGISTRY.tasks["parity"].full
    assert f"options: longest={full['longest']}" in capsys.readouterr().out
    assert run(["tasks", "mqar:pairs=4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"] == {"pairs": 4, "vocab": 64}


def test_the_law_of_tasks_sees_a_constant_answer(registry: zoo.registry.Registry) -> None:
    class Fresh(Wrong):
        def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
            inputs = rng.integers(0, 2, (length, rows))
            return Batch(inputs, np.zeros_like(inputs))

    globals()["Fresh"] = Fresh

    class Second:
        __name__ = "second"

        @zoo.hookimpl
        def zoo_tasks(self) -> list[TaskSpec]:
            return [TaskSpec("constant", "test_tasks:Fresh", CARD)]

    with pytest.raises(LawBroken, match="without a memory"):
        check_task("constant", zoo.load_registry(Second()))


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("task:parrity", UnknownNameError, "did you mean 'parity'"),
        ("task:parity:longst=3", UsageError, "did you mean 'longest'"),
        ("task:parity:longest=x", UsageError, "longest"),
        ("task:parity:longest=1", UsageError, "greater than or equal to 3"),
        ("task:mqar:pairs=16", UsageError, "at most 15 pairs"),
        ("task:parity:fully", UsageError, "task:parity:option=value"),
    ],
)
def test_a_wrong_name_is_told(name: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        find_task(name, REGISTRY)


@pytest.mark.parametrize(
    ("task", "cell"), [("task:parity", "gru"), ("task:adding:longest=20", "lstm")]
)
def test_a_resumed_training_equals_an_uninterrupted_one(task: str, cell: str) -> None:
    whole = zoo.train(task, cell=cell, epochs=2, out="whole", **SMALL)
    events = zoo.train_events(task, cell=cell, epochs=2, out="parts", **SMALL)
    seen = 0
    for event in events:
        seen += isinstance(event, Report) or type(event).__name__ == "Progress"
        if seen == 2:  # in the middle of an epoch
            break
    events.close()
    position = json.loads(Path("parts/progress.json").read_text())
    assert 0 < position["step"] < 200
    parts = zoo.resume("parts")
    states = whole.model.state_dict(), parts.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    timed = ("tokens_per_second", "seconds")
    lines = [
        [{k: v for k, v in line.items() if k not in timed} for line in each.metrics()]
        for each in (whole, parts)
    ]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("prepare", ["other options", "damaged"])
def test_a_run_of_another_task_cannot_be_resumed(prepare: str) -> None:
    zoo.train("task:compression", cell="gru", epochs=1, out="r", **SMALL)
    path = Path("r/config.json")
    config = json.loads(path.read_text())
    if prepare == "other options":
        config["data"]["corpus"] = "task:compression:symbols=8"
        told = "another task"
    else:
        config["interface"]["inputs"] = 7
        told = "does not fit its config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(RunError, match=told):
        zoo.resume("r", epochs=2)


def test_the_loss_counts_what_is_asked() -> None:
    """The loss of an untrained model on one batch, worked out by numpy from its outputs."""
    from zoo.data.batches import Window
    from zoo.training.evaluation import evaluate_batches

    for name, gives in (("copying", "classes"), ("adding", "numbers")):
        named = find_task(name, REGISTRY)
        torch.manual_seed(0)
        config = ModelConfig(cell="gru", hidden=8)
        model = zoo.LanguageModel(config, named.task.interface, REGISTRY).eval()
        batch = named.training(0, 0, 16)
        asked = torch.from_numpy(batch.counted)
        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
        with torch.no_grad():
            outputs = model(inputs)[0].double().numpy()[batch.counted]
        wanted = batch.targets[batch.counted]
        if gives == "classes":
            shares = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
            loss = -np.log(np.take_along_axis(shares, wanted[:, None], -1)).mean()
        else:
            loss = ((outputs - wanted) ** 2).mean()
        found = evaluate_batches(model, [Window(inputs, targets, True, asked)])
        assert found.nats_per_token == pytest.approx(loss, rel=1e-5)
        if gives == "classes":
            assert found.accuracy == pytest.approx((outputs.argmax(-1) == wanted).mean())


def test_a_model_of_features_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """From training to its files: steps, sequences and integers agree with the run."""
    assert run(["train", "task:adding:longest=10", "--cell", "gru", "--hidden", "16",
                "--epochs", "4", "--out", "r"]) == 0  # fmt: skip
    assert "val error" in capsys.readouterr().err
    assert run(["export", "r", "--graph", "all"]) == 0
    assert run(["export", "r", "--graph", "all", "--precision", "int8"]) == 0
    errors = {}
    for source in ("r", *Path("r/export").iterdir()):
        errors[str(source)] = score_task(source, "task:adding:longest=10").settings[0].error
    assert errors["r"] < 1 / 12  # half of the variance, which always 1 has
    for name, error in errors.items():
        limit = 0.02 * (1 + 1 / 6) if "int8" in name else 1e-5
        assert error == pytest.approx(errors["r"], abs=limit)
    opened = zoo.open_source("r/export/step.onnx")
    assert opened.info.ends == Interface(reads="features", inputs=2, gives="numbers", outputs=1)
    assert opened.info.proof.cost is None
    assert zoo.open_source("r/export/step.int8.onnx").info.proof.cost <= 0.02


def test_a_task_has_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    zoo.train("task:parity", cell="gru", epochs=1, out="r", **SMALL)
    zoo.export("r")
    for command in (
        ["generate", "r"],
        ["generate", "r/export/step.onnx"],
        ["score", "r", "python-docs"],
        ["export", "r", "--graph", "generate"],
        ["export", "r", "--to", "web"],
        ["bench", "r/export/step.onnx"],
    ):
        assert run(command) == 2, command
        told = capsys.readouterr().err
        assert "trained on a task and has no text" in told
        assert len(told.strip().splitlines()) == 1
    with pytest.raises(NoTextError):
        zoo.Session("r")
    with pytest.raises(UsageError, match="16 tokens in and 15 classes out"):
        score_task("r", "task:induction")


def test_metadata_has_a_tokenizer_or_an_interface() -> None:
    """Of the metadata of a good file, one thing changed."""
    torch.manual_seed(0)
    interface = Interface(reads="tokens", inputs=2, gives="classes", outputs=3)
    model = zoo.LanguageModel(ModelConfig(cell="gru", hidden=4), interface, REGISTRY)
    good = describe(model, None, "step").to_metadata()
    assert ArtifactInfo.from_metadata(good, REGISTRY).ends == interface
    characters = json.dumps({"kind": "char", "characters": "ab"})
    without = {name: text for name, text in good.items() if name != "zoo.interface"}
    for wrong in (
        without,
        {**good, "zoo.tokenizer": characters},
        {**good, "zoo.graph": "generate"},
        {**good, "zoo.interface": json.dumps({**interface.model_dump(), "inputs": 0})},
        {**good, "zoo.interface": json.dumps({**interface.model_dump(), "gives": "words"})},
        {**good, "zoo.interface": "7"},
    ):
        with pytest.raises(ArtifactError, match="its metadata is damaged"):
            ArtifactInfo.from_metadata(wrong, REGISTRY)


@pytest.mark.parametrize("setting", ["tokenizer", "held_out", "prompt", "vocab"])
def test_settings_of_texts_are_refused(setting: str) -> None:
    value = {"tokenizer": "char", "held_out": 0.2, "prompt": "a", "vocab": 500}[setting]
    with pytest.raises(UsageError, match="has no effect on a task"):
        zoo.train("task:parity", cell="gru", **{setting: value})
    with pytest.raises(UsageError, match="windows of one length"):
        zoo.train("task:parity", cell="gru", compile=True)
    with pytest.raises(UsageError, match="trained on alone"):
        zoo.train(["task:parity", "task:s3"], cell="gru")


def test_a_missing_package_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    stored = pytest.importorskip("zoo_tasks_series.stored")
    stored.digit_images.cache_clear()
    with pytest.raises(UsageError, match=r'pip install "recurrent-zoo\[tasks\]"'):
        find_task("digits-rows", REGISTRY)


@pytest.mark.slow
def test_what_solves_parity_and_what_does_not() -> None:
    """The separation that the literature has (Merrill et al. 2024, Grazzi et al. 2025): a cell
    whose transitions an input can flip goes on beyond the lengths of training; one with positive
    diagonal transitions stays near a guess."""
    torch.set_num_threads(1)
    found = {}
    for cell in ("gru", "mamba2"):
        zoo.train("task:parity", cell=cell, layers=2, hidden=32, epochs=5, out=cell)
        found[cell] = [s.accuracy for s in score_task(cell, "task:parity").settings]
    assert min(found["gru"]) > 0.95
    assert max(found["mamba2"][1:]) < 0.7


@pytest.mark.slow
def test_a_non_causal_cell_reads_whole_sequences() -> None:
    """It has no mask token, since it is asked what the task asks, and its file gives what it gives.
    What is open after a closing bracket needs no future, so a guess of three is beaten."""
    run_ = zoo.train("task:dyck", cell="bidirectional", hidden=16, epochs=1, out="r")
    assert not run_.model.config.mask_token
    path = zoo.export("r", "sequence").path
    wanted, found = (score_task(source, "task:dyck") for source in ("r", path))
    assert min(setting.accuracy for setting in wanted.settings) > 0.45
    for one, other in zip(wanted.settings, found.settings, strict=True):
        assert one.accuracy == pytest.approx(other.accuracy, abs=1e-3)
