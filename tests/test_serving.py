"""`zoo serve`, by its clients: the openai package, curl, and HTTP itself. Texts are expected to be
those of `zoo.generate` and `zoo.Session`, which have tests of their own."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch

import zoo

from .servers import Served, file, run, server, serving

__all__ = ["file", "run", "server"]  # fixtures

PROMPT = "the quick "
HOT = {"temperature": 0.7, "seed": 5}


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def http(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def text_of(source: Path, prompt: str, length: int, **settings: Any) -> str:
    return zoo.generate(source, prompt, length, **settings).removeprefix(prompt)


# the openai package


def test_models_are_listed_and_shown(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fox", "torch", "step"]
    assert client.models.retrieve("torch").owned_by == "recurrent-zoo"
    with pytest.raises(
        openai.NotFoundError, match="there is no model 'ox' here; there is fox, torch, step"
    ):
        client.models.retrieve("ox")


@pytest.mark.parametrize("model", ["fox", "torch"])
def test_a_seed_gives_the_text_of_generate(client: openai.OpenAI, file: Path, model: str) -> None:
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=70, **HOT)
    (choice,) = answer.choices
    assert choice.text == text_of(file, PROMPT, 70, **HOT)
    assert (choice.finish_reason, choice.logprobs) == ("length", None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(PROMPT), 70)
    assert answer.usage.total_tokens == len(PROMPT) + 70


def test_a_streamed_text_is_the_same(client: openai.OpenAI, file: Path) -> None:
    given = {"model": "fox", "prompt": PROMPT, "max_tokens": 70, "stream": True, **HOT}
    *pieces, last = client.completions.create(**given, stream_options={"include_usage": True})
    assert "".join(piece.choices[0].text for piece in pieces) == text_of(file, PROMPT, 70, **HOT)
    assert [p.choices[0].finish_reason for p in pieces] == [None] * (len(pieces) - 1) + ["length"]
    assert (last.choices, last.usage.completion_tokens) == ([], 70)
    assert all(piece.usage is None for piece in client.completions.create(**given))


def test_choices_have_seeds_in_a_row(client: openai.OpenAI, file: Path) -> None:
    given = {"model": "fox", "prompt": ["the ", "a dog"], "n": 3, "max_tokens": 20, **HOT}
    wanted = [
        text_of(file, prompt, 20, temperature=0.7, seed=5 + 3 * row + choice)
        for row, prompt in enumerate(["the ", "a dog"])
        for choice in range(3)
    ]
    choices = client.completions.create(**given).choices
    assert [(choice.index, choice.text) for choice in choices] == list(enumerate(wanted))
    streamed = [""] * 6
    for piece in client.completions.create(**given, stream=True):
        streamed[piece.choices[0].index] += piece.choices[0].text
    assert streamed == wanted


def test_prompts_may_be_tokens(client: openai.OpenAI, file: Path) -> None:
    encode = zoo.open_source(file).tokenizer.encode
    one, two = encode("the ").tolist(), encode("dog").tolist()
    given = {"model": "fox", "max_tokens": 20, **HOT}
    (choice,) = client.completions.create(prompt=one, **given).choices
    assert choice.text == text_of(file, "the ", 20, **HOT)
    choices = client.completions.create(prompt=[one, two], **given).choices
    assert choices[1].text == text_of(file, "dog", 20, temperature=0.7, seed=6)
    echoed = client.completions.create(prompt=[one, two], echo=True, **given).choices
    assert [choice.text for choice in echoed] == ["the " + choices[0].text, "dog" + choices[1].text]


@pytest.mark.parametrize(("name", "value"), [("top_k", 3), ("top_p", 0.5), ("top_p", 0)])
def test_sampling_settings(client: openai.OpenAI, file: Path, name: str, value: float) -> None:
    asked = {"extra_body": {"top_k": value}} if name == "top_k" else {name: value}
    given = {"model": "fox", "prompt": PROMPT, "max_tokens": 50, "temperature": 1.0, "seed": 1}
    (choice,) = client.completions.create(**given, **asked).choices
    wanted = text_of(file, PROMPT, 50, temperature=1.0, seed=1, **{name: value or 1e-30})
    assert choice.text == wanted != text_of(file, PROMPT, 50, temperature=1.0, seed=1)


def stopped(text: str, stops: list[str]) -> tuple[str, str]:
    """A text without and with the first of the strings, by a search in the whole of it."""
    end = min(text.find(stop) + len(stop) for stop in stops if stop in text)
    cut = min(text.find(stop) for stop in stops if stop in text)
    return text[:cut], text[:end]


def test_stop_strings(client: openai.OpenAI, file: Path) -> None:
    whole = text_of(file, PROMPT, 200, **HOT)
    given = {"model": "fox", "prompt": PROMPT, "max_tokens": 200, **HOT}
    for stop in (whole[40], whole[30:33], ["no such text", whole[60:64], whole[44:49]]):
        without, with_stop = stopped(whole, [stop] if isinstance(stop, str) else stop)
        answer = client.completions.create(**given, stop=stop)
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (without, "stop")
        assert answer.usage.completion_tokens == len(with_stop)
        pieces = list(client.completions.create(**given, stop=stop, stream=True))
        assert "".join(piece.choices[0].text for piece in pieces) == without
        kept = client.completions.create(**given, stop=stop, extra_body={"include_stop": True})
        stops = [stop] if isinstance(stop, str) else stop
        assert kept.choices[0].text == with_stop == text_of(file, PROMPT, 200, stop=stops, **HOT)


@pytest.fixture(scope="module")
def pairs(trained: Callable[..., zoo.Run]) -> zoo.Run:
    """A model whose tokens are of several characters."""
    return trained(tokenizer="bpe", vocab=290, epochs=1)


def test_a_stop_string_across_tokens(pairs: zoo.Run) -> None:
    given = {"model": "run", "prompt": PROMPT, "max_tokens": 80, **HOT}
    whole = text_of(pairs.path, PROMPT, 80, **HOT)
    with serving(f"run={pairs.path}") as server, httpx.Client(base_url=server.url) as http:
        ids = http.post("/v1/completions", json={**given, "logprobs": 0}).json()
        words = ids["choices"][0]["logprobs"]["tokens"]
        borders = np.cumsum([len(word) for word in words]).tolist()
        long = [len(word) > 1 for word in words[1:]]
        at = next(
            border
            for border, is_long in zip(borders, long, strict=False)
            if border > 20 and is_long
        )
        for stop in (whole[at - 2 : at + 1], whole[at : at + 1], whole[at - 3 : at + 2]):
            answer = http.post("/v1/completions", json={**given, "stop": stop}).json()
            assert answer["choices"][0]["text"] == whole[: whole.find(stop)]
            kept = http.post(
                "/v1/completions", json={**given, "stop": stop, "include_stop": True}
            ).json()
            assert kept["choices"][0]["text"] == text_of(pairs.path, PROMPT, 80, stop=[stop], **HOT)


def logprobs_of(run: zoo.Run, text: str) -> torch.Tensor:
    """log_softmax of PyTorch's model at each token of a text but the first, [T - 1, V]."""
    ids = torch.from_numpy(run.tokenizer.encode(text))
    run.model.cpu().eval()
    with torch.no_grad():
        logits, _ = run.model(ids[:, None], run.model.init_state(1))
    return torch.log_softmax(logits[:-1, 0].double(), dim=-1)


