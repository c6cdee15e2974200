"""The exported file, as exporters and runtimes agree on it: the names of its inputs
and outputs, what it says about itself, and what a runtime makes of it. Needs no torch."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_origin

import numpy as np
import numpy.typing as npt
from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from zoo.config import Interface, ModelConfig
from zoo.data.tokenizer import Tokenizer, parse_tokenizer
from zoo.errors import ArtifactError, NoTextError, TokenizerError
from zoo.registry.registry import Registry, load_registry
from zoo.registry.specs import FULL, MODULE, STANDARD, WORD
from zoo.validation import FrozenModel, first_problem

PREFIX = "zoo."
STEP, GENERATE, SEQUENCE = "step", "generate", "sequence"  # what a graph computes
TOKEN, TOKENS, LOGITS = "token", "tokens", "logits"
FEATURES, NUMBERS = "features", "numbers"  # of models of tasks
UNIFORM = "uniform"
SAMPLING_INPUTS = ("temperature", "top_k", "top_p")
FORMATS = ("1", "2")  # that are read
FORMAT: Literal["2"] = "2"  # that is written
MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit
MAX_STATE_ELEMENTS = 2**28  # per row: a gigabyte of float32
MAX_STATE_LEAVES = 4096

AMPLIFYING = 1e-3
AGAIN = "export it again"

Dtype = Literal[
    "float16", "float32", "float64", "bool",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip


class Proof(FrozenModel):
    """What was measured before a file was published. Differences are the largest absolute ones,
    divided by the largest value of that output where it exceeds 1.

    A file of lower precision is compared with the step graph of that precision (the sequence graph
    of a model without a step), and that one with the model by what its predictions of text cost, or
    on the tests of its task.
    """

    steps: int = Field(ge=1)
    batch_sizes: tuple[int, ...]
    difference: float = Field(description="Of logits and states, each step from the same state.")
    drift: float | None = Field(
        None, description="Of the logits, each running freely from its own state; of a step graph."
    )
    ties: int = Field(0, description="Tokens that rounding alone decided otherwise.")
    float64_gap: float | None = Field(
        None, description="Of the model's own float32 and float64 runs over the same 1,000 tokens."
    )
    cost_bits: float | None = Field(
        None, description="What a lower precision costs, in bits per token."
    )
    cost: float | None = Field(
        None, description="What a lower precision costs a module's outputs, or on a task."
    )
    cost_measured_on: str = Field(
        "", description="The text, or the measure, that the cost was measured on."
    )

    @property
    def amplifies(self) -> bool:
        """Whether the model amplifies rounding error, so that texts may differ between runtimes."""
        return self.float64_gap is not None and self.gap_amplifies(self.float64_gap)

    @staticmethod
    def gap_amplifies(gap: float) -> bool:
        """Whether a `float64_gap` is too large for rounding error that is not amplified."""
        return gap > AMPLIFYING


class StateEntry(FrozenModel):
    """One leaf of the state as the file declares it.

    `name` is "layer0.h" in a language model; `shape` has no batch axis; `initial` is the row before
    the first step: the finite number that fills it, or its bytes (little-endian) in base64.
    """

    name: str = Field(pattern=r"^\w+(\.\w+)*$", max_length=200)
    shape: tuple[Annotated[int, Field(ge=1, le=MAX_STATE_ELEMENTS)], ...] = Field(max_length=8)
    dtype: Dtype
    initial: float | str
    bound: float | None = Field(
        None, gt=0, description="What the values' sizes cannot exceed, by the cell's equations."
    )

    @model_validator(mode="after")
    def _bounded(self) -> StateEntry:
        if self.elements > MAX_STATE_ELEMENTS:
            raise ValueError("a state leaf is too large")
        if isinstance(self.initial, str):
            self._decoded()
        elif not self._holds(self.initial):
            raise ValueError(f"the initial value is no {self.dtype}")
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

    def _holds(self, number: float) -> bool:
        """Whether the dtype has the number: a float rounded, all others exactly."""
        with np.errstate(all="ignore"):
            stored = np.float64(number).astype(self.dtype)
        return bool(np.isfinite(stored) if stored.dtype.kind == "f" else stored.item() == number)

    def _decoded(self) -> npt.NDArray[Any]:
        assert isinstance(self.initial, str)
        raw = base64.b64decode(self.initial, validate=True)
        dtype = np.dtype(self.dtype).newbyteorder("<")
        if len(raw) != self.elements * dtype.itemsize:
            raise ValueError("the initial row does not fit the shape")
        return np.frombuffer(raw, dtype).astype(self.dtype)

    @classmethod
    def from_row(cls, name: str, row: npt.NDArray[Any], bound: float | None = None) -> StateEntry:
        """The entry of a leaf whose initial row, without the batch axis, is `row`."""
        first = row.flat[0].item()
        fills = (row == first).all() and math.isfinite(first) and float(first) == first
        if isinstance(first, float) and first == 0 and np.signbit(row).any():
            fills = False  # zeros of both signs are equal
        initial: float | str = (
            float(first)
            if fills
            else base64.b64encode(row.astype(row.dtype.newbyteorder("<")).tobytes()).decode()
        )
        return cls.checked(
            name=name,
            shape=row.shape,
            dtype=str(row.dtype),
            initial=initial,
            bound=bound,
        )


class TrainingFacts(FrozenModel):
    """Where the weights come from."""

    corpus: str = ""
    prompt: str = ""
    epochs: int | None = None
    tokens: int | None = None
    train_perplexity: float | None = None
    held_out_perplexity: float | None = None


class SelfDescription(FrozenModel):
    """What a file says about itself: a metadata entry for each field, under "zoo.".

    In format 1 a generate graph samples all rows alike: temperature, top_k and top_p are scalars.
    """

    format: Literal["1", "2"] = FORMAT
    graph: str = Field(pattern=WORD, max_length=40)
    state: tuple[StateEntry, ...] = Field(max_length=MAX_STATE_LEAVES)
    proof: Proof | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if len({entry.name for entry in self.state}) != len(self.state):
            raise ValueError("two state leaves have one name")
        if sum(entry.elements for entry in self.state) > MAX_STATE_ELEMENTS:
            raise ValueError("the state is too large")
        return self

    def state_names(self, side: Literal["in", "out"]) -> list[str]:
        """Names of the graph's state inputs or outputs, in order: "state_00_layer0_h_in". Numbers
        have a fixed width, so that inputs and outputs sort in the same order."""
        width = max(2, len(str(len(self.state) - 1)))
        return [
            f"state_{index:0{width}}_{entry.name.replace('.', '_')}_{side}"
            for index, entry in enumerate(self.state)
        ]

    def state_bounds(self) -> dict[str, float]:
        """The bounds of the state inputs and outputs that have one, by name."""
        bounds = {}
        for side in ("in", "out"):
            for name, entry in zip(self.state_names(side), self.state, strict=True):
                if entry.bound is not None:
                    bounds[name] = entry.bound
        return bounds

    def to_metadata(self) -> dict[str, str]:
        fields = self.model_dump(mode="json")
        return {
            PREFIX + name: value if isinstance(value, str) else json.dumps(value)
            for name, value in fields.items()
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], registry: Registry | None = None) -> Self:
        """Raises ArtifactError for metadata that is not ours, damaged, or out of bounds, or that
        names a tokenizer that `registry` does not have."""
        if PREFIX + "format" not in metadata:
            raise ArtifactError("it was not exported by the zoo (it has no zoo.format).")
        if (version := metadata[PREFIX + "format"]) not in FORMATS:
            raise ArtifactError(
                f"its format is {version[:20]!r}, and this zoo reads {' and '.join(FORMATS)}; "
                f"{AGAIN}."
            )
        cls.check_graph(metadata.get(PREFIX + "graph", ""))
        values: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            if (text := metadata.get(PREFIX + name)) is None:
                continue
            is_text = field.annotation is str or get_origin(field.annotation) is Literal
            try:
                values[name] = text if is_text else json.loads(text)
            except (ValueError, RecursionError):
                raise ArtifactError(f"its metadata {PREFIX}{name} is damaged; {AGAIN}.") from None
        try:
            if "tokenizer" in values:
                registry = registry or load_registry()
                values["tokenizer"] = parse_tokenizer(values["tokenizer"], registry)
            return cls(**values)
        except TokenizerError as error:
            raise ArtifactError(str(error)) from None
        except ValidationError as error:
            told = first_problem(error).rstrip(".")
            raise ArtifactError(f"its metadata is damaged: {told}; {AGAIN}.") from None

    @classmethod
    def check_graph(cls, graph: str) -> None:
        """ArtifactError for a kind of graph that this does not describe."""


class ArtifactInfo(SelfDescription):
    """What an exported language model says about itself.

    It has a `tokenizer`, or, of a model of a task, an `interface`. `causal` is false for a model
    that reads whole sequences only. `weights` is the SHA-256 of the weights that it was exported
    from: files of one model have one. `operators` is "standard" for those of the format alone,
    "fused" for a file that needs a runtime's own as well.
    """

    precision: str = Field(FULL, pattern=WORD, max_length=40)
    operators: str = Field(STANDARD, pattern=WORD, max_length=40)
    model: ModelConfig
    causal: bool = True
    tokenizer: SerializeAsAny[Tokenizer] | None = None
    interface: Interface | None = None
    weights: str = Field("", pattern=r"^[0-9a-f]*$", max_length=64)
    training: TrainingFacts = TrainingFacts()

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if (self.tokenizer is None) == (self.interface is None):
            raise ValueError("it should have either a tokenizer or an interface")
        if self.interface is not None and self.graph == GENERATE:
            raise ValueError("a model of a task has no generate graph")
        return self

    def to_metadata(self) -> dict[str, str]:
        absent = "tokenizer" if self.tokenizer is None else "interface"
        described = {**super().to_metadata(), PREFIX + "cell": self.model.cell}
        return {name: text for name, text in described.items() if name != PREFIX + absent}

    @property
    def ends(self) -> Interface:
        """What the model reads and gives."""
        if self.interface is not None:
            return self.interface
        return Interface.of_text(self.text_tokenizer.vocab_size)

    @property
    def text_tokenizer(self) -> Tokenizer:
        """The tokenizer; NoTextError of a model of a task."""
        if self.tokenizer is None:
            raise NoTextError
        return self.tokenizer

    @property
    def input_name(self) -> str:
        """Of the graph's input before the state."""
        if self.ends.reads == "features":
            return FEATURES
        return TOKENS if self.graph == SEQUENCE else TOKEN

    @property
    def output_name(self) -> str:
        """Of the graph's output before the state, unless it writes tokens."""
        return LOGITS if self.ends.gives == "classes" else NUMBERS

    @classmethod
    def check_graph(cls, graph: str) -> None:
        if graph == MODULE:
            raise ArtifactError(
                "it is no language model; open it with zoo_ort.open_module, and verify it against "
                "the Python file that defines its module."
            )
