"""Tracing a PyTorch module to an ONNX graph, with constant folding."""

from __future__ import annotations

import builtins
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx.experimental import _config as fx_config

from zoo.errors import VerificationError, ZooError
from zoo_onnx.decompositions import decompose
from zoo_onnx.explanations import explain_capture, explain_translation
from zoo_onnx.simplification import simplify
from zoo_onnx.versions import OPSET

# Two would do for a dynamic axis; the proof uses no batch of three, so the size is not hard-coded.
TRACED_BATCH = 3
# From 2 on: for one row, the tracer takes shortcuts. The proof has a batch of one.
BATCH, TIME = torch.export.Dim("batch", min=2), torch.export.Dim("time", min=2)
LENGTH = len


def trace(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Any,
    what: str,
    capturing: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - it keeps nothing
) -> ir.Model:
    """The graph of `module(*example)`. `axes` are the dynamic axes of each argument, as
    torch.export takes them; `what` names the module in errors; the module runs within
    `capturing`."""
    with _quiet(), torch.no_grad():
        program = decompose(_captured(module.eval(), example, axes, what, capturing))
        try:
            translated = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=_named(axes),
                verbose=False,
                optimize=False,
            )
        except Exception as error:  # the exporter's errors have no common type
            raise ZooError(f"{what} cannot be exported: {explain_translation(error)}") from error
        assert translated is not None
        model = translated.model
        simplify(model)
    _check_outputs(model.graph)
    model.producer_name, model.producer_version = "recurrent-zoo", ""
    model.metadata_props.clear()
    for number, node in enumerate(model.graph.all_nodes()):
        node.name = f"{node.op_type}_{number}"
        node.metadata_props.clear()
        node.doc_string = None
    return model


def _captured(
    module: nn.Module, example: tuple[Tensor, ...], axes: Any, what: str, capturing: Any
) -> ExportedProgram:
    try:
        with (
            capturing,
            _symbolic_lengths(),
            fx_config.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]  # as torch.onnx has it
        ):
            return torch.export.export(module, example, dynamic_shapes=axes, strict=False)
    except ZooError:
        raise
    except Exception as error:  # of the tracer or the module: they have no common type
        raise ZooError(f"{what} cannot be traced: {explain_capture(error)}") from error


def _named(axes: Any) -> Any:
    """The axes by their names, which the file gives to them."""
    if isinstance(axes, tuple):
        return tuple(map(_named, axes))
    return {axis: str(dimension.__name__) for axis, dimension in axes.items()}


@contextmanager
def _symbolic_lengths() -> Iterator[None]:
    """Within it, `len` of a traced tensor is a symbol."""
    builtins.len = _length
    try:
        yield
    finally:
        builtins.len = LENGTH


def _length(value: Any) -> Any:
    """A tensor's length as a symbol: Python's own `len` makes a number of it."""
    return value.shape[0] if isinstance(value, Tensor) and value.dim() else LENGTH(value)


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
