"""The trainer, against an independent plain PyTorch loop."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import zoo
from zoo.config import RunConfig, TrainConfig
from zoo.data.batches import BATCHES
from zoo.data.dataset import read_dataset
from zoo.errors import UsageError, ZooError
from zoo.exporting.export import training_facts
from zoo.models.language_model import LanguageModel
from zoo.training.evaluation import evaluate
from zoo.training.events import Finished, Progress, Report, Sample
from zoo.training.optimization import Optimization
from zoo.training.text_data import TextData
from zoo.training.trainer import Trainer, training


def small(text_file: Path, **settings: object) -> tuple[LanguageModel, object, TrainConfig]:
    given = {
        "cell": "rnn",
        "hidden": 12,
        "batch_size": 4,
        "steps": 10,
        "epochs": 2,
        "corpus": str(text_file),
    }
    config = RunConfig.build({**given, **settings})
    data = read_dataset(config.data)
    torch.manual_seed(0)
    return LanguageModel(config.model, data.tokenizer.vocab_size), data, config.training


@pytest.mark.parametrize(
    ("kind", "schedule"), [("sequential", "constant"), ("random", "constant"), ("random", "cosine")]
)
def test_training_is_truncated_backpropagation(text_file: Path, kind: str, schedule: str) -> None:
    """Two epochs of SGD with clipping, reimplemented. The detached state is carried between
    sequential windows, and reset for random windows and in each epoch. The learning rate decays as
    half a cosine, taken in the middle of each step."""
    settings = {"batches": kind, "optimizer": "sgd", "learning_rate": 0.5, "clip": 0.3}
    settings |= {"schedule": schedule, "warmup": 0.0}
    model, data, config = small(text_file, held_out=0.0, max_tokens=500, **settings)
    other, _, _ = small(text_file, held_out=0.0, max_tokens=500, **settings)
    reports = [e.metrics for e in training(model, data, config, "the") if isinstance(e, Report)]

    rng = np.random.default_rng(config.seed)
    cell, head = other.stack.cells[0].rnn, other.head
    clipped, losses, step = 0, [], 0
    steps = 2 * (499 // 40)
    for _ in range(2):
        total = count = 0
        h = torch.zeros(1, 4, 12)
        for x, y, *_ in BATCHES[kind](data.train, 4, 10, rng):
            if kind == "random":
                h = torch.zeros(1, 4, 12)
            outputs, h = cell(F.one_hot(x, other.vocab_size).float(), h.detach())
            loss = F.cross_entropy(
                (F.linear(outputs, head.weight, head.bias)).flatten(0, 1), y.flatten()
            )
            other.zero_grad()
            loss.backward()
            norm = math.sqrt(sum(float(p.grad.square().sum()) for p in other.parameters()))
            clipped += norm > 0.3
            share = (1 + math.cos(math.pi * (step + 0.5) / steps)) / 2
            rate = 0.5 * (share if schedule == "cosine" else 1.0)
            step += 1
            with torch.no_grad():
                for p in other.parameters():
                    p -= rate * p.grad * min(1.0, 0.3 / norm)
            total, count = total + loss.item() * y.numel(), count + y.numel()
        losses.append(total / count)
    assert clipped > 0
    for name, wanted in other.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), wanted, rtol=0, atol=1e-5)
    assert [r.train_perplexity for r in reports] == pytest.approx(
        [math.exp(loss) for loss in losses], rel=1e-5
    )
    assert [r.train_bits_per_token for r in reports] == pytest.approx(
        [loss / math.log(2) for loss in losses], rel=1e-5
    )


def test_evaluation_is_the_mean_cross_entropy_of_the_rows(text_file: Path) -> None:
    model, data, _ = small(text_file, held_out=0.5)
    tokens = torch.from_numpy(data.held_out.astype(np.int64))
    rows, length = 15, (len(tokens) - 1) // 15  # 4,079 tokens make 15 rows of at least 256
    total = 0.0
    for row in range(rows):
        part = tokens[row * length : (row + 1) * length + 1]
        logits, _ = model(part[:-1, None])
        total += float(F.cross_entropy(logits[:, 0], part[1:], reduction="sum").detach())
    assert evaluate(model, data.held_out).nats_per_token == pytest.approx(
        total / (rows * length), rel=1e-5
    )


def test_evaluation_does_not_change_the_training(text_file: Path) -> None:
    """Reports, samples and evaluation during training do not change the weights."""
    ends = []
    for settings in ({"report_every": 1, "sample_every": 1}, {"report_every": 10**6}):
        model, data, config = small(text_file, keep="last", **settings)
        list(training(model, data, config, "the"))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*ends)


def test_events_are_ordered_and_carry_the_metrics(text_file: Path) -> None:
    model, data, config = small(text_file, epochs=3, report_every=70, sample_every=2)
    events = [e for e in training(model, data, config, "the ") if not hasattr(e, "seconds_left")]
    reports = [e.metrics for e in events if isinstance(e, Report)]
    assert isinstance(events[-1], Finished)
    assert events[-1].metrics == reports[-1]
    samples = [e for e in events if isinstance(e, Sample)]
    assert [s.epoch for s in samples] == [2, 3]
    assert all(s.text.startswith("the ") and len(s.text) == 54 for s in samples)
    assert [r.step for r in reports] == sorted({r.step for r in reports})
    assert reports[-1].tokens == reports[-1].step * 40
    assert {r.epoch for r in reports} == {1, 2, 3}
    assert 1 < reports[-1].held_out_perplexity < reports[0].held_out_perplexity


def test_minutes_end_the_training(text_file: Path) -> None:
    """They leave time for what comes after the last step."""
    model, data, config = small(text_file, epochs=None, minutes=0.05)
    *_, last = [e for e in training(model, data, config, "the") if isinstance(e, Report)]
    assert 1.4 <= last.metrics.seconds < 10


def test_a_loss_that_is_not_finite_ends_the_training(text_file: Path) -> None:
    model, data, config = small(text_file, options={"nonlinearity": "relu"}, learning_rate=90.0)
    with torch.no_grad():
        model.stack.cells[0].rnn.weight_hh_l0.mul_(1e4)
    with pytest.raises(ZooError, match="loss is no longer finite at step"):
        list(training(model, data, config, "the"))


def test_a_run_folder_has_everything(fox_run: zoo.Run) -> None:
    names = {path.name for path in fox_run.path.iterdir() if path.is_file()}
    assert names == {
        "config.json", "tokenizer.json", "model.safetensors", "metrics.jsonl", "perplexity.png",
        "samples.txt", "training.safetensors", "progress.json",
    }  # fmt: skip
    lines = [json.loads(line) for line in (fox_run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert set(lines[0]) >= {
        "epoch", "step", "tokens", "seconds", "train_perplexity", "held_out_perplexity",
        "held_out_bits_per_char", "tokens_per_second", "learning_rate",
    }  # fmt: skip
    assert (fox_run.path / "perplexity.png").read_bytes().startswith(b"\x89PNG")
    assert "epoch 6\nthe " in (fox_run.path / "samples.txt").read_text()


def test_a_run_is_loaded_as_it_was_saved(fox_run: zoo.Run) -> None:
    again = zoo.load(fox_run.path)
    assert again.config == fox_run.config
    assert again.tokenizer == fox_run.tokenizer
    tokens = torch.randint(0, again.tokenizer.vocab_size, (30, 3))
    with torch.no_grad():
        assert torch.equal(again.model(tokens)[0], fox_run.model.eval()(tokens)[0])


def test_the_same_seed_trains_the_same_weights(trained: Callable[..., zoo.Run]) -> None:
    one, other = trained(seed=7, epochs=1), trained(seed=7, epochs=1, weight_decay=0.01)
    third = trained(seed=8, epochs=1)
    weights = [torch.cat([p.flatten() for p in r.model.parameters()]) for r in (one, other, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_interrupting_keeps_the_trained_weights(text_file: Path) -> None:
    events = zoo.train_events(str(text_file), epochs=100, hidden=8, steps=16, batch_size=4, out="r")
    for event in events:
        if isinstance(event, Report):
            break
    events.close()
    run = zoo.load("r")
    assert len(run.metrics()) == 1
    assert zoo.generate(run.path, "the", length=5).startswith("the")


@pytest.mark.parametrize("batches", ["sequential", "random"])
def test_events_continue_after_an_interruption(text_file: Path, batches: str) -> None:
    """Stopped within an epoch and continued, a trainer reads the rest of its windows."""

    def weights(steps: int) -> dict[str, torch.Tensor]:
        model, data, config = small(text_file, batches=batches)
        trainer, looks = Trainer(model, TextData(data), config, "a"), itertools.count(1)
        list(trainer.events(lambda: next(looks) == steps))
        assert trainer.finished == (steps == 0)
        list(trainer.events())
        assert trainer.finished
        return model.state_dict()

    undisturbed = weights(0)
    for name, leaf in weights(7).items():
        assert torch.equal(leaf, undisturbed[name])


def test_the_learning_rate_rises_and_falls() -> None:
    """Half a cosine from 1 to 0, under a line that reaches 1 at a tenth."""
    config = TrainConfig(learning_rate=2.0, warmup=0.1)
    wanted = {0.0: 0.0, 0.05: math.cos(0.05 * math.pi) + 1, 0.1: math.cos(0.1 * math.pi) + 1,
              0.5: 1.0, 0.75: 1 - math.sqrt(0.5), 1.0: 0.0}  # fmt: skip
    wanted[0.05] /= 2
    rate_at = Optimization.find(config, zoo.load_registry()).learning_rate
    for fraction, rate in wanted.items():
        assert rate_at(fraction) == pytest.approx(rate, abs=1e-12)
    constant = TrainConfig(learning_rate=2.0, warmup=0.1, schedule="constant")
    rate_at = Optimization.find(constant, zoo.load_registry()).learning_rate
    assert [rate_at(f) for f in (0.05, 0.1, 1.0)] == [1.0, 2.0, 2.0]


@pytest.mark.parametrize("batches", ["sequential", "random"])
@pytest.mark.parametrize("tokens", [84, 87, 88, 89])
def test_the_learning_rate_reaches_zero_with_the_last_window(
    batches: str, tokens: int, tmp_path: Path
) -> None:
    """Batches of 2 rows of 4 steps: with 84 tokens an epoch has 10 windows for most offsets, and 9
    for the others. The rate decays from window to window, as half a cosine of the completed
    fraction, and is 0 after the last."""
    text = tmp_path / "text.txt"
    text.write_text("ab" * (tokens // 2) + "a" * (tokens % 2))
    model, data, config = small(
        text, batches=batches, batch_size=2, steps=4, epochs=5, held_out=0, report_every=1, warmup=0
    )
    assert len(data.train) == tokens
    reports = [
        e.metrics for e in Trainer(model, TextData(data), config, "a").events() if type(e) is Report
    ]
    rates = [metrics.learning_rate for metrics in reports]
    longest = (tokens - 1) // 8
    windows = [sum(metrics.epoch == epoch for metrics in reports) for epoch in range(1, 6)]
    assert {longest - 1, longest} >= set(windows)
    wanted = []
    for epoch, count in enumerate(windows):
        for window in range(1, count + 1):
            share = (epoch + window / longest) / 5
            wanted.append(config.learning_rate * (1 + math.cos(math.pi * share)) / 2)
    assert rates[:-1] == pytest.approx(wanted[:-1], abs=1e-12)
    assert min(rates[:-1]) > 0


def test_weight_decay_does_not_apply_to_vectors(text_file: Path) -> None:
    """For parameters with a zero gradient, AdamW only applies its weight decay, to matrices."""
    model, _, config = small(text_file, learning_rate=0.1, weight_decay=0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = Optimization.find(config, zoo.load_registry()).make_optimizer(model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        share = 1 - 0.1 * 0.5 if p.dim() > 1 else 1.0
        torch.testing.assert_close(p.detach(), before[name] * share)


def overfit(text_file: Path, **settings: object) -> tuple[LanguageModel, list[object], object]:
    """Memorises random tokens, so that the validation loss grows."""
    letters = np.random.default_rng(0).choice(list("abcdefgh"), 1200)
    text_file.write_text("".join(letters))
    given = {"cell": "lstm", "hidden": 64, "learning_rate": 0.01, "epochs": 60, "held_out": 0.4}
    model, data, config = small(text_file, **{**given, **settings})
    return model, list(training(model, data, config, "a")), data


def test_the_best_weights_are_kept_and_overfitting_ends_the_training(text_file: Path) -> None:
    model, events, data = overfit(text_file, patience=3)
    figures = [e.metrics.held_out_bits_per_token for e in events if isinstance(e, Report)]
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.early
    best = min(figures)
    assert figures.index(best) == len(figures) - 4  # three more epochs without improvement
    assert end.metrics.held_out_bits_per_token == best
    found = evaluate(model, data.held_out).nats_per_token / math.log(2)
    assert found == pytest.approx(best, rel=1e-6)


def test_the_last_weights_are_kept_when_asked_for(text_file: Path) -> None:
    model, events, data = overfit(text_file, keep="last", epochs=20)
    last = [e.metrics for e in events if isinstance(e, Report)][-1]
    found = evaluate(model, data.held_out).nats_per_token / math.log(2)
    assert found == pytest.approx(last.held_out_bits_per_token, rel=1e-6)
    assert last.epoch == 20


def test_the_smaller_of_two_budgets_ends_the_training(text_file: Path) -> None:
    for budget in ({"epochs": 1, "minutes": 60}, {"epochs": 10**6, "minutes": 0.01}):
        model, data, config = small(text_file, **budget)
        end = list(training(model, data, config, "the"))[-1]
        assert end.metrics.seconds < 20
        assert end.metrics.learning_rate < 0.3 * config.learning_rate


def test_evaluation_of_a_long_text_reads_the_start_of_each_row(text_file: Path) -> None:
    model, data, _ = small(text_file, held_out=0.5)
    tokens = torch.from_numpy(data.held_out.astype(np.int64))
    rows, length = 15, (len(tokens) - 1) // 15
    total = 0.0
    for row in range(rows):
        part = tokens[row * length : row * length + 41]
        logits, _ = model(part[:-1, None])
        total += float(F.cross_entropy(logits[:, 0], part[1:], reduction="sum").detach())
    found = evaluate(model, data.held_out, limit=rows * 40).nats_per_token
    assert found == pytest.approx(total / (rows * 40), rel=1e-5)


def test_bfloat16_learns_what_float32_learns(text_file: Path) -> None:
    """Products are rounded to 8 bits, so metrics differ by about that; weights stay float32."""
    ends = []
    for precision in ("fp32", "bf16"):
        model, data, config = small(text_file, cell="lstm", precision=precision)
        ends.append(list(training(model, data, config, "the"))[-1].metrics.train_bits_per_char)
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert ends[0] != ends[1]
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_a_compiled_model_trains_the_same(text_file: Path) -> None:
    ends = []
    for compiled in (False, True):
        model, data, config = small(text_file, cell="rnn-scratch", compile=compiled, epochs=1)
        list(training(model, data, config, "the"))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-4)


def test_cuda_graphs_need_a_gpu(text_file: Path) -> None:
    with pytest.raises(UsageError, match="needs a GPU; leave it out on a CPU"):
        zoo.train(str(text_file), cuda_graph=True, device="cpu", out="run")
    assert not Path("run").exists()


@pytest.mark.slow
def test_memory_does_not_grow(text_file: Path) -> None:
    """Ten thousand windows, half of them after the first half."""
    model, data, config = small(
        text_file, cell="lstm-scratch", hidden=16, batch_size=2, steps=8, epochs=40,
        report_every=10**6, optimizer="adamw",
    )  # fmt: skip
    trainer = Trainer(model, TextData(data), config, "the")
    resident, steps = [], []
    for event in trainer.events():
        if isinstance(event, Progress):
            steps.append(trainer.snapshot().position.step)
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]))  # pages
    assert steps[-1] > 10_000
    settled = resident[next(i for i, step in enumerate(steps) if step > 1_000)]
    assert resident[-1] <= 1.02 * settled


def test_without_a_held_out_text_the_best_epoch_is_that_of_the_lowest_training_loss(
    text_file: Path,
) -> None:
    """The rate is so high that the loss rises repeatedly."""
    events = list(
        zoo.train_events(
            str(text_file), cell="rnn", hidden=16, held_out=0, epochs=30, batch_size=4, steps=8,
            optimizer="sgd", learning_rate=8.0, schedule="constant", prompt="the", out="r",
        )
    )  # fmt: skip
    lines = [event.metrics for event in events if isinstance(event, Report)]
    lowest = min(lines, key=lambda line: line.train_bits_per_token)
    assert lowest != lines[-1]
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert finished.metrics == lowest
    assert training_facts(zoo.load("r")).epochs == lowest.epoch


def test_the_last_weights_are_kept_and_patience_still_ends_the_training(text_file: Path) -> None:
    events = list(
        zoo.train_events(
            str(text_file), cell="rnn", hidden=16, held_out=0.2, epochs=200, batch_size=4, steps=8,
            learning_rate=0.5, schedule="constant", keep="last", patience=3, prompt="the", out="r",
        )
    )  # fmt: skip
    lines = [event.metrics for event in events if isinstance(event, Report)]
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert finished.early
    assert finished.metrics == lines[-1]
    best = min(lines, key=lambda line: line.held_out_bits_per_token or 0.0)
    assert lines.index(best) == len(lines) - 4
