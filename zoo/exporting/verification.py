"""Checking an exported file against the run that it came from."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.config import DEFAULT_MAX_LOSS, Sampling
from zoo.errors import VerificationError
from zoo.exporting.export import task_to_judge_by, text_to_judge_by
from zoo.exporting.parity import PARTING
from zoo.exporting.staging import ExportBuilder
from zoo.exporting.text_comparison import Difference, compare_texts
from zoo.inference.artifact import Proof
from zoo.inference.engine import Engine
from zoo.inference.runtime import open_artifact
from zoo.inference.urls import shown_source
from zoo.models.language_model import fingerprint
from zoo.models.torch_engine import ModelStepper
from zoo.registry.registry import Registry, load_registry
from zoo.registry.specs import FULL
from zoo.runs.run import Run, load


@dataclass(frozen=True)
class Verification:
    """What `verify` found: the proof and, for each text that both generated, its
    settings, seed and differences."""

    proof: Proof
    texts: tuple[tuple[Sampling, int, tuple[Difference, ...]], ...]


def verify(
    file: str | Path,
    against: Run | str | Path,
    provider: str = "auto",
    *,
    length: int = 2000,
    seeds: int = 5,
    temperature: float = 0.8,
    max_loss: float = DEFAULT_MAX_LOSS,
    exporter: str | None = None,
    runtime: str | None = None,
    registry: Registry | None = None,
) -> Verification:
    """Proves an exported file, at a path or URL, against the run that it came from: step by step,
    as `zoo.export` does; and, if it generates in full precision, by the texts of both (`length`
    tokens, greedily and with `seeds` seeds at `temperature`). `exporter` and `runtime` are the
    names of those that wrote it and open it, where several can.

    Raises VerificationError for a file of another model, for a step that differs, for a precision
    that costs more than `max_loss` bits per token, and, unless the model amplifies rounding within
    `length` tokens, for texts that differ by more than rounding ties.
    """
    registry = registry or load_registry()
    artifact = open_artifact(file, provider, registry, runtime=runtime)
    info = artifact.info
    if not isinstance(against, Run):
        against = load(against, registry)
    run = against.config.model, against.tokenizer_or_none, against.config.interface
    if (info.model, info.tokenizer, info.interface) != run or (
        info.weights != fingerprint(against.model)
    ):
        raise VerificationError(
            f"{shown_source(file)} was exported from another model than {against.path}."
        )
    task = task_to_judge_by(against, registry) if info.precision != FULL else None
    text, name = text_to_judge_by(against, registry) if info.precision != FULL else (None, "")
    with tempfile.TemporaryDirectory() as folder:
        builder = ExportBuilder(
            against.model,
            Path(folder),
            registry,
            text=text,
            text_name=name,
            max_loss=max_loss,
            task=task,
            runtime=runtime,
        )
        proof = builder.prove(info, artifact.engine, exporter)
    reference, engine = builder.reference, artifact.engine
    texts = []
    if (
        isinstance(reference, ModelStepper)
        and isinstance(engine, Engine)
        and info.precision == FULL
        and info.tokenizer is not None
    ):
        prompt = artifact.tokenizer.encode(artifact.prompt)
        drawn = Sampling.checked(temperature=temperature)
        for sampling, seed in [(Sampling(), 0), *((drawn, seed) for seed in range(seeds))]:
            found = compare_texts(reference, engine, prompt, length, sampling, seed)
            texts.append((sampling, seed, tuple(found)))
    differences = [difference for _, _, found in texts for difference in found]
    # texts may be longer than what the proof's own gap was measured over
    if differences and not (proof.amplifies or Proof.gap_amplifies(builder.gap_over(length))):
        judge(differences, length * len(texts), proof.float64_gap or 0.0)
    return Verification(proof, tuple(texts))


def judge(differences: Sequence[Difference], tokens: int, gap: float = 0.0) -> None:
    """VerificationError for a difference that is no rounding tie, or for too many ties. `gap` is
    how far rounding carries the model's own runs apart: a choice that is less clear than some of
    that is a tie."""
    faults = [each for each in differences if not (each.is_tie or each.margin <= PARTING * gap)]
    if faults:
        worst = max(faults, key=lambda difference: difference.margin)
        raise VerificationError(
            f"the texts differ at token {worst.token}, where the choice was clear by "
            f"{worst.margin:.2g}: not a rounding tie."
        )
    allowed = max(2, 2 * tokens // 100_000)
    if len(differences) > allowed:
        raise VerificationError(
            f"{len(differences)} rounding ties in {tokens} tokens; at most {allowed} are expected."
        )
