"""step.onnx: the trace of one whole step, from tokens and states to logits and states."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor, nn

from zoo.config import Interface
from zoo.errors import NoStepError
from zoo.inference.artifact import ArtifactInfo
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


def example_inputs(info: ArtifactInfo, *shape: int) -> Tensor:
    """Tokens, or features, of this shape: all zero."""
    if info.ends.reads == "tokens":
        return torch.zeros(shape, dtype=torch.int64)
    return torch.zeros(*shape, info.ends.inputs)


def random_inputs(
    interface: Interface, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Tokens, or features, of this shape: of any value that the model reads."""
    if interface.reads == "tokens":
        return torch.randint(interface.inputs, shape, generator=generator)
    return torch.randn(*shape, interface.inputs, generator=generator)


def trace_step(model: LanguageModel, info: ArtifactInfo, fused: bool) -> ir.Model:
    """The graph, with the batch axis of every input and output dynamic; with fused operators where
    they can be had, if `fused`."""
    if not model.causal:
        raise NoStepError(f"cell {info.model.cell!r}")
    leaves = flatten(model.init_state(TRACED_BATCH))
    return trace(
        Step(model),
        (example_inputs(info, TRACED_BATCH), *leaves),
        [info.input_name, *info.state_names("in")],
        [info.output_name, *info.state_names("out")],
        ({0: BATCH}, tuple({0: BATCH} for _ in leaves)),
        f"the step of cell {info.model.cell!r}",
        Tools(fused),
    )
