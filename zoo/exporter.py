"""From a trained model to a published file: the contract of exporters, and the road that every file
takes (build, seal, open, prove, publish)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from zoo.artifact import ArtifactInfo, StateEntry, TrainingFacts
from zoo.config import Sampling
from zoo.errors import UnknownNameError, VerificationError
from zoo.generator import find_runtime
from zoo.proof import Difference, Proof, compare_texts, free_gap, prove
from zoo.registry import Registry, load_registry
from zoo.tokenizers import Tokenizer

if TYPE_CHECKING:
    from zoo.model import LanguageModel
    from zoo.run import Run


class Exporter(Protocol):
    """Writes models in one format."""

    suffix: str

    def build(self, model: LanguageModel, info: ArtifactInfo) -> bytes:
        """The graph `info.graph` of the model, without metadata, its inputs and outputs named as
        `info` says. Raises VerificationError for a graph that the format's own checker refuses."""

    def seal(self, graph: bytes, info: ArtifactInfo) -> bytes:
        """The file: the graph with `info` as its metadata, and a digest of all of it."""


@dataclass(frozen=True)
class Exported:
    """A published file, and what it says about itself (its proof with it)."""

    path: Path
    info: ArtifactInfo


def export(
    run: Run | str | Path,
    graph: str = "step",
    out: str | Path | None = None,
    registry: Registry | None = None,
) -> Exported:
    """Exports a trained run, proves the file against PyTorch, and only then publishes it.

    The file is named by the graph and the format's suffix, in the folder `out` (by default `export`
    in the run's folder). Raises UnknownNameError for a graph that no exporter writes, NoStepError
    for a cell without a step, VerificationError for a file that does not compute what the model
    computes; nothing is written then.
    """
    from zoo.checkpoint import new_folder, write_atomically
    from zoo.run import Run, load

    registry = registry or load_registry()
    find_exporter(graph, registry)
    if not isinstance(run, Run):
        run = load(run, registry)
    folder = Path(out) if out is not None else run.path / "export"
    info = describe(run.model, run.tokenizer, graph, training_facts(run))
    with new_folder(folder):
        made = draft(run.model, info, folder, registry)
        write_atomically(made.path, made.content)
    return Exported(made.path, made.info)


@dataclass(frozen=True)
class Draft:
    """A file that has been proved and not been written yet."""

    path: Path
    content: bytes
    info: ArtifactInfo


def draft(model: LanguageModel, info: ArtifactInfo, folder: Path, registry: Registry) -> Draft:
    """Builds the graph `info.graph` of a model and proves it in its runtime, on the CPU.

    `folder` is where the file would go; what is written there on the way is removed again.
    """
    from zoo.model import ModelStepper, to_float64

    exporter = find_exporter(info.graph, registry)
    model = deepcopy(model).cpu().eval()
    reference = ModelStepper(model)
    path = folder / f"{info.graph}{exporter.suffix}"
    runtime = find_runtime(path, registry)
    built = exporter.build(model, info)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".draft-") as drafts:
        trial = Path(drafts) / path.name
        trial.write_bytes(exporter.seal(built, info))
        try:
            proof = prove(reference, runtime.open(trial, "cpu").stepper)
        except VerificationError as error:
            raise VerificationError(f"{path.name} was not written: {error}") from None
        gap = free_gap(reference, ModelStepper(to_float64(model)))
        info = info.model_copy(update={"proof": proof.model_copy(update={"float64_gap": gap})})
        content = exporter.seal(built, info)
        trial.write_bytes(content)
        runtime.open(trial, "cpu")
    return Draft(path, content, info)


def find_exporter(graph: str, registry: Registry) -> Exporter:
    """An exporter that writes this kind of graph."""
    for spec in registry.exporters.values():
        if graph in spec.graphs:
            exporter: Exporter = spec.load_factory()()
            return exporter
    known = sorted({kind for spec in registry.exporters.values() for kind in spec.graphs})
    raise UnknownNameError("graph", graph, known, f"there is: {', '.join(known) or 'none'};")


def describe(
    model: LanguageModel, tokenizer: Tokenizer, graph: str, training: TrainingFacts | None = None
) -> ArtifactInfo:
    """What a file exported from a model says about itself, short of its proof."""
    from zoo.model import ModelStepper

    stepper = ModelStepper(model)
    rows = stepper.state_to_arrays(stepper.init_state(1))
    return ArtifactInfo(
        graph=graph,
        model=model.config,
        tokenizer=tokenizer,
        state=tuple(StateEntry.from_row(name, row[0]) for name, row in rows.items()),
        training=training or TrainingFacts(),
    )


def training_facts(run: Run) -> TrainingFacts:
    """Where a run's weights come from, by its config and its last line of metrics."""
    last = (run.metrics() or [{}])[-1]
    return TrainingFacts(
        corpus=run.config.data.corpus,
        prompt=run.prompt,
        epochs=last.get("epoch"),
        tokens=last.get("tokens"),
        train_perplexity=last.get("train_perplexity"),
        held_out_perplexity=last.get("held_out_perplexity"),
    )


@dataclass(frozen=True)
class Verification:
    """What `verify` found: the stepwise proof and, for each text that was generated on both sides,
    its settings, seed and differences."""

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
    registry: Registry | None = None,
) -> Verification:
    """Proves an exported file against the run that it came from: step by step, and by the text that
    both generate (`length` tokens, greedily and with `seeds` seeds at `temperature`).

    Raises VerificationError for a step that differs, and, unless the model amplifies rounding, for
    texts that differ by more than rounding ties.
    """
    from zoo.model import ModelStepper, to_float64
    from zoo.run import Run, load

    registry = registry or load_registry()
    artifact = find_runtime(Path(file), registry).open(Path(file), provider)
    if not isinstance(against, Run):
        against = load(against, registry)
    if artifact.info.model != against.config.model or artifact.tokenizer != against.tokenizer:
        raise VerificationError(f"{file} was exported from another model than {against.path}.")
    model = deepcopy(against.model).cpu().eval()
    reference = ModelStepper(model)
    proof = prove(reference, artifact.stepper).model_copy(
        update={"float64_gap": free_gap(reference, ModelStepper(to_float64(model)))}
    )
    prompt = artifact.tokenizer.encode(artifact.prompt)
    texts = []
    for sampling, seed in [
        (Sampling(), 0),
        *((Sampling.checked(temperature=temperature), seed) for seed in range(seeds)),
    ]:
        found = compare_texts(reference, artifact.stepper, prompt, length, sampling, seed)
        texts.append((sampling, seed, tuple(found)))
    if not proof.amplifies:
        _judge([difference for _, _, found in texts for difference in found], length * len(texts))
    return Verification(proof, tuple(texts))


def _judge(differences: Sequence[Difference], tokens: int) -> None:
    faults = [difference for difference in differences if not difference.is_tie]
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
