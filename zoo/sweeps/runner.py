"""Many cells trained under the same settings: `sweep`, and the same event by event."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from zoo.benchmarking.run_costs import measure_run
from zoo.config import RunConfig, TrainConfig
from zoo.data.sources import STANDARD_INPUT
from zoo.errors import RunError, UnknownNameError, UsageError
from zoo.files import new_folder
from zoo.inference.ray_cluster import LOCAL, import_ray
from zoo.recipes import load_recipe
from zoo.registry.attribution import describe_error
from zoo.registry.cell_spec import CellSpec
from zoo.registry.registry import Registry, load_registry
from zoo.sweeps.events import MeasuringFailed, RunStarted, SweepEvent, TrialFinished
from zoo.sweeps.manifest import (
    MANIFEST,
    Manifest,
    chosen_settings,
    given_settings,
    sweep_before,
    write_manifest,
)
from zoo.sweeps.parallel import LOCK, train_in_parallel
from zoo.sweeps.plot import draw_sweep
from zoo.sweeps.runs import EVEN, Runs
from zoo.sweeps.search import Batch, Plan, plan_runs
from zoo.sweeps.table import MEASURED, TABLE, Row, is_measured, read_rate_factors, write_rows
from zoo.training.defaults import choose_settings, rate_multiplier_of
from zoo.training.distributed import ALONE, join_processes
from zoo.training.reading import read_data

PICTURE = "sweep.png"


def sweep(
    corpus: str | None = None,
    *,
    cells: str | Sequence[str],
    seeds: int = 3,
    parameters: int | None = None,
    tune_rate: bool = False,
    rates_of: str | Path | None = None,
    measure: bool = False,
    workers: int | None = None,
    ray: str | None = None,
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

    With `workers`, so many runs are trained at once, each in a process with one thread; with `ray`,
    the address of a Ray cluster ("auto" for the one of this machine), on its machines, which must
    have the same files at the same paths and the same plugins installed. Both need the extra `ray`.
    On a CPU the table is that of one process with one thread, except for times. A run whose process
    is lost is resumed in another. `measure` then waits until all runs have ended. On CUDA each run
    has a GPU of its own.

    In a folder that holds a sweep of the same settings, runs that have ended are only read, one
    that was stopped is resumed, and other cells and seeds are added. A run that fails does not stop
    the others: its row has the error. A run that was trained and cannot be measured keeps its row.
    What concerns all runs is raised before anything is trained: UsageError for unknown cells and
    invalid settings, CorpusError for a text that cannot be read, RunError for a folder that holds
    something else, or a table of `rates_of` without rates.
    """
    events = sweep_events(
        corpus, cells=cells, seeds=seeds, parameters=parameters, measure=measure, recipe=recipe,
        tune_rate=tune_rate, rates_of=rates_of, workers=workers, ray=ray, exporter=exporter,
        runtime=runtime, out=out, registry=registry, **settings,
    )  # fmt: skip
    rows = [event for event in events if isinstance(event, Row)]
    return sorted(rows, key=lambda row: (row.cell, row.seed))


