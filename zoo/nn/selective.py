"""The selective scan (Gu and Dao 2023, arXiv:2312.00752, section 3.2): a state [D, N] of which each
element decays at a rate of its own, by a step size for each feature."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from zoo.nn.linear import Complex, VariableT, linear_step, scan_into
from zoo.nn.replaceable import replaceable

CHUNK = 128  # steps of which all states are kept for the gradient


def selective_step(
    delta_BD: Tensor,
    u_BD: Tensor,
    A_DN: VariableT,
    B_BN: VariableT,
    C_BN: VariableT,
    state_BDN: VariableT,
) -> tuple[Tensor, VariableT]:
    """One step of `selective_scan`: y [B, D] and the next state, in the state's dtype."""
    delta, driven = delta_BD.unsqueeze(-1), (delta_BD * u_BD).unsqueeze(-1)
    if isinstance(state_BDN, Complex):
        size, angle = (delta * A_DN.re).exp(), delta * A_DN.im
        decay = Complex(size * angle.cos(), size * angle.sin())
        written = Complex(driven * B_BN.re.unsqueeze(-2), driven * B_BN.im.unsqueeze(-2))
        h = linear_step(decay, state_BDN, written)
        return (h.re * C_BN.re.unsqueeze(-2) - h.im * C_BN.im.unsqueeze(-2)).sum(-1), h
    h = linear_step((delta * A_DN).exp(), state_BDN, driven * B_BN.unsqueeze(-2))
    return (h * C_BN.unsqueeze(-2)).sum(-1), h


@replaceable
def selective_scan(
    delta_TBD: Tensor,
    u_TBD: Tensor,
    A_DN: VariableT,
    B_TBN: VariableT,
    C_TBN: VariableT,
    start_BDN: VariableT,
) -> tuple[Tensor, VariableT]:
    """All steps of

        h_t = exp(Δ_t A) ⊙ h_{t-1} + (Δ_t ⊙ u_t) B_tᵀ,   y_t = Re(h_t C_t)

    from h_0 = `start`: the outputs y [T, B, D] and the last state, in the dtype of `start`. A, B, C
    and `start` are real, or `Complex` pairs.

    For the gradient it keeps the states of a chunk of steps, a tensor [T, B, N, D]; of a longer
    sequence only those between chunks, and the backward pass recomputes the others, as in the paper
    (section 3.3.2). On a CPU each step is computed whole while its tensors are in the cache, on
    other devices all steps of a chunk at once.
    """
    if isinstance(start_BDN, Complex):
        exact = start_BDN.re.dtype
        pairs = (A_DN, B_TBN, C_TBN, start_BDN)
        joined = (torch.complex(x.re.to(exact), x.im.to(exact)) for x in pairs)
        y, end = _scanned(delta_TBD.to(exact), u_TBD.to(exact), *joined)
        return y, Complex(end.real, end.imag)
    exact = start_BDN.dtype
    delta, u, A, B, C = (x.to(exact) for x in (delta_TBD, u_TBD, A_DN, B_TBN, C_TBN))
    return _scanned(delta, u, A, B, C, start_BDN)


