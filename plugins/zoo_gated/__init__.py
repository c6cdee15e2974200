"""Gated cells: GRU and LSTM, each written from its equations and as a wrapper of torch.nn's."""

from collections.abc import Iterable

from zoo import CellSpec, ModelCard, StateField, hookimpl

GRU_PAPER = (
    "Learning phrase representations using RNN encoder-decoder for statistical machine "
    "translation, EMNLP 2014, arXiv:1406.1078"
)
LSTM_PAPER = (
    "Long short-term memory, Neural Computation 9(8), 1735-1780, with the forget gate of Gers, "
    "Schmidhuber and Cummins (2000)"
)
GRU_AUTHORS = "Kyunghyun Cho, Bart van Merriënboer, Caglar Gulcehre and others"
LSTM_AUTHORS = "Sepp Hochreiter and Jürgen Schmidhuber"
FORGET_BIAS = (
    "forget_bias=1 keeps more of the memory at first. A positive bias is in Gers et al. (2000), 1 "
    "in Jozefowicz, Zaremba and Sutskever, An empirical exploration of recurrent network "
    "architectures, ICML 2015."
)
HIDDEN = StateField("h", "the hidden state")
MEMORY = StateField("c", "the memory cell")


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    return [
        CellSpec(
            name="gru-scratch",
            learning_rate=4e-3,
            factory="zoo_gated.gru:GRUScratch",
            card=ModelCard(
                title="Gated recurrent unit, from its equations",
                authors=GRU_AUTHORS,
                year=2014,
                paper=GRU_PAPER,
                equations=(
                    "R_t = σ(X_t W_xr + H_{t-1} W_hr + b_r)",
                    "Z_t = σ(X_t W_xz + H_{t-1} W_hz + b_z)",
                    "H̃_t = tanh(X_t W_xh + (R_t ⊙ H_{t-1}) W_hh + b_h)         reset=before",
                    "H̃_t = tanh(X_t W_xh + R_t ⊙ (H_{t-1} W_hh + b_hh) + b_h)  reset=after",
                    "H_t = Z_t ⊙ H_{t-1} + (1 - Z_t) ⊙ H̃_t",
                ),
                state=(HIDDEN,),
                checked_against="ONNX's GRU operator (reset=before) and torch.nn.GRU (after), "
                "given its weights",
                notes="The textbook Dive into Deep Learning (section 10.2) resets the state before "
                "its product with W_hh, as the paper does; torch.nn.GRU and cuDNN reset the "
                "product. Both are valid, and compute different functions with equal "
                "weights.",
            ),
        ),
        CellSpec(
            name="gru",
            learning_rate=4e-3,
            factory="zoo_gated.gru:GRU",
            adopt="zoo_gated.gru:adopt",
            card=ModelCard(
                title="Gated recurrent unit, over torch.nn.GRU",
                authors=GRU_AUTHORS,
                year=2014,
                paper=GRU_PAPER,
                equations=(
                    "r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)",
                    "z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)",
                    "n_t = tanh(W_in x_t + b_in + r_t ⊙ (W_hn h_{t-1} + b_hn))",
                    "h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}",
                ),
                state=(HIDDEN,),
                checked_against="torch.nn.GRU, whose kernels it uses for whole sequences",
            ),
        ),
        CellSpec(
            name="lstm-scratch",
            learning_rate=8e-3,
            factory="zoo_gated.lstm:LSTMScratch",
            card=ModelCard(
                title="Long short-term memory, from its equations",
                authors=LSTM_AUTHORS,
                year=1997,
                paper=LSTM_PAPER,
                equations=(
                    "I_t = σ(X_t W_xi + H_{t-1} W_hi + b_i)",
                    "F_t = σ(X_t W_xf + H_{t-1} W_hf + b_f)",
                    "O_t = σ(X_t W_xo + H_{t-1} W_ho + b_o)",
                    "C̃_t = tanh(X_t W_xc + H_{t-1} W_hc + b_c)",
                    "C_t = F_t ⊙ C_{t-1} + I_t ⊙ C̃_t",
                    "H_t = O_t ⊙ tanh(C_t)",
                ),
                state=(HIDDEN, MEMORY),
                checked_against="torch.nn.LSTM, with its weights",
                notes="As in section 10.1 of Dive into Deep Learning. " + FORGET_BIAS,
            ),
        ),
        CellSpec(
            name="lstm",
            learning_rate=8e-3,
            factory="zoo_gated.lstm:LSTM",
            adopt="zoo_gated.lstm:adopt",
            card=ModelCard(
                title="Long short-term memory, over torch.nn.LSTM",
                authors=LSTM_AUTHORS,
                year=1997,
                paper=LSTM_PAPER,
                equations=(
                    "i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)",
                    "f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)",
                    "g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)",
                    "o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)",
                    "c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t",
                    "h_t = o_t ⊙ tanh(c_t)",
                ),
                state=(HIDDEN, MEMORY),
                checked_against="torch.nn.LSTM, whose kernels it uses for whole sequences",
                notes=FORGET_BIAS,
            ),
        ),
    ]
