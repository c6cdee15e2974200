"""The contract of a recurrent cell.

Shape legend, used as suffixes where layouts meet:
    T time steps, B batch, I input features, H hidden units, V vocabulary, L layers.
Sequences are time-major ([T, B, I]), as in torch.nn.RNN; states are batch-first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.nn.state import map_leaves, unbind


class Cell(nn.Module):
    """A recurrent cell, as three equations:

        z = project(x)                    what needs no state
        h, state' = advance(z, state)     the recurrence, one step
        y = readout(h, z)                 what needs no state any more

    In training, `project` and `readout` see whole sequences at once and only `advance` runs step
    by step; both must therefore act on the last axis alone. A cell writes `init_state` and
    `advance`, and whichever of the other two its equations can spare the loop.

    State is data: `advance` takes it and returns it, changes nothing in place and keeps nothing on
    `self`. Its type is a NamedTuple of tensors, even when it holds one; its leaves keep their
    shapes and dtypes.

    A cell that computes a whole sequence faster than step by step overrides
    `scan`; one whose fast path also computes `project` itself overrides `forward`. Either must
    give what repeated steps give.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size

    @property
    def output_size(self) -> int:
        """Features of `y`; `hidden_size` unless a cell says otherwise."""
        return self.hidden_size

    def init_state(self, batch_size: int) -> Any:
        """The state before the first step: a NamedTuple of tensors [B, …]."""
        raise NotImplementedError

    def state_bounds(self) -> dict[str, float]:
        """The largest size of the values of each leaf that has one by the equations, whatever the
        weights and inputs, provided that the state before was within it: {"h": 1.0} for a tanh.
        Integer arithmetic then needs no search for the largest value."""
        return {}

    def recurrent_weights(self) -> dict[str, int]:
        """The parameters that multiply the state, by name, each with its axis of the state's units:
        {"W_hh": 0} for h W_hh. Recurrent dropout drops units there; a cell that names none trains
        without it."""
        return {}

    def project(self, x: Tensor) -> Any:
        """`z`, a tensor or a NamedTuple of tensors, from inputs [..., I]."""
        return x

    def advance(self, z: Any, state: Any) -> tuple[Any, Any]:
        """One step of the recurrence, from [B, …] to the pair (h, next state)."""
        raise NotImplementedError

    def scan(self, z_T: Any, state: Any) -> tuple[Any, Any]:
        """The recurrence over a whole sequence, from z [T, B, …] to the pair (h [T, B, …], state
        after the last step): `advance`, step by step, unless a cell overrides it with a faster
        one."""
        outputs = []
        for z in unbind(z_T):
            h, state = self.advance(z, state)
            outputs.append(h)
        return map_leaves(lambda *steps: torch.stack(steps), *outputs), state

    def readout(self, h: Any, z: Any) -> Tensor:
        """The outputs [..., output_size]."""
        return h  # type: ignore[no-any-return]

    def step(self, x_BI: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One whole step: outputs [B, output_size] and the next state."""
        z = self.project(x_BI)
        h, state = self.advance(z, state)
        return self.readout(h, z), state

    def forward(self, x_TBI: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """A whole sequence: outputs [T, B, output_size] and the state after the last step.

        Without a `state` it starts from `init_state`. T is at least 1.
        """
        if state is None:
            state = self.init_state(x_TBI.shape[1])
        z_T = self.project(x_TBI)
        h_T, state = self.scan(z_T, state)
        return self.readout(h_T, z_T), state

    def zeros(self, batch_size: int, *shape: int) -> Tensor:
        """A leaf of zeros [B, *shape] in the dtype and on the device of the parameters."""
        return next(self.parameters()).new_zeros(batch_size, *shape)
