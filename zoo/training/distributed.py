"""Training in one process, or in several that each have their own rows of every batch."""

from __future__ import annotations

import atexit
import gc
import os
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.models.device import choose_device


class Processes:
    """The processes that train one model: this one is `rank` of `count`, of which the first decides
    and writes. Here it is the only one; `DistributedProcesses` is for more."""

    rank = 0
    count = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process, as `choose_device`."""
        return choose_device(name)

    def rows(self, count: int) -> slice:
        """Which of `count` rows are this process's; together the processes have each row once."""
        return slice(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def check_rows(self, count: int) -> None:
        """UsageError where a batch of `count` rows cannot be divided among them equally."""
        if count % self.count:
            raise UsageError(
                f"{count} rows cannot be divided among {self.count} processes; give a "
                f"--batch-size that can."
            )

    def wrap(self, model: nn.Module) -> Any:
        """The model as it is called in training: gradients are those of all rows."""
        return model

    def agree(self, *values: float) -> list[float]:
        """The first process's values."""
        return list(values)

    def sum(self, value: Tensor) -> Tensor:
        """Added up over the processes."""
        return value

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, one's after the other's."""
        return rows


ALONE = Processes()


class DistributedProcesses(Processes):
    """Several processes, on one machine or more, as torchrun starts them."""

    def __init__(self, device: str) -> None:
        # imported here: it takes a second, and a single process does without
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        on_cpu = choose_device(device).type == "cpu"
        # no buffer changes in training, so none is sent at each step
        handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
        self._accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=handlers)
        self.rank = self._accelerator.process_index
        self.count = self._accelerator.num_processes
        atexit.register(_part)

    def device(self, name: str) -> torch.device:
        device: torch.device = self._accelerator.device
        return device

    def wrap(self, model: nn.Module) -> Any:
        return self._accelerator.prepare_model(model)

    def agree(self, *values: float) -> list[float]:
        from accelerate.utils import broadcast

        tensor = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        agreed: list[float] = broadcast(tensor).tolist()
        return agreed

    def sum(self, value: Tensor) -> Tensor:
        summed: Tensor = self._accelerator.reduce(value.clone(), "sum")
        return summed

    def gather(self, rows: Tensor) -> Tensor:
        gathered: Tensor = self._accelerator.gather(rows.contiguous())
        return gathered


def _part() -> None:
    """Ends the threads of the process group, which may still be letting go of tensors: one that
    does so while the interpreter ends aborts the process (pytorch pull request 179291)."""
    gc.collect()  # the wrapped model, whose references to the group run in a circle
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def join_processes(device: str) -> Processes:
    """The processes that torchrun started this one with; ALONE where nothing did."""
    return DistributedProcesses(device) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ALONE


def is_first_process() -> bool:
    """Whether this is the process that writes and prints."""
    return os.environ.get("RANK", "0") == "0"
