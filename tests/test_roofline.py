"""Rooflines: what a model must do, what a machine allows it, and the probes that measure that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import zoo
from zoo.benchmarking.benchmark import Row
from zoo.benchmarking.probes import COLUMNS, PACKED, ROWS, find_probes, multiplying, reading
from zoo.benchmarking.roofline import Limits, Target, Work
from zoo.benchmarking.roofline_plot import draw_roofline
from zoo.benchmarking.work import find_work
from zoo.config import ModelConfig
from zoo.errors import UsageError
from zoo.registry.registry import Registry

H, V, E = 24, 28, 10
ONE = Target("cpu", 1)


@pytest.mark.parametrize(
    ("cell", "settings", "numbers", "state", "shape"),
    [
        ("lstm", {}, 4 * H * H + H * V, 2 * H, (H, 4 * H)),
        ("lstm-scratch", {}, 4 * H * H + H * V, 2 * H, (H, V)),
        ("gru", {}, 3 * H * H + H * V, H, (H, 3 * H)),
        ("rnn-scratch", {}, H * H + H * V, H, (H, V)),
        ("lstm", {"layers": 2}, (1 + 2) * 4 * H * H + H * V, 4 * H, (H, 4 * H)),
        ("gru", {"embedding": E}, 3 * H * E + 3 * H * H + H * V, H, (H, 3 * H)),
        (
            "bidirectional",
            {"options": {"cell": "lstm"}, "mask_token": True},
            2 * 4 * H * H + 2 * H * V,
            4 * H,
            (H, 4 * H),
        ),
    ],
)
def test_the_work_of_a_token_by_hand(
    cell: str, settings: dict[str, object], numbers: int, state: int, shape: tuple[int, int]
) -> None:
    """Each weight is read once and multiplied once. The product of a one-hot token with the input
    weights is a lookup, and costs nothing."""
    config = ModelConfig(cell=cell, hidden=H, **settings)
    work = find_work(config, V, zoo.load_registry())
    assert work == Work(numbers, numbers, 4 * state, shape)


def test_a_matrix_state_is_no_weight() -> None:
    """GLA's query reads the state of each row by a product: multiply-adds, but of no weights. All
    that depends on the token alone is looked up, and the output matrix and the head remain."""
    units, heads = 64, 4
    keys = units // 2
    work = find_work(ModelConfig(cell="gla", hidden=units), V, zoo.load_registry())
    weights, state = units * units + units * V, heads * (keys // heads) * (units // heads)
    assert work == Work(weights + state, weights, 4 * state, (units, units))


def test_the_work_of_a_cell_that_is_not_installed_is_unknown() -> None:
    assert find_work(ModelConfig(cell="lstm"), V, Registry()) is None


def test_the_roofline_by_hand() -> None:
    """1,000 weights, 50 bytes of state; 8 GB/s and 10 billion multiply-adds a second. At batch 1 in
    float32 a token moves 4,000 bytes of weights and 100 of state, at batch 10 400 and 100."""
    work = Work(multiply_adds=1000, weights=1000, state_bytes=50, shape=(10, 100))
    limits = Limits(ONE, "fp32", 4000, bytes_per_second=8.2e9, multiply_adds_per_second=1e10)
    assert work.bytes_per_token("fp32", 1) == 4100
    assert work.operations_per_byte("fp32", 1) == pytest.approx(2000 / 4100)
    assert limits.tokens_per_second(work, 1) == (pytest.approx(2e6), "memory")
    assert work.bytes_per_token("fp32", 10) == 500
    assert limits.tokens_per_second(work, 10) == (pytest.approx(1e7), "arithmetic")
    assert work.bytes_per_token("int8", 1) == 1100
    assert work.bytes_per_token("fp16", 4) == 600
    # 64 tokens at once move the weights and the state once
    assert work.bytes_per_token("fp32", 1, 64) == pytest.approx(64.0625)
    assert limits.tokens_per_second(work, 1, 64) == (pytest.approx(1e7), "arithmetic")
    # the roof: 8.2 GB/s up to 20 GFLOP/s, which they meet at 2.44 operations per byte
    assert limits.operations_per_second(1.0) == pytest.approx(8.2e9)
    assert limits.operations_per_second(2.4) == pytest.approx(19.68e9)
    assert limits.operations_per_second(2.5) == limits.operations_per_second(1e6) == 2e10


def test_the_roof_is_the_limit_of_every_batch_size() -> None:
    """The roof's height, from operations per byte, is the limit in tokens, by another way."""
    work = Work(multiply_adds=1100, weights=1000, state_bytes=400, shape=(10, 100))
    limits = Limits(ONE, "int8", 1000, bytes_per_second=5e9, multiply_adds_per_second=9e9)
    for batch in (1, 2, 16, 1000):
        roof = limits.operations_per_second(work.operations_per_byte("int8", batch))
        allowed, _ = limits.tokens_per_second(work, batch)
        assert allowed * 2 * 1100 == pytest.approx(roof)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [4, 1000, 300_000, 50_000_000])
