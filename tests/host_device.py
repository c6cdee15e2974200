"""A device whose memory is the host's: what `zoo_ort.device_loop` asks of CUDA, with NumPy."""

from __future__ import annotations

import atexit
import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pytest

from zoo.config import Sampling
from zoo.inference.artifact import ArtifactInfo
from zoo.inference.sampling import choose
from zoo_ort.choice import AMONG_ALL, GREEDY, NOT_FINITE
from zoo_ort.device_loop import DeviceEngine

HEADER = """
#include <algorithm>
#include <cmath>
#include <cstddef>
using std::max, std::min, std::fmaf;
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct Index { int x; };
static Index threadIdx, blockIdx, blockDim;
#define __global__
#define __device__ static
#define __launch_bounds__(threads, blocks)
"""


class HostBuffer:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.dtype, self.nbytes = array.shape, array.dtype, array.nbytes
        self.address = array.ctypes.data

    def part(self, start: int, stop: int) -> HostBuffer:
        return HostBuffer(self.array[start:stop])

    def row(self, index: int) -> HostBuffer:
        return HostBuffer(self.array[index])


class HostDevice:
    """`recorded` counts the recordings."""

    name = "cpu"
    provider_options: dict[str, str] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.recorded, self.lock = 0, RLock()

    def enter(self) -> None: ...

    def wait(self) -> None: ...

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> HostBuffer:
        junk = np.full(shape, 77, dtype)  # memory holds anything
        return HostBuffer(junk)

    def upload(self, array: Any, buffer: HostBuffer) -> None:
        exact = np.ascontiguousarray(array, buffer.dtype)
        count = min(exact.size, buffer.array.size)
        buffer.array.reshape(-1)[:count] = exact.reshape(-1)[:count]

    def download(self, buffer: HostBuffer) -> Any:
        return buffer.array.copy()

    def copy(self, source: HostBuffer, target: HostBuffer) -> None:
        self.upload(source.array, target)

    def kernels(self, source: str, names: list[str]) -> list[Callable[..., None]]:
        library = ctypes.CDLL(str(_built(source)))

        def launcher(name: str) -> Callable[..., None]:
            function = getattr(library, f"run_{name}")

            def launch(blocks: int, threads: int, shared: int, *buffers: HostBuffer) -> None:
                addresses = (ctypes.c_void_p * len(buffers))(*(b.address for b in buffers))
                function(blocks, threads, addresses)

            return launch

        return [launcher(name) for name in names]

    def record(self, queue: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        return queue


@cache
def _built(source: str) -> Path:
    """The kernels for the host: a library with a function for each that runs all its threads."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    runs = []
    for name, arguments in re.findall(r"__global__ .*void (\w+)\(([^)]*)\) {", source):
        passed = ", ".join(f"p[{i}]" for i in range(arguments.count("*")))
        runs.append(
            f'extern "C" void run_{name}(int blocks, int threads, void** p) {{'
            f"blockDim.x = threads; for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)"
            f"for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) {name}({passed}); }}"
        )
    folder = Path(tempfile.mkdtemp(prefix="zoo-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "kernels.cpp").write_text("\n".join([HEADER, source, *runs]))
    command = [compiler, "-O1", "-shared", "-fPIC", "-ffp-contract=off"]
    subprocess.run([*command, "-o", "kernels.so", "kernels.cpp"], cwd=folder, check=True)
    return folder / "kernels.so"


def host_choice(
    logits: HostBuffer, uniform: HostBuffer, settings: HostBuffer, tokens: HostBuffer
) -> None:
    """What the kernel does, by `zoo.inference.sampling.choose`."""
    heat, share, kept, mode = settings.array
    filters = {} if mode == AMONG_ALL else {"top_p": share, "top_k": int(kept)}
    sampling = Sampling() if mode == GREEDY else Sampling(temperature=heat, **filters)
    finite = np.isfinite(logits.array).all(axis=-1)
    with np.errstate(invalid="ignore"):
        tokens.array[:] = np.where(
            finite, choose(logits.array, uniform.array, sampling), NOT_FINITE
        )


def host_engine(info: ArtifactInfo, content: bytes, device: HostDevice | None = None) -> Any:
    return DeviceEngine(info, content, device or HostDevice(), host_choice)
