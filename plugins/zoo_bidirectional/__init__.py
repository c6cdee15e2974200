"""A bidirectional wrapper of any causal cell."""

from collections.abc import Iterable

from zoo import CellSpec, ModelCard, StateField, hookimpl


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    return [
        CellSpec(
            name="bidirectional",
            factory="zoo_bidirectional.cell:Bidirectional",
            learning_rate=6e-3,
            causal=False,
            adopt="zoo_bidirectional.cell:adopt",
            hidden_sizes="zoo_bidirectional.cell:takes",
            wraps="cell",
            card=ModelCard(
                title="Bidirectional recurrent network, around any causal cell",
                authors="Mike Schuster and Kuldip K. Paliwal",
                year=1997,
                paper="Bidirectional recurrent neural networks, IEEE Transactions on Signal "
                "Processing 45(11), 2673-2681",
                equations=(
                    "→h_t = cell(x_t, →h_{t-1})   for t = 1 … T",
                    "←h_t = cell(x_t, ←h_{t+1})   for t = T … 1",
                    "y_t = [→h_t, ←h_t]",
                ),
                state=(
                    StateField("forward", "the forward cell's state"),
                    StateField("backward", "the backward cell's state"),
                ),
                checked_against="torch.nn.GRU and torch.nn.LSTM with bidirectional=True",
                notes="Its outputs depend on the whole sequence, so it has no step: it is trained "
                "to predict masked tokens, and `zoo fill` uses it. The option `cell` names the "
                "cell; every other option is the cell's own. Each direction has `hidden` units.",
            ),
        )
    ]
