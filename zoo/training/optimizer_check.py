"""Whether the saved state of an optimizer, any that is registered, is one that it can have.

Nothing says what an optimizer keeps, so another of the same kind makes some steps with a copy of
the model, and shows it. Then it takes the saved state over and makes one more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import is_out_of_memory, one_line, printable
from zoo.models.language_model import LanguageModel
from zoo.training.objectives import loss_of
from zoo.training.optimization import Optimization
from zoo.training.optimizer_state import PREFIX, pack, unpack
from zoo.training.snapshot import SnapshotError

STEPS = 10  # some change what they keep after the first, or every few
MAX_NAME = 60  # characters of a name that are shown
GROUPS = f"{PREFIX}.param_groups"


def check_optimizer(
    tree: Any,
    tensors: Mapping[str, Tensor],
    model: LanguageModel,
    weights: Mapping[str, Tensor],
    optimization: Optimization,
    *,
    begun: bool,
) -> Any:
    """The `state_dict` that `pack` made `tree` and `tensors` of. SnapshotError for one that the
    optimizer of `model`, with these `weights`, cannot have: one that was not used yet or, if it has
    `begun`, that has made steps."""
    found = _unpacked(tree, tensors)
    trial = _Trial(model, weights, optimization)
    with torch.random.fork_rng(devices=trial.devices):
        state = trial.fitted(found) if begun else _fitted(found, [trial.state()], PREFIX)
        trial.continue_from(state)
    return state


def _unpacked(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    try:
        found = unpack(tree, tensors)
        again, same_tree = pack(found)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        raise SnapshotError("the state of its optimizer is no longer whole") from None
    for name in tensors.keys() ^ again.keys():
        raise SnapshotError(f"its {shown(name)} does not belong to its optimizer")
    if tree != same_tree:
        raise SnapshotError("the state of its optimizer is no longer whole")
    return found


class _Trial:
    """An optimizer that learns a text of four tokens, with a copy of the model."""

    def __init__(
        self, model: LanguageModel, weights: Mapping[str, Tensor], optimization: Optimization
    ) -> None:
        self._optimization, self._weights = optimization, weights
        self._model = deepcopy(model).train()
        self._model.load_state_dict(weights)
        self._optimizer = optimization.make_optimizer(self._model)
        device = next(model.parameters()).device
        self.devices = [device] if device.type == "cuda" else []
        interface = model.interface
        places = torch.arange(4, device=device).view(2, 2)
        self._inputs, self._targets = (
            places % size if whole else places[..., None].repeat(1, 1, size).float()
            for size, whole in (
                (interface.inputs, interface.reads == "tokens"),
                (interface.outputs, interface.gives == "classes"),
            )
        )

    def state(self) -> dict[str, Any]:
        """The `state_dict`, a TensorForm for each tensor."""
        return _formed(self._optimizer.state_dict())  # type: ignore[no-any-return]

    def step(self) -> dict[str, Any]:
        """The state after another step."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._optimization.config.learning_rate
        logits_TBV, _ = self._model(self._inputs, self._model.init_state(2))
        loss = loss_of(self._model.interface)(logits_TBV.flatten(0, 1), self._targets.flatten(0, 1))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._model.parameters(), self._optimization.config.clip)
        self._optimizer.step()
        return self.state()

    def fitted(self, found: Any) -> Any:
        """What was found, where it is like the state after some of the first STEPS."""
        seen = []
        for _ in range(STEPS):
            seen.append(self.step())
            try:
                return _fitted(found, seen, PREFIX)
            except SnapshotError as error:
                fault = error
        raise fault

    def continue_from(self, state: dict[str, Any]) -> None:
        """SnapshotError where the optimizer cannot."""
        self._model.load_state_dict(self._weights)
        try:
            self._optimizer.load_state_dict(deepcopy(state))
            self.step()
        except Exception as error:  # whatever an optimizer does with values that it never made
            if is_out_of_memory(error):
                raise
            raise SnapshotError(
                f"its optimizer cannot continue: {type(error).__name__}: {one_line(error, 100)}"
            ) from None
        if not all(map(is_finite, self._model.parameters())):
            raise SnapshotError("its optimizer makes weights that are not finite")


@dataclass(frozen=True)
class TensorForm:
    """What a tensor is compared by: its dtype and shape, and whether its numbers are finite."""

    form: str
    finite: bool


def _formed(value: Any) -> Any:
    if isinstance(value, Tensor):
        return TensorForm(describe(value), is_finite(value))
    if isinstance(value, Mapping):
        return {key: _formed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_formed(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def _fitted(found: Any, seen: Sequence[Any], path: str) -> Any:
    """What was found, where it is like what was seen after each step. What had different forms may
    have any. A group's setting that is missing is as it was seen: a newer PyTorch has more."""
    like, *others = seen
    if any(_form(other) != _form(like) for other in others):
        _require_finite(_formed(found), None, path)
        return found
    if isinstance(found, Mapping) and isinstance(like, Mapping):
        if path.rpartition(".")[0] == GROUPS:
            found = {**like, **found}
        for key in found.keys() ^ like.keys():
            state = "missing" if key in like else "not one of this optimizer's"
            raise SnapshotError(f"its {shown(f'{path}.{key}')} is {state}")
        return {
            key: _fitted(value, [one[key] for one in seen], f"{path}.{key}")
            for key, value in found.items()
        }
    if _form(found) != _form(like):
        raise SnapshotError(
            f"its {shown(path)} is {_form(found)}, where the training has {_form(like)}"
        )
    if path.startswith(f"{GROUPS}.") and path.endswith(".params") and found != like:
        raise SnapshotError(f"its {shown(path)} are those of another model")
    if isinstance(found, list | tuple):
        items = [
            _fitted(value, [one[index] for one in seen], f"{path}.{index}")
            for index, value in enumerate(found)
        ]
        return tuple(items) if isinstance(found, tuple) else items
    _require_finite(_formed(found), like, path)
    return found


def _form(value: Any) -> str:
    """Of a tensor, or a TensorForm: "float32 [4, 8]"; of anything else, what it is."""
    if isinstance(value, Tensor):
        return describe(value)
    if isinstance(value, TensorForm):
        return value.form
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(repr, value))}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if value is None or isinstance(value, bool):
        return "a flag"
    return "a text" if isinstance(value, str) else "a number"


def _require_finite(found: Any, like: Any, path: str) -> None:
    """SnapshotError for numbers that are not finite, unless those of `like` are not either."""
    if isinstance(found, Mapping | list | tuple):
        items = found.items() if isinstance(found, Mapping) else enumerate(found)
        for key, item in items:
            _require_finite(item, None, f"{path}.{key}")
    elif not (_finite(found) or (like is not None and not _finite(like))):
        raise SnapshotError(f"its {shown(path)} has numbers that are not finite")


def _finite(value: Any) -> bool:
    if isinstance(value, TensorForm):
        return value.finite
    return value is None or isinstance(value, str) or abs(value) < math.inf


def describe(tensor: Tensor) -> str:
    """Its dtype and shape: "float32 [4, 8]"."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def is_finite(tensor: Tensor) -> bool:
    try:
        return bool(torch.isfinite(tensor).all())
    except NotImplementedError:  # for a type of eight bits that has no infinity
        return True


def shown(name: str) -> str:
    """A name out of a file, as an error tells it."""
    return f"'{printable(name)[:MAX_NAME]}'"
