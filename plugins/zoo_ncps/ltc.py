"""The liquid time-constant cell (Hasani et al. 2021, arXiv:2006.04439), over ncps.

The equation of the potentials v, with synapses from each unit i to each unit j,

    cm_j dv_j/dt = gleak_j (vleak_j - v_j) + Σ_i w_ij σ(sigma_ij (v_i - mu_ij)) (erev_ij - v_j)

and likewise from each input, is solved by the paper's fused (semi-implicit) Euler steps.

The package's LTCCell reads its parameters from a dictionary of its own, which
torch.func.functional_call and the like cannot replace, and has masks among them that are all ones
here. So its parameters are copied and the step is written out.
"""

from typing import Annotated, NamedTuple

import torch
from ncps.torch import LTCCell
from ncps.wirings import FullyConnected
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from zoo import Cell

EPSILON = 1e-8  # the package's, in the divisor


class LTCState(NamedTuple):
    v: Tensor  # [B, H]


class Currents(NamedTuple):
    """Currents from the inputs: Σ_i s_ij sensory_erev_ij and Σ_i s_ij, each [..., H]."""

    reversal: Tensor
    conductance: Tensor


class LTC(Cell):
    """The parameters have the names, shapes and initial values of LTCCell: `cm`, `gleak` and
    `vleak` [H], `w`, `sigma`, `mu` and `erev` [H, H], those of the inputs [I, H]."""

    cm: Tensor
    gleak: Tensor
    vleak: Tensor
    w: Tensor
    sigma: Tensor
    mu: Tensor
    erev: Tensor
    sensory_w: Tensor
    sensory_sigma: Tensor
    sensory_mu: Tensor
    sensory_erev: Tensor
    input_w: Tensor
    input_b: Tensor
    output_w: Tensor
    output_b: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        ode_unfolds: Annotated[
            int, Field(ge=1, le=100, description="Solver steps per step of the cell.")
        ] = 6,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.ode_unfolds = ode_unfolds
        theirs = LTCCell(FullyConnected(hidden_size), input_size, implicit_param_constraints=True)
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(name, parameter)

    def init_state(self, batch_size: int) -> LTCState:
        return LTCState(self.zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Currents:
        x = (x * self.input_w + self.input_b).unsqueeze(-1)
        open_gates = torch.sigmoid(self.sensory_sigma * (x - self.sensory_mu))
        conductance = F.softplus(self.sensory_w) * open_gates  # [..., I, H]
        return Currents((conductance * self.sensory_erev).sum(-2), conductance.sum(-2))

    def advance(self, z: Currents, state: LTCState) -> tuple[Tensor, LTCState]:
        v = state.v
        capacity = F.softplus(self.cm) * self.ode_unfolds  # cm / length of a solver step
        leak, w = F.softplus(self.gleak), F.softplus(self.w)
        for _ in range(self.ode_unfolds):
            open_gates = torch.sigmoid(self.sigma * (v.unsqueeze(-1) - self.mu))
            conductance = w * open_gates  # [B, H, H]
            drive = capacity * v + leak * self.vleak
            drive = drive + (conductance * self.erev).sum(-2) + z.reversal
            v = drive / (capacity + leak + conductance.sum(-2) + z.conductance + EPSILON)
        v = v.to(state.v.dtype)
        return v, LTCState(v)

    def readout(self, h: Tensor, z: Currents) -> Tensor:
        return h * self.output_w + self.output_b
