"""ONNX Runtime: runs exported files, with neither torch nor onnx."""

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo import hookimpl
from zoo.registry import RuntimeSpec

if TYPE_CHECKING:
    from zoo_ort.modules import open_module

__all__ = ["open_module"]


@hookimpl
def zoo_runtimes() -> Iterable[RuntimeSpec]:
    return [
        RuntimeSpec(
            name="onnxruntime",
            factory="zoo_ort.runtime:OnnxRuntime",
            title="ONNX Runtime, on CPUs and CUDA",
            files="*.onnx",
        )
    ]


def __getattr__(name: str) -> Any:
    if name != "open_module":  # imported when it is used: finding plugins stays quick
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("zoo_ort.modules").open_module
