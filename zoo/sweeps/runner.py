"""Many cells trained under the same settings: `sweep`, and the same event by event."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import torch

from zoo.benchmarking.run_costs import measure_run
from zoo.config import Interface, ModelConfig, RunConfig, TrainConfig
from zoo.data.sources import STANDARD_INPUT
from zoo.errors import (
    CorpusError,
    ProviderError,
    RunError,
    UnknownNameError,
    UsageError,
    ZooError,
    one_line,
)
from zoo.files import new_folder
from zoo.models.language_model import LanguageModel
from zoo.models.parameter_budget import count_parameters, largest_hidden
from zoo.nn.state import flatten
from zoo.recipes import load_recipe
from zoo.registry.attribution import describe_failure
from zoo.registry.cell_spec import CellSpec
from zoo.registry.registry import Registry, load_registry
from zoo.runs.metadata import CONFIG, read_record
from zoo.runs.run import read_interface
from zoo.sweeps.manifest import (
    Manifest,
    chosen_settings,
    given_settings,
    sweep_before,
    write_manifest,
)
from zoo.sweeps.plot import draw_sweep
from zoo.sweeps.table import MEASURED, TABLE, Row, is_measured, read_rate_factors, write_rows
from zoo.training.defaults import choose_settings, multiplied_rate, rate_multiplier_of
from zoo.training.distributed import ALONE, join_processes
from zoo.training.events import Event, Moved, Started
from zoo.training.experiment import resume_events, train_events
from zoo.training.reading import read_data

PICTURE = "sweep.png"
EVEN = {"recurrent_dropout": 0.0}  # unless it is given: not every cell has what it drops
LARGEST_FACTOR = 32.0  # of the learning rates in a search; the smallest is its inverse


@dataclass(frozen=True)
class RunStarted:
    """A run starts, is resumed, or has already ended. It is for row `number` of `total`;
    its learning rate is `factor` times the one that the cell gets where none is looked for."""

    number: int
    total: int
    cell: str
    seed: int
    folder: Path
    factor: float = 1.0


@dataclass(frozen=True)
class TrialFinished:
    """The result of a run of the learning-rate search."""

    row: Row


@dataclass(frozen=True)
class MeasuringFailed:
    """A run has been trained, and what it costs (`measure`) could not be measured."""

    folder: Path
    reason: str


SweepEvent: TypeAlias = RunStarted | Event | TrialFinished | MeasuringFailed | Row


def sweep(
    corpus: str | None = None,
    *,
    cells: str | Sequence[str],
    seeds: int = 3,
    parameters: int | None = None,
    tune_rate: bool = False,
    rates_of: str | Path | None = None,
    measure: bool = False,
    exporter: str | None = None,
    runtime: str | None = None,
    recipe: str | None = None,
    out: str | Path | None = None,
    registry: Registry | None = None,
    **settings: Any,
) -> list[Row]:
    """Trains each of the `cells` on `corpus` with each of the seeds, and returns a row for each
    run. The folder `out` has a run folder for each, the table `sweep.csv` and the picture
    `sweep.png`; both are up to date whenever a run has ended.

    `cells` are names and patterns (`["gru", "*-scratch"]`, or "gru,*-scratch"). There are as many
    seeds as `seeds` says, from the setting `seed` on. The other `settings` are those of
    `zoo.train`, and hold for all runs; what they leave open is chosen once, for all. With
    `parameters`, each cell has the largest hidden size with which its model has at most so many
    parameters. With `tune_rate`, a cell's first seed is trained at several learning rates, by
    factors of two up or down for as long as the bits per character of the held-out text get lower,
    and the best is the rate of its other seeds too. With `rates_of`, the folder or the table of
    another sweep, each cell has what was the best there: so many times its usual rate; one that is
    not there keeps the usual. With `measure`, the first run of each causal cell is measured too: a
    moment of its training, and, exported, the speed and size of its files (`exporter` and `runtime`
    write and open them, where several can). Without `out` the folder is `runs/sweep-CORPUS`.

    In a folder that holds a sweep of the same settings, runs that have ended are only read, one
    that was stopped is resumed, and other cells and seeds are added. A run that fails does not stop
    the others: its row has the error. A run that was trained and cannot be measured keeps its row.
    What concerns all runs is raised before anything is trained: UsageError for unknown cells and
    invalid settings, CorpusError for a text that cannot be read, RunError for a folder that holds
    something else, or a table of `rates_of` without rates.
    """
    events = sweep_events(
        corpus, cells=cells, seeds=seeds, parameters=parameters, measure=measure, recipe=recipe,
        tune_rate=tune_rate, rates_of=rates_of, exporter=exporter, runtime=runtime, out=out,
        registry=registry, **settings,
    )  # fmt: skip
    return [event for event in events if isinstance(event, Row)]


def sweep_events(
    corpus: str | None = None,
    *,
    cells: str | Sequence[str],
    seeds: int = 3,
    parameters: int | None = None,
    tune_rate: bool = False,
    rates_of: str | Path | None = None,
    measure: bool = False,
    exporter: str | None = None,
    runtime: str | None = None,
    recipe: str | None = None,
    out: str | Path | None = None,
    registry: Registry | None = None,
    **settings: Any,
) -> Iterator[SweepEvent]:
    """`sweep`, event by event: for each run a RunStarted, then the events of its training, if it
    has not ended before, then its Row, or TrialFinished where the run tries a learning rate."""
    registry = registry or load_registry()
    specs = choose_cells(cells, registry)
    if "cell" in settings:
        raise UsageError("a sweep has cells, and no cell.")
    if parameters is not None and settings.get("hidden") is not None:
        raise UsageError("parameters and hidden exclude each other; give one.")
    if tune_rate and rates_of is not None:
        raise UsageError("tune_rate and rates_of exclude each other; give one.")
    if seeds < 1 or (parameters is not None and parameters < 1):
        raise UsageError("seeds and parameters must be at least 1.")
    settings["corpus"] = corpus
    chosen = load_recipe(recipe, registry) if recipe is not None else None
    config = RunConfig.build(settings, chosen)
    if STANDARD_INPUT in config.data.corpora:
        raise UsageError("a sweep reads its text for every run; give a file, not standard input.")
    for spec in specs:
        if config.model.options:
            spec.parse_options(config.model.options, registry)
        if "hidden" in config.model.model_fields_set:
            sizes = spec.sizes_taken(config.model.options, registry)
            sizes.require(config.model.hidden)
    path = Path(out) if out is not None else _default_folder(config)
    factors = {} if rates_of is None else read_rate_factors(Path(rates_of))
    given = given_settings(config, parameters, tune_rate, rates_of)
    manifest, rows = sweep_before(path, given)
    data = read_data(config.data, registry)
    if tune_rate and not data.held_out_tokens:
        raise UsageError("learning rates are compared on a held-out text; give held_out a share.")
    if join_processes(config.training.device) is not ALONE:
        raise UsageError("a sweep trains in one process; start it without torchrun.")
    if manifest is None:
        device = ALONE.device(config.training.device)
        first_model = config.model.model_copy(
            update={"cell": specs[0].name, "mask_token": not specs[0].causal}
        )
        like_first = config.model_copy(
            update={"model": first_model, "training": _without_recurrent_dropout(config.training)}
        )
        decided = choose_settings(like_first, data, device, ALONE, registry, parameters)
        manifest = Manifest(
            given=given,
            chosen=chosen_settings(decided, given),
            rate_multiplier=rate_multiplier_of(decided, registry),
            text=data.fingerprint,
        )
    if manifest.text not in (data.fingerprint, None):
        raise RunError(
            f"the runs in {path} are of another text than {config.data.corpus_name} is now; choose "
            f"another --out."
        )
    tools = {"exporter": exporter, "runtime": runtime}
    runs = _Runs(registry, recipe, settings, given, manifest, data.interface, path, rows, tools)
    first = config.training.seed
    pairs = list(itertools.product(specs, range(first, first + seeds)))
    with new_folder(path):
        for number, (spec, seed) in enumerate(pairs, 1):
            trial = RunStarted(
                number, len(pairs), spec.name, seed, path / f"{spec.name}-seed{seed}"
            )
            if tune_rate and seed == first:
                factors[spec.name] = yield from runs.best_factor(trial)
            trial = _at(trial, factors.get(spec.name, 1.0))
            row = yield from runs.row(trial, measure and spec.causal and seed == first)
            runs.keep(row)
            yield row


@dataclass(frozen=True)
class _Runs:
    """The runs of a sweep, and how one is made."""

    registry: Registry
    recipe: str | None
    settings: dict[str, Any]
    given: dict[str, Any]
    manifest: Manifest
    interface: Interface
    path: Path
    rows: dict[tuple[str, int], Row]  # of the table, by cell and seed
    tools: dict[str, str | None]  # of measuring: exporter and runtime

    def best_factor(self, trial: RunStarted) -> Generator[SweepEvent, None, float]:
        """Searches the cell's learning rate; returns the best as a multiple of the usual one."""
        found: dict[float, float] = {}

        def bits_at(factor: float) -> Generator[SweepEvent, None, float]:
            row = yield from self.row(_at(trial, factor))
            yield TrialFinished(row)
            found[factor] = row.judged
            return found[factor]

        best = yield from bits_at(1.0)
        for step in (2.0, 0.5) if best < math.inf else (0.5,):  # what diverged wants less
            factor = step
            while 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR:
                bits = yield from bits_at(factor)
                if bits >= best < math.inf:
                    break
                best, factor = bits, factor * step
            if best < found[1.0]:
                break
        return min(found, key=found.__getitem__)

    def row(self, trial: RunStarted, measured: bool = False) -> Generator[SweepEvent, None, Row]:
        """Trains the run, if it has not ended before, and reads its row."""
        spec = self.registry.cells[trial.cell]
        yield trial
        try:
            with closing(self._train(trial, spec)) as events:  # type: ignore[type-var]
                for event in events:
                    if isinstance(event, Started):
                        write_manifest(self.path, self.manifest)
                    elif isinstance(event, Moved):
                        trial = replace(trial, folder=event.run.path)
                    yield event
            row = _read_row(trial, spec, self.registry)
            before = self.rows.get((trial.cell, trial.seed))
            if before is not None and before.run == row.run:
                row = row.model_copy(update={name: getattr(before, name) for name in MEASURED})
            if measured and not is_measured(row):
                row = yield from self._measure(trial, row)
            return row
        except (CorpusError, ProviderError):  # the other runs would meet the same
            raise
        except Exception as error:
            return Row(
                cell=spec.name,
                seed=trial.seed,
                causal=spec.causal,
                run=trial.folder.name,
                error=self._told(error),
            )

    def _measure(self, trial: RunStarted, row: Row) -> Generator[SweepEvent, None, Row]:
        """The row with what its run costs. A measurement that fails loses nothing: the row stays
        as it is, and the next sweep with `measure` tries again."""
        try:
            return row.model_copy(update={**measure_run(trial.folder, self.registry, **self.tools)})
        except Exception as error:
            yield MeasuringFailed(trial.folder, self._told(error))
            return row

    def _told(self, error: Exception) -> str:
        known = isinstance(error, ZooError)
        return one_line(error) if known else describe_failure(error, self.registry)

    def _train(self, trial: RunStarted, spec: CellSpec) -> Iterator[Event]:
        if not (trial.folder / CONFIG).is_file():
            own = {**EVEN, **self.settings, **self.manifest.chosen}
            own |= {"cell": spec.name, "seed": trial.seed}
            rate = self.given["learning_rate"]
            if rate is None:
                rate = multiplied_rate(spec.learning_rate, self.manifest.rate_multiplier)
            own["learning_rate"] = rate * trial.factor
            if (parameters := self.given["parameters"]) is not None:
                chosen = (
                    load_recipe(self.recipe, self.registry) if self.recipe is not None else None
                )
                model = RunConfig.build(own, chosen).model
                own["hidden"] = largest_hidden(
                    parameters, model, spec, self.interface, self.registry
                )
            elif self.given["hidden"] is None:
                sizes = spec.sizes_taken(own.get("options") or {}, self.registry)
                own["hidden"] = sizes.nearest(own["hidden"])
            yield from train_events(
                recipe=self.recipe, out=trial.folder, registry=self.registry, **own
            )
        elif not read_record(trial.folder).finished:
            yield from resume_events(trial.folder, self.registry)

    def keep(self, row: Row) -> None:
        """Puts the row into the table and the picture."""
        key = row.cell, row.seed
        if self.rows.get(key) == row and (self.path / PICTURE).exists():
            return
        self.rows[key] = row
        write_manifest(self.path, self.manifest)
        in_order = [self.rows[key] for key in sorted(self.rows)]
        write_rows(in_order, self.path / TABLE)
        draw_sweep(in_order, self.path / PICTURE)


