"""From a trained model to published files: the contract of exporters, and how they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.config import DEFAULT_MAX_LOSS
from zoo.data.token_store import Tokens
from zoo.data.tokenizer import Tokenizer
from zoo.errors import NoStepError, NoTextError, ZooError
from zoo.exporting.exporter import find_exporters
from zoo.inference.artifact import GENERATE, STEP, ArtifactInfo, StateEntry, TrainingFacts
from zoo.registry.registry import Registry, load_registry
from zoo.registry.specs import AUTO, FULL, STANDARD

if TYPE_CHECKING:
    from zoo.exporting.staging import ProvedFile
    from zoo.models.language_model import LanguageModel
    from zoo.runs.run import Run
    from zoo.tasks.named import NamedTask


@dataclass(frozen=True)
class Exported:
    """A published file, and what it says about itself (its proof with it)."""

    path: Path
    info: ArtifactInfo


def export(
    run: Run | str | Path,
    graph: str = STEP,
    precision: str = FULL,
    max_loss: float = DEFAULT_MAX_LOSS,
    out: str | Path | None = None,
    registry: Registry | None = None,
    *,
    operators: str = AUTO,
    exporter: str | None = None,
    runtime: str | None = None,
) -> Exported:
    """Exports a trained run, proves the file against PyTorch, and only then publishes it.

    `graph` is "step", "generate" or "sequence", `precision` "fp32", "fp16" or "int8". The file is
    named by them and by the format's suffix, in the folder `out` (by default `export` in the run's
    folder). `max_loss` is what a lower precision may cost at most: in bits per token, or of a model
    of a task in accuracy, or error as a share of the targets' mean square. `operators` is
    "standard" for a file that runs anywhere, "fused" for one that may use a runtime's own, which
    compute a linear recurrence at once; by default they are used where the installed runtime has
    them. `exporter` and `runtime` are the names of those that write it and open it for the proof,
    where several can.

    Raises UnknownNameError for a graph, precision or operators that no exporter writes, UsageError
    for one that several write, NoStepError for a graph that needs a step of a model without one,
    NoTextError for one that generates, of a model of a task, VerificationError for a file that does
    not compute what the model computes; nothing is written then.
    """
    return export_all(
        run, (graph,), precision, max_loss, out, registry,
        operators=operators, exporter=exporter, runtime=runtime,
    )[0]  # fmt: skip


def export_all(
    run: Run | str | Path,
    graphs: Sequence[str] | None = None,
    precision: str = FULL,
    max_loss: float = DEFAULT_MAX_LOSS,
    out: str | Path | None = None,
    registry: Registry | None = None,
    *,
    operators: str = AUTO,
    exporter: str | None = None,
    runtime: str | None = None,
) -> list[Exported]:
    """Exports several graphs of a run, by default all that the model can have; otherwise as
    `export`. All are proved before the first is published."""
    from zoo.exporting.staging import ExportBuilder
    from zoo.files import new_folder, write_atomically
    from zoo.runs.run import Run, load

    registry = registry or load_registry()
    exporters = find_exporters(graphs, precision, registry, exporter, operators)
    if not isinstance(run, Run):
        run = load(run, registry)
    folder = Path(out) if out is not None else run.path / "export"
    task = task_to_judge_by(run, registry) if precision != FULL else None
    text, text_name = text_to_judge_by(run, registry) if precision != FULL else (None, "")
    facts = training_facts(run)
    drafts: list[ProvedFile] = []
    with new_folder(folder):
        builder = ExportBuilder(
            run.model,
            folder,
            registry,
            text=text,
            text_name=text_name,
            max_loss=max_loss,
            task=task,
            runtime=runtime,
        )
        for graph, writer in exporters.items():
            try:
                info = describe(
                    builder.model, run.tokenizer_or_none, graph, precision, facts, operators
                )
                drafts.append(builder.draft(writer, info))
            except (NoStepError, NoTextError):
                if graphs is not None:
                    raise
        for made in drafts:
            write_atomically(made.path, made.content)
    return [Exported(made.path, made.info) for made in drafts]


def describe(
    model: LanguageModel,
    tokenizer: Tokenizer | None,
    graph: str,
    precision: str = FULL,
    training: TrainingFacts | None = None,
    operators: str = STANDARD,
) -> ArtifactInfo:
    """What a file exported from a model says about itself, short of its proof. NoTextError for a
    graph that generates, of a model of a task, which has no tokenizer."""
    from zoo.models.language_model import fingerprint
    from zoo.models.torch_engine import ModelScorer

    if tokenizer is None and graph == GENERATE:
        raise NoTextError

    scorer = ModelScorer(model)
    rows = scorer.state_to_arrays(scorer.init_state(1))
    bounds = model.stack.state_bounds()
    return ArtifactInfo.checked(
        graph=graph,
        precision=precision,
        operators=operators,
        model=model.config,
        causal=model.causal,
        tokenizer=tokenizer,
        interface=model.interface if tokenizer is None else None,
        state=tuple(
            StateEntry.from_row(name, row[0], bounds.get(name)) for name, row in rows.items()
        ),
        weights=fingerprint(model),
        training=training or TrainingFacts(),
    )


def training_facts(run: Run) -> TrainingFacts:
    """Where a run's weights come from, by its config and the line of metrics that is theirs."""
    lines = run.metrics() or [{}]
    figures = ("held_out_bits_per_token", "held_out_error", "train_bits_per_token")
    kept = lines[-1]
    if run.config.training.keep == "best":
        for figure in figures:
            if judged := [line for line in lines if line.get(figure) is not None]:
                kept = min(judged, key=lambda line: line[figure])
                break
    return TrainingFacts(
        corpus=run.config.data.corpus_name,
        prompt=run.prompt,
        epochs=kept.get("epoch"),
        tokens=kept.get("tokens"),
        train_perplexity=kept.get("train_perplexity"),
        held_out_perplexity=kept.get("held_out_perplexity"),
    )


def task_to_judge_by(run: Run, registry: Registry) -> NamedTask | None:
    """The task that the run was trained on; None for a language model."""
    from zoo.tasks.named import find_task

    if run.tokenizer_or_none is not None:
        return None
    return find_task(run.config.data.corpus_name, registry)


def text_to_judge_by(run: Run, registry: Registry) -> tuple[Tokens | None, str]:
    """The text that the run held out, or, if it held none out, the end of what it was trained on;
    None for a run that was not trained here, or whose text is gone or was standard input."""
    from zoo.data.dataset import read_dataset
    from zoo.data.sources import STANDARD_INPUT

    if (
        run.tokenizer_or_none is None
        or not run.metrics()
        or STANDARD_INPUT in run.config.data.corpora
    ):
        return None, ""
    try:
        data = read_dataset(run.config.data, registry, run.tokenizer)
    except ZooError:
        return None, ""
    if len(data.held_out):
        return data.held_out, "held-out text"
    return data.train[-len(data.train) // 10 :], "training text"
