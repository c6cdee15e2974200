"""Gated cells with one state, like the GRU. See `entry.Entry`."""

from zoo_torchrecurrent.entry import Entry, H

BISTABLE = (
    "A bio-inspired bistable recurrent cell allows for long-lasting memory, PLOS ONE 16(6), "
    "e0252676 (2021), arXiv:2006.05252"
)
BISTABLE_AUTHORS = "Nicolas Vecoven, Damien Ernst and Guillaume Drion"
EXPLORATION = "An empirical exploration of recurrent network architectures, ICML 2015"
EXPLORATION_AUTHORS = "Rafal Jozefowicz, Wojciech Zaremba and Ilya Sutskever"
DEEP_GATE = "Deep gate recurrent neural network, ACML 2016, arXiv:1604.02910"
DEEP_GATE_AUTHORS = "Yuan Gao and Dorota Glowacka"

ENTRIES = (
    Entry(
        name="tr-br",
        cell="BRCell",
        title="Bistable recurrent cell (BRC)",
        authors=BISTABLE_AUTHORS,
        year=2021,
        paper=BISTABLE,
        equations=(
            "a_t = 1 + tanh(U_a x_t + w_a ⊙ h_{t-1} + b_a)",
            "c_t = σ(U_c x_t + w_c ⊙ h_{t-1} + b_c)",
            "h_t = c_t ⊙ h_{t-1} + (1 - c_t) ⊙ tanh(U x_t + a_t ⊙ h_{t-1} + b)",
        ),
        state=(H,),
        bounds={"h": 1.0},
    ),
    Entry(
        name="tr-nbr",
        cell="NBRCell",
        title="Neuromodulated bistable recurrent cell (nBRC)",
        authors=BISTABLE_AUTHORS,
        year=2021,
        paper=BISTABLE,
        equations=(
            "a_t = 1 + tanh(U_a x_t + W_a h_{t-1} + b_a)",
            "c_t = σ(U_c x_t + W_c h_{t-1} + b_c)",
            "h_t = c_t ⊙ h_{t-1} + (1 - c_t) ⊙ tanh(U x_t + a_t ⊙ h_{t-1} + b)",
        ),
        state=(H,),
        bounds={"h": 1.0},
    ),
    Entry(
        name="tr-cfn",
        cell="CFNCell",
        learning_rate=1e-2,
        title="Chaos-free network",
        authors="Thomas Laurent and James von Brecht",
        year=2017,
        paper="A recurrent neural network without chaos, ICLR 2017, arXiv:1612.06212",
        equations=(
            "θ_t = σ(U_θ h_{t-1} + V_θ x_t + b_θ)",
            "η_t = σ(U_η h_{t-1} + V_η x_t + b_η)",
            "h_t = θ_t ⊙ tanh(h_{t-1}) + η_t ⊙ tanh(W x_t + b)",
        ),
        state=(H,),
        bounds={"h": 2.0},
    ),
    Entry(
        name="tr-ligru",
        cell="LiGRUCell",
        learning_rate=2e-3,
        title="Light GRU",
        authors="Mirco Ravanelli, Philemon Brakel, Maurizio Omologo and Yoshua Bengio",
        year=2018,
        paper="Light gated recurrent units for speech recognition, IEEE Transactions on Emerging "
        "Topics in Computational Intelligence 2(2), arXiv:1803.10225",
        equations=(
            "z_t = σ(W_z x_t + U_z h_{t-1} + b_z)",
            "h̃_t = relu(W_h x_t + U_h h_{t-1} + b_h)",
            "h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ h̃_t",
        ),
        state=(H,),
        initial={"recurrent_kernel_init": "orthogonal"},
        notes="The paper normalises W x over the batch, which keeps the ReLU's states small; "
        "torchrecurrent has no normalisation. U is initialised orthogonal, as in the paper, so "
        "that it preserves the state's norm; torchrecurrent's default is Glorot's uniform "
        "distribution.",
    ),
    Entry(
        name="tr-mgu",
        cell="MGUCell",
        title="Minimal gated unit",
        authors="Guo-Bing Zhou, Jianxin Wu, Chen-Lin Zhang and Zhi-Hua Zhou",
        year=2016,
        paper="Minimal gated unit for recurrent neural networks, arXiv:1603.09420",
        equations=(
            "f_t = σ(W_f x_t + U_f h_{t-1} + b_f)",
            "h̃_t = tanh(W_h x_t + U_h (f_t ⊙ h_{t-1}) + b_h)",
            "h_t = (1 - f_t) ⊙ h_{t-1} + f_t ⊙ h̃_t",
        ),
        state=(H,),
        bounds={"h": 1.0},
    ),
    Entry(
        name="tr-mut1",
        cell="MUT1Cell",
        title="Mutated unit 1",
        authors=EXPLORATION_AUTHORS,
        year=2015,
        paper=EXPLORATION,
        equations=(
            "z_t = σ(W_xz x_t + b_z)",
            "r_t = σ(W_xr x_t + W_hr h_{t-1} + b_r)",
            "h̃_t = tanh(W_hh (r_t ⊙ h_{t-1}) + tanh(W_xh x_t + b_x) + b_h)",
            "h_t = z_t ⊙ h̃_t + (1 - z_t) ⊙ h_{t-1}",
        ),
        state=(H,),
        bounds={"h": 1.0},
        notes="Where the paper has tanh(x_t), which needs an input of the hidden size, there are "
        "weights.",
    ),
    Entry(
        name="tr-mut2",
        cell="MUT2Cell",
        title="Mutated unit 2",
        authors=EXPLORATION_AUTHORS,
        year=2015,
        paper=EXPLORATION,
        equations=(
            "z_t = σ(W_xz x_t + W_hz h_{t-1} + b_z)",
            "r_t = σ(W_xr x_t + W_hr h_{t-1} + b_r)",
            "h̃_t = tanh(W_hh (r_t ⊙ h_{t-1}) + W_xh x_t + b_h)",
            "h_t = z_t ⊙ h̃_t + (1 - z_t) ⊙ h_{t-1}",
        ),
        state=(H,),
        bounds={"h": 1.0},
        notes="Where the paper has x_t itself in r_t, which needs an input of the hidden size, "
        "there are weights: the unit is then a GRU that resets before the product.",
    ),
    Entry(
        name="tr-mut3",
        cell="MUT3Cell",
        title="Mutated unit 3",
        authors=EXPLORATION_AUTHORS,
        year=2015,
        paper=EXPLORATION,
        equations=(
            "z_t = σ(W_xz x_t + W_hz tanh(h_{t-1}) + b_z)",
            "r_t = σ(W_xr x_t + W_hr h_{t-1} + b_r)",
            "h̃_t = tanh(W_hh (r_t ⊙ h_{t-1}) + W_xh x_t + b_h)",
            "h_t = z_t ⊙ h̃_t + (1 - z_t) ⊙ h_{t-1}",
        ),
        state=(H,),
        bounds={"h": 1.0},
    ),
    Entry(
        name="tr-sgu",
        cell="SGUCell",
        title="Simple gated unit",
        authors=DEEP_GATE_AUTHORS,
        year=2016,
        paper=DEEP_GATE,
        equations=(
            "x_g = W_xh x_t + b_g",
            "z_g = tanh(W_zxh (x_g ⊙ h_{t-1}) + b_zg)",
            "z_out = softplus(z_g ⊙ h_{t-1})",
            "z_t = hardσ(W_xz x_t + W_hz h_{t-1} + b_z)",
            "h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ z_out",
        ),
        state=(H,),
        notes="hardσ(x) is PyTorch's, min(max(x/6 + 1/2, 0), 1).",
    ),
    Entry(
        name="tr-dsgu",
        cell="DSGUCell",
        title="Deep simple gated unit",
        authors=DEEP_GATE_AUTHORS,
        year=2016,
        paper=DEEP_GATE,
        equations=(
            "x_g = W_xh x_t + b_g",
            "z_g = tanh(W_zxh (x_g ⊙ h_{t-1}) + b_zg)",
            "z_out = σ(W_go (z_g ⊙ h_{t-1}))",
            "z_t = hardσ(W_xz x_t + W_hz h_{t-1} + b_z)",
            "h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ z_out",
        ),
        state=(H,),
        bounds={"h": 1.0},
        notes="hardσ(x) is PyTorch's, min(max(x/6 + 1/2, 0), 1).",
    ),
)
