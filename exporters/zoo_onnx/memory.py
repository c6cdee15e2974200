"""What a module holds beside its parameters and buffers, to compare and to put back: running it for
an export changes nothing of it, and memory outside its state is found."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CONTAINERS = (list, dict, set, deque, bytearray)


class Attributes:
    """The attributes of a module and its submodules, as they were when this was made."""

    def __init__(self, module: nn.Module) -> None:
        self._modules = dict(module.named_modules())
        self._kept = {
            path: {name: (value, _content(value)) for name, value in vars(part).items()}
            for path, part in self._modules.items()
        }

    def changed(self) -> list[str]:
        """The names of those that are others now, or hold something else: "norm.count"."""
        found = []
        for path, part in self._modules.items():
            now, kept = vars(part), self._kept[path]
            for name in dict.fromkeys((*kept, *now)):
                if name in kept and name in now and _is_same(now[name], *kept[name]):
                    continue
                found.append(f"{path}.{name}" if path else name)
        return found

    def put_back(self, names: Iterator[str] | list[str] | None = None) -> None:
        """Gives all of them, or those of these names, their values again."""
        for path, part in self._modules.items():
            now, kept = part.__dict__, self._kept[path]
            for name in list(dict.fromkeys((*kept, *now))):
                full = f"{path}.{name}" if path else name
                if names is not None and full not in names:
                    continue
                if name not in kept:
                    del now[name]
                    continue
                value, content = kept[name]
                _restore(value, content)
                now[name] = value


def _content(value: Any) -> Any:
    """A copy of what an in-place change would lose."""
    if isinstance(value, Tensor):
        return value._version, value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, CONTAINERS):
        return value.copy()
    return None


def _is_same(now: Any, value: Any, content: Any) -> bool:
    if now is not value:
        if isinstance(now, bool | int | float | str | bytes | tuple | type(None)):
            try:
                return bool(type(now) is type(value) and now == value)
            except Exception:  # a tuple of tensors, say
                return False
        return False
    if isinstance(value, Tensor):
        version, before = content
        return value._version == version or _equal(value, before)
    if isinstance(value, np.ndarray):
        return bool(np.array_equal(value, content, equal_nan=value.dtype.kind == "f"))
    if isinstance(value, dict):
        return list(value) == list(content) and all(value[k] is content[k] for k in value)
    if isinstance(value, list | deque):
        return len(value) == len(content) and all(
            a is b for a, b in zip(value, content, strict=True)
        )
    if isinstance(value, set | bytearray):
        return bool(value == content)
    return True


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.equal(one.detach(), other))


def _restore(value: Any, content: Any) -> None:
    if isinstance(value, Tensor):
        version, before = content
        if value._version != version and not _equal(value, before):
            with torch.no_grad():
                value.copy_(before)
    elif isinstance(value, np.ndarray):
        if value.flags.writeable:
            value[...] = content
    elif isinstance(value, dict | set):
        value.clear()
        value.update(content)
    elif isinstance(value, list | bytearray):
        value[:] = content
    elif isinstance(value, deque):
        value.clear()
        value.extend(content)