def _scanned(
    delta_T: Tensor, u_T: Tensor, A: Tensor, B_T: Tensor, C_T: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    found = []
    with torch.autocast(u_T.device.type, enabled=False):
        chunks = [torch.split(x_T, CHUNK) for x_T in (delta_T, u_T, B_T, C_T)]
        for delta, u, B, C in zip(*chunks, strict=True):
            y, state = _chunk(len(chunks[0]) > 1, delta, u, A, B, C, state)
            found.append(y)
    return torch.cat(found), state


def _chunk(is_one_of_many: bool, *values: Tensor) -> tuple[Tensor, Tensor]:
    if not (torch.is_grad_enabled() and any(value.requires_grad for value in values)):
        y, end, _ = _run(*values)
        return y, end
    if is_one_of_many:
        return checkpoint(  # type: ignore[no-any-return]
            _Selective.apply, *values, use_reentrant=False, preserve_rng_state=False
        )
    return _Selective.apply(*values)  # type: ignore[no-any-return, no-untyped-call]


class _Selective(torch.autograd.Function):
    """Gradients of complex tensors are torch's, ∂/∂Re + i ∂/∂Im: those of a product have the
    conjugate of the other factor. Of real tensors `conj` and `real` are the tensors themselves."""

    @staticmethod
    def forward(ctx: Any, *values: Tensor) -> tuple[Tensor, Tensor]:
        y, end, h = _run(*values)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*values, h)
        return y, end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor | None, by_end: Tensor | None) -> tuple[Tensor | None, ...]:
        delta, u, A, B, C, start, h = ctx.saved_tensors
        by_y = torch.zeros_like(u) if by_y is None else by_y
        A, first = A.mT.contiguous(), start.mT
        slabs = _slabs(u)
        decay, gradient, scratch = (torch.empty_like(h[slabs[0]]) for _ in range(3))
        # what reaches a state from the one after it
        reached = torch.zeros_like(first) if by_end is None else by_end.mT
        driven = delta * u
        by_driven, through_decay = torch.empty_like(u), torch.empty_like(delta)
        by_B, by_C, by_A = torch.empty_like(B), torch.empty_like(C), torch.zeros_like(A)
        with torch.autocast(u.device.type, enabled=False):
            for now in reversed(slabs):
                _decays(delta[now], A, decay).conj_physical_()
                torch.mul(C[now].conj().unsqueeze(-1), by_y[now].unsqueeze(-2), out=gradient)
                gradient[-1] += reached
                scan_into(gradient[:-1], decay[1:], gradient[:-1], gradient[-1], backwards=True)
                by_C[now] = _over_features(h[now].conj(), by_y[now], scratch)
                by_B[now] = _over_features(gradient, driven[now], scratch)
                by_driven[now] = _over_states(B[now].conj(), gradient).real
                through = decay.mul_(gradient)
                reached = through[0].clone()
                if now.start:
                    through.mul_(h[now.start - 1 : now.stop - 1].conj())
                else:
                    through[0].mul_(first.conj())
                    through[1:].mul_(h[: now.stop - 1].conj())
                through_decay[now] = torch.mul(through, A.conj(), out=scratch).sum(-2).real
                by_A += through.mul_(delta[now].unsqueeze(-2)).sum((0, 1))
        by_delta = through_decay.addcmul_(by_driven, u)
        return by_delta, by_driven.mul_(delta), by_A.mT, by_B, by_C, reached.mT


def _run(
    delta: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs, the last state, and all states. The N states of a feature are an axis before the
    features, so that what differs by feature alone is contiguous."""
    A, state = A.mT.contiguous(), start.mT.contiguous()
    T, batch, D = u.shape
    h, slabs = A.new_empty(T, batch, len(A), D), _slabs(u)
    decay = torch.empty_like(h[slabs[0]])
    y = torch.empty_like(u)
    driven = delta * u
    for now in slabs:
        _decays(delta[now], A, decay)
        torch.mul(driven[now].unsqueeze(-2), B[now].unsqueeze(-1), out=h[now])
        scan_into(h[now], decay, h[now], state)
        state = h[now.stop - 1]
        y[now] = _over_states(C[now], h[now]).real
    return y, state.mT.contiguous(), h


def _decays(delta_TBD: Tensor, A_ND: Tensor, into: Tensor) -> Tensor:
    return torch.mul(delta_TBD.unsqueeze(-2), A_ND, out=into).exp_()


def _slabs(x_T: Tensor) -> list[slice]:
    """The steps that are computed at once."""
    size = 1 if x_T.is_cpu else len(x_T)
    return [slice(time, time + size) for time in range(0, len(x_T), size)]


def _over_states(weight_TBN: Tensor, h_TBND: Tensor) -> Tensor:
    """Σ_n weight_n h_n, [T, B, D]."""
    return (weight_TBN.unsqueeze(-2) @ h_TBND).squeeze(-2)


def _over_features(h_TBND: Tensor, weight_TBD: Tensor, scratch: Tensor) -> Tensor:
    """Σ_d h_d weight_d, [T, B, N]; as products of matrices and vectors, a CPU takes six times as
    long."""
    return torch.mul(h_TBND, weight_TBD.unsqueeze(-2), out=scratch).sum(-1)
