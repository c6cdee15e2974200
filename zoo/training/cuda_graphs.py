"""Work on a GPU, recorded once and replayed as a CUDA graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor


class GraphRecorder:
    """Records work on a device. All that it records shares memory, so one graph may be replayed
    only when no other runs, and nothing that was computed in one may be read after another was
    replayed, but for tensors that exist outside of them.

    Everything runs on one side stream until it has been recorded. Autograd adds a gradient to a
    parameter on the stream where it first met that parameter, which must be the one recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._memory = torch.cuda.graph_pool_handle()

    def rehearse(self, work: Callable[[], None]) -> None:
        """Runs what is to be recorded: kernels are loaded and chosen, and RuntimeError says so
        where the host would wait for the device, as no graph can. Random numbers are as before."""
        with torch.random.fork_rng(devices=[self._device]), self._aside(), _never_waiting():
            work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What replays `work`, which is recorded and not run. RuntimeError where that fails."""
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        before = generator.clone_state()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()  # what ran step by step before needs its memory no longer
        try:
            # not torch.cuda.graph: after a failure it leaves its stream the current one
            with self._aside():
                graph.capture_begin(pool=self._memory)
                try:
                    work()
                except BaseException:
                    with suppress(RuntimeError):  # that the recording is void is known
                        graph.capture_end()
                    with suppress(RuntimeError, AttributeError):  # which it then leaves undone
                        torch._C._cuda_endAllocateToPool(self._device.index or 0, self._memory)
                    raise
                graph.capture_end()
        except BaseException:
            generator.graphsafe_set_state(before)  # it would wait for the end of the recording
            raise
        return graph.replay

    @contextmanager
    def _aside(self) -> Iterator[None]:
        main = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(main)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            main.wait_stream(self._stream)


@contextmanager
def _never_waiting() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():  # torch says that it may miss some; recording does not
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class Staging:
    """Copies numbers to a tensor on a device without waiting for it, at most AHEAD copies before
    what uses them is done: the host stays near the device, so that times are those of its work."""

    AHEAD = 3

    def __init__(self, into: Tensor) -> None:
        self._into = into
        on_gpu = into.is_cuda
        self._slots = [
            torch.empty(into.shape, dtype=into.dtype, pin_memory=on_gpu) for _ in range(self.AHEAD)
        ]
        make: Any = torch.cuda.Event
        self._done = [make() for _ in self._slots] if on_gpu else []
        self._next = 0

    def put(self, *parts: Tensor) -> None:
        """Copies these parts, one after the other along the first axis."""
        if self._done:
            self._done[self._next].synchronize()
        slot = self._slots[self._next]
        for into, part in zip(slot, parts, strict=True):
            into.copy_(part)
        self._into.copy_(slot, non_blocking=True)

    def used(self) -> None:
        """Says that what uses the last copy has been started."""
        if self._done:
            self._done[self._next].record()
        self._next = (self._next + 1) % len(self._slots)
