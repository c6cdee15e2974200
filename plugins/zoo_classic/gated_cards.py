"""Gated cells: extensions and simplifications of the LSTM and the GRU."""

from zoo import CellSpec, ModelCard, StateField

HIDDEN = StateField("h", "the hidden state")

SPECS = [
    CellSpec(
        name="peephole-lstm",
        factory="zoo_classic.peephole:PeepholeLSTM",
        learning_rate=1e-2,
        card=ModelCard(
            title="LSTM with peephole connections",
            authors="Felix A. Gers, Nicol N. Schraudolph and Jürgen Schmidhuber",
            year=2002,
            paper="Learning precise timing with LSTM recurrent networks, Journal of Machine "
            "Learning Research 3, 115-143; first in Gers and Schmidhuber, Recurrent nets that time "
            "and count, IJCNN 2000",
            equations=(
                "i_t = σ(W_xi x_t + W_hi h_{t-1} + p_i ⊙ c_{t-1} + b_i)",
                "f_t = σ(W_xf x_t + W_hf h_{t-1} + p_f ⊙ c_{t-1} + b_f)",
                "c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(W_xc x_t + W_hc h_{t-1} + b_c)",
                "o_t = σ(W_xo x_t + W_ho h_{t-1} + p_o ⊙ c_t + b_o)",
                "h_t = o_t ⊙ tanh(c_t)",
            ),
            state=(HIDDEN, StateField("c", "the memory cell")),
            checked_against="torchrecurrent",
            notes="Peepholes are diagonal, and the output gate reads the new memory. The first "
            "papers have no tanh before the output gate: squash=identity. forget_bias is that of "
            "`lstm`.",
        ),
    ),
    CellSpec(
        name="mgu",
        factory="zoo_classic.mgu:MGU",
        learning_rate=3e-3,
        card=ModelCard(
            title="Minimal gated unit",
            authors="Guo-Bing Zhou, Jianxin Wu, Chen-Lin Zhang and Zhi-Hua Zhou",
            year=2016,
            paper="Minimal gated unit for recurrent neural networks, arXiv:1603.09420",
            equations=(
                "f_t = σ(W_f [h_{t-1}, x_t] + b_f)",
                "h̃_t = tanh(W_h [f_t ⊙ h_{t-1}, x_t] + b_h)",
                "h_t = (1 - f_t) ⊙ h_{t-1} + f_t ⊙ h̃_t",
            ),
            state=(HIDDEN,),
            checked_against="torchrecurrent",
            notes="A GRU with one gate in place of the update and the reset gate.",
        ),
    ),
    CellSpec(
        name="ugrnn",
        factory="zoo_classic.ugrnn:UGRNN",
        learning_rate=3e-3,
        card=ModelCard(
            title="Update gate RNN",
            authors="Jasmine Collins, Jascha Sohl-Dickstein and David Sussillo",
            year=2016,
            paper="Capacity and trainability in recurrent neural networks, ICLR 2017, "
            "arXiv:1611.09913",
            equations=(
                "c_t = tanh(W_ch h_{t-1} + W_cx x_t + b_c)",
                "g_t = σ(W_gh h_{t-1} + W_gx x_t + b_g + b_fg)",
                "h_t = g_t ⊙ h_{t-1} + (1 - g_t) ⊙ c_t",
            ),
            state=(HIDDEN,),
            checked_against="torchrecurrent",
            notes="The forget bias b_fg (option `forget_bias`) is added to the initial bias of the "
            "gate. The paper writes s for the activation function of c_t; here it is tanh.",
        ),
    ),
    CellSpec(
        name="ligru",
        factory="zoo_classic.ligru:LiGRU",
        learning_rate=2e-3,
        card=ModelCard(
            title="Light gated recurrent unit",
            authors="Mirco Ravanelli, Philemon Brakel, Maurizio Omologo and Yoshua Bengio",
            year=2018,
            paper="Light gated recurrent units for speech recognition, IEEE Transactions on "
            "Emerging Topics in Computational Intelligence 2(2), arXiv:1803.10225",
            equations=(
                "z_t = σ(W_z x_t + U_z h_{t-1} + b_z)",
                "h̃_t = ReLU(W_h x_t + U_h h_{t-1} + b_h)",
                "h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ h̃_t",
            ),
            state=(HIDDEN,),
            checked_against="torchrecurrent",
            notes="Without the paper's batch normalisation of W_z x and W_h x, with which batch "
            "rows would not be independent; biases replace it. In the paper it also bounds the "
            "output of the ReLU, which is unbounded here.",
        ),
    ),
    CellSpec(
        name="janet",
        factory="zoo_classic.janet:JANET",
        learning_rate=1e-3,
        card=ModelCard(
            title="JANET, an LSTM with nothing but its forget gate",
            authors="Jos van der Westhuizen and Joan Lasenby",
            year=2018,
            paper="The unreasonable effectiveness of the forget gate, arXiv:1804.04849",
            equations=(
                "s_t = U_f h_{t-1} + W_f x_t + b_f",
                "c̃_t = tanh(U_c h_{t-1} + W_c x_t + b_c)",
                "c_t = σ(s_t) ⊙ c_{t-1} + (1 - σ(s_t - β)) ⊙ c̃_t",
                "h_t = c_t",
            ),
            state=(StateField("c", "the memory cell, which is also the output"),),
            checked_against="torchrecurrent",
            notes="The forget gate's biases are initialised to log U(1, T_max - 1), for memories "
            "of up to T_max steps (option `longest`): the chrono initialiser. The paper sets T_max "
            "to the length of its sequences, hundreds of steps; the default here is for text, "
            "whose first dependencies span a few characters. β is a constant. U is initialised e^β "
            "times smaller than by Glorot's rule, as the state grows up to e^β: otherwise it "
            "saturates the gates, and the model hardly learns.",
        ),
    ),
]
