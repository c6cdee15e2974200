"""The recurrences of `zoo.nn` in exported graphs, against loops over the equations in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from zoo.nn import Complex, convolve, delta_scan, linear_scan, matrix_scan, selective_scan
from zoo_onnx.scans import Scans
from zoo_onnx.tools import HEAD_STEPS, SMALL_STEP, STEPS, Tools
from zoo_onnx.tracing import BATCH, TIME, trace
from zoo_ort.fused import FUSED_DOMAIN, has_fused_operators

HEADS, KEYS, VALUES, FEATURES, TAPS = 2, 3, 4, 5, 4
LENGTHS = (
    1,
    2,
    HEAD_STEPS - 1,
    HEAD_STEPS,
    HEAD_STEPS + 1,
    65,
    STEPS - 1,
    STEPS,
    STEPS + 1,
    2 * STEPS + 1,
)
ROWS = (1, 3, SMALL_STEP // FEATURES + 1)  # the last has too many for pieces
Arrays = dict[str, np.ndarray]


class Case(nn.Module):
    """A tool on inputs [T, B, …] and states [B, …], each by its shape without those axes. `compute`
    takes them in their order; `by_hand` takes the inputs of one step by name, and the states, and
    gives the output and the next states."""

    def __init__(
        self,
        compute: Callable[..., Any],
        by_hand: Callable[[Arrays, list[np.ndarray]], tuple[list[np.ndarray], list[np.ndarray]]],
        inputs: dict[str, tuple[int, ...]],
        states: tuple[tuple[int, ...], ...],
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.compute, self.by_hand = compute, by_hand
        self.inputs, self.states, self.outputs = inputs, states, outputs
        self.mode: Tools | None = None

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        assert self.mode is not None
        with self.mode:
            found = self.compute(*values)
        return tuple(value.clone() for value in found)


def matrix_step(given: Arrays, states: list[np.ndarray]) -> Any:
    (S,) = states
    after = S if "log_w" not in given else np.exp(given["log_w"])[..., None] * S
    if "a" in given:
        found = np.einsum("bnk,bnkv->bnv", given["a"], S)
        after = after + np.einsum("bnk,bnv->bnkv", given["b"], found)
    after = after + np.einsum("bnk,bnv->bnkv", given["k"], given["v"])
    return [np.einsum("bnk,bnkv->bnv", given["q"], after)], [after]


def delta_step(given: Arrays, states: list[np.ndarray]) -> Any:
    (S,) = states
    if "log_w" in given:
        S = np.exp(given["log_w"])[..., None] * S
    held = np.einsum("bnk,bnkv->bnv", given["k"], S)
    change = given["beta"][..., None] * (given["v"] - held)
    after = S + np.einsum("bnk,bnv->bnkv", given["k"], change)
    return [np.einsum("bnk,bnkv->bnv", given["q"], after)], [after]


def convolve_step(given: Arrays, states: list[np.ndarray]) -> Any:
    window = np.concatenate((states[0], given["x"][:, None]), 1)
    return [np.einsum("kd,bkd->bd", WEIGHT, window) + BIAS], [window[:, 1:]]


rng = np.random.default_rng(0)
WEIGHT, BIAS = rng.standard_normal((TAPS, FEATURES)), rng.standard_normal(FEATURES)
POLE = 0.9 * np.exp(1j * rng.uniform(0, 3, FEATURES))
RATES = -np.arange(1.0, KEYS + 1) * np.ones((FEATURES, 1))
FREQUENCIES = rng.uniform(-3, 3, (FEATURES, KEYS))
QKV = {"q": (HEADS, KEYS), "k": (HEADS, KEYS), "v": (HEADS, VALUES)}
STATE = ((HEADS, KEYS, VALUES),)


def matrix(*more: str) -> Callable[..., Any]:
    def compute(state: Tensor, *given: Tensor) -> Any:
        named = dict(zip((*QKV, *more), given, strict=True))
        return matrix_scan(
            named["q"], named["k"], named["v"], named.get("log_w"), state,
            named.get("a"), named.get("b"),
        )  # fmt: skip

    return compute


def delta(*more: str) -> Callable[..., Any]:
    def compute(state: Tensor, *given: Tensor) -> Any:
        named = dict(zip((*QKV, *more), given, strict=True))
        return delta_scan(
            named["q"], named["k"], named["v"], named["beta"], named.get("log_w"), state
        )

    return compute


def linear(state: Tensor, a: Tensor, b: Tensor) -> Any:
    h = linear_scan(a, b, state)
    return h, h[-1]


def linear_step(given: Arrays, states: list[np.ndarray]) -> Any:
    h = given["a"] * states[0] + given["b"]
    return [h], [h]


def complex_linear(re: Tensor, im: Tensor, b_re: Tensor, b_im: Tensor) -> Any:
    pole = Complex(*(torch.tensor(part, dtype=re.dtype) for part in (POLE.real, POLE.imag)))
    h = linear_scan(pole, Complex(b_re, b_im), Complex(re, im))
    return h.re, h.im, h.re[-1], h.im[-1]


def complex_step(given: Arrays, states: list[np.ndarray]) -> Any:
    h = POLE * (states[0] + 1j * states[1]) + given["b_re"] + 1j * given["b_im"]
    return [h.real, h.imag], [h.real, h.imag]


def convolution(window: Tensor, x: Tensor) -> Any:
    weight, bias = (torch.tensor(value, dtype=x.dtype) for value in (WEIGHT, BIAS))
    return convolve(x, window, weight, bias)


def selective(state: Tensor, delta: Tensor, u: Tensor, B: Tensor, C: Tensor) -> Any:
    return selective_scan(delta, u, torch.tensor(RATES, dtype=u.dtype), B, C, state)


def selective_step(given: Arrays, states: list[np.ndarray]) -> Any:
    delta, u = given["delta"][..., None], given["u"][..., None]
    h = np.exp(delta * RATES) * states[0] + delta * u * given["B"][:, None]
    return [np.einsum("bdn,bn->bd", h, given["C"])], [h]


def complex_selective(re: Tensor, im: Tensor, delta: Tensor, u: Tensor, *given: Tensor) -> Any:
    A = Complex(*(torch.tensor(part, dtype=u.dtype) for part in (RATES, FREQUENCIES)))
    B, C = Complex(*given[:2]), Complex(*given[2:])
    y, h = selective_scan(delta, u, A, B, C, Complex(re, im))
    return y, h.re, h.im


def complex_selective_step(given: Arrays, states: list[np.ndarray]) -> Any:
    delta, u = given["delta"][..., None], given["u"][..., None]
    B, C = (given[f"{name}_re"] + 1j * given[f"{name}_im"] for name in "BC")
    h = np.exp(delta * (RATES + 1j * FREQUENCIES)) * (states[0] + 1j * states[1])
    h = h + delta * u * B[:, None]
    return [np.einsum("bdn,bn->bd", h, C).real], [h.real, h.imag]


BY_HEAD, BY_KEY = {"log_w": (HEADS, 1)}, {"log_w": (HEADS, KEYS)}
RANK_ONE = {"a": (HEADS, KEYS), "b": (HEADS, KEYS)}
BETA = {"beta": (HEADS,)}
CASES = {
    "matrix": (matrix(), matrix_step, QKV, STATE),
    "matrix, a decay by head": (matrix("log_w"), matrix_step, QKV | BY_HEAD, STATE),
    "matrix, a decay by key": (matrix("log_w"), matrix_step, QKV | BY_KEY, STATE),
    "matrix of rank one": (
        matrix("log_w", "a", "b"), matrix_step, QKV | BY_KEY | RANK_ONE, STATE,
    ),
    "delta rule": (delta("beta"), delta_step, QKV | BETA, STATE),
    "gated delta rule": (delta("beta", "log_w"), delta_step, QKV | BETA | BY_HEAD, STATE),
    "linear": (linear, linear_step, {"a": (FEATURES,), "b": (FEATURES,)}, ((FEATURES,),)),
    "linear, complex": (
        complex_linear, complex_step, {"b_re": (FEATURES,), "b_im": (FEATURES,)},
        ((FEATURES,), (FEATURES,)), 2,
    ),
    "selective": (
        selective, selective_step,
        {"delta": (FEATURES,), "u": (FEATURES,), "B": (KEYS,), "C": (KEYS,)},
        ((FEATURES, KEYS),),
    ),
    "selective, complex": (
        complex_selective, complex_selective_step,
        {"delta": (FEATURES,), "u": (FEATURES,),
         "B_re": (KEYS,), "B_im": (KEYS,), "C_re": (KEYS,), "C_im": (KEYS,)},
        ((FEATURES, KEYS), (FEATURES, KEYS)),
    ),
    "convolution": (convolution, convolve_step, {"x": (FEATURES,)}, ((TAPS - 1, FEATURES),)),
}  # fmt: skip
FUSED = {name for name in CASES if name.startswith(("matrix", "delta", "gated"))}
FUSED -= {"matrix of rank one"}


def drawn(case: Case, rows: int, length: int) -> tuple[list[np.ndarray], Arrays]:
    """States and inputs; keys have the length 1, decays and rates are in (0, 1), β in (0, 2)."""
    values = np.random.default_rng(length)
    states = [values.standard_normal((rows, *shape)) for shape in case.states]
    given = {
        name: values.standard_normal((length, rows, *shape)) for name, shape in case.inputs.items()
    }
    if "k" in given:
        given["k"] /= np.linalg.norm(given["k"], axis=-1, keepdims=True)
    for name in given.keys() & {"a", "beta", "delta"}:
        given[name] = 1 / (1 + np.exp(-given[name]))
    if "beta" in given:  # some transitions have an eigenvalue below 0
        given["beta"] *= 2
    if "log_w" in given:
        given["log_w"] = -np.abs(given["log_w"]) / 5
    if "a" in given and "b" in given and "k" in given:
        given["a"] = given["k"]
        given["b"] = -0.5 * given["k"]
    single = {name: array.astype(np.float32) for name, array in given.items()}
    return [state.astype(np.float32) for state in states], single


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("operators", ["standard", "fused"])
@pytest.mark.parametrize("provider", ["CPU", pytest.param("CUDA", marks=pytest.mark.gpu)])
def test_an_exported_recurrence_is_its_equation(name: str, operators: str, provider: str) -> None:
    fused = operators == "fused"
    if fused and (name not in FUSED or not has_fused_operators()):
        pytest.skip("it has no fused operator")
    case = Case(*CASES[name])
    scans = Scans()
    case.mode = Tools(fused, scans)
    states, given = drawn(case, 3, 4)
    names = [f"s{index}" for index in range(len(states))]
    leaves = [*map(torch.from_numpy, (*states, *given.values()))]
    outputs = [f"y{index}" for index in range(case.outputs)]
    axes = (*({0: BATCH} for _ in states), *({0: TIME, 1: BATCH} for _ in given))
    model = trace(
        case,
        tuple(leaves),
        [*names, *given],
        [*outputs, *(f"{n}_out" for n in names)],
        (axes,),
        name,
    )
    scans.expand(model, name)
    used = {node.domain for node in model.graph.all_nodes()}
    assert (FUSED_DOMAIN in used) == fused
    options = {"use_tf32": "0"} if provider == "CUDA" else {}
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(),
        providers=[(f"{provider}ExecutionProvider", options)],
    )
    if f"{provider}ExecutionProvider" not in session.get_providers():
        pytest.skip(f"{provider} does not run in ONNX Runtime")
    for length in LENGTHS:
        for rows in ROWS:
            states, given = drawn(case, rows, length)
            found = session.run(None, {**dict(zip(names, states, strict=True)), **given})
            wanted = by_hand(case, states, given)
            for value, exact in zip(found, wanted, strict=True):
                scale = max(1.0, np.abs(exact).max())
                np.testing.assert_allclose(value / scale, exact / scale, rtol=0, atol=5e-6)


def by_hand(case: Case, states: list[np.ndarray], given: Arrays) -> list[np.ndarray]:
    """The outputs of all steps and the last states, in float64."""
    after = [state.astype(np.float64) for state in states]
    steps = []
    for now in range(len(next(iter(given.values())))):
        inputs = {name: array[now].astype(np.float64) for name, array in given.items()}
        found, after = case.by_hand(inputs, after)
        steps.append(found)
    return [*(np.stack(parts) for parts in zip(*steps, strict=True)), *after]
