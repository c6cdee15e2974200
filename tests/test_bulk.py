"""Bulk generation: many prompts, from a file into a file."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.cli import run as zoo_command
from zoo.errors import RunError, UsageError
from zoo.inference.bulk import LONGEST_LINE, generate_lines
from zoo.inference.bulk_files import generate_file
from zoo.inference.prompts import read_prompts
from zoo.models.torch_engine import ModelStepper

from .conftest import SENTENCE

SEED = 11


def mixed_lines(number: int) -> list[dict[str, Any]]:
    """Prompts of many lengths, with settings of their own or without."""
    rng = random.Random(number)
    lines = []
    for index in range(number):
        start = rng.randrange(40)
        line: dict[str, Any] = {"prompt": SENTENCE[start : start + rng.randrange(1, 27)]}
        choices = {
            "length": rng.choice([0, 1, 7, 33, 70]), "temperature": rng.choice([0.5, 1.0, 1.5]),
            "top_k": rng.choice([0, 3]), "top_p": rng.choice([0.7, 1]), "seed": rng.randrange(99),
            "stop": rng.choice([["og"], ["e l", "x"], []]), "id": f"no. {index}",
        }  # fmt: skip
        line |= {name: value for name, value in choices.items() if rng.random() < 0.5}
        lines.append(line)
    return lines


def alone(source: zoo.inference.Source, line: dict[str, Any], number: int) -> str:
    """What `zoo generate` writes for this line only."""
    settings = {"length": 20, "temperature": 0.8, "seed": SEED + number - 1} | line
    prompt, _ = settings.pop("prompt"), settings.pop("id", None)
    return "".join(zoo.stream(source, prompt, **settings))


def assert_each_as_alone(source: zoo.inference.Source) -> None:
    lines = mixed_lines(60)
    found = list(generate_lines(source, lines, length=20, temperature=0.8, seed=SEED, batch_size=8))
    assert sorted(result["line"] for result in found) == list(range(1, 61))
    assert len({len(result["text"]) for result in found}) > 5
    for result in found:
        number = result.pop("line")
        line = lines[number - 1]
        text, tokens, finish = (result.pop(name) for name in ("text", "tokens", "finish"))
        assert result == line
        assert text == alone(source, line, number)
        assert tokens == len(text)  # of characters
        stopped = any(stop in text for stop in line.get("stop", ()))
        assert finish == ("stop" if stopped else "length")
        assert stopped or tokens == line.get("length", 20)


def test_a_text_of_a_run_is_that_of_its_prompt_alone(fox_run: zoo.Run) -> None:
    assert_each_as_alone(zoo.open_source(fox_run.path))


def test_a_text_of_a_step_graph_is_that_of_its_prompt_alone(fox_file: Path) -> None:
    assert_each_as_alone(zoo.open_source(fox_file))


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "lstm", "mingru", "mlstm"])
def test_a_text_of_every_graph_is_that_of_its_prompt_alone(
    trained: Callable[..., zoo.Run], cell: str
) -> None:
    run = trained(cell)
    assert_each_as_alone(zoo.open_source(run.path))
    for exported in zoo.export_all(run, ("step", "generate"), out=Path("files")):
        assert_each_as_alone(zoo.open_source(exported.path))


class Recording(ModelStepper):
    """Notes how many rows each write has."""

    def __init__(self, model: zoo.LanguageModel, chunk: int = 1) -> None:
        super().__init__(model)
        self.chunk = chunk
        self.rows: list[int] = []

    def write(self, last: Any, *others: Any) -> Any:
        self.rows.append(len(last))
        return super().write(last, *others)


def recorded(run: zoo.Run, chunk: int = 1) -> tuple[Recording, zoo.inference.Source]:
    engine = Recording(run.model, chunk)
    return engine, zoo.inference.Source(engine, run.tokenizer, run.prompt, "a test")


def test_the_rows_stay_full(fox_run: zoo.Run) -> None:
    engine, source = recorded(fox_run)
    lines = [{"prompt": "the", "length": 3 + 11 * (i % 3)} for i in range(60)]
    assert len(list(generate_lines(source, lines, batch_size=6))) == 60
    tokens = sum(line["length"] for line in lines)
    assert sum(engine.rows) == tokens  # nothing is computed for a row that has ended
    assert engine.rows == sorted(engine.rows, reverse=True)
    assert len([rows for rows in engine.rows if rows < 6]) <= 25  # the longest text's tokens


def test_lines_are_taken_as_they_are_needed(fox_run: zoo.Run) -> None:
    taken = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for number in count():
            taken += 1
            yield {"prompt": "the", "length": 10**9 if number == 0 else 5}

    _, source = recorded(fox_run)
    results = generate_lines(source, endless(), batch_size=4)
    for number in range(1, 100):
        assert next(results)["finish"] == "length"
        assert taken <= number + 2 * 4  # the first text, which never ends, holds nothing up


@pytest.mark.parametrize("chunk", [1, 32])
def test_a_row_that_overflows_does_not_end_the_others(fox_run: zoo.Run, chunk: int) -> None:
    broken = zoo.load(fox_run.path)
    engine, source = recorded(broken, chunk)
    step = engine.step

    def overflowing(tokens: Any, state: Any) -> Any:
        logits, state = step(tokens, state)
        logits[tokens == broken.tokenizer.encode("z")[0]] = np.inf
        return logits, state

    engine.step = overflowing
    lines = [{"prompt": f"the {word}", "length": 6} for word in ("dog", "z", "fox", "laz", "do")]
    found = {result["line"]: result for result in generate_lines(source, lines, batch_size=5)}
    for number in (1, 3, 5):
        assert found[number]["text"] == alone(
            zoo.open_source(fox_run.path), {**lines[number - 1], "temperature": 0}, number
        )
    for number in (2, 4):
        assert "logits are not finite" in found[number]["error"]
        assert "text" not in found[number]


def test_prompts_are_read_together(fox_run: zoo.Run) -> None:
    """The state of each is that of PyTorch's own forward pass over it."""
    engine = ModelStepper(fox_run.model.eval())
    texts = ["the dog", "a", "over the lazy dog", "the fox", "q"]
    prompts = [fox_run.tokenizer.encode(text) for text in texts]
    state, last = read_prompts(engine, prompts)
    (found,) = engine.state_to_arrays(state).values()
    for row, ids in enumerate(prompts):
        assert last[row] == ids[-1]
        wanted = engine.init_state(1)
        if len(ids) > 1:
            with torch.no_grad():
                _, wanted = fox_run.model(torch.from_numpy(ids[:-1])[:, None])
        (leaf,) = engine.state_to_arrays(wanted).values()
        np.testing.assert_allclose(found[row], leaf[0], rtol=0, atol=1e-5)


