"""Elman's simple recurrent network, written from its equations and as a wrapper of torch.nn.RNN."""

from collections.abc import Iterable

from zoo import CellSpec, ModelCard, StateField, hookimpl

STATE = (StateField("h", "the hidden state"),)


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    return [
        CellSpec(
            name="rnn-scratch",
            factory="zoo_elman.scratch:RNNScratch",
            learning_rate=1e-3,
            card=ModelCard(
                title="Simple recurrent network, from its equations",
                authors="Jeffrey L. Elman",
                year=1990,
                paper="Finding structure in time, Cognitive Science 14(2), 179-211",
                equations=("h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h)", "y_t = h_t"),
                state=STATE,
                checked_against="torch.nn.RNN, with its weights",
                notes="Weights are initialised from N(0, 0.01²) and biases to zero, as in the "
                "textbook Dive into Deep Learning, section 9.5.",
            ),
        ),
        CellSpec(
            name="rnn",
            factory="zoo_elman.library:RNN",
            learning_rate=1e-3,
            adopt="zoo_elman.library:adopt",
            card=ModelCard(
                title="Simple recurrent network, over torch.nn.RNN",
                authors="Jeffrey L. Elman",
                year=1990,
                paper="Finding structure in time, Cognitive Science 14(2), 179-211",
                equations=(
                    "h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)",
                    "y_t = h_t",
                ),
                state=STATE,
                checked_against="torch.nn.RNN, whose kernels it uses for whole sequences",
                notes="Whole sequences run in torch.nn.RNN; a step is written out over the same "
                "parameters.",
            ),
        ),
    ]
