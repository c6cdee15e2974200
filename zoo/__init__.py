"""The recurrent zoo: recurrent cells as plugins, one trainer, one generator, proved export.

What needs torch is imported when it is first used: `import zoo` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError, ZooError, ZooWarning
from zoo.hookspecs import hookimpl
from zoo.registry import (
    CellSpec,
    CorpusSpec,
    ExporterSpec,
    ModelCard,
    Registry,
    RuntimeSpec,
    StateField,
    get_cell,
    list_cells,
    load_registry,
)

if TYPE_CHECKING:
    from zoo.adoption import Adopted, adopt_layer, single_layer
    from zoo.cell import Cell
    from zoo.convolution import convolve, convolve_step
    from zoo.engine import Engine, Scorer, Stepper
    from zoo.experiment import resume, resume_events, train, train_events
    from zoo.exporter import export, export_all
    from zoo.filling import fill
    from zoo.flowchart import draw_cell
    from zoo.fused import (
        Recurrence,
        plus_product,
        product,
        product_over_steps,
        run_fused,
        sigmoid_gradient,
        tanh_gradient,
    )
    from zoo.generator import Source, generate, generate_batch, open_source, stream
    from zoo.linear import Complex, LinearCell, linear_scan
    from zoo.matrix import matrix_scan, matrix_step
    from zoo.model import LanguageModel
    from zoo.run import Run, load, save
    from zoo.scoring import Score, score
    from zoo.session import Session
    from zoo.sweeping import sweep, sweep_events
    from zoo.tensorboard import write_tensorboard
    from zoo.torch_cell import TorchCell
    from zoo.verification import verify
    from zoo.weights import uniform

_LAZY = {
    "Adopted": "zoo.adoption",
    "Cell": "zoo.cell",
    "Complex": "zoo.linear",
    "Engine": "zoo.engine",
    "LanguageModel": "zoo.model",
    "LinearCell": "zoo.linear",
    "Recurrence": "zoo.fused",
    "Run": "zoo.run",
    "Score": "zoo.scoring",
    "Scorer": "zoo.engine",
    "Session": "zoo.session",
    "Source": "zoo.generator",
    "Stepper": "zoo.engine",
    "TorchCell": "zoo.torch_cell",
    "adopt_layer": "zoo.adoption",
    "convolve": "zoo.convolution",
    "convolve_step": "zoo.convolution",
    "draw_cell": "zoo.flowchart",
    "export": "zoo.exporter",
    "export_all": "zoo.exporter",
    "fill": "zoo.filling",
    "generate": "zoo.generator",
    "generate_batch": "zoo.generator",
    "linear_scan": "zoo.linear",
    "load": "zoo.run",
    "matrix_scan": "zoo.matrix",
    "matrix_step": "zoo.matrix",
    "open_source": "zoo.generator",
    "plus_product": "zoo.fused",
    "product": "zoo.fused",
    "product_over_steps": "zoo.fused",
    "resume": "zoo.experiment",
    "resume_events": "zoo.experiment",
    "run_fused": "zoo.fused",
    "save": "zoo.run",
    "score": "zoo.scoring",
    "sigmoid_gradient": "zoo.fused",
    "single_layer": "zoo.adoption",
    "stream": "zoo.generator",
    "sweep": "zoo.sweeping",
    "sweep_events": "zoo.sweeping",
    "tanh_gradient": "zoo.fused",
    "train": "zoo.experiment",
    "train_events": "zoo.experiment",
    "uniform": "zoo.weights",
    "verify": "zoo.verification",
    "write_tensorboard": "zoo.tensorboard",
}

__all__ = [
    "Adopted",
    "Cell",
    "CellSpec",
    "Complex",
    "CorpusSpec",
    "Engine",
    "ExporterSpec",
    "LanguageModel",
    "LinearCell",
    "ModelCard",
    "Recurrence",
    "Registry",
    "Run",
    "RuntimeSpec",
    "Score",
    "Scorer",
    "Session",
    "Source",
    "StateField",
    "Stepper",
    "TorchCell",
    "UsageError",
    "ZooError",
    "ZooWarning",
    "adopt_layer",
    "convolve",
    "convolve_step",
    "draw_cell",
    "export",
    "export_all",
    "fill",
    "generate",
    "generate_batch",
    "get_cell",
    "hookimpl",
    "linear_scan",
    "list_cells",
    "load",
    "load_registry",
    "matrix_scan",
    "matrix_step",
    "open_source",
    "plus_product",
    "product",
    "product_over_steps",
    "resume",
    "resume_events",
    "run_fused",
    "save",
    "score",
    "sigmoid_gradient",
    "single_layer",
    "stream",
    "sweep",
    "sweep_events",
    "tanh_gradient",
    "train",
    "train_events",
    "uniform",
    "verify",
    "write_tensorboard",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
