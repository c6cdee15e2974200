"""Operators that a file may have: bounded ones in any file, all others in one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ArtifactError, UsageError
from zoo_onnx import export_step
from zoo_onnx.exporter import seal
from zoo_ort import open_module


class Pooled(nn.Module):
    """Pooling, resizing and transposed convolution beside a state, as a denoiser has them."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv1d(2, 4, 3, padding=1), nn.ConvTranspose1d(4, 2, 4, stride=2)

    def forward(self, x: Tensor, state: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        y = F.max_pool1d(torch.relu(self.down(x)), 2) + 0.2 * F.avg_pool1d(state, 2)
        resized = F.interpolate(y, scale_factor=2.0, mode="nearest")
        shuffled = F.pixel_shuffle(y[..., None].expand(-1, -1, -1, 4), 2)
        return (self.up(y), shuffled, F.lp_pool1d(x, 2.0, 4)), 0.5 * state + resized


class Folds(nn.Module):
    """Adds overlapping patches by an operator outside the list."""

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return F.fold(x, (4, 4), 2), state + 1


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pooled") / "pooled.onnx"
    torch.manual_seed(0)
    export_step(Pooled(), torch.randn(5, 2, 8), torch.zeros(5, 4, 8), path)
    return path


def test_bounded_operators_need_no_trust(pooled: Path) -> None:
    used = {node.op_type for node in onnx.load(pooled).graph.node}
    assert used >= {"MaxPool", "AveragePool", "Resize", "ConvTranspose"}
    stepper = open_module(pooled)
    torch.manual_seed(0)
    module, rng = Pooled(), np.random.default_rng(3)
    state, own = stepper.init_state(3), torch.zeros(3, 4, 8)
    for _ in range(20):
        x = np.float32(rng.normal(size=(3, 2, 8)))
        found, state = stepper.step({"input": x}, state)
        with torch.no_grad():
            wanted, own = module(torch.from_numpy(x), own)
        for entry, value in zip(stepper.info.outputs, wanted, strict=True):
            np.testing.assert_allclose(found[entry.name], value, rtol=1e-4, atol=1e-5)


def test_other_operators_need_trust() -> None:
    export_step(Folds(), torch.randn(4, 8, 9), torch.zeros(4, 1), "folds.onnx")
    with pytest.raises(
        ArtifactError, match=r"uses the operator 'Col2Im', .* your own, open it with trust="
    ):
        open_module("folds.onnx")
    assert open_module("folds.onnx", trust="operators").init_state(2)[0].shape == (2, 1)
    with pytest.raises(UsageError, match="trust"):
        open_module("folds.onnx", trust="all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("op", "attribute", "value", "message"),
    [
        ("ConvTranspose", "strides", [65535], "asks ConvTranspose for an output 4,096 times"),
        ("ConvTranspose", "strides", [0], "'strides' that is out of range"),
        ("ConvTranspose", "output_padding", [-1], "'output_padding' that is out of range"),
        ("MaxPool", "kernel_shape", [0], "'kernel_shape' that is out of range"),
        ("AveragePool", "pads", [-5, 0], "'pads' that is out of range"),
        ("DepthToSpace", "blocksize", 0, "'blocksize' that is out of range"),
    ],
)
def test_their_numbers_are_checked(
    pooled: Path, op: str, attribute: str, value: list[int] | int, message: str
) -> None:
    model = ir.load(pooled)
    nodes = [node for node in model.graph if node.op_type == op]
    if not nodes:  # torch.onnx may write it as others
        nodes = [ir.node(op, [model.graph.inputs[0]], name="extra")]
        nodes[0].outputs[0].name = "extra"
        model.graph.append(nodes[0])
    is_list = isinstance(value, list)
    nodes[0].attributes[attribute] = (
        ir.AttrInt64s(attribute, value) if is_list else ir.AttrInt64(attribute, value)
    )
    refuse(model, pooled, message)


def test_a_resize_that_is_too_large(pooled: Path) -> None:
    model = ir.load(pooled)
    (resize,) = (node for node in model.graph if node.op_type == "Resize")
    scales = resize.inputs[2]
    assert scales is not None
    scales.const_value = ir.tensor(np.float32([1, 1, 1e9]))
    refuse(model, pooled, "asks Resize for an output 4,096 times as large")


def refuse(model: ir.Model, original: Path, message: str) -> None:
    """The model with the metadata of the original is not opened."""
    model.metadata_props.clear()
    content = seal(ir.to_proto(model).SerializeToString(), open_module(original).info)
    Path("changed.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        open_module("changed.onnx")
