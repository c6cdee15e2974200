"""What a machine can do at most: how fast it reads as many bytes as a model's weights are, and how
fast it multiplies matrices of their shapes."""

from __future__ import annotations

import math
import os
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.config import ModelConfig
from zoo.errors import ProviderError, UnknownNameError
from zoo.inference.cpu import usable_cores
from zoo.models.device import choose_device
from zoo.models.language_model import LanguageModel, OneHot
from zoo.nn.cell import Cell
from zoo.registry.registry import Registry

Products: TypeAlias = Counter[tuple[int, int]]  # multiply-adds, by the shape of the right factor

RIGHT_FACTOR = {"aten::mm": 1, "aten::bmm": 1, "aten::addmm": 2, "aten::baddbmm": 2}


@dataclass(frozen=True)
class Target:
    """Where to compute: "cpu", with so many threads, or "cuda" (`threads` is None)."""

    provider: str
    threads: int | None

    def synchronize(self) -> None:
        """Waits until all that was begun there is done."""
        if self.provider == "cuda" and torch.cuda.is_available():
            torch.cuda.synchronize()

    def __str__(self) -> str:
        return self.provider if self.threads is None else f"{self.provider} × {self.threads}"


@dataclass(frozen=True)
class Limits:
    """What a target can do: the bytes per second at which it reads as many as the model's weights
    are in float32; and, by batch size, the multiply-adds per second of a float32 product in the
    shape of the model's largest."""

    target: Target
    bytes_per_second: float
    multiply_adds_per_second: Mapping[int, float]


def matrix_products(config: ModelConfig, vocab_size: int, registry: Registry) -> Products:
    """The multiply-adds that one token costs, by the shape [K, N] of what it is multiplied with.

    Looking up the rows of a one-hot input is left out: exported files do look them up.
    Empty where the cell is not installed, since running an exported file does not need it.
    """
    try:
        with torch.device("meta"):
            model = LanguageModel(config, vocab_size, registry).eval()
            token = torch.zeros(1, dtype=torch.int64)
    except UnknownNameError:
        return Products()
    with torch.no_grad():
        if model.causal:
            found = _products(model.step, token, model.init_state(1))
        else:
            found = _products(model, token[None])
        if isinstance(model.encoder, OneHot):
            found -= _looked_up(model.stack.cells[0], model.encoder(token))
    return found


def _looked_up(module: nn.Module, x: Tensor) -> Products:
    """The products of `project`: the cell's, or those of the cells that it is made of."""
    if isinstance(module, Cell) and (found := _products(module.project, x)):
        return found
    return sum((_looked_up(child, x) for child in module.children()), Products())


def _products(function: Callable[..., Any], *arguments: Any) -> Products:
    with _ProductCounter() as counter:
        function(*arguments)
    found: Products = counter.found
    return found


class _ProductCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every matrix product, whatever it was written as."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = Products()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        if (index := RIGHT_FACTOR.get(function.name())) is not None:
            size, columns = arguments[index].shape[-2:]
            self.found[size, columns] += result.numel() * size
        return result


def probes(
    products: Products, target: Target, batches: Sequence[int]
) -> list[tuple[int, Callable[[], int]]]:
    """What to measure the limits by: each does some work and says how much. It is multiply-adds at
    a batch size, in products that come twice, with either layout of the right factor; and with 0
    for a batch size, bytes. None at all where PyTorch does not run, or `products` is empty."""
    if not products:
        return []
    try:
        device = choose_device(target.provider)
    except ProviderError:
        return []
    weights = torch.rand(sum(products.values()), device=device)
    found: list[tuple[int, Callable[[], int]]] = [(0, partial(_read, weights))]
    size, columns = max(products, key=math.prod)
    for batch in batches:
        left = torch.rand(batch, size, device=device)
        for right in (torch.rand(size, columns), torch.rand(columns, size).T):
            found.append((batch, partial(_multiply, left, right.to(device))))
    return found


def _read(weights: Tensor) -> int:
    torch.dot(weights, weights)
    return weights.nbytes


def _multiply(left: Tensor, right: Tensor) -> int:
    torch.mm(left, right)
    return left.shape[0] * right.numel()


def describe_machine() -> dict[str, Any]:
    """The processor, the GPU (None without one), the cores that this process may use, and `load`,
    the processes that wanted one on average over the last minute."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "system": platform.platform(),
        "processor": names[0] if names else platform.processor(),
        "cores": usable_cores(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
