"""An experiment from its settings to its run folder: `train`, and the same event by event."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from zoo.config import RunConfig
from zoo.data.corpora import Corpus
from zoo.data.sources import HUB, STANDARD_INPUT
from zoo.data.tokenizer import Tokenizer, encode_prompt, find_tokenizer
from zoo.errors import RunError, UsageError, ZooError
from zoo.files import filled_at_once
from zoo.models.language_model import LanguageModel
from zoo.recipes import load_recipe
from zoo.registry.registry import Registry, load_registry
from zoo.runs.metadata import CONFIG
from zoo.runs.plot import draw_perplexity
from zoo.runs.run import WEIGHTS, Run, free_folder, load, new_run_folder, refuse_taken
from zoo.tasks.named import is_task
from zoo.training.checkpointing import interruptible, restore_training, write_training
from zoo.training.data import TrainingData
from zoo.training.defaults import choose_settings
from zoo.training.distributed import Processes, join_processes
from zoo.training.events import Ended, Event, Moved, Opened, Report, Sample, Started, Stopped
from zoo.training.fine_tuning import Base, freeze, take_weights
from zoo.training.logging import pass_through_loggers
from zoo.training.malloc import keep_freed_memory
from zoo.training.optimization import Optimization
from zoo.training.reading import read_data
from zoo.training.recording import Recorder
from zoo.training.snapshot import TrainingPosition
from zoo.training.trainer import Trainer

SECONDS_BETWEEN_SAVES = 30.0
LONGEST_NAME = 2**14  # characters of a corpus, which may be a URL


def train(
    corpus: str | Sequence[str] | None = None,
    *,
    recipe: str | None = None,
    from_run: str | Path | None = None,
    extend_vocabulary: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    log: Sequence[str] = (),
    registry: Registry | None = None,
    **settings: Any,
) -> Run:
    """Trains a model on `corpus` and returns the run. A corpus is a registered name, a file, a
    folder, a pattern of files, a URL, "hf:NAME" for a dataset of the Hub, "-" for standard input,
    or several of them; or a task, "task:NAME".

    `settings` are those of `zoo train --help`, by their names: `cell="rnn"`, `hidden=256`,
    `epochs=10`. Given ones go before the recipe's, and those before the defaults. Without `out`,
    the run is a new folder under `runs/`. `log` are the names of loggers ("tensorboard").

    With `from_run` the model begins with the weights of that run, and has its tokenizer and sizes;
    everything else is as for a new one. Characters that the run did not know become `<unk>`, with
    a ZooWarning, or get tokens if `extend_vocabulary` says so.
    """
    events = train_events(
        corpus,
        recipe=recipe,
        from_run=from_run,
        extend_vocabulary=extend_vocabulary,
        out=out,
        overwrite=overwrite,
        log=log,
        registry=registry,
        **settings,
    )
    for event in events:
        if isinstance(event, Started | Moved):
            run = event.run
    return run


def train_events(
    corpus: str | Sequence[str] | None = None,
    *,
    recipe: str | None = None,
    from_run: str | Path | None = None,
    extend_vocabulary: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    log: Sequence[str] = (),
    registry: Registry | None = None,
    began: float | None = None,
    **settings: Any,
) -> Iterator[Event]:
    """`train`, event by event. The run folder is written as the events pass by; nothing is written
    if the settings, the corpus or the folder are at fault. A budget in minutes counts from `began`,
    a time of `time.monotonic`; without it, from here."""
    registry = registry or load_registry()
    began = time.monotonic() if began is None else began
    if extend_vocabulary and from_run is None:
        raise UsageError("--extend-vocabulary goes with --from: it is that run's vocabulary.")
    if from_run is not None and is_task(corpus):
        raise UsageError("--from takes a run's tokenizer with it, and a task has none.")
    base = None if from_run is None else Base(load(from_run, registry), extend_vocabulary)
    events = _new_training(corpus, recipe, base, out, overwrite, registry, began, settings)
    yield from pass_through_loggers(events, log, registry)


def _new_training(
    corpus: str | Sequence[str] | None,
    recipe: str | None,
    base: Base | None,
    out: str | Path | None,
    overwrite: bool,
    registry: Registry,
    began: float,
    settings: dict[str, Any],
) -> Iterator[Event]:
    chosen = load_recipe(recipe, registry) if recipe is not None else None
    config = RunConfig.build({**settings, "corpus": corpus}, chosen)
    if base is not None:
        config = base.settle(config)
    if out is not None:
        refuse_taken(Path(out), overwrite)
    config = _settle_cell(config, registry)  # a fault here is said before a long download
    Optimization.find(config.training, registry)
    if config.data.tokenizer is not None:
        find_tokenizer(config.data.tokenizer, registry)
    processes = join_processes(config.training.device)
    device = processes.device(config.training.device)
    known = None if base is None else base.tokenizer_for
    yield Opened(config.data.corpus_name)
    data = _read_once(config, processes, registry, known)
    config = choose_settings(data.settle(config), data, device, processes, registry)
    processes.check_rows(config.training.batch_size)
    data.windows(config.training)
    prompt = config.training.prompt or ""
    _check_prompt(data, prompt)  # its faults are said now, not at the first sample
    torch.manual_seed(config.training.seed)
    model = LanguageModel(config.model, data.interface, registry).to(device)
    model.stack.check_contract(registry.cells[config.model.cell], registry)
    if base is not None:
        run = base.run
        assert data.tokenizer is not None
        take_weights(model, run.model, run.tokenizer, data.tokenizer)
    freeze(model, config.training.freeze)
    trainer = Trainer(
        model, data, config.training, prompt, processes, registry, began + data.seconds
    )
    if processes.rank:
        torch.manual_seed(config.training.seed + processes.rank)  # it drops other features
    snapshot = trainer.snapshot()
    path = Path(out) if out is not None else free_folder(_run_name(config, data))
    if path.name in ("", ".."):  # a process cannot rename over the folder that it is in
        path = path.resolve()
    run = Run(path, config, data.tokenizer, model)
    started = _started(run, device, data)
    if not processes.first:
        yield started
        yield from record(trainer, run, data)
        return
    with new_run_folder(path, overwrite):
        with (first_save := Stopwatch()), filled_at_once(path) as staging:
            write_training(snapshot, trainer, replace(run, path=staging), data)
        trainer.clock.longest_save = first_save.last
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


def _check_prompt(data: TrainingData, prompt: str) -> None:
    if data.tokenizer is not None:
        encode_prompt(data.tokenizer, prompt)


def _started(
    run: Run, device: torch.device, data: TrainingData, resumed: TrainingPosition | None = None
) -> Started:
    sizes = data.train_tokens, data.held_out_tokens
    return Started(run, str(device), *sizes, resumed, data.describe(run.config))


def _read_once(
    config: RunConfig,
    processes: Processes,
    registry: Registry,
    known: Callable[[Corpus], Tokenizer] | None,
) -> TrainingData:
    """The data. Of several processes the first encodes the text, and the others find it."""
    data = read_data(config.data, registry, known) if processes.first else None
    processes.agree(0)
    return data or read_data(config.data, registry, known)


def _run_name(config: RunConfig, data: TrainingData) -> str:
    name = data.name.removeprefix(HUB).partition(":")[0].rstrip("/")
    corpus = "stdin" if name == STANDARD_INPUT else Path(name).stem
    corpus = re.sub(r"[^\w.-]+", "-", corpus).strip("-")
    return f"{corpus}-{config.recipe or config.model.cell}"


def resume(
    path: str | Path,
    registry: Registry | None = None,
    *,
    log: Sequence[str] = (),
    epochs: int | None = None,
    minutes: float | None = None,
) -> Run:
    """Continues a run that was stopped, to its end, or to a later one; see `resume_events`."""
    for event in resume_events(path, registry, log=log, epochs=epochs, minutes=minutes):
        if isinstance(event, Started | Moved):
            run = event.run
    return run


def resume_events(
    path: str | Path,
    registry: Registry | None = None,
    *,
    log: Sequence[str] = (),
    epochs: int | None = None,
    minutes: float | None = None,
) -> Iterator[Event]:
    """Continues a run from its last save, event by event, with its own settings. On a
    CPU it ends as if it had never been stopped, to the bit, if its budget is counted in epochs.

    `epochs` and `minutes` prolong it, also one that has ended: they count from its beginning, and
    take the place of its budget. The learning rate goes on at that share of the schedule which is
    then done; a run that has ended begins its next epoch. `config.json` has the new budget, and in
    `prolonged` those before.

    Raises RunError for a folder that holds no training, is damaged, or whose text has changed, and
    leaves it as it is; UsageError for a budget that is spent already. A run that has ended has no
    event after Started, and `Started.resumed` says that nothing is left.
    """
    registry = registry or load_registry()
    events = _resumed_training(path, registry, epochs, minutes)
    yield from pass_through_loggers(events, log, registry)


def _resumed_training(
    path: str | Path, registry: Registry, epochs: int | None, minutes: float | None
) -> Iterator[Event]:
    run = load(path, registry)
    longer = epochs is not None or minutes is not None
    if longer:
        run = replace(run, config=run.config.prolong(epochs, minutes))
    config = run.config
    _require_names(run)
    yield Opened(config.data.corpus_name)
    data = read_data(config.data, registry, run.tokenizer_or_none)
    if data.interface != run.model.interface:
        raise RunError(f"{run.path} is of another task than {config.data.corpus_name} is now.")
    processes = join_processes(config.training.device)
    processes.check_rows(config.training.batch_size)
    device = processes.device(config.training.device)
    run.model.to(device)
    freeze(run.model, config.training.freeze)
    prompt = config.training.prompt or ""
    _check_prompt(data, prompt)
    trainer = Trainer(run.model, data, config.training, prompt, processes, registry)
    position = restore_training(trainer, run, data, prolong=longer)
    yield _started(run, device, data, position)
    if not position.finished:
        yield from record(trainer, run, data)


def _require_names(run: Run) -> None:
    """RunError where what should name the text cannot."""
    for name in run.config.data.corpora:
        if "\0" in name or len(name) > LONGEST_NAME:
            raise RunError(f"{run.path / CONFIG} is damaged: data.corpus is no name of a text.")


def record(trainer: Trainer, run: Run, data: TrainingData, *, new: bool = False) -> Iterator[Event]:
    """Passes the trainer's events on, each after it has been written: metrics and samples as they
    come, everything that resuming needs every half minute, at the end, and when the run is
    stopped. Weights that are not finite, or that the trainer gave up on, are not
    saved over the good ones before them. Where the folder is lost, or its disk is full, the run
    moves to another (see Recorder).

    The first Ctrl-C stops the training after a whole step, saves, and then raises
    KeyboardInterrupt; the second raises it at once. After an error in the first half minute
    of a `new` run the folder has no weights. Of several processes the first writes; when one is
    lost, the others raise ZooError.
    """
    keep_freed_memory()
    processes = trainer.processes
    last_save: float | None = None  # the first event begins the first half minute
    saving, started = Stopwatch(), time.monotonic()
    saved = stopped = False
    with interruptible() as stop, Recorder(trainer, run, data) as recorder:
        try:
            for event in trainer.events(stop.is_set):
                stopped = isinstance(event, Stopped)
                if stopped:
                    break
                recorder.write(event)
                last_save = trainer.seconds if last_save is None else last_save
                due = trainer.seconds - last_save >= SECONDS_BETWEEN_SAVES
                if isinstance(event, Report | Sample) and not due:  # which loggers write too
                    due = bool(processes.agree(recorder.newly_lost)[0])  # all processes save
                if due and _is_finite(run.model):
                    with saving:
                        moved = recorder.save_or_go_on()
                    trainer.clock.longest_save = max(trainer.clock.longest_save, saving.last)
                    last_save, saved = trainer.seconds, True
                    if moved is not None:
                        yield moved
                yield event
        except Exception as error:
            if processes.count > 1 and isinstance(error, RuntimeError):
                where = f" --out {recorder.run.path}" if processes.first else ""
                raise ZooError(
                    f"another process of this training has ended, and it cannot continue alone; "
                    f"start all of them again with --resume{where}."
                ) from None
            if processes.first and new and not saved and not recorder.lost:
                # it came to nothing: as if it had not begun
                (run.path / WEIGHTS).unlink(missing_ok=True)
            raise
        except GeneratorExit:  # between two steps, as every event is
            _save_end(recorder)
            raise
        with saving:
            moved = _save_end(recorder)
        if moved is not None:
            yield moved
        if stopped:
            raise KeyboardInterrupt
        other = trainer.clock.evaluating + saving.total
        yield Ended(
            {
                "reading": data.seconds,
                "starting": trainer.clock.starting,
                "training": time.monotonic() - started - other,
                "evaluating": trainer.clock.evaluating,
                "saving": saving.total,
            }
        )


class Stopwatch:
    """How long a block takes: the last time, and all times together."""

    def __init__(self) -> None:
        self.last = self.total = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.last = time.monotonic() - self._began
        self.total += self.last


def _save_end(recorder: Recorder) -> Moved | None:
    moved = recorder.save_end() if _is_finite(recorder.run.model) else None
    if recorder.first:
        draw_perplexity(recorder.run)
    return moved


def _is_finite(model: LanguageModel) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
