"""Tests that every registered cell must pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import zoo
from zoo.exporting.comparison import relative_difference
from zoo.exporting.export import Exported
from zoo.exporting.parity import TOLERANCE
from zoo.inference.runtime import Artifact
from zoo.models.torch_engine import ModelStepper
from zoo.registry.specs import STANDARD


@pytest.mark.slow
@pytest.mark.every_cell
@pytest.mark.timeout(900)
def test_a_trained_model_generates_the_same_text_after_export(
    name: str, trained: Callable[..., zoo.Run]
) -> None:
    """The model is trained and exported as all three graphs, each with its proof. 2,000 tokens,
    greedy and sampled, equal PyTorch's: `verify` raises for differences other than rounding ties,
    unless the model amplifies rounding. So they do in standard operators, if the fastest are
    others. onnx's reference evaluator, which shares no code with ONNX Runtime, runs the step."""
    run = trained(name, layers=2, epochs=1)
    exported = zoo.export_all(run)
    sets = [exported]
    if any(item.info.operators != STANDARD for item in exported):
        sets.append(zoo.export_all(run, out=run.path / STANDARD, operators=STANDARD))
    for items in sets:
        by_graph = {item.info.graph: item for item in items}
        assert list(by_graph) == ["step", "generate", "sequence"]
        for graph, item in by_graph.items():
            proof = item.info.proof
            # long sequences may differ by as much as this model amplifies rounding
            allowed = max(1e-5, 4 * proof.float64_gap) if graph == "sequence" else 1e-5
            assert proof.difference < allowed
        result = zoo.verify(by_graph["generate"].path, run, length=2000, seeds=1, temperature=1.0)
        assert len(result.texts) == 2
    assert by_graph["step"].info.operators == STANDARD
    assert_same_in_the_reference_evaluator(run, by_graph["step"], 20)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_exported_step_against_pytorch_and_the_reference_evaluator(
    name: str, layers: int, trained: Callable[..., zoo.Run]
) -> None:
    """256 steps in ONNX Runtime from the same states, and 50 in onnx's reference evaluator."""
    run = trained(name, layers=layers, epochs=1)
    exported = zoo.export(run)
    assert exported.info.proof.difference < 1e-5
    assert_same_in_the_reference_evaluator(run, exported, 50)


def assert_same_in_the_reference_evaluator(run: zoo.Run, exported: Exported, steps: int) -> None:
    onnx.checker.check_model(str(exported.path), full_check=True)
    stepper = ModelStepper(run.model)
    evaluator = ReferenceEvaluator(str(exported.path))
    state = stepper.init_state(2)
    names = exported.info.state_names("in")
    leaves = list(stepper.state_to_arrays(state).values())
    rng = np.random.default_rng(0)
    for _ in range(steps):
        tokens = rng.integers(0, stepper.vocab_size, 2)
        wanted, state = stepper.step(tokens, state)
        found, *leaves = evaluator.run(
            None, {"token": tokens, **dict(zip(names, leaves, strict=True))}
        )
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("name", ["lstm", pytest.param("retnet", marks=pytest.mark.slow)])
def test_exported_step_opens_at_every_batch_size(
    name: str, batch_size: int, trained: Callable[..., zoo.Run]
) -> None:
    run = trained(name, layers=3, epochs=1)
    artifact = zoo.open_source(zoo.export(run).path)
    assert isinstance(artifact, Artifact)
    reference = ModelStepper(run.model)
    tokens = np.arange(batch_size) % reference.vocab_size
    state, found_state = reference.init_state(batch_size), artifact.engine.init_state(batch_size)
    for _ in range(5):
        wanted, state = reference.step(tokens, state)
        found, found_state = artifact.engine.step(tokens, found_state)
        assert relative_difference(wanted, found) <= TOLERANCE
        tokens = (tokens * 3 + 1) % reference.vocab_size
