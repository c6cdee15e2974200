"""Cells with a memory beside the hidden state, like the LSTM. See `entry.Entry`."""

from zoo import StateField
from zoo_torchrecurrent.entry import C, Entry, H

ENTRIES = (
    Entry(
        name="tr-janet",
        cell="JANETCell",
        learning_rate=1e-3,
        title="Just another network: an LSTM with a forget gate only",
        authors="Jos van der Westhuizen and Joan Lasenby",
        year=2018,
        paper="The unreasonable effectiveness of the forget gate, arXiv:1804.04849",
        equations=(
            "s_t = U_f h_{t-1} + W_f x_t + b_f",
            "c̃_t = tanh(U_c h_{t-1} + W_c x_t + b_c)",
            "c_t = σ(s_t) ⊙ c_{t-1} + (1 - σ(s_t - β)) ⊙ c̃_t",
            "h_t = c_t",
        ),
        state=(C,),
        notes="torchrecurrent returns c twice, as h too; the state here holds it once. β is "
        "learned, from the paper's 1. The paper's chrono initialisation of b_f is not used: both "
        "biases are initialised to zero. Option: beta (its initial value).",
    ),
    Entry(
        name="tr-mclstm",
        cell="MCLSTMCell",
        title="LSTM with a memory controller",
        authors="Itamar Ben-Ari and Ravid Shwartz-Ziv",
        year=2017,
        paper="Sequence modeling using a memory controller extension for LSTM, NIPS 2017 time "
        "series workshop",
        equations=(
            "f_t, i_t, o_t, m_t = σ(W_* x_t + U_* v_{t-1} + b_*)",
            "n_t = tanh(W_n x_t + U_n v_{t-1} + b_n)",
            "c_t = f_t ⊙ c_{t-1} + i_t ⊙ n_t",
            "h_t = o_t ⊙ tanh(c_t),  v_t = m_t ⊙ tanh(c_t)",
        ),
        state=(StateField("v", "the memory control vector"), C),
        output_apart=True,
        bounds={"v": 1.0},
        notes="The gates read the control vector v, not the output h, which is not part of the "
        "state.",
    ),
    Entry(
        name="tr-multiplicative-lstm",
        cell="MultiplicativeLSTMCell",
        title="Multiplicative LSTM",
        authors="Ben Krause, Liang Lu, Iain Murray and Steve Renals",
        year=2016,
        paper="Multiplicative LSTM for sequence modelling, arXiv:1609.07959",
        equations=(
            "m_t = (W_mx x_t + b_mx) ⊙ (W_mh h_{t-1} + b_mh)",
            "ĥ_t = W_hx x_t + W_hm m_t + b_h",
            "i_t, f_t, o_t = σ(W_*x x_t + W_*m m_t + b_*)",
            "c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(ĥ_t)",
            "h_t = o_t ⊙ tanh(c_t)",
        ),
        state=(H, C),
        bounds={"h": 1.0},
        initial={"multiplicative_kernel_init": "xavier_uniform"},
        notes="The weights of m are initialised from Glorot's uniform distribution: "
        "torchrecurrent's N(0, 1) saturates all gates in a layer of a hundred units.",
    ),
    Entry(
        name="tr-nas",
        cell="NASCell",
        title="The cell found by neural architecture search",
        authors="Barret Zoph and Quoc V. Le",
        year=2017,
        paper="Neural architecture search with reinforcement learning, ICLR 2017, arXiv:1611.01578",
        equations=(
            "g_k = W_k x_t + U_k h_{t-1} + b_k,  k = 0 … 7",
            "o_0, o_2, o_5, o_7 = σ(g),  o_1, o_3 = relu(g),  o_4, o_6 = tanh(g)",
            "l_1 = tanh(o_0 ⊙ o_1),  l_2 = tanh(o_2 + o_3)",
            "l_3 = tanh(o_4 ⊙ o_5),  l_4 = σ(o_6 + o_7)",
            "c_t = tanh(l_1 + c_{t-1}) ⊙ l_2",
            "h_t = tanh(c_t ⊙ tanh(l_3 + l_4))",
        ),
        state=(H, C),
        bounds={"h": 1.0, "c": 1.0},
        initial={"bias_init": "uniform_centered"},
        licence="MIT AND Apache-2.0",
        notes="After TensorFlow's NASCell, with one difference: there o_3 is relu((W_3 x_t) ⊙ (U_3 "
        "h_{t-1})). The input's biases are initialised uniformly in (-0.1, 0.1). With "
        "torchrecurrent's zeros, a layer whose ReLUs of o_1 are all inactive outputs zeros, and "
        "the ReLUs of the next layer are then at 0, where they have no derivative. torchrecurrent "
        "is MIT, its file of this cell Apache-2.0, as TensorFlow is.",
    ),
    Entry(
        name="tr-original-lstm",
        cell="OriginalLSTMCell",
        title="LSTM before the forget gate",
        authors="Sepp Hochreiter and Jürgen Schmidhuber",
        year=1997,
        paper="Long short-term memory, Neural Computation 9(8), 1735-1780",
        equations=(
            "i_t, o_t = σ(W_* x_t + U_* h_{t-1} + b_*)",
            "c̃_t = tanh(W_c x_t + U_c h_{t-1} + b_c)",
            "c_t = c_{t-1} + i_t ⊙ c̃_t",
            "h_t = o_t ⊙ tanh(c_t)",
        ),
        state=(H, C),
        bounds={"h": 1.0},
        notes="The squashing functions are tanh, where the paper scales sigmoids to (-2, 2) and "
        "(-1, 1). There is no forget gate: only the number of steps bounds the memory.",
    ),
    Entry(
        name="tr-peephole-lstm",
        cell="PeepholeLSTMCell",
        title="LSTM with peephole connections",
        authors="Felix A. Gers, Nicol N. Schraudolph and Jürgen Schmidhuber",
        year=2002,
        paper="Learning precise timing with LSTM recurrent networks, Journal of Machine Learning "
        "Research 3, 115-143",
        equations=(
            "i_t = σ(W_i x_t + U_i h_{t-1} + p_i ⊙ c_{t-1} + b_i)",
            "f_t = σ(W_f x_t + U_f h_{t-1} + p_f ⊙ c_{t-1} + b_f)",
            "c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(W_c x_t + U_c h_{t-1} + b_c)",
            "o_t = σ(W_o x_t + U_o h_{t-1} + p_o ⊙ c_t + b_o)",
            "h_t = o_t ⊙ tanh(c_t)",
        ),
        state=(H, C),
        bounds={"h": 1.0},
    ),
    Entry(
        name="tr-ran",
        cell="RANCell",
        title="Recurrent additive network",
        authors="Kenton Lee, Omer Levy and Luke Zettlemoyer",
        year=2017,
        paper="Recurrent additive networks, arXiv:1705.07393",
        equations=(
            "c̃_t = W_c x_t",
            "i_t = σ(W_i x_t + U_i h_{t-1} + b_i)",
            "f_t = σ(W_f x_t + U_f h_{t-1} + b_f)",
            "c_t = i_t ⊙ c̃_t + f_t ⊙ c_{t-1}",
            "h_t = tanh(c_t)",
        ),
        state=(H, C),
        bounds={"h": 1.0},
    ),
    Entry(
        name="tr-reslstm",
        cell="ResLSTMCell",
        title="Residual LSTM",
        authors="Jaeyoung Kim, Mostafa El-Khamy and Jungwon Lee",
        year=2017,
        paper="Residual LSTM: design of a deep recurrent architecture for distant speech "
        "recognition, Interspeech 2017, arXiv:1701.03360",
        equations=(
            "i_t = σ(W_i x_t + U_i h_{t-1} + p_i ⊙ c_{t-1} + b_i)",
            "f_t = σ(W_f x_t + U_f h_{t-1} + p_f ⊙ c_{t-1} + b_f)",
            "c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(W_c x_t + U_c h_{t-1} + b_c)",
            "o_t = σ(W_o x_t + U_o h_{t-1} + p_o ⊙ c_t + b_o)",
            "h_t = o_t ⊙ (W_p tanh(c_t) + W_r x_t)",
        ),
        state=(H, C),
        notes="The shortcut always has weights W_r, also where the input has the hidden size.",
    ),
    Entry(
        name="tr-scrn",
        cell="SCRNCell",
        title="Structurally constrained recurrent network",
        authors="Tomas Mikolov, Armand Joulin, Sumit Chopra, Michael Mathieu and "
        "Marc'Aurelio Ranzato",
        year=2014,
        paper="Learning longer memory in recurrent neural networks, arXiv:1412.7753",
        equations=(
            "s_t = (1 - α) (B x_t + b_s) + α s_{t-1}",
            "h_t = σ(P s_t + A x_t + R y_{t-1} + b_h)",
            "y_t = tanh(U h_t + V s_t + b_y)",
        ),
        state=(StateField("y", "the output"), StateField("s", "the slowly changing context")),
        bounds={"y": 1.0},
        initial={"context_kernel_init": "xavier_uniform"},
        notes="Two differences from the paper: R multiplies the output y, there h; α is learned, "
        "there fixed at 0.95. P and V are initialised from Glorot's uniform distribution: "
        "torchrecurrent's N(0, 1) saturates h and y in a layer of a hundred units. Option: alpha "
        "(its initial value; torchrecurrent's 0.5 by default).",
    ),
    Entry(
        name="tr-wmclstm",
        cell="WMCLSTMCell",
        title="LSTM with working memory connections",
        authors="Federico Landi, Lorenzo Baraldi, Marcella Cornia and Rita Cucchiara",
        year=2021,
        paper="Working memory connections for LSTM, Neural Networks 144, arXiv:2109.00020",
        equations=(
            "i_t = σ(W_i x_t + U_i h_{t-1} + tanh(V_i c_{t-1} + d_i) + b_i)",
            "f_t = σ(W_f x_t + U_f h_{t-1} + tanh(V_f c_{t-1} + d_f) + b_f)",
            "c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(W_c x_t + U_c h_{t-1} + b_c)",
            "o_t = σ(W_o x_t + U_o h_{t-1} + tanh(V_o c_t + d_o) + b_o)",
            "h_t = o_t ⊙ tanh(c_t)",
        ),
        state=(H, C),
        bounds={"h": 1.0},
    ),
)
