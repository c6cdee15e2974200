"""A module that has been run on its examples, and found to be a step of a recurrence."""

from __future__ import annotations

import torch

from zoo.errors import UsageError
from zoo_onnx.draws import Draws
from zoo_onnx.given import array_of
from zoo_onnx.reference import ModuleReference
from zoo_onnx.rounding import Rounding
from zoo_onnx.suitability import (
    RandomOperators,
    require_independent_rows,
    require_joined_chunks,
    require_no_memory,
)
from zoo_ort.modules import ModuleInfo


class InspectedModule(ModuleReference):
    """A reference whose inputs can be drawn, by `draw`, and whose `rounding` is known, after
    `inspect`."""

    draw: Draws
    rounding: Rounding

    def inspect(self, independent_rows: bool) -> ModuleInfo:
        """Runs the module on its examples and describes it. UsageError, in a sentence, for one that
        is no step of a recurrence: another form of results, memory outside the state, random
        numbers, or (unless `independent_rows` is False) rows that depend on each other."""
        random = torch.get_rng_state()
        with RandomOperators() as operators:
            outputs, after = self.call(self.inputs, self.initial)
        if operators.found and not torch.equal(random, torch.get_rng_state()):
            raise UsageError(
                f"{self.called} draws random numbers in its step ({operators.found[0]}); draw them "
                f"outside and pass them as an input."
            )
        info = self.describe(outputs, after)
        examples = [
            array_of(x, axis) for x, axis in zip(self.inputs, self.axes.inputs, strict=True)
        ]
        self.draw = Draws(info.inputs, examples, self.draws, self.multiple_of)
        require_no_memory(self, self.draw)
        self.rounding = Rounding(self)
        if independent_rows:
            require_independent_rows(self, self.draw, self.rounding)
        if self.axes.over_time:
            require_joined_chunks(self, self.rounding)
        return info
