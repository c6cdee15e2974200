"""Extended long short-term memory (xLSTM): cells with exponential gates."""

from collections.abc import Iterable

from zoo import CellSpec, ModelCard, StateField, hookimpl

AUTHORS = "Maximilian Beck, Korbinian Pöppel, Markus Spanring and others"
PAPER = "xLSTM: Extended long short-term memory, NeurIPS 2024, arXiv:2405.04517"


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    return [
        CellSpec(
            name="mlstm",
            factory="zoo_xlstm.mlstm:MLSTM",
            learning_rate=1e-2,
            card=ModelCard(
                title="mLSTM: an LSTM with a matrix memory and exponential input gates",
                authors=AUTHORS,
                year=2024,
                paper=PAPER,
                equations=(
                    "q_t = x_t W_q + b_q,   k_t = x_t W_k / √d + b_k,   v_t = x_t W_v + b_v",
                    "ĩ_t = x_t W_i + b_i,   f_t = σ(x_t W_f + b_f),   o_t = σ(x_t W_o + b_o)",
                    "m_t = max(log f_t + m_{t-1}, ĩ_t)",
                    "f'_t = exp(log f_t + m_{t-1} - m_t),   i'_t = exp(ĩ_t - m_t)",
                    "C_t = f'_t C_{t-1} + i'_t k_t v_tᵀ",
                    "n_t = f'_t n_{t-1} + i'_t k_t",
                    "h̃_t = C_tᵀ q_t / max(|n_tᵀ q_t|, exp(-m_t))",
                    "y_t = (o_t ⊙ LayerNorm(h̃_t)) W_out",
                ),
                state=(
                    StateField("C", "each head's memory: keys by values"),
                    StateField("n", "each head's normaliser, the sum of its keys"),
                    StateField("m", "the logarithm that C and n are scaled by"),
                ),
                parallel=True,
                checked_against="xLSTMLayer of transformers; mLSTM backends of the package xlstm",
                notes="Equations 19 to 27 of the paper, with the stabiliser of its appendix A. "
                "Included are the projections, the norm of each head and the output gate; an "
                "output projection joins the heads, as in xLSTM 7B (arXiv:2503.13427). The block "
                "around it is not: no up-projection, convolution, skip or residual connection. C "
                "is the transpose of the paper's. A head has a quarter of the hidden units "
                "(another share by the option `heads`), rounded up, and at least 4. "
                "The norm's epsilon is 1e-4.",
            ),
        ),
        CellSpec(
            name="slstm",
            factory="zoo_xlstm.slstm:SLSTM",
            learning_rate=1e-2,
            card=ModelCard(
                title="sLSTM: an LSTM with exponential input gates and a normaliser",
                authors=AUTHORS,
                year=2024,
                paper=PAPER,
                equations=(
                    "ĩ_t = x_t W_i + h_{t-1} R_i + b_i,   likewise f̃_t, z̃_t and õ_t",
                    "log f_t = log σ(f̃_t),   z_t = tanh(z̃_t),   o_t = σ(õ_t)",
                    "m_t = max(log f_t + m_{t-1}, ĩ_t)",
                    "f'_t = exp(log f_t + m_{t-1} - m_t),   i'_t = exp(ĩ_t - m_t)",
                    "c_t = f'_t ⊙ c_{t-1} + i'_t ⊙ z_t",
                    "n_t = f'_t ⊙ n_{t-1} + i'_t",
                    "h_t = o_t ⊙ c_t / n_t",
                ),
                state=(
                    StateField("h", "the hidden state"),
                    StateField("c", "the memory"),
                    StateField("n", "the normaliser"),
                    StateField("m", "the logarithm that c and n are scaled by"),
                ),
                checked_against="slstm_forward of the package xlstm",
                notes="Equations 8 to 18 of the paper, with the sigmoid forget gate. The matrices "
                "R are block-diagonal: units are mixed within a head. The number of heads is "
                "the largest divisor of the hidden size up to the option `heads`. The norm, "
                "convolution and projections of the block around it are not included.",
            ),
        ),
    ]