def test_reading_counts_what_it_reads(size: int, threads: int) -> None:
    """All of it but what does not divide by the threads, a whole number of times."""
    part = max(1, size // (4 * threads)) * 4 * threads
    assert part > size - 4 * threads
    read = reading(size, threads, torch.device("cpu"))()
    assert read % part == 0
    assert part <= read <= max(part, 2**24)


@pytest.mark.parametrize(
    ("precision", "layout"),
    [("fp32", ROWS), ("fp32", COLUMNS), ("fp32", PACKED), ("int8", ROWS), ("int8", COLUMNS)],
)
def test_products_are_counted(precision: str, layout: str) -> None:
    if layout == PACKED and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    run = multiplying(3, 16, 40, precision, layout, torch.device("cpu"))
    assert run() == 3 * 16 * 40


def test_limits_are_those_of_the_fastest_product() -> None:
    """Of weights in int8 too, where a machine multiplies faster in float32."""
    work = Work(multiply_adds=64 * 128, weights=64 * 128, state_bytes=256, shape=(64, 128))
    probes = find_probes(work, ONE, [1], ["fp32", "int8"])
    assert set(probes.reads) == {"fp32", "int8"}
    assert set(probes.products) == {
        (kind, batch) for kind in ("fp32", "int8") for batch in (1, 256)
    }
    for read, rates in zip(probes.reads.values(), ([3.0, 9.0, 4.0], [7.0, 5.0, 6.0]), strict=True):
        read.rates += rates
    for (kind, batch), pair in probes.products.items():
        scale = {"fp32": 2.0, "int8": 1.0}[kind] * batch
        for workload in pair:
            workload.rates += [scale * rate for rate in (1.0, 2.0, 3.0)]
        pair[-1].rates[:] = [scale * rate for rate in (4.0, 3.0, 8.0)]
    full, integer = probes.limits(ONE, work)
    assert full == Limits(ONE, "fp32", 4 * 64 * 128, 4.0, 4.0 * 2 * 256)
    assert integer == Limits(ONE, "int8", 64 * 128, 6.0, 4.0 * 2 * 256)
    assert probes.product_rates("int8", 1) == [4.0, 3.0, 8.0]


def test_measured_limits_are_sane() -> None:
    """No machine reads slower than a tape or faster than a thousand memories."""
    work = Work(multiply_adds=2**18, weights=2**18, state_bytes=2048, shape=(512, 512))
    probes = find_probes(work, ONE, [1], ["fp32", "int8"])
    for workload in probes.workloads:
        workload.prepare()
        workload.rates.append(workload.measure(0.01, ONE))
    for limits in probes.limits(ONE, work):
        assert 1e7 < limits.bytes_per_second < 1e14
        assert 1e7 < limits.multiply_adds_per_second < 1e16


def test_a_precision_without_probes_has_no_limits() -> None:
    work = Work(multiply_adds=64, weights=64, state_bytes=8, shape=(8, 8))
    assert find_probes(work, ONE, [1], ["int4"]).workloads == []
    assert find_probes(None, ONE, [1], ["fp32"]).workloads == []


def test_a_roofline_needs_limits(tmp_path: Path) -> None:
    row = Row("step", False, ONE, 1, "fp32", tokens_per_second=5.0)
    with pytest.raises(UsageError, match="no limits were measured"):
        draw_roofline([row], None, [], tmp_path / "r.png", "nothing")
    assert list(tmp_path.iterdir()) == []
