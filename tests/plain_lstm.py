"""A character model in plain PyTorch, with no code of the zoo: it trains, saves, and generates with
its own loop. The tests import and export it, and compare the texts.

    python plain_lstm.py TEXT WEIGHTS   trains and saves
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn


class CharModel(nn.Module):
    def __init__(self, vocabulary: str, kind: str = "LSTM", **arguments: object) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(len(vocabulary), 16)
        self.rnn = getattr(nn, kind)(16, 40, num_layers=2, batch_first=True, **arguments)
        self.head = nn.Linear(40 * (2 if self.rnn.bidirectional else 1), len(vocabulary))

    def forward(self, tokens: torch.Tensor, state: object = None) -> tuple[torch.Tensor, object]:
        outputs, state = self.rnn(self.embedding(tokens), state)
        return self.head(outputs), state


def train(text: str, epochs: int = 30, **arguments: object) -> CharModel:
    torch.manual_seed(0)
    # as in the zoo's tokenizer, the first entry is for unknown characters
    vocabulary = "\ufffd" + "".join(sorted(set(text)))
    model = CharModel(vocabulary, **arguments)
    tokens = torch.tensor([vocabulary.index(character) for character in text])
    rows = tokens[: len(tokens) // 8 * 8].view(8, -1)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    for _ in range(epochs):
        state = None
        for start in range(0, rows.shape[1] - 33, 32):
            logits, state = model(rows[:, start : start + 32], state)
            state = (
                tuple(leaf.detach() for leaf in state)
                if isinstance(state, tuple)
                else state.detach()
            )
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1), rows[:, start + 1 : start + 33].flatten()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def continue_text(model: CharModel, prompt: str, length: int) -> str:
    """Greedy generation."""
    logits, state = model(torch.tensor([[model.vocabulary.index(c) for c in prompt]]))
    text = ""
    for _ in range(length):
        token = logits[0, -1].argmax()
        text += model.vocabulary[token]
        logits, state = model(token.view(1, 1), state)
    return text


if __name__ == "__main__":
    torch.save(train(Path(sys.argv[1]).read_text()).state_dict(), sys.argv[2])
