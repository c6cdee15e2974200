"""NVIDIA's driver and its run-time compiler, called through ctypes: memory, copies, kernels, and
recorded work (CUDA graphs) on one stream of one device.

ONNX Runtime records one run of one session as a CUDA graph. A recording that is made here holds as
many runs as one likes, and kernels of our own between them.
"""

from __future__ import annotations

import ctypes
import gc
import io
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from functools import cache, partial
from math import prod
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from zoo.errors import ProviderError, ZooError

OUT_OF_MEMORY = 2  # CUresult
NON_BLOCKING = 1  # CUstream_flags: no implicit waits for work on the default stream
RELAXED = 2  # CUstreamCaptureMode: what other threads do is their own affair
RELEASE_THRESHOLD = 4  # CUmemPool_attribute: how much freed memory the driver keeps for us
MAJOR, MINOR = 75, 76  # CUdevice_attribute: the compute capability
SHARED_BYTES = 48 * 1024  # per block, on every device
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuDeviceGetDefaultMemPool": (POINTER(c_void_p), c_int),
    "cuMemPoolSetAttribute": (c_void_p, c_int, POINTER(c_uint64)),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuMemAllocAsync": (POINTER(c_void_p), c_size_t, c_void_p),
    "cuMemFreeAsync": (c_void_p, c_void_p),
    "cuMemcpyHtoDAsync_v2": (c_void_p, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoDAsync_v2": (c_void_p, c_void_p, c_size_t, c_void_p),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphExecDestroy": (c_void_p,),
    "cuModuleLoadData": (POINTER(c_void_p), c_char_p),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuLaunchKernel": (c_void_p, *(c_uint,) * 7, c_void_p, POINTER(c_void_p), c_void_p),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}


class DeviceMemoryError(ZooError):
    """The device's memory is full."""


class CudaError(ProviderError):
    """A call of NVIDIA's driver that failed."""


class Buffer:
    """An array in the device's memory, which is freed with it; or a part of another one."""

    def __init__(
        self,
        device: Cuda,
        address: int,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        whole: Buffer | None = None,
    ) -> None:
        self.address, self.shape, self.dtype = address, shape, np.dtype(dtype)
        self._device, self._whole = device, whole

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def part(self, start: int, stop: int) -> Buffer:
        """The entries from `start` to `stop` of the first axis."""
        row = self.nbytes // self.shape[0]
        shape = (stop - start, *self.shape[1:])
        return Buffer(self._device, self.address + start * row, shape, self.dtype, self)

    def row(self, index: int) -> Buffer:
        """One entry of the first axis, without that axis."""
        part = self.part(index, index + 1)
        part.shape = part.shape[1:]
        return part

    def __del__(self) -> None:
        if self._whole is None:
            self._device.free(self.address)


class Cuda:
    """The first CUDA device, with a stream of its own on which everything here is queued."""

    name = "cuda"

    def __init__(self) -> None:
        self._driver = _driver()
        self.lock = RLock()  # whoever queues work holds it: a recording takes what it finds
        self._uploaded: list[npt.NDArray[Any]] = []  # what is being copied
        self._recording, self._freed = False, list[int]()
        number, self._context, self._stream = c_int(), c_void_p(), c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", byref(number), 0)
        self._call("cuDevicePrimaryCtxRetain", byref(self._context), number)
        self.enter()
        self._call("cuStreamCreate", byref(self._stream), NON_BLOCKING)
        pool, everything = c_void_p(), c_uint64(2**64 - 1)
        self._call("cuDeviceGetDefaultMemPool", byref(pool), number)
        self._call("cuMemPoolSetAttribute", pool, RELEASE_THRESHOLD, byref(everything))
        version = [c_int(), c_int()]
        for found, attribute in zip(version, (MAJOR, MINOR), strict=True):
            self._call("cuDeviceGetAttribute", byref(found), attribute, number)
        self._architecture = "sm_{}{}".format(*(found.value for found in version))

    @property
    def provider_options(self) -> dict[str, str]:
        """What ONNX Runtime's CUDA provider takes so that its runs are queued on our stream."""
        return {"user_compute_stream": str(self._stream.value)}

    def enter(self) -> None:
        """Makes the device current in this thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Buffer:
        """Memory that holds anything; DeviceMemoryError where there is no more."""
        address, size = c_void_p(), max(1, prod(shape) * np.dtype(dtype).itemsize)
        self._call("cuMemAllocAsync", byref(address), size, self._stream)
        return Buffer(self, address.value or 0, shape, dtype)

    def free(self, address: int) -> None:
        """At once, or after the recording that is being made, whichever thread drops the memory."""
        if self._recording:
            self._freed.append(address)
            return
        # a failure has no consequence: at the end of the process the driver may be gone already
        self._driver.cuCtxSetCurrent(self._context)
        self._driver.cuMemFreeAsync(address, self._stream)

    def upload(self, array: npt.NDArray[Any], buffer: Buffer) -> None:
        """Queues the copy of an array of the buffer's shape, or of its first rows, which may
        change after the next `wait`."""
        exact = np.ascontiguousarray(array, buffer.dtype)
        self._uploaded.append(exact)
        size = min(exact.nbytes, buffer.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", buffer.address, exact.ctypes.data, size, self._stream)

    def download(self, buffer: Buffer) -> npt.NDArray[Any]:
        """The contents, once all that was queued is done."""
        array = np.empty(buffer.shape, buffer.dtype)
        target, size = array.ctypes.data, buffer.nbytes
        self._call("cuMemcpyDtoHAsync_v2", target, buffer.address, size, self._stream)
        self.wait()
        return array

    def copy(self, source: Buffer, target: Buffer) -> None:
        size = min(source.nbytes, target.nbytes)
        self._call("cuMemcpyDtoDAsync_v2", target.address, source.address, size, self._stream)

    def wait(self) -> None:
        """Until all that was queued is done."""
        self._call("cuStreamSynchronize", self._stream)
        self._uploaded.clear()

    def record(self, queue: Callable[[], None]) -> Callable[[], None]:
        """Something that does again what `queue` queues on our stream, at once. CudaError where
        that cannot be recorded; nothing is queued then."""
        graph, recording = c_void_p(), c_void_p()
        self.wait()
        collecting = gc.isenabled()
        gc.disable()  # what it would free may be on the device
        self._recording = True
        try:
            self._call("cuStreamBeginCapture_v2", self._stream, RELAXED)
            queue()
        finally:  # a stream that goes on recording would be lost
            status = self._driver.cuStreamEndCapture(self._stream, byref(graph))
            self._recording = False
            if collecting:
                gc.enable()
            while self._freed:
                self.free(self._freed.pop())
        self._check("cuStreamEndCapture", status)
        try:
            self._call("cuGraphInstantiateWithFlags", byref(recording), graph, 0)
        finally:
            self._driver.cuGraphDestroy(graph)
        return _Recording(self, recording)

    def replay(self, recording: c_void_p) -> None:
        self._call("cuGraphLaunch", recording, self._stream)

    def forget(self, recording: c_void_p) -> None:
        self._driver.cuGraphExecDestroy(recording)

    def kernels(self, source: str, names: Sequence[str]) -> list[Callable[..., None]]:
        """The functions `names` of CUDA C++, compiled. They are called with the number of blocks,
        the threads of each, its bytes of shared memory, and the function's arguments: Buffers, or
        ctypes values."""
        module = c_void_p()
        self._call("cuModuleLoadData", byref(module), compiled(source, self._architecture))
        return [partial(self._launch, self._function(module, name)) for name in names]

    def _function(self, module: c_void_p, name: str) -> c_void_p:
        function = c_void_p()
        self._call("cuModuleGetFunction", byref(function), module, name.encode())
        return function

    def _launch(
        self, function: c_void_p, blocks: int, threads: int, shared: int, *arguments: Any
    ) -> None:
        values = [c_void_p(x.address) if isinstance(x, Buffer) else x for x in arguments]
        packed = (c_void_p * len(values))(*map(ctypes.addressof, values))
        sizes = (blocks, 1, 1, threads, 1, 1, shared)
        self._call("cuLaunchKernel", function, *sizes, self._stream, packed, None)

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(name, getattr(self._driver, name)(*arguments))

    def _check(self, name: str, status: int) -> None:
        if status == 0:
            return
        if status == OUT_OF_MEMORY:
            raise DeviceMemoryError("the GPU's memory is full.")
        message = c_char_p()
        self._driver.cuGetErrorString(status, byref(message))
        told = (message.value or b"").decode() or f"error {status}"
        raise CudaError(f"CUDA does not run here: {name}: {told}.")


class _Recording:
    """Work that was recorded; the driver's copy of it is freed with this."""

    def __init__(self, device: Cuda, recording: c_void_p) -> None:
        self._device, self._recording = device, recording

    def __call__(self) -> None:
        self._device.replay(self._recording)

    def __del__(self) -> None:
        self._device.forget(self._recording)


@cache
def first_device() -> Cuda:
    """The device, opened once in a process."""
    return Cuda()


@cache
def _driver() -> Any:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
        for function, signature in SIGNATURES.items():
            getattr(driver, function).argtypes = signature
            getattr(driver, function).restype = c_int
    except (OSError, AttributeError) as error:
        raise ProviderError(f"CUDA does not run here: NVIDIA's driver: {error}.") from None
    return driver


@cache
def compiled(source: str, architecture: str) -> bytes:
    """Machine code for a device of that architecture ("sm_90"), by NVIDIA's run-time compiler."""
    compiler, program = _compiler(), c_void_p()
    _require(
        compiler.nvrtcCreateProgram(byref(program), source.encode(), b"zoo.cu", 0, None, None), ""
    )
    try:
        options = (c_char_p * 2)(f"--gpu-architecture={architecture}".encode(), b"--fmad=false")
        status = compiler.nvrtcCompileProgram(program, len(options), options)
        _require(status, _log(compiler, program) if status else "")
        size = c_size_t()
        _require(compiler.nvrtcGetCUBINSize(program, byref(size)), "")
        code = ctypes.create_string_buffer(size.value)
        _require(compiler.nvrtcGetCUBIN(program, code), "")
        return code.raw
    finally:
        compiler.nvrtcDestroyProgram(byref(program))


def _log(compiler: Any, program: c_void_p) -> str:
    size = c_size_t()
    compiler.nvrtcGetProgramLogSize(program, byref(size))
    log = ctypes.create_string_buffer(size.value)
    compiler.nvrtcGetProgramLog(program, log)
    return log.value.decode()


def _require(status: int, log: str) -> None:
    if status:
        told = " ".join(log.split()) or f"error {status}"
        raise CudaError(f"CUDA does not run here: NVIDIA's run-time compiler: {told[:300]}.")


@cache
def _compiler() -> Any:
    """libnvrtc, as ONNX Runtime loads it before its CUDA libraries, or as the system finds it."""
    windows = sys.platform == "win32"
    names = [f"nvrtc64_{n}0_0.dll" if windows else f"libnvrtc.so.{n}" for n in (13, 12)]
    with redirect_stdout(io.StringIO()):  # it prints missing libraries
        ort.preload_dlls(cudnn=False)
    for name in names:
        with suppress(OSError):
            compiler = ctypes.CDLL(name)
            _load_builtins()
            return compiler
    raise CudaError(
        f"CUDA does not run here: neither {' nor '.join(names)} is found; install NVIDIA's "
        f"run-time compiler, for instance with pip install nvidia-cuda-nvrtc."
    )


def _load_builtins() -> None:
    """The compiler opens its second library by name, and in a Python environment that is found
    only once it is loaded."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    loaded = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines()}
    for path in map(Path, loaded):
        if path.name.startswith("libnvrtc.so"):
            for builtins in path.parent.glob("libnvrtc-builtins.so*"):
                ctypes.CDLL(str(builtins))
