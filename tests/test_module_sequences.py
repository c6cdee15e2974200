"""Modules over sequences: a file takes chunks of any length, and gives what PyTorch does, also for
the same sequence in other chunks. Lower precisions, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo.errors import UnknownNameError, UsageError, VerificationError, ZooError
from zoo_onnx import OverTime, export_sequence, export_step, trees
from zoo_ort import open_module

ROWS, STEPS = 6, 24
LENGTHS = (1, 2, 5, 40)


class Spotter(nn.Module):
    """Two outputs from an LSTM over frames."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, 2, batch_first=True, proj_size=5)
        self.word, self.energy = nn.Linear(5, 3), nn.Linear(5, 1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        y, state = self.lstm(x, state)
        return {"word": self.word(y), "energy": self.energy(y).squeeze(-1)}, state


class Carry(NamedTuple):
    level: Tensor
    steps: Tensor


class Smoother(nn.Module):
    """A step: a gated filter and a count in int64."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.gate = nn.GRUCell(3, 7), nn.Linear(7, 7)

    def forward(self, x: Tensor, rate: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        level = self.cell(x, carry.level)
        level = torch.sigmoid(self.gate(level)) * level + rate
        return level, Carry(level, carry.steps + 1)


class Strided(nn.Module):
    """Half as many frames as samples, with the samples that the next chunk needs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 4, stride=2)

    def forward(self, x: Tensor, buffer: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([buffer, x], -1)
        return self.conv(joined), joined[..., -2:]


class Conditioned(nn.Module):
    """Frames and one vector for the whole chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 8, bias=False)

    def forward(self, x: Tensor, speaker: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([x, speaker[:, None].expand(-1, x.shape[1], -1)], -1)
        y, h = self.gru(both.transpose(0, 1), h)
        return y.transpose(0, 1), h


def frames(*shape: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(ROWS, *shape)


CASES: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "lstm with two outputs": (
        Spotter,
        (frames(STEPS, 4),),
        (torch.zeros(2, ROWS, 5), torch.zeros(2, ROWS, 8)),
        {"batch_axis": 1},
    ),
    "a step over time": (
        lambda: OverTime(Smoother()),
        (frames(STEPS, 3), frames(STEPS, 1)),
        Carry(torch.zeros(ROWS, 7), torch.zeros(ROWS, dtype=torch.int64)),
        {"input_names": ["x", "rate"]},
    ),
    "a strided convolution": (
        Strided, (frames(2, STEPS),), torch.zeros(ROWS, 2, 2), {"time_axis": 2, "multiple_of": 2},
    ),
    "a vector beside the frames": (
        Conditioned,
        (frames(STEPS, 4), frames(2)),
        torch.zeros(1, ROWS, 8),
        {"time_axis": [1, None], "batch_axis": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_chunks_of_any_length_are_pytorchs(name: str) -> None:
    make, examples, state, settings = CASES[name]
    torch.manual_seed(0)
    module = make().eval()
    info = export_sequence(module, examples, state, "chunks.onnx", **settings)
    assert info.proof is not None
    stepper = open_module("chunks.onnx")
    times = settings.get("time_axis", 1)
    times = times if isinstance(times, list) else [times] * len(examples)
    axis = settings.get("batch_axis", 0)
    for batch in (1, 4):
        rng = np.random.default_rng(batch)
        leaves, form = trees.flatten(state, "the state")
        own = [leaf.narrow(axis, 0, 1).repeat_interleave(batch, axis) for leaf in leaves]
        carried = stepper.init_state(batch)
        for length in LENGTHS:
            inputs = [
                drawn(rng, x, batch, time, length * settings.get("multiple_of", 1))
                for x, time in zip(examples, times, strict=True)
            ]
            with torch.no_grad():
                wanted, after = module(*inputs, trees.unflatten(form, own))
            own, _ = trees.flatten(after, "the next state")
            feeds = {e.name: x.numpy() for e, x in zip(info.inputs, inputs, strict=True)}
            found, carried = stepper.step(feeds, carried)
            outputs, _ = trees.flatten(wanted, "the output")
            for entry, value in zip(info.outputs, outputs, strict=True):
                np.testing.assert_allclose(found[entry.name], value, rtol=1e-4, atol=1e-5)
            for leaf, value in zip(carried, own, strict=True):
                np.testing.assert_allclose(leaf, value.movedim(axis, 0), rtol=1e-4, atol=1e-5)


def drawn(
    rng: np.random.Generator, example: Tensor, batch: int, time: int | None, length: int
) -> Tensor:
    shape = [batch, *example.shape[1:]]
    if time is not None:
        shape[time] = length
    return torch.from_numpy(np.float32(rng.normal(size=shape)))


def test_steps_and_a_file_of_chunks_give_the_same() -> None:
    """40 steps, one by one by a file of a step, and as chunks of 16, 23 and 1."""
    torch.manual_seed(0)
    step, x = Smoother(), frames(40, 3)
    rate = 0.1 * frames(40, 1)
    state = Carry(torch.zeros(ROWS, 7), torch.zeros(ROWS, dtype=torch.int64))
    export_step(step, (x[:, 0], rate[:, 0]), state, "step.onnx")
    export_sequence(OverTime(step), (x, rate), state, "chunks.onnx")
    one, many = open_module("step.onnx"), open_module("chunks.onnx")
    wanted, carried = [], one.init_state(ROWS)
    for t in range(40):
        out, carried = one.step({"input_0": x[:, t], "input_1": rate[:, t]}, carried)
        wanted.append(out["output"])
    found, state_of_many = [], many.init_state(ROWS)
    for part in (slice(0, 16), slice(16, 39), slice(39, 40)):
        out, state_of_many = many.step({"input_0": x[:, part], "input_1": rate[:, part]},
                                       state_of_many)  # fmt: skip
        found.append(out["output"])
    np.testing.assert_allclose(np.concatenate(found, 1), np.stack(wanted, 1), rtol=1e-5, atol=1e-6)
    assert (state_of_many[1] == 40).all()


class Loop(nn.Module):
    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for t in range(x.shape[1]):
            h = 0.5 * h + x[:, t]
            outputs.append(h)
        return torch.stack(outputs, 1), h


class Peeks(nn.Module):
    """Looks at the next step, which the last of a chunk does not have."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        ahead = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)
        return x + ahead, h


@pytest.mark.parametrize(
    ("module", "settings", "error", "message"),
    [
        (Loop(), {}, ZooError, r"because of .*test_module_sequences\.py:\d+; .*zoo_onnx\.OverTime"),
        (Peeks(), {}, UsageError, r"Peeks depends on where a sequence is cut: output of 24 steps"),
        (nn.GRU(3, 3, batch_first=True, bidirectional=True), {"batch_axis": 1}, UsageError,
         r"GRU depends on where a sequence is cut"),
        (Loop(), {"time_axis": 3}, UsageError, r"has no time axis 3"),
        (Loop(), {"time_axis": 0}, UsageError, r"time_axis must be a number from 1"),
        (Loop(), {"time_axis": [1, 1]}, UsageError, r"one for each of the 1 inputs"),
        (Loop(), {"multiple_of": 0}, UsageError, r"multiple_of must be a number from 1"),
        (Loop(), {"multiple_of": 13}, UsageError, r"have 24 steps; .* at least 26"),
    ],
)  # fmt: skip
def test_what_is_no_module_over_sequences(
    module: nn.Module, settings: dict[str, Any], error: type[ZooError], message: str
) -> None:
    state = torch.zeros(2, ROWS, 3) if isinstance(module, nn.GRU) else torch.zeros(ROWS, 3)
    with pytest.raises(error, match=message) as caught:
        export_sequence(module, frames(STEPS, 3), state, "chunks.onnx", **settings)
    assert len(str(caught.value).splitlines()) <= 2
    assert list(Path().iterdir()) == []


def test_a_chunk_of_another_shape() -> None:
    export_sequence(OverTime(Leaky()), frames(STEPS, 3), torch.zeros(ROWS, 3), "chunks.onnx")
    stepper = open_module("chunks.onnx")
    with pytest.raises(UsageError, match=r"shape \(2, 5, 4\) instead of \(2, any, 3\)"):
        stepper.step({"input": np.zeros((2, 5, 4))}, stepper.init_state(2))


class Leaky(nn.Module):
    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = 0.5 * h + x
        return h, h


# lower precision


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.65), ("int8", 0.45)])
def test_a_lower_precision_is_smaller_and_says_what_it_costs(precision: str, share: float) -> None:
    torch.manual_seed(0)
    module, x, h = Policy(), torch.randn(ROWS, 32), torch.zeros(1, ROWS, 64)
    export_step(module, x, h, "full.onnx", batch_axis=1)
    info = export_step(module, x, h, "low.onnx", batch_axis=1, precision=precision)
    assert Path("low.onnx").stat().st_size < share * Path("full.onnx").stat().st_size
    assert (info.precision, open_module("low.onnx").info.precision) == (precision, precision)
    assert info.proof is not None
    assert info.proof.cost is not None
    measured = difference_of_files(module)
    assert 0 < info.proof.cost < 0.05
    assert 0.2 * measured < info.proof.cost < 5 * measured


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(32, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.gru(x[None], h)
        return self.head(y[0]), h


def difference_of_files(module: nn.Module) -> float:
    """Root mean square of what the low file's outputs differ by, relative to the full one's, over
    200 steps of other inputs."""
    rng = np.random.default_rng(5)
    full, low = open_module("full.onnx"), open_module("low.onnx")
    states = [full.init_state(4), low.init_state(4)]
    pairs = []
    for _ in range(200):
        feeds = {"input": np.float32(rng.normal(size=(4, 32)))}
        one, states[0] = full.step(feeds, states[0])
        other, states[1] = low.step(feeds, states[1])
        pairs.append((one["output"], other["output"]))
    wanted, found = (np.stack(side) for side in zip(*pairs, strict=True))
    return float(np.sqrt(np.mean((wanted - found) ** 2) / np.mean(wanted**2)))


def test_a_metric_judges_a_precision() -> None:
    """How often another action is chosen."""
    torch.manual_seed(0)
    seen: list[tuple[int, ...]] = []

    def other_actions(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> float:
        seen.append(wanted["output"].shape)
        return float((wanted["output"].argmax(-1) != found["output"].argmax(-1)).mean())

    given = Policy(), torch.randn(ROWS, 32), torch.zeros(1, ROWS, 64)
    info = export_step(*given, "low.onnx", batch_axis=1, precision="int8", metric=other_actions)
    assert info.proof is not None
    assert info.proof.cost is not None
    assert 0 <= info.proof.cost < 0.05
    assert seen == [(256, 5, 4)]
    with pytest.raises(VerificationError, match=r"costs 1 by the metric given .*max_cost") as error:
        export_step(*given, "x.onnx", batch_axis=1, precision="int8", metric=lambda a, b: 1.0)
    assert len(str(error.value).splitlines()) == 1
    assert not Path("x.onnx").exists()
    with pytest.raises(UnknownNameError, match="int8"):
        export_step(*given, "x.onnx", batch_axis=1, precision="int9")
