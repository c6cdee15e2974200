"""The lecture note's experiments as a plain PyTorch loop, with no code of the zoo: the reference
for the zoo's speed and perplexity.

The equations, sizes, sampling of batches, clipping, updates and initial values are those of Dive
into Deep Learning, sections 9.2, 9.5 and 9.6; so are the sample of 50 characters after every tenth
epoch and the curve that is then redrawn.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH, STEPS, EPOCHS, TOKENS = 32, 35, 500, 10_000


def read_tokens(path: Path) -> tuple[Tensor, int]:
    """The first 10,000 characters as numbers, and the size of the vocabulary."""
    lines = path.read_text("utf-8").splitlines()
    text = "".join(re.sub("[^A-Za-z]+", " ", line).strip().lower() for line in lines)
    order = [character for character, _ in Counter(text).most_common()]
    index = {character: number + 1 for number, character in enumerate(order)}
    return torch.tensor([index[character] for character in text])[:TOKENS], len(order) + 1


def sequential(tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    offset = random.randint(0, STEPS)
    count = (len(tokens) - offset - 1) // BATCH * BATCH
    inputs = tokens[offset : offset + count].reshape(BATCH, -1)
    targets = tokens[offset + 1 : offset + 1 + count].reshape(BATCH, -1)
    for start in range(0, inputs.shape[1] // STEPS * STEPS, STEPS):
        yield inputs[:, start : start + STEPS], targets[:, start : start + STEPS]


def shuffled(tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    tokens = tokens[random.randint(0, STEPS - 1) :]
    starts = list(range(0, (len(tokens) - 1) // STEPS * STEPS, STEPS))
    random.shuffle(starts)
    for first in range(0, len(starts) // BATCH * BATCH, BATCH):
        batch = starts[first : first + BATCH]
        yield (
            torch.stack([tokens[start : start + STEPS] for start in batch]),
            torch.stack([tokens[start + 1 : start + 1 + STEPS] for start in batch]),
        )


class ScratchNet(nn.Module):
    """A simple recurrent network and its head, looping over time, by autograd."""

    def __init__(self, vocab_size: int, hidden: int) -> None:
        super().__init__()
        self.vocab_size, self.hidden = vocab_size, hidden
        self.W_xh = nn.Parameter(torch.randn(vocab_size, hidden) * 0.01)
        self.W_hh = nn.Parameter(torch.randn(hidden, hidden) * 0.01)
        self.b_h = nn.Parameter(torch.zeros(hidden))
        self.W_hq = nn.Parameter(torch.randn(hidden, vocab_size) * 0.01)
        self.b_q = nn.Parameter(torch.zeros(vocab_size))

    def begin(self, rows: int) -> Tensor:
        return torch.zeros(rows, self.hidden)

    def forward(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for x in F.one_hot(tokens.T, self.vocab_size).float():
            state = torch.tanh(x @ self.W_xh + state @ self.W_hh + self.b_h)
            outputs.append(state @ self.W_hq + self.b_q)
        return torch.cat(outputs), state


class LibraryNet(nn.Module):
    """torch.nn.RNN and a linear head."""

    def __init__(self, vocab_size: int, hidden: int) -> None:
        super().__init__()
        self.vocab_size, self.hidden = vocab_size, hidden
        self.rnn = nn.RNN(vocab_size, hidden)
        self.head = nn.Linear(hidden, vocab_size)

    def begin(self, rows: int) -> Tensor:
        return torch.zeros(1, rows, self.hidden)

    def forward(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = self.rnn(F.one_hot(tokens.T, self.vocab_size).float(), state)
        return self.head(outputs.flatten(0, 1)), state


def continue_text(net: ScratchNet | LibraryNet, prompt: list[int], length: int) -> list[int]:
    state, tokens = net.begin(1), prompt[:1]
    for token in prompt[1:]:
        _, state = net(torch.tensor([[tokens[-1]]]), state)
        tokens.append(token)
    for _ in range(length):
        logits, state = net(torch.tensor([[tokens[-1]]]), state)
        tokens.append(int(logits.argmax(dim=1)))
    return tokens


def draw(perplexities: list[float]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(perplexities)
    axes.set(xlabel="epoch", ylabel="perplexity")
    figure.savefig(BytesIO(), format="png")


EXPERIMENTS = {
    "d2l-scratch": (ScratchNet, 512, sequential),
    "d2l-scratch-random": (ScratchNet, 512, shuffled),
    "d2l-concise": (LibraryNet, 256, sequential),
}


def train(
    name: str, path: Path, seed: int, epochs: int = EPOCHS
) -> tuple[list[float], float, float]:
    """The perplexity of each epoch, the seconds that all took, and those spent on drawing."""
    torch.manual_seed(seed)
    random.seed(seed)
    make, hidden, batches = EXPERIMENTS[name]
    tokens, vocab_size = read_tokens(path)
    net = make(vocab_size, hidden)
    parameters = list(net.parameters())
    loss_of = nn.CrossEntropyLoss()
    library = torch.optim.SGD(parameters, 1.0) if make is LibraryNet else None
    prompt = tokens[34:48].tolist()  # "time traveller"
    perplexities, drawing = [], 0.0
    began = time.perf_counter()
    for epoch in range(epochs):
        state, total, count = None, 0.0, 0
        for inputs, targets in batches(tokens):
            fresh = state is None or batches is shuffled
            state = net.begin(BATCH) if fresh else state.detach()
            logits, state = net(inputs, state)
            loss = loss_of(logits, targets.T.reshape(-1))
            if library is not None:
                library.zero_grad()
            loss.backward()
            norm = torch.sqrt(sum((parameter.grad**2).sum() for parameter in parameters))
            if norm > 1:
                for parameter in parameters:
                    parameter.grad *= 1 / norm
            if library is not None:
                library.step()
            else:
                with torch.no_grad():
                    for parameter in parameters:
                        parameter -= parameter.grad
                        parameter.grad.zero_()
            total += loss.item() * targets.numel()
            count += targets.numel()
        perplexities.append(math.exp(total / count))
        if (epoch + 1) % 10 == 0:
            continue_text(net, prompt, 50)
            drawing_began = time.perf_counter()
            draw(perplexities)
            drawing += time.perf_counter() - drawing_began
    return perplexities, time.perf_counter() - began, drawing