def assert_logprobs(found: Any, wanted: torch.Tensor, ids: list[int], run: zoo.Run) -> None:
    at = range(len(ids))
    np.testing.assert_allclose(found.token_logprobs, wanted[at, ids], atol=2e-5)
    for top, row in zip(found.top_logprobs, wanted, strict=True):
        values, best = row.topk(3)
        assert [*top] == [run.tokenizer.decode([token]) for token in best.tolist()]
        np.testing.assert_allclose([*top.values()], values, atol=2e-5)
    assert found.tokens == [run.tokenizer.decode([token]) for token in ids]


@pytest.mark.parametrize("model", ["fox", "torch"])
def test_logprobs_are_those_of_the_model(
    client: openai.OpenAI, run: zoo.Run, file: Path, model: str
) -> None:
    given = {"model": model, "prompt": PROMPT, "max_tokens": 40, "logprobs": 3, **HOT}
    (choice,) = client.completions.create(**given).choices
    text = text_of(file, PROMPT, 40, **HOT)
    ids = run.tokenizer.encode(PROMPT + text).tolist()
    wanted = logprobs_of(run, PROMPT + text)
    assert choice.text == text
    assert_logprobs(choice.logprobs, wanted[len(PROMPT) - 1 :], ids[len(PROMPT) :], run)
    assert choice.logprobs.text_offset == [*range(40)]
    parts = [piece.choices[0].logprobs for piece in client.completions.create(**given, stream=True)]
    told = [value for part in parts for value in part.token_logprobs]
    # chunks of other sizes: the last bits may differ
    np.testing.assert_allclose(told, choice.logprobs.token_logprobs, atol=1e-5)


