"""How the documentation is built: sphinx-build -W -n -b html docs OUT

What the code declares is read from the code: docstrings by autodoc, the command line from click,
the settings from their pydantic models. The build fails when something public is left out.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic_core import PydanticUndefined

import zoo
from zoo.cli import VERBS, cli
from zoo.config import DataConfig, ModelConfig, TrainConfig
from zoo.inference.artifact import ArtifactInfo
from zoo.validation import describe_type

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from catalogue import catalogue, leaderboard, tasks, write_built_files  # noqa: E402

project = "Recurrent zoo"
author = "the recurrent zoo's authors"
html_title = "Recurrent zoo"
html_theme = "furo"
html_static_path = ["_static"]
html_copy_source = False
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples/node/node_modules"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

highlight_language = "text"
default_role = "literal"  # in docstrings, `x` is code
smartquotes = False  # --flags and "quotes" are meant as they stand
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# NumPy's arrays by the names that the code gives them
autodoc_type_aliases = {
    alias: alias for alias in ("Ids", "Logits", "Uniform", "Arrays", "State", "npt.ArrayLike")
}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# Types of other libraries, and the zoo's internal ones that have no entry of their own.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|np|npt|pydantic|pluggy|collections|pathlib|typing)(\..*)?"),
    (r"py:.*", r"(Path|Tensor|Module|nn\.Module|Any|Iterable|Iterator|Sequence|Mapping|Literal.*)"),
    (r"py:.*", r"(Ids|Logits|Uniform|Arrays|State|Threads|Tree|Tokenizer|SerializeAsAny)"),
    (r"py:.*", r"(ModelConfig|Interface|StateEntry|TrainingFacts|Field|Range|Part|Array)"),
    (r"py:.*", r"zoo(\.\w+){2,}"),
    (r"py:.*", r"(int|float|str|bool|bytes|dict|list|tuple|object|None|Exception|UserWarning)"),
    (r"py:.*", r"(\.\.\.|ellipsis)"),
]


def command_line() -> str:
    """Every verb with its options, in Markdown, as click knows them."""
    with click.Context(cli, info_name="zoo", **cli.context_settings) as root:
        parts = [_options_of(cli, root)]
        for verb in VERBS:
            command = cli.get_command(root, verb)
            assert command is not None
            parts += _description(command, verb, root, level=2)
    return "\n\n".join(parts)


def _description(
    command: click.Command, name: str, parent: click.Context, level: int
) -> Iterator[str]:
    """A verb with its options, and after it its subcommands."""
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"{'#' * level} {context.command_path}"
    yield f"```text\n{usage}\n```"
    yield _plain(inspect.cleandoc(command.help or ""))
    yield _options_of(command, context)
    if isinstance(command, click.Group):
        for verb, subcommand in command.commands.items():
            yield from _description(subcommand, verb, context, level + 1)


def _options_of(command: click.Command, context: click.Context) -> str:
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    return "\n\n".join(
        f"`{flag}`\n: {_plain(text)}" for flag, text in filter(None, records) if text
    )


def _plain(text: str) -> str:
    """Text in which only backticks mean something to Markdown."""
    pieces = re.split(r"(`[^`]*`)", re.sub(r"  +", " ", text))
    return "".join(
        piece if piece.startswith("`") else re.sub(r"([*_<\[\]])", r"\\\1", piece)
        for piece in pieces
    )


def settings() -> str:
    """The settings of a run, a table for each section of config.json."""
    parts = []
    for section, model in (("data", DataConfig), ("model", ModelConfig), ("training", TrainConfig)):
        lines = ["| name | type and bounds | default | meaning |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            kinds = [describe_type(field.annotation), *_bounds(field.metadata)]
            kind = ", ".join(kinds).replace("|", "or").replace("ByteSize", "bytes")
            default = "" if field.default in (None, PydanticUndefined) else f"`{field.default}`"
            lines.append(f"| `{name}` | {kind} | {default} | {_plain(field.description or '')} |")
        parts += [
            f"### `{section}`",
            _plain(inspect.cleandoc(model.__doc__ or "")),
            "\n".join(lines),
        ]
    return "\n\n".join(parts)


def _bounds(metadata: list) -> list[str]:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return [
        f"{sign} {getattr(note, key)}"
        for note in metadata
        for key, sign in signs.items()
        if getattr(note, key, None) is not None
    ]


def other_names() -> str:
    """The public names that no page describes by hand, so that none can be forgotten."""
    pages = "".join(page.read_text("utf-8") for page in (HERE / "reference").glob("*.md"))
    documented = [name for name in zoo.__all__ if name != "nn"]  # a package of its own
    missing = [name for name in documented if not re.search(rf":: {name}\b", pages)]
    if not missing:
        return ""
    blocks = [
        f".. autoclass:: {name}\n   :members:"
        if isinstance(getattr(zoo, name), type)
        else f".. autofunction:: {name}"
        for name in missing
    ]
    body = "\n\n".join([".. currentmodule:: zoo", *blocks])
    return f"## Other names\n\n```{{eval-rst}}\n{body}\n```"


GENERATED = {
    "<!-- cells -->": catalogue,
    "<!-- leaderboard -->": leaderboard,
    "<!-- tasks -->": tasks,
    "<!-- command line -->": command_line,
    "<!-- settings -->": settings,
    "<!-- other names -->": other_names,
}


def fill_in(app, docname, source):
    for marker, make in GENERATED.items():
        if marker in source[0]:
            source[0] = source[0].replace(marker, make())
    if docname == "reference/artifact":
        missing = [f for f in [*ArtifactInfo.model_fields, "cell"] if f"`zoo.{f}`" not in source[0]]
        if missing:
            raise RuntimeError(f"{docname} leaves out the metadata entries {missing}")


def tidy_docstring(app, what, name, obj, options, lines):
    """An indented block after a colon is code; a star or a bar in a docstring is itself."""
    for index, line in enumerate(lines):
        following = lines[index + 1 : index + 3]
        opens = len(following) == 2 and not following[0] and following[1].startswith(" ")
        if line.endswith(":") and not line.endswith("::") and opens:
            lines[index] = line + ":"
        elif not line.startswith(" "):
            pieces = re.split(r"(`[^`]*`)", line)
            lines[index] = "".join(
                piece if piece.startswith("`") else re.sub(r"([*|])", r"\\\1", piece)
                for piece in pieces
            )


def name_aliases(app, what, name, obj, options, signature, returns):
    """An alias within another type is a name, too."""
    alias = r"TypeAliasForwardRef\('([\w.]+)'\)"
    return tuple(part and re.sub(alias, r"\1", part) for part in (signature, returns))


def resolve_public_name(app, env, node, contnode):
    """`zoo.registry.CellSpec` is documented as `zoo.CellSpec`, where readers import it from."""
    name = node.get("reftarget", "").rpartition(".")[2]
    if node.get("refdomain") != "py" or not name[:1].isupper():
        return None
    domain = env.get_domain("py")
    ends_alike = sorted(full for full in domain.objects if full.endswith(f".{name}"))
    for full_name in [f"zoo.{name}", *ends_alike]:
        if full_name in domain.objects:
            return domain.resolve_xref(
                env, node["refdoc"], app.builder, "obj", full_name, node, contnode
            )
    return None


def require_all_public(app, env):
    documented = env.get_domain("py").objects
    hooks = [name for name in vars(zoo.registry.hookspecs) if name.startswith("zoo_")]
    wanted = [f"zoo.{name}" for name in zoo.__all__ if name != "nn"] + [
        f"zoo.registry.hookspecs.{name}" for name in hooks
    ]
    if missing := [name for name in wanted if name not in documented]:
        raise RuntimeError(f"public, and not in the reference: {', '.join(missing)}")


def setup(app):
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-docstring", tidy_docstring)
    app.connect("autodoc-process-signature", name_aliases)
    app.connect("missing-reference", resolve_public_name)
    app.connect("env-check-consistency", require_all_public)
    app.connect("build-finished", write_built_files)
    app.add_css_file("equations.css")
