"""An experiment from its settings to its run folder: `train`, and the same event by event."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import torch

from zoo.config import DEFAULT_VOCAB, RunConfig
from zoo.data.batches import windows_per_epoch
from zoo.data.dataset import Dataset, read_dataset
from zoo.data.tokenizers import encode_prompt, find_tokenizer
from zoo.errors import ZooError
from zoo.files import filled_at_once
from zoo.models.language_model import LanguageModel
from zoo.recipes import load_recipe
from zoo.registry.registry import Registry, load_registry
from zoo.runs.metadata import METRICS
from zoo.runs.plot import draw_perplexity
from zoo.runs.run import SAMPLES, WEIGHTS, Run, free_folder, load, new_run_folder, refuse_taken
from zoo.training.checkpointing import (
    interruptible,
    restore_training,
    save_training,
    write_training,
)
from zoo.training.defaults import choose_settings
from zoo.training.distributed import join_processes
from zoo.training.events import Event, Report, Sample, Started, Stopped
from zoo.training.logging import pass_through_loggers
from zoo.training.malloc import keep_freed_memory
from zoo.training.optimization import Optimization
from zoo.training.trainer import Trainer

SECONDS_BETWEEN_SAVES = 30.0


def train(
    corpus: str | None = None,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    log: Sequence[str] = (),
    registry: Registry | None = None,
    **settings: Any,
) -> Run:
    """Trains a model on `corpus` (a registered name or a path) and returns the run.

    `settings` are those of `zoo train --help`, by their names: `cell="rnn"`, `hidden=256`,
    `epochs=10`. Given ones go before the recipe's, and those before the defaults. Without `out`,
    the run is a new folder under `runs/`. `log` are the names of loggers ("tensorboard").
    """
    events = train_events(
        corpus, recipe=recipe, out=out, overwrite=overwrite, log=log, registry=registry, **settings
    )
    for event in events:
        if isinstance(event, Started):
            run = event.run
    return run


def train_events(
    corpus: str | None = None,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    log: Sequence[str] = (),
    registry: Registry | None = None,
    **settings: Any,
) -> Iterator[Event]:
    """`train`, event by event. The run folder is written as the events pass by; nothing is written
    if the settings, the corpus or the folder are at fault."""
    registry = registry or load_registry()
    events = _new_training(corpus, recipe, out, overwrite, registry, settings)
    yield from pass_through_loggers(events, log, registry)


def _new_training(
    corpus: str | None,
    recipe: str | None,
    out: str | Path | None,
    overwrite: bool,
    registry: Registry,
    settings: dict[str, Any],
) -> Iterator[Event]:
    chosen = load_recipe(recipe, registry) if recipe is not None else None
    config = RunConfig.build({**settings, "corpus": corpus}, chosen)
    if out is not None:
        refuse_taken(Path(out), overwrite)
    config = _settle_cell(config, registry)  # a fault here is said before a long download
    Optimization.find(config.training, registry)
    if config.data.tokenizer is not None:
        find_tokenizer(config.data.tokenizer, registry)
    processes = join_processes(config.training.device)
    device = processes.device(config.training.device)
    data = read_dataset(config.data, registry)
    config = choose_settings(_settle_corpus(config, data), data, device, processes, registry)
    processes.check_rows(config.training.batch_size)
    windows_per_epoch(len(data.train), config.training.batch_size, config.training.steps)
    prompt = config.training.prompt or ""
    encode_prompt(data.tokenizer, prompt)  # its faults are said now, not at the first sample
    torch.manual_seed(config.training.seed)
    model = LanguageModel(config.model, data.tokenizer.vocab_size, registry).to(device)
    model.stack.check_contract(registry.cells[config.model.cell], registry)
    trainer = Trainer(model, data, config.training, prompt, processes, registry)
    if processes.rank:
        torch.manual_seed(config.training.seed + processes.rank)  # it drops other features
    snapshot = trainer.snapshot()
    path = Path(out) if out is not None else free_folder(_run_name(config, data))
    if path.name in ("", ".."):  # a process cannot rename over the folder that it is in
        path = path.resolve()
    run = Run(path, config, data.tokenizer, model)
    started = Started(run, str(device), len(data.train), len(data.held_out))
    if not processes.first:
        yield started
        yield from record(trainer, run, data)
        return
    with new_run_folder(path, overwrite):
        with filled_at_once(path) as staging:
            write_training(snapshot, trainer, replace(run, path=staging), data)
        try:
            yield started
        except BaseException:  # a logger failed, say: nothing is trained, and the old run stays
            (path / WEIGHTS).unlink()
            raise
        yield from record(trainer, run, data, new=True)


def _settle_cell(config: RunConfig, registry: Registry) -> RunConfig:
    """The config with every option of the cell, checked, so that a later default changes no run."""
    spec = registry.cells[config.model.cell]
    options = spec.all_options(config.model.options, registry)
    if "hidden" in config.model.model_fields_set:
        spec.sizes_taken(options, registry).require(config.model.hidden)
    settled = {"options": options, "mask_token": not spec.causal}
    return config.model_copy(update={"model": config.model.model_copy(update=settled)})


def _settle_corpus(config: RunConfig, data: Dataset) -> RunConfig:
    """The config with everything that the corpus decided written out."""
    training_ = config.training.model_copy(
        update={"prompt": config.training.prompt or data.corpus.prompt}
    )
    vocab = config.data.vocab or (DEFAULT_VOCAB if data.tokenizer.learned else None)
    data_ = config.data.model_copy(update={"tokenizer": data.tokenizer.kind, "vocab": vocab})
    return config.model_copy(update={"training": training_, "data": data_})


def _run_name(config: RunConfig, data: Dataset) -> str:
    corpus = "stdin" if data.corpus.name == "-" else Path(data.corpus.name).stem
    return f"{corpus}-{config.recipe or config.model.cell}"


def resume(path: str | Path, registry: Registry | None = None, *, log: Sequence[str] = ()) -> Run:
    """Continues a run that was stopped, to its end; see `resume_events`."""
    for event in resume_events(path, registry, log=log):
        if isinstance(event, Started):
            run = event.run
    return run


def resume_events(
    path: str | Path, registry: Registry | None = None, *, log: Sequence[str] = ()
) -> Iterator[Event]:
    """Continues a run from its last save, event by event, with its own settings. On a
    CPU it ends as if it had never been stopped, to the bit, if its budget is counted in epochs.

    Raises RunError for a folder that holds no training, or whose text has changed. A run that
    has ended has one event, Started, and `Started.resumed` says that nothing is left.
    """
    registry = registry or load_registry()
    yield from pass_through_loggers(_resumed_training(path, registry), log, registry)


def _resumed_training(path: str | Path, registry: Registry) -> Iterator[Event]:
    run = load(path, registry)
    config = run.config
    data = read_dataset(config.data, registry, run.tokenizer)
    processes = join_processes(config.training.device)
    processes.check_rows(config.training.batch_size)
    device = processes.device(config.training.device)
    run.model.to(device)
    prompt = config.training.prompt or ""
    trainer = Trainer(run.model, data, config.training, prompt, processes, registry)
    position = restore_training(trainer, run, data)
    yield Started(run, str(device), len(data.train), len(data.held_out), position)
    if not position.finished:
        yield from record(trainer, run, data)


def record(trainer: Trainer, run: Run, data: Dataset, *, new: bool = False) -> Iterator[Event]:
    """Passes the trainer's events on, each after it has been written: metrics and samples as they
    come, everything that resuming needs every half minute, at the end, and when the run is
    stopped. Weights that are not finite, or that the trainer gave up on, are not
    saved over the good ones before them.

    The first Ctrl-C stops the training after a whole step, saves, and then raises
    KeyboardInterrupt; the second raises it at once. After an error in the first half minute
    of a `new` run the folder has no weights. Of several processes the first writes; when one is
    lost, the others raise ZooError.
    """
    keep_freed_memory()
    first, count = trainer.processes.first, trainer.processes.count
    began = last_save = trainer.seconds
    stopped = False
    with interruptible() as stop, _Journal(run.path if first else None) as journal:
        try:
            for event in trainer.events(stop.is_set):
                stopped = isinstance(event, Stopped)
                if stopped:
                    break
                journal.write(event)
                if trainer.seconds - last_save >= SECONDS_BETWEEN_SAVES and _is_finite(run.model):
                    save_training(trainer, run, data)
                    last_save = trainer.seconds
                yield event
        except Exception as error:
            if count > 1 and isinstance(error, RuntimeError):
                where = f" --out {run.path}" if first else ""
                raise ZooError(
                    f"another process of this training has ended, and it cannot continue alone; "
                    f"start all of them again with --resume{where}."
                ) from None
            if first and new and last_save == began:  # it came to nothing: as if it had not begun
                (run.path / WEIGHTS).unlink()
            raise
        except GeneratorExit:  # between two steps, as every event is
            _save_end(trainer, run, data)
            raise
        _save_end(trainer, run, data)
        if stopped:
            raise KeyboardInterrupt


class _Journal:
    """Appends to a run's metrics and samples; without a folder, to nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._files = folder, ExitStack()

    def __enter__(self) -> Self:
        if self._folder is not None:
            self._metrics, self._samples = (
                self._files.enter_context((self._folder / name).open("a", encoding="utf-8"))
                for name in (METRICS, SAMPLES)
            )
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def write(self, event: Event) -> None:
        if self._folder is None:
            return
        if isinstance(event, Report):
            self._metrics.write(json.dumps(asdict(event.metrics)) + "\n")
            self._metrics.flush()
        elif isinstance(event, Sample):
            self._samples.write(f"epoch {event.epoch}\n{event.text}\n\n")
            self._samples.flush()


def _save_end(trainer: Trainer, run: Run, data: Dataset) -> None:
    if _is_finite(run.model):
        save_training(trainer, run, data)
    if trainer.processes.first:
        draw_perplexity(run)


def _is_finite(model: LanguageModel) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
