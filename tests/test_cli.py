"""The command line: output, exit codes, and error messages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from zoo.cli import VERBS, run

SMALL = ["--cell", "rnn", "--hidden", "8", "--epochs", "1", "--batch-size", "4", "--steps", "8"]


def lines(text: str) -> list[str]:
    return text.splitlines()


@pytest.mark.parametrize("arguments", [["--help"], ["cells"], ["cells", "--json"], ["corpora"]])
def test_quick_commands_import_no_torch(arguments: list[str]) -> None:
    light = {"pydantic", "pluggy", "rich"} if arguments == ["--help"] else set()
    code = (
        "import sys, zoo.cli\n"
        f"code = zoo.cli.run({arguments!r})\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'matplotlib', 'tokenizers'}\n"
        f"heavy |= {light!r}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert f"Usage: zoo {verb}" in capsys.readouterr().out


def test_cells_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cells", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert {
        "name": "rnn-scratch", "plugin": "elman", "causal": True, "parallel": False, "year": 1990,
    } in cells  # fmt: skip
    assert run(["cells", "--filter", "no-such-*", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_show_prints_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "rnn-scratch"]) == 0
    out = capsys.readouterr().out
    assert "h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h)" in out
    assert "h  [batch, hidden]" in out
    assert "std=0.01  (float, > 0, <= 1)" in out


def test_plugins_and_corpora(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "--json"]) == 0
    found = {row["plugin"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["elman"]["supplies"] == ["cell rnn", "cell rnn-scratch"]
    assert found["elman"]["distribution"] == "recurrent-zoo"
    assert run(["corpora", "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert names == ["python-docs", "time-machine"]


def test_doctor_says_what_runs_and_why_the_rest_does_not(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(["doctor", "--json"]) == 0
    out, err = capfd.readouterr()
    rows = {row["what"]: row for row in json.loads(out)}
    assert rows["torch"]["detail"] == torch.__version__
    assert rows["onnxruntime CPUExecutionProvider"]["works"] is True
    for row in rows.values():
        assert row["detail"]
    if not torch.cuda.is_available():
        assert "lib" in rows["onnxruntime CUDAExecutionProvider"]["detail"]
    assert err == ""


def test_train_export_generate(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", str(text_file), *SMALL, "--out", "r", "--prompt", "the"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "rnn: 1 × 8 hidden units" in err
    assert "the run is in r; next: zoo export r" in err
    assert run(["export", "r"]) == 0
    out, err = capsys.readouterr()
    assert out == "r/export/step.onnx\n"
    assert "proved over 256 steps at batch sizes 1 and 5" in err
    texts = []
    for source in ("r", "r/export/step.onnx"):
        assert run(["generate", source, "--prompt", "the d", "--length", "40", "--seed", "3",
                    "--temperature", "0.9"]) == 0  # fmt: skip
        out, err = capsys.readouterr()
        texts.append(out)
        assert "40 tokens" in err
    assert texts[0] == texts[1]
    assert texts[0].startswith("the d")
    assert len(texts[0]) == len("the d") + 40 + 1
    assert run(["verify", "r/export/step.onnx", "--against", "r", "--length", "50"]) == 0
    assert "greedy" in capsys.readouterr().out


def test_standard_input_is_a_corpus() -> None:
    text = "to be or not to be, that is the question. " * 40
    found = subprocess.run(
        [sys.executable, "-m", "zoo", "train", "-", *SMALL, "--out", "r"],
        input=text, capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert zoo.load("r").config.data.corpus == "-"


def test_settings_override_the_recipe_and_the_recipe_overrides_defaults(text_file: Path) -> None:
    assert run(["train", str(text_file), "--recipe", "d2l-scratch", "--hidden", "8", "--minutes",
                "0.01", "--batch-size", "4", "--option", "std=0.1", "--out", "r"]) == 0  # fmt: skip
    config = zoo.load("r").config
    assert (config.model.cell, config.model.hidden) == ("rnn-scratch", 8)
    assert config.model.options == {"std": 0.1}
    assert config.training.epochs is None
    assert config.training.minutes == 0.01
    assert config.training.optimizer == "sgd"
    assert config.training.learning_rate == 1.0
    assert config.data.tokenizer == "letters"


def test_a_run_without_a_name_gets_a_free_one(text_file: Path) -> None:
    for _ in range(2):
        assert run(["train", str(text_file), *SMALL]) == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == ["fox-rnn", "fox-rnn-2"]


WRONG_USAGE = [
    (["train", "time-machin"], 2, "'time-machin' is neither a corpus nor a file; did you mean "
                                  "'time-machine'?"),
    (["train", "{text}", "--cell", "rnn-scrath"], 2, "did you mean 'rnn-scratch'"),
    (["train", "{text}", "--recipe", "d2l-scratsh"], 2, "did you mean 'd2l-scratch'"),
    (["train", "{text}", "--hidden", "0"], 2, "model.hidden: must be greater than or equal to 1"),
    (["train", "{text}", "--hidden", "many"], 2, "'many' is not a valid integer"),
    (["train", "{text}", "--hiden", "8"], 2, "No such option"),
    (["train", "{text}", "--epochs", "0"], 2, "epochs"),
    (["train", "{text}", "--option", "std"], 2, "not of the form name=value"),
    (["train", "{text}", "--option", "std=1"], 2, "cell 'lstm' has no option 'std'"),
    (["train", "{text}", "--device", "tpu"], 2, "'tpu' is not one of"),
    (["train", "{empty}"], 1, "empty.txt is empty"),
    (["train", "{binary}"], 1, "binary.txt is not UTF-8 text (byte 0)"),
    (["train", "{short}"], 1, "the text is too short"),
    (["train", "{folder}"], 1, "has no text file"),
    (["train", "{text}", "--batch-size", "5000", "--steps", "35"], 1,
     "5000 rows of 35 steps need 175036"),
    (["generate", "nowhere"], 1, "nowhere does not exist"),
    (["generate", "{text}"], 1, "neither a run folder nor a file that a runtime here opens"),
    (["generate", "{folder}"], 1, "is not a run folder"),
    (["generate", "{file}", "--prompt", ""], 2, "the prompt is empty"),
    (["generate", "{file}", "--length", "-1"], 2, "-1 is not in the range x>=0"),
    (["generate", "{file}", "--temperature", "-1"], 2, "temperature: must be greater"),
    (["generate", "{file}", "--top-p", "2"], 2, "top_p: must be less than or equal to 1"),
    (["generate", "{file}", "--provider", "rocm"], 2, "'rocm' is not one of"),
    (["export", "nowhere"], 1, "nowhere is not a run folder"),
    (["export", "{run}", "--graph", "stop"], 2, "graph 'stop' is not in the zoo"),
    (["export", "{run}", "--out", "{text}/below"], 1, "cannot be written: Not a directory"),
    (["verify", "{file}"], 2, "Missing option '--against'"),
    (["verify", "{file}", "--against", "nowhere"], 1, "nowhere is not a run folder"),
    (["show", "rnnn"], 2, "cell 'rnnn' is not in the zoo; did you mean 'rnn'"),
    (["shwo", "rnn"], 2, "No such command 'shwo'"),
    (["cells", "extra"], 2, "unexpected extra argument"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG_USAGE)
def test_errors_are_one_or_two_lines(
    arguments: list[str],
    code: int,
    message: str,
    text_file: Path,
    fox_run: zoo.Run,
    fox_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = {"text": text_file, "file": fox_file, "run": fox_run.path, "folder": tmp_path / "d"}
    for name, content in (("empty", b""), ("binary", b"\xff\xfe\x00\x01"), ("short", b"abc")):
        paths[name] = tmp_path / f"{name}.txt"
        paths[name].write_bytes(content)
    paths["folder"].mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert run([argument.format(**paths) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("zoo: error: ")
    assert message in err
    assert len(lines(err)) <= 2
    assert sorted(tmp_path.rglob("*")) == before


def test_unavailable_cuda_is_an_error(
    fox_file: Path, fox_run: zoo.Run, text_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA runs here")
    for arguments in (
        ["generate", str(fox_file), "--provider", "cuda"],
        ["generate", str(fox_run.path), "--provider", "cuda"],
        ["train", str(text_file), "--device", "cuda", "--out", "r"],
    ):
        assert run(arguments) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert "CUDA does not run in" in err
        assert len(lines(err)) == 1
    assert not Path("r").exists()


@pytest.mark.parametrize("out", ["{text}/below", "/proc/zoo"])
def test_a_run_folder_that_cannot_be_written(
    out: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = out.format(text=text_file)
    assert run(["train", str(text_file), *SMALL, "--out", folder]) == 1
    err = capsys.readouterr().err
    assert f"{folder} cannot be written: " in err
    assert len(lines(err)) == 1


def test_an_existing_run_is_kept_without_overwrite(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(text_file), *SMALL, "--out", "r"]
    assert run(arguments) == 0
    before = {path: path.read_bytes() for path in Path("r").iterdir()}
    capsys.readouterr()
    assert run([*arguments, "--seed", "1"]) == 1
    assert "r already holds a run; use --overwrite" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("r").iterdir()} == before
    # a new run that fails before the first update restores the old one
    with monkeypatch.context() as patch:
        patch.setattr("zoo.training.trainer.perplexity", lambda nats: 1 / 0)
        assert run([*arguments, "--overwrite", "--seed", "1"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("r").iterdir()} == before
    assert run([*arguments, "--overwrite", "--seed", "1"]) == 0
    assert zoo.load("r").config.training.seed == 1
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


def test_overwrite_never_replaces_what_is_not_a_run(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("years of work")
    Path("thesis/config.json").write_text('{"model": "some other program\'s"}')
    assert run(["train", str(text_file), *SMALL, "--out", "thesis", "--overwrite"]) == 1
    assert "thesis exists and is not a run folder" in capsys.readouterr().err
    assert Path("thesis/chapter.txt").read_text() == "years of work"


def test_overwriting_the_current_folder(text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["train", str(text_file), *SMALL, "--out", "r"]) == 0
    monkeypatch.chdir("r")
    assert run(["train", str(text_file), *SMALL, "--seed", "5", "--out", ".", "--overwrite"]) == 0
    assert zoo.load(Path("../r").resolve()).config.training.seed == 5


def test_without_a_command_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: zoo")
    assert err == ""


def test_check_prints_a_line_for_each_law(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "rnn"]) == 0
    out = capsys.readouterr().out
    assert len(lines(out)) == 14
    assert "drift" in out
    assert run(["check", "lstm", "--option", "foo=1"]) == 2
    assert "cell 'lstm' has no option 'foo'" in capsys.readouterr().err
    assert run(["check", "no-such*"]) == 2


def test_damaged_metrics_are_an_error(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", str(text_file), *SMALL, "--out", "r"]) == 0
    Path("r/metrics.jsonl").write_text("{not json}\n")
    capsys.readouterr()
    assert run(["export", "r"]) == 1
    assert "r/metrics.jsonl is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "missing", "foreign", "renamed", "double", "text"]
)
def test_damaged_or_foreign_weights_are_an_error(
    damage: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(text_file), *SMALL, "--out", "r"]) == 0
    path = Path("r/model.safetensors")
    content, weights = path.read_bytes(), load_file(path)
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "missing":
        path.unlink()
    elif damage == "foreign":
        save_file({"w": torch.zeros(3)}, path)
    elif damage == "double":
        save_file({name: tensor.double() for name, tensor in weights.items()}, path)
    elif damage == "renamed":
        save_file({**weights, "head.bias": torch.zeros(9999)}, path)
    else:
        path.write_text("not weights at all")
    capsys.readouterr()
    for arguments in (["generate", "r"], ["export", "r"]):
        assert run(arguments) == 1
        err = capsys.readouterr().err
        assert err.startswith("zoo: error: r/model.safetensors ")
        assert len(lines(err)) == 1
    assert not Path("r/export").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", '{"model": {"hidden": 1e12}}'),
        ("config.json", '{"factory": "os:system"}'),
        ("tokenizer.json", '{"kind": "char", "characters": "aa"}'),
    ],
)
def test_damaged_json_is_an_error(
    file: str, content: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(text_file), *SMALL, "--out", "r"]) == 0
    Path("r", file).write_text(content)
    capsys.readouterr()
    assert run(["generate", "r"]) == 1
    err = capsys.readouterr().err
    assert "damaged" in err
    assert len(lines(err)) == 1


def test_unknown_characters_are_one_warning(
    fox_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", str(fox_file), "--prompt", "Жthe", "--length", "3"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Жthe")
    assert err.count("zoo: warning: ") == 1
    assert "read as <unk>: 'Ж'" in err


def test_an_interrupt_exits_130_and_keeps_the_run(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from zoo.training import text_data

    original, calls = text_data.evaluate, 0

    def evaluate(*arguments: object, **settings: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*arguments, **settings)

    monkeypatch.setattr(text_data, "evaluate", evaluate)
    assert run(["train", str(text_file), *SMALL[:2], "--epochs", "9", "--out", "r"]) == 130
    assert "interrupted; resume with: zoo train --resume --out r\n" in capsys.readouterr().err
    assert len(zoo.load("r").metrics()) == 2


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(zoo.ZooError):
        run(["generate", "nowhere", "--debug"])


def test_a_closed_output_pipe_is_no_error(fox_file: Path) -> None:
    command = f"'{sys.executable}' -m zoo generate '{fox_file}' --length 50000 | head -c 20"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert len(found.stdout) == 20
    assert "Traceback" not in found.stderr
    assert "zoo: error" not in found.stderr


def test_demo_runs_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--minutes", "0.05", "--out", "d"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("The statement ")
    assert "proved over 256 steps" in err
    assert Path("d/perplexity.png").exists()
    assert Path("d/export/step.onnx").exists()


CLOSED_WORDS = [
    ("device", "gpu", "'auto', 'cpu' or 'cuda'"),
    ("device", "CUDA", "did you mean 'cuda'"),
    ("precision", "bf-16", "did you mean 'bf16'"),
    ("batches", "sequental", "did you mean 'sequential'"),
    ("keep", "Best", "did you mean 'best'"),
]


@pytest.mark.parametrize(("setting", "word", "message"), CLOSED_WORDS)
def test_an_invalid_choice_is_an_error(
    setting: str, word: str, message: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From Python and from the command line, before training."""
    with pytest.raises(zoo.UsageError, match=f"{setting}: must be .*{re.escape(message)}"):
        zoo.train(str(text_file), **{setting: word})
    assert run(["train", str(text_file), f"--{setting}", word]) == 2
    assert not Path("runs").exists()
    error = capsys.readouterr().err
    assert len(error.splitlines()) <= 2
    assert all(choice in error for choice in re.findall(r"'(\w+)'", message))
