"""Cells that discretise a dynamical system, and the strongly typed ones. See `entry.Entry`."""

from zoo import StateField
from zoo_torchrecurrent.entry import LAST_INPUT, C, Entry, H

ANTISYMMETRIC = (
    "AntisymmetricRNN: a dynamical system view on recurrent neural networks, ICLR 2019, "
    "arXiv:1902.09689"
)
ANTISYMMETRIC_AUTHORS = "Bo Chang, Minmin Chen, Eldad Haber and Ed H. Chi"
ANTISYMMETRIC_NOTES = (
    "W_h is initialised from N(0, 1/hidden), as in the paper, ε is 0.1 and γ 0.5; torchrecurrent's "
    "defaults are N(0, 1), ε = 1 and γ = 0. With a small γ the state sums up the inputs of a long "
    "text, and training fails (a validation perplexity of 40 after 60,000 characters, against 27). "
    "Options: epsilon, gamma."
)
FAST = (
    "FastGRNN: a fast, accurate, stable and tiny kilobyte sized gated recurrent neural network, "
    "NeurIPS 2018, arXiv:1901.02358"
)
FAST_AUTHORS = "Aditya Kusupati, Manish Singh, Kush Bhatia, Ashish Kumar and others"
TYPED = "Strongly-typed recurrent neural networks, ICML 2016, arXiv:1602.02218"
TYPED_AUTHORS = "David Balduzzi and Muhammad Ghifary"
Y = StateField("y", "the hidden state, and the output")

