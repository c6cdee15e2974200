"""step.onnx: the trace of one whole step, from tokens and states to logits and states."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from zoo.artifact import LOGITS, TOKEN, ArtifactInfo
from zoo.errors import VerificationError, ZooError, one_line
from zoo.model import LanguageModel
from zoo.state import flatten, unflatten

OPSET = 20
MAX_IR_VERSION = 10  # the highest that runtimes of 2024 open; opset 20 needs no more
# Two would do for a dynamic axis; three is a size at which nothing is verified afterwards.
TRACED_BATCH = 3


class Step(nn.Module):
    """A model's step with its state as flat arguments."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model
        self.like = model.init_state(1)

    def forward(self, token: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        logits, state = self.model.step(token, unflatten(self.like, leaves))
        return (logits, *flatten(state))


def build_step(model: LanguageModel, info: ArtifactInfo) -> onnx.ModelProto:
    """Traces `model.step`. The batch axis of every input and output is dynamic."""
    step = Step(model).eval()
    leaves = flatten(model.init_state(TRACED_BATCH))
    example = (torch.zeros(TRACED_BATCH, dtype=torch.int64), *leaves)
    batch = torch.export.Dim("batch")
    inputs = [TOKEN, *info.state_names("in")]
    outputs = [LOGITS, *info.state_names("out")]
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                step,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=({0: batch}, tuple({0: batch} for _ in leaves)),
                verbose=False,
            )
    except Exception as error:  # the tracer's errors have no common type
        raise ZooError(
            f"the step of cell {info.model.cell!r} cannot be traced: {one_line(error)}"
        ) from error
    assert program is not None
    proto = program.model_proto
    _check_outputs(proto.graph)
    proto.ir_version = min(proto.ir_version, MAX_IR_VERSION)
    proto.producer_name, proto.producer_version = "recurrent-zoo", ""
    del proto.metadata_props[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return proto


def _check_outputs(graph: onnx.GraphProto) -> None:
    """Sees to it that every output has a node of its own.

    An input handed straight through, or one tensor handed out twice, has made ONNX Runtime return
    the wrong tensor (pytorch issue 167848); today's torch.onnx puts an Identity there.
    """
    computed = [name for node in graph.node for name in node.output]
    for output in graph.output:
        if computed.count(output.name) != 1:
            raise VerificationError(f"the traced output {output.name} has no node of its own")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the tracer's notes to its own developers from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
