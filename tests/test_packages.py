"""Packages: folders that plugins make of a model's exported files."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

import zoo
from zoo.errors import UnknownNameError, UsageError
from zoo.exporting import Exported, package
from zoo.registry import PackageSpec, Registry

NAME = "packages_of_a_test"


class Zipped:
    """A packager that writes its files' names, and the model's weights into a folder."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def write(self, files: Sequence[Exported], folder: Path) -> None:
        assert not any(folder.iterdir())
        names = [file.path.name for file in files]
        (folder / "names.txt").write_text("\n".join(names))
        (folder / "deep").mkdir()
        for file in files:
            (folder / "deep" / file.path.name).write_bytes(file.path.read_bytes())


class Refusing(Zipped):
    def write(self, files: Sequence[Exported], folder: Path) -> None:
        (folder / "half").write_text("half")
        raise UsageError("this model is not for it.")


class Plugin:
    @zoo.hookimpl
    def zoo_packages(self) -> list[PackageSpec]:
        return [
            PackageSpec("zipped", f"{NAME}:Zipped", "names", ("generate", "step")),
            PackageSpec("refusing", f"{NAME}:Refusing", "nothing", ("step",)),
        ]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setitem(sys.modules, NAME, SimpleNamespace(Zipped=Zipped, Refusing=Refusing))
    return zoo.load_registry(Plugin())


def test_a_package_is_made_of_proved_files_and_replaced_whole(
    fox_run: zoo.Run, registry: Registry
) -> None:
    """What is in it opens as any exported file does; a second one replaces the first."""
    out = Path("web")
    assert package(fox_run, "zipped", out=out, registry=registry) == out
    assert (out / "names.txt").read_text() == "generate.onnx\nstep.onnx"
    shown = json.loads((out / "zoo-package.json").read_text())
    source = zoo.open_source(out / "deep", registry=registry)
    assert shown == {"package": "zipped", "weights": source.info.weights}
    assert source.info.proof is not None
    text = zoo.generate(source, "the ", length=20)
    assert text == zoo.generate(fox_run.path, "the ", length=20)
    (out / "older").write_text("of the package before")
    package(fox_run, "zipped", out=out, registry=registry)
    assert sorted(path.name for path in out.iterdir()) == ["deep", "names.txt", "zoo-package.json"]
    assert [path.name for path in Path().iterdir() if path.name.startswith(".web")] == []


def test_what_is_no_package_is_left_alone(fox_run: zoo.Run, registry: Registry) -> None:
    mine = Path("mine")
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(UsageError, match=r"mine holds files of something else.*another --out"):
        package(fox_run, "zipped", out=mine, registry=registry)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match="is a file"):
        package(fox_run, "zipped", out=mine / "thesis.txt", registry=registry)
    with pytest.raises(UnknownNameError, match=r"package 'zippd' is not in the zoo.*zipped"):
        package(fox_run, "zippd", out="x", registry=registry)
    assert not Path("x").exists()


def test_a_packager_that_fails_leaves_what_was_there(fox_run: zoo.Run, registry: Registry) -> None:
    with pytest.raises(UsageError, match="this model is not for it"):
        package(fox_run, "refusing", out="new", registry=registry)
    assert not Path("new").exists()
    package(fox_run, "zipped", out="old", registry=registry)
    before = {path.name for path in Path("old").iterdir()}
    with pytest.raises(UsageError):
        package(fox_run, "refusing", out="old", registry=registry)
    assert {path.name for path in Path("old").iterdir()} == before
