"""A run folder: what training writes, and all that is needed to use it.

`config.json`, `metrics.jsonl` and `progress.json` are read, without torch, by `zoo.runs.metadata`;
the checkpoint `training.safetensors` is written by `zoo.training.checkpointing`.
"""

from __future__ import annotations

import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.config import DataConfig, Interface, RunConfig, TrainConfig
from zoo.data.tokenizer import Tokenizer, read_tokenizer
from zoo.errors import NoTextError, RunError, TokenizerError, ZooWarning, one_line
from zoo.files import move_contents, new_folder, write_atomically
from zoo.models.language_model import LanguageModel
from zoo.registry.registry import Registry, load_registry
from zoo.runs.metadata import CONFIG, read_metrics
from zoo.runs.weights import REPLACE, load_model, save_weights
from zoo.validation import MAX_MESSAGE, read_settings

TOKENIZER, WEIGHTS = "tokenizer.json", "model.safetensors"
ELSEWHERE = "(trained elsewhere)"
PLOT, SAMPLES = "perplexity.png", "samples.txt"
FILES = CONFIG, TOKENIZER, WEIGHTS, PLOT  # those that are written whole


@dataclass(frozen=True)
class Run:
    """A model with its tokenizer and the choices that made it, in the folder `path`;
    `tokenizer_or_none` is None of a model of a task."""

    path: Path
    config: RunConfig
    tokenizer_or_none: Tokenizer | None
    model: LanguageModel

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; NoTextError of a model of a task."""
        if self.tokenizer_or_none is None:
            raise NoTextError
        return self.tokenizer_or_none

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`. A last line that was cut off in writing is left out."""
        return read_metrics(self.path)

    @property
    def prompt(self) -> str:
        """What is continued unless another prompt is given: that of the training samples, or, for
        a model that was trained elsewhere without one, a single token; nothing of a model of a
        task."""
        if self.tokenizer_or_none is None:
            return ""
        space_is_known = not self.tokenizer.unknown(" ")
        return self.config.training.prompt or (
            " " if space_is_known else self.tokenizer.decode([1])
        )

    def save(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Writes what is enough to use the model, with the weights that it has, or others."""
        write_atomically(self.path / CONFIG, self.config.model_dump_json(indent=2).encode())
        if self.tokenizer_or_none is not None:
            described = self.tokenizer.model_dump_json(indent=2)
            write_atomically(self.path / TOKENIZER, described.encode())
        save_weights(weights or self.model.state_dict(), self.path / WEIGHTS)


def save(model: LanguageModel, tokenizer: Tokenizer, path: str | Path, prompt: str = "") -> Run:
    """Puts a model that was not trained here (see LanguageModel.from_torch) into a run folder, from
    which it can be exported. `prompt` is what `zoo generate` continues unless it is told otherwise.

    Raises RunError for a folder that is taken.
    """
    config = RunConfig(
        data=DataConfig(corpus=ELSEWHERE, tokenizer=tokenizer.kind),
        model=model.config,
        training=TrainConfig(prompt=prompt or None),
    )
    run = Run(Path(path), config, tokenizer, model)
    with new_run_folder(run.path, overwrite=False):
        run.save()
    return run


def load(path: str | Path, registry: Registry | None = None) -> Run:
    """The run in the folder `path`; RunError if it is missing or damaged."""
    path = Path(path)
    if not (path / CONFIG).is_file():
        raise RunError(f"{path} is not a run folder: it has no {CONFIG}.")
    try:
        config = read_settings(RunConfig, path / CONFIG)
    except RunError as error:
        raise RunError(f"{one_line(error, MAX_MESSAGE).removesuffix('.')}; {REPLACE}.") from None
    registry = registry or load_registry()
    tokenizer, interface = read_interface(path, config, registry)
    model = load_model(config.model, interface, path / WEIGHTS, registry)
    model.stack.check_contract(registry.cells[config.model.cell], registry)
    return Run(path, config, tokenizer, model)


def read_interface(
    path: Path, config: RunConfig, registry: Registry
) -> tuple[Tokenizer | None, Interface]:
    """What the model of a run reads and gives, and by which tokenizer, if any. RunError or
    TokenizerError where that is missing or damaged."""
    if config.interface is not None:
        return None, config.interface
    if not (path / TOKENIZER).is_file():
        raise RunError(f"{path} is damaged: {TOKENIZER} is missing; {REPLACE}.")
    try:
        tokenizer = read_tokenizer((path / TOKENIZER).read_bytes(), registry)
    except TokenizerError as error:
        raise TokenizerError(f"{path / TOKENIZER}: {error}") from None
    return tokenizer, Interface.of_text(tokenizer.vocab_size)


def free_folder(name: str, parent: Path = Path("runs"), first: int = 1) -> Path:
    """`runs/name`, or `runs/name-2` and so on where that is taken."""
    names = (name if number == 1 else f"{name}-{number}" for number in count(first))
    return next(path for path in map(parent.joinpath, names) if not path.exists())


def refuse_taken(path: Path, overwrite: bool) -> None:
    """RunError if a run cannot be put at `path`: something else is there, or a run that is not to
    be overwritten."""
    try:
        taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    except OSError as error:
        raise _unwritable(path, error) from None
    if taken and not _holds_a_run(path):
        raise RunError(f"{path} exists and is not a run folder; choose another --out.")
    if taken and not overwrite:
        raise RunError(f"{path} already holds a run; use --overwrite, or choose another --out.")


def _holds_a_run(path: Path) -> bool:
    """Many programs have a config.json; only ours may be replaced."""
    try:
        read_settings(RunConfig, path / CONFIG)
    except (OSError, RunError):
        return False
    return True


@contextmanager
def new_run_folder(path: Path, overwrite: bool) -> Iterator[None]:
    """Makes the folder for a run that the block then writes.

    Raises RunError for a folder that is taken (unless `overwrite`, and it holds a run), or cannot
    be written. If the block fails before it has written weights, what it wrote is removed and what
    was there before is put back; that is deleted only when the new run has weights.
    """
    path = path.resolve()
    replaced = _set_aside(path, overwrite)
    try:
        with new_folder(path):
            try:
                yield
            except BaseException:
                if not (path / WEIGHTS).exists():
                    _empty(path)
                raise
    finally:
        if replaced is not None:
            if (path / WEIGHTS).exists():
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                _put_back(replaced, path)


def _empty(path: Path) -> None:
    with suppress(OSError):  # somebody may have removed it meanwhile
        for item in path.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()


def _put_back(replaced: Path, path: Path) -> None:
    """Moves what was set aside back to `path`, or says where it stays."""
    try:
        path.mkdir(exist_ok=True)
        move_contents(replaced, path)
    except OSError as error:
        told = f"the run that was in {path} is now in {replaced}: {error.strerror}."
        warnings.warn(told, ZooWarning, stacklevel=2)


def _set_aside(path: Path, overwrite: bool) -> Path | None:
    """Moves the run at `path` out of the way; None if nothing is there. The folder itself stays, as
    somebody may be in it."""
    refuse_taken(path, overwrite)
    if not (path / CONFIG).is_file():
        return None
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        aside.mkdir()
        move_contents(path, aside)
    except OSError as error:
        raise _unwritable(path, error) from None
    return aside


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} cannot be written: {error.strerror}; choose another --out.")
