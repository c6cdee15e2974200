"""Cells of the optional package ncps; without it this plugin provides none."""

from collections.abc import Iterable
from importlib.util import find_spec

from zoo import CellSpec, ModelCard, StateField, hookimpl

CFC_PAPER = (
    "Closed-form continuous-time neural networks, Nature Machine Intelligence 4, 992-1003, "
    "arXiv:2106.13898"
)
LTC_PAPER = "Liquid time-constant networks, AAAI 2021, arXiv:2006.04439"
PARAMETERS = (
    "The parameters are those of the package, with its names, shapes and initial values; the step "
    "is written out over them. Every step has a time interval of 1."
)


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    if find_spec("ncps") is None:
        return []
    return [
        CellSpec(
            name="cfc",
            factory="zoo_ncps.cfc:CfC",
            learning_rate=1e-3,
            card=ModelCard(
                title="Closed-form continuous-time cell, over ncps",
                authors="Ramin Hasani, Mathias Lechner, Alexander Amini and others",
                year=2022,
                paper=CFC_PAPER,
                equations=(
                    "u_t = 1.7159 tanh(0.666 (W [x_t, h_{t-1}] + b))                backbone",
                    "g_t = ff1(u_t),   k_t = ff2(u_t),   τ_t = σ(time_a(u_t) + time_b(u_t))",
                    "h_t = (1 - τ_t) ⊙ tanh(g_t) + τ_t ⊙ tanh(k_t)           mode=default",
                    "h_t = tanh(g_t) + τ_t ⊙ tanh(k_t)                       mode=no_gate",
                    "h_t = A - A ⊙ exp(-(|w_tau| + |g_t|)) ⊙ g_t             mode=pure",
                ),
                state=(StateField("h", "the hidden state"),),
                checked_against="CfCCell of the package ncps",
                notes=f"{PARAMETERS} ff1, ff2, time_a and time_b are linear with a bias. Fully "
                "connected; no neural circuit policy, and no LSTM beside it (mixed memory).",
            ),
        ),
        CellSpec(
            name="ltc",
            factory="zoo_ncps.ltc:LTC",
            card=ModelCard(
                title="Liquid time-constant cell, over ncps",
                authors="Ramin Hasani, Mathias Lechner, Alexander Amini and others",
                year=2021,
                paper=LTC_PAPER,
                equations=(
                    "x' = input_w ⊙ x_t + input_b",
                    "s_ij = sensory_w_ij σ(sensory_sigma_ij (x'_i - sensory_mu_ij))",
                    "a_ij = w_ij σ(sigma_ij (v_i - mu_ij))",
                    "p_j = Σ_i a_ij erev_ij + Σ_i s_ij sensory_erev_ij",
                    "q_j = Σ_i a_ij + Σ_i s_ij",
                    "v ← (6 cm ⊙ v + gleak ⊙ vleak + p) / (6 cm + gleak + q)      six times",
                    "y_t = output_w ⊙ v + output_b",
                ),
                state=(StateField("v", "the neurons' potentials"),),
                checked_against="LTCCell of the package ncps",
                notes=f"{PARAMETERS} w, sensory_w, cm and gleak go through softplus first, as "
                "in the package's LTC. Fully connected; no neural circuit policy. Each step is "
                "divided into `ode_unfolds` steps of the fused solver. Each pair of units has a "
                "synapse with its own sigmoid, so that nothing is a matrix product: time and "
                "memory grow with (6 · hidden + input) · hidden for each step and row.",
            ),
        ),
    ]
