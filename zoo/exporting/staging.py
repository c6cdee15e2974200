"""Files that have been built and proved, and not been published yet."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import Sampling
from zoo.data.token_store import Tokens
from zoo.data.tokenizer import Ids
from zoo.errors import VerificationError
from zoo.exporting.exporter import Exporter, find_exporters
from zoo.exporting.parity import (
    PARTING,
    TOLERANCE,
    prove_generate,
    prove_sequence,
    prove_step,
)
from zoo.exporting.suitability import AMPLIFYING_STEPS, free_gap, prove_independent_rows
from zoo.exporting.task_cost import task_cost
from zoo.inference.artifact import AMPLIFYING, SEQUENCE, STEP, ArtifactInfo, Proof
from zoo.inference.engine import Engine, Scorer, StepLoop, Stepper
from zoo.inference.runtime import Artifact, open_artifact
from zoo.inference.scoring import masked_nats, text_nats
from zoo.models.language_model import LanguageModel
from zoo.models.torch_engine import ModelScorer, ModelStepper, to_float64
from zoo.registry.registry import Registry
from zoo.registry.specs import FULL
from zoo.tasks.named import NamedTask

# Between two graphs of a lower precision: rounding to integers turns a last bit into a whole step
# of the scale where a value lies on the edge.
ROUNDED_TOLERANCE = 0.05
ROUNDED_GAP = 1.0  # its runs part, so that only short pieces are compared
COST_ROWS, COST_STEPS = 16, 600


@dataclass(frozen=True)
class ProvedFile:
    """A file that has been proved and not been written yet."""

    path: Path
    content: bytes
    info: ArtifactInfo


class ExportBuilder:
    """Builds graphs of one model and proves each in its runtime, on the CPU.

    `folder` is where the files would go; temporary files there are removed again. `text`
    are tokens to measure the cost of a lower precision on (the model's own, where there are none),
    `text_name` what they are, and `max_loss` the most bits per token that it may cost. Of a model
    of a `task` it is the cost on the tests of that. `runtime` is the name of the one that opens the
    files, where several can.
    """

    def __init__(
        self,
        model: LanguageModel,
        folder: Path,
        registry: Registry,
        *,
        text: Tokens | None = None,
        text_name: str = "",
        max_loss: float = np.inf,
        task: NamedTask | None = None,
        runtime: str | None = None,
    ) -> None:
        self.model = deepcopy(model).cpu().eval()
        self._folder, self._registry, self._runtime = folder, registry, runtime
        self._text, self._text_name, self._max_loss = text, text_name, max_loss
        self._task = task
        self._lower: dict[str, tuple[Any, Proof]] = {}
        self._is_one_model = False

    @cached_property
    def reference(self) -> ModelScorer:
        return ModelStepper(self.model) if self.model.causal else ModelScorer(self.model)

    @cached_property
    def gap(self) -> float | None:
        """How far the model's float32 and float64 runs part; None for a model without a step."""
        return self.gap_over(AMPLIFYING_STEPS) if self.model.causal else None

    def gap_over(self, tokens: int) -> float:
        """How far a causal model's float32 and float64 runs part within so many tokens."""
        assert isinstance(self.double, ModelStepper)
        return free_gap(ModelStepper(self.model), self.double, tokens)

    @cached_property
    def double(self) -> ModelScorer:
        """The model in float64."""
        double = to_float64(self.model)
        return ModelStepper(double) if self.model.causal else ModelScorer(double)

    def _require_one_model(self) -> None:
        """VerificationError for a model that reads a whole sequence otherwise than step by step: it
        was trained as one thing and would run as another. What rounding does stays far below."""
        if self._is_one_model or not self.model.causal:
            return
        try:
            prove_sequence(
                self.reference, ModelScorer(self.model), tolerance=AMPLIFYING, gap=self.gap or 0.0
            )
        except VerificationError as error:
            cell = self.model.config.cell
            raise VerificationError(
                f"cell {cell!r} computes something else over a whole sequence than step by step: "
                f"{error} See `zoo check {cell}`."
            ) from None
        self._is_one_model = True

    @cached_property
    def _rows_are_independent(self) -> bool:
        """VerificationError for a model that mixes rows: each is to be a text of its own."""
        try:
            prove_independent_rows(self.reference, max(TOLERANCE, PARTING * (self.gap or 0.0)))
        except VerificationError as error:
            cell = self.model.config.cell
            raise VerificationError(f"cell {cell!r} {error} See `zoo check {cell}`.") from None
        return True

    def draft(self, exporter: Exporter, info: ArtifactInfo) -> ProvedFile:
        """The file that `info` describes, with its proof. Raises VerificationError for one that
        does not compute what it should, whose precision costs too much, or of a model that mixes
        the rows of a batch."""
        self._require_one_model()
        assert self._rows_are_independent
        built = exporter.build(self.model, info)
        path = self._folder / file_name(info, exporter)
        try:
            artifact = self._open(path.name, exporter.seal(built, info))
            proof = self.prove(info, artifact.engine, exporter)
            content = exporter.seal(built, info.model_copy(update={"proof": proof}))
            info = self._open(path.name, content).info
        except VerificationError as error:
            raise VerificationError(f"{path.name} was not written: {error}") from None
        return ProvedFile(path, content, info)

    def _open(self, name: str, content: bytes) -> Artifact:
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".draft-") as drafts:
            trial = Path(drafts) / name
            trial.write_bytes(content)
            return open_artifact(trial, "cpu", self._registry, runtime=self._runtime, threads=1)

    def prove(self, info: ArtifactInfo, engine: Any, exporter: Exporter | str | None) -> Proof:
        """A full-precision graph is compared with the model. One of lower precision is compared
        with the graph of that precision which shows what it costs, unless it is that one:
        `exporter`, or the one of that name, builds it."""
        gap = self.gap or 0.0
        if info.precision == FULL:
            proof = prove(self.reference, engine, TOLERANCE, gap, self.double)
            return proof.model_copy(update={"float64_gap": self.gap})
        judged = STEP if self.model.causal else SEQUENCE
        if info.precision not in self._lower:
            shown = engine
            if info.graph != judged:
                other = info.model_copy(update={"graph": judged})
                if exporter is None or isinstance(exporter, str):
                    able = find_exporters([judged], info.precision, self._registry, exporter)
                    exporter = able[judged]
                content = exporter.seal(exporter.build(self.model, other), other)
                shown = self._open(file_name(other, exporter), content).engine
            self._lower[info.precision] = shown, self._measure(shown)
        reference, proof = self._lower[info.precision]
        if info.graph != judged:
            found = prove(reference, engine, ROUNDED_TOLERANCE, ROUNDED_GAP)
            measured = ("cost_bits", "cost", "cost_measured_on")
            proof = found.model_copy(update={name: getattr(proof, name) for name in measured})
        return proof.model_copy(update={"float64_gap": self.gap})

    def _measure(self, engine: Any) -> Proof:
        """How far a lower precision is from the model, and what it costs."""
        proof = prove(self.reference, engine, np.inf, 0.0)
        if self._task is not None:
            cost = task_cost(self._task, engine, self.reference)
            name = f"the tests of {self._task.name}"
            self._require_cheap(cost, f"on {name}")
            return proof.model_copy(update={"cost": cost, "cost_measured_on": name})
        text, name = self._text, self._text_name
        if text is None:
            text, name = self._own_text(), "its own text"
        costs = [_mean_bits(judge, text) for judge in (engine, self.reference)]
        cost = costs[0] - costs[1]
        self._require_cheap(cost, f"bits per token of {name}")
        return proof.model_copy(update={"cost_bits": cost, "cost_measured_on": name})

    def _require_cheap(self, cost: float, of: str) -> None:
        if not cost <= self._max_loss:
            raise VerificationError(
                f"its precision costs {cost:.3f} {of} (allowed: {self._max_loss:g}); allow more "
                f"with --max-loss, or use fp32."
            )

    def _own_text(self) -> Ids:
        """What the model writes by itself at temperature 1."""
        rng = np.random.default_rng(0)
        size = COST_ROWS * COST_STEPS
        if not isinstance(self.reference, ModelStepper):
            return rng.integers(0, self.model.vocab_size, size)
        last = rng.integers(0, self.model.vocab_size, COST_ROWS)
        uniform = rng.random((COST_STEPS - 1, COST_ROWS), dtype=np.float32)
        state = self.reference.init_state(COST_ROWS)
        written, _ = self.reference.write(last, state, uniform, Sampling(temperature=1.0))
        own: Ids = np.concatenate((last[None], written)).T.ravel()
        return own


