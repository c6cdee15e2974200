"""The closed-form continuous-time cell (Hasani et al. 2022, arXiv:2106.13898), over ncps.

The input's product in the backbone needs no state. To compute it outside the loop, the step is
written out over the parameters of the package's CfCCell.
"""

from typing import Annotated, Literal, NamedTuple

import torch
from ncps.torch import CfCCell
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell

Mode = Literal["default", "no_gate", "pure"]


class CfCState(NamedTuple):
    h: Tensor  # [B, H]


class CfC(Cell):
    """`rnn` holds the parameters, with the names, shapes and initial values of CfCCell."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        mode: Annotated[Mode, Field(description="Which closed form (see the equations).")] = (
            "default"
        ),
        backbone_units: Annotated[
            int, Field(ge=1, description="Units of each layer of the backbone.")
        ] = 128,
        backbone_layers: Annotated[
            int, Field(ge=1, le=16, description="Layers of the backbone.")
        ] = 1,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.mode = mode
        self.rnn = CfCCell(
            input_size,
            hidden_size,
            mode=mode,
            backbone_units=backbone_units,
            backbone_layers=backbone_layers,
        )

    def init_state(self, batch_size: int) -> CfCState:
        return CfCState(self.zeros(batch_size, self.hidden_size))

    def state_bounds(self) -> dict[str, float]:
        bounds = {"default": 1.0, "no_gate": 2.0}  # a weighted mean of two tanh, or their sum
        return {"h": bounds[self.mode]} if self.mode in bounds else {}

    def project(self, x: Tensor) -> Tensor:
        first = self._backbone()[0]
        return x @ first.weight[:, : self.input_size].T + first.bias

    def advance(self, z: Tensor, state: CfCState) -> tuple[Tensor, CfCState]:
        first, *others = self._backbone()
        u = _lecun_tanh(z + state.h @ first.weight[:, self.input_size :].T)
        for layer in others:
            u = _lecun_tanh(_apply(layer, u))
        g = _apply(self.rnn.ff1, u)
        if self.mode == "pure":
            decay = torch.exp(-(self.rnn.w_tau.abs() + g.abs()))
            h = self.rnn.A - self.rnn.A * decay * g
        else:
            late = torch.sigmoid(_apply(self.rnn.time_a, u) + _apply(self.rnn.time_b, u))
            g, k = torch.tanh(g), torch.tanh(_apply(self.rnn.ff2, u))
            h = g + late * k if self.mode == "no_gate" else (1 - late) * g + late * k
        h = h.to(state.h.dtype)
        return h, CfCState(h)

    def _backbone(self) -> list[nn.Linear]:
        return [layer for layer in self.rnn.backbone if isinstance(layer, nn.Linear)]


def _apply(layer: nn.Linear, x: Tensor) -> Tensor:
    """Written out, so that ONNX Runtime's integer kernels can compute it."""
    return x @ layer.weight.T + layer.bias


def _lecun_tanh(x: Tensor) -> Tensor:
    return 1.7159 * torch.tanh(0.666 * x)
