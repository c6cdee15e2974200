"""Bulk generation: a continuation for each of many prompts, with settings of its own, in batches
that stay full. Needs no torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from zoo.config import DEFAULT_BATCH_SIZE, DEFAULT_LENGTH, Sampling
from zoo.data.tokenizer import Ids, encode_prompt
from zoo.errors import UsageError, ZooError, ZooWarning, near_names, one_line
from zoo.inference.engine import Engine, NotFiniteError, Uniform, join_rows, select_rows
from zoo.inference.position import Stops
from zoo.inference.prompts import read_prompts
from zoo.inference.runtime import Source, open_source
from zoo.registry.registry import Registry
from zoo.validation import first_problem, parse_json

LONGEST_LINE = 2**24  # bytes
LEAST_CHUNK = 8  # tokens: shorter runs cost more than the tokens that a row writes too many
LINE, TEXT, TOKENS, FINISH, ERROR = "line", "text", "tokens", "finish", "error"
RESULT = (LINE, TEXT, TOKENS, FINISH, ERROR)

Record: TypeAlias = str | bytes | Mapping[str, Any]  # an object, or a line of JSON that holds one
Result: TypeAlias = dict[str, Any]
FoundT = TypeVar("FoundT")


class Request(Sampling):
    """What is wanted for one prompt."""

    prompt: str
    length: int = Field(DEFAULT_LENGTH, ge=0)
    seed: int = Field(0, ge=0)
    stop: tuple[str, ...] = ()

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


SETTINGS = [name for name in Request.model_fields if name != "prompt"]


def generate_lines(
    source: Source | str | Path,
    lines: Iterable[Record],
    *,
    length: int = DEFAULT_LENGTH,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[str] = (),
    batch_size: int = DEFAULT_BATCH_SIZE,
    provider: str = "auto",
    registry: Registry | None = None,
) -> Iterator[Result]:
    """A continuation for each of `lines`, in the order in which they are finished: no row of the
    batch waits for another, and no result is held back.

    A line is an object, or JSON that holds one, with a "prompt" and, if it has settings of its own,
    "length", "temperature", "top_k", "top_p", "seed" and "stop" (a list of strings); null is as if
    it were left out. The settings here are those of lines without, and `seed` is that of the first
    line; each further one has the next. A result is the line's object with "line" (its number, from
    1), "text" (without the prompt), "tokens" (their count), and "finish", which is "length" or
    "stop". The text is what `stream` gives for this prompt alone with these settings. A line that
    is none has "line" and "error" instead, and the others go on.

    Nothing is read ahead but two batches of lines. Raises UsageError for settings out of bounds.
    """
    defaults = checked_settings(
        length=length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=stop
    )
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1 (got {batch_size}).")
    if not isinstance(source, Source):
        source = open_source(source, provider, registry)
    return continue_records(source, enumerate(lines, start=1), defaults, batch_size)


def checked_settings(**settings: Any) -> dict[str, Any]:
    """The settings of lines without their own; UsageError for those out of bounds."""
    settings["stop"] = tuple(settings.get("stop", ()))
    request = Request.checked(prompt="", **settings)
    return request.model_dump(exclude={"prompt"})


def continue_records(
    source: Source,
    records: Iterable[tuple[int, Record]],
    defaults: Mapping[str, Any],
    batch_size: int,
) -> Iterator[Result]:
    """The results of numbered records (see `generate_lines`), which may be any part of a file, in
    any order: a result depends on the record, its number and the `defaults` alone."""
    engine, reader = source.writer(), _Reader(source, defaults)
    records = iter(records)
    live, waiting, left = _Rows(), _Rows(), True
    while True:
        while left and len(live) + len(waiting) < batch_size:
            some = list(islice(records, batch_size))
            left = len(some) == batch_size
            fresh = []
            for number, record in some:
                row = reader.row(number, record)
                if isinstance(row, _Row) and row.request.length:
                    fresh.append(row)
                else:
                    yield row.result(source, "length") if isinstance(row, _Row) else row
            for read, outcome in _apart(engine, _Rows(fresh), _read):
                if isinstance(outcome, NotFiniteError):
                    yield read.rows[0].failure(outcome)
                else:
                    waiting = _joined(engine, waiting, outcome)
        if free := min(batch_size - len(live), len(waiting)):
            taken = waiting.part(engine, range(free))
            live = _joined(engine, live, taken)
            waiting = waiting.part(engine, range(free, len(waiting)))
        if not len(live):
            return
        least = min(row.left for row in live.rows)
        most = max(row.left for row in live.rows)
        live.draw(min(engine.chunk, max(least, LEAST_CHUNK), most))
        kept = _Rows()
        for written, found in _apart(engine, live, _write):
            if isinstance(found, NotFiniteError):
                yield written.rows[0].failure(found)
                continue
            tokens, after = found
            going_on = []
            for index, row in enumerate(after.rows):
                finish = row.take(tokens[:, index])
                if finish is None:
                    going_on.append(index)
                else:
                    yield row.result(source, finish)
            kept = _joined(engine, kept, after.part(engine, going_on))
        live = kept


@dataclass
class _Row:
    """A line that is being written. `uniform` has the numbers of the tokens to write next."""

    number: int
    fields: Mapping[str, Any]
    request: Request
    sampling: Sampling
    stops: Stops
    prompt: Ids
    rng: np.random.Generator
    written: list[int] = field(default_factory=list)
    uniform: Uniform = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def left(self) -> int:
        return self.request.length - len(self.written)

    def take(self, tokens: Ids) -> str | None:
        """Appends tokens up to the end of the text; why it ended, if it did."""
        if self.stops.take(self.written, tokens[: self.left]):
            return "stop"
        return None if self.left else "length"

    def result(self, source: Source, finish: str) -> Result:
        text = source.tokenizer.decode(self.written)
        found = {LINE: self.number, TEXT: text, TOKENS: len(self.written), FINISH: finish}
        return {**self.fields, **found}

    def failure(self, error: Exception) -> Result:
        return {**self.fields, LINE: self.number, ERROR: str(error)}


@dataclass(frozen=True)
class _Rows:
    """Rows of a batch, with their state and the token of each that it has not read yet."""

    rows: Sequence[_Row] = ()
    state: Any = None
    last: Ids = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, engine: Engine, indexes: Sequence[int]) -> _Rows:
        if len(indexes) == len(self):
            return self
        if not indexes:
            return _Rows()
        rows = [self.rows[index] for index in indexes]
        if self.state is None:
            return _Rows(rows)
        return _Rows(rows, select_rows(engine, self.state, indexes), self.last[list(indexes)])

    def draw(self, count: int) -> None:
        for row in self.rows:
            row.uniform = row.rng.random(count, dtype=np.float32)


def _joined(engine: Engine, first: _Rows, second: _Rows) -> _Rows:
    if not len(first) or not len(second):
        return first if len(first) else second
    state = join_rows(engine, [first.state, second.state])
    return _Rows([*first.rows, *second.rows], state, np.concatenate([first.last, second.last]))


def _read(engine: Engine, rows: _Rows) -> _Rows:
    """The rows after their prompts."""
    return _Rows(rows.rows, *read_prompts(engine, [row.prompt for row in rows.rows]))


def _write(engine: Engine, rows: _Rows) -> tuple[Ids, _Rows]:
    """The next tokens of each row, and the rows after them."""
    uniform = np.stack([row.uniform for row in rows.rows], axis=1)
    tokens, state = engine.write(
        rows.last, rows.state, uniform, [row.sampling for row in rows.rows]
    )
    return tokens, _Rows(rows.rows, state, tokens[-1])


def _apart(
    engine: Engine, rows: _Rows, compute: Callable[[Engine, _Rows], FoundT]
) -> Iterator[tuple[_Rows, FoundT | NotFiniteError]]:
    """What `compute` gives for the rows: all at once or, where the model's numbers are not finite,
    in halves, down to the row of which they are not."""
    if not len(rows):
        return
    try:
        yield rows, compute(engine, rows)
    except NotFiniteError as error:
        if len(rows) == 1:
            yield rows, error
            return
        half = len(rows) // 2
        yield from _apart(engine, rows.part(engine, range(half)), compute)
        yield from _apart(engine, rows.part(engine, range(half, len(rows))), compute)


class _Reader:
    """Makes rows of records, and results that tell the error of those that cannot be one."""

    def __init__(self, source: Source, defaults: Mapping[str, Any]) -> None:
        self._source = source
        self._defaults = defaults
        self._warned = False

    def row(self, number: int, record: Record) -> _Row | Result:
        fields: Mapping[str, Any] = {}
        try:
            fields = _object(record)
            request = self._request(number, fields)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                prompt = encode_prompt(self._source.tokenizer, request.prompt)
            stops = Stops(request.stop, self._source.tokenizer)
        except ZooError as error:
            kept = {name: value for name, value in fields.items() if name not in RESULT}
            return {**kept, LINE: number, ERROR: str(error)}
        if caught and not self._warned:
            self._warned = True  # a file may have a million of them
            warnings.warn(
                f"line {number:,}: {caught[0].message} (further lines are not named)",
                ZooWarning,
                stacklevel=2,
            )
        rng = np.random.default_rng(request.seed)
        return _Row(number, fields, request, request.sampling, stops, prompt, rng)

    def _request(self, number: int, fields: Mapping[str, Any]) -> Request:
        if taken := [name for name in RESULT if name in fields]:
            raise UsageError(f"{taken[0]!r} is a name of the result's; give the field another.")
        if "prompt" not in fields:
            near = near_names("prompt", fields)
            raise UsageError("it has no 'prompt'" + (f"; is it {near}?" if near else "."))
        given = {name: fields[name] for name in SETTINGS if fields.get(name) is not None}
        if isinstance(given.get("stop"), list):
            given["stop"] = tuple(given["stop"])
        values = {**self._defaults, "seed": self._defaults["seed"] + number - 1, **given}
        try:
            request = Request.model_validate({**values, "prompt": fields["prompt"]}, strict=True)
            request.prompt.encode()
        except ValidationError as error:
            raise UsageError(first_problem(error)) from None
        except UnicodeEncodeError:
            raise UsageError("prompt: it holds half of a character.") from None
        return request


def _object(record: Record) -> Mapping[str, Any]:
    """A record as an object. UsageError for a line that holds none."""
    if isinstance(record, Mapping):
        return record
    if len(record) > LONGEST_LINE:
        raise UsageError(f"it is too long; a line has at most {LONGEST_LINE:,} bytes.")
    try:
        text = record if isinstance(record, str) else record.decode("utf-8")
        found = parse_json(text.removeprefix("\ufeff"))
    except UnicodeDecodeError:
        raise UsageError("it is not UTF-8 text.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"it is not JSON: {one_line(error)}.") from None
    if not isinstance(found, dict):
        raise UsageError("it is not a JSON object.")
    return found
