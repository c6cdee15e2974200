"""The weights of a module, as a file remembers them."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def fingerprint(module: nn.Module) -> str:
    """SHA-256, in hexadecimal, of the values of parameters and buffers, of those that a state dict
    has. Neither their names nor their order count: a module may be written anew."""
    tensors = [value for value in module.state_dict().values() if isinstance(value, Tensor)]
    return hashlib.sha256(b"".join(sorted(map(_digest, tensors)))).hexdigest()


def _digest(tensor: Tensor) -> bytes:
    values = tensor.detach().cpu().to_dense().contiguous()
    content = values.reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{tuple(values.shape)} {values.dtype} ".encode() + content).digest()
