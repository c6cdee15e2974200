"""The command line: one file per verb, each imported when it is needed."""

from __future__ import annotations

import ast
import os
import pkgutil
import sys
import time
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from zoo.errors import ZooError, ZooWarning, is_out_of_memory, one_line

VERBS = (
    "cells",
    "show",
    "plugins",
    "corpora",
    "tasks",
    "tokenize",
    "train",
    "sweep",
    "runs",
    "compare",
    "rank",
    "generate",
    "serve",
    "score",
    "fill",
    "export",
    "export-module",
    "verify",
    "bench",
    "check",
    "new",
    "doctor",
    "demo",
)
INTERRUPTED = 130
STARTED = time.monotonic()  # the command: nearly all of a start is spent after this


class Verbs(click.Group):
    """Finds the verb `a-verb` as `zoo.cli.a_verb.command`. The list of verbs in `zoo --help`
    imports none of them: what they import would take most of its time."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = import_module(f"zoo.cli.{_file(name)}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(name)) for name in VERBS])


def _file(verb: str) -> str:
    return verb.replace("-", "_")


def _first_sentence(verb: str) -> str:
    """The first sentence of the docstring of a verb's `command`, read from its source."""
    tree = ast.parse(pkgutil.get_data("zoo.cli", f"{_file(verb)}.py") or b"")
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    command = next(function for function in functions if function.name == "command")
    text = ast.get_docstring(command) or ""
    return text.partition("\n\n")[0].replace("\n", " ").partition(". ")[0].removesuffix(".") + "."


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="recurrent-zoo", prog_name="zoo")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks of errors.")
def cli() -> None:
    """Recurrent cells as plugins: train them, export them to ONNX, generate with ONNX Runtime."""


def run(arguments: Sequence[str]) -> int:
    """Runs a command line and returns the exit code: 0 done, 1 the work failed, 2 wrong usage,
    130 interrupted."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    with warnings.catch_warnings():
        warnings.simplefilter("default" if debug else "ignore")
        warnings.simplefilter("always", ZooWarning)
        warnings.showwarning = _show_warning
        try:
            result = cli.main(list(arguments), prog_name="zoo", standalone_mode=False)
            return result if isinstance(result, int) else 0
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
        except BrokenPipeError:
            # the reader of our output has gone; nothing more is to be written at exit either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if debug:
                raise
            message, code = _explain(error)
            print(f"zoo: error: {message}", file=sys.stderr)
            return code


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, ZooError):
        return str(error), error.exit_code
    if isinstance(error, click.ClickException):
        asked = (
            error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "zoo"
        )
        return f"{error.format_message().rstrip('.')} (see `{asked} --help`).", error.exit_code
    if is_out_of_memory(error):
        return "out of memory; lower --hidden, --layers, --batch-size or --steps.", 1
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}", 1
    if (told := _told_of_a_plugin(error)) is not None:
        return told, 1
    return f"{type(error).__name__}: {one_line(error)} (a bug; --debug shows where)", 1


def _told_of_a_plugin(error: Exception) -> str | None:
    """The error with plugin, file and line, if it comes from a plugin's code."""
    from zoo.registry.attribution import describe_failure, find_author
    from zoo.registry.registry import load_registry

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a plugin that fails has been told of before
        registry = load_registry()
    return describe_failure(error, registry) if find_author(error, registry) else None


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"zoo: warning: {message}", file=sys.stderr)


def main() -> NoReturn:
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):
            output.reconfigure(errors="replace")  # a terminal that cannot show a character
    sys.exit(run(sys.argv[1:]))
