"""Files and folders that appear whole or not at all: a reader sees the old one or the new one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo.errors import RunError


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
def replaced_at_once(path: Path) -> Iterator[Path]:
    """A folder for the block to write in, which then takes the place of the folder `path` and of
    what is in it. If the block fails, `path` is as it was."""
    path = path.resolve()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as beside:
        staging, former = Path(beside) / "new", Path(beside) / "former"
        staging.mkdir()
        yield staging
        path.rename(former)
        try:
            staging.rename(path)
        except BaseException:
            former.rename(path)
            raise


@contextmanager
def filled_at_once(path: Path) -> Iterator[Path]:
    """A folder for the block to write in, which then takes the place of the empty folder `path`:
    a reader never finds a part of its files, however the process ended."""
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
