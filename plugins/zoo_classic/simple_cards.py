"""Cells without gates: independent units, clocked modules, and an untrained reservoir."""

from zoo import CellSpec, ModelCard, StateField

SPECS = [
    CellSpec(
        name="indrnn",
        factory="zoo_classic.indrnn:IndRNN",
        learning_rate=3e-3,
        card=ModelCard(
            title="Independently recurrent neural network",
            authors="Shuai Li, Wanqing Li, Chris Cook, Ce Zhu and Yanbo Gao",
            year=2018,
            paper="Independently recurrent neural network (IndRNN): building a longer and deeper "
            "RNN, CVPR 2018, arXiv:1803.04831",
            equations=("h_t = σ(W x_t + u ⊙ h_{t-1} + b)", "σ = ReLU, or tanh"),
            state=(StateField("h", "the hidden state"),),
            checked_against="torchrecurrent",
            notes="Units are independent over time, so that gradients neither explode nor vanish "
            "while |u| stays near 1. The paper clips u to γ^(1/T) after each update; here u is "
            "clipped where it is used, to the limit of that bound for T → ∞, 1 (option `bound`). "
            "Batch normalisation and residual connections are not included. The next layer mixes "
            "the units: the paper stacks several.",
        ),
    ),
    CellSpec(
        name="clockwork-rnn",
        factory="zoo_classic.clockwork:ClockworkRNN",
        learning_rate=1e-3,
        card=ModelCard(
            title="Clockwork RNN",
            authors="Jan Koutník, Klaus Greff, Faustino Gomez and Jürgen Schmidhuber",
            year=2014,
            paper="A clockwork RNN, ICML 2014, arXiv:1402.3511",
            equations=(
                "y_t = tanh(W_H y_{t-1} + W_I x_t + b)  in modules with t mod T_i = 0",
                "y_t = y_{t-1}                          in the others",
                "T_i = 2^(i-1);  W_H is block-upper-triangular: slower modules feed faster ones",
            ),
            state=(
                StateField("y", "the hidden state"),
                StateField("t", "steps since the beginning, int64"),
            ),
            checked_against="the paper's equations, module by module, in NumPy",
            notes="Units are divided among `modules` modules as evenly as possible. All modules "
            "run at the first step, when t is 0. All of W_H y is computed, and the modules that "
            "are not due discard it: the paper's savings in computation are not realised.",
        ),
    ),
    CellSpec(
        name="echo-state",
        factory="zoo_classic.echo_state:EchoStateNetwork",
        learning_rate=1e-2,
        card=ModelCard(
            title="Echo state network",
            authors="Herbert Jaeger",
            year=2001,
            paper="The “echo state” approach to analysing and training recurrent neural networks, "
            "GMD Report 148, German National Research Center for Information Technology",
            equations=(
                "x̃_n = tanh(W_in u_n + W x_{n-1} + b)",
                "x_n = (1 - a) x_{n-1} + a x̃_n",
                "W_in, W and b are drawn once; the spectral radius of W is scaled to ρ",
            ),
            state=(StateField("x", "the reservoir's activations"),),
            checked_against="the equations in NumPy, and NumPy's eigenvalues of W",
            notes="The reservoir is never trained: its weights are parameters without gradients, "
            "saved and exported with their random initial values. The output head is trained by "
            "gradient descent, where the report solves a linear regression. Leaky units (option "
            "`leak`) are as in Jaeger, Lukoševičius, Popovici and Siewert (2007). There is no "
            "feedback from the output.",
        ),
    ),
]
