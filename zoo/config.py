"""Settings, declared once: command-line flags, keyword arguments, recipes, defaults, bounds and
`config.json` are all read from the models here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import (
    ByteSize,
    Field,
    JsonValue,
    model_validator,
)
from pydantic.fields import FieldInfo

from zoo.errors import UnknownNameError
from zoo.validation import FrozenModel

OptionValue = bool | int | float | str | None

DERIVED: dict[str, JsonValue] = {"derived": True}  # derived from other settings: has no flag
# chosen for the text, the time and the machine where neither a flag nor a recipe gives it
CHOSEN: dict[str, JsonValue] = {"chosen": True}


def registered_in(table: str) -> dict[str, JsonValue]:
    """For a setting whose value is a name on that table of the registry."""
    return {"registered": table}


PROVIDERS = "auto", "cpu", "cuda"  # where a model is computed
MAX_HIDDEN = 65_536  # units of a layer
DEFAULT_LENGTH = 200  # tokens to generate
DEFAULT_BATCH_SIZE = 64  # prompts of a file that are continued together
DEFAULT_MAX_LOSS = 0.02  # most that a lower precision may cost, in bits per token
DEFAULT_MAX_COST = 0.05  # the same of a module's outputs, as a share of their size
DEFAULT_VOCAB, MAX_VOCAB = 4096, 65_536  # tokens of a vocabulary that is learned
MAX_SIZE = 2**24  # tokens, features, classes or numbers


class Interface(FrozenModel):
    """What a model reads and gives at each step: one of so many tokens, or so many features; logits
    of so many classes, or so many numbers. A language model reads the tokens that it writes."""

    reads: Literal["tokens", "features"]
    inputs: int = Field(ge=1, le=MAX_SIZE)
    gives: Literal["classes", "numbers"]
    outputs: int = Field(ge=1, le=MAX_SIZE)

    @classmethod
    def of_text(cls, vocab_size: int) -> Interface:
        """That of a language model."""
        return cls(reads="tokens", inputs=vocab_size, gives="classes", outputs=vocab_size)


class DataConfig(FrozenModel):
    """The text, or the task, and how it is read."""

    corpus: str | tuple[str, ...] = Field(
        "python-docs",
        description="Name of the corpus, or where the text is: a file, folder, pattern or URL, "
        "hf:NAME, or several of them; or task:NAME.",
        min_length=1,
    )
    glob: str | None = Field(
        None, description="Of a folder, read only files whose names match this pattern."
    )
    field: str = Field(
        "text", description="Of JSON lines, Parquet or a dataset, the field that has the text."
    )
    encoding: str = Field("utf-8", description="Encoding of the text, by the name in Python.")
    documents: bool = Field(
        False,
        description="Read each file, or each record, as a document of its own: a token ends it, "
        "and the next begins from the initial state.",
    )
    tokenizer: str | None = Field(
        None,
        description="Tokenizer; without it, the corpus' own",
        json_schema_extra=registered_in("tokenizers"),
    )
    vocab: int | None = Field(
        None,
        ge=2,
        le=MAX_VOCAB,
        description="Largest vocabulary of a tokenizer that learns, such as bpe; "
        f"{DEFAULT_VOCAB} if it is not given. The others determine their own.",
    )
    bpe_sample: ByteSize = Field(
        ByteSize(10_000_000),
        ge=1000,
        description="Bytes of a longer text that bpe learns from, in parts at equal distances.",
    )
    max_tokens: int | None = Field(
        None, ge=2, le=2**40, description="Train and validate on at most this many tokens."
    )
    held_out: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Share of the tokens, at the end, that is held out for validation.",
    )

    @property
    def corpora(self) -> tuple[str, ...]:
        """The names of the texts."""
        return (self.corpus,) if isinstance(self.corpus, str) else self.corpus

    @property
    def corpus_name(self) -> str:
        """The corpus in a few words."""
        first, *others = self.corpora
        return f"{first} and {len(others)} more" if others else first


class ModelConfig(FrozenModel):
    """The sizes and options of a language model."""

    cell: str = Field("lstm", description="Recurrent cell; `zoo cells` lists them.")
    options: dict[str, OptionValue] = Field(
        default_factory=dict, description="Options of the cell; `zoo show CELL` lists them."
    )
    hidden: int = Field(
        256,
        ge=1,
        le=MAX_HIDDEN,
        description="Hidden units of each layer.",
        json_schema_extra=CHOSEN,
    )
    layers: int = Field(1, ge=1, le=256, description="Recurrent layers.")
    embedding: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Size of a learned embedding; without it, one-hot inputs.",
        json_schema_extra=CHOSEN,
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout after an embedding, between layers, and before the output head.",
        json_schema_extra=CHOSEN,
    )
    residual: bool = Field(
        False, description="Add each layer's input to its output, where their sizes are equal."
    )
    mask_token: bool = Field(
        False,
        description="One more input token, the mask; for non-causal cells.",
        json_schema_extra=DERIVED,
    )
    head_std: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Standard deviation of the output head's initial weights; without it, uniform "
        "within 1/sqrt(hidden), as torch.nn.Linear.",
    )


class TrainConfig(FrozenModel):
    """How a model is trained."""

    epochs: int | None = Field(
        None, ge=1, le=10**9, description="Passes over the text (10 if --minutes is not given)."
    )
    minutes: float | None = Field(
        None,
        gt=0,
        le=10**6,
        description="Time of the run, starting, evaluating and saving included, reading the text "
        "not; with --epochs too, whichever ends first.",
    )
    batch_size: int = Field(32, ge=1, le=2**20, description="Batch size.", json_schema_extra=CHOSEN)
    steps: int = Field(
        35,
        ge=1,
        le=2**20,
        description="Time steps of truncated backpropagation.",
        json_schema_extra=CHOSEN,
    )
    batches: Literal["sequential", "random"] = Field(
        "sequential",
        description="Consecutive windows that carry the state over, or shuffled windows that start "
        "from the initial state.",
    )
    optimizer: str = Field(
        "adamw", description="Optimizer", json_schema_extra=registered_in("optimizers")
    )
    learning_rate: float = Field(
        2e-3, gt=0, le=100, description="Peak learning rate.", json_schema_extra=CHOSEN
    )
    schedule: str = Field(
        "cosine",
        description="Learning-rate schedule after the warm-up",
        json_schema_extra=registered_in("schedules"),
    )
    warmup: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of training in which the learning rate rises linearly from 0.",
    )
    weight_decay: float = Field(
        0.01, ge=0, le=100, description="Decoupled weight decay of matrices, with adamw."
    )
    accumulate: int = Field(
        1, ge=1, le=2**16, description="Windows whose gradients make one update together."
    )
    ema: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Evaluate and keep a running average of the weights; each update keeps this "
        "share of it, say 0.99.",
    )
    recurrent_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the state's units that the recurrent weights do not see, drawn anew "
        "for each update.",
        json_schema_extra=CHOSEN,
    )
    clip: float = Field(1.0, gt=0, le=10**9, description="Maximum norm of the gradient.")
    keep: Literal["best", "last"] = Field(
        "best",
        description="Which weights the run ends with; best: those with the lowest validation "
        "loss, or without validation text the lowest training loss.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Early stopping: stop after this many evaluations without a lower loss.",
        json_schema_extra=CHOSEN,
    )
    target_loss: float | None = Field(
        None,
        gt=0,
        description="Early stopping: stop when the validation loss is at most this, in bits per "
        "token, or as a mean squared error.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="Precision of matrix products; weights and states stay float32.",
        json_schema_extra=CHOSEN,
    )
    compile: bool = Field(
        False, description="Train with torch.compile: a slow start, then possibly faster."
    )
    cuda_graph: bool = Field(
        False,
        description="On a GPU, replay the forward and the backward pass as a CUDA graph: the many "
        "small kernels of a loop over time then cost one launch.",
    )
    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="Seed of the initial weights and the batches."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Device to train on.")
    prompt: str | None = Field(
        None, description="Prompt of the samples; without it, the corpus' own."
    )
    sample_every: int | None = Field(
        None, ge=1, description="Epochs between samples; without it, about ten in a run."
    )
    report_every: int = Field(
        500,
        ge=1,
        description="Windows between evaluations within a long epoch.",
        json_schema_extra=CHOSEN,
    )
    from_run: str | None = Field(
        None,
        description="Run whose weights and tokenizer this one began with.",
        json_schema_extra=DERIVED,
    )
    freeze: tuple[str, ...] = Field(
        (), description="Parameters not to train: names, or patterns of names, say 'stack.*'."
    )
    evaluation_tokens: int = Field(
        2**18,
        ge=2,
        description="Validation tokens that an evaluation reads at most; `zoo score` reads all.",
    )

    @model_validator(mode="before")
    @classmethod
    def _some_budget(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is values.get("minutes") is None:
            return {**values, "epochs": 10}
        return values


class Sampling(FrozenModel):
    """How the next token is chosen."""

    temperature: float = Field(0.0, ge=0, le=1000, description="Sampling temperature; 0 is greedy.")
    top_k: int = Field(
        0, ge=0, le=2**31 - 1, description="Sample from the k most likely tokens; 0: all."
    )
    top_p: float = Field(
        1.0,
        ge=1e-30,  # what float32 takes for 0 would leave no token
        le=1,
        description="Sample from the most likely tokens that together have this probability.",
    )

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken: at 0, and at what float32 cannot tell from it."""
        return self.temperature < 1e-30