def test_echo(client: openai.OpenAI, run: zoo.Run, file: Path) -> None:
    given = {"model": "fox", "echo": True, **HOT}
    (choice,) = client.completions.create(prompt=PROMPT, max_tokens=20, **given).choices
    assert choice.text == zoo.generate(file, PROMPT, 20, **HOT)
    (choice,) = client.completions.create(prompt=PROMPT, max_tokens=0, **given).choices
    assert (choice.text, choice.finish_reason) == (PROMPT, "length")
    # longer than the slices in which prompts are read
    long = "the lazy dog, and the quick fox. " * 40
    (choice,) = client.completions.create(
        prompt=long, max_tokens=0, logprobs=3, **given
    ).choices  # fmt: skip
    found = choice.logprobs
    assert (choice.text, "".join(found.tokens)) == (long, long)
    assert (found.token_logprobs[0], found.top_logprobs[0]) == (None, None)
    del found.tokens[0], found.token_logprobs[0], found.top_logprobs[0]
    assert_logprobs(found, logprobs_of(run, long), run.tokenizer.encode(long).tolist()[1:], run)
    (choice,) = client.completions.create(prompt="t", max_tokens=1, logprobs=0, **given).choices
    assert choice.text == zoo.generate(file, "t", 1, **HOT)
    assert (len(choice.logprobs.tokens), choice.logprobs.top_logprobs) == (2, None)


def test_errors_are_those_of_the_openai_package(client: openai.OpenAI) -> None:
    given: dict[str, Any] = {"model": "fox", "prompt": "the "}
    for wrong, message in (
        ({"temperature": -1}, "temperature: must be greater than or equal to 0"),
        ({"max_tokens": 10_001}, "max_tokens is 10,001, and 10,000 are allowed"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [7, 1000]}, "the prompt has a token 1000; the model's are 0 to"),
        ({"n": 129}, "n: must be less than or equal to 128"),
        ({"frequency_penalty": 1.0}, "frequency_penalty is not supported; leave it out"),
        ({"logit_bias": {"3": 1}}, "logit_bias is not supported"),
        ({"best_of": 3}, "best_of is not supported"),
        ({"suffix": "x"}, "suffix"),
        ({"stop": ""}, "stop"),
        ({"extra_body": {"topk": 3}}, "topk: Extra inputs are not permitted"),
        ({"extra_body": {"max_tokens": "3"}}, "max_tokens: must be a valid integer"),
        ({"prompt": ["a"] * 321}, "prompt asks for 321 texts, and 320 are allowed"),
    ):
        with pytest.raises(openai.BadRequestError, match=message) as caught:
            client.completions.create(**{**given, **wrong})
        assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match=r"there is no model '\.\./fox'") as missing:
        client.completions.create(model="../fox", prompt="the ")
    assert missing.value.code == "model_not_found"


