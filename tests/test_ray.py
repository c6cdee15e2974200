"""The server and bulk generation on a Ray cluster: two CPUs of this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import zoo
from zoo.cli import run as zoo_command
from zoo.errors import RunError, UsageError
from zoo.exporting.export import export_all
from zoo.inference.bulk import checked_settings, continue_records, generate_lines
from zoo.inference.bulk_ray import ray_lines
from zoo.serving.ray_deployment import app, build, replica_app
from zoo.serving.settings import API_KEY, ServeConfig

from .conftest import SENTENCE

SAMPLING = {"temperature": 0.8}
KEY = "the key of this test"
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
on_a_cluster = [
    needs_ray,
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),  # Ray's own
]


def test_nothing_imports_ray_before_it_is_asked_for() -> None:
    program = (
        "import sys, zoo.cli.generate, zoo.inference.bulk_files, zoo.serving.ray_deployment\n"
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_without_ray_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fox_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'recurrent-zoo\[ray\]'"):
        app(["m"], ServeConfig(state=str(tmp_path)))
    assert bulk(fox_file, "local") == 2
    assert "pip install 'recurrent-zoo[ray]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("out*")] == []


def bulk(source: Path, address: str) -> int:
    """What the command exits with."""
    Path("in.jsonl").write_text('{"prompt": "the "}\n')
    given = ["generate", str(source), "--prompts", "in.jsonl", "--out", "out.jsonl"]
    return zoo_command([*given, "--ray", address])


@needs_ray
def test_nothing_is_written_where_no_cluster_answers(
    fox_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert bulk(fox_file, address) == 1
    assert f"no Ray cluster answers at '{address}'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("out*")] == []


def test_replicas_need_a_folder_for_their_streams() -> None:
    with pytest.raises(UsageError, match="state"):
        app(["m"], ServeConfig())


def test_a_replica_refuses_another_folder_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / ".cluster").write_text("another")
    with pytest.raises(RunError, match="not the folder of the other machines"):
        replica_app(["m"], ServeConfig(state=str(tmp_path)), "auto", "the first")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two CPUs that only those with its token can use; none of its processes is left
    afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else it is kept in the home folder
        import ray
        from ray import cloudpickle

        before = psutil.Process().children(recursive=True)
        folder = tempfile.mkdtemp(prefix="zoo-ray-")  # a short path: sockets are in it
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        try:
            ray.init(
                num_cpus=2,
                object_store_memory=80_000_000,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
            )
            yield ray
        finally:
            cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
            processes = {*psutil.Process().children(recursive=True)} - {*before}
            ray.shutdown()
            # a worker that was just started looks for its cluster for up to a minute
            _, alive = psutil.wait_procs(processes, timeout=90)
            shutil.rmtree(folder, ignore_errors=True)
        assert not alive


@pytest.fixture(scope="module")
def exported(fox_run: zoo.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export_all(fox_run, out=folder)
    return folder


PROMPTS = [
    {"prompt": SENTENCE[start : start + 9], "length": 5 + 7 * start % 40, "id": start}
    for start in range(30)
] + [{"prompt": ""}, {"text": "no prompt"}]


@pytest.fixture(scope="class")
def expected(exported: Path) -> list[dict[str, Any]]:
    """Of one process, in order."""
    found = generate_lines(exported, PROMPTS, length=20, temperature=0.8, seed=3, batch_size=8)
    return sorted(found, key=lambda result: result["line"])


def results(exported: Path, work: Callable[..., Any], **options: Any) -> list[Any]:
    records = enumerate(PROMPTS, start=1)
    return list(ray_lines(exported, records, "auto", work, **options))


class TestBulk:
    pytestmark = on_a_cluster
    defaults = checked_settings(length=20, temperature=0.8, seed=3)

    def test_two_actors_give_what_one_process_gives_in_order(
        self, cluster: Any, exported: Path, expected: list[Any]
    ) -> None:
        work = partial(_named_work, defaults=self.defaults)
        found = results(exported, work, block_size=3)
        assert len({result.pop("process") for result in found} - {os.getpid()}) == 2
        assert found == expected

    def test_a_block_of_a_lost_process_is_worked_on_again(
        self, cluster: Any, exported: Path, expected: list[Any], tmp_path: Path
    ) -> None:
        work = partial(_work_that_is_killed, defaults=self.defaults, once=tmp_path / "killed")
        found = results(exported, work, actors=1, block_size=8)
        assert (tmp_path / "killed").exists()
        assert found == expected

    def test_what_is_wrong_with_a_source_is_said_as_here(
        self, cluster: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(zoo.ZooError) as here:
            zoo.open_source(tmp_path / "none")
        work = partial(continue_records, defaults=self.defaults, batch_size=8)
        with pytest.raises(zoo.ZooError) as there:
            results(tmp_path / "none", work, actors=1)
        assert str(there.value) == str(here.value)

    def test_the_command(self, cluster: Any, exported: Path, tmp_path: Path) -> None:
        (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, PROMPTS)))
        given = ["generate", str(exported), "--prompts", "in.jsonl", "--temperature", "0.8"]
        assert zoo_command([*given, "--out", "here.jsonl"]) == 0
        assert zoo_command([*given, "--out", "there.jsonl", "--ray", "auto"]) == 0
        here, there = (
            (tmp_path / name).read_text().splitlines() for name in ("here.jsonl", "there.jsonl")
        )
        assert there == sorted(here, key=lambda line: json.loads(line)["line"])


def _named_work(source: Any, records: Any, defaults: Any) -> Iterable[dict[str, Any]]:
    for result in continue_records(source, records, defaults, 8):
        yield {**result, "process": os.getpid()}


def _work_that_is_killed(source: Any, records: Any, defaults: Any, once: Path) -> Iterable[Any]:
    for count, result in enumerate(continue_records(source, records, defaults, 8)):
        yield result
        if count == 3 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="class")
def client(
    cluster: Any, exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(API_KEY, KEY)  # which the processes of the cluster do not have
        served = build(
            {
                "sources": [f"fox={exported}"],
                "config": {"state": str(state)},
                "num_replicas": 2,
                "options": {"health_check_period_s": 1},
            }
        )
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    try:
        serve.run(served)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=30,
        ) as client:
            yield client
    finally:
        serve.shutdown()


class TestServing:
    pytestmark = on_a_cluster

    def test_replicas_may_be_as_many_as_are_needed(self, exported: Path, tmp_path: Path) -> None:
        """Ray refuses both a number of replicas and a range."""
        scaling = {"min_replicas": 1, "max_replicas": 3}
        app([str(exported)], ServeConfig(state=str(tmp_path)), autoscaling_config=scaling)

    def test_a_completion_of_any_replica_is_the_text_of_generate(
        self, client: httpx.Client, exported: Path
    ) -> None:
        asked = {"model": "fox", "prompt": "the quick", "max_tokens": 40, "seed": 5, **SAMPLING}
        whole = zoo.generate(exported, "the quick", length=40, seed=5, **SAMPLING)
        replicas = set()
        while len(replicas) < 2:
            answer = client.post("/v1/completions", json=asked)
            assert "the quick" + answer.json()["choices"][0]["text"] == whole
            replicas.add(answer.headers["x-zoo-replica"])
        with client.stream("POST", "/v1/completions", json={**asked, "stream": True}) as events:
            datas = [line.removeprefix("data: ") for line in events.iter_lines() if line]
        assert datas.pop() == "[DONE]"
        assert "the quick" + "".join(json.loads(d)["choices"][0]["text"] for d in datas) == whole

    def test_the_key_holds_for_every_replica(self, client: httpx.Client) -> None:
        replicas = set()
        while len(replicas) < 2:
            answer = client.get("/v1/models", headers={"Authorization": "Bearer other"})
            assert answer.status_code == 401
            replicas.add(answer.headers["x-zoo-replica"])

    def test_interleaved_streams_go_on_whichever_replica_answers(
        self, client: httpx.Client, exported: Path
    ) -> None:
        ids = [_stream(client, seed) for seed in range(4)]
        sessions = [zoo.Session(exported, seed) for seed in range(4)]
        replicas = defaultdict(set)
        for turn in range(5):
            for id, session in zip(ids, sessions, strict=True):
                if turn in (0, 3):
                    answer = _feed(client, id, "the lazy ")
                    session.feed("the lazy ")
                else:
                    answer = _sample(client, id, 12)
                    assert answer.json()["text"] == session.sample(12, **SAMPLING)
                replicas[id].add(answer.headers["x-zoo-replica"])
        assert any(len(each) == 2 for each in replicas.values())

    def test_a_snapshot_moves_a_stream_to_another_replica(self, client: httpx.Client) -> None:
        first, second = _stream(client, 1), _stream(client, 2)
        _feed(client, first, "the quick ")
        taken = client.get(f"/v1/streams/{first}/snapshot")
        put = taken
        while put.headers["x-zoo-replica"] == taken.headers["x-zoo-replica"]:
            put = client.put(f"/v1/streams/{second}/snapshot", content=taken.content)
            assert put.status_code == 200
        one, other = _sample(client, first, 30), _sample(client, second, 30)
        assert one.json()["text"] == other.json()["text"]

    def test_streams_outlive_a_killed_replica(self, client: httpx.Client, exported: Path) -> None:
        ids = [_stream(client, seed) for seed in range(6)]
        sessions = [zoo.Session(exported, seed) for seed in range(6)]
        answered = set()
        for id, session in zip(ids, sessions, strict=True):
            answered.add(_feed(client, id, "the dog ").headers["x-zoo-replica"])
            session.feed("the dog ")
        replicas = [
            each
            for each in psutil.Process().children(recursive=True)
            if "ServeReplica" in "".join(each.cmdline())
        ]
        assert len(replicas) == 2
        replicas[0].kill()
        for id, session in zip(ids, sessions, strict=True):
            answer = _sample(client, id, 12)
            assert answer.json()["text"] == session.sample(12, **SAMPLING)
        deadline, newest = time.monotonic() + 40, answered
        while not newest - answered and time.monotonic() < deadline:  # another takes its place
            answer = client.get(f"/v1/streams/{ids[0]}")
            if answer.status_code == 200:
                newest = newest | {answer.headers["x-zoo-replica"]}
            time.sleep(0.2)
        assert newest - answered
        for id, session in zip(ids, sessions, strict=True):
            answer = _sample(client, id, 12)
            assert answer.json()["text"] == session.sample(12, **SAMPLING)


def _stream(client: httpx.Client, seed: int) -> str:
    answer = client.post("/v1/streams", json={"model": "fox", "seed": seed})
    assert answer.status_code == 201
    id: str = answer.json()["id"]
    return id


def _feed(client: httpx.Client, id: str, text: str) -> httpx.Response:
    answer = client.post(f"/v1/streams/{id}/feed", json={"text": text})
    assert answer.status_code == 200
    return answer


def _sample(client: httpx.Client, id: str, length: int) -> httpx.Response:
    """Asks again where the proxy met a replica that had just died: it says so with 500 or 503, and
    nothing has happened to the stream."""
    answer = client.post(f"/v1/streams/{id}/sample", json={"length": length, **SAMPLING})
    deadline = time.monotonic() + 20
    while answer.status_code in (500, 503) and time.monotonic() < deadline:
        time.sleep(0.2)
        answer = client.post(f"/v1/streams/{id}/sample", json={"length": length, **SAMPLING})
    assert answer.status_code == 200, answer.text
    return answer
