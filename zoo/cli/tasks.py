"""zoo tasks"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.console import print_rows
from zoo.registry.registry import load_registry

if TYPE_CHECKING:
    from zoo.tasks.baselines import Baseline
    from zoo.tasks.named import NamedTask


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(name: str | None, as_json: bool) -> None:
    """List the tasks, or show one: its card, its options and tests, and what a model without a
    memory gets."""
    registry = load_registry()
    if name is None:
        rows = [
            {"name": spec.name, "plugin": registry.tasks.origin(spec.name).name,
             "year": spec.card.year, "title": spec.card.title}
            for spec in registry.tasks.values()
        ]  # fmt: skip
        print_rows(rows, as_json)
        return
    from zoo.tasks.baselines import measure_baselines
    from zoo.tasks.named import find_task

    named = find_task(name, registry)
    baselines = measure_baselines(named)
    if as_json:
        print(json.dumps(_exact(named, baselines), indent=2))
    else:
        print("\n".join(_lines(named, baselines, str(registry.tasks.origin(named.spec.name)))))


def _exact(named: NamedTask, baselines: list[Baseline]) -> dict[str, Any]:
    task = named.task
    return {
        "name": named.name,
        **asdict(named.spec.card),
        "interface": task.interface.model_dump(),
        "options": _options(named),
        "full": dict(named.spec.full),
        "training": dict(task.training),
        "tests": {test: dict(setting) for test, setting in task.tests.items()},
        "baselines": [baseline._asdict() for baseline in baselines],
    }


def _options(named: NamedTask) -> dict[str, Any]:
    """All options of the task, with those that were given."""
    return named.spec.options() | named.spec.parse_options(**named.options)


def _lines(named: NamedTask, baselines: list[Baseline], origin: str) -> list[str]:
    from zoo.tasks.shown import shown_sequences

    spec, card, interface = named.spec, named.spec.card, named.task.interface
    options = _options(named)
    measure = "mean squared error" if interface.gives == "numbers" else "accuracy"
    whole = " of whole sequences" if named.task.whole else ""
    width = max(map(len, ("test", *named.task.tests)))
    lines = [
        f"{named.name}: {card.title}",
        f"{card.authors} ({card.year}): {card.paper}",
        "",
        card.definition,
        card.measures,
        *(f"known: {result}" for result in card.results),
        "",
        f"{interface.inputs} {interface.reads} in, {interface.outputs} {interface.gives} out; "
        f"{measure}{whole}",
        f"options: {', '.join(f'{k}={v}' for k, v in options.items()) or 'none'}",
    ]
    if spec.full:
        full = ", ".join(f"{key}={value}" for key, value in spec.full.items())
        lines.append(f"as in the paper (task:{spec.name}:full): {full}")
    if card.package:
        lines.append(f'needs: pip install "{card.package}"')
    if card.downloads:
        lines.append("downloads its data when that is first needed")
    lines += ["", "two sequences:"]
    for inputs, wanted in shown_sequences(named, 2):
        lines += [f"    in   {inputs}", f"    out  {wanted}"]
    lines += [
        "",
        f"what is got without a memory ({measure}): the most frequent answer, that at the same "
        f"place, and by the last two inputs",
        f"    {'test':{width}}  constant  position  local",
    ]
    for test, *figures in baselines:
        shown = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
        lines.append(f"    {test:{width}}  {shown[0]:8}  {shown[1]:8}  {shown[2]}")
    return [*lines, "", f"from: {origin}"]
