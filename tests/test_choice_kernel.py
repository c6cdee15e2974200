"""The CUDA kernel that chooses tokens, compiled for the host, where a block's threads are threads,
against `zoo.inference.sampling.choose`."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zoo.config import Sampling
from zoo.inference.sampling import choose, margin
from zoo_ort.choice import MAX_THREADS, NOT_FINITE, Choice, kernel_source, settings_array

KERNELS = Path(__file__).parent / "kernels"
DRIVER = str(KERNELS / "driver.cpp")
SAMPLINGS = [
    Sampling(),
    Sampling(temperature=1.0),
    Sampling(temperature=0.3),
    Sampling(temperature=1.0, top_k=1),
    Sampling(temperature=1.3, top_k=5),
    Sampling(temperature=1.0, top_p=0.5),
    Sampling(temperature=2.0, top_k=17, top_p=0.9),
    Sampling(temperature=0.7, top_k=10_000, top_p=1e-9),
]
CALL = """
extern "C" void run(int blocks, int threads, const float* logits, const float* uniform,
                    const double* settings, long long* tokens, double* scratch, int rows,
                    int vocab, int padded) {
  gridDim.x = blocks;
  blockDim.x = threads;
  for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
    std::barrier<> barrier(threads);
    everyone = &barrier;
    std::vector<std::thread> running;
    for (int i = 0; i < threads; i++) {
      running.emplace_back([=] {
        threadIdx.x = i;
        choose(logits, uniform, settings, tokens, scratch, rows, vocab, padded);
      });
    }
    for (std::thread& thread : running) thread.join();
  }
}
"""
Kernel = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the kernel for the host, and a driver that launches it there."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("kernel")
    source = kernel_source().replace("extern __shared__ double shared[];", "")
    (folder / "kernel.cpp").write_text(f'#include "{KERNELS / "threads.hpp"}"\n{source}\n{CALL}')
    command = [compiler, "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread"]
    for files in (["kernel.so", "kernel.cpp"], ["libcuda.so.1", "kernel.cpp", DRIVER]):
        subprocess.run([*command, "-o", *files], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def kernel(folder: Path) -> Kernel:
    library = ctypes.CDLL(str(folder / "kernel.so"))

    def run(
        logits: np.ndarray,
        uniform: np.ndarray,
        sampling: Sampling,
        threads: int,
        blocks: int = 2,
        scratch: bool = False,
    ) -> np.ndarray:
        rows, vocab = logits.shape
        padded = 1 << (vocab - 1).bit_length()
        tokens = np.full(rows, -7, np.int64)
        settings = settings_array(sampling, vocab)
        memory = np.full((blocks, vocab + padded), np.nan)
        arrays = [logits, uniform, settings, tokens]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        place = ctypes.c_void_p(memory.ctypes.data if scratch else None)
        library.run(blocks, threads, *pointers, place, rows, vocab, padded)
        return tokens

    return run


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize(("vocab", "threads"), [(28, 32), (28, 96), (1, 32), (200, 64), (97, 32)])
def test_the_kernel_chooses_the_same_tokens(
    kernel: Kernel, vocab: int, threads: int, sampling: Sampling
) -> None:
    rng = np.random.default_rng(vocab)
    logits = (3 * rng.standard_normal((12, vocab))).astype(np.float32)
    logits[:4] = logits[:4].round()  # equal logits: the first, and all that are as likely
    uniform = rng.random(12, dtype=np.float32)
    uniform[0], uniform[1] = 0, np.nextafter(np.float32(1), np.float32(0))
    found = kernel(logits, uniform, sampling, threads, scratch=threads == 64)
    for row in np.flatnonzero(found != choose(logits, uniform, sampling)):
        assert margin(logits[row], float(uniform[row]), sampling) < 1e-12, row


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_no_token(kernel: Kernel, bad: float) -> None:
    logits = np.zeros((5, 28), np.float32)
    logits[:, 3] = 1.0
    logits[2, 27] = bad
    for sampling in SAMPLINGS[:2]:
        tokens = kernel(logits, np.full(5, 0.5, np.float32), sampling, 32)
        assert tokens[2] == NOT_FINITE
        assert (np.delete(tokens, 2) >= 0).all()


# What the driver is asked for, in a process whose libcuda.so.1 is the one above.
ASK = """
import numpy as np
import zoo_ort.cuda
from zoo.config import Sampling
from zoo.inference.sampling import choose
from zoo_ort.choice import Choice, settings_array
from zoo_ort.cuda import CudaError, DeviceMemoryError, first_device

zoo_ort.cuda.compiled = lambda source, architecture: architecture.encode()
device = first_device()
assert device is first_device()
assert device.provider_options == {"user_compute_stream": str(0x7777777777)}
rng = np.random.default_rng(0)
choice = Choice(device, 28)
logits = rng.standard_normal((6, 28)).astype(np.float32)
uniform = rng.random((2, 6), dtype=np.float32)
sampling = Sampling(temperature=0.9, top_k=9, top_p=0.8)
arrays = [logits, uniform, settings_array(sampling, 28), np.zeros((3, 6), np.int64)]
buffers = [device.allocate(array.shape, array.dtype) for array in arrays]
for array, buffer in zip(arrays, buffers, strict=True):
    device.upload(array, buffer)
tokens = buffers[3]

dropped = [device.allocate((5,), np.float32)]

def queue():
    dropped.clear()  # is freed afterwards: a recorded release would be done again and again
    choice(buffers[0], buffers[1].row(1), buffers[2], tokens.row(2))
    device.copy(tokens.row(2), tokens.row(0))

recording = device.record(queue)
assert not device.download(tokens).any()
recording()
wanted = choose(logits, uniform[1], sampling).tolist()
assert device.download(tokens).tolist() == [wanted, [0] * 6, wanted]
assert device.download(tokens.part(1, 3)).tolist() == [[0] * 6, wanted]
try:
    device.record(lambda: device.upload(logits, buffers[0]))
except CudaError as error:
    assert "cuMemcpyHtoDAsync_v2: invalid argument" in str(error)
else:
    raise AssertionError
recording()
try:
    device.allocate((2**30,), np.float32)
except DeviceMemoryError as error:
    assert "the GPU's memory is full" in str(error)
else:
    raise AssertionError
print("done")
"""


def test_the_driver_is_asked_as_it_wants_to_be(folder: Path) -> None:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    result = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout == "done\n", result.stderr


class Launches:
    """A device that only tells how kernels are launched."""

    def __init__(self) -> None:
        self.launched: list[tuple[int, int, int]] = []

    def kernels(self, source: str, names: list[str]) -> list[Callable[..., None]]:
        return [lambda *sizes: self.launched.append(sizes[:3])]

    def allocate(self, shape: tuple[int, ...], dtype: object) -> np.ndarray:
        return np.empty(shape, np.float64)


@pytest.mark.parametrize("vocab", [1, 28, 256, 2000, 50_000])
def test_a_launch_is_within_every_devices_limits(vocab: int) -> None:
    device = Launches()
    choice = Choice(device, vocab)  # type: ignore[arg-type]
    for rows in (1, 5000):
        choice(None, np.empty(rows), None, None)  # type: ignore[arg-type]
    for blocks, threads, shared in device.launched:
        assert blocks <= 1024
        assert threads <= MAX_THREADS
        assert threads % 32 == 0
        assert shared <= 48 * 1024
