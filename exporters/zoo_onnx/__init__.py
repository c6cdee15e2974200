"""Export to ONNX: graphs traced from the cells' PyTorch code."""

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo import hookimpl
from zoo.registry import ExporterSpec

if TYPE_CHECKING:
    from zoo_onnx.module_verification import verify_module
    from zoo_onnx.modules import export_sequence, export_step
    from zoo_onnx.over_time import OverTime

__all__ = ["OverTime", "export_sequence", "export_step", "verify_module"]

LAZY = {
    "OverTime": "zoo_onnx.over_time",
    "export_sequence": "zoo_onnx.modules",
    "export_step": "zoo_onnx.modules",
    "verify_module": "zoo_onnx.module_verification",
}


@hookimpl
def zoo_exporters() -> Iterable[ExporterSpec]:
    return [
        ExporterSpec(
            name="onnx",
            factory="zoo_onnx.exporter:OnnxExporter",
            title="ONNX, opset 19, one file",
            graphs=("step", "generate", "sequence"),
            precisions=("fp32", "fp16", "int8"),
            modules="zoo_onnx.module_exporter:OnnxModuleExporter",
            operators=("standard", "fused"),
        )
    ]


def __getattr__(name: str) -> Any:
    if name not in LAZY:  # imported when it is used: finding plugins stays quick
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(LAZY[name]), name)
