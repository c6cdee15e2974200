"""zoo train"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.settings import ListingOption, RegisteredOption, parse_pairs, settings_options
from zoo.config import setting_fields

if TYPE_CHECKING:
    from zoo.registry.registry import Registry

FIELDS = {
    name: field for name, field in setting_fields().items() if name not in ("corpus", "options")
}


class RecipeOption(ListingOption):
    """Its help lists the registered recipes and their titles."""

    def listing(self, registry: Registry) -> str:
        from zoo.recipes import list_recipes

        return "; ".join(f"{name} ({title})" for name, title in list_recipes(registry).items())


@click.command()
@click.argument("corpora", metavar="[CORPUS]...", nargs=-1)
@settings_options(FIELDS)
@click.option(
    "--option", "pairs", multiple=True, metavar="K=V", help="Option of the cell; `zoo show CELL`."
)
@click.option("--recipe", cls=RecipeOption, metavar="NAME",
              help="Begin from a recipe: a .toml file, or one of")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; else one under runs/.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the --out folder.")
@click.option("--from", "from_run", metavar="RUN",
              help="Begin with the weights, tokenizer and sizes of another run.")  # fmt: skip
@click.option("--extend-vocabulary", is_flag=True,
              help="With --from, give tokens to characters that are new.")  # fmt: skip
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the run in the --out folder; --epochs or --minutes give it a new budget.",
)
@click.option("--log", multiple=True, cls=RegisteredOption, table="loggers", metavar="NAME",
              help="Logger to use beside the run folder; may be given again")  # fmt: skip
def command(
    corpora: tuple[str, ...],
    pairs: tuple[str, ...],
    recipe: str | None,
    out: Path | None,
    overwrite: bool,
    from_run: str | None,
    extend_vocabulary: bool,
    resume: bool,
    log: tuple[str, ...],
    **settings: Any,
) -> None:
    """Train a model on CORPUS: a name from `zoo corpora`, a file, a folder, a pattern of files, a
    URL, hf:NAME for a dataset of the Hub, - for standard input, or several of them; or task:NAME
    for a task of `zoo tasks`.

    Files may be text, JSON lines or Parquet, compressed or not. Without CORPUS it is the recipe's,
    or python-docs.
    """
    from zoo.cli import STARTED
    from zoo.cli.progress import show
    from zoo.training.experiment import resume_events, train_events

    if resume:
        budget = {name: settings.pop(name) for name in ("epochs", "minutes")}
        given = [name for name, value in settings.items() if value is not None]
        if corpora or pairs or recipe or overwrite or from_run or extend_vocabulary or given:
            raise click.UsageError(
                "--resume takes every setting from the run; give only --out, and --epochs or "
                "--minutes to prolong it."
            )
        if out is None:
            raise click.UsageError("--resume needs the run's folder; give it as --out.")
        events = resume_events(out, log=log, **budget)
    else:
        if pairs:
            settings["options"] = parse_pairs(pairs)
        corpus = corpora if len(corpora) > 1 else corpora[0] if corpora else None
        events = train_events(
            corpus,
            recipe=recipe,
            from_run=from_run,
            extend_vocabulary=extend_vocabulary,
            out=out,
            overwrite=overwrite,
            log=log,
            began=STARTED,
            **settings,
        )
    with closing(events):  # type: ignore[type-var]
        show(events, log)
