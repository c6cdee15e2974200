"""What the zoo supplies itself, through the hooks that every plugin uses. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.registry.hookspecs import hookimpl
from zoo.registry.specs import CorpusSpec, RuntimeSpec


@hookimpl
def zoo_corpora() -> Iterable[CorpusSpec]:
    return [
        CorpusSpec(
            name="python-docs",
            factory="zoo.data.corpora:python_docs",
            title="The Python language reference, as every CPython carries it for help()",
            tokenizer="char",
            prompt="The statement ",
            licence="PSF-2.0",
        ),
        CorpusSpec(
            name="time-machine",
            factory="zoo.data.corpora:time_machine",
            title="H. G. Wells, The Time Machine, prepared as in Dive into Deep Learning",
            tokenizer="letters",
            prompt="time traveller",
            licence="public domain",
        ),
    ]


@hookimpl
def zoo_runtimes() -> Iterable[RuntimeSpec]:
    return [
        RuntimeSpec(
            name="pytorch",
            factory="zoo.runs.runtime:PyTorchRuntime",
            title="run folders in PyTorch",
            files="config.json",
        )
    ]
