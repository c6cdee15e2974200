"""Several exporters and runtimes: none is chosen silently, and plugins may add graphs and
precisions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import zoo
from zoo.cli import run as zoo_command
from zoo.errors import UnknownNameError, UsageError
from zoo.exporting.exporter import find_exporters
from zoo.registry import ExporterSpec, RuntimeSpec


class Rivals:
    """A plugin with an exporter and a runtime for the files of the zoo's, and an exporter for a
    graph and precisions of its own."""

    @zoo.hookimpl
    def zoo_exporters(self) -> list[ExporterSpec]:
        same = "zoo_onnx.exporter:OnnxExporter"
        return [
            ExporterSpec("rival-onnx", same, "the same files", graphs=("step", "sequence")),
            ExporterSpec("tables", "rival:Tables", "tables", ("lookup",), ("int4", "ternary")),
        ]

    @zoo.hookimpl
    def zoo_runtimes(self) -> list[RuntimeSpec]:
        return [RuntimeSpec("rival-ort", "zoo_ort.runtime:OnnxRuntime", "the same", files="*.onnx")]


@pytest.fixture
def registry() -> zoo.registry.Registry:
    return zoo.load_registry(Rivals())


def test_a_graph_that_two_exporters_write_needs_a_choice(
    fox_run: zoo.Run, registry: object
) -> None:
    """The error names both and nothing is written; naming one resolves it."""
    out = Path("out")
    told = "exporters onnx and rival-onnx both write the graph 'step' in fp32; .*--exporter NAME"
    with pytest.raises(UsageError, match=told):
        zoo.export(fox_run, out=out, registry=registry)
    with pytest.raises(UsageError, match="runtimes onnxruntime and rival-ort both open"):
        zoo.export(fox_run, out=out, registry=registry, exporter="rival-onnx")
    assert not out.exists()
    for name in ("onnx", "rival-onnx"):
        exported = zoo.export(
            fox_run, out=out / name, registry=registry, exporter=name, runtime="rival-ort"
        )
        assert zoo.open_source(exported.path, registry=registry, runtime="onnxruntime")
    # a graph that only one of them writes needs no choice
    assert set(find_exporters(("generate",), "fp32", registry)) == {"generate"}
    assert set(find_exporters(("step",), "int8", registry)) == {"step"}


def test_graphs_and_precisions_of_a_plugins_exporter(registry: zoo.registry.Registry) -> None:
    for graph, precision, told in (
        ("step", "ternary", "no exporter writes the graph 'step' in ternary; .* fp16, fp32, int8"),
        ("lookup", "fp32", "no exporter writes the graph 'lookup' in fp32; .* int4, ternary"),
    ):
        with pytest.raises(UsageError, match=told):
            find_exporters((graph,), precision, registry)
    with pytest.raises(UnknownNameError, match=r"graph 'lokup' .*lookup"):
        find_exporters(("lokup",), "int4", registry)
    with pytest.raises(UnknownNameError, match=r"precision 'ternery' .*ternary"):
        find_exporters(None, "ternery", registry)
    with pytest.raises(UnknownNameError, match=r"exporter 'tabels' .*tables"):
        find_exporters(None, "int4", registry, "tabels")


def test_the_command_line_options_choose_exporter_and_runtime(
    fox_run: zoo.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = zoo.load_registry(Rivals())
    for module in ("zoo.exporting.export", "zoo.inference.runtime", "zoo.runs.run"):
        monkeypatch.setattr(f"{module}.load_registry", lambda: registry)
    path = str(fox_run.path)
    assert zoo_command(["export", path, "--out", "out"]) == 2
    assert "choose one with --exporter NAME" in capsys.readouterr().err
    chosen = ["--exporter", "rival-onnx", "--runtime", "rival-ort"]
    assert zoo_command(["export", path, "--out", "out", *chosen]) == 0
    file = capsys.readouterr().out.strip()
    assert zoo_command(["generate", file, "--length", "5"]) == 2
    assert "choose one with --runtime NAME" in capsys.readouterr().err
    assert zoo_command(["generate", file, "--length", "5", "--runtime", "onnxruntime"]) == 0


def test_every_verb_can_choose(fox_run: zoo.Run, registry: zoo.registry.Registry) -> None:
    """A full-precision file is verified without an exporter; the law tests all that there are."""
    from zoo.benchmarking.benchmark import benchmark
    from zoo.testing import check_cell
    from zoo.testing.laws import the_exported_graphs_are_the_model

    chosen = {"exporter": "onnx", "runtime": "onnxruntime"}
    file = zoo.export(fox_run, out="out", registry=registry, **chosen).path
    result = zoo.verify(file, fox_run, length=50, seeds=0, registry=registry, runtime="rival-ort")
    assert len(result.texts) == 1
    quick = {"batches": (1,), "rounds": 1, "seconds": 0.01, "compiled": False}
    copy = shutil.copytree(fox_run.path, "copy", ignore=shutil.ignore_patterns("export"))
    with pytest.raises(UsageError, match="exporters onnx and rival-onnx both write"):
        benchmark(copy, registry=registry, **quick)
    measured = benchmark(copy, registry=registry, **chosen, **quick)
    assert {"step", "generate int8", "sequence"} <= {row.workload for row in measured.rows}
    laws = [the_exported_graphs_are_the_model]
    (verdict,) = check_cell("rnn", laws=laws, registry=registry)
    assert verdict.passed, verdict.finding
