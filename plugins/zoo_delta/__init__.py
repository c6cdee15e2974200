"""Cells with a matrix-valued state: gated linear attention and the delta rule."""

from collections.abc import Iterable

from zoo import CellSpec, ModelCard, StateField, hookimpl

NAIVE = "the recurrence: flash-linear-attention's naive {}; the layer: its equations in a loop"
MEMORY = "keys to values, by head"
CONVOLVED = "the short convolution's last inputs"
NEGATIVE = (
    "negative_eigenvalues=true: β_t = 2 σ(x_t W_β), after Grazzi, Siems, Zela, Franke, Hutter and "
    "Pontil, Unlocking state-tracking in linear RNNs through negative eigenvalues, ICLR 2025, "
    "arXiv:2411.12537. "
)


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    return [
        CellSpec(
            name="gla",
            factory="zoo_delta.gla:GLA",
            learning_rate=6e-3,
            card=ModelCard(
                title="Gated linear attention",
                authors="Songlin Yang, Bailin Wang, Yikang Shen, Rameswar Panda, Yoon Kim",
                year=2023,
                paper="Gated linear attention transformers with hardware-efficient training, ICML "
                "2024, arXiv:2312.06635",
                equations=(
                    "q_t, k_t, v_t = x_t W_q, x_t W_k, x_t W_v",
                    "α_t = σ(x_t W_α1 W_α2 + b_α)^(1/τ),  τ = 16",
                    "S_t = diag(α_t) S_{t-1} + k_tᵀ v_t          for each head",
                    "o_t = q_t S_t / √K",
                    "y_t = (swish(x_t W_r) ⊙ RMSNorm(o_t)) W_O",
                ),
                state=(StateField("S", MEMORY),),
                parallel=True,
                checked_against=NAIVE.format("GLA"),
                notes="The layer with its norm, output gate and output projection; layer norms, "
                "residual connections and the MLP are not included. The scale 1/√K and the "
                "RMS norm without a bias are those of the authors' code, which also has no "
                "b_r.",
            ),
        ),
        CellSpec(
            name="deltanet",
            factory="zoo_delta.deltanet:DeltaNet",
            learning_rate=6e-3,
            card=ModelCard(
                title="DeltaNet: linear attention with the delta rule",
                authors="Imanol Schlag, Kazuki Irie, Jürgen Schmidhuber; Songlin Yang, Bailin Wang,"
                " Yu Zhang, Yikang Shen, Yoon Kim",
                year=2021,
                paper="Linear transformers are secretly fast weight programmers, ICML 2021, "
                "arXiv:2102.11174; Parallelizing linear transformers with the delta rule over "
                "sequence length, NeurIPS 2024, arXiv:2406.06484",
                equations=(
                    "q_t, k_t = SiLU(conv(x W_q)_t), SiLU(conv(x W_k)_t), each divided by its norm",
                    "v_t = SiLU(conv(x W_v)_t),  β_t = σ(x_t W_β)",
                    "S_t = (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ    for each head",
                    "o_t = S_tᵀ q_t / √K",
                    "y_t = RMSNorm(o_t) W_O",
                ),
                state=(
                    StateField("S", MEMORY),
                    StateField("window", CONVOLVED),
                ),
                parallel=True,
                checked_against=NAIVE.format("delta rule"),
                notes="The layer of the later paper. conv has kernel size 4 and no bias; "
                "short_conv=false removes it, and `window` from the state. " + NEGATIVE + "Layer "
                "norms, residual connections and the MLP are not included.",
            ),
        ),
        CellSpec(
            name="gated-deltanet",
            factory="zoo_delta.gated_deltanet:GatedDeltaNet",
            learning_rate=6e-3,
            card=ModelCard(
                title="Gated DeltaNet",
                authors="Songlin Yang, Jan Kautz, Ali Hatamizadeh",
                year=2024,
                paper="Gated delta networks: improving Mamba2 with delta rule, ICLR 2025, "
                "arXiv:2412.06464",
                equations=(
                    "q_t, k_t = SiLU(conv(x W_q)_t), SiLU(conv(x W_k)_t), each divided by its norm",
                    "v_t = SiLU(conv(x W_v)_t),  β_t = σ(x_t W_β)",
                    "α_t = exp(-exp(A) softplus(x_t W_α + b_Δ))        a number for each head",
                    "S_t = α_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ",
                    "o_t = S_tᵀ q_t / √K",
                    "y_t = (SiLU(x_t W_g) ⊙ RMSNorm(o_t)) W_O",
                ),
                state=(
                    StateField("S", MEMORY),
                    StateField("window", CONVOLVED),
                ),
                parallel=True,
                checked_against=NAIVE.format("gated delta rule"),
                notes="The widths of the authors' code: keys of ¾ and values of 1½ times the "
                "hidden size in all. conv has kernel size 4 and no bias; short_conv=false "
                "removes it, and `window` from the state. " + NEGATIVE + "Layer norms, residual "
                "connections and the MLP are not included.",
            ),
        ),
        CellSpec(
            name="rwkv7",
            factory="zoo_delta.rwkv7:RWKV7",
            learning_rate=3e-3,
            card=ModelCard(
                title="RWKV-7 Goose, time mixing",
                authors="Bo Peng, Ruichong Zhang, Daniel Goldstein and others",
                year=2025,
                paper='RWKV-7 "Goose" with expressive dynamic state evolution, arXiv:2503.14456',
                equations=(
                    "x^□_t = x_t + μ_□ ⊙ (x_{t-1} - x_t)            □ one of r, w, k, v, a, g",
                    "r_t, k_t, v_t = x^r_t W_r, x^k_t W_k, x^v_t W_v",
                    "w_t = exp(-e^{-1/2} σ(tanh(x^w_t W_w1) W_w2 + b_w))",
                    "a_t = σ(x^a_t W_a1 W_a2 + b_a),  g_t = σ(x^g_t W_g1) W_g2",
                    "κ_t = k_t ⊙ ξ,  k̃_t = k_t ⊙ (1 + (a_t - 1) ⊙ α)",
                    "S_t = S_{t-1} (diag(w_t) - κ̂_tᵀ (a_t ⊙ κ̂_t)) + v_tᵀ k̃_t,  κ̂ = κ / |κ|",
                    "p_t = LayerNorm(r_t S_tᵀ) + (r_t · (ρ ⊙ k̃_t)) v_t            by head",
                    "y_t = (g_t ⊙ p_t) W_o",
                ),
                state=(
                    StateField("S", MEMORY),
                    StateField("x", "the previous input, x_{t-1}"),
                ),
                parallel=True,
                checked_against=NAIVE.format("diagonal plus low rank delta rule"),
                notes="One layer of time mixing. The value residual is not included: in the paper "
                "the values of later layers are mixed with the first layer's, and the first "
                "layer has none. Some initial weights are larger than the authors', which "
                "rely on a layer norm before the layer and a residual connection around it: "
                "W_r, W_k and W_v by √inputs, W_g2 by ten, and W_o is not zero. Channel "
                "mixing, layer norms and residual connections are not included.",
            ),
        ),
    ]
