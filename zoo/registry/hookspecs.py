"""Every hook of the zoo. A plugin is a module with any of these functions, marked `@zoo.hookimpl`,
and an entry point in the group `zoo` that names the module."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from zoo.registry.cell_spec import CellSpec
    from zoo.registry.specs import (
        CorpusSpec,
        ExporterSpec,
        LoggerSpec,
        OptimizerSpec,
        PackageSpec,
        RecipeSpec,
        RuntimeSpec,
        ScheduleSpec,
        TokenizerSpec,
    )
    from zoo.registry.task_spec import TaskSpec

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


@hookspec
def zoo_cells() -> Iterable[CellSpec]:  # type: ignore[empty-body]
    """The recurrent cells that this plugin supplies."""


@hookspec
def zoo_corpora() -> Iterable[CorpusSpec]:  # type: ignore[empty-body]
    """The named texts that this plugin can load."""


@hookspec
def zoo_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]
    """The tasks that this plugin can draw batches of."""


@hookspec
def zoo_tokenizers() -> Iterable[TokenizerSpec]:  # type: ignore[empty-body]
    """The tokenizers that this plugin supplies."""


@hookspec
def zoo_optimizers() -> Iterable[OptimizerSpec]:  # type: ignore[empty-body]
    """The optimizers that this plugin supplies."""


@hookspec
def zoo_schedules() -> Iterable[ScheduleSpec]:  # type: ignore[empty-body]
    """The learning-rate schedules that this plugin supplies."""


@hookspec
def zoo_recipes() -> Iterable[RecipeSpec]:  # type: ignore[empty-body]
    """The named experiments that this plugin supplies."""


@hookspec
def zoo_loggers() -> Iterable[LoggerSpec]:  # type: ignore[empty-body]
    """The loggers of training that this plugin supplies."""


@hookspec
def zoo_exporters() -> Iterable[ExporterSpec]:  # type: ignore[empty-body]
    """The formats that this plugin can write a trained model in."""


@hookspec
def zoo_packages() -> Iterable[PackageSpec]:  # type: ignore[empty-body]
    """The folders that this plugin can make of a model's exported files."""


@hookspec
def zoo_runtimes() -> Iterable[RuntimeSpec]:  # type: ignore[empty-body]
    """The runtimes with which this plugin can run an exported file."""
