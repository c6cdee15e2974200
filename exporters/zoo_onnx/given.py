"""What may be given to be exported: modules with Python code on the CPU, and tensors that ONNX
has."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from zoo.errors import UsageError, one_line

QUANTIZED = ("torch.ao.nn.quantized", "torch.nn.quantized", "torch.ao.nn.intrinsic.quantized")
DTYPES = frozenset(
    (torch.float16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32)
) | {torch.bfloat16, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool}


def plain_module(module: nn.Module) -> nn.Module:
    """The module to run: that within torch.compile's wrapper, and on the CPU."""
    if not isinstance(module, nn.Module):
        raise UsageError(f"module must be a torch.nn.Module (got {type(module).__name__}).")
    module = getattr(module, "_orig_mod", module)
    for name, part in module.named_modules():
        shown = f"{type(module).__name__}.{name}" if name else type(module).__name__
        if isinstance(part, torch.jit.ScriptModule):
            raise UsageError(
                f"{shown} is a torch.jit module, which has no Python code to trace; export the "
                f"module that it was made from."
            )
        if type(part).__module__.startswith(QUANTIZED):
            raise UsageError(
                f"{shown} is a quantized module, whose kernels ONNX does not have; export the "
                f"float module with precision='int8'."
            )
    tensors = [*module.parameters(), *module.buffers()]
    if any(tensor.device.type != "cpu" for tensor in tensors):
        try:
            return deepcopy(module).cpu()
        except Exception as error:
            raise UsageError(
                f"{type(module).__name__} is not on the CPU and cannot be copied to it "
                f"({one_line(error)}); move it there with module.cpu()."
            ) from None
    return module


def plain_tensor(tensor: Tensor, what: str) -> Tensor:
    """A detached copy on the CPU; UsageError for what no ONNX file can hold."""
    if not isinstance(tensor, Tensor):
        raise UsageError(f"{what} is {type(tensor).__name__}; it must be a tensor.")
    if tensor.layout != torch.strided:
        raise UsageError(f"{what} is sparse; ONNX has dense tensors, so use to_dense().")
    if tensor.is_complex():
        raise UsageError(
            f"{what} is complex, which ONNX has no arithmetic for; use a pair of real tensors "
            f"(torch.view_as_real)."
        )
    if tensor.dtype not in DTYPES:
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise UsageError(f"{what} is {dtype}, which ONNX Runtime does not take; use float32.")
    return tensor.detach().cpu().clone()


def file_dtype(tensor: Tensor) -> torch.dtype:
    """Its dtype in a file: NumPy has no bfloat16, whose values float32 holds."""
    return torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype


def array_of(tensor: Tensor, axis: int) -> npt.NDArray[Any]:
    """The tensor with its batch axis first, in NumPy."""
    moved = tensor.detach().to(file_dtype(tensor)).movedim(axis, 0)
    array: npt.NDArray[Any] = moved.contiguous().numpy()
    return array
