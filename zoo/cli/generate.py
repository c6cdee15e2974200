"""zoo generate"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.console import note
from zoo.cli.settings import provider_option, runtime_option, settings_options
from zoo.config import DEFAULT_BATCH_SIZE, DEFAULT_LENGTH, Sampling
from zoo.errors import UsageError

if TYPE_CHECKING:
    from zoo.inference.runtime import Source, Threads


class ThreadCount(click.ParamType[Any]):
    """A number of threads, or the word "measure"."""

    name = "N|measure"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "measure":
            return value
        return click.IntRange(min=1).convert(value, param, ctx)


@click.command()
@click.argument("source")
@click.option("--prompt", help="Text to continue; without it, the one of the training samples.")
@click.option(
    "--length",
    type=click.IntRange(min=0),
    default=DEFAULT_LENGTH,
    show_default=True,
    help="Tokens to generate.",
)
@settings_options(Sampling.model_fields)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed.")
@click.option("--stop", multiple=True, help="End where the text holds this; may be given again.")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    metavar="FILE.jsonl",
    help="Continue the prompt of each line, an object with 'prompt' and, if it has its own, "
    "'length', 'temperature', 'top_k', 'top_p', 'seed' and 'stop'. Without its own, the first line "
    "has --seed, and each further one the next number.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.jsonl",
    help="Of --prompts, where the results go, as each is finished; what is there already is not "
    "computed again.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help=f"Of --prompts, how many are continued together.  [default: {DEFAULT_BATCH_SIZE}]",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Of --prompts, the Ray cluster that continues them: HOST:PORT, 'auto' for the one that "
    "runs here, or 'local'.",
)
@provider_option
@runtime_option
@click.option(
    "--threads",
    type=ThreadCount(),
    help="Threads of an exported file on a CPU: a number, or 'measure' to try which is fastest; "
    "by default one for each 2 MiB of the file, and at most one for each core.",
)
def command(
    source: str,
    prompt: str | None,
    length: int,
    seed: int,
    stop: tuple[str, ...],
    prompts: Path | None,
    out: Path | None,
    batch_size: int | None,
    ray: str | None,
    provider: str,
    runtime: str | None,
    threads: Threads,
    **settings: Any,
) -> None:
    """Continue a prompt, from a run folder (PyTorch) or an exported file (its runtime).

    SOURCE may also be the folder of files exported from one run: the generate graph is taken, or
    else the step graph, and the sequence graph reads the prompt. Or it is the URL of such a file
    or folder, which is downloaded once; "URL#sha256=HEX" accepts no other content.
    The prompt and the continuation go to standard output, nothing else does. The same seed gives
    the same text from a run and from the files exported from it in full precision.
    With --prompts and --out, many prompts are continued, from a file into a file.
    """
    from zoo.inference.runtime import open_source

    given = {name: value for name, value in settings.items() if value is not None}
    if prompts is not None:
        if out is None or prompt is not None:
            raise UsageError("--prompts goes with --out FILE.jsonl, and without --prompt.")
        _generate_file(
            source, prompts, out, batch_size=batch_size or DEFAULT_BATCH_SIZE, provider=provider,
            runtime=runtime, threads=threads, length=length, seed=seed, stop=stop, ray=ray, **given,
        )  # fmt: skip
        return
    if out is not None or batch_size is not None or ray is not None:
        raise UsageError("--out, --batch-size and --ray are for --prompts FILE.jsonl.")
    opened = open_source(source, provider, runtime=runtime, threads=threads)
    print_stream(opened, prompt, length, seed=seed, stop=stop, **given)


def _generate_file(source: str, prompts: Path, out: Path, **settings: Any) -> None:
    from zoo.inference.bulk_files import generate_file

    found = generate_file(source, prompts, out, **settings)
    speed = found.tokens / found.seconds if found.tokens else 0
    note(
        f"{found.runs_on}: {found.lines:,} lines, {found.tokens:,} tokens, {speed:,.0f} per second"
    )
    if found.earlier:
        note(f"{found.earlier:,} lines were there before")
    if found.errors:
        note(f"{found.errors:,} lines have an error instead of a text")


def print_stream(
    source: Source,
    prompt: str | None,
    length: int,
    seed: int = 0,
    stop: Sequence[str] = (),
    **settings: Any,
) -> None:
    """Prints the prompt and, piece by piece, its continuation; then the speed, as a note."""
    from zoo.inference.generation import continue_prompt

    tokens = continue_prompt(source, prompt, length, Sampling.checked(**settings), seed, stop)
    count = 0

    def counted() -> Iterator[int]:  # a piece of text may be a part of a token, or several
        nonlocal count
        for token in tokens:
            count += 1
            yield token

    print(source.prompt if prompt is None else prompt, end="", flush=True)
    began = time.perf_counter()
    for piece in source.tokenizer.stream(counted()):
        print(piece, end="", flush=True)
    print(flush=True)
    seconds = time.perf_counter() - began
    note(f"{source.runs_on}: {count} tokens, {count / seconds:,.0f} per second")
