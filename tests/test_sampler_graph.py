"""The sampler inside `generate` by itself, in ONNX Runtime: equal logits give equal tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from zoo.config import Sampling
from zoo.inference.sampling import choose
from zoo_onnx.sampler import choice_graph, settings_graph
from zoo_onnx.versions import OPSET, declare_oldest

STEPS, TRIALS = 20, 60
Floats = npt.NDArray[np.float32]


def sampler(vocab_size: int) -> onnxruntime.InferenceSession:
    """Chooses tokens [steps, batch] from `all_logits` [steps, batch, vocab_size]. The Scan needs a
    state; nothing uses it."""
    settings, choice = settings_graph(vocab_size), choice_graph()
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [*choice.node, helper.make_node("Identity", ["unread"], ["unread_again"])],
        "one_token",
        [value("unread", TensorProto.FLOAT, ["batch"]), *choice.input],
        [value("unread_again", TensorProto.FLOAT, ["batch"]), *choice.output],
    )
    scan = helper.make_node(
        "Scan",
        ["temperature", "all_logits", "draws"],
        ["end", "tokens"],
        body=body,
        num_scan_inputs=2,
    )
    graph = helper.make_graph(
        [*settings.node, scan],
        "sampler",
        [value("all_logits", TensorProto.FLOAT, ["steps", "batch", vocab_size]), *settings.input],
        [value("tokens", TensorProto.INT64, ["steps", "batch"])],
        [*settings.initializer, *choice.initializer],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    declare_oldest(model)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 19
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def draw_logits(rng: np.random.Generator, trial: int, batch: int, vocab_size: int) -> Floats:
    """Of any size, with ties, all equal, hardly different, or partly impossible."""
    logits = rng.normal(size=(STEPS, batch, vocab_size)) * 10.0 ** rng.integers(-6, 3)
    if trial % 3 == 0:
        logits = np.round(rng.normal(size=logits.shape) * 2)
    if trial % 7 == 0:
        logits = np.zeros_like(logits)
    if trial % 11 == 0:
        logits = logits * 1e-30
    if trial % 13 == 0:
        logits[rng.random(logits.shape) < 0.3] = -np.inf
        logits[..., 0] = 0
    return logits.astype(np.float32)


@pytest.mark.parametrize("vocab_size", [2, 31])
def test_rows_get_the_tokens_that_they_get_alone(vocab_size: int) -> None:
    """Rows of a batch have unlike settings, or all the same."""
    session, rng = sampler(vocab_size), np.random.default_rng(0)
    for trial in range(TRIALS):
        batch = int(rng.integers(1, 6))
        each = [
            Sampling(
                temperature=float(rng.choice([0, 1, 0.7, 2, 1e-3])),
                top_k=int(rng.choice([0, 1, 5, vocab_size - 1, vocab_size, vocab_size + 3])),
                top_p=float(rng.choice([1, 0.9, 0.5, 0.01, 1e-6])),
            )
            for _ in range(batch)
        ]
        if trial % 5 == 0:
            each = each[:1] * batch
        logits = draw_logits(rng, trial, batch, vocab_size)
        uniform = rng.random((STEPS, batch), dtype=np.float32)
        feeds = {
            "all_logits": logits,
            "uniform": uniform,
            "temperature": np.array([own.temperature for own in each], np.float32),
            "top_k": np.array([own.top_k for own in each]),
            "top_p": np.array([own.top_p for own in each], np.float32),
        }
        (found,) = session.run(["tokens"], feeds)
        wanted = [
            [int(choose(row[None], u[None], own)[0]) for row, u, own in zip(*step, strict=True)]
            for step in zip(logits, uniform, [each] * STEPS, strict=True)
        ]
        assert found.tolist() == wanted


def test_the_ends_of_the_uniform_numbers() -> None:
    """At 0 the first token that is possible at all is drawn, and at the largest number below 1 the
    last; a number that a cumulative probability equals is not passed."""
    uniform = np.array([[0.0], [1 - 2**-24], [0.25], [0.5], [2.0**-24], [1e-40]], np.float32)
    logits = np.full((len(uniform), 1, 6), -np.inf, np.float32)
    logits[:, :, 1:5] = 0  # the cumulative probabilities are 0, 1/4, 1/2, 3/4, 1 and 1
    feeds = {
        "all_logits": logits,
        "uniform": uniform,
        "temperature": np.ones(1, np.float32),
        "top_k": np.zeros(1, np.int64),
        "top_p": np.ones(1, np.float32),
    }
    (found,) = sampler(6).run(["tokens"], feeds)
    assert found[:, 0].tolist() == [1, 4, 2, 3, 1, 1]
    rng = np.random.default_rng(0)
    drawn = rng.random(1000, dtype=np.float32) * 2.0 ** rng.integers(-140, 1, 1000)
    drawn = np.concatenate([drawn, 2.0 ** -np.arange(1, 150), [0]]).astype(np.float32)
    settings = ReferenceEvaluator(helper.make_model(settings_graph(6)))
    del feeds["all_logits"]
    (draws, *_) = settings.run(None, {**feeds, "uniform": drawn[:, None]})
    assert draws.ravel().tolist() == np.nextafter(drawn.astype(np.float64), 2).tolist()
