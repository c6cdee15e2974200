"""Cells with fewer gates than a GRU, or none. See `entry.Entry`."""

from zoo_torchrecurrent.entry import Entry, H

CAPACITY = "Capacity and trainability in recurrent neural networks, ICLR 2017, arXiv:1611.09913"
CAPACITY_AUTHORS = "Jasmine Collins, Jascha Sohl-Dickstein and David Sussillo"
MINION = (
    "Minion gated recurrent unit for continual learning, arXiv:2503.06175; torchrecurrent cites "
    "doi:10.1016/j.neucom.2026.132847"
)
MINION_AUTHORS = "Abdullah M. Zyarah and Dhireesha Kudithipudi"

ENTRIES = (
    Entry(
        name="tr-atr",
        cell="ATRCell",
        title="Addition-subtraction twin-gated recurrent unit",
        authors="Biao Zhang, Deyi Xiong, Jinsong Su, Qian Lin and Huiji Zhang",
        year=2018,
        paper="Simplifying neural machine translation with addition-subtraction twin-gated "
        "recurrent networks, EMNLP 2018, arXiv:1810.12546",
        equations=(
            "p_t = W x_t + b_p,  q_t = U h_{t-1} + b_q",
            "i_t = σ(p_t + q_t),  f_t = σ(p_t - q_t)",
            "h_t = i_t ⊙ p_t + f_t ⊙ h_{t-1}",
        ),
        state=(H,),
        initial={"recurrent_kernel_init": "xavier_uniform"},
        notes="U is initialised from Glorot's uniform distribution: torchrecurrent's N(0, 1) "
        "saturates both gates in a layer of a hundred units.",
    ),
    Entry(
        name="tr-indrnn",
        cell="IndRNNCell",
        learning_rate=1e-2,
        title="Independently recurrent neural network",
        authors="Shuai Li, Wanqing Li, Chris Cook, Ce Zhu and Yanbo Gao",
        year=2018,
        paper="Independently recurrent neural network (IndRNN): building a longer and deeper RNN, "
        "CVPR 2018, arXiv:1803.04831",
        equations=("h_t = tanh(W x_t + u ⊙ h_{t-1} + b)",),
        state=(H,),
        bounds={"h": 1.0},
        initial={"recurrent_kernel_init": "uniform"},
        notes="The nonlinearity is torchrecurrent's default, a tanh; most of the paper's "
        "experiments are with a ReLU. u is initialised uniformly in (0, 1), so that no unit is "
        "unstable at first; torchrecurrent draws it from N(0, 1).",
    ),
    Entry(
        name="tr-intersection-rnn",
        cell="IntersectionRNNCell",
        learning_rate=1e-3,
        title="Intersection RNN (+RNN)",
        authors=CAPACITY_AUTHORS,
        year=2017,
        paper=CAPACITY,
        equations=(
            "y^in_t = relu(W_y x_t + U_y h_{t-1} + b_y)",
            "h^in_t = tanh(W_h x_t + U_h h_{t-1} + b_h)",
            "g^y_t = σ(W_gy x_t + U_gy h_{t-1} + b_gy)",
            "g^h_t = σ(W_gh x_t + U_gh h_{t-1} + b_gh)",
            "y_t = g^y_t ⊙ x_t + (1 - g^y_t) ⊙ y^in_t",
            "h_t = g^h_t ⊙ h_{t-1} + (1 - g^h_t) ⊙ h^in_t",
        ),
        state=(H,),
        output_apart=True,
        bounds={"h": 1.0},
        notes="The output y is not the state. It includes the input, which must therefore have the "
        "hidden size: where it has not, x is a linear map `W_in` of it.",
    ),
    Entry(
        name="tr-lightru",
        cell="LightRUCell",
        title="Light recurrent unit",
        authors="Hong Ye, Yibing Zhang, Huizhou Liu, Xuannong Li, Jiaming Chang and Hui Zheng",
        year=2024,
        paper="Light recurrent unit: towards an interpretable recurrent neural network for "
        "modeling long-range dependency, Electronics 13(16), 3204",
        equations=(
            "h̃_t = tanh(W_h x_t + b_h)",
            "f_t = σ(W_f x_t + U_f h_{t-1} + b_f)",
            "h_t = (1 - f_t) ⊙ h_{t-1} + f_t ⊙ h̃_t",
        ),
        state=(H,),
        bounds={"h": 1.0},
    ),
    Entry(
        name="tr-minimal-rnn",
        cell="MinimalRNNCell",
        title="MinimalRNN",
        authors="Minmin Chen",
        year=2017,
        paper="MinimalRNN: toward more interpretable and trainable recurrent neural networks, "
        "arXiv:1711.06788",
        equations=(
            "z_t = tanh(W_x x_t + b_x)",
            "u_t = σ(U_h h_{t-1} + U_z z_t + b_u)",
            "h_t = u_t ⊙ h_{t-1} + (1 - u_t) ⊙ z_t",
        ),
        state=(H,),
        bounds={"h": 1.0},
    ),
    Entry(
        name="tr-miru1",
        cell="MiRU1Cell",
        title="Minion recurrent unit with a reset gate",
        authors=MINION_AUTHORS,
        year=2025,
        paper=MINION,
        equations=(
            "r_t = σ(W_r x_t + U_r h_{t-1} + b_r)",
            "h̃_t = tanh(W_h x_t + U_h (r_t ⊙ h_{t-1}) + b_h)",
            "h_t = λ h_{t-1} + (1 - λ) h̃_t",
        ),
        state=(H,),
        bounds={"h": 1.0},
        notes="Option: update_coefficient (λ).",
    ),
    Entry(
        name="tr-miru2",
        cell="MiRU2Cell",
        title="Minion recurrent unit",
        authors=MINION_AUTHORS,
        year=2025,
        paper=MINION,
        equations=(
            "h̃_t = tanh(W_h x_t + U_h (θ h_{t-1}) + b_h)",
            "h_t = λ h_{t-1} + (1 - λ) h̃_t",
        ),
        state=(H,),
        bounds={"h": 1.0},
        notes="Options: update_coefficient (λ), reset_coefficient (θ).",
    ),
    Entry(
        name="tr-sgrn",
        cell="SGRNCell",
        title="Simple gated recurrent network",
        authors="X. Zu and others",
        year=2020,
        paper="A simple gated recurrent network for detection of power quality disturbances, "
        "doi:10.1049/gtd2.12056",
        equations=(
            "f_t = σ(W x_t + b_x + U h_{t-1} + b_h)",
            "h_t = tanh((1 - f_t) ⊙ (W x_t + b_x) + f_t ⊙ h_{t-1})",
        ),
        state=(H,),
        bounds={"h": 1.0},
    ),
    Entry(
        name="tr-star",
        cell="STARCell",
        title="Stackable recurrent cell",
        authors="Mehmet Ozgur Turkoglu, Stefano D'Aronco, Jan Dirk Wegner and Konrad Schindler",
        year=2019,
        paper="Gating revisited: deep multi-layer RNNs that can be trained, arXiv:1911.11033",
        equations=(
            "z_t = tanh(W_z x_t + b_z)",
            "k_t = σ(W_x x_t + W_h h_{t-1} + b_k)",
            "h_t = tanh((1 - k_t) ⊙ h_{t-1} + k_t ⊙ z_t)",
        ),
        state=(H,),
        bounds={"h": 1.0},
    ),
    Entry(
        name="tr-ugrnn",
        cell="UGRNNCell",
        learning_rate=1e-3,
        title="Update gate RNN",
        authors=CAPACITY_AUTHORS,
        year=2017,
        paper=CAPACITY,
        equations=(
            "c_t = tanh(W_c x_t + U_c h_{t-1} + b_c)",
            "g_t = σ(W_g x_t + U_g h_{t-1} + b_g)",
            "h_t = g_t ⊙ h_{t-1} + (1 - g_t) ⊙ c_t",
        ),
        state=(H,),
        bounds={"h": 1.0},
    ),
)
