"""Every error and warning that a user can meet. Each message is one or two lines: what is wrong,
and what to do about it."""

from collections.abc import Iterable
from difflib import get_close_matches


class ZooError(Exception):
    """The work failed. The command line prints the message and exits with `exit_code`."""

    exit_code = 1


class UsageError(ZooError):
    """The request is invalid: a wrong name, value or combination."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not registered; the message lists the near ones, or else says what
    lists all, or lists them where nothing does."""

    def __init__(self, kind: str, name: str, known: Iterable[str], listed_by: str = "") -> None:
        known = list(known)
        near = near_names(name, known)
        listed = f"{listed_by} lists what there is." if listed_by else f"it has {', '.join(known)}."
        hint = f"did you mean {near}?" if near else listed
        super().__init__(f"{kind} {name!r} is not in the zoo; {hint}")


class NoStepError(UsageError):
    """A step was asked of a non-causal model or cell, which has none."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is not causal: it has no step to generate with or to export; fill masked "
            f"tokens with `zoo fill`, export its sequence graph, or train a causal cell."
        )


class NoTextError(UsageError):
    """Something that only a language model can do, of a model that was trained on a task."""

    def __init__(self) -> None:
        super().__init__(
            "this model was trained on a task and has no text; `zoo score` measures it, and "
            "`zoo export` writes its step or its sequence graph."
        )


class DuplicateNameError(ZooError):
    """Two plugins provide one name."""


class FactoryError(ZooError):
    """A plugin registers something that cannot be imported."""


class ContractError(FactoryError):
    """A cell that cannot be built, or whose methods do not take or return what `zoo.Cell` asks
    for. The message names the plugin, the method, what it returned and should, file and line."""


class CorpusError(ZooError):
    """A corpus that cannot be found, read, or trained on."""


class TokenizerError(ZooError):
    """A tokenizer's description that is damaged, or a text that it cannot take."""


class RunError(ZooError):
    """A run folder that is missing, taken, or damaged."""


class DivergedError(ZooError):
    """A training whose loss is no longer finite."""


class ArtifactError(ZooError):
    """An exported file that is not ours, is damaged, or does not fit what it is compared with."""


class ProviderError(ZooError):
    """An execution provider that was asked for and does not run here."""


class VerificationError(ZooError):
    """An exported file that does not compute what the model computes."""


class ZooWarning(UserWarning):
    """A warning to the user; the command line prints it as one line."""


class PluginWarning(ZooWarning):
    """A plugin that failed to load; everything else works."""


def require_choice(kind: str, value: str, choices: Iterable[str]) -> None:
    """UsageError, with the near ones, where `value` is not one of a closed list of words."""
    known = list(choices)
    if value not in known:
        near = near_names(str(value).lower(), known)
        hint = f"did you mean {near}?" if near else f"it is one of {', '.join(known)}."
        raise UsageError(f"{kind} {value!r} is not known; {hint}")


def near_names(name: str, known: Iterable[str]) -> str:
    """The registered names most like `name`, as "'a' or 'b'"; empty if none is similar."""
    matches = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return " or ".join(repr(match) for match in matches)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an error's message, or its type's name if it has none."""
    lines = str(error).strip().splitlines()
    return printable(lines[0])[:limit] if lines else type(error).__name__


def printable(text: str) -> str:
    """The text with escapes for what is no visible character or space: a terminal obeys some."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is exhausted: Python's, or torch's on a CPU or a GPU."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error))
    )
