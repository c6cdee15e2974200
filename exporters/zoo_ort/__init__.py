"""ONNX Runtime: runs exported files, with neither torch nor onnx."""

from collections.abc import Iterable

from zoo import RuntimeSpec, hookimpl


@hookimpl
def zoo_runtimes() -> Iterable[RuntimeSpec]:
    return [
        RuntimeSpec(
            name="onnxruntime",
            factory="zoo_ort.runtime:OnnxRuntime",
            title="ONNX Runtime, on CPUs and CUDA",
            suffix=".onnx",
        )
    ]
