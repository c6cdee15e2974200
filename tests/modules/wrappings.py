"""What training and production leave around a module: hooks, parametrisations, caches, locks."""

from __future__ import annotations

import functools
import logging
import threading
import time
import warnings
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from .case import Case, Made, integers, made, normal, zeros

Pair = tuple[Tensor, Tensor]


class Recurrence(nn.Module):
    """The module that is wrapped: a hidden layer, a GRU cell and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.cell, self.head = nn.Linear(4, 8), nn.GRUCell(8, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = self.cell(F.relu(self.body(x)), h)
        return self.head(h), h


def wrapped(module: nn.Module, **settings: Any) -> Made:
    return made(module, normal((4,)), zeros(12), **settings)


def trained(module: nn.Module) -> nn.Module:
    """After a step of training, which leaves tensors with a gradient's history behind."""
    module.train()
    y, h = module(torch.randn(8, 4), torch.zeros(8, 12))
    (y.sum() + h.sum()).backward()
    return module


def make_hooks_that_watch() -> Made:
    torch.manual_seed(0)
    module, shapes = Recurrence(), []
    module.cell.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape))
    module.register_forward_pre_hook(lambda _, inputs: None)
    module.head.register_full_backward_hook(lambda _, grads_in, grads_out: None)
    return wrapped(module)


def make_hooks_that_change_results() -> Made:
    torch.manual_seed(0)
    module = Recurrence()
    module.body.register_forward_pre_hook(lambda _, inputs: (inputs[0].clamp(-1, 1),))
    module.head.register_forward_hook(lambda _, inputs, output: 2 * output + inputs[0][:, :2])
    return wrapped(module)


def make_old_weight_norm() -> Made:
    torch.manual_seed(0)
    module = Recurrence()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is deprecated, and in use
        weight_norm(module.body)
        weight_norm(module.cell, "weight_hh")
    return wrapped(trained(module))


def make_weight_norm() -> Made:
    torch.manual_seed(0)
    module = Recurrence()
    parametrizations.weight_norm(module.body)
    parametrizations.weight_norm(module.cell, "weight_hh", dim=1)
    return wrapped(trained(module))


def make_old_spectral_norm() -> Made:
    torch.manual_seed(0)
    module = Recurrence()
    spectral_norm(module.head)
    spectral_norm(module.cell, "weight_hh")
    return wrapped(trained(module))


def make_spectral_norm() -> Made:
    torch.manual_seed(0)
    module = Recurrence()
    parametrizations.spectral_norm(module.head)
    parametrizations.spectral_norm(module.cell, "weight_hh")
    return wrapped(trained(module))


class OrthogonalRNN(nn.Module):
    """A recurrence whose weights are orthogonal by parametrisation."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Linear(4, 12)
        self.h = parametrizations.orthogonal(
            nn.Linear(12, 12, bias=False), orthogonal_map="householder"
        )

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = torch.tanh(self.x(x) + self.h(h))
        return h, h


def make_orthogonal_parametrisation() -> Made:
    torch.manual_seed(0)
    return wrapped(trained(OrthogonalRNN()))


class Negative(nn.Module):
    """Keeps feedback negative."""

    def forward(self, x: Tensor) -> Tensor:
        return -F.softplus(x)


class Symmetric(nn.Module):
    """Mirrors the upper triangle."""

    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).mT


class Feedback(nn.Module):
    """A leaky state with symmetric coupling and feedback that is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(4, 12), nn.Linear(12, 12)
        self.decay = nn.Parameter(torch.randn(12))
        parametrize.register_parametrization(self.h, "weight", Symmetric())
        parametrize.register_parametrization(self, "decay", Negative())

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = h * (0.3 * self.decay).exp() + 0.3 * torch.tanh(self.x(x) + self.h(h))
        return h, h


def make_own_parametrisations() -> Made:
    torch.manual_seed(0)
    return wrapped(trained(Feedback()))


def make_pruning_masks() -> Made:
    torch.manual_seed(0)
    module = Recurrence()
    prune.l1_unstructured(module.body, "weight", amount=0.5)
    prune.ln_structured(module.cell, "weight_hh", amount=0.25, n=2, dim=0)
    prune.random_unstructured(module.body, "bias", amount=0.25)
    return wrapped(trained(module))


def make_compiled_module() -> Made:
    torch.manual_seed(0)
    return wrapped(torch.compile(Recurrence()))


def make_compiled_cell() -> Made:
    torch.manual_seed(0)
    module = Recurrence()
    module.cell = torch.compile(module.cell)
    return wrapped(module)


class Averaged(AveragedModel):
    """An exponential moving average of the weights, as training keeps it."""