def test_bad_lines_have_an_error(fox_file: Path) -> None:
    bad = {
        b"{'prompt': 1}": "it is not JSON: ",
        b"": "it is not JSON: ",
        b"[" * 100_000: "it is not JSON: ",
        b"\xff": "it is not UTF-8 text.",
        b"[1]": "it is not a JSON object.",
        b'{"id": 3}': "it has no 'prompt'.",
        b'{"promt": "a"}': "it has no 'prompt'; is it 'promt'?",
        b'{"prompt": ""}': "the prompt is empty",
        b'{"prompt": null}': "prompt: must be a valid string",
        b'{"prompt": ["a"]}': "prompt: must be a valid string",
        b'{"prompt": "\\ud800"}': "prompt: it holds half of a character.",
        b'{"prompt": "a", "length": "5"}': "length: must be a valid integer",
        b'{"prompt": "a", "length": -1}': "length: must be greater than or equal to 0",
        b'{"prompt": "a", "length": 1.5}': "length: must be a valid integer",
        b'{"prompt": "a", "seed": true}': "seed: must be a valid integer",
        b'{"prompt": "a", "temperature": NaN}': "it is not JSON: NaN is no number.",
        b'{"prompt": "a", "top_p": 2}': "top_p: must be less than or equal to 1",
        b'{"prompt": "a", "stop": "x"}': "stop: must be a valid tuple",
        b'{"prompt": "a", "stop": [1]}': "stop.0: must be a valid string",
        b'{"prompt": "a", "stop": [""]}': "a stop string is empty",
        b'{"prompt": "a", "text": "x"}': "'text' is a name of the result's",
        b'{"prompt": "' + b"a" * LONGEST_LINE + b'"}': "it is too long",
    }
    good = b'\xef\xbb\xbf{"prompt": "the", "seed": null, "length": 4}\r'
    found = list(generate_lines(fox_file, [*bad, good]))
    assert len(found) == len(bad) + 1
    texts = {result["line"]: result for result in found}
    for number, (line, message) in enumerate(bad.items(), start=1):
        assert texts[number]["error"].startswith(message), line[:100]
        assert "text" not in texts[number]
    assert texts[6] == {"id": 3, "line": 6, "error": "it has no 'prompt'."}
    assert texts[len(found)]["tokens"] == 4


def test_unknown_characters_are_told_once(fox_file: Path) -> None:
    lines = [{"prompt": "the", "length": 1}, *[{"prompt": "Д the", "length": 1}] * 20]
    with pytest.warns(zoo.ZooWarning, match=r"^line 2: the prompt has .*: 'Д' \(further") as caught:
        found = list(generate_lines(fox_file, lines, batch_size=3))
    assert len(caught) == 1
    assert all(result["tokens"] == 1 for result in found)


