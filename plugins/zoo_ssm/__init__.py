"""Selective state space models, whose parameters depend on the input: the mixers of Mamba and
Mamba-2."""

from collections.abc import Iterable

from zoo import CellSpec, ModelCard, StateField, hookimpl

LEFT_TO_THE_STACK = (
    "The residual connection and the norm before the mixer are not included. The input and output "
    "projections have no bias, as in the authors' code."
)


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    return [
        CellSpec(
            name="mamba",
            factory="zoo_ssm.mamba:Mamba",
            learning_rate=6e-3,
            card=ModelCard(
                title="Mamba: a selective state space model (S6), the whole mixer",
                authors="Albert Gu and Tri Dao",
                year=2023,
                paper="Mamba: Linear-time sequence modeling with selective state spaces, "
                "arXiv:2312.00752",
                equations=(
                    "x_t, z_t = W_in input_t",
                    "u_t = SiLU(Σ_j W_conv,j ⊙ x_{t-K+1+j} + b_conv)",
                    "Δ_t = softplus(W_Δ W_r u_t + b_Δ),  B_t = W_B u_t,  C_t = W_C u_t",
                    "h_t = exp(Δ_t A) ⊙ h_{t-1} + (Δ_t ⊙ u_t) B_tᵀ,  A = -exp(A_log)",
                    "y_t = W_out ((h_t C_t + D ⊙ u_t) ⊙ SiLU(z_t))",
                ),
                state=(
                    StateField("window", "the convolution's last inputs"),
                    StateField("h", "the state of each inner feature"),
                ),
                parallel=True,
                checked_against=(
                    "transformers' MambaMixer in PyTorch, over sequences and step by step"
                ),
                notes="B is discretised as Δ B, as in the authors' code; equation 4 of the paper, "
                "zero-order hold, is (Δ A)⁻¹ (exp(Δ A) - I) Δ B. complex_state=true: "
                "A = -exp(A_log) + i A_im, complex h, B_t and C_t, and 2 Re(h_t C_t) for h_t C_t "
                "(section 3.6). " + LEFT_TO_THE_STACK,
            ),
        ),
        CellSpec(
            name="mamba2",
            factory="zoo_ssm.mamba2:Mamba2",
            learning_rate=1e-2,
            card=ModelCard(
                title="Mamba-2: state space duality (SSD), the whole mixer",
                authors="Tri Dao and Albert Gu",
                year=2024,
                paper="Transformers are SSMs: Generalized models and efficient algorithms through "
                "structured state space duality, arXiv:2405.21060",
                equations=(
                    "z_t, x_t, B_t, C_t, Δ_t = W_in input_t",
                    "x_t, B_t, C_t = SiLU(Σ_j W_conv,j ⊙ [x, B, C]_{t-K+1+j} + b_conv)",
                    "Δ_t = softplus(Δ_t + b_Δ),  A = -exp(A_log)                 for each head:",
                    "h_t = exp(Δ_t A) h_{t-1} + B_t (Δ_t x_t)ᵀ",
                    "y_t = h_tᵀ C_t + D x_t",
                    "output_t = W_out RMSNorm(y_t ⊙ SiLU(z_t))",
                ),
                state=(
                    StateField("window", "the convolution's last inputs"),
                    StateField("h", "the state of each head"),
                ),
                parallel=True,
                checked_against=(
                    "transformers' Mamba2Mixer in PyTorch, over sequences and step by step"
                ),
                notes="One group: all heads share B and C. The heads are of one size, at most 64 "
                "features, and as few as possible; together they have 2 * hidden features, "
                "rounded up. The authors' default state_size is 128; Mamba's 16 does as well "
                "in small character models. " + LEFT_TO_THE_STACK,
            ),
        ),
    ]
