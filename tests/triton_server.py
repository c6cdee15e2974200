"""A simulation of NVIDIA Triton Inference Server, from its documentation: the model configuration,
implicit state management, and the sequence batcher's strategy `oldest`. Graphs run in ONNX Runtime.

It refuses what Triton refuses when it loads an ONNX model, and computes nothing that the
configuration and the files beside it do not say.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

Arrays = dict[str, npt.NDArray[Any]]

RUNTIME_TYPES = {
    "tensor(float16)": "TYPE_FP16", "tensor(float)": "TYPE_FP32", "tensor(double)": "TYPE_FP64",
    "tensor(bool)": "TYPE_BOOL",
    **{f"tensor({u}int{bits})": f"TYPE_{u.upper()}INT{bits}"
       for u in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def name_of(data_type: int) -> str:
    return model_config_pb2.DataType.Name(data_type)


def numpy_type(data_type: int) -> np.dtype[Any]:
    return np.dtype(triton_to_np_dtype(name_of(data_type).removeprefix("TYPE_")))


def parse_config(path: Path) -> Any:
    return text_format.Parse(path.read_text("utf-8"), model_config_pb2.ModelConfig())


@dataclass(eq=False)
class Request:
    inputs: Arrays
    sequence: int
    start: bool
    end: bool
    future: Future[Arrays] = field(default_factory=Future)


class LoadError(Exception):
    """The server would not load the model."""


class Model:
    """One model of the repository, and its scheduler."""

    def __init__(self, folder: Path) -> None:
        self.config = config = parse_config(folder / "config.pbtxt")
        versions = sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())
        require(config.backend == "onnxruntime", "another backend")
        require(bool(versions), "no version")
        require(not config.name or config.name == folder.name, "another name than the folder's")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        file = folder / str(versions[-1]) / "model.onnx"
        self.session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.states = config.sequence_batching.state
        self._check_tensors()
        self._pair_states()
        self.initial = {state.input_name: self._initial(state, folder) for state in self.states}
        self.kept: dict[int, Arrays] = {}  # the state of each open sequence, [1, ...]
        self.queues: dict[int, deque[Request]] = {}  # of the sequences that have a slot
        self.backlog: deque[Request] = deque()
        self.arrivals: list[int] = []  # the sequences of the requests in the queues, oldest first
        self.batches: list[list[int]] = []  # the sequences of each run of the graph

    def _check_tensors(self) -> None:
        """What the backend compares when it makes an instance."""
        config = self.config
        found_inputs = {value.name: value for value in self.session.get_inputs()}
        found_outputs = {value.name: value for value in self.session.get_outputs()}
        expected = {value.name for value in config.input} | {s.input_name for s in self.states}
        require(len(config.input) + len(self.states) == len(found_inputs), "the number of inputs")
        require(expected == set(found_inputs), "the names of the inputs")
        for values, found, exact in (
            (config.input, found_inputs, False),
            (config.output, found_outputs, True),
        ):
            for value in values:
                require(len(value.dims) > 0, f"{value.name} has no dims")
                require(all(dim == -1 or dim > 0 for dim in value.dims), "a dim of 0")
                reshaped = value.HasField("reshape")
                inner = list(value.reshape.shape) if reshaped else list(value.dims)
                if reshaped:
                    require(np.prod(inner or [1]) == np.prod(value.dims), "the reshape")
                graph = found[value.name]
                shape = [size if isinstance(size, int) else -1 for size in graph.shape]
                require(shape[:1] == [-1], f"{value.name} does not begin with the batch")
                require(len(shape) == 1 + len(inner), f"the rank of {value.name}")
                for own, size in zip(shape[1:], inner, strict=True):
                    require(own == size or (own == -1 and not exact), f"the shape of {value.name}")
                require(RUNTIME_TYPES[graph.type] == name_of(value.data_type), "a type")
        for state in self.states:
            require(state.output_name in found_outputs, "a state output")
            for graph in (found_inputs[state.input_name], found_outputs[state.output_name]):
                require(RUNTIME_TYPES[graph.type] == name_of(state.data_type), "a state's type")

    def _pair_states(self) -> None:
        """The server pairs states by their positions in two sorted maps, whatever the pairs of the
        configuration."""
        given = sorted(state.input_name for state in self.states)
        returned = sorted(state.output_name for state in self.states)
        require(len(set(given)) == len(given) == len(set(returned)), "a state is there twice")
        self.pairs = dict(zip(given, returned, strict=True))

    def _initial(self, state: Any, folder: Path) -> npt.NDArray[Any]:
        require(len(state.initial_state) == 1, "not one initial state: it would be garbage")
        (initial,) = state.initial_state
        require(bool(initial.name), "an initial state without a name")
        require(initial.data_type == state.data_type, "the initial state's type")
        require(len(initial.dims) == len(state.dims), "the initial state's rank")
        require(-1 not in initial.dims, "the initial state's shape is open")
        require(all(b in (a, -1) for a, b in zip(initial.dims, state.dims, strict=True)), "a dim")
        # the server counts no elements where there are no dims
        elements = int(np.prod(initial.dims)) if len(initial.dims) else 0
        dtype = numpy_type(state.data_type)
        size = elements * dtype.itemsize
        source = initial.WhichOneof("state_data")
        require(source is not None, "no state data")
        content = bytes(size)
        if source == "data_file":
            content = (folder / "initial_state" / initial.data_file).read_bytes()
            require(len(content) >= size, "the file of an initial state is too short")
        row = np.frombuffer(content[:size], dtype.newbyteorder("<")).astype(dtype)
        return row.reshape(1, *initial.dims)

    def submit(self, request: Request) -> Future[Arrays]:
        """Queues a request, as the server does before any of it is computed."""
        rows = {array.shape[:1] for array in request.inputs.values()}
        wanted = {value.name: value for value in self.config.input}
        problem = None
        if set(request.inputs) != set(wanted):
            problem = f"inputs {sorted(request.inputs)} where the model has {sorted(wanted)}"
        elif len(rows) != 1 or min(rows) > (self.config.max_batch_size,):
            problem = "the batch sizes of a request"
        elif self.states and rows != {(1,)}:
            problem = "a sequence's request must have batch-size 1"
        elif self.states and request.sequence == 0:
            problem = "no correlation ID"
        elif self.states and not request.start and not self._is_open(request.sequence):
            problem = "the first request of a sequence must be its start"
        else:
            for name, array in request.inputs.items():
                dims = wanted[name].dims
                fits = array.ndim == 1 + len(dims) and all(
                    dim in (-1, size) for dim, size in zip(dims, array.shape[1:], strict=True)
                )
                if not fits or array.dtype != numpy_type(wanted[name].data_type):
                    problem = f"{name} is {array.dtype} {array.shape}"
        if problem:
            request.future.set_exception(ValueError(problem))
        else:
            self.backlog.append(request)
        return request.future

    def _is_open(self, sequence: int) -> bool:
        waiting = [r for r in (*self.queues.get(sequence, ()), *self.backlog)
                   if r.sequence == sequence]  # fmt: skip
        return not waiting[-1].end if waiting else sequence in self.kept

    def _admit(self) -> None:
        """Gives waiting sequences a slot, in order of arrival, while there are any."""
        slots = self.config.sequence_batching.oldest.max_candidate_sequences
        slots = slots or self.config.max_batch_size
        waiting: deque[Request] = deque()
        for request in self.backlog:
            taken = set(self.kept) | {s for s, queue in self.queues.items() if queue}
            blocked = request.sequence in {r.sequence for r in waiting}
            if not blocked and (request.sequence in taken or len(taken) < slots):
                self.queues.setdefault(request.sequence, deque()).append(request)
                self.arrivals.append(request.sequence)
            else:
                waiting.append(request)
        self.backlog = waiting

    def run_batch(self) -> bool:
        """Runs the graph once, over the oldest request and others of equal shapes, one for each
        sequence at most. False if no request is waiting."""
        if not self.states:
            return self._run_whole()
        self._admit()
        if not self.arrivals:
            return False
        batch: list[Request] = []
        for sequence in dict.fromkeys(self.arrivals):
            request = self.queues[sequence][0]
            if len(batch) < self.config.max_batch_size and (
                not batch or shapes(request) == shapes(batch[0])
            ):
                batch.append(self.queues[sequence].popleft())
        for request in batch:
            self.arrivals.remove(request.sequence)
            if request.start:
                self.kept[request.sequence] = dict(self.initial)
        states = {
            name: np.concatenate([self.kept[request.sequence][name] for request in batch])
            for name in self.initial
        }
        outputs = self._run(batch, states)
        for index, request in enumerate(batch):
            row = slice(index, index + 1)
            self.kept[request.sequence] = {
                given: outputs[returned][row] for given, returned in self.pairs.items()
            }
            if request.end:
                del self.kept[request.sequence]
            request.future.set_result({v.name: outputs[v.name][row] for v in self.config.output})
        return True

    def _run_whole(self) -> bool:
        """Dynamic batching without sequences: requests of equal shapes together."""
        if not self.backlog:
            return False
        batch, rows = [], 0
        for request in list(self.backlog):
            size = len(next(iter(request.inputs.values())))
            equal = not batch or shapes(request)[0][1][1:] == shapes(batch[0])[0][1][1:]
            if equal and rows + size <= self.config.max_batch_size:
                batch.append(request)
                rows += size
                self.backlog.remove(request)
        outputs, begin = self._run(batch, {}), 0
        for request in batch:
            end = begin + len(next(iter(request.inputs.values())))
            request.future.set_result(
                {value.name: outputs[value.name][begin:end] for value in self.config.output}
            )
            begin = end
        return True

    def _run(self, batch: list[Request], states: Arrays) -> Arrays:
        feeds = dict(states)
        for value in self.config.input:
            joined = np.concatenate([request.inputs[value.name] for request in batch])
            if value.HasField("reshape"):
                joined = joined.reshape(len(joined), *value.reshape.shape)
            feeds[value.name] = joined
        self.batches.append([request.sequence for request in batch])
        names = [value.name for value in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feeds), strict=True))


def shapes(request: Request) -> list[tuple[str, tuple[int, ...]]]:
    return sorted((name, array.shape) for name, array in request.inputs.items())


def require(condition: bool, problem: str) -> None:
    if not condition:
        raise LoadError(problem)


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Every model of a repository, also for gRPC clients."""

    def __init__(self, repository: Path) -> None:
        folders = [entry for entry in repository.iterdir() if entry.is_dir()]
        self.models = {folder.name: Model(folder) for folder in folders}
        self.lock = threading.Lock()

    def listen(self) -> tuple[Any, str]:
        """Starts to serve on a free port; the gRPC server, which its caller stops, and its
        address."""
        server = grpc.server(futures.ThreadPoolExecutor(4))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, server)
        port = server.add_insecure_port("localhost:0")
        server.start()
        return server, f"localhost:{port}"

    def ModelInfer(self, request: Any, context: Any) -> Any:
        arrays = {
            tensor.name: np.frombuffer(raw, triton_to_np_dtype(tensor.datatype)).reshape(
                tensor.shape
            )
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        parameters = request.parameters
        asked = Request(
            arrays,
            parameters["sequence_id"].int64_param,
            parameters["sequence_start"].bool_param,
            parameters["sequence_end"].bool_param,
        )
        model = self.models[request.model_name]
        with self.lock:
            future = model.submit(asked)
            while model.run_batch():
                pass
        if problem := future.exception():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(problem))
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, array in future.result().items():
            response.outputs.add(
                name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape
            )
            response.raw_output_contents.append(array.tobytes())
        return response
