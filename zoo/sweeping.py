"""Many cells trained alike: `sweep`, and the same event by event."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

import torch

from zoo.checkpoint import new_folder, write_atomically
from zoo.choosing import choose_settings, multiplied_rate, rate_multiplier_of
from zoo.config import (
    CHOSEN,
    ModelConfig,
    RunConfig,
    Settings,
    read_settings,
    setting_fields,
    setting_owners,
)
from zoo.corpora import STANDARD_INPUT
from zoo.dataset import read_dataset
from zoo.errors import (
    CorpusError,
    ProviderError,
    RunError,
    UnknownNameError,
    UsageError,
    ZooError,
    one_line,
)
from zoo.events import Event
from zoo.experiment import Started, resume_events, train_events
from zoo.measuring import measure_run
from zoo.model import LanguageModel, count_parameters
from zoo.plots import draw_sweep
from zoo.processes import ALONE, join_processes
from zoo.records import CONFIG, read_record
from zoo.registry import CellSpec, Registry, load_registry
from zoo.run import TOKENIZER
from zoo.state import flatten
from zoo.sweep_table import MEASURED, TABLE, Row, is_measured, read_rows, write_rows
from zoo.tokenizers import read_tokenizer

PICTURE, ALIKE = "sweep.png", "sweep.json"
MOST_HIDDEN, ROUND = 65_536, 64


@dataclass(frozen=True)
class Turn:
    """A run, number `number` of `total`, is begun, or gone on with, or found to have ended."""

    number: int
    total: int
    cell: str
    seed: int
    folder: Path


SweepEvent: TypeAlias = Turn | Started | Event | Row


def sweep(
    corpus: str | None = None,
    *,
    cells: str | Sequence[str],
    seeds: int = 3,
    parameters: int | None = None,
    measure: bool = False,
    recipe: str | None = None,
    out: str | Path | None = None,
    registry: Registry | None = None,
    **settings: Any,
) -> list[Row]:
    """Trains each of the `cells` on `corpus` with each of the seeds, and gives back a row for each
    run. The folder `out` has a run folder for each, the table `sweep.csv` and the picture
    `sweep.png`; both are up to date whenever a run has ended.

    `cells` are names and patterns (`["gru", "*-scratch"]`, or "gru,*-scratch"). There are as many
    seeds as `seeds` says, from the setting `seed` on. The other `settings` are those of
    `zoo.train`, and hold for all runs; what they leave open is chosen once, for all. With
    `parameters`, each cell has the largest hidden size with which its model has at most so many
    parameters. With `measure`, the first run of each causal cell is measured too: a moment of its
    training, and, exported, the speed and size of its files. Without `out` the folder is
    `runs/sweep-CORPUS`.

    In a folder that holds a sweep of the same settings, runs that have ended are only read, one
    that was stopped is gone on with, and other cells and seeds are added. A run that fails does not
    stop the others: its row has the error. What concerns all runs is raised, before anything is
    trained: UsageError for cells that are not there and settings that cannot be meant, CorpusError
    for a text that cannot be read, RunError for a folder that holds something else.
    """
    events = sweep_events(
        corpus, cells=cells, seeds=seeds, parameters=parameters, measure=measure, recipe=recipe,
        out=out, registry=registry, **settings,
    )  # fmt: skip
    return [event for event in events if isinstance(event, Row)]


def sweep_events(
    corpus: str | None = None,
    *,
    cells: str | Sequence[str],
    seeds: int = 3,
    parameters: int | None = None,
    measure: bool = False,
    recipe: str | None = None,
    out: str | Path | None = None,
    registry: Registry | None = None,
    **settings: Any,
) -> Iterator[SweepEvent]:
    """`sweep`, event by event: for each run a Turn, then the events of its training, if it has not
    ended before, then its Row."""
    registry = registry or load_registry()
    specs = choose_cells(cells, registry)
    if "cell" in settings:
        raise UsageError("a sweep has cells, and no cell.")
    if parameters is not None and settings.get("hidden") is not None:
        raise UsageError("parameters and hidden exclude each other; give one.")
    if seeds < 1 or (parameters is not None and parameters < 1):
        raise UsageError("seeds and parameters must be at least 1.")
    settings["corpus"] = corpus
    config = RunConfig.build(settings, recipe)
    if config.data.corpus == STANDARD_INPUT:
        raise UsageError("a sweep reads its text for every run; give a file, not standard input.")
    for spec in specs:
        spec.parse_options(config.model.options)
    path = Path(out) if out is not None else _default_folder(config)
    given = _given(config, parameters)
    alike, rows = _sweep_before(path, given)
    data = read_dataset(config.data, registry)
    if join_processes(config.training.device) is not ALONE:
        raise UsageError("a sweep trains in one process; start it without torchrun.")
    if alike is None:
        device = ALONE.device(config.training.device)
        first_model = config.model.model_copy(
            update={"cell": specs[0].name, "mask_token": not specs[0].causal}
        )
        like_first = config.model_copy(update={"model": first_model})
        decided = choose_settings(like_first, data, device, ALONE, registry, parameters)
        alike = _Alike(
            given=given,
            chosen=_chosen(decided, given),
            rate_multiplier=rate_multiplier_of(decided, registry),
        )
    shared = {**settings, **alike.chosen}
    model = RunConfig.build(shared, recipe).model

    def train(spec: CellSpec, seed: int, folder: Path) -> Iterator[Started | Event]:
        if not (folder / CONFIG).is_file():
            own = {**shared, "cell": spec.name, "seed": seed}
            if given["learning_rate"] is None:
                own["learning_rate"] = multiplied_rate(spec.learning_rate, alike.rate_multiplier)
            if parameters is not None:
                own["hidden"] = largest_hidden(
                    parameters, model, spec, data.tokenizer.vocab_size, registry
                )
            yield from train_events(recipe=recipe, out=folder, registry=registry, **own)
        elif not read_record(folder).finished:
            yield from resume_events(folder, registry)

    first = config.training.seed
    turns = [(spec, seed) for spec in specs for seed in range(first, first + seeds)]
    with new_folder(path):
        for number, (spec, seed) in enumerate(turns, 1):
            folder = path / f"{spec.name}-seed{seed}"
            yield Turn(number, len(turns), spec.name, seed, folder)
            try:
                with closing(train(spec, seed, folder)) as events:  # type: ignore[type-var]
                    for event in events:
                        if isinstance(event, Started):
                            _write_alike(path, alike)
                        yield event
                row = _read_row(folder, spec, registry)
                if before := rows.get((spec.name, seed)):
                    row = row.model_copy(update={name: getattr(before, name) for name in MEASURED})
                if measure and spec.causal and seed == first and not is_measured(row):
                    row = row.model_copy(update={**measure_run(folder, registry)})
            except (CorpusError, ProviderError):  # the other runs would meet the same
                raise
            except Exception as error:
                name = "" if isinstance(error, ZooError) else f"{type(error).__name__}: "
                row = Row(
                    cell=spec.name,
                    seed=seed,
                    causal=spec.causal,
                    run=folder.name,
                    error=name + one_line(error),
                )
            if rows.get((spec.name, seed)) != row or not (path / PICTURE).exists():
                rows[spec.name, seed] = row
                _write_alike(path, alike)
                in_order = [rows[key] for key in sorted(rows)]
                write_rows(in_order, path / TABLE)
                draw_sweep(in_order, path / PICTURE)
            yield row


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


def largest_hidden(
    parameters: int, config: ModelConfig, spec: CellSpec, vocab_size: int, registry: Registry
) -> int:
    """The largest hidden size with which the model that `config` describes, with this cell, has at
    most so many parameters. Sizes that the cell refuses (by UsageError or ValueError) are passed
    over. UsageError if there is none."""
    counts, refused = {0: 0}, dict[int, Exception]()

    def taken(size: int) -> int:
        """The largest size up to `size` that the cell takes; 0 if it takes none."""
        while size not in counts:
            if size not in refused:
                try:
                    model = _with_cell(config, spec, size)
                    counts[size] = count_parameters(model, vocab_size, registry)
                    break
                except (UsageError, ValueError) as error:
                    refused[size] = error
            size -= 1
        return size

    above = 1
    while counts[taken(above)] <= parameters and above < MOST_HIDDEN:
        above *= 2

    def largest_of(sizes: range) -> int:
        found = bisect_right(sizes, parameters, key=lambda size: counts[taken(size)])
        return sizes[found - 1] if found else 0

    # where heads divide the hidden size, a larger one may have fewer parameters: counts surely grow
    # along multiples of 64, and after the last of these the sizes are looked at one by one
    begin = largest_of(range(ROUND, above + 1, ROUND))
    near = map(taken, (largest_of(range(1, above + 1)), *range(begin, begin + ROUND)))
    size = max(size for size in near if counts[size] <= parameters)
    if size == 0 and len(counts) == 1:
        raise refused[above]
    if size == 0:
        least = min(counts.keys() - {0})
        raise UsageError(
            f"with hidden={least}, its least, {spec.name} has {counts[least]:,} parameters, and "
            f"not {parameters:,}."
        )
    return size


def _with_cell(config: ModelConfig, spec: CellSpec, hidden: int) -> ModelConfig:
    changes = {"cell": spec.name, "hidden": hidden, "mask_token": not spec.causal}
    return ModelConfig.checked(**{**config.model_dump(), **changes})


def _state_bytes(config: ModelConfig, vocab_size: int, registry: Registry) -> int:
    with torch.device("meta"):
        state = LanguageModel(config, vocab_size, registry).init_state(1)
    return sum(leaf.numel() * leaf.element_size() for leaf in flatten(state))


def _default_folder(config: RunConfig) -> Path:
    return Path("runs") / f"sweep-{Path(config.data.corpus).stem}"


class _Alike(Settings):
    """What is alike in all runs of a sweep: the content of `sweep.json`. The settings that were
    given, None for those that were left open; what was chosen for them, as for the first cell; and
    how many times its own learning rate each cell gets."""

    format: Literal[1] = 1
    given: dict[str, Any]
    chosen: dict[str, Any]
    rate_multiplier: float = 1.0


def _given(config: RunConfig, parameters: int | None) -> dict[str, Any]:
    given: dict[str, Any] = {"recipe": config.recipe, "parameters": parameters}
    for name, section in setting_owners().items():
        settings = getattr(config, section)
        fixed = name in settings.model_fields_set or config.recipe is not None
        given[name] = getattr(settings, name) if fixed or name not in _choosable() else None
    del given["cell"], given["seed"]
    return given


def _choosable() -> list[str]:
    return [name for name, field in setting_fields().items() if field.json_schema_extra == CHOSEN]


def _chosen(config: RunConfig, given: dict[str, Any]) -> dict[str, Any]:
    """What the config has for the settings that were left open. Each cell has a learning rate of
    its own, and with a number of parameters a hidden size."""
    owners = setting_owners()
    own = {"learning_rate"} | ({"hidden"} if given["parameters"] is not None else set())
    shared = [name for name in _choosable() if given[name] is None and name not in own]
    return {name: getattr(getattr(config, owners[name]), name) for name in shared}


def _write_alike(path: Path, alike: _Alike) -> None:
    if not (path / ALIKE).exists():
        write_atomically(path / ALIKE, alike.model_dump_json(indent=2).encode())


def _sweep_before(
    path: Path, given: dict[str, Any]
) -> tuple[_Alike | None, dict[tuple[str, int], Row]]:
    """The sweep that the folder holds, and its rows by cell and seed. RunError if it holds other
    things, or a sweep of other settings."""
    if not path.is_dir() or not any(path.iterdir()):
        return None, {}
    if not (path / ALIKE).is_file():
        raise RunError(f"{path} exists and is not a sweep; choose another --out.")
    before = read_settings(_Alike, path / ALIKE)
    for name, value in given.items():
        if (other := before.given.get(name)) != value:
            raise RunError(
                f"the runs in {path} have {_told(name, other)}, and not {_told(name, value)}; "
                f"choose another --out."
            )
    return before, {(row.cell, row.seed): row for row in read_rows(path / TABLE)}


def _told(name: str, value: Any) -> str:
    return f"no {name} given" if value is None else f"{name}={value}"


def _read_row(folder: Path, spec: CellSpec, registry: Registry) -> Row:
    """The row of a run that has ended."""
    record = read_record(folder)
    tokenizer = read_tokenizer((folder / TOKENIZER).read_bytes())
    model, last = record.config.model, record.metrics[-1]
    return Row(
        cell=spec.name,
        seed=record.config.training.seed,
        causal=spec.causal,
        hidden=model.hidden,
        layers=model.layers,
        parameters=count_parameters(model, tokenizer.vocab_size, registry),
        state_bytes=_state_bytes(model, tokenizer.vocab_size, registry),
        year=spec.card.year,
        tokens=last["tokens"],
        seconds=last["seconds"],
        tokens_per_second=median(line["tokens_per_second"] for line in record.metrics),
        held_out_bits_per_char=record.best("held_out_bits_per_char"),
        train_bits_per_char=last.get("train_bits_per_char"),  # not there in an older run
        run=folder.name,
    )