@dataclass(frozen=True)
class Recipe:
    """A named experiment: sections of RunConfig with its choices, and a one-line title."""

    name: str
    title: str
    sections: Mapping[str, Mapping[str, Any]]


class Budget(FrozenModel):
    """How long a run was to be trained before it was prolonged."""

    epochs: int | None = None
    minutes: float | None = None


class RunConfig(FrozenModel):
    """All settings of a run: the content of `config.json`. `prolonged` are its earlier budgets;
    `interface` is that of a model that was trained on a task, None for a language model."""

    format: Literal[1] = 1
    recipe: str | None = None
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainConfig = TrainConfig()
    prolonged: tuple[Budget, ...] = ()
    interface: Interface | None = None

    @classmethod
    def build(cls, settings: Mapping[str, Any], recipe: Recipe | None = None) -> RunConfig:
        """The recipe's choices, or the defaults, overridden by flat `settings` (`hidden=256`).

        Raises UsageError, naming the setting, for one that does not exist or is out of bounds.
        """
        merged: dict[str, Any] = {}
        if recipe is not None:
            merged = {name: dict(part) for name, part in recipe.sections.items()}
        owners = setting_owners()
        given = {name: value for name, value in settings.items() if value is not None}
        for name, value in given.items():
            if name not in owners:
                raise UnknownNameError("setting", name, owners, "`zoo train --help`")
            merged.setdefault(owners[name], {})[name] = value
        if "epochs" in given or "minutes" in given:  # a budget given here replaces the recipe's
            for name in {"epochs", "minutes"} - given.keys():
                merged["training"].pop(name, None)
        return cls.checked(recipe=recipe and recipe.name, **merged)

    def prolong(self, epochs: int | None, minutes: float | None) -> RunConfig:
        """The settings with another budget."""
        before = Budget(epochs=self.training.epochs, minutes=self.training.minutes)
        fields = {name: getattr(self.training, name) for name in TrainConfig.model_fields}
        training = TrainConfig.checked(**fields | {"epochs": epochs, "minutes": minutes})
        changes = {"training": training, "prolonged": (*self.prolonged, before)}
        return self.model_copy(update=changes)


SECTIONS: dict[str, type[FrozenModel]] = {
    name: field.annotation
    for name, field in RunConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, FrozenModel)
}


def setting_owners() -> dict[str, str]:
    """The section of RunConfig that each flat setting belongs to."""
    return {
        name: section
        for section, model in SECTIONS.items()
        for name, field in model.model_fields.items()
        if field.json_schema_extra != DERIVED
    }


def setting_fields() -> dict[str, FieldInfo]:
    """The declaration of each flat setting."""
    return {
        name: SECTIONS[section].model_fields[name] for name, section in setting_owners().items()
    }
