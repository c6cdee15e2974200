"""Settings, declared once: command-line flags, keyword arguments, recipes, defaults, bounds and
`config.json` are all read from the models here."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from zoo.errors import RunError, UnknownNameError, UsageError, near_names, printable

OptionValue = bool | int | float | str | None

DERIVED: dict[str, JsonValue] = {"derived": True}  # derived from other settings: has no flag
# chosen for the text, the time and the machine where neither a flag nor a recipe gives it
CHOSEN: dict[str, JsonValue] = {"chosen": True}


def registered_in(table: str) -> dict[str, JsonValue]:
    """For a setting whose value is a name on that table of the registry."""
    return {"registered": table}


PROVIDERS = "auto", "cpu", "cuda"  # where a model is computed
MAX_HIDDEN = 65_536  # units of a layer
MAX_MESSAGE, MAX_KEY = 400, 60  # characters of an error that tells what a file holds
DEFAULT_LENGTH = 200  # tokens to generate
DEFAULT_MAX_LOSS = 0.02  # most that a lower precision may cost, in bits per token
DEFAULT_MAX_COST = 0.05  # the same of a module's outputs, as a share of their size
DEFAULT_VOCAB, MAX_VOCAB = 4096, 65_536  # tokens of a vocabulary that is learned


class FrozenModel(BaseModel):
    """Frozen, and closed to unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """The settings with these values; UsageError, naming the first that is wrong."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise UsageError(first_problem(error)) from None


class DataConfig(FrozenModel):
    """The text and how it is read."""

    corpus: str = Field("python-docs", description="Name of the corpus or path of the text.")
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
    max_tokens: int | None = Field(
        None, ge=2, le=2**40, description="Use only the first this many tokens."
    )
    held_out: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Share of the tokens, at the end, that is held out for validation.",
    )


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
        None, gt=0, le=10**6, description="Training time; with --epochs too, whichever ends first."
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
    evaluation_tokens: int = Field(
        2**18, ge=2, description="Validation tokens per evaluation; `zoo score` reads all."
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


class RunConfig(FrozenModel):
    """All settings of a run: the content of `config.json`."""

    format: Literal[1] = 1
    recipe: str | None = None
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainConfig = TrainConfig()

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


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def read_settings(model: type[SettingsT], path: Path) -> SettingsT:
    """The JSON file at `path`, checked against `model`; RunError if it is damaged or not ours."""
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(f"{path} is damaged or not ours: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first of a validation's findings, as "where: what"."""
    finding = error.errors(include_url=False)[0]
    where = ".".join(str(part)[:MAX_KEY] for part in finding["loc"] if isinstance(part, str | int))
    what = _problem(finding)
    told = f"{where}: {what}" if where else what
    return printable(" ".join(told.split()))[:MAX_MESSAGE]  # keys of a file may hold anything


def _problem(finding: Mapping[str, Any]) -> str:
    """What is wrong with a value, with the near words of a closed list."""
    what: str = finding["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if finding["type"] == "literal_error":
        words = re.findall(r"'([^']*)'", finding["ctx"]["expected"])
        near = near_names(str(finding["input"]).lower(), words)
        hint = f"; did you mean {near}?" if near else ""
        return f"{what} (got {repr(finding['input'])[:MAX_KEY]}){hint}"
    return what


def parse_value(annotation: Any, value: Any, what: str) -> Any:
    """`value` as the annotated type, within its bounds; UsageError, naming `what`, if it is not."""
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
        got = "" if finding["type"] == "literal_error" else f" (got {value!r})"
        raise UsageError(f"{what}: {_problem(finding)}{got}") from None


def describe_type(annotation: Any) -> str:
    """An annotated type as a person reads it: "float, > 0, <= 1"."""
    if get_origin(annotation) is Annotated:
        inner, *notes = get_args(annotation)
        bounds = [text for note in notes for text in _bounds(note)]
        return ", ".join([describe_type(inner), *bounds])
    if get_origin(annotation) is Literal:
        return " | ".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(describe_type(part) for part in get_args(annotation))
    return "none" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _bounds(note: Any) -> list[str]:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = []
    for constraint in [note, *getattr(note, "metadata", [])]:
        for key, sign in signs.items():
            if (bound := getattr(constraint, key, None)) is not None:
                found.append(f"{sign} {bound}")
    return found
