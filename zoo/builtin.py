"""What the zoo supplies itself, through the hooks that every plugin uses. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from zoo.registry.hookspecs import hookimpl
from zoo.registry.specs import (
    CorpusSpec,
    LoggerSpec,
    OptimizerSpec,
    RecipeSpec,
    RuntimeSpec,
    ScheduleSpec,
    TokenizerSpec,
)


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
def zoo_tokenizers() -> Iterable[TokenizerSpec]:
    module = "zoo.data.tokenizers"
    return [
        TokenizerSpec("letters", f"{module}:LettersTokenizer", "a to z and space, in lower case"),
        TokenizerSpec("char", f"{module}:CharTokenizer", "characters"),
        TokenizerSpec("byte", f"{module}:ByteTokenizer", "the bytes of UTF-8"),
        TokenizerSpec("bpe", f"{module}:BPETokenizer", "subwords by byte pair encoding"),
    ]


@hookimpl
def zoo_optimizers() -> Iterable[OptimizerSpec]:
    module = "zoo.training.optimizers"
    return [
        OptimizerSpec("adamw", f"{module}:adamw", "AdamW"),
        OptimizerSpec("sgd", f"{module}:sgd", "stochastic gradient descent"),
        OptimizerSpec("muon", f"{module}:muon", "Muon for recurrent matrices, AdamW for the rest"),
    ]


@hookimpl
def zoo_schedules() -> Iterable[ScheduleSpec]:
    module = "zoo.training.schedules"
    return [
        ScheduleSpec("cosine", f"{module}:cosine", "half a cosine wave, down to 0"),
        ScheduleSpec("constant", f"{module}:constant", "no decay"),
    ]


@hookimpl
def zoo_recipes() -> Iterable[RecipeSpec]:
    folder = Path(__file__).with_name("recipes")  # the package would import what checks recipes
    return [RecipeSpec(path.stem, "zoo.recipes") for path in sorted(folder.glob("*.toml"))]


@hookimpl
def zoo_loggers() -> Iterable[LoggerSpec]:
    return [
        LoggerSpec(
            "tensorboard",
            "zoo.training.loggers.tensorboard:write_tensorboard",
            "event files in the run's folder tensorboard",
        ),
        LoggerSpec(
            "mlflow",
            "zoo.training.loggers.mlflow:write_mlflow",
            "a run of the tracking server that MLFLOW_TRACKING_URI names, or of ./mlflow.db",
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
