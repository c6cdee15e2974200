"""The delta rule on a matrix memory, with the projections and convolution common to both DeltaNets.

Per head (Schlag et al. 2021, arXiv:2102.11174, equations 23 to 25; Yang et al. 2024,
arXiv:2406.06484, sections 2 and 3.4), in the order of Yang et al. 2024, arXiv:2412.06464:

    S_t = α_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ,   o_t = S_tᵀ q_t / √K

A share β of the value that S holds for a key is replaced by the new value:

    β_t = σ(x_t W_β),   with `negative_eigenvalues` 2 σ(x_t W_β)

The eigenvalues of I - β k kᵀ are 1 and 1 - β. In finite precision no layers whose eigenvalues are
all positive compute the parity of sequences of any length (Grazzi et al. 2024, arXiv:2411.12537,
theorem 1).
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from zoo import Cell
from zoo.nn import convolve, convolve_step, delta_scan, delta_step
from zoo_delta.heads import by_head, drawn, l2_normalise, silu

TAPS = 4  # kernel size of the short convolution


class DeltaState(NamedTuple):
    S: Tensor  # [B, N, K, V], keys to values
    window: Tensor  # [B, 3, N (2 K + V)], the previous projections


class UnconvolvedState(NamedTuple):
    S: Tensor


State: TypeAlias = DeltaState | UnconvolvedState


class DeltaRule(Cell):
    """The recurrence of N heads. z has fields `qkv` [..., N (2 K + V)] and `beta` [..., N]; a
    subclass computes it, and overrides `log_decay` if it has a decay. h is o [..., N, V].

    Weights: `W_qkv` [I, N (2 K + V)], `W_b` [I, N], `conv` [4, N (2 K + V)] or none.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        heads: int,
        key_size: int,
        value_size: int,
        short_conv: bool,
        negative_eigenvalues: bool,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.negative_eigenvalues = negative_eigenvalues
        self.heads, self.key_size, self.value_size = heads, key_size, value_size
        self.sizes = [heads * key_size, heads * key_size, heads * value_size]
        width = sum(self.sizes)
        self.W_qkv = nn.Parameter(torch.cat([drawn(input_size, size) for size in self.sizes], 1))
        self.W_b = drawn(input_size, heads)
        # initialised as in torch.nn.Conv1d
        conv = (2 * torch.rand(TAPS, width) - 1) / TAPS**0.5
        self.conv = nn.Parameter(conv) if short_conv else None

    def init_state(self, batch_size: int) -> State:
        S = self.zeros(batch_size, self.heads, self.key_size, self.value_size)
        if self.conv is None:
            return UnconvolvedState(S)
        return DeltaState(S, self.zeros(batch_size, TAPS - 1, sum(self.sizes)))

    def beta(self, x: Tensor) -> Tensor:
        """β [..., N] of the inputs [..., I]."""
        beta = torch.sigmoid(x @ self.W_b)
        return 2 * beta if self.negative_eigenvalues else beta

    def log_decay(self, z: Any) -> Tensor | None:
        """log α [..., N, 1]; None without a decay."""
        return None

    def advance(self, z: Any, state: State) -> tuple[Tensor, State]:
        return self._recur(convolve_step, delta_step, z, state)

    def scan(self, z_T: Any, state: State) -> tuple[Tensor, State]:
        return self._recur(convolve, delta_scan, z_T, state)

    def _recur(self, convolution: Any, run: Any, z: Any, state: State) -> tuple[Tensor, State]:
        """One step, or all steps: `convolution` is `convolve_step` or `convolve`, and `run` is
        `delta_step` or `delta_scan`. Outputs o and the last state."""
        qkv, window = z.qkv, None
        if isinstance(state, DeltaState):
            qkv, window = convolution(z.qkv, state.window, self.conv)
        q, k, v = torch.split(silu(qkv), self.sizes, -1)
        q = l2_normalise(by_head(q, self.heads)) * self.key_size**-0.5
        k = l2_normalise(by_head(k, self.heads))
        v = by_head(v, self.heads)
        o, S = run(q, k, v, z.beta, self.log_decay(z), state.S)
        return o, UnconvolvedState(S) if window is None else DeltaState(S, window)
