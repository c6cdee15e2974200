"""Sessions: independent streams that share the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.config import ModelConfig
from zoo.errors import NoStepError, UsageError, ZooError
from zoo.inference.snapshot import first_snapshot, read_snapshot, write_snapshot
from zoo.models.torch_engine import ModelStepper
from zoo.nn.state import from_safetensors, reset_rows, select_rows, to_safetensors


@pytest.fixture(params=["PyTorch", "ONNX Runtime"])
def source(request: pytest.FixtureRequest, trained: object) -> zoo.inference.Source:
    run = trained("lstm", layers=2)
    path = run.path if request.param == "PyTorch" else zoo.export(run).path
    return zoo.open_source(path)


HOT = {"temperature": 0.9, "top_k": 12}


def test_feed_and_sample_equal_generate(source: zoo.inference.Source) -> None:
    session = zoo.Session(source, seed=4)
    session.feed("the quick ")
    assert session.sample(200, **HOT) == zoo.generate(
        source, "the quick ", length=200, seed=4, **HOT
    ).removeprefix("the quick ")


def test_interleaved_sessions_are_independent(source: zoo.inference.Source) -> None:
    alone = []
    for seed, prompt in ((1, "the dog "), (2, "fox "), (3, "lazy")):
        session = zoo.Session(source, seed=seed)
        session.feed(prompt)
        first = session.sample(40, **HOT)
        session.feed(" and ")
        alone.append(first + session.sample(40, **HOT))
    together = [zoo.Session(source, seed=seed) for seed in (1, 2, 3)]
    texts = ["", "", ""]
    for session, prompt in zip(together, ("the dog ", "fox ", "lazy"), strict=True):
        session.feed(prompt)
    for half in range(2):
        streams = [session.stream(40, **HOT) for session in together]
        for pieces in zip(*streams, strict=True):
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        if half == 0:
            for session in together:
                session.feed(" and ")
    assert texts == alone


def test_a_snapshot_restores_and_a_fork_is_independent(source: zoo.inference.Source) -> None:
    session = zoo.Session(source, seed=5)
    session.feed("the ")
    session.sample(17, **HOT)
    kept = session.snapshot()
    twin = session.fork()
    first = session.sample(50, **HOT)
    assert twin.sample(50, **HOT) == first
    twin.feed("other")
    session.restore(kept)
    assert session.sample(50, **HOT) == first


def test_a_snapshot_moves_between_runtimes(trained: object) -> None:
    run = trained("lstm", layers=2)
    one, other = zoo.Session(run.path, seed=6), zoo.Session(zoo.export(run).path)
    one.feed("the quick brown ")
    one.sample(30, **HOT)
    other.restore(one.snapshot())
    assert other.sample(100, **HOT) == one.sample(100, **HOT)


@pytest.mark.parametrize("cell", [spec.name for spec in zoo.list_cells() if spec.causal])
def test_a_snapshot_of_any_cell_restores_its_state(cell: str) -> None:
    """Whatever the number, the names and the shapes of its leaves."""
    torch.manual_seed(0)
    model = zoo.LanguageModel(ModelConfig(cell=cell, hidden=24, layers=2), 5).eval()
    engine = ModelStepper(model)
    state = engine.read(np.array([[1], [2], [3]]), engine.init_state(1))
    kept = first_snapshot(engine, 1)._replace(state=state, last=3)
    found = read_snapshot(engine, write_snapshot(engine, kept))
    assert found.last == 3
    torch.testing.assert_close(found.state, state, rtol=0, atol=0, equal_nan=False)


def test_the_state_is_that_of_the_last_text_consumed(source: zoo.inference.Source) -> None:
    one, other = zoo.Session(source, seed=7), zoo.Session(source, seed=7)
    one.feed("the")
    other.feed("the")
    pieces = one.stream(100, **HOT)
    taken = "".join(next(pieces) for _ in range(9))
    assert taken == other.sample(9, **HOT)
    assert one.snapshot() == other.snapshot()


def text_as_array(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def test_a_session_refuses_invalid_calls(source: zoo.inference.Source, trained: object) -> None:
    session = zoo.Session(source)
    with pytest.raises(UsageError, match="feed some text before sampling"):
        session.sample(3)
    with pytest.raises(UsageError, match="the prompt is empty"):
        session.feed("")
    session.feed("the")
    with pytest.raises(UsageError, match="at least 0"):
        session.sample(-1)
    before = session.snapshot()
    with pytest.raises(ZooError, match="the snapshot is damaged"):
        session.restore(before[:-3])
    other = zoo.Session(trained("rnn").path)
    other.feed("the")
    with pytest.raises(ZooError, match="the snapshot is of another model"):
        session.restore(other.snapshot())
    from safetensors.numpy import load, save

    whole = load(before)
    state_name = next(name for name in whole if name.startswith("layer0"))
    for name, array, message in (
        ("last_token", np.array([1000]), "its last token is not in this one's"),
        ("last_token", np.array([np.inf]), "its last token is not in this one's"),
        (state_name, np.full_like(whole[state_name], np.nan), "numbers that are not finite"),
        ("random", text_as_array("[" * 100_000), "the snapshot is damaged: RecursionError"),
        ("random", text_as_array(whole["random"].tobytes().decode().replace(
            '"has_uint32": ', f'"has_uint32": {2**40}')), "the snapshot is damaged: Overflow"),
    ):  # fmt: skip
        assert name in whole
        with pytest.raises(ZooError, match=message):
            session.restore(save({**whole, name: array}))
    assert session.snapshot() == before
    with pytest.raises(NoStepError, match="is not causal: it has no step"):
        zoo.Session(trained("bidirectional", epochs=1).path)


def test_rows_of_a_state_are_selected_and_reset(trained: object) -> None:
    model = trained("lstm", layers=2).model.eval()
    with torch.no_grad():
        tokens = torch.arange(12).view(3, 4)
        _, state = model(tokens)
        picked = select_rows(state, [2, 0, 2])
        following, _ = model(torch.tensor([[5, 6, 7]]), picked)
        wanted, _ = model(torch.tensor([[6, 1, 5, 1]]), state)
        torch.testing.assert_close(following[0, 0], wanted[0, 2], rtol=0, atol=1e-6)

        fresh = reset_rows(state, [1, 3], model.init_state(4))
        after, _ = model(torch.tensor([[8, 8, 8, 8]]), fresh)
        anew, _ = model(torch.tensor([[8]]))
        kept, _ = model(torch.tensor([[8, 8, 8, 8]]), state)
        for row, reference in ((1, anew[0, 0]), (3, anew[0, 0]), (0, kept[0, 0]), (2, kept[0, 2])):
            torch.testing.assert_close(after[0, row], reference, rtol=0, atol=1e-6)


def test_a_state_converts_to_safetensors_and_back(trained: object, tmp_path: Path) -> None:
    model = trained("lstm", layers=2).model.eval()
    with torch.no_grad():
        _, state = model(torch.arange(12).view(3, 4))
    (tmp_path / "state").write_bytes(to_safetensors(state))
    again = from_safetensors(model.init_state(1), (tmp_path / "state").read_bytes())
    assert type(again[1]) is type(state[1])
    for one, other in zip(state, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    with pytest.raises(ZooError, match="of another model"):
        from_safetensors(trained("rnn").model.init_state(1), to_safetensors(state))
    uneven = (state[0], state[1]._replace(c=state[1].c[:2]))
    without_rows = (state[0], state[1]._replace(c=torch.tensor(1.0)))
    for wrong in (uneven, without_rows):
        with pytest.raises(ZooError, match="of another model"):
            from_safetensors(model.init_state(1), to_safetensors(wrong))
    with pytest.raises(ZooError, match="the saved state is damaged"):
        from_safetensors(model.init_state(1), b"nonsense")


def test_sessions_need_no_torch(trained: object) -> None:
    import subprocess
    import sys

    path = zoo.export(trained("rnn")).path
    code = (
        "import sys, zoo\n"
        f"session = zoo.Session({str(path)!r}); session.feed('the'); session.sample(3)\n"
        "session.restore(session.snapshot())\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