def make_averaged_weights() -> Made:
    torch.manual_seed(0)
    module = Recurrence()
    average = Averaged(module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    for _ in range(3):
        for parameter in module.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
        average.update_parameters(module)
    return wrapped(average)


class Locked(Recurrence):
    """Holds a lock, which cannot be copied, while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        with self.lock:
            return super().forward(x, h)


def make_lock() -> Made:
    torch.manual_seed(0)
    return wrapped(Locked())


class Logged(Recurrence):
    """Logs shapes, and keeps a logger and the time that its last step took."""

    def __init__(self) -> None:
        super().__init__()
        self.log = logging.getLogger(__name__)
        self.seconds = 0.0

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        start = time.perf_counter()
        result = super().forward(x, h)
        self.seconds = time.perf_counter() - start
        self.log.debug("a step of %d features", x.shape[-1])
        return result


def make_logger_and_stopwatch() -> Made:
    torch.manual_seed(0)
    return wrapped(Logged())


class Callables(Recurrence):
    """Keeps functions as attributes: a lambda, a partial, a bound method and a weak reference."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = lambda x: x * torch.sigmoid(1.702 * x)
        self.clip = functools.partial(torch.clamp, min=-2, max=2)
        self.finish = self._scale
        self.owner = weakref.ref(self)
        self.batches = (number for number in range(3))  # a generator cannot be copied

    def _scale(self, x: Tensor) -> Tensor:
        return 0.5 * x

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = self.cell(self.activation(self.body(self.clip(x))), h)
        return self.finish(self.head(h)), h


def make_functions_as_attributes() -> Made:
    torch.manual_seed(0)
    return wrapped(Callables())


class Activations(Recurrence):
    """Keeps its last activations for plots, with the history of their gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, Tensor] = {}
        self.hidden: Tensor | None = None

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        features = F.relu(self.body(x))
        h = self.cell(features, h)
        self.last["features"], self.hidden = features, h
        return self.head(h), h


def make_last_activations() -> Made:
    torch.manual_seed(0)
    return wrapped(trained(Activations()))


class CallCounter(Recurrence):
    """Counts its calls, in a number and in a buffer, and no result depends on them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("rows_seen", torch.tensor(0))
        self.register_buffer("input_mean", torch.zeros(4))

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        self.calls += 1
        self.rows_seen += x.shape[0]
        self.input_mean = 0.99 * self.input_mean + 0.01 * x.detach().mean(0)
        return super().forward(x, h)


def make_statistics_that_no_result_reads() -> Made:
    torch.manual_seed(0)
    return wrapped(CallCounter())


class CachedPositions(nn.Module):
    """Adds sinusoids of the position to a token; their table is made when it is first needed."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell = nn.Embedding(10, 6), nn.GRUCell(6, 12)
        self.table: Tensor | None = None

    def forward(self, token: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Pair]:
        if self.table is None:
            angles = torch.arange(64)[:, None] / 100 ** (torch.arange(3) / 3)
            self.table = torch.cat((angles.sin(), angles.cos()), 1)
        h = self.cell(self.embedding(token) + self.table[state[1] % 64], state[0])
        return h, (h, state[1] + 1)


def make_cached_positions() -> Made:
    torch.manual_seed(0)
    state = (zeros(12), zeros(dtype=torch.int64))
    return made(CachedPositions(), integers((), high=10), state)


class CachedMasks(Recurrence):
    """Caches a mask for each size in a dict, and a scale behind functools.cached_property."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: dict[int, Tensor] = {}

    @functools.cached_property
    def scale(self) -> float:
        return self.head.weight.shape[1] ** -0.5

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        size = h.shape[1]
        if size not in self.masks:
            self.masks[size] = torch.tril(torch.ones(size, size)) / size
        h = self.cell(F.relu(self.body(x)), h @ self.masks[size].T)
        return self.scale * self.head(h), h


def make_cached_masks() -> Made:
    torch.manual_seed(0)
    return wrapped(CachedMasks())


class Dropouts(nn.Module):
    """Dropout, zoneout and layer normalisation, left in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
        self.cell, self.head = nn.GRUCell(8, 12), nn.Sequential(nn.Dropout(0.2), nn.Linear(12, 2))

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        new = self.cell(self.body(x), h)
        if self.training:
            keep = (torch.rand_like(h) < 0.1).float()
            h = keep * h + (1 - keep) * new
        else:
            h = 0.1 * h + 0.9 * new
        return F.dropout(self.head(h), 0.1, training=self.training), h


def make_training_mode_with_dropout() -> Made:
    torch.manual_seed(0)
    return wrapped(trained(Dropouts()))


def make_float64() -> Made:
    torch.manual_seed(0)

    def fresh(rng: Any, batch: int) -> tuple[Tensor]:
        return (torch.from_numpy(rng.normal(size=(batch, 4))),)

    return made(Recurrence().double(), fresh, zeros(12, dtype=torch.float64))


class Frozen(Recurrence):
    """Computes its features without gradients, and detaches the state."""

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x))

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = self.cell(self.features(x), h.detach())
        with torch.enable_grad():
            return self.head(h), h


def make_frozen_features() -> Made:
    torch.manual_seed(0)
    return wrapped(trained(Frozen()))


class Checkpointed(Recurrence):
    """Recomputes its cell in the backward pass to save memory, while it is trained."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        x = F.relu(self.body(x))
        if not self.training:
            h = self.cell(x, h)
            return self.head(h), h
        h = checkpoint(self.cell, x, h, use_reentrant=False)
        return self.head(h), h


def make_gradient_checkpointing() -> Made:
    torch.manual_seed(0)
    return wrapped(trained(Checkpointed()))


class LowRank(nn.Module):
    """A frozen linear layer with a low-rank update (LoRA)."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, base.in_features) * 0.3)
        self.b = nn.Parameter(torch.randn(base.out_features, rank) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.linear(F.linear(x, self.a), self.b)


def make_low_rank_updates() -> Made:
    torch.manual_seed(0)
    module = Recurrence()
    module.body, module.head = LowRank(module.body), LowRank(module.head)
    return wrapped(module)


class Tied(nn.Module):
    """Ties the weights of its embedding and head, and shares one cell between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell = nn.Embedding(10, 12), nn.GRUCell(12, 12)
        self.head = nn.Linear(12, 10)
        self.head.weight = self.embedding.weight
        self.layers = nn.ModuleList((self.cell, self.cell))

    def forward(self, token: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        x, after = self.embedding(token), []
        for layer, h in zip(self.layers, state, strict=True):
            x = layer(x, h)
            after.append(x)
        return self.head(x), (after[0], after[1])


def make_tied_weights() -> Made:
    torch.manual_seed(0)
    return made(Tied(), integers((), high=10), (zeros(12), zeros(12)))


class Straight(torch.autograd.Function):
    """Rounds, with the gradient of the identity."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return torch.round(x * 16) / 16

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


class QuantisedActivations(Recurrence):
    """Rounds its activations by a function with a gradient of its own."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = self.cell(Straight.apply(F.relu(self.body(x))), h)
        return Straight.apply(self.head(h)), h


def make_own_autograd_function() -> Made:
    torch.manual_seed(0)
    return wrapped(QuantisedActivations(), double=False)


class Delegating(nn.Module):
    """Gives attributes of the module inside as its own, and checks its inputs by asserts."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        assert x.ndim == 2, "the inputs must be rows"
        assert x.shape[-1] == self.body.in_features
        if h.shape[0] != x.shape[0]:
            raise ValueError("as many states as inputs")
        return self.inner(x, h)


def make_delegating_wrapper() -> Made:
    torch.manual_seed(0)
    return wrapped(Delegating(Recurrence()))


class EagerOnly(Recurrence):
    """Takes another road outside of the exporter, with equal results."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        if torch.compiler.is_compiling():
            return super().forward(x, h)
        x = torch.addmm(self.body.bias, x, self.body.weight.T).relu()
        h = self.cell(x, h)
        return torch.addmm(self.head.bias, h, self.head.weight.T), h


def make_other_road_when_compiled() -> Made:
    torch.manual_seed(0)
    return wrapped(EagerOnly())


CASES = [
    Case(make_hooks_that_watch),
    Case(make_hooks_that_change_results),
    Case(make_old_weight_norm),
    Case(make_weight_norm),
    Case(make_old_spectral_norm),
    Case(make_spectral_norm),
    Case(make_orthogonal_parametrisation),
    Case(make_own_parametrisations),
    Case(make_pruning_masks),
    Case(make_compiled_module),
    Case(make_compiled_cell),
    Case(make_averaged_weights),
    Case(make_lock),
    Case(make_logger_and_stopwatch),
    Case(make_functions_as_attributes),
    Case(make_last_activations),
    Case(make_statistics_that_no_result_reads),
    Case(make_cached_positions),
    Case(make_cached_masks),
    Case(make_training_mode_with_dropout),
    Case(make_float64),
    Case(make_frozen_features),
    Case(make_gradient_checkpointing),
    Case(make_low_rank_updates),
    Case(make_tied_weights),
    Case(make_own_autograd_function),
    Case(make_delegating_wrapper),
    Case(make_other_road_when_compiled),
]