def _without_recurrent_dropout(training: TrainConfig) -> TrainConfig:
    """The settings with `EVEN`, unless they were given."""
    missing = {name: value for name, value in EVEN.items() if name not in training.model_fields_set}
    return training.model_copy(update=missing)


def _at(trial: RunStarted, factor: float) -> RunStarted:
    """The trial with another factor, and a folder named after it."""
    if factor == 1.0:
        return trial
    folder = trial.folder.with_name(f"{trial.folder.name}-rate-x{factor:g}")
    return replace(trial, factor=factor, folder=folder)


def choose_cells(cells: str | Sequence[str], registry: Registry) -> list[CellSpec]:
    """The registered cells that the names and patterns mean, each once, in order of name.
    UnknownNameError for one that means none."""
    patterns = cells.split(",") if isinstance(cells, str) else cells
    chosen = set()
    for pattern in (pattern.strip() for pattern in patterns):
        found = [name for name in registry.cells if fnmatchcase(name, pattern)]
        if not found:
            raise UnknownNameError("cell", pattern, registry.cells, "`zoo cells`")
        chosen.update(found)
    return [registry.cells[name] for name in registry.cells if name in chosen]


def _state_bytes(config: ModelConfig, interface: Interface, registry: Registry) -> int:
    with torch.device("meta"):
        state = LanguageModel(config, interface, registry).init_state(1)
    return sum(leaf.numel() * leaf.element_size() for leaf in flatten(state))


