"""Which kernels a recurrence of matrices takes on a GPU; tests/test_gpu_kernels.py runs them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zoo.nn import kernels

DIM = (1, 1, 1, 16)


def test_none_are_used_on_a_cpu() -> None:
    q, state = torch.zeros(DIM), torch.zeros(1, 1, 16, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert not kernels.suit(q, q, state, kernels.BY_HEAD)


def test_the_kernel_is_that_of_the_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decay of each head is taken as one of each key where the kernel of heads does not run."""
    by_head, by_key = torch.zeros(1, 1, 1, 1), torch.zeros(DIM)
    broken: set[str] = set()
    monkeypatch.setattr(kernels, "suit", lambda q, v, state, kernel: kernel not in broken)

    def found(log_w: torch.Tensor | None, a: torch.Tensor | None = None) -> str | None:
        return kernels.find_kernel(by_key, by_key, log_w, by_key, a)

    for without, wanted in (
        (set(), [kernels.BY_HEAD, kernels.BY_HEAD, kernels.BY_KEY, kernels.CORRECTED]),
        ({kernels.BY_HEAD}, [kernels.BY_KEY] * 3 + [kernels.CORRECTED]),
        ({kernels.BY_HEAD, kernels.BY_KEY, kernels.CORRECTED}, [None] * 4),
    ):
        broken.clear()
        broken.update(without)
        given = [found(None), found(by_head), found(by_key), found(by_head, by_key)]
        assert given == wanted


def test_a_kernel_takes_the_most_usual_configuration_that_suits() -> None:
    """One that tunes itself stands within another, as Triton's decorators leave it."""

    def config(block: int, warps: int, stages: int) -> Any:
        return SimpleNamespace(kwargs={"BK": block}, num_warps=warps, num_stages=stages)

    every = [config(b, w, s) for b in (16, 32, 64, 128) for w in (1, 4, 8) for s in (2, 4)]

    class Autotuner:
        configs = every

        def prune_configs(self, kwargs: dict[str, int]) -> list[Any]:
            return [one for one in self.configs if one.kwargs["BK"] < kwargs["K"]]

    class Heuristics:
        fn = Autotuner()

    for made in (Autotuner, Heuristics):
        made.__module__ = "triton.runtime"
    kernels._settle(Heuristics())
    kernels._settle(Heuristics())  # twice, as two modules may name it
    for K, block in ((100, 64), (64, 32)):
        (chosen,) = Heuristics.fn.prune_configs({"K": K})
        assert (chosen.kwargs["BK"], chosen.num_warps, chosen.num_stages) == (block, 4, 2)
