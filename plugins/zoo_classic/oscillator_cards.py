"""Cells that discretise a differential equation."""

from zoo import CellSpec, ModelCard, StateField

POSITION = StateField("y", "positions of the oscillators; the output")
VELOCITY = StateField("z", "velocities of the oscillators")

SPECS = [
    CellSpec(
        name="cornn",
        factory="zoo_classic.cornn:CoRNN",
        learning_rate=1e-3,
        card=ModelCard(
            title="Coupled oscillatory recurrent network",
            authors="T. Konstantin Rusch and Siddhartha Mishra",
            year=2020,
            paper="Coupled oscillatory recurrent neural network (coRNN): an accurate and "
            "(gradient) stable architecture for learning long time dependencies, ICLR 2021, "
            "arXiv:2010.00951",
            equations=(
                "z_n = z_{n-1} + Δt (tanh(W y_{n-1} + W' z_{n-1} + V u_n + b) - γ y_{n-1} - ε z_n̄)",
                "y_n = y_{n-1} + Δt z_n",
                "n̄ = n - 1 (damping=explicit) or n (damping=implicit)",
            ),
            state=(POSITION, VELOCITY),
            checked_against="torchrecurrent, and a step worked by hand",
            notes="The output is y. The authors' code is damping=explicit. It uses steps Δt of "
            "0.01 to 0.1 for long sequences; the defaults here are for text, where each step is a "
            "new token: an oscillation of about 8 steps that halves in 2.",
        ),
    ),
    CellSpec(
        name="lem",
        factory="zoo_classic.lem:LEM",
        learning_rate=3e-3,
        card=ModelCard(
            title="Long expressive memory",
            authors="T. Konstantin Rusch, Siddhartha Mishra, N. Benjamin Erichson and "
            "Michael W. Mahoney",
            year=2021,
            paper="Long expressive memory for sequence modeling, ICLR 2022, arXiv:2110.04744",
            equations=(
                "Δt_n = Δt σ̂(W_1 y_{n-1} + V_1 u_n + b_1)",
                "Δt̄_n = Δt σ̂(W_2 y_{n-1} + V_2 u_n + b_2)",
                "z_n = (1 - Δt_n) ⊙ z_{n-1} + Δt_n ⊙ tanh(W_z y_{n-1} + V_z u_n + b_z)",
                "y_n = (1 - Δt̄_n) ⊙ y_{n-1} + Δt̄_n ⊙ tanh(W_y z_n + V_y u_n + b_y)",
            ),
            state=(
                StateField("y", "the slow variable; the output"),
                StateField("z", "the memory that y reads"),
            ),
            checked_against="the paper's equations in NumPy, and a step worked by hand",
            notes="The step of y uses the new z, as in the paper and its authors' code (in "
            "torchrecurrent it does not).",
        ),
    ),
    CellSpec(
        name="unicornn",
        factory="zoo_classic.unicornn:UnICORNN",
        card=ModelCard(
            title="Undamped independent controlled oscillatory network",
            authors="T. Konstantin Rusch and Siddhartha Mishra",
            year=2021,
            paper="UnICORNN: a recurrent model for learning very long time dependencies, "
            "ICML 2021, arXiv:2103.05487",
            equations=(
                "z_n = z_{n-1} - Δt σ̂(c) ⊙ (tanh(w ⊙ y_{n-1} + V u_n + b) + α y_{n-1})",
                "y_n = y_{n-1} + Δt σ̂(c) ⊙ z_n",
            ),
            state=(POSITION, VELOCITY),
            checked_against="torchrecurrent",
            notes="One layer, of which the paper stacks several. The units are undamped and "
            "uncoupled; σ̂(c) scales each unit's time step. Without damping nothing is forgotten: "
            "over a long text the state grows, and the past outweighs the latest tokens. The cell "
            "suits sequences that start from a zero state (train with batches=random), and does "
            "not generalise to longer ones.",
        ),
    ),
]
