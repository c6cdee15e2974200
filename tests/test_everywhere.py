"""One seed, one text: whatever asks for it, and wherever the model runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import openai
import pytest

import zoo
from zoo.exporting import Exported

from .servers import serving
from .test_native import Program, c, node
from .test_web_pages import Site, pages

__all__ = ["c", "node", "pages"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("native")]

PROMPT, LENGTH, SEED = "the quick ", 500, 2**31 + 7


@pytest.fixture(scope="module")
def files(fox_run: zoo.Run, tmp_path_factory: pytest.TempPathFactory) -> list[Exported]:
    return zoo.export_all(fox_run, out=tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.9}, {"temperature": 1.1, "top_k": 6, "top_p": 0.9}],
    ids=("greedy", "sampled", "filtered"),
)  # fmt: skip
def test_every_road_leads_to_the_same_text(
    settings: dict[str, float],
    files: list[Exported],
    fox_run: zoo.Run,
    node: Program,
    c: Program,
    pages: Site,
) -> None:
    """PyTorch says what the text is. The openai package and curl ask a server for it; Node, C and
    Chromium run the file themselves."""
    wanted = zoo.generate(fox_run.path, PROMPT, length=LENGTH, seed=SEED, **settings)
    path = next(file.path for file in files if file.info.graph == "generate")
    found = {"onnxruntime": zoo.generate(path, PROMPT, length=LENGTH, seed=SEED, **settings)}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    pairs = [word for flag in flags for word in flag.split("=")]
    given = ["--prompt", PROMPT, "--length", str(LENGTH), "--seed", str(SEED), *pairs]
    for name, program in (("node", node), ("c", c)):
        done = subprocess.run([*program, path, *given], check=True, capture_output=True)
        found[name] = done.stdout.decode().removesuffix("\n")
    shown = {"temperature": 0, **settings, "prompt": PROMPT, "length": LENGTH, "seed": SEED}
    found["chromium"] = pages.write(pages.package("everywhere", files), **shown)
    asked = {"model": "fox", "prompt": PROMPT, "max_tokens": LENGTH, "seed": SEED}
    asked |= {"temperature": 0.0, **settings, "echo": True}
    with serving(f"fox={Path(path).parent}") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
        extra = {"extra_body": {"top_k": asked.pop("top_k")}} if "top_k" in asked else {}
        found["openai"] = client.completions.create(**asked, **extra).choices[0].text
        body = json.dumps({**asked, **extra.get("extra_body", {})})
        command = ["curl", "--silent", f"{server.url}/v1/completions", "--data", body]
        answer = subprocess.run(command, check=True, capture_output=True).stdout
        found["curl"] = json.loads(answer)["choices"][0]["text"]
    assert found == dict.fromkeys(found, wanted)
