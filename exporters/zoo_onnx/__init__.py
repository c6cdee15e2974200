"""ONNX: graphs traced from the cells' own equations."""

from collections.abc import Iterable

from zoo import ExporterSpec, hookimpl


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
