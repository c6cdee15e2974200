"""Recurrences of matrices on a GPU, by the kernels of the package fla-core where it is installed
(the extra `fla`).

They take factors of products in the lower precision of autocast, and are used where that is on.
Layouts here are those of `zoo.nn.matrix`: [T, B, N, K]; the package's have the batch first.
"""

from __future__ import annotations

import logging
import math
import sys
import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from zoo.errors import one_line

logger = logging.getLogger(__name__)
BY_HEAD, BY_KEY = "simple_gla:chunk_simple_gla", "gla:chunk_gla"  # the decay's features
CORRECTED = "generalized_delta_rule:chunk_dplr_delta_rule"  # with a and b
DELTA = "gated_delta_rule:chunk_gated_delta_rule"
LARGEST_KEY = 256  # features of a key that every kernel takes
SETTLED = "_zoo_settled"
USUAL_BLOCK, USUAL_WARPS, USUAL_STAGES = 64, 4, 2


def suit(q_TBNK: Tensor, v_TBNV: Tensor, state_BNKV: Tensor, kernel: str) -> bool:
    """Whether a kernel, one of those below, takes these tensors here."""
    return (
        q_TBNK.is_cuda
        and torch.is_autocast_enabled("cuda")
        and state_BNKV.dtype == torch.float32
        and q_TBNK.shape[-1] <= LARGEST_KEY
        and not torch.compiler.is_compiling()
        and is_installed()
        and _runs(kernel, *q_TBNK.shape[1:], v_TBNV.shape[-1])
    )


def find_kernel(
    q_TBNK: Tensor,
    v_TBNV: Tensor,
    log_w: Tensor | None,
    state_BNKV: Tensor,
    a_TBNK: Tensor | None = None,
) -> str | None:
    """The kernel for the arguments of `matrix_scan`; None where none takes them here. A decay of
    each head is also one of each key, for which a kernel may run where the other does not."""
    kernels = (CORRECTED,) if a_TBNK is not None else (BY_HEAD, BY_KEY)
    if log_w is not None and log_w.shape[-1] > 1:
        kernels = kernels[-1:]
    return next((k for k in kernels if suit(q_TBNK, v_TBNV, state_BNKV, k)), None)


@cache
def is_installed() -> bool:
    return all(find_spec(name) is not None for name in ("fla", "triton"))


def scan_by_kernel(
    kernel: str,
    q_TBNK: Tensor,
    k_TBNK: Tensor,
    v_TBNV: Tensor,
    log_w: Tensor | None,
    state_BNKV: Tensor,
    a_TBNK: Tensor | None = None,
    b_TBNK: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `matrix_scan`."""
    q, k, v = (_low(x) for x in (q_TBNK, k_TBNK, v_TBNV))
    if log_w is None:
        log_w = torch.zeros_like(q_TBNK[..., :1])
    if kernel == BY_HEAD:
        return _run(kernel, state_BNKV, q, k, v, g=_exact(log_w).squeeze(-1))
    by_key = _exact(log_w.expand(q_TBNK.shape))
    if a_TBNK is None or b_TBNK is None:
        return _run(kernel, state_BNKV, q, k, v, g=by_key)
    return _run(kernel, state_BNKV, q, k, v, a=_low(a_TBNK), b=_low(b_TBNK), gk=by_key)


def delta_scan_by_kernel(
    q_TBNK: Tensor,
    k_TBNK: Tensor,
    v_TBNV: Tensor,
    beta_TBN: Tensor,
    log_w: Tensor | None,
    state_BNKV: Tensor,
) -> tuple[Tensor, Tensor]:
    """As `delta_scan`."""
    q, k, v, beta = (_low(x) for x in (q_TBNK, k_TBNK, v_TBNV, beta_TBN))
    decay = torch.zeros_like(beta, dtype=torch.float32) if log_w is None else _exact(log_w[..., 0])
    return _run(DELTA, state_BNKV, q, k, v, g=decay, beta=beta)


def _run(
    kernel: str, state: Tensor, *factors: Tensor, **more: Tensor | None
) -> tuple[Tensor, Tensor]:
    with torch.autocast("cuda", enabled=False):
        o, end = _load(kernel)(
            *factors, **more, scale=1.0, initial_state=state, output_final_state=True
        )
    return o.transpose(0, 1).to(state.dtype), end.to(state.dtype)


def _low(x_TB: Tensor) -> Tensor:
    return x_TB.transpose(0, 1).to(torch.get_autocast_dtype("cuda"))


def _exact(x_TB: Tensor) -> Tensor:
    return x_TB.transpose(0, 1).float()


@cache
def _runs(kernel: str, batch: int, heads: int, keys: int, values: int) -> bool:
    """Tries a kernel once, forwards and backwards, with tensors of this size. It is compiled on the
    way, so that nothing has to be when a training is recorded."""
    said = f"the kernels of fla-core for {heads} heads of {keys} by {values}"
    logger.warning("compiling %s; where that was done before, they are on disk", said)
    with torch.enable_grad():
        q, k = (torch.full((64, batch, heads, keys), 0.01, device="cuda") for _ in range(2))
        v, state = q.new_zeros(64, batch, heads, values), q.new_zeros(batch, heads, keys, values)
        log_w = q.new_zeros(64, batch, heads, keys if kernel in (BY_KEY, CORRECTED) else 1)
        leaves = [leaf.requires_grad_() for leaf in (q, k, v, log_w, state)]
        try:
            with torch.autocast("cuda"):
                if kernel == DELTA:
                    o, end = delta_scan_by_kernel(q, k, v, k[..., 0], log_w, state)
                else:
                    factors = (k, k) if kernel == CORRECTED else (None, None)
                    o, end = scan_by_kernel(kernel, q, k, v, log_w, state, *factors)
            torch.autograd.grad(o.sum() + end.sum(), leaves)
        except Exception as error:  # of a card that has too little of something, say
            logger.warning("%s do not run here: %s; others take their place", said, one_line(error))
            return False
    return True


@cache
def _load(kernel: str) -> Any:
    """A function of the package, "module:name". Its kernels are compiled when they first run, and
    kept on disk; each would first try dozens of block sizes, which takes minutes, so that each gets
    the usual one."""
    name, _, function = kernel.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the package could use besides
        module = import_module(f"fla.ops.{name}")
    for loaded in [m for n, m in sys.modules.items() if n.startswith("fla.")]:
        for value in list(vars(loaded).values()):
            _settle(value)
    return getattr(module, function)


def _settle(kernel: Any) -> None:
    """Lets a kernel that tunes itself, and may stand within others, take the most usual of the
    configurations that suit its arguments."""
    while type(kernel).__module__.partition(".")[0] in ("triton", "fla"):
        if len(getattr(kernel, "configs", ())) > 1 and not hasattr(kernel, SETTLED):
            suited = kernel.prune_configs
            kernel.prune_configs = lambda kwargs, suited=suited: [
                min(suited(kwargs), key=_distance)
            ]
            kernel._bench = lambda *args, **kwargs: [0.0]  # there is nothing to compare
            setattr(kernel, SETTLED, True)
        kernel = getattr(kernel, "fn", None)


def _distance(config: Any) -> float:
    blocks = [value for value in config.kwargs.values() if type(value) is int and value > 0]
    in_blocks = sum(abs(math.log2(value / USUAL_BLOCK)) for value in blocks)
    in_warps = abs(math.log2(config.num_warps / USUAL_WARPS))
    return float(in_blocks + in_warps + abs(config.num_stages - USUAL_STAGES) / 2)
