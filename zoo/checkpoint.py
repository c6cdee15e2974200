"""Weights and texts on disk: safetensors and JSON, written so that a reader sees the old file or
the new one and never a part."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from zoo.config import ModelConfig
from zoo.errors import RunError
from zoo.model import LanguageModel
from zoo.registry import Registry


def temporary_prefix(name: str) -> str:
    """How the names of the temporary files begin that are written for the file `name`."""
    return f".{name}."


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a temporary file beside `path`, flushes it to the disk, and renames it. RunError where
    that fails; the file that was there before is as it was."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(path.name))
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise RunError(f"{path} cannot be written: {error.strerror}.") from None
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Makes the folder `path` for the block to write in. If the block fails, the folders that were
    made and are still empty are removed. RunError where nothing can be written."""
    made = []
    try:
        for folder in [*reversed(path.parents), path]:
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        with tempfile.TemporaryFile(dir=path):
            pass
        yield
    except BaseException as error:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise RunError(
                f"{path} cannot be written: {error.strerror}; choose another --out."
            ) from None
        raise


def move_contents(source: Path, target: Path) -> None:
    """Moves everything in the folder `source` into `target`, and removes `source`, unless it is the
    one that the process is in."""
    for item in sorted(source.iterdir()):
        item.rename(target / item.name)
    if not source.samefile(os.curdir):
        source.rmdir()


@contextmanager
def filled_at_once(path: Path) -> Iterator[Path]:
    """A folder for the block to write in, which then takes the place of the empty folder `path`:
    nobody, after whatever happened, finds a part of its files."""
    path = path.resolve()
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new-"))
    try:
        os.chmod(staging, 0o755)
        yield staging
        if path.samefile(os.curdir):
            move_contents(staging, path)
        else:
            path.rmdir()
            staging.rename(path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """A model's parameters and buffers, on whatever device they are, as safetensors."""
    write_atomically(path, save({name: leaf.contiguous() for name, leaf in weights.items()}))


def load_model(
    config: ModelConfig, vocab_size: int, path: Path, registry: Registry | None = None
) -> LanguageModel:
    """The model that `config` describes with the weights at `path`, on the CPU, ready to run.

    Names, shapes and dtypes are compared before anything is allocated. Raises RunError for a file
    that is damaged or holds another model's weights.
    """
    with torch.device("meta"):
        expected = LanguageModel(config, vocab_size, registry).state_dict()
    try:
        with safe_open(path, "pt") as file:
            found = {name: _form(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise RunError(f"{path} is missing; the run has no weights yet.") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged: {error}") from None
    for name in sorted(expected.keys() | found.keys()):
        wanted = _described(expected[name]) if name in expected else "absent"
        if wanted != found.get(name, "absent"):
            raise RunError(
                f"{path} does not fit its config.json: {name} is {found.get(name, 'absent')}, "
                f"and the model wants {wanted}."
            )
    # building draws initial weights, which must not move the caller's random numbers
    with torch.random.fork_rng(devices=[]):
        model = LanguageModel(config, vocab_size, registry)
    model.load_state_dict(load_file(path))
    return model.eval()


def _form(entry: Any) -> str:
    """Dtype and shape of an entry in a file: "F32 28×512"."""
    return " ".join([entry.get_dtype(), "×".join(map(str, entry.get_shape()))])


def _described(tensor: Tensor) -> str:
    """The same of a tensor."""
    dtype = SAFETENSORS_DTYPES.get(tensor.dtype, str(tensor.dtype))
    return " ".join([dtype, "×".join(map(str, tensor.shape))])


SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