def sweep_events(
    corpus: str | None = None,
    *,
    cells: str | Sequence[str],
    seeds: int = 3,
    parameters: int | None = None,
    tune_rate: bool = False,
    rates_of: str | Path | None = None,
    measure: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    exporter: str | None = None,
    runtime: str | None = None,
    recipe: str | None = None,
    out: str | Path | None = None,
    registry: Registry | None = None,
    **settings: Any,
) -> Iterator[SweepEvent]:
    """`sweep`, event by event: for each run a RunStarted, then the events of its training, if it
    has not ended before and is trained in this process, then its Row, or TrialFinished where the
    run tries a learning rate."""
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
    if workers is not None and workers < 1:
        raise UsageError("workers must be at least 1.")
    alone = workers is None and ray is None
    if not alone:
        import_ray()  # where it is missing, that is said before a long download
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
    first = config.training.seed
    pairs = list(itertools.product(specs, range(first, first + seeds)))
    started = [
        RunStarted(number, len(pairs), spec.name, seed, path / f"{spec.name}-seed{seed}")
        for number, (spec, seed) in enumerate(pairs, 1)
    ]
    plans = [
        plan_runs(
            [run for run in started if run.cell == spec.name],
            None if tune_rate else factors.get(spec.name, 1.0),
        )
        for spec in specs
    ]
    runs = Runs(recipe, settings, manifest, data.interface)
    if alone:
        events: Iterator[SweepEvent] = _train_in_turn(runs, plans, registry)
    else:
        gpus = int(ALONE.device(config.training.device).type == "cuda")
        events = train_in_parallel(runs, plans, registry, ray or LOCAL, workers, gpus)
    table = _Table(path, rows)
    tools = {"exporter": exporter, "runtime": runtime}
    with _sweep_folder(path, manifest), closing(events):  # type: ignore[type-var]
        unmeasured = []
        for event in events:
            if isinstance(event, Row):
                event = table.with_costs(event)
                if measure and event.causal and event.seed == first and not event.error:
                    if not alone:  # the other runs would slow down what is measured
                        table.keep(event)
                        unmeasured.append(event)
                        continue
                    event = yield from _measured(path, event, registry, tools)
                table.keep(event)
            yield event
        for row in unmeasured:
            row = yield from _measured(path, row, registry, tools)
            table.keep(row)
            yield row


@contextmanager
def _sweep_folder(path: Path, manifest: Manifest) -> Iterator[None]:
    """Makes the folder, with its manifest; both are removed if the block fails before anything
    else is there."""
    with new_folder(path):
        write_manifest(path, manifest)
        try:
            yield
        except BaseException:
            items = list(path.iterdir())
            if all(item.name == MANIFEST or item.suffix == LOCK for item in items):
                for item in items:
                    item.unlink()
            raise


def _train_in_turn(
    runs: Runs, plans: Sequence[Plan], registry: Registry
) -> Generator[SweepEvent, None, None]:
    """The runs of all plans in this process, event by event."""
    for plan in plans:
        batch: Batch | None = next(plan)
        while batch is not None:
            rows = []
            for run in batch.runs:
                yield run
                row = yield from runs.row(run, registry)
                yield TrialFinished(row) if batch.search else row
                rows.append(row)
            try:
                batch = plan.send(rows)
            except StopIteration:
                batch = None


def _measured(
    path: Path, row: Row, registry: Registry, tools: dict[str, str | None]
) -> Generator[SweepEvent, None, Row]:
    """The row with what its run costs. A measurement that fails loses nothing: the row stays as it
    is, and the next sweep with `measure` tries again."""
    if is_measured(row):
        return row
    folder = path / row.run
    try:
        return row.model_copy(update={**measure_run(folder, registry, **tools)})
    except Exception as error:
        yield MeasuringFailed(folder, describe_error(error, registry))
        return row


@dataclass(frozen=True)
class _Table:
    """The table and the picture of a sweep."""

    path: Path
    rows: dict[tuple[str, int], Row]  # by cell and seed

    def with_costs(self, row: Row) -> Row:
        """The row with what was measured of its run before."""
        before = self.rows.get((row.cell, row.seed))
        if before is None or before.run != row.run or row.error:
            return row
        return row.model_copy(update={name: getattr(before, name) for name in MEASURED})

    def keep(self, row: Row) -> None:
        """Puts the row into the table and the picture."""
        key = row.cell, row.seed
        if self.rows.get(key) == row and (self.path / PICTURE).exists():
            return
        self.rows[key] = row
        in_order = [self.rows[key] for key in sorted(self.rows)]
        write_rows(in_order, self.path / TABLE)
        draw_sweep(in_order, self.path / PICTURE)


def _without_recurrent_dropout(training: TrainConfig) -> TrainConfig:
    """The settings with `EVEN`, unless they were given."""
    missing = {name: value for name, value in EVEN.items() if name not in training.model_fields_set}
    return training.model_copy(update=missing)


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


def _default_folder(config: RunConfig) -> Path:
    return Path("runs") / f"sweep-{Path(config.data.corpus_name).stem.replace(':', '-')}"
