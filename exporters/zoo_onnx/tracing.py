"""Tracing a PyTorch module to an ONNX graph, with constant folding."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from zoo.errors import VerificationError, ZooError, one_line

OPSET = 20
MAX_IR_VERSION = 10  # the highest that runtimes of 2024 open; enough for opset 20
NO_LIMIT = 2**40  # bytes; products of weights are folded, whatever their size


def trace(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Any,
    what: str,
) -> ir.Model:
    """The graph of `module(*example)`. `axes` are the dynamic axes of each argument, as
    torch.export takes them; `what` names the module in errors."""
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(),
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=axes,
                verbose=False,
            )
            assert program is not None
            model = program.model
            onnxscript.optimizer.optimize(
                model, input_size_limit=NO_LIMIT, output_size_limit=NO_LIMIT
            )
    except ZooError:
        raise
    except Exception as error:  # the tracer's errors have no common type
        cause = error.__cause__ or error
        if isinstance(cause, GuardOnDataDependentSymNode):
            raise ZooError(
                f"{what} cannot be traced: the value of a tensor decides its control flow; "
                f"use torch.where, and convert no tensors to Python numbers."
            ) from error
        raise ZooError(f"{what} cannot be traced: {one_line(cause)}") from error
    _check_outputs(model.graph)
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    model.producer_name, model.producer_version = "recurrent-zoo", ""
    model.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    return model


def _check_outputs(graph: ir.Graph) -> None:
    """Raises VerificationError unless every output has its own node.

    With an input as an output, or one tensor as two outputs, ONNX Runtime has returned the wrong
    tensor (pytorch issue 167848). Current versions of torch.onnx add an Identity.
    """
    for output in graph.outputs:
        if output.producer() is None or list(graph.outputs).count(output) != 1:
            raise VerificationError(f"the traced output {output.name} has no node of its own")


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the tracer's log lines, warnings and printed graphs, which are for its
    developers."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
