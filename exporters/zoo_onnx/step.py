"""step.onnx: the trace of one whole step, from tokens and states to logits and states."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor, nn

from zoo.errors import NoStepError
from zoo.inference.artifact import LOGITS, TOKEN, ArtifactInfo
from zoo.models.language_model import LanguageModel
from zoo.nn.state import flatten, unflatten
from zoo_onnx.tools import Tools
from zoo_onnx.tracing import BATCH, TRACED_BATCH, trace


class Step(nn.Module):
    """A model's step with its state as flat arguments."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model
        self.template = model.init_state(1)

    def forward(self, token: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        logits, state = self.model.step(token, unflatten(self.template, leaves))
        # each output gets its own node, even a tensor that is two leaves
        return (logits, *(leaf.clone() for leaf in flatten(state)))


def trace_step(model: LanguageModel, info: ArtifactInfo, fused: bool) -> ir.Model:
    """The graph, with the batch axis of every input and output dynamic; with fused operators where
    they can be had, if `fused`."""
    if not model.causal:
        raise NoStepError(f"cell {info.model.cell!r}")
    leaves = flatten(model.init_state(TRACED_BATCH))
    return trace(
        Step(model),
        (torch.zeros(TRACED_BATCH, dtype=torch.int64), *leaves),
        [TOKEN, *info.state_names("in")],
        [LOGITS, *info.state_names("out")],
        ({0: BATCH}, tuple({0: BATCH} for _ in leaves)),
        f"the step of cell {info.model.cell!r}",
        Tools(fused),
    )
