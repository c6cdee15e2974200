"""Cards of the cells whose gates depend on the input alone."""

from zoo import CellSpec, ModelCard, StateField

MIN_PAPER = "Were RNNs all we needed?, arXiv:2410.01201"
MIN_AUTHORS = "Leo Feng, Frederick Tung, Mohamed Osama Ahmed and others"
MIN_HIDDEN = StateField("h", "the hidden state")
MIN_POSITIVE = "h̃_t = g(W_h x_t + b_h), g(a) = a + 0.5 for a ≥ 0, else σ(a)   candidate=positive"
MIN_NOTES = (
    "The form of the paper's section 3, with a linear candidate; candidate=positive is that of its "
    "appendix B, which the paper computes in log space; here it is scanned directly. The "
    "convolution and the MLP around it in the paper's language models are not included."
)
MEMORY = StateField("c", "the memory cell")

GATED: tuple[CellSpec, ...] = (
    CellSpec(
        name="mingru",
        factory="zoo_linear.mingru:MinGRU",
        learning_rate=1e-2,
        card=ModelCard(
            title="Minimal gated recurrent unit",
            authors=MIN_AUTHORS,
            year=2024,
            paper=MIN_PAPER,
            equations=(
                "z_t = σ(W_z x_t + b_z)",
                "h̃_t = W_h x_t + b_h",
                MIN_POSITIVE,
                "h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ h̃_t",
            ),
            state=(MIN_HIDDEN,),
            parallel=True,
            checked_against="minGRU_pytorch with candidate=positive; the equations in NumPy",
            notes=MIN_NOTES,
        ),
    ),
    CellSpec(
        name="minlstm",
        factory="zoo_linear.minlstm:MinLSTM",
        learning_rate=1e-2,
        card=ModelCard(
            title="Minimal long short-term memory",
            authors=MIN_AUTHORS,
            year=2024,
            paper=MIN_PAPER,
            equations=(
                "f_t = σ(W_f x_t + b_f)",
                "i_t = σ(W_i x_t + b_i)",
                "h̃_t = W_h x_t + b_h",
                MIN_POSITIVE,
                "f'_t = f_t / (f_t + i_t)",
                "i'_t = i_t / (f_t + i_t)",
                "h_t = f'_t ⊙ h_{t-1} + i'_t ⊙ h̃_t",
            ),
            state=(MIN_HIDDEN,),
            parallel=True,
            checked_against="minGRU_pytorch with candidate=positive; the equations in NumPy",
            notes=MIN_NOTES,
        ),
    ),
    CellSpec(
        name="qrnn",
        factory="zoo_linear.qrnn:QRNN",
        learning_rate=1e-2,
        card=ModelCard(
            title="Quasi-recurrent neural network",
            authors="James Bradbury, Stephen Merity, Caiming Xiong, Richard Socher",
            year=2016,
            paper="Quasi-recurrent neural networks, ICLR 2017, arXiv:1611.01576",
            equations=(
                "z_t = tanh(W_z [x_{t-1}; x_t] + b_z)",
                "f_t = σ(W_f [x_{t-1}; x_t] + b_f)",
                "o_t = σ(W_o [x_{t-1}; x_t] + b_o)",
                "c_t = f_t ⊙ c_{t-1} + (1 - f_t) ⊙ z_t",
                "h_t = o_t ⊙ c_t",
                "h_t = c_t                               pooling=f",
                "c_t = f_t ⊙ c_{t-1} + i_t ⊙ z_t         pooling=ifo",
            ),
            state=(MEMORY, StateField("x", "the previous inputs, the latest last")),
            parallel=True,
            checked_against="torch.nn.functional.conv1d and the equations in NumPy",
            notes="With window=k the gates depend on the last k inputs. Biases as in the authors' "
            "torchqrnn. Zoneout and the dense connections between layers are not included.",
        ),
    ),
    CellSpec(
        name="sru",
        factory="zoo_linear.sru:SRU",
        learning_rate=1e-2,
        card=ModelCard(
            title="Simple recurrent unit",
            authors="Tao Lei, Yu Zhang, Sida I. Wang, Hui Dai, Yoav Artzi",
            year=2017,
            paper="Simple recurrent units for highly parallelizable recurrence, EMNLP 2018, "
            'arXiv:1709.02755; first as "Training RNNs as fast as CNNs"',
            equations=(
                "f_t = σ(W_f x_t + b_f)",
                "r_t = σ(W_r x_t + b_r)",
                "c_t = f_t ⊙ c_{t-1} + (1 - f_t) ⊙ (W x_t)",
                "h_t = r_t ⊙ tanh(c_t) + (1 - r_t) ⊙ x_t",
                "f_t = σ(W_f x_t + v_f ⊙ c_{t-1} + b_f)        peephole=true",
                "r_t = σ(W_r x_t + v_r ⊙ c_{t-1} + b_r)        peephole=true",
                "h_t = r_t ⊙ c_t + (1 - r_t) ⊙ x_t · α         peephole=true",
            ),
            state=(MEMORY,),
            parallel=True,
            checked_against="SRUCell of the authors' package sru",
            notes="Without peepholes it is the unit of 2017, which is linear in c and so parallel; "
            "peephole=true is that of EMNLP 2018, which is not and runs step by step, with "
            "α = √(1 + 2 exp(highway_bias)). Where the input's size is not the hidden state's, "
            "W_x x_t stands for x_t in the last line, as in the authors' code.",
        ),
    ),
    CellSpec(
        name="hgrn2",
        factory="zoo_linear.hgrn2:HGRN2",
        learning_rate=6e-3,
        card=ModelCard(
            title="Hierarchically gated recurrent network with state expansion",
            authors="Zhen Qin, Songlin Yang, Weixuan Sun, Xuyang Shen and others",
            year=2024,
            paper="HGRN2: gated linear RNNs with state expansion, arXiv:2404.07904",
            equations=(
                "f_t = β + (1 - β) σ(W_f x_t + b_f)",
                "i_t = SiLU(W_i x_t + b_i)",
                "o_t = σ(W_o x_t + b_o)",
                "S_t = diag(f_t) S_{t-1} + (1 - f_t) i_tᵀ    for each head",
                "y_t = S_tᵀ o_t",
                "h_t = W_y LayerNorm(y_t) + b_y              over all heads",
            ),
            state=(
                StateField(
                    "S",
                    "for each head, the memory: keys by values",
                ),
            ),
            parallel=True,
            checked_against="naive_recurrent_gla of fla-core; the equations in NumPy",
            notes="With the norm and the output projection that the authors' code has inside. In "
            "the paper β is learned, grows with the layer and is 0 in the first. A cell does not "
            "know its layer, so here β is the option lower_bound. A width that the heads do not "
            "divide is rounded up inside the cell.",
        ),
    ),
    CellSpec(
        name="retnet",
        factory="zoo_linear.retnet:RetNet",
        learning_rate=1e-2,
        card=ModelCard(
            title="Multi-scale retention",
            authors="Yutao Sun, Li Dong, Shaohan Huang, Shuming Ma and others",
            year=2023,
            paper="Retentive network: a successor to Transformer for large language models, "
            "arXiv:2307.08621",
            equations=(
                "q_t = R(tθ) W_Q x_t,  k_t = R(tθ) W_K x_t / √K,  v_t = W_V x_t",
                "S_t = γ S_{t-1} + k_t v_tᵀ,  γ = 1 - 2^(-5-j)    for head j = 0, 1, …",
                "y_t = S_tᵀ q_t",
                "h_t = W_O (swish(W_G x_t) ⊙ GroupNorm(y_t))      one group for each head",
            ),
            state=(
                StateField(
                    "S",
                    "for each head, the memory: keys by values",
                ),
                StateField("n", "the number of steps so far, int64: the position for the rotation"),
            ),
            parallel=True,
            checked_against="naive_retention of fla-core; the equations in complex NumPy",
            notes="R rotates pairs of features: adjacent ones in the authors' torchscale, here j "
            "and j + K / 2, which is the same up to the order of the rows of W_Q and W_K. As "
            "there, values are twice as wide as keys, and the group norm has no weights of its "
            "own. The scaling of scores against overflow (section 2.1) changes nothing after the "
            "norm and is left out, as are the norm before a retention and the network after it. "
            "Initial weights are larger than there, since inputs here need not come from a norm.",
        ),
    ),
)