ENTRIES = (
    Entry(
        name="tr-antisymmetric-rnn",
        cell="AntisymmetricRNNCell",
        learning_rate=1e-3,
        title="Antisymmetric RNN",
        authors=ANTISYMMETRIC_AUTHORS,
        year=2019,
        paper=ANTISYMMETRIC,
        equations=("h_t = h_{t-1} + ε tanh((W_h - W_hᵀ - γI) h_{t-1} + V_h x_t + b_h)",),
        state=(H,),
        initial={"recurrent_kernel_init": "xavier_normal"},
        notes=ANTISYMMETRIC_NOTES,
    ),
    Entry(
        name="tr-gated-antisymmetric-rnn",
        cell="GatedAntisymmetricRNNCell",
        learning_rate=1e-3,
        title="Antisymmetric RNN with gating",
        authors=ANTISYMMETRIC_AUTHORS,
        year=2019,
        paper=ANTISYMMETRIC,
        equations=(
            "z_t = σ((W_h - W_hᵀ - γI) h_{t-1} + V_z x_t + b_z)",
            "h_t = h_{t-1} + ε z_t ⊙ tanh((W_h - W_hᵀ - γI) h_{t-1} + V_h x_t + b_h)",
        ),
        state=(H,),
        initial={"recurrent_kernel_init": "xavier_normal"},
        notes=f"{ANTISYMMETRIC_NOTES} The gate has no recurrent bias.",
    ),
    Entry(
        name="tr-cornn",
        cell="coRNNCell",
        learning_rate=1e-3,
        title="Coupled oscillatory RNN",
        authors="T. Konstantin Rusch and Siddhartha Mishra",
        year=2021,
        paper="Coupled oscillatory recurrent neural network (coRNN): an accurate and (gradient) "
        "stable architecture for learning long time dependencies, ICLR 2021, arXiv:2010.00951",
        equations=(
            "z_n = z_{n-1} + Δt (tanh(W y_{n-1} + W' z_{n-1} + V u_n + b) - γ y_{n-1} - ε z_{n-1})",
            "y_n = y_{n-1} + Δt z_n",
        ),
        state=(Y, StateField("z", "its velocity")),
        notes="The damping is explicit (z̄ = z_{n-1} in the paper's equation 3). "
        "Options: dt, gamma, epsilon.",
    ),
    Entry(
        name="tr-lem",
        cell="LEMCell",
        learning_rate=1e-3,
        title="Long expressive memory, with the memory before",
        authors="T. Konstantin Rusch, Siddhartha Mishra, N. Benjamin Erichson and "
        "Michael W. Mahoney",
        year=2022,
        paper="Long expressive memory for sequence modeling, ICLR 2022, arXiv:2110.04744",
        equations=(
            "Δt_n = Δt σ(W_1 y_{n-1} + V_1 u_n + b_1)",
            "Δt̄_n = Δt σ(W_2 y_{n-1} + V_2 u_n + b_2)",
            "z_n = (1 - Δt_n) ⊙ z_{n-1} + Δt_n ⊙ tanh(W_z y_{n-1} + V_z u_n + b_z)",
            "y_n = (1 - Δt̄_n) ⊙ y_{n-1} + Δt̄_n ⊙ tanh(W_y z_{n-1} + V_y u_n + b_y)",
        ),
        state=(Y, StateField("z", "the memory")),
        bounds={"y": 1.0, "z": 1.0},
        notes="Not the paper's LEM: there, and in its authors' code, y_n is computed from the new "
        "z_n; torchrecurrent computes it from z_{n-1}, so that a memory reaches the output one "
        "step later. Option: dt.",
    ),
    Entry(
        name="tr-unicornn",
        cell="UnICORNNCell",
        learning_rate=1e-3,
        title="Undamped independent controlled oscillatory RNN",
        authors="T. Konstantin Rusch and Siddhartha Mishra",
        year=2021,
        paper="UnICORNN: a recurrent model for learning very long time dependencies, ICML 2021, "
        "arXiv:2103.05487",
        equations=(
            "z_n = z_{n-1} - Δt σ(c) ⊙ (tanh(w ⊙ y_{n-1} + V u_n + b) + α y_{n-1})",
            "y_n = y_{n-1} + Δt σ(c) ⊙ z_n",
        ),
        state=(Y, StateField("z", "its velocity")),
        notes="Each unit is an independent oscillator: the recurrent weights w are a vector. Δt is "
        "0.3 and α 1, where torchrecurrent has 0.1 and 0: without a restoring force the state "
        "grows over a long text, and training fails. Options: dt, alpha.",
    ),
    Entry(
        name="tr-fastrnn",
        cell="FastRNNCell",
        learning_rate=1e-2,
        title="FastRNN, with a weighted residual connection",
        authors=FAST_AUTHORS,
        year=2018,
        paper=FAST,
        equations=(
            "h̃_t = tanh(W x_t + U h_{t-1} + b)",
            "h_t = σ(α) h̃_t + σ(β) h_{t-1}",
        ),
        state=(H,),
        # alphaInit and betaInit of the authors' code, EdgeML
        initial={"alpha_init": -3.0, "beta_init": 3.0},
        notes="α is initialised to -3 and β to 3, as in the authors' code, so that most of the "
        "state is kept; torchrecurrent swaps the two.",
    ),
    Entry(
        name="tr-fastgrnn",
        cell="FastGRNNCell",
        learning_rate=5e-4,
        title="FastGRNN, with a gate that shares the candidate's weights",
        authors=FAST_AUTHORS,
        year=2018,
        paper=FAST,
        equations=(
            "z_t = σ(W x_t + U h_{t-1} + b_z)",
            "h̃_t = tanh(W x_t + U h_{t-1} + b_h)",
            "h_t = (σ(ζ) (1 - z_t) + σ(ν)) ⊙ h̃_t + z_t ⊙ h_{t-1}",
        ),
        state=(H,),
        # zetaInit and nuInit of the authors' code, EdgeML
        initial={"nonlinearity": "sigmoid", "zeta_init": 1.0, "nu_init": -4.0},
        notes="The gate is a sigmoid as in the paper, where torchrecurrent's default is a tanh; ζ "
        "is initialised to 1 and ν to -4, as in the authors' code, in torchrecurrent to 3 and -3. "
        "W and U have full rank.",
    ),
    Entry(
        name="tr-trnn",
        cell="TRNNCell",
        title="Strongly typed RNN",
        authors=TYPED_AUTHORS,
        year=2016,
        paper=TYPED,
        equations=(
            "z_t = W x_t + b_z",
            "f_t = σ(V x_t + b_f)",
            "h_t = f_t ⊙ h_{t-1} + (1 - f_t) ⊙ z_t",
        ),
        state=(H,),
        notes="Only the gate multiplies the state: there are no recurrent weights and no recurrent "
        "bias.",
    ),
    Entry(
        name="tr-tgru",
        cell="TGRUCell",
        title="Strongly typed GRU",
        authors=TYPED_AUTHORS,
        year=2016,
        paper=TYPED,
        equations=(
            "z_t = V_z x_{t-1} + W_z x_t + b_z",
            "f_t = σ(V_f x_{t-1} + W_f x_t + b_f)",
            "o_t = tanh(V_o x_{t-1} + W_o x_t + b_o)",
            "h_t = f_t ⊙ h_{t-1} + z_t ⊙ o_t",
        ),
        state=(H, LAST_INPUT),
        notes="The recurrent weights act on the previous input, which is therefore part of the "
        "state.",
    ),
    Entry(
        name="tr-tlstm",
        cell="TLSTMCell",
        title="Strongly typed LSTM",
        authors=TYPED_AUTHORS,
        year=2016,
        paper=TYPED,
        equations=(
            "z_t = V_z x_{t-1} + W_z x_t + b_z",
            "f_t = σ(V_f x_{t-1} + W_f x_t + b_f)",
            "o_t = tanh(V_o x_{t-1} + W_o x_t + b_o)",
            "c_t = f_t ⊙ c_{t-1} + (1 - f_t) ⊙ z_t",
            "h_t = c_t ⊙ o_t",
        ),
        state=(C, LAST_INPUT),
        output_apart=True,
        notes="The recurrent weights act on the previous input, which is therefore part of the "
        "state; the output h is not.",
    ),
    Entry(
        name="tr-taugru",
        cell="tauGRUCell",
        learning_rate=1e-3,
        title="τ-GRU, with weighted time-delay feedback",
        authors="N. Benjamin Erichson, Soon Hoe Lim and Michael W. Mahoney",
        year=2022,
        paper="Gated recurrent neural networks with weighted time-delay feedback, arXiv:2212.00228",
        equations=(
            "u_n = tanh(W_1 h_n + U_1 x_n + b_1)",
            "z_n = tanh(W_2 h_{n-d} + U_2 x_n + b_2)",
            "g_n = σ(W_3 h_n + U_3 x_n + b_3)",
            "a_n = σ(W_4 h_n + U_4 x_n + b_4)",
            "h_{n+1} = (1 - g_n) ⊙ h_n + g_n ⊙ (u_n + a_n ⊙ z_n)",
        ),
        state=(H, StateField("past", "h_{n-d} to h_{n-1}, the oldest first")),
        bounds={"h": 2.0, "past": 2.0},
        notes="torchrecurrent's cell takes the delayed state as an argument; here the d previous "
        "states are part of the state. Option: delay (d), 10 by default, where torchrecurrent's "
        "layer has 1.",
    ),
)
