"""Modules as engineers build them: each is exported and right on inputs that it was not exported
with, or refused for the reason that it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zoo.errors import ZooError
from zoo_onnx import export_step, trees
from zoo_ort import open_module

from .modules.all_cases import CASES
from .modules.case import Made

STEPS, BATCH_SIZES = 1000, (1, 3, 16)
BY_NAME = {case.name: case for case in CASES}
QUICK = ("make_lstm_policy_with_two_heads", "make_hidden_count", "make_rows_minus_their_mean")
SLOW = pytest.mark.slow, pytest.mark.rotates("name", list(BY_NAME))


def test_there_are_cases_of_every_kind() -> None:
    assert len(BY_NAME) == len(CASES) >= 80


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else SLOW) for name in BY_NAME]
)
def test_it_is_right_or_refused(name: str) -> None:
    case = BY_NAME[name]
    torch.manual_seed(0)
    made = case.make()
    given = made.inputs if len(made.inputs) != 1 else made.inputs[0]
    if case.refused:
        with pytest.raises(ZooError, match=case.refused) as caught:
            export_step(made.module, given, made.state, "step.onnx", **made.settings)
        assert len(str(caught.value).splitlines()) <= 2
        assert len(str(caught.value)) < 700
        assert list(Path().iterdir()) == []
        return
    before = remembered(made)
    export_step(made.module, given, made.state, "step.onnx", **made.settings)
    assert remembered(made) == before
    follow(case.make(), BATCH_SIZES)


def remembered(made: Made) -> list[Any]:
    """What must be as it was: examples, state, weights, buffers, mode and random numbers."""
    leaves, _ = trees.flatten(made.state, "the state")
    tensors = [*made.inputs, *leaves, *made.module.parameters(), *made.module.buffers()]
    modes = [part.training for part in made.module.modules()]
    return [*(value.detach().numpy().tobytes() for value in tensors), modes,
            torch.get_rng_state().numpy().tobytes()]  # fmt: skip


def follow(made: Made, batch_sizes: tuple[int, ...]) -> None:
    """1,000 steps of the file, each side with its own state, on fresh inputs; where the module
    amplifies rounding, the file gets the module's state at each step."""
    module = getattr(made.module, "_orig_mod", made.module).eval()
    stepper = open_module("step.onnx", trust="operators")
    names = [entry.name for entry in stepper.info.inputs]
    outputs = [entry.name for entry in stepper.info.outputs]
    axes = axes_of(module, made)
    for batch in batch_sizes:
        rng = np.random.default_rng(batch)
        leaves, form = trees.flatten(made.state, "the state")
        state = [
            leaf.detach().narrow(axis, 0, 1).repeat_interleave(batch, axis)
            for leaf, axis in zip(leaves, axes, strict=True)
        ]
        found = stepper.init_state(batch)
        for step in range(STEPS):
            drawn = made.fresh(rng, batch)
            if not made.double:
                found = tuple(
                    leaf.movedim(axis, 0).contiguous().numpy()
                    for leaf, axis in zip(state, axes, strict=True)
                )
            with torch.no_grad():
                copies = [leaf.clone() for leaf in state]
                output, after = module(
                    *(value.clone() for value in drawn), trees.unflatten(form, copies)
                )
            state, _ = trees.flatten(trees.in_order(after, form), "the next state")
            wanted, _ = trees.flatten(output, "the output")
            axis = 1 if isinstance(module, nn.RNNBase) and not module.batch_first else 0
            feeds = {
                name: value.movedim(axis, 0).contiguous().numpy()
                for name, value in zip(names, drawn, strict=True)
            }
            results, found = stepper.step(feeds, found)
            where = f"{names} at step {step}, batch size {batch}"
            for name, value in zip(outputs, wanted, strict=True):
                require_near(results[name], value.movedim(axis, 0), f"{name} {where}")
            for leaf, value, own in zip(found, state, axes, strict=True):
                require_near(leaf, value.movedim(own, 0), f"state {where}")


def axes_of(module: nn.Module, made: Made) -> list[int]:
    count = len(trees.flatten(made.state, "the state")[0])
    given = made.settings.get("batch_axis", 1 if isinstance(module, nn.RNNBase) else 0)
    return [given] * count if isinstance(given, int) else pytree.tree_leaves(given)


def require_near(found: np.ndarray, wanted: Tensor, where: str) -> None:
    expected = wanted.detach().numpy()
    assert found.dtype == expected.dtype, where
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected, where)
        return
    tolerance = 2e-2 if expected.dtype == np.float16 else 1e-3
    scale = np.abs(expected[np.isfinite(expected)], dtype=np.float64).max(initial=1e-3)
    floor = tolerance * min(scale, 1.0)
    np.testing.assert_allclose(found, expected, tolerance, floor, err_msg=where)
