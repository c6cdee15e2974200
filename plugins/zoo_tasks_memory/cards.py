"""What a person wants to know about these tasks before using them."""

from typing import Any

from zoo.registry import TaskCard

MAD: dict[str, Any] = {
    "authors": "Poli, Thomas, Nguyen, Ponnusamy, Deiseroth, Kersting and others",
    "year": 2024,
    "paper": "Mechanistic Design and Scaling of Hybrid Architectures, ICML 2024",
}

COPYING = TaskCard(
    title="Copying memory",
    authors="Hochreiter and Schmidhuber; as in Arjovsky, Shah and Bengio",
    year=2016,
    paper="Unitary Evolution Recurrent Neural Networks, ICML 2016",
    definition="Reads ten symbols of eight, then blanks, then a sign; after the sign, asks for the "
    "symbols in their order.",
    measures="Whether a cell can keep 30 bits over a time in which nothing happens.",
    results=(
        "A unitary RNN does it over 500 blanks; an LSTM hardly gets beyond chance, log 8 (Arjovsky "
        "et al. 2016).",
    ),
)
SELECTIVE_COPYING = TaskCard(
    title="Selective copying",
    authors="Jing and others; as in Gu and Dao",
    year=2023,
    paper="Mamba: Linear-Time Sequence Modeling with Selective State Spaces, section 4.1.1",
    definition="Reads symbols among blanks, at other places in each sequence, then signs; at the "
    "signs, asks for the symbols in their order.",
    measures="Whether a cell can choose what it writes into its state: a fixed convolution cannot.",
    results=("S4 gets 18 %, S6, which is Mamba's layer, 97 % and more (Gu and Dao 2023).",),
)
INDUCTION = TaskCard(
    title="Induction heads",
    authors="Olsson and others; as in Gu and Dao",
    year=2023,
    paper="Mamba: Linear-Time Sequence Modeling with Selective State Spaces, section 4.1.2",
    definition="Reads random tokens of 15 with a sign among them and at the end; there, asks for "
    "the token that followed the sign at first.",
    measures="Whether a cell can recall by content, and ignore the rest at any length.",
    results=("Mamba, trained at length 256, does it at a million (Gu and Dao 2023).",),
)
MQAR = TaskCard(
    title="Multi-query associative recall",
    authors="Arora, Eyuboglu, Timalsina, Johnson, Poli, Zou, Rudra and Ré",
    year=2023,
    paper="Zoology: Measuring and Improving Recall in Efficient Language Models, section 4",
    definition="Reads pairs of a key and a value, all different, then the keys again among blanks; "
    "at each key, asks for its value. The times until a key comes again follow a power law.",
    measures="How many pairs the state holds, and finds again by key.",
    results=(
        "Attention solves it at any width; convolutions and fixed transitions need a state that "
        "grows with the length (Arora et al. 2023).",
    ),
)
FUZZY_RECALL = TaskCard(
    title="Fuzzy in-context recall",
    **MAD,
    definition="Reads keys and values in turn, each of one to three tokens, a key always with the "
    "same value; at a key that was there before, asks for its value, token by token. No key begins "
    "with another.",
    measures="Recall by keys that are put together from several tokens.",
)
NOISY_RECALL = TaskCard(
    title="Noisy in-context recall",
    **MAD,
    definition="Reads keys and values in turn, a key always with the same value, and in the place "
    "of a fifth of the pairs tokens that mean nothing; at a key that was there before, asks for "
    "its value.",
    measures="Recall where much is to be ignored.",
)
COMPRESSION = TaskCard(
    title="Compression",
    **MAD,
    definition="Reads symbols and a sign, then places in some order; at each place, asks for the "
    "symbol that stood there. (In the paper a network of its own decodes the state at the sign; a "
    "recurrent cell is asked place by place.)",
    measures="How many symbols a state holds, by their place.",
)
ADDING = TaskCard(
    title="Adding problem",
    authors="Hochreiter and Schmidhuber; as in Le, Jaitly and Hinton",
    year=2015,
    paper="A Simple Way to Initialize Recurrent Networks of Rectified Linear Units",
    definition="Reads random numbers from 0 to 1, two of them marked, one in each half; at the "
    "end, asks for their sum. The error is the mean square; always 1 has 0.167.",
    measures="Whether a cell can keep real numbers, and add them.",
    results=("An IRNN does it at length 300, a tanh RNN not at 150 (Le et al. 2015).",),
)
DELAYED_MATCH = TaskCard(
    title="Delayed match to sample",
    authors="Miller, Erickson and Desimone; as in Yang, Joglekar, Song, Newsome and Wang",
    year=2019,
    paper="Task representations in neural networks trained to perform many cognitive tasks, Nature "
    "Neuroscience 22",
    definition="Reads a noisy sample of eight, then noise, then a second sample; asks whether it "
    "is the same one.",
    measures="Working memory of one thing, through noise.",
)