def test_a_prompt_is_the_models_own_where_it_is_null(http: httpx.Client, file: Path) -> None:
    asked = {"model": "fox", "prompt": None, "max_tokens": 9, "seed": 5, "temperature": 0.7}
    text = http.post("/v1/completions", json=asked).json()["choices"][0]["text"]
    assert text == text_of(file, "the ", 9, **HOT)


def test_a_score_is_that_of_the_model(http: httpx.Client, run: zoo.Run) -> None:
    asked = {"model": "fox", "input": [PROMPT * 40, "a dog", "t"]}
    found = http.post("/v1/score", json=asked).json()["data"]
    for one, text in zip(found, asked["input"][:2], strict=False):
        ids = run.tokenizer.encode(text)[1:]
        nats = -float(logprobs_of(run, text)[range(len(ids)), ids].sum())
        assert (one["index"], one["tokens"]) == (asked["input"].index(text), len(text) - 1)
        assert one["nats"] == pytest.approx(nats, rel=1e-5)
        assert one["bits_per_char"] == pytest.approx(nats / len(ids) / np.log(2), rel=1e-5)
        assert one["perplexity"] == pytest.approx(np.exp(nats / len(ids)), rel=1e-5)
    assert (found[2]["tokens"], found[2]["nats"]) == (0, 0)
    answer = http.post("/v1/score", json={**asked, "input": ["a"] * 321})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")


def test_curl_streams_the_same_text(server: Served, file: Path) -> None:
    asked = {"model": "fox", "prompt": PROMPT, "max_tokens": 70, "stream": True, **HOT}
    answer = subprocess.run(
        ["curl", "-sN", f"{server.url}/v1/completions", "-d", json.dumps(asked)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    *events, done, rest = answer.stdout.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    texts = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events]
    assert "".join(texts) == text_of(file, PROMPT, 70, **HOT)


# many at a time


def settings_of(rng: np.random.Generator, number: int) -> dict[str, Any]:
    kinds = [
        {"temperature": 0.0},
        {"temperature": 0.8},
        {"temperature": 1.0, "top_k": 4},
        {"temperature": 0.9, "top_p": 0.8},
        {"temperature": 1.2, "top_k": 9, "top_p": 0.7},
    ]
    return {**kinds[number % 5], "seed": int(rng.integers(1000))}


@pytest.mark.parametrize("model", ["fox", "torch", "step"])
def test_texts_do_not_depend_on_others(
    server: Served, run: zoo.Run, file: Path, model: str
) -> None:
    """Forty at a time, of which some leave: each text is that of its request alone."""
    rng = np.random.default_rng(0)
    alphabet = list("the quick brown fox jumps. ")
    asked = [
        {
            "prompt": "".join(rng.choice(alphabet, 700 if number % 8 == 0 else 1 + number)),
            "max_tokens": int(rng.integers(1, 120)),
            **settings_of(rng, number),
        }
        for number in range(40)
    ]

    async def one(client: httpx.AsyncClient, number: int) -> str | None:
        given = {"model": model, **asked[number], "stream": number % 2 == 0}
        if number % 7 == 3:  # leaves after a while, or at once
            given |= {"max_tokens": 10_000, "stream": number % 2 == 1}
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01 * number):
                    await client.post("/v1/completions", json=given)
            return None
        if not given["stream"]:
            answer = await client.post("/v1/completions", json=given)
            return str(answer.raise_for_status().json()["choices"][0]["text"])
        text = ""
        async with client.stream("POST", "/v1/completions", json=given) as answer:
            async for line in answer.aiter_lines():
                if line and line != "data: [DONE]":
                    text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
        return text

    async def all_of_them() -> list[str | None]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
            return await asyncio.gather(*[one(client, number) for number in range(40)])

    source = {"fox": file, "torch": run.path, "step": file / "step.onnx"}[model]
    opened = zoo.open_source(source)
    for given, text in zip(asked, asyncio.run(all_of_them()), strict=True):
        if text is not None:
            alone = dict(given)
            prompt, length = alone.pop("prompt"), alone.pop("max_tokens")
            assert prompt + text == zoo.generate(opened, prompt, length, **alone)
