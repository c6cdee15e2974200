"""Proving an exported module's file again, against the module."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn

from zoo.config import DEFAULT_MAX_COST
from zoo.errors import VerificationError
from zoo.inference.artifact import Proof, StateEntry
from zoo.registry.specs import FULL
from zoo_onnx.draws import Inputs
from zoo_onnx.inspected import InspectedModule
from zoo_onnx.module_precision import Metric, measure
from zoo_onnx.modules import prove, several
from zoo_onnx.weights import fingerprint
from zoo_ort.modules import ModuleInfo, TensorEntry, open_module

Entries: TypeAlias = Sequence[TensorEntry | StateEntry]
SEED = 1  # of inputs other than those of the proof when the file was written


def verify_module(
    path: str | Path,
    module: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    state: Any,
    *,
    provider: str = "cpu",
    sequence: bool | None = None,
    time_axis: int | Sequence[int | None] = 1,
    multiple_of: int = 1,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    inputs: Inputs | None = None,
    batch_axis: Any = None,
    independent_rows: bool = True,
    precision: str | None = None,
    metric: Metric | None = None,
    max_cost: float = DEFAULT_MAX_COST,
) -> Proof:
    """Proves a file that `export_step` or `export_sequence` wrote against its module again, from
    the arguments that it was exported with. A file in full precision gets other inputs than those
    of its own proof, unless `inputs` are recorded; of a lower precision the cost is measured again.
    Returns the new proof.

    `sequence` says whether the module takes chunks of a sequence, and `precision` in which
    precision the file should be; None for what the file says. `provider` is as for
    `zoo_ort.open_module`; a file of your own is trusted.

    Raises VerificationError for a file of another module or of other weights, for results that
    differ, and for a precision that costs more than `max_cost`; ArtifactError for a file that
    cannot be opened; UsageError for arguments or a module that cannot be exported.
    """
    stepper = open_module(path, provider, trust="operators")
    info = stepper.info
    over_time = any(None in entry.shape for entry in info.inputs)
    if sequence not in (None, over_time):
        kinds = "single steps", "chunks of a sequence"
        raise VerificationError(
            f"{path} takes {kinds[over_time]}, and its module is given as one that takes "
            f"{kinds[not over_time]}."
        )
    if precision not in (None, info.precision):
        raise VerificationError(f"{path} is {info.precision} and should be {precision}.")
    reference = InspectedModule(
        module,
        several(example_inputs),
        state,
        input_names=input_names,
        output_names=output_names,
        draws=inputs,
        batch_axis=batch_axis,
        time_axis=time_axis if over_time else None,
        multiple_of=multiple_of if over_time else 1,
    )
    weights = fingerprint(reference.module)
    with reference.running():
        _require_same_interface(path, info, reference.inspect(independent_rows), reference.called)
        if info.weights not in ("", weights):
            raise VerificationError(
                f"{path} was exported with other weights than those of this {reference.called}; "
                f"give the module the weights that were exported, or export it again."
            )
        try:
            if info.precision == FULL:
                return prove(reference, stepper, SEED)
            return measure(reference, stepper, metric, max_cost)
        except VerificationError as error:
            raise VerificationError(
                f"{path} does not compute what {reference.called} computes: {error}"
            ) from None


def _require_same_interface(path: str | Path, file: ModuleInfo, own: ModuleInfo, name: str) -> None:
    """VerificationError unless inputs, outputs and state are the same."""
    entries: list[tuple[str, Entries, Entries]] = [
        ("input", file.inputs, own.inputs),
        ("output", file.outputs, own.outputs),
        ("state", file.state, own.state),
    ]
    for kind, there, here in entries:
        for found, wanted in zip_longest(there, here):
            if found == wanted:
                continue
            one, other = _shown(kind, found), _shown(kind, wanted)
            if one == other:
                one, other = f"another value in {one} before the first step", "its own"
            raise VerificationError(
                f"{path} was exported from another module: it has {one}, and {name} has {other}."
            )


def _shown(kind: str, entry: TensorEntry | StateEntry | None) -> str:
    if entry is None:
        return f"no further {kind}"
    axes = ", ".join("any" if size is None else str(size) for size in entry.shape)
    return f"the {kind} {entry.name!r}, {entry.dtype} [{axes}]"
