"""A model's step through torch.compile, measured in a process of its own: a compiler that takes too
long can then be ended, wherever it is.

The process is this module, started as a program. It reads a pickled model, target and batch size
from standard input, then a number of seconds on each line, and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch

from zoo.benchmarking.roofline import Target
from zoo.data.tokenizer import Ids
from zoo.errors import one_line
from zoo.inference.engine import Logits
from zoo.inference.throughput import measure_throughput, writing
from zoo.models.device import choose_device
from zoo.models.language_model import LanguageModel
from zoo.models.torch_engine import ModelStepper

START_SECONDS = 60.0  # most that the process may take to start, beside the time to compile


class CompileError(Exception):
    """The step does not compile, or not in time."""


class CompiledStepper(ModelStepper):
    """A ModelStepper whose step is translated by torch.compile, for each batch size."""

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        return torch.compile(self.model.step, fullgraph=True, dynamic=False)

    def step(self, tokens: Ids, state: tuple[Any, ...]) -> tuple[Logits, tuple[Any, ...]]:
        with torch.inference_mode():
            logits, state = self._compiled(torch.from_numpy(tokens).to(self._device), state)
            return logits.cpu().numpy(), state


class CompiledProcess:
    """A process that compiles and runs the model's step. CompileError from the constructor if it
    does not compile within `seconds`."""

    def __init__(self, model: LanguageModel, target: Target, batch: int, seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "zoo.benchmarking.compiled"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self._send(pickle.dumps((model, target, batch)))
            self._answer(START_SECONDS)
            self._answer(seconds)
        except BaseException:
            self.close()
            raise

    def measure(self, seconds: float) -> float:
        """Tokens per second, over at least so many seconds."""
        self._send(f"{seconds}\n".encode())
        return float(self._answer(seconds + START_SECONDS))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def _send(self, content: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(content)
            self._process.stdin.flush()
        except OSError:
            raise CompileError("its process ended") from None

    def _answer(self, seconds: float) -> Any:
        try:
            answer = json.loads(self._answers.get(timeout=seconds) or b'{"error": "it ended"}')
        except queue.Empty:
            raise CompileError(f"not within {seconds:g} seconds") from None
        if "error" in answer:
            raise CompileError(answer["error"])
        return answer["value"]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(b"")


def serve() -> None:
    """What the process does. Whatever the compiler prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        model, target, batch = pickle.load(sys.stdin.buffer)
        if target.threads is not None:
            torch.set_num_threads(target.threads)
        run = writing(CompiledStepper(model.to(choose_device(target.provider))), batch)
        answer(value="compiling")
        # without allow_rnn it refuses any model that holds a torch.nn layer, used or not
        with torch._dynamo.config.patch(allow_rnn=True):
            run()
        answer(value="compiled")
        for seconds in sys.stdin.buffer:
            answer(value=measure_throughput(run, float(seconds), target.synchronize))
    except Exception as error:  # there is much that a compiler may stumble over
        answer(error=one_line(error))


if __name__ == "__main__":
    serve()
