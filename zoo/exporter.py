"""From a trained run to a published file: the contract of exporters and runtimes, the names and the
metadata that they share, and the road every file takes (build, seal, open, prove, publish)."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from zoo.config import ModelConfig, Sampling, Settings, first_problem
from zoo.errors import ArtifactError, UnknownNameError, VerificationError
from zoo.generator import Source, find_runtime
from zoo.proof import Difference, Proof, compare_texts, free_gap, prove
from zoo.registry import Registry, load_registry
from zoo.tokenizers import Tokenizer

if TYPE_CHECKING:
    from zoo.model import LanguageModel
    from zoo.run import Run

PREFIX = "zoo."
TOKEN, LOGITS = "token", "logits"
MAX_STATE_ELEMENTS = 2**28  # per row: a gigabyte of float32


class StateEntry(Settings):
    """One leaf of the state as the file declares it.

    `name` is "layer0.h"; `shape` has no batch axis; `initial` is the row before the first step:
    the number that fills it, or its bytes (little-endian) in base64.
    """

    name: str = Field(pattern=r"^layer\d+(\.\w+)+$", max_length=200)
    shape: tuple[Annotated[int, Field(ge=1, le=MAX_STATE_ELEMENTS)], ...] = Field(max_length=8)
    dtype: Literal["float32", "float16", "float64", "int64", "int32", "bool"]
    initial: float | str

    @model_validator(mode="after")
    def _bounded(self) -> StateEntry:
        if self.elements > MAX_STATE_ELEMENTS:
            raise ValueError("a state leaf is too large")
        if isinstance(self.initial, str):
            self._decoded()
        return self

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:  # Python's integers: no overflow on hostile shapes
            count *= size
        return count

    def initial_rows(self, batch_size: int) -> npt.NDArray[Any]:
        """The leaf before the first step, [batch_size, *shape]."""
        if isinstance(self.initial, str):
            row = self._decoded().reshape(self.shape)
            return np.repeat(row[None], batch_size, axis=0)
        return np.full((batch_size, *self.shape), self.initial, self.dtype)

    def _decoded(self) -> npt.NDArray[Any]:
        assert isinstance(self.initial, str)
        raw = base64.b64decode(self.initial, validate=True)
        dtype = np.dtype(self.dtype).newbyteorder("<")
        if len(raw) != self.elements * dtype.itemsize:
            raise ValueError("the initial row does not fit the shape")
        return np.frombuffer(raw, dtype).astype(self.dtype)

    @classmethod
    def from_row(cls, name: str, row: npt.NDArray[Any]) -> StateEntry:
        """The entry of a leaf whose initial row, without the batch axis, is `row`."""
        first = row.flat[0].item()
        initial: float | str = (
            float(first)
            if (row == first).all()
            else base64.b64encode(row.astype(row.dtype.newbyteorder("<")).tobytes()).decode()
        )
        return cls.checked(name=name, shape=row.shape, dtype=str(row.dtype), initial=initial)


class TrainingFacts(Settings):
    """Where the weights come from."""

    corpus: str = ""
    prompt: str = ""
    epochs: int | None = None
    tokens: int | None = None
    train_perplexity: float | None = None
    held_out_perplexity: float | None = None


class ArtifactInfo(Settings):
    """What an exported file says about itself: a metadata entry for each field, under "zoo."."""

    format: Literal["1"] = "1"
    graph: str = Field(pattern=r"^[a-z]+$", max_length=40)
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    model: ModelConfig
    tokenizer: Annotated[Tokenizer, Field(discriminator="kind")]
    state: tuple[StateEntry, ...] = Field(max_length=4096)
    training: TrainingFacts = TrainingFacts()
    proof: Proof | None = None

    @model_validator(mode="after")
    def _distinct(self) -> ArtifactInfo:
        if len({entry.name for entry in self.state}) != len(self.state):
            raise ValueError("two state leaves have one name")
        return self

    def state_names(self, side: Literal["in", "out"]) -> list[str]:
        """Names of the graph's state inputs or outputs, in order: "state_00_layer0_h_in". Numbers
        have a fixed width, so that both sides sort alike."""
        width = max(2, len(str(len(self.state) - 1)))
        return [
            f"state_{index:0{width}}_{entry.name.replace('.', '_')}_{side}"
            for index, entry in enumerate(self.state)
        ]

    def to_metadata(self) -> dict[str, str]:
        fields = self.model_dump(mode="json")
        metadata = {
            PREFIX + name: value if isinstance(value, str) else json.dumps(value)
            for name, value in fields.items()
        }
        return {**metadata, PREFIX + "cell": self.model.cell}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> ArtifactInfo:
        """Raises ArtifactError for metadata that is not ours, damaged, or out of bounds."""
        if PREFIX + "format" not in metadata:
            raise ArtifactError("it was not exported by the zoo (it has no zoo.format).")
        if metadata[PREFIX + "format"] != "1":
            raise ArtifactError(
                f"its format is {metadata[PREFIX + 'format'][:20]!r}; this zoo reads '1'."
            )
        values: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            if (text := metadata.get(PREFIX + name)) is None:
                continue
            is_text = field.annotation is str or name in ("format", "precision")
            try:
                values[name] = text if is_text else json.loads(text)
            except (json.JSONDecodeError, RecursionError):
                raise ArtifactError(f"its metadata {PREFIX}{name} is damaged.") from None
        try:
            return cls(**values)
        except ValidationError as error:
            raise ArtifactError(f"its metadata is damaged: {first_problem(error)}") from None


@dataclass(frozen=True)
class Artifact(Source):
    """An opened file: a Source that also says what it holds."""

    info: ArtifactInfo


@dataclass(frozen=True)
class ProviderReport:
    """Whether an execution provider really runs a small graph here, and if not, why."""

    provider: str
    runs: bool
    reason: str = ""


class Exporter(Protocol):
    """Writes models in one format."""

    suffix: str

    def build(self, model: LanguageModel, info: ArtifactInfo) -> bytes:
        """The graph `info.graph` of the model, without metadata, its inputs and outputs named as
        `info` says. Raises VerificationError for a graph that the format's own checker refuses."""

    def seal(self, graph: bytes, info: ArtifactInfo) -> bytes:
        """The file: the graph with `info` as its metadata, and a digest of all of it."""


class Runtime(Protocol):
    """Runs exported files of one format."""

    def open(self, path: Path, provider: str) -> Artifact:
        """The file, checked and ready. `provider` is "auto", "cpu" or "cuda". Raises ArtifactError
        for a file that is not ours or damaged, ProviderError for a provider that does not run."""

    def probe(self) -> Sequence[ProviderReport]:
        """Each provider that this runtime was built with, tried on a small graph."""


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
        prompt=run.config.training.prompt or run.tokenizer.decode([1]),
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
    reference = ModelStepper(against.model)
    proof = prove(reference, artifact.stepper).model_copy(
        update={"float64_gap": free_gap(reference, ModelStepper(to_float64(against.model)))}
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