def _default_folder(config: RunConfig) -> Path:
    return Path("runs") / f"sweep-{Path(config.data.corpus_name).stem.replace(':', '-')}"


def _read_row(trial: RunStarted, spec: CellSpec, registry: Registry) -> Row:
    """The row of a run that has ended."""
    record = read_record(trial.folder)
    _, interface = read_interface(trial.folder, record.config, registry)
    model, last = record.config.model, record.metrics[-1]
    return Row(
        cell=spec.name,
        seed=record.config.training.seed,
        causal=spec.causal,
        hidden=model.hidden,
        layers=model.layers,
        parameters=count_parameters(model, interface, registry),
        state_bytes=_state_bytes(model, interface, registry),
        year=spec.card.year,
        tokens=last["tokens"],
        seconds=last["seconds"],
        tokens_per_second=median(line["tokens_per_second"] for line in record.metrics),
        learning_rate=record.config.training.learning_rate,
        rate_factor=trial.factor,
        held_out_bits_per_char=record.best("held_out_bits_per_char"),
        held_out_bits_per_token=record.best("held_out_bits_per_token"),
        held_out_accuracy=record.highest("held_out_accuracy"),
        held_out_error=record.best("held_out_error"),
        train_bits_per_char=last.get("train_bits_per_char"),  # not there in an older run
        run=trial.folder.name,
    )
