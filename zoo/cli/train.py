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
@click.argument("corpus", required=False)
@settings_options(FIELDS)
@click.option(
    "--option", "pairs", multiple=True, metavar="K=V", help="Option of the cell; `zoo show CELL`."
)
@click.option("--recipe", cls=RecipeOption, metavar="NAME",
              help="Begin from a recipe: a .toml file, or one of")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; else one under runs/.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the --out folder.")
@click.option("--resume", is_flag=True, help="Continue the run in the --out folder.")
@click.option("--log", multiple=True, cls=RegisteredOption, table="loggers", metavar="NAME",
              help="Logger to use beside the run folder; may be given again")  # fmt: skip
def command(
    corpus: str | None,
    pairs: tuple[str, ...],
    recipe: str | None,
    out: Path | None,
    overwrite: bool,
    resume: bool,
    log: tuple[str, ...],
    **settings: Any,
) -> None:
    """Train a model on CORPUS: a name from `zoo corpora`, a text file, or - for standard input.

    Without CORPUS it is the recipe's, or python-docs.
    """
    from zoo.cli.progress import show
    from zoo.training.experiment import resume_events, train_events

    if resume:
        given = [name for name, value in settings.items() if value is not None]
        if corpus or pairs or recipe or overwrite or given:
            raise click.UsageError("--resume takes every setting from the run; give only --out.")
        if out is None:
            raise click.UsageError("--resume needs the run's folder; give it as --out.")
        events = resume_events(out, log=log)
    else:
        if pairs:
            settings["options"] = parse_pairs(pairs)
        events = train_events(
            corpus, recipe=recipe, out=out, overwrite=overwrite, log=log, **settings
        )
    with closing(events):  # type: ignore[type-var]
        show(events, log)