@pytest.fixture
def prompts() -> Path:
    path = Path("prompts.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in mixed_lines(40)) + "no line")
    return path


def results(path: str) -> list[Any]:
    lines = Path(path).read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\n") for line in lines)
    return sorted(map(json.loads, lines), key=lambda result: result["line"])


SETTINGS: dict[str, Any] = {"length": 20, "temperature": 0.8, "seed": SEED, "batch_size": 8}


def test_the_command(fox_file: Path, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["generate", str(fox_file), "--prompts", "prompts.jsonl", "--out", "out.jsonl"]
    command += ["--length", "20", "--temperature", "0.8", "--seed", str(SEED)]
    assert zoo_command(command) == 0
    printed, notes = capsys.readouterr()
    assert printed == ""
    found = results("out.jsonl")
    tokens = sum(result.get("tokens", 0) for result in found)
    assert notes.startswith(f"ONNX Runtime on CPU: 41 lines, {tokens:,} tokens, ")
    assert notes.endswith(" per second\n1 lines have an error instead of a text\n")
    assert found[:-1] == sorted(
        generate_lines(fox_file, mixed_lines(40), length=20, temperature=0.8, seed=SEED),
        key=lambda result: result["line"],
    )
    assert found[-1]["line"] == 41
    assert zoo_command(command) == 0  # all is there
    assert capsys.readouterr().err == (
        "ONNX Runtime on CPU: 0 lines, 0 tokens, 0 per second\n41 lines were there before\n"
    )
    assert zoo_command([*command[:-2], "--batch-size", "4"]) == 2
    assert "was begun with another seed; give the same" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--prompts", "a.jsonl"],
        ["--prompts", "a.jsonl", "--out", "b.jsonl", "--prompt", "the"],
        ["--out", "b.jsonl"],
        ["--batch-size", "3"],
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], fox_file: Path) -> None:
    assert zoo_command(["generate", str(fox_file), *arguments]) == 2
    assert list(Path().iterdir()) == []


def test_it_goes_on_where_it_was_cut(fox_file: Path, prompts: Path) -> None:
    summary = generate_file(fox_file, prompts, "whole.jsonl", **SETTINGS)
    assert (summary.lines, summary.errors, summary.earlier) == (41, 1, 0)
    whole, wanted = Path("whole.jsonl").read_bytes(), results("whole.jsonl")
    settings = Path("whole.jsonl.settings.json").read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (0, 1, ends[0] - 1, ends[0], ends[10] + 3, ends[30] - 2, ends[-1] - 1):
        Path("cut.jsonl").write_bytes(whole[:cut])
        Path("cut.jsonl.settings.json").write_bytes(settings)
        before = sum(end <= cut for end in ends)
        summary = generate_file(fox_file, prompts, "cut.jsonl", **SETTINGS | {"batch_size": 5})
        assert (summary.earlier, summary.lines) == (before, 41 - before)
        assert Path("cut.jsonl").read_bytes().startswith(whole[: ends[before - 1] if before else 0])
        assert results("cut.jsonl") == wanted


def test_what_cannot_go_on(fox_file: Path, fox_run: zoo.Run, prompts: Path) -> None:
    generate_file(fox_file, prompts, "out.jsonl", **SETTINGS)
    before = Path("out.jsonl").read_bytes()
    for change in ({"length": 21}, {"top_k": 3}, {"stop": ["a"]}, {"temperature": 0.7}):
        (name,) = change
        with pytest.raises(UsageError, match=f"begun with another {name}; give the same"):
            generate_file(fox_file, prompts, "out.jsonl", **SETTINGS | change)
    with pytest.raises(UsageError, match="begun with another source and model"):
        generate_file(fox_run.path, prompts, "out.jsonl", **SETTINGS)
    with pytest.raises(UsageError, match="holds the prompts"):
        generate_file(fox_file, prompts, prompts, **SETTINGS)
    with pytest.raises(UsageError, match="the folder nowhere does not exist"):
        generate_file(fox_file, prompts, "nowhere/out.jsonl", **SETTINGS)
    with pytest.raises(RunError, match=r"none\.jsonl cannot be read: No such file"):
        generate_file(fox_file, "none.jsonl", "out.jsonl", **SETTINGS)
    Path("other.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"other\.jsonl exists, and was not begun here"):
        generate_file(fox_file, prompts, "other.jsonl", **SETTINGS)
    assert Path("out.jsonl").read_bytes() == before
    Path("out.jsonl").write_bytes(before + before[: before.index(b"\n") + 1])
    with pytest.raises(UsageError, match=r"out\.jsonl, line 42, is no result of these prompts, or"):
        generate_file(fox_file, prompts, "out.jsonl", **SETTINGS)
    Path("out.jsonl").write_bytes(before)
    prompts.write_text(prompts.read_text().replace("the", "teh"))
    with pytest.raises(UsageError, match="begun with another prompts"):
        generate_file(fox_file, prompts, "out.jsonl", **SETTINGS)


def test_a_line_that_is_too_long_is_one_line(fox_file: Path) -> None:
    with Path("a.jsonl").open("wb") as file:
        file.write(b'{"prompt": "' + b"a" * (LONGEST_LINE + 10) + b'"}\n')
        file.write(b'{"prompt": "the", "x": "\\ud800\xc3\xa4", "length": 2}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate_file(fox_file, "a.jsonl", "b.jsonl")
    first, second = results("b.jsonl")
    assert (first["line"], first["error"][:14]) == (1, "it is too long")
    assert (second["line"], second["x"], second["tokens"]) == (2, "\ud800ä", 2)
