"""Filling gaps in a text, with a model that sees both sides of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from zoo.errors import UsageError
from zoo.generator import encode_prompt
from zoo.model import LanguageModel
from zoo.registry import Registry
from zoo.run import Run, load
from zoo.tokenizers import Ids

GAP = "_"


@dataclass(frozen=True)
class Gap:
    """One gap: the number of tokens before it, and the likeliest tokens with their probabilities,
    best first."""

    position: int
    candidates: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Filled:
    """A text with every gap filled by its likeliest token."""

    text: str
    gaps: tuple[Gap, ...]


def fill(
    run: Run | str | Path,
    text: str,
    gap: str = GAP,
    top: int = 5,
    registry: Registry | None = None,
) -> Filled:
    """Fills each `gap` character of `text` with one token. All gaps are filled at once, each by its
    own probabilities given the text around them.

    Raises UsageError for a model of a causal cell (which sees only the past), or a text without a
    gap.
    """
    if not isinstance(run, Run):
        run = load(run, registry)
    if run.model.causal:
        raise UsageError(
            f"cell {run.config.model.cell!r} sees only the past and cannot fill gaps; continue the "
            f"text with `zoo generate`, or train a cell that sees both sides."
        )
    if len(gap) != 1 or gap not in text:
        raise UsageError(
            f"the text has no gap; write {gap[:1] or GAP!r} for each token to fill in."
        )
    pieces = text.split(gap)
    if known := "".join(pieces):
        encode_prompt(run.tokenizer, known)  # warns, once, of what the model never saw
    ids: list[int] = []
    positions = []
    for index, piece in enumerate(pieces):
        if index:
            positions.append(len(ids))
            ids.append(run.model.mask_token)
        ids.extend(run.tokenizer.encode(piece).tolist())
    probabilities = fill_ids(run.model, np.array(ids))
    gaps = []
    for position in positions:
        best = np.argsort(-probabilities[position], kind="stable")[:top]
        candidates = [(run.tokenizer.decode([t]), float(probabilities[position, t])) for t in best]
        gaps.append(Gap(position, tuple(candidates)))
    filled = [piece + found.candidates[0][0] for piece, found in zip(pieces, gaps, strict=False)]
    return Filled("".join([*filled, pieces[-1]]), tuple(gaps))


def fill_ids(model: LanguageModel, ids: Ids) -> npt.NDArray[np.float32]:
    """Probabilities [T, V] of the token at each place, from the whole of `ids`."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        logits, _ = model(torch.from_numpy(ids).to(device).unsqueeze(1))
        found: npt.NDArray[np.float32] = logits[:, 0].softmax(-1).cpu().numpy()
    model.train(was_training)
    return found
