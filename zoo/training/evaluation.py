"""How good a model is on text that it is not trained on, and what it says meanwhile."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.config import Sampling
from zoo.data.batches import Window
from zoo.data.dataset import Dataset
from zoo.inference.infilling import fill_ids
from zoo.inference.position import Position
from zoo.models.language_model import LanguageModel
from zoo.models.torch_engine import ModelScorer, ModelStepper
from zoo.training.distributed import ALONE, Processes
from zoo.training.objectives import choose_objective

SAMPLE_LENGTH = 50
EVALUATION_ROWS, EVALUATION_STEPS = 32, 256


class Scores(NamedTuple):
    """Mean cross-entropy, and the share of tokens that got the highest logit."""

    nats_per_token: float
    accuracy: float


def evaluate(
    model: LanguageModel,
    tokens: Tensor,
    limit: int | None = None,
    processes: Processes = ALONE,
) -> Scores:
    """The loss and accuracy of the model on the text `tokens` (at least 2).

    The text is cut into up to 32 rows, each read from the initial state; at most one token for
    each row is left over at the end. Of a text of more than `limit` tokens only the beginning of
    each row is read. Tokens to be masked are the same ones every time. Each process reads its share
    of the rows.
    """
    rows = max(1, min(EVALUATION_ROWS, (len(tokens) - 1) // EVALUATION_STEPS))
    length = (len(tokens) - 1) // rows
    inputs_TB = tokens[: rows * length].view(rows, length).t()
    targets_TB = tokens[1 : rows * length + 1].view(rows, length).t()
    if limit is not None:
        length = min(length, max(1, limit // rows))
    objective, masks = choose_objective(model), torch.Generator().manual_seed(0)
    mine = processes.rows(rows)
    was_training = model.training
    model.eval()
    # nats, right ones, and how many there are
    sums = torch.zeros(3, dtype=torch.float64, device=tokens.device)
    with torch.no_grad():
        state = model.init_state(mine.stop - mine.start)
        for start in range(0, length if mine.stop > mine.start else 0, EVALUATION_STEPS):
            part = slice(start, min(start + EVALUATION_STEPS, length))
            if not objective.carries_state:
                state = model.init_state(mine.stop - mine.start)
            window = Window(inputs_TB[part], targets_TB[part], fresh=start == 0)
            examples = objective.examples(window, masks).of_rows(mine)
            logits_TBV, state = model(examples.inputs, state)
            logits, wanted = examples.select(logits_TBV)
            sums[0] += F.cross_entropy(logits, wanted, reduction="sum")
            sums[1] += (logits.argmax(-1) == wanted).sum()
            sums[2] += len(wanted)
    model.train(was_training)
    nats, right, total = processes.sum(sums).tolist()
    return Scores(nats / total, right / total)


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
        continuation = position.write(SAMPLE_LENGTH, Sampling())
        text = prompt + data.tokenizer.decode(continuation)
    else:
        ids = data.train[:SAMPLE_LENGTH].copy()
        ids[::7] = model.mask_token
        ids[::7] = fill_ids(ModelScorer(model), ids)[::7].argmax(-1)
        text = data.tokenizer.decode(ids.tolist())
    model.train(was_training)
    return text
