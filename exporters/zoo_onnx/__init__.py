"""Export to ONNX: graphs traced from the cells' PyTorch code."""

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo import hookimpl
from zoo.registry import ExporterSpec

if TYPE_CHECKING:
    from zoo_onnx.modules import export_step

__all__ = ["export_step"]


@hookimpl
def zoo_exporters() -> Iterable[ExporterSpec]:
    return [
        ExporterSpec(
            name="onnx",
            factory="zoo_onnx.exporter:OnnxExporter",
            title="ONNX, opset 20, one file",
            graphs=("step", "generate", "sequence"),
            precisions=("fp32", "fp16", "int8"),
        )
    ]


def __getattr__(name: str) -> Any:
    if name != "export_step":  # imported when it is used: finding plugins stays quick
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("zoo_onnx.modules").export_step
