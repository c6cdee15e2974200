"""The exporter of modules that a Python file defines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.exporting import ModuleSpec
from zoo.inference.artifact import Proof
from zoo_onnx.module_verification import verify_module
from zoo_onnx.modules import export_sequence, export_step


class OnnxModuleExporter:
    """See `zoo.exporting.ModuleExporter`."""

    suffix = ".onnx"

    def export(self, spec: ModuleSpec, path: Path) -> Proof:
        settings = {**_settings(spec), "precision": spec.precision}
        if spec.sequence:
            settings |= {"time_axis": spec.time_axis, "multiple_of": spec.multiple_of}
        export = export_sequence if spec.sequence else export_step
        info = export(spec.module, spec.example_inputs, spec.state, path, **settings)
        assert info.proof is not None
        return info.proof

    def verify(self, path: Path, spec: ModuleSpec, provider: str = "auto") -> Proof:
        return verify_module(
            path,
            spec.module,
            spec.example_inputs,
            spec.state,
            provider="cpu" if provider == "auto" else provider,  # where every operator runs
            sequence=spec.sequence,
            time_axis=spec.time_axis,
            multiple_of=spec.multiple_of,
            **_settings(spec),
        )


def _settings(spec: ModuleSpec) -> dict[str, Any]:
    """What is given to both."""
    return {
        "input_names": spec.input_names,
        "output_names": spec.output_names,
        "inputs": spec.inputs,
        "batch_axis": spec.batch_axis,
        "independent_rows": spec.independent_rows,
        "metric": spec.metric,
        "max_cost": spec.max_cost,
    }
