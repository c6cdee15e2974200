"""Training as MLflow shows it: settings and metrics, written as the events of training pass by."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError, ZooError, one_line
from zoo.runs.run import Run
from zoo.training.events import Event, Finished, Moved, Report, Started

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI, DEFAULT_EXPERIMENT = "sqlite:///mlflow.db", "recurrent-zoo"
FOLDER = "zoo.run_folder"
KEY = "zoo.run_key"  # of the folder: the tag by which a run that is resumed is found again
NOT_FIGURES = ("epoch", "step")


def write_mlflow(events: Iterator[Event]) -> Iterator[Event]:
    """The events of `zoo.train_events` or `zoo.resume_events`, each passed on after MLflow has it:
    the settings as parameters of a run, and every line of metrics by its step (in windows).

    The run is in the tracking server that MLFLOW_TRACKING_URI names, by default in `mlflow.db` in
    the current folder, and in the experiment MLFLOW_EXPERIMENT_NAME, by default "recurrent-zoo". A
    training that is resumed continues its MLflow run. Raises UsageError, before anything is
    trained, where a package is missing, and ZooError where the server cannot be reached.
    """
    try:
        import alembic  # noqa: F401
        import mlflow  # noqa: F401
        import sqlalchemy  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the logger mlflow needs the package {error.name}; "
            'install it with: pip install "recurrent-zoo[mlflow]"'
        ) from None
    return _write(events)


def _write(events: Iterator[Event]) -> Iterator[Event]:
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # they tell of the database that they make
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    run_id, written = None, 0
    status = "FAILED"
    try:
        with closing(events), _called(uri):  # type: ignore[type-var]
            client = MlflowClient(uri)
            for event in events:
                if isinstance(event, Started):
                    run_id = _open(client, event)
                    if event.resumed is not None and event.resumed.finished:
                        status = "FINISHED"
                    written = _last_step(client, run_id)
                    for line in event.run.metrics():
                        written = _write_line(client, run_id, line, written)
                elif isinstance(event, Report):
                    assert run_id is not None
                    written = _write_line(client, run_id, asdict(event.metrics), written)
                elif isinstance(event, Moved):
                    assert run_id is not None
                    for key, value in _place(event.run).items():
                        client.set_tag(run_id, key, value)
                elif isinstance(event, Finished):
                    status = "FINISHED"
                yield event
    except (KeyboardInterrupt, GeneratorExit):
        status = "KILLED"
        raise
    finally:
        if run_id is not None:
            with _called(uri):
                client.set_terminated(run_id, status)


@contextmanager
def _called(uri: str) -> Iterator[None]:
    """Errors of MLflow as ones of the zoo."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise ZooError(
            f"MLflow at {uri}: {one_line(error)}; MLFLOW_TRACKING_URI names the tracking server."
        ) from None


def _open(client: MlflowClient, started: Started) -> str:
    """The id of the MLflow run: that of the same folder for a training that is resumed."""
    from mlflow.entities import Param

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    tags = _place(started.run)
    if started.resumed is not None:
        for run in client.search_runs([experiment_id], f"tags.`{KEY}` = '{tags[KEY]}'"):
            client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
    run = client.create_run(experiment_id, run_name=started.run.path.name, tags=tags)
    sections = started.run.config.model_dump(mode="json", include={"data", "model", "training"})
    params = [
        Param(f"{section}.{setting}", str(value))
        for section, settings in sections.items()
        for setting, value in settings.items()
    ]
    client.log_batch(run.info.run_id, params=params)
    return str(run.info.run_id)


def _place(run: Run) -> dict[str, str]:
    """The tags that tell where the run is."""
    folder = str(run.path.resolve())
    # a path may hold what ends a search
    return {FOLDER: folder, KEY: hashlib.sha256(folder.encode()).hexdigest()}


def _last_step(client: MlflowClient, run_id: str) -> int:
    """The last step that the run has metrics of; 0 for a new one."""
    return max((m.step for m in client.get_metric_history(run_id, "learning_rate")), default=0)


def _write_line(client: MlflowClient, run_id: str, line: dict[str, Any], written: int) -> int:
    """Writes a line of metrics, unless it is of a step that was `written` before the training was
    stopped; returns the last step."""
    from mlflow.entities import Metric

    step = int(line["step"])
    if step <= written:
        return written
    now = int(time.time() * 1000)
    metrics = [
        Metric(name, float(value), now, step)
        for name, value in line.items()
        if value is not None and name not in NOT_FIGURES
    ]
    client.log_batch(run_id, metrics=metrics)
    return step
