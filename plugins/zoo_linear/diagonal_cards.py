"""Diagonal recurrences: LRU, S4D, S5, and the RG-LRU of Griffin."""

from zoo import CellSpec, ModelCard, StateField

LRU = CellSpec(
    name="lru",
    factory="zoo_linear.lru:LRU",
    learning_rate=6e-3,
    card=ModelCard(
        title="Linear recurrent unit",
        authors="Antonio Orvieto, Samuel L. Smith, Albert Gu and others",
        year=2023,
        paper="Resurrecting recurrent neural networks for long sequences, ICML 2023, "
        "arXiv:2303.06349",
        equations=(
            "λ = exp(-exp(ν) + i exp(θ))",
            "h_t = λ ⊙ h_{t-1} + γ ⊙ (B x_t)      complex",
            "y_t = Re(C h_t) + D x_t",
            "out_t = GLU(GELU(y_t))",
        ),
        state=(
            StateField("h.re", "the state's real part"),
            StateField("h.im", "the state's imaginary part"),
        ),
        parallel=True,
        checked_against="the equations in numpy's complex arithmetic",
        notes="Includes the mixing of the paper's block, GELU and GLU, without which a layer would "
        "be linear, but not its normalisation and residual connection. B and D are matrices from "
        "the input's size, so that no projection comes before (the authors' code has a diagonal D, "
        "for equal sizes). ν, θ and γ are learned, by logarithm. `states` is N, where the state's "
        "fields here say hidden.",
    ),
)

S4D = CellSpec(
    name="s4d",
    factory="zoo_linear.s4d:S4D",
    learning_rate=1e-2,
    card=ModelCard(
        title="Diagonal structured state space, S4D",
        authors="Albert Gu, Ankit Gupta, Karan Goel and Christopher Ré",
        year=2022,
        paper="On the parameterization and initialization of diagonal state space models, "
        "NeurIPS 2022, arXiv:2206.11893",
        equations=(
            "u_t = W x_t + b",
            "A = -exp(α) + iω,   Ā = exp(ΔA),   B̄ = (Ā - 1)/A      for each channel",
            "h_t = Ā ⊙ h_{t-1} + B̄ u_t                             complex",
            "y_t = 2 Re(C h_t) + D u_t",
            "out_t = GLU(GELU(y_t))",
            "A_n = -1/2 + iπn                       at first, init=lin",
            "A_n = -1/2 + i (N/π)(N/(2n+1) - 1)     at first, init=inv",
        ),
        state=(
            StateField("h.re", "the real parts of each channel's modes"),
            StateField("h.im", "the imaginary parts of each channel's modes"),
        ),
        parallel=True,
        checked_against="the convolution with the kernel, and the recurrence over all N modes, in "
        "numpy's complex arithmetic",
        notes="The zero-order hold, with B = 1 (C absorbs it) and C, D, Δ and A learned. Includes "
        "a linear map W to the channels, where the paper's model has one before all layers, and "
        "the mixing of the paper's block, GELU and GLU, but not its normalisation and residual "
        "connection. `modes` is N/2, the pairs of conjugate modes; of each pair one is kept.",
    ),
)

S5 = CellSpec(
    name="s5",
    factory="zoo_linear.s5:S5",
    learning_rate=1e-2,
    card=ModelCard(
        title="Simplified state-space layer, S5",
        authors="Jimmy T. H. Smith, Andrew Warrington and Scott W. Linderman",
        year=2022,
        paper="Simplified state space layers for sequence modeling, ICLR 2023, arXiv:2208.04933",
        equations=(
            "Λ̄ = exp(ΛΔ),   B̄ = Λ⁻¹(Λ̄ - 1) B̃",
            "h_t = Λ̄ ⊙ h_{t-1} + B̄ x_t            complex",
            "y_t = 2 Re(C̃ h_t) + D x_t",
            "g_t = GELU(y_t)",
            "out_t = g_t ⊙ σ(W g_t + b)",
        ),
        state=(
            StateField("h.re", "the modes' real parts"),
            StateField("h.im", "the modes' imaginary parts"),
        ),
        parallel=True,
        checked_against="the real system before it was diagonalised, by matrix exponentials, and "
        "the equations in numpy's complex arithmetic",
        notes="The state is initialised as `blocks` copies of HiPPO-N, of `pairs` pairs of "
        "conjugate modes each, with a Δ for each mode; of each pair one is kept. Includes the "
        "paper's gated output, but not its normalisation and residual connection. B̃ and D are "
        "matrices from the input's size (the paper's D is diagonal, for equal sizes). The real "
        "part of Λ is -exp of what is learned, as in S4D: the authors' code learns it directly, "
        "clipped below zero for long sequences.",
    ),
)

RG_LRU = CellSpec(
    name="rg-lru",
    factory="zoo_linear.rg_lru:RGLRU",
    hidden_sizes="zoo_linear.rg_lru:takes",
    learning_rate=6e-3,
    card=ModelCard(
        title="Griffin's recurrent block, with the real-gated linear recurrent unit",
        authors="Soham De, Samuel L. Smith, Anushan Fernando and others",
        year=2024,
        paper="Griffin: mixing gated linear recurrences with local attention for efficient "
        "language models, arXiv:2402.19427",
        equations=(
            "g_t = GeLU(W_y x_t + b_y),   v_t = W_x x_t + b_x",
            "u_t = b_c + Σ_{j=0..3} w_j ⊙ v_{t-3+j}",
            "r_t = σ(W_a u_t + b_a),   i_t = σ(W_i u_t + b_i)",
            "log a_t = c r_t ⊙ log σ(Λ),   c = 8",
            "h_t = a_t ⊙ h_{t-1} + √(1 - a_t²) ⊙ (i_t ⊙ u_t),   h_1 = i_1 ⊙ u_1",
            "y_t = W_o (h_t ⊙ g_t) + b_o",
        ),
        state=(
            StateField("h", "the recurrence's state"),
            StateField("window", "the last inputs of the convolution"),
            StateField("begun", "0 before the first step of a sequence, then 1"),
        ),
        parallel=True,
        checked_against="RecurrentGemma's block in transformers, given the same weights",
        notes="The whole recurrent block; the normalisation before it, the residual connection "
        "around it and the gated MLP after it are not included. W_a and W_i are block-diagonal. "
        "All inner layers have `hidden` features. The first step of a sequence is not scaled by "
        "the root, as in RecurrentGemma's code; 1 - a² is at least 2.5e-7, which bounds the root's "
        "slope at 1000, where that code clips the gradient.",
    ),
)

DIAGONAL: tuple[CellSpec, ...] = (LRU, S4D, S5, RG_LRU)
