"""Execution providers: which of them run on this machine, and why the others do not."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from zoo.errors import ArtifactError, ProviderError, one_line
from zoo.inference.artifact import AGAIN
from zoo.inference.runtime import ProviderReport

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
PREAMBLE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?")
MAX_TOLD = 200  # characters
SILENT = 4  # ONNX Runtime's "fatal": errors are raised as exceptions

# A model that adds a tensor to itself: y = x + x, float32 [n], opset 20, IR 10.
PROBE = base64.b64decode(
    "CAo6OwoOCgF4CgF4EgF5IgNBZGQSBXByb2JlWhAKAXgSCwoJCAESBQoDEgFuYhAKAXkSCwoJCAESBQoDEgFuQgQKABAU"
)


def make_session(
    model: bytes | Path, provider: str, threads: int = 1, graphs: bool = False
) -> ort.InferenceSession:
    """A session for a model (its bytes or its file) on "auto", "cpu" or "cuda": with `threads`
    threads on a CPU, with CUDA graphs or without on CUDA.

    "auto" is CUDA where this build supports it and the machine has its driver, else the CPU. With
    CUDA the whole graph runs on it: ProviderError says why if it cannot.
    """
    if resolve_provider(provider) == "cuda":
        return _cuda_session(model, graphs)
    return _session(model, _options(threads), CPU)


def run_session(session: ort.InferenceSession, outputs: list[str], feeds: dict[str, Any]) -> Any:
    """The outputs of one run; ArtifactError for a graph that cannot run on its inputs."""
    try:
        return session.run(outputs, feeds)
    except Exception as error:
        raise _cannot_run(error) from None


def run_bound(
    session: ort.InferenceSession, binding: ort.IOBinding, options: ort.RunOptions
) -> None:
    """One run on inputs and outputs that are bound; otherwise as `run_session`."""
    try:
        session.run_with_iobinding(binding, options)
    except Exception as error:
        raise _cannot_run(error) from None


def _cannot_run(error: Exception) -> ArtifactError:
    """Of ONNX Runtime's own exceptions, which have no common base."""
    return ArtifactError(f"ONNX Runtime cannot run the graph: {told(error)}; {AGAIN}.")


def resolve_provider(provider: str) -> str:
    """Resolves "auto": "cuda" where this build supports it and there is a driver, else "cpu"."""
    if provider != "auto":
        return provider
    available = CUDA in ort.get_available_providers() and _has_cuda_driver()
    return "cuda" if available else "cpu"


def probe_providers() -> list[ProviderReport]:
    """Runs a small model on each provider that this build of ONNX Runtime lists."""
    reports = []
    for name in ort.get_available_providers():
        reason = ""
        try:
            _run_probe(_cuda_session(PROBE) if name == CUDA else _probe_session(name))
        except ProviderError as error:
            reason = one_line(error)
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            reason = told(error)
        reports.append(ProviderReport(name, not reason, reason))
    return reports


def _cuda_session(model: bytes | Path, graphs: bool = False) -> ort.InferenceSession:
    if CUDA not in ort.get_available_providers():
        raise ProviderError("CUDA does not run: this build of ONNX Runtime is for CPUs only.")
    if missing := _missing_library(CUDA):
        raise ProviderError(f"CUDA does not run in ONNX Runtime here: {missing}; use the CPU.")
    options = _options()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = _session(model, options, CUDA, graphs)
    except Exception as error:
        raise ProviderError(f"CUDA does not run in ONNX Runtime here: {told(error)}") from None
    if CUDA not in session.get_providers():
        raise ProviderError("CUDA does not run in ONNX Runtime here: it fell back to the CPU.")
    return session


def _session(
    model: bytes | Path, options: ort.SessionOptions, name: str, graphs: bool = False
) -> ort.InferenceSession:
    """A session on that provider; without `enable_fallback=0`, ONNX Runtime prints a failure and
    falls back to the CPU."""
    # TF32 has a mantissa of ten bits: too few to agree with other providers
    settings = {"use_tf32": "0", "enable_cuda_graph": str(int(graphs))} if name == CUDA else {}
    return ort.InferenceSession(model, options, providers=[(name, settings)], enable_fallback=0)


def _options(threads: int = 1) -> ort.SessionOptions:
    """Several threads have to spin: a step is over before a sleeping thread wakes up."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads > 1)))
    options.log_severity_level = SILENT
    # ONNX was inspected; the same bytes may also be a valid file of another format
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _probe_session(name: str) -> ort.InferenceSession:
    if name != CPU and (missing := _missing_library(name)):
        raise ProviderError(missing)
    session = _session(PROBE, _options(), name)
    if name not in session.get_providers():
        raise ProviderError("ONNX Runtime fell back to the CPU")
    return session


def _run_probe(session: ort.InferenceSession) -> None:
    (found,) = session.run(None, {"x": np.array([1.5, -2.0], np.float32)})
    if found.tolist() != [3.0, -4.0]:
        raise ProviderError(f"it computed {found.tolist()} for [1.5, -2.0] doubled.")


def _has_cuda_driver() -> bool:
    """Whether NVIDIA's driver is installed."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _missing_library(name: str) -> str:
    """Why the provider's shared library does not load; empty if it does."""
    ort.set_default_logger_severity(SILENT)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints missing libraries
        ort.preload_dlls()
    stem = "onnxruntime_providers_" + name.removesuffix("ExecutionProvider").lower()
    file = f"{stem}.dll" if sys.platform == "win32" else f"lib{stem}.so"
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / file))
    except OSError as error:
        return str(error)
    return ""


def told(error: Exception) -> str:
    """The beginning of ONNX Runtime's message, without what stands before it: a code, "Load model
    from PATH failed:"."""
    return PREAMBLE.sub("", one_line(error, 1000))[:MAX_TOLD].rstrip(". ")


def provider_name(session: ort.InferenceSession) -> str:
    """The session's provider: "CPU" or "CUDA"."""
    name: str = session.get_providers()[0]
    return name.removesuffix("ExecutionProvider")
