"""The exporter: builds each graph in each precision, checks it with onnx, and adds metadata and a
digest."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from zoo.errors import UsageError, VerificationError, one_line
from zoo.inference.artifact import GENERATE, SEQUENCE, STEP, ArtifactInfo, SelfDescription
from zoo.models.language_model import LanguageModel
from zoo.registry.specs import AUTO, STANDARD
from zoo_onnx.blocks import put_in_blocks
from zoo_onnx.generate import build_generate
from zoo_onnx.loops import tighten_loops
from zoo_onnx.norms import divide_by_roots
from zoo_onnx.precision import PRECISIONS
from zoo_onnx.products import join_products, plain_products
from zoo_onnx.sequence import trace_sequence
from zoo_onnx.step import trace_step
from zoo_onnx.tables import tabulate
from zoo_onnx.versions import declare_oldest
from zoo_ort.container import DIGEST, digest, metadata_entry
from zoo_ort.fused import FUSED, FUSED_DOMAIN, has_fused_operators

Traced = Callable[[LanguageModel, ArtifactInfo, bool], ir.Model]

TRACED: dict[str, Traced] = {STEP: trace_step, GENERATE: trace_step, SEQUENCE: trace_sequence}


class OnnxExporter:
    """See `zoo.exporting.Exporter`. Graphs built from the same trace share it for the lifetime of
    the model, whose weights must not change meanwhile."""

    suffix = ".onnx"

    def __init__(self) -> None:
        self._traces: WeakKeyDictionary[LanguageModel, dict[tuple[Traced, bool], bytes]]
        self._traces = WeakKeyDictionary()

    def build(self, model: LanguageModel, info: ArtifactInfo) -> bytes:
        graph = self._traced(model, info)
        PRECISIONS[info.precision](graph.graph, info.state_bounds())
        passes.RemoveUnusedNodesPass()(graph)
        if info.graph == GENERATE:
            graph = ir.from_proto(build_generate(graph, info))
        if info.graph == SEQUENCE and info.causal:
            put_in_blocks(graph.graph)
        tighten_loops(graph.graph)
        passes.RemoveUnusedNodesPass()(graph)
        return checked(ir.to_proto(graph))

    def seal(self, graph: bytes, info: ArtifactInfo) -> bytes:
        domains = {each.domain for each in onnx.ModelProto.FromString(graph).opset_import}
        operators = FUSED if FUSED_DOMAIN in domains else STANDARD
        return seal(graph, info.model_copy(update={"operators": operators}))

    def _traced(self, model: LanguageModel, info: ArtifactInfo) -> ir.Model:
        trace, fused = TRACED[info.graph], _is_fused(info)
        known = self._traces.setdefault(model, {})
        if (trace, fused) not in known:
            graph = trace(model, info, fused)
            plain_products(graph.graph)
            tabulate(graph.graph, merged=info.graph != SEQUENCE)
            join_products(graph.graph)
            divide_by_roots(graph.graph)
            passes.RemoveUnusedNodesPass()(graph)
            known[trace, fused] = ir.to_proto(graph).SerializeToString()
        copy: ir.Model = ir.from_proto(onnx.ModelProto.FromString(known[trace, fused]))
        return copy


def _is_fused(info: ArtifactInfo) -> bool:
    """Whether the file may have operators of ONNX Runtime's own."""
    if info.operators == AUTO:
        return has_fused_operators()
    if info.operators == FUSED and not has_fused_operators():
        raise UsageError(
            "this ONNX Runtime has no fused operators; install 1.26 or newer, or export with "
            '--operators standard (operators="standard" in Python).'
        )
    return info.operators == FUSED


def checked(proto: onnx.ModelProto) -> bytes:
    """The serialised model, which declares the oldest versions that have what it uses;
    VerificationError for one that onnx's own checker refuses."""
    declare_oldest(proto)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"onnx.checker refuses the graph: {one_line(error)}") from None
    content: bytes = proto.SerializeToString()
    return content


def seal(graph: bytes, info: SelfDescription) -> bytes:
    """The graph with `info` as its metadata, and the digest of both."""
    for key, value in info.to_metadata().items():
        graph += metadata_entry(key, value)
    return graph + metadata_entry(DIGEST, digest(graph))
