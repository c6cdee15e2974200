"""Loggers: what they write, read by TensorBoard and MLflow, against the metrics of the run; and
loggers that violate the contract."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import zoo
from zoo.cli import run
from zoo.errors import ContractError, ZooWarning
from zoo.training.events import Event, Report

SMALL = ["--hidden", "8", "--batch-size", "4", "--steps", "8", "--max-tokens", "2000"]


def read(folder: str) -> Any:
    found = EventAccumulator(folder)
    found.Reload()
    return found


def points(folder: str, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def metrics(path: str, figure: str) -> list[tuple[int, Any]]:
    return [
        (line["step"], pytest.approx(line[figure], rel=1e-6)) for line in zoo.load(path).metrics()
    ]


def until_a_report(events: Iterator[Any]) -> None:
    """Consumes events up to the next report; closing the iterator saves the run."""
    next(event for event in events if isinstance(event, Report))
    events.close()


def test_event_files_have_the_metrics_of_the_run(text_file: Path) -> None:
    assert run(["train", str(text_file), *SMALL, "--epochs", "3", "--prompt", "the q",
                "--log", "tensorboard", "--out", "r"]) == 0  # fmt: skip
    training, held_out = "r/tensorboard/training", "r/tensorboard/held-out"
    assert len(metrics("r", "step")) == 3
    for folder, tag, figure in (
        (training, "perplexity", "train_perplexity"),
        (training, "bits_per_char", "train_bits_per_char"),
        (training, "learning_rate", "learning_rate"),
        (training, "tokens_per_second", "tokens_per_second"),
        (held_out, "perplexity", "held_out_perplexity"),
        (held_out, "bits_per_char", "held_out_bits_per_char"),
        (held_out, "accuracy", "held_out_accuracy"),
    ):
        assert points(folder, tag) == metrics("r", figure)
    samples = read(training).Tensors("sample/text_summary")
    assert [event.step for event in samples] == [step for step, _ in metrics("r", "step")]
    text = samples[-1].tensor_proto.string_val[0].decode()
    assert text.startswith("    the q")
    assert text.strip() in Path("r/samples.txt").read_text()


def test_without_validation_text_there_is_no_validation_curve(text_file: Path) -> None:
    assert run(["train", str(text_file), *SMALL, "--epochs", "1", "--held-out", "0",
                "--log", "tensorboard", "--out", "r"]) == 0  # fmt: skip
    assert [path.name for path in Path("r/tensorboard").iterdir()] == ["training"]


def test_a_resumed_run_has_each_step_once(text_file: Path) -> None:
    """The second report is after the last save, so it is hidden, and written again."""
    settings = {"hidden": 8, "batch_size": 4, "steps": 8, "max_tokens": 2000, "epochs": 4}
    until_a_report(zoo.train_events(str(text_file), out="r", log=["tensorboard"], **settings))
    saved = {path: path.read_bytes() for path in Path("r").iterdir() if path.is_file()}
    until_a_report(zoo.resume_events("r", log=["tensorboard"]))
    for path, content in saved.items():
        path.write_bytes(content)
    assert run(["train", "--resume", "--log", "tensorboard", "--out", "r"]) == 0
    assert points("r/tensorboard/held-out", "perplexity") == metrics("r", "held_out_perplexity")
    assert len(metrics("r", "step")) == 4


def test_a_run_that_moves_takes_its_curves_along(text_file: Path, tracked: Any) -> None:
    settings = {"hidden": 8, "batch_size": 4, "steps": 8, "max_tokens": 2000, "epochs": 3}
    logs = ["tensorboard", "mlflow"]
    events = zoo.train_events(str(text_file), out="r", log=logs, **settings)
    next(event for event in events if isinstance(event, Report))
    shutil.rmtree("r")
    with pytest.warns(ZooWarning, match="the run goes on in r-2"):
        next(event for event in events if isinstance(event, Report))
    events.close()  # type: ignore[attr-defined]
    zoo.resume("r-2", log=logs)
    assert len(metrics("r-2", "step")) == 3
    assert points("r-2/tensorboard/training", "perplexity") == metrics("r-2", "train_perplexity")
    (found,) = tracked.search_runs([tracked.get_experiment_by_name("foxes").experiment_id])
    history = tracked.get_metric_history(found.info.run_id, "train_perplexity")
    assert [(point.step, point.value) for point in history] == metrics("r-2", "train_perplexity")


def test_a_logger_added_on_resuming_gets_the_earlier_metrics(text_file: Path) -> None:
    settings = {"hidden": 8, "batch_size": 4, "steps": 8, "max_tokens": 2000, "epochs": 3}
    until_a_report(zoo.train_events(str(text_file), out="r", **settings))
    assert run(["train", "--resume", "--log", "tensorboard", "--out", "r"]) == 0
    assert points("r/tensorboard/training", "perplexity") == metrics("r", "train_perplexity")
    assert len(metrics("r", "step")) == 3


def test_a_run_that_fails_at_the_first_step_leaves_no_files(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(zoo.LanguageModel, "step", lambda *given: 1 / 0)
    assert run(["train", str(text_file), *SMALL, "--epochs", "1", "--log", "tensorboard",
                "--out", "r"]) == 1  # fmt: skip
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert not Path("r").exists()


def test_a_missing_package_is_reported_before_training(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert run(["train", str(text_file), *SMALL, "--log", "tensorboard", "--out", "r"]) == 2
    err = capsys.readouterr().err
    assert 'install it with: pip install "recurrent-zoo[tensorboard]"' in err
    assert len(err.splitlines()) == 1
    assert not Path("r").exists()


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An MLflow client, with a database in this folder."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'tracked.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "foxes")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return MlflowClient(uri)


def test_mlflow_has_the_settings_and_metrics_of_the_run(text_file: Path, tracked: Any) -> None:
    """An interrupted and resumed training is one run, with each step once."""
    settings = {"hidden": 8, "batch_size": 4, "steps": 8, "max_tokens": 2000, "epochs": 3}
    until_a_report(zoo.train_events(str(text_file), out="r", log=["mlflow"], **settings))
    experiment = tracked.get_experiment_by_name("foxes").experiment_id
    (found,) = tracked.search_runs([experiment])
    assert found.info.status == "KILLED"
    assert run(["train", "--resume", "--log", "mlflow", "--out", "r"]) == 0
    (found,) = tracked.search_runs([experiment])
    assert (found.info.status, found.info.run_name) == ("FINISHED", "r")
    assert found.data.params["model.hidden"] == "8"
    assert found.data.params["training.optimizer"] == "adamw"
    for figure in ("train_perplexity", "held_out_perplexity", "learning_rate"):
        history = tracked.get_metric_history(found.info.run_id, figure)
        assert [(point.step, point.value) for point in history] == metrics("r", figure)
    assert len(metrics("r", "step")) == 3


def test_mlflow_gets_the_status_of_a_failed_training(
    text_file: Path, tracked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo.LanguageModel, "step", lambda *given: 1 / 0)
    assert run(["train", str(text_file), *SMALL, "--epochs", "1", "--log", "mlflow"]) == 1
    experiment = tracked.get_experiment_by_name("foxes").experiment_id
    assert [found.info.status for found in tracked.search_runs([experiment])] == ["FAILED"]


def test_missing_mlflow_is_reported(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert run(["train", str(text_file), *SMALL, "--log", "mlflow", "--out", "r"]) == 2
    assert 'install it with: pip install "recurrent-zoo[mlflow]"' in capsys.readouterr().err
    assert not Path("r").exists()


def leaves_out(events: Iterator[Event]) -> Iterator[Event]:
    return (event for event in events if not isinstance(event, Report))


def changes(events: Iterator[Event]) -> Iterator[Event]:
    return (replace(event) if isinstance(event, Report) else event for event in events)


def adds(events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        yield event
        if isinstance(event, Report):
            yield event


def stops_early(events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, Report):
            return
        yield event


@pytest.mark.parametrize("logger", [leaves_out, changes, adds, stops_early])
def test_a_logger_that_does_not_forward_events_is_an_error(
    logger: Any, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = zoo.load_registry()
    spec = registry.loggers["tensorboard"]
    monkeypatch.setattr(type(spec), "load_factory", lambda self: logger)
    with pytest.raises(ContractError, match=r"logger 'tensorboard' .* does not pass on the events"):
        zoo.train(str(text_file), hidden=8, epochs=2, max_tokens=2000, log=["tensorboard"])


def test_an_unknown_logger_is_refused_before_training(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(text_file), *SMALL, "--log", "tensorbord", "--out", "r"]) == 2
    assert "did you mean 'tensorboard'?" in capsys.readouterr().err
    assert not Path("r").exists()
