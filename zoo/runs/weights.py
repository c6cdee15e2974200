"""A model's weights on disk, as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from zoo.config import Interface, ModelConfig
from zoo.errors import RunError, one_line, printable
from zoo.files import write_atomically
from zoo.models.language_model import LanguageModel
from zoo.registry.registry import Registry
from zoo.validation import MAX_KEY

REPLACE = "put an undamaged copy in its place, or train again"


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """A model's parameters and buffers, on whatever device they are, as safetensors."""
    write_atomically(path, save({name: leaf.contiguous() for name, leaf in weights.items()}))


def load_model(
    config: ModelConfig, interface: int | Interface, path: Path, registry: Registry | None = None
) -> LanguageModel:
    """The model that `config` describes with the weights at `path`, on the CPU, ready to run.

    Names, shapes and dtypes are compared before anything is allocated. Raises RunError for a file
    that is damaged or holds another model's weights.
    """
    with torch.device("meta"):
        expected = LanguageModel(config, interface, registry).state_dict()
    try:
        with safe_open(path, "pt") as file:
            found = {name: _form(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise RunError(f"{path} is missing; the run has no weights yet.") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged: {one_line(error, 200)}; {REPLACE}.") from None
    for name in sorted(expected.keys() | found.keys()):
        wanted = _described(expected[name]) if name in expected else "absent"
        if wanted != found.get(name, "absent"):
            raise RunError(
                f"{path} does not fit its config.json: {printable(name)[:MAX_KEY]} is "
                f"{found.get(name, 'absent')[:MAX_KEY]}, and the model wants {wanted}; {REPLACE}."
            )
    # building draws initial weights, which must not move the caller's random numbers
    with torch.random.fork_rng(devices=[]):
        model = LanguageModel(config, interface, registry)
    model.load_state_dict(load_file(path))
    return model.eval()


def _form(entry: Any) -> str:
    """Dtype and shape of an entry in a file: "F32 28×512"."""
    return " ".join([entry.get_dtype(), "×".join(map(str, entry.get_shape()))])


def _described(tensor: Tensor) -> str:
    """The same of a tensor."""
    dtype = SAFETENSORS_DTYPES.get(tensor.dtype, str(tensor.dtype))
    return " ".join([dtype, "×".join(map(str, tensor.shape))])


SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
