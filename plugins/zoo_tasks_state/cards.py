"""What a person wants to know about these tasks before using them."""

from zoo.registry import TaskCard

CHOMSKY = {
    "authors": "Delétang, Ruoss, Grau-Moya, Genewein, Wenliang, Catt and others",
    "year": 2023,
    "paper": "Neural Networks and the Chomsky Hierarchy, ICLR 2023",
}
ILLUSION = {
    "authors": "Merrill, Petty and Sabharwal",
    "year": 2024,
    "paper": "The Illusion of State in State-Space Models, ICML 2024",
}
EVERY = "The paper asks at the end alone: `end=true`, as its full size has it."

PARITY = TaskCard(
    title="Parity",
    **CHOMSKY,  # type: ignore[arg-type]
    definition="Reads bits; at each of them, asks whether the number of ones so far is odd. "
    + EVERY,
    measures="Whether a cell can follow a state that an input flips, at any length.",
    results=(
        "RNNs and LSTMs solve it at lengths never seen (Delétang et al. 2023).",
        "Mamba and other cells with transitions in [0, 1] do not; with eigenvalues in [-1, 1] they "
        "do (Grazzi et al. 2025).",
    ),
)
MODULAR_ARITHMETIC = TaskCard(
    title="Modular arithmetic without brackets",
    **CHOMSKY,  # type: ignore[arg-type]
    definition="Reads numbers from 0 to 4 with +, - and × between them; at each number, asks for "
    "the value so far modulo 5, products before sums. " + EVERY,
    measures="Whether a cell can follow a state of 25 values that inputs move and multiply.",
    results=("RNNs and LSTMs solve it at lengths never seen (Delétang et al. 2023).",),
)
BRACKETS = TaskCard(
    title="Modular arithmetic with brackets",
    **CHOMSKY,  # type: ignore[arg-type]
    definition="Reads an expression of numbers from 0 to 4 in which each +, - and × has brackets "
    "of its own; at each closing bracket, asks for the value of what it closes modulo 5. " + EVERY,
    measures="Whether a cell can keep a stack of values.",
    results=(
        "RNNs and LSTMs fail at lengths never seen; a network with a stack solves it (Delétang et "
        "al. 2023).",
    ),
)
S3 = TaskCard(
    title="Word problem of S3",
    **ILLUSION,  # type: ignore[arg-type]
    definition="Reads permutations of three things; at each of them, asks for the product so far.",
    measures="Whether a cell can follow a state whose moves do not commute.",
)
A5 = TaskCard(
    title="Word problem of A5",
    **ILLUSION,  # type: ignore[arg-type]
    definition="Reads even permutations of five things, of which there are 60; at each of them, "
    "asks for the product so far.",
    measures="Whether a cell can do what no circuit of bounded depth can: the group is not "
    "solvable.",
    results=(
        "RNNs do it in one layer; Mamba and S4 need more layers for longer words (Merrill et "
        "al. 2024).",
    ),
)
S5 = TaskCard(
    title="Word problem of S5",
    **ILLUSION,  # type: ignore[arg-type]
    definition="Reads permutations of five things, of which there are 120; at each of them, asks "
    "for the product so far.",
    measures="As for A5, with twice the elements: tracking a chess board or a program's variables "
    "contains it.",
    results=A5.results,
)
DYCK = TaskCard(
    title="Dyck-2 of bounded depth",
    authors="Hewitt, Hahn, Ganguli, Liang and Manning",
    year=2020,
    paper="RNNs can generate bounded hierarchical languages with optimal memory, EMNLP 2020",
    definition="Reads brackets of two kinds, properly nested and never deeper than a bound; at "
    "each closing bracket, asks for the kind of the one that is open after it, or whether none is.",
    measures="Whether a cell can keep a stack of bounded depth.",
    results=(
        "RNNs and LSTMs can, with as many units as the depth needs bits (Hewitt et al. 2020).",
    ),
)
COUNTING = TaskCard(
    title="Counting: aⁿbⁿcⁿ",
    authors="Gers and Schmidhuber",
    year=2001,
    paper="LSTM recurrent networks learn simple context-free and context-sensitive languages, IEEE "
    "Transactions on Neural Networks 12",
    definition="Reads n times a, n times b, n times c and an end; from the first b on, asks for "
    "the next symbol. A sequence is right if all of it is.",
    measures="Whether a cell can count up and down in a state, and to numbers never seen.",
    results=(
        "An LSTM trained on n up to 40 counts to several hundred (Gers and Schmidhuber 2001).",
        "LSTMs and ReLU RNNs count, GRUs and tanh RNNs do not (Weiss et al. 2018).",
    ),
)
