"""Folding constants and shapes in a traced graph.

Of onnxscript's rules only those are used that keep every value. Its default ones also drop "x + c"
for a c up to 1e-8, as many an epsilon is, and "x * c" for a c within 1e-5 of 1; and they make a
Clip with one bound, to which ONNX Runtime adds the largest float as the other.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules

NO_LIMIT = 2**40  # bytes; products of weights are folded, whatever their size
ROUNDS = 2

EXACT = (
    rules.cast_constant_of_shape_rule,
    rules.cast_constant_of_shape_without_value_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.flatten_to_reshape_rule,
    rules.fuse_batchnorm_into_conv_rule,
    rules.fuse_batchnorm_into_conv_transpose_rule,
    rules.fuse_batchnorm_into_gemm_rule,
    rules.fuse_pad_into_conv_rule,
    rules.materialize_reshape_shape_rule,
    rules.no_op_cast_rule,
    rules.no_op_dynamic_scatter_nd_rule,
    rules.no_op_expand_rule,
    rules.no_op_static_scatter_nd_rule,
    rules.no_op_transpose_rule,
    rules.normalize_pad_format_conv_rule,
    rules.one_reshape_matmul_reshape_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_conv_transpose_rule,
    rules.reshape_reshape_rule,
    rules.slice_split_rule,
    rules.squeeze_reshape_1d_rule,
    rules.transpose_transpose_rule,
    rules.two_reshapes_matmul_reshape_rule,
    rules.unsqueeze_unsqueeze_rule,
)


def simplify(model: ir.Model) -> None:
    """Folds the model in place; its functions become part of its graph."""
    passes.InlinePass()(model)
    for _ in range(ROUNDS):
        fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=NO_LIMIT,
            output_size_limit=NO_LIMIT,
        )
        RewritePass(EXACT)(model)
        passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    passes.RemoveUnusedOpsetsPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.LiftSubgraphInitializersToMainGraphPass()(model)
    passes.DeduplicateInitializersPass()(model)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.OutputFixPass()(model)
    passes.NameFixPass()(model)
