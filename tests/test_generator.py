"""Generation, from PyTorch and from an exported file."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.config import Sampling
from zoo.errors import RunError, UsageError, VerificationError, ZooError
from zoo.exporting.suitability import free_gap
from zoo.exporting.text_comparison import Difference, compare_texts
from zoo.exporting.verification import judge
from zoo.inference.position import Position, Stops
from zoo.models.torch_engine import ModelStepper
from zoo.registry import RuntimeSpec


def test_greedy_generation_equals_the_textbooks_prediction(fox_run: zoo.Run) -> None:
    """Warm-up on the prompt, then the most likely character repeatedly, with the model's `forward`
    rather than its `step`."""
    ids = fox_run.tokenizer.encode("the quick")
    model = fox_run.model.eval()
    with torch.no_grad():
        logits, state = model(torch.from_numpy(ids)[:, None])
        for _ in range(40):
            token = logits[-1].argmax(-1)
            ids = np.append(ids, int(token))
            logits, state = model(token[None], state)
    assert zoo.generate(fox_run.path, "the quick", length=40) == fox_run.tokenizer.decode(ids)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0, "seed": 3},
        {"temperature": 0.7, "top_k": 5, "seed": 4},
        {"temperature": 1.3, "top_p": 0.8, "seed": 5},
    ],
)
def test_pytorch_and_onnx_runtime_generate_the_same_text(
    fox_run: zoo.Run, fox_file: Path, settings: dict[str, float]
) -> None:
    text = zoo.generate(fox_run.path, "the dog", length=1000, **settings)
    assert zoo.generate(fox_file, "the dog", length=1000, **settings) == text
    assert len(text) == 1007


def test_different_seeds_give_different_texts(fox_file: Path) -> None:
    texts = {zoo.generate(fox_file, length=60, temperature=1.0, seed=seed) for seed in range(5)}
    assert len(texts) == 5


def test_streaming_gives_the_same_text(fox_file: Path) -> None:
    pieces = list(zoo.stream(fox_file, "the", 30, temperature=0.9))
    assert len(pieces) == 30
    assert "the" + "".join(pieces) == zoo.generate(fox_file, "the", length=30, temperature=0.9)


def test_the_default_prompt_is_that_of_the_samples(fox_file: Path) -> None:
    assert zoo.generate(fox_file, length=3).startswith("the ")


def test_unknown_characters_give_one_warning(fox_run: zoo.Run, fox_file: Path) -> None:
    for source in (fox_run.path, fox_file):
        with pytest.warns(zoo.ZooWarning, match="never saw, read as <unk>: 'ДЖ'") as caught:
            text = zoo.generate(source, "ДЖД the", length=5)
        assert len(caught) == 1
        assert text.startswith("ДЖД the")


@pytest.mark.parametrize(
    ("prompt", "length", "message"), [("", 5, "prompt is empty"), ("a", -1, "at least 0")]
)
def test_invalid_prompts_and_lengths_are_errors(
    fox_file: Path, prompt: str, length: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        zoo.generate(fox_file, prompt, length=length)


def test_a_state_converts_to_arrays_and_back(fox_run: zoo.Run, fox_file: Path) -> None:
    """A state of one runtime can be continued in the other."""
    torch_side, file_side = ModelStepper(fox_run.model), zoo.open_source(fox_file).engine
    state = torch_side.init_state(3)
    for token in (1, 2, 3):
        _, state = torch_side.step(np.full(3, token), state)
    moved = file_side.state_from_arrays(torch_side.state_to_arrays(state))
    tokens = np.array([4, 5, 6])
    wanted, _ = torch_side.step(tokens, state)
    found, after = file_side.step(tokens, moved)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    back = torch_side.state_from_arrays(file_side.state_to_arrays(after))
    np.testing.assert_array_equal(back[0].h.numpy(), after[0])


def test_a_model_that_overflows_is_an_error(fox_run: zoo.Run) -> None:
    broken = zoo.load(fox_run.path)
    with torch.no_grad():
        broken.model.head.bias[0] = torch.inf
    position = Position(ModelStepper(broken.model))
    position.feed(np.array([1]))
    with pytest.raises(ZooError, match="logits are not finite"):
        next(position.write(5, Sampling()))
    # the generate graph returns no logits
    with pytest.raises(VerificationError, match="the model's logits are not finite at step 0"):
        zoo.export(broken, graph="generate", out="files")
    assert not list(Path().glob("files/*"))


def test_stop_accepts_a_single_string(fox_run: zoo.Run) -> None:
    tokenizer = fox_run.tokenizer
    written = tokenizer.encode("the dog").tolist()
    assert [Stops("dog", tokenizer).hit(written[:end]) for end in (5, 6, 7)] == [False, False, True]
    assert Stops(np.array(written[:1]), tokenizer).hit(written[:1])
    with pytest.raises(UsageError, match="strings and numbers of tokens"):
        Stops([1.5], tokenizer)


def test_invalid_sources_are_errors() -> None:
    with pytest.raises(RunError, match="nowhere does not exist"):
        zoo.generate("nowhere")
    Path("notes.txt").write_text("hello")
    with pytest.raises(RunError, match="neither a run folder nor a file"):
        zoo.generate("notes.txt")
    Path("folder").mkdir()
    with pytest.raises(RunError, match=r"not a run folder: it has no \*\.onnx and no config\.json"):
        zoo.generate("folder")


def test_two_runtimes_for_one_path_are_an_error_that_names_both(fox_run: zoo.Run) -> None:
    class Rival:
        @zoo.hookimpl
        def zoo_runtimes(self) -> list[RuntimeSpec]:
            return [RuntimeSpec("rival", "rival:Rival", "the same folders", files="config.*")]

    registry = zoo.load_registry(Rival())
    with pytest.raises(UsageError, match="the runtimes pytorch and rival both open"):
        zoo.open_source(fox_run.path, registry=registry)
    assert zoo.open_source(fox_run.path, registry=registry, runtime="pytorch").prompt


@pytest.mark.parametrize("word", ["CUDA", "gpu", "cpu:0"])
def test_an_unknown_provider_is_an_error(fox_run: zoo.Run, word: str) -> None:
    with pytest.raises(UsageError, match=f"provider '{word}' is not known"):
        zoo.generate(fox_run.path, "the", length=1, provider=word)


class Skewed(ModelStepper):
    """A stepper whose logits for token 1 are wrong from its `since`-th step on."""

    def __init__(self, model: zoo.LanguageModel, since: int, by: float) -> None:
        super().__init__(model)
        self.since, self.by, self.steps = since, by, 0

    def step(self, tokens: np.ndarray, state: object) -> tuple[np.ndarray, object]:
        logits, state = super().step(tokens, state)
        self.steps += 1
        if self.steps > self.since:
            logits = logits.copy()
            logits[:, 1] += self.by
        return logits, state


def test_comparing_texts_distinguishes_a_fault_from_a_tie(fox_run: zoo.Run) -> None:
    exact = ModelStepper(fox_run.model)
    prompt = fox_run.tokenizer.encode("the")
    same = compare_texts(exact, ModelStepper(fox_run.model), prompt, 200, Sampling(temperature=1.0))
    assert list(same) == []
    skewed = Skewed(fox_run.model, since=50, by=100.0)
    faults = list(compare_texts(exact, skewed, prompt, 200, Sampling()))
    assert faults
    assert min(fault.token for fault in faults) >= 48
    assert not faults[0].is_tie
    assert Difference(token=3, margin=2e-6).is_tie


def test_a_choice_less_clear_than_the_models_own_rounding_is_a_tie() -> None:
    """A model whose float32 and float64 runs part by 1e-5 may choose otherwise by a margin of four
    times that; any other may not."""
    differences = [Difference(token=1730, margin=2e-5)]
    judge(differences, 2000, gap=1e-5)
    with pytest.raises(VerificationError, match="not a rounding tie"):
        judge(differences, 2000, gap=1e-6)
    with pytest.raises(VerificationError, match="not a rounding tie"):
        judge(differences, 2000)


def test_amplification_is_the_difference_between_precisions(fox_run: zoo.Run) -> None:
    """A tanh network with small recurrent weights damps rounding errors; with large ones it
    amplifies them."""
    differences = []
    for gain in (0.5, 8.0):
        torch.manual_seed(0)
        model = zoo.load(fox_run.path).model
        with torch.no_grad():
            size = model.config.hidden
            model.stack.cells[0].rnn.weight_hh_l0.copy_(torch.randn(size, size) * gain / size**0.5)
        double = zoo.load(fox_run.path).model
        double.load_state_dict(model.state_dict())
        differences.append(free_gap(ModelStepper(model), ModelStepper(double.double()), steps=300))
    assert differences[0] < 1e-5
    assert differences[1] > 1e-2


def test_no_warning_for_known_characters(fox_file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo.generate(fox_file, "the dog", length=2)
