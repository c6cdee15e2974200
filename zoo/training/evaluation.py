"""How good a model is on text that it is not trained on, and what it says meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.config import Sampling
from zoo.data.batches import Reader, Window
from zoo.data.dataset import Dataset
from zoo.data.token_store import Tokens
from zoo.inference.infilling import fill_ids
from zoo.inference.position import Position, Stops
from zoo.models.language_model import LanguageModel
from zoo.models.torch_engine import ModelScorer, ModelStepper
from zoo.training.distributed import ALONE, Processes
from zoo.training.documents import read_documents
from zoo.training.objectives import Examples, GivenTargets, choose_objective, loss_of

SAMPLE_LENGTH = 50
EVALUATION_ROWS, EVALUATION_STEPS = 32, 256
EVALUATION_LOGITS = 2**24  # numbers that are computed at once: 64 MB, and as much again


class Scores(NamedTuple):
    """Mean cross-entropy, the share of tokens that got the highest logit, and how many steps of
    each row were read. Of a task that asks for numbers, the mean squared error and no share."""

    nats_per_token: float
    accuracy: float | None
    steps: int


def evaluate(
    model: LanguageModel,
    tokens: Tokens,
    limit: int | None = None,
    processes: Processes = ALONE,
    *,
    end: int | None = None,
    steps: int | None = None,
    seconds: float = math.inf,
) -> Scores:
    """The loss and accuracy of the model on the text `tokens` (at least 2), whose documents the
    token `end` separates.

    The text is cut into up to 32 rows, each read from the initial state; at most one token for
    each row is left over at the end. Of a text of more than `limit` tokens only the beginning of
    each row is read, at most `steps` tokens, and no more windows after so many `seconds`. Tokens to
    be masked are the same ones every time. Each process reads its share of the rows.
    """
    objective, masks = choose_objective(model), torch.Generator().manual_seed(0)
    at_once = max(
        1, EVALUATION_LOGITS // model.vocab_size
    )  # tokens, for the memory of their logits
    if objective.carries_state:
        rows, window_steps = EVALUATION_ROWS, min(EVALUATION_STEPS, at_once // EVALUATION_ROWS)
    else:  # where a window is the context of a masked token, it keeps its length
        rows, window_steps = min(EVALUATION_ROWS, at_once // EVALUATION_STEPS), EVALUATION_STEPS
        end = None
    rows = max(1, min(rows, (len(tokens) - 1) // EVALUATION_STEPS))
    length = (len(tokens) - 1) // rows
    starts, reader = length * np.arange(rows), Reader(tokens)
    length = min(length, length if limit is None else max(1, limit // rows), steps or length)
    mine = processes.rows(rows)
    began, read = time.monotonic(), 0
    was_training = model.training
    model.eval()
    # nats, right ones, and how many there are
    device = next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    with torch.no_grad():
        initial = state = model.init_state(mine.stop - mine.start)
        while read < length:
            count = min(max(1, window_steps), length - read)
            window = reader.window(starts + read, count, fresh=read == 0).to(device)
            examples = objective.examples(window, masks).of_rows(mine)
            if mine.stop > mine.start:
                before = state if objective.carries_state else initial
                logits_TBV, state = read_documents(model, examples.inputs, before, initial, end)
                logits, wanted = examples.select(logits_TBV)
                sums[0] += F.cross_entropy(logits, wanted, reduction="sum")
                sums[1] += (logits.argmax(-1) == wanted).sum()
                sums[2] += len(wanted)
            read += count
            if seconds < math.inf and processes.agree(time.monotonic() - began)[0] > seconds:
                break
    model.train(was_training)
    nats, right, total = processes.sum(sums).tolist()
    return Scores(nats / total, right / total, read)


def evaluate_batches(
    model: LanguageModel,
    windows: Iterable[Window],
    processes: Processes = ALONE,
    *,
    whole: bool = False,
) -> Scores:
    """The loss and accuracy of the model on these windows, each from the initial state; `whole`
    counts a sequence as right only if all that is asked in it is. Each process reads its share of
    the rows."""
    loss, asks_classes = loss_of(model.interface), model.interface.gives == "classes"
    # the loss, of how many numbers or classes; right ones, of how many positions or sequences
    sums = torch.zeros(4, dtype=torch.float64, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for window in windows:
            mine = processes.rows(window.inputs.shape[1])
            if mine.stop == mine.start:
                continue
            found = GivenTargets().examples(window.to(sums.device), torch.Generator())
            examples = found.of_rows(mine)
            outputs, _ = model(examples.inputs, model.init_state(mine.stop - mine.start))
            selected, targets = examples.select(outputs)
            sums[0] += loss(selected, targets, reduction="sum")
            sums[1] += targets.numel()
            if asks_classes:
                right = _right(outputs, examples, whole)
                sums[2] += right.sum()
                sums[3] += right.numel()
    model.train(was_training)
    total, count, right_ones, asked = processes.sum(sums).tolist()
    return Scores(total / count, right_ones / asked if asks_classes else None, 1)


def _right(outputs_TBV: Tensor, examples: Examples, whole: bool) -> Tensor:
    """Which of the asked positions, or of the `whole` sequences, are right."""
    right, counted = outputs_TBV.argmax(-1) == examples.targets, examples.counted
    if whole:
        return (right if counted is None else right | ~counted).all(0)
    return right.flatten() if counted is None else right[counted]


def perplexity(nats_per_token: float) -> float:
    """exp of the mean cross-entropy; held below the largest number that JSON can carry."""
    return math.exp(min(nats_per_token, 700.0))


def sample(model: LanguageModel, data: Dataset, prompt: str) -> str:
    """The prompt, continued greedily; for a non-causal model, the beginning of the text with every
    seventh token masked and predicted."""
    was_training = model.training
    model.eval()
    if model.causal:
        ids = data.tokenizer.encode(prompt)
        position = Position(ModelStepper(model))
        position.feed(ids)
        stops = Stops((), data.tokenizer)
        continuation = position.write(SAMPLE_LENGTH, Sampling(), stops)
        text = prompt + data.tokenizer.decode(continuation)
    else:
        ids = data.train[:SAMPLE_LENGTH].astype(np.int64)
        ids[::7] = model.mask_token
        ids[::7] = fill_ids(ModelScorer(model), ids)[::7].argmax(-1)
        text = data.tokenizer.decode(ids.tolist())
    model.train(was_training)
    return text
