"""The exporter: a graph for each kind, checked by onnx, sealed with metadata and a digest."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from zoo.artifact import ArtifactInfo
from zoo.errors import VerificationError, one_line
from zoo.model import LanguageModel
from zoo_onnx.step import build_step
from zoo_ort.container import DIGEST, digest, metadata_entry

BUILDERS: dict[str, Callable[[LanguageModel, ArtifactInfo], onnx.ModelProto]] = {
    "step": build_step,
}


class OnnxExporter:
    """See `zoo.exporter.Exporter`."""

    suffix = ".onnx"

    def build(self, model: LanguageModel, info: ArtifactInfo) -> bytes:
        proto = BUILDERS[info.graph](model, info)
        try:
            onnx.checker.check_model(proto, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise VerificationError(f"onnx.checker refuses the graph: {one_line(error)}") from None
        graph: bytes = proto.SerializeToString()
        return graph

    def seal(self, graph: bytes, info: ArtifactInfo) -> bytes:
        for key, value in info.to_metadata().items():
            graph += metadata_entry(key, value)
        return graph + metadata_entry(DIGEST, digest(graph))