def prove(
    reference: Any, candidate: Any, tolerance: float, gap: float, double: Any = None
) -> Proof:
    """The proof that suits what the candidate can do, whatever its graph is called: the logits of
    sequences, where it reads them otherwise than token by token; else steps, else tokens. `gap` is
    the model's own (see `free_gap`); with `double`, the reference in float64, every element is
    compared by its own scale."""
    reads_sequences = isinstance(candidate, Scorer) and not (
        isinstance(candidate, StepLoop) and type(candidate).logits is StepLoop.logits
    )
    if reads_sequences:
        return prove_sequence(reference, candidate, tolerance=tolerance, gap=gap, double=double)
    if isinstance(candidate, Stepper):
        return prove_step(reference, candidate, tolerance=tolerance, double=double)
    return prove_generate(reference, candidate, tolerance=tolerance, double=double)


def file_name(info: ArtifactInfo, exporter: Exporter) -> str:
    """ "step.onnx", "step.int8.onnx"."""
    precision = "" if info.precision == FULL else f".{info.precision}"
    return f"{info.graph}{precision}{exporter.suffix}"


def _mean_bits(engine: Any, text: Tokens) -> float:
    """Bits per token of `text`, as batch rows where the model is causal."""
    if not isinstance(engine, Engine):
        nats = np.concatenate(list(masked_nats(engine, text)))
    else:
        steps = max(2, min(COST_STEPS, len(text) // COST_ROWS))
        rows = text[: len(text) // steps * steps].reshape(-1, steps)[:COST_ROWS].T
        assert isinstance(engine, Scorer)
        nats = np.concatenate(list(text_nats(engine, rows)))
    return float(nats.mean()) / float(np.log(2))
