# Made by seqc from the spec `gla`. Edit the spec, not this file.
"""gla: Gated linear attention: a matrix state whose rows decay at data-dependent rates.

S_t = Diag(exp g_t) S_{t-1} + k_t v_t^T,    o_t = S_t^T q_t / sqrt(K)        (Yang et al. 2024, arXiv:2312.06635)

The spec:

    dim H, K, V

    input q[H, K], k[H, K], v[H, V]
    input g[H, K] in [-inf, 0]                  # log decay

    state S[H, K, V] = 0                        # a caller may pass its own and gets its gradient

    S = exp(g) * S[t-1] + k * v
    output o = sum[K](q * S) / sqrt(K)

    eigenvalues S in [0, 1]                     # a claim about the transition, proved or refused
    schedule chunk {16, 32, 64, 128}            # a limit for the tile solver

How it is computed:

    S: diagonal: each element of S depends on its own past only
    S: eigenvalues in [0, 1]: `exp(g)`
    in plain torch:
        chunkwise: 16 rows a block, at 0.10 of the modelled time of the step form; the scan form takes 1.10
        S: decay over H, K kept as a logarithm in [-inf, 0] per step
        S: read over K: 4 levels of spans with an anchor each: every exponent <= 0, so that nothing overflows
    in Triton:
        chunkwise: 16 rows a block, at 0.36 of the modelled time of the step form (0.32 with 32 rows; rows are
            chosen with the tiles); the scan form does not fit (a program could not hold its values)
        S: decay over H, K kept as a logarithm in [-inf, 0] per step
        S: read over K: 4 levels of spans with an anchor each: every exponent <= 0, so that nothing overflows

Inputs and outputs are [B, T, dims], states [B, dims], parameters [dims]; each function says its own.

Below are what to call, and the recurrence on each kind of device. What follows these brings a call to them: packs,
dtypes, errors, autograd, torch.compile.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

# What is called has types; kernels and operators have none that a checker could follow.
# mypy: ignore-errors

__all__ = ["GLA", "GLAResult", "gla", "gla_step", "GLAStates"]


# ---------- what to call ----------------------------------------------------------------------------------------------


class GLAResult(NamedTuple):
    """Outputs, and the states after the last step: the next call's NAME_0, to go on from."""

    o: Tensor  # [B, T, H, V]
    S_T: Tensor  # [B, H, K, V]


class GLAStates(GLAResult):
    """What a call with `states_every` gives: its result, and each state after every so many steps as NAME_every.

    NAME_every has the pieces as an axis where inputs have the steps: [B, T // N, dims]. Of a pack it is [pieces, dims]:
    those of the first sequence, then those of the next; a sequence of n steps has n // N of them.
    """

    S_every: Tensor  # [B, pieces, H, K, V]


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    S_0: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    reverse: bool = False,
    axis: int | None = None,
    states_every: int | None = None,
) -> GLAResult:
    """Run gla over a sequence.

    Shapes:
        q: [B, T, H, K]
        k: [B, T, H, K]
        v: [B, T, H, V]
        g: [B, T, H, K]
        S_0: [B, H, K, V]

    States are float32 (float64 for float64 inputs); one that is not given starts at its default.

    cu_seqlens: the call is a pack of B sequences of any lengths, one after the other in one row of T steps; inputs are
        [1, T, ...], and sequence i has the steps from cu_seqlens[i] up to cu_seqlens[i + 1]. int32 or int64 [B + 1] on
        the inputs' device. One entry per sequence: S_0.
    reverse: every sequence runs from its last step to its first.
    axis: which of the axes before the dims has the steps; all others are batch, and states have these, in their order.
    states_every: the result is a GLAStates, with the states after every so many steps.
    """
    if states_every is not None:
        return _in_pieces(states_every, axis, cu_seqlens, reverse, q=q, k=k, v=v, g=g, S_0=S_0)
    if axis is not None:
        return _along(axis, cu_seqlens, reverse, q, k, v, g, S_0)
    q, k, v, g = _cast(q, k, v, g)
    B, T, H, K, V = _sizes(q, k, v, g, cu_seqlens)
    carry = _carry(q)
    if S_0 is None:
        S_0 = q.new_zeros((), dtype=carry).expand(B, H, K, V)
    elif S_0.shape != (B, H, K, V):
        raise _shape_error(True, cu_seqlens, q, k, v, g, S_0=S_0)
    elif S_0.dtype != carry:
        S_0 = _to_carry("S_0", S_0, carry)
    return GLAResult(*_call(_OPS.run.default, q, k, v, g, S_0, cu_seqlens, reverse))


def gla_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    S_0: Tensor | None = None,
    inplace: bool = False,
    into: GLAResult | None = None,
) -> GLAResult:
    """Run gla for one step: one token of decoding.

    Shapes:
        q: [B, H, K]
        k: [B, H, K]
        v: [B, H, V]
        g: [B, H, K]
        S_0: [B, H, K, V]

    inplace: the new states are written over the old ones, and returned as these.
    into: the result of an earlier step, whose tensors are written and returned. With its own states as initial ones,
        no step allocates anything.
    """
    _given = (S_0,)
    q, k, v, g = _cast(q, k, v, g)
    B, H, K, V = _step_sizes(q, k, v, g)
    carry = _carry(q)
    if S_0 is None:
        S_0 = q.new_zeros((B, H, K, V), dtype=carry)
    elif S_0.shape != (B, H, K, V):
        raise _shape_error(False, None, q, k, v, g, S_0=S_0)
    elif S_0.dtype != carry:
        S_0 = _to_carry("S_0", S_0, carry)
    _result = GLAResult(*_call(_OPS.step.default, q, k, v, g, S_0))
    return _written(_result, _given, inplace, into) if inplace or into is not None else _result


class GLA(torch.nn.Module):
    """gla as a layer: it owns no parameter.

    axis: which of the inputs' axes has the steps, of every call that does not say it; see the function.
    """

    def __init__(
        self,
        *,
        H: int,
        K: int,
        V: int,
        axis: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.dims = _whole_sizes(0, H=H, K=K, V=V)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        *,
        S_0: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
        axis: int | None = None,
        states_every: int | None = None,
    ) -> GLAResult:
        """The recurrence over a sequence; see `gla`."""
        axis = self.axis if axis is None else axis
        _as_made(self, q=q, v=v)
        return gla(q, k, v, g, S_0=S_0, cu_seqlens=cu_seqlens, reverse=reverse, axis=axis, states_every=states_every)

    def step(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        *,
        S_0: Tensor | None = None,
        inplace: bool = False,
        into: GLAResult | None = None,
    ) -> GLAResult:
        """One step; see `gla_step`."""
        if S_0 is None:
            _as_made(self, q=q, v=v)
        return gla_step(q, k, v, g, S_0=S_0, inplace=inplace, into=into)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={size}" for name, size in self.dims.items())


# torch.fx keeps a call as one node, instead of tracing into it
torch.fx.wrap("gla")
torch.fx.wrap("gla_step")


# ---------- the recurrence in plain torch: every device, every dtype --------------------------------------------------


def _blocks(x, rows, repeat):
    """[B, T, ...] as [NT, B, rows, ...]: the rows after the last step repeat it, or are zero."""
    blocks = (x.shape[1] + rows - 1) // rows
    missing = blocks * rows - x.shape[1]
    if missing:
        last = x[:, -1:] if repeat else torch.zeros_like(x[:, -1:])
        x = torch.cat([x, last.expand(-1, missing, *x.shape[2:])], 1)
    return x.unflatten(1, (blocks, rows)).transpose(0, 1)


def _sequence(x, steps):
    """[NT, B, rows, ...] as [B, T, ...]."""
    return x.transpose(0, 1).flatten(1, 2)[:, :steps]


def _upper(x, rows, dim):
    """The upper half of every segment of 2 * rows rows along `dim`: a view [..., segment, row, ...]."""
    return x.unflatten(dim, (x.shape[dim] // (2 * rows), 2, rows)).select(dim - 1, 1)


def _lower(x, rows, dim):
    """The lower half of every segment of 2 * rows rows along `dim`: a view [..., segment, row, ...]."""
    return x.unflatten(dim, (x.shape[dim] // (2 * rows), 2, rows)).select(dim - 1, 0)


def _pairs(x, rows):
    """x[..., t, s] where t is in the upper and s in the lower half of one segment of 2 * rows rows: a view.

    Its axes are [..., segment, t inside, s inside].
    """
    x = _lower(_upper(x, rows, -2), rows, -1)
    return x.diagonal(0, -4, -2).movedim(-1, -3)


def _cumsum(x, dim, block=0, reverse=False, exclusive=False):
    """Running sum along `dim` (counted from the end), restarted every `block` rows; never undone by a subtraction."""
    if block:
        x = x.unflatten(dim, (x.shape[dim] // block, block))
    out = torch.empty_like(x)
    rows = list(zip(x.unbind(dim), out.unbind(dim)))
    before = None
    for x_i, out_i in reversed(rows) if reverse else rows:
        if before is None:
            out_i.zero_() if exclusive else out_i.copy_(x_i)
        else:
            torch.add(before[1], before[0] if exclusive else x_i, out=out_i)
        before = x_i, out_i
    return out.flatten(dim - 1, dim) if block else out


def _inside(x, steps, value, dim, own=False):
    """x with `value` in the rows (along `dim`, counted from the end) after the last step; own: x may be written to."""
    rows = x.shape[dim]
    left = steps - (x.shape[0] - 1) * rows
    if left >= rows:
        return x
    x = x if own else x.clone()
    x[-1].narrow(dim, left, rows - left).fill_(value)
    return x


def _forward_torch(q, k, v, g, S_0):
    """Outputs, final states, and the states as the blocks begin."""
    _, T, _, K = q.shape
    BT_ = 16  # steps per block
    row = torch.arange(BT_, dtype=q.dtype, device=q.device)

    q = _blocks(q, BT_, repeat=True).transpose(2, 3).contiguous()
    k = _blocks(k, BT_, repeat=True).transpose(2, 3).contiguous()
    v = _blocks(v, BT_, repeat=True).transpose(2, 3).contiguous()
    g = _blocks(g, BT_, repeat=True).transpose(2, 3).contiguous()
    log_decay = _inside(g, T, 0.0, -2)
    x = torch.exp(log_decay.sum(-2))
    w = _inside(k, T, 0.0, -2)
    to_end = torch.exp(_cumsum(log_decay, -2, reverse=True, exclusive=True))
    p = (w * to_end).mT @ v

    # the recurrence itself: one step or block after the other
    S = S_0
    S_all = [S]
    for p_n, x_n2 in zip(p, x[..., None]):
        S = torch.addcmul(p_n, x_n2, S)
        S_all.append(S)

    S_all = torch.stack(S_all)
    from_start = torch.exp(_cumsum(log_decay, -2))
    # what is not finite makes NaN of the sums that it is in, and of no others
    finite = torch.abs(v) < math.inf
    x2 = BT_ - row
    m = torch.where(finite, 0.0, x2[:, None]).amax(-2)[..., None, :] >= x2[:, None]
    log_decay_u8 = _upper(log_decay, 8, -2)
    log_decay_l8 = _lower(log_decay, 8, -2)
    x3 = torch.exp(_cumsum(log_decay_l8, -2, reverse=True, exclusive=True))
    w_l8 = _lower(w, 8, -2)
    q_u8 = _upper(q, 8, -2)
    A_8 = q_u8 * torch.exp(_cumsum(log_decay_u8, -2)) @ (w_l8 * x3).mT
    log_decay_u4 = _upper(log_decay, 4, -2)
    log_decay_l4 = _lower(log_decay, 4, -2)
    x4 = torch.exp(_cumsum(log_decay_l4, -2, reverse=True, exclusive=True))
    w_l4 = _lower(w, 4, -2)
    q_u4 = _upper(q, 4, -2)
    A_4 = q_u4 * torch.exp(_cumsum(log_decay_u4, -2)) @ (w_l4 * x4).mT
    log_decay_u2 = _upper(log_decay, 2, -2)
    log_decay_l2 = _lower(log_decay, 2, -2)
    x5 = torch.exp(_cumsum(log_decay_l2, -2, reverse=True, exclusive=True))
    w_l2 = _lower(w, 2, -2)
    q_u2 = _upper(q, 2, -2)
    A_2 = q_u2 * torch.exp(_cumsum(log_decay_u2, -2)) @ (w_l2 * x5).mT
    log_decay_u1 = _upper(log_decay, 1, -2)
    w_l1 = _lower(w, 1, -2)
    q_u1 = _upper(q, 1, -2)
    A_1 = q_u1 * torch.exp(log_decay_u1) @ w_l1.mT
    A_here = torch.where((row[:, None] == row), (q * w).sum(-1)[..., None], 0.0)
    A = A_here
    _pairs(A, 8).add_(A_8)
    _pairs(A, 4).add_(A_4)
    _pairs(A, 2).add_(A_2)
    _pairs(A, 1).add_(A_1)
    x6 = q * from_start @ S_all[:-1] + torch.where(m, math.nan, A @ torch.where(finite, v, 0.0))
    # output o = sum[K](q * S) / sqrt(K)
    o = x6 / math.sqrt(K)
    return _sequence(o.transpose(2, 3), T), S, S_all


def _backward_torch(q, k, v, g, S_0, S_all, d_o, d_S_T, *, needs=(True,) * 5):
    """Gradients of every input, parameter and initial state."""
    _, T, _, K = q.shape
    BT_ = 16  # steps per block
    row = torch.arange(BT_, dtype=q.dtype, device=q.device)

    need_q, need_k, need_v, need_g, need_S_0 = needs

    q = _blocks(q, BT_, repeat=True).transpose(2, 3).contiguous()
    k = _blocks(k, BT_, repeat=True).transpose(2, 3).contiguous()
    v = _blocks(v, BT_, repeat=True).transpose(2, 3).contiguous()
    g = _blocks(g, BT_, repeat=True).transpose(2, 3).contiguous()
    d_o = _blocks(d_o, BT_, repeat=False).transpose(2, 3).contiguous()
    log_decay = _inside(g, T, 0.0, -2)
    x = torch.exp(log_decay.sum(-2))
    x2 = d_o / math.sqrt(K)
    from_start = torch.exp(_cumsum(log_decay, -2))
    p = (q * from_start).mT @ x2

    # the recurrence itself: one step or block after the other
    d_S = d_S_T
    d_S_all = [d_S]
    for p_n, x_n2 in reversed(list(zip(p, x[..., None]))):
        d_S = torch.addcmul(p_n, d_S, x_n2)
        d_S_all.append(d_S)

    if need_k or need_v or need_g:
        d_S_all = torch.stack(d_S_all[::-1])
        to_end = torch.exp(_cumsum(log_decay, -2, reverse=True, exclusive=True))
        q_u1 = _upper(q, 1, -2)
        q_u2 = _upper(q, 2, -2)
        q_u4 = _upper(q, 4, -2)
        q_u8 = _upper(q, 8, -2)
    if need_q or need_k or need_v:
        m = row[:, None] == row
    if need_q or need_k or need_g:
        p2 = x2 @ torch.where((torch.abs(v) < math.inf), v, 0.0).mT
        p2_1 = _pairs(p2, 1)
        p2_2 = _pairs(p2, 2)
        p2_4 = _pairs(p2, 4)
        p2_8 = _pairs(p2, 8)
    if need_q or need_k:
        p3 = torch.where(m, p2, 0.0).sum(-1)
    if need_q or need_v or need_g:
        w = _inside(k, T, 0.0, -2)
        w_l1 = _lower(w, 1, -2)
        w_l2 = _lower(w, 2, -2)
        w_l4 = _lower(w, 4, -2)
        w_l8 = _lower(w, 8, -2)
    if need_q or need_g:
        p4 = p2_1 @ w_l1
        p8 = x2 @ S_all[:-1].mT
    if need_q or need_k or need_v or need_g:
        log_decay_u1 = _upper(log_decay, 1, -2)
        exp_log_decay = torch.exp(log_decay_u1)
        log_decay_l2 = _lower(log_decay, 2, -2)
        x3 = torch.exp(_cumsum(log_decay_l2, -2, reverse=True, exclusive=True))
        log_decay_u2 = _upper(log_decay, 2, -2)
        x5 = torch.exp(_cumsum(log_decay_u2, -2))
        log_decay_l4 = _lower(log_decay, 4, -2)
        x6 = torch.exp(_cumsum(log_decay_l4, -2, reverse=True, exclusive=True))
        log_decay_u4 = _upper(log_decay, 4, -2)
        x8 = torch.exp(_cumsum(log_decay_u4, -2))
        log_decay_l8 = _lower(log_decay, 8, -2)
        x9 = torch.exp(_cumsum(log_decay_l8, -2, reverse=True, exclusive=True))
        log_decay_u8 = _upper(log_decay, 8, -2)
        x11 = torch.exp(_cumsum(log_decay_u8, -2))
    if need_q or need_v or need_g:
        x4 = w_l2 * x3
        x7 = w_l4 * x6
        x10 = w_l8 * x9
    if need_q or need_g:
        p5 = p2_2 @ x4
        p6 = p2_4 @ x7
        p7 = p2_8 @ x10
    if need_q:
        d_q = p3[..., None] * w + p8 * from_start
        _upper(d_q, 1, -2).add_(p4 * exp_log_decay)
        _upper(d_q, 2, -2).add_(p5 * x5)
        _upper(d_q, 4, -2).add_(p6 * x8)
        _upper(d_q, 8, -2).add_(p7 * x11)
    if need_k or need_g:
        p9 = v @ d_S_all[1:].mT
    if need_v or need_g:
        x12 = w * to_end
    if need_g:
        x13 = _cumsum(p9 * x12, -2, exclusive=True) + ((d_S_all[1:] * S_all[:-1]).sum(-1) * x)[..., None, :]
        x20 = x13 + _cumsum(p8 * q * from_start, -2, reverse=True)
        _upper(x20, 1, -2).add_(p4 * q_u1 * exp_log_decay)
    if need_k or need_v or need_g:
        x14 = q_u2 * x5
        x16 = q_u4 * x8
        x18 = q_u8 * x11
    if need_k or need_g:
        x15 = p2_2.mT @ x14
        x17 = p2_4.mT @ x16
        x19 = p2_8.mT @ x18
    if need_g:
        _lower(x20, 2, -2).add_(_cumsum(x15 * w_l2 * x3, -2, exclusive=True))
        _upper(x20, 2, -2).add_(_cumsum(p5 * q_u2 * x5, -2, reverse=True))
        _lower(x20, 4, -2).add_(_cumsum(x17 * w_l4 * x6, -2, exclusive=True))
        _upper(x20, 4, -2).add_(_cumsum(p6 * q_u4 * x8, -2, reverse=True))
        _lower(x20, 8, -2).add_(_cumsum(x19 * w_l8 * x9, -2, exclusive=True))
        _upper(x20, 8, -2).add_(_cumsum(p7 * q_u8 * x11, -2, reverse=True))
        d_g = _inside(x20, T, 0.0, -2, own=True)
    if need_v:
        A_8 = x18 @ x10.mT
        A_4 = x16 @ x7.mT
        A_2 = x14 @ x4.mT
        A_here = torch.where(m, (q * w).sum(-1)[..., None], 0.0)
        A = A_here
        _pairs(A, 8).add_(A_8)
        _pairs(A, 4).add_(A_4)
        _pairs(A, 2).add_(A_2)
    if need_k or need_v:
        x21 = q_u1 * exp_log_decay
    if need_v:
        A_1 = x21 @ w_l1.mT
        _pairs(A, 1).add_(A_1)
        d_v = x12 @ d_S_all[1:] + A.mT @ x2
    if need_k:
        x22 = p9 * to_end + p3[..., None] * q
        _lower(x22, 1, -2).add_(p2_1.mT @ x21)
        _lower(x22, 2, -2).add_(x15 * x3)
        _lower(x22, 4, -2).add_(x17 * x6)
        _lower(x22, 8, -2).add_(x19 * x9)
        d_k = _inside(x22, T, 0.0, -2, own=True)
    return (
        _sequence(d_q.transpose(2, 3), T) if need_q else None,
        _sequence(d_k.transpose(2, 3), T) if need_k else None,
        _sequence(d_v.transpose(2, 3), T) if need_v else None,
        _sequence(d_g.transpose(2, 3), T) if need_g else None,
        d_S,
    )


def _step_torch(q, k, v, g, S_0):
    """One step: outputs and new states."""
    K = q.shape[2]

    # S = exp(g) * S[t-1] + k * v
    S = torch.exp(g)[..., None] * S_0 + k[..., None] * v[:, :, None]
    # output o = sum[K](q * S) / sqrt(K)
    o = (q[..., None, :] @ S)[..., 0, :] / math.sqrt(K)
    return o, S


# ---------- the recurrence in Triton: CUDA devices --------------------------------------------------------------------

triton = tl = None  # imported by _load_triton
_KERNELS = []


def _jit(function=None, **options):
    """Mark a Triton kernel. The function stays as it is until `_load_triton` hands it to Triton."""
    if function is None:
        return lambda function: _jit(function, **options)
    _KERNELS.append((function, options))
    return function


@_jit
def A_of_level(b_A, b_log_decay, b_q, b_k_in, o_t, LEVEL: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """A and what pairs of steps add in the two halves of each segment of 2 * LEVEL steps."""
    b_x = b_q * column_decay(b_log_decay, LEVEL, False, False)
    b_x_1 = b_k_in * column_decay(b_log_decay, LEVEL, True, True)
    b_A_1 = tl.where(of_level(o_t, LEVEL), tl.dot(b_x.to(DOT), tl.trans(b_x_1.to(DOT)), input_precision=PRECISION), 0.0)
    b_A += b_A_1
    return b_A


@_jit
def dg_dk_dq_of_level(
    b_dg, b_dk, b_dq, b_log_decay, b_k_in, b_sum, b_q, o_t, LEVEL: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dg, dk and dq and what pairs of steps add in the two halves of each segment of 2 * LEVEL steps."""
    b_x = product_decay(b_log_decay, LEVEL, True, True, DOT)
    b_x_1 = b_k_in * b_x
    b_sum_low = tl.where(of_level(o_t, LEVEL), b_sum, 0.0)
    b_sum_1 = tl.dot(b_sum_low.to(DOT), b_x_1.to(DOT), input_precision=PRECISION)
    b_x_2 = b_sum_1 * b_q
    b_x_3 = product_decay(b_log_decay, LEVEL, False, False, DOT)
    b_dg += product_cumsum(b_x_2 * b_x_3, LEVEL, True, False, DOT)
    b_sum_2 = tl.dot(tl.trans(b_sum_low.to(DOT)), (b_q * b_x_3).to(DOT), input_precision=PRECISION)
    b_dg += product_cumsum(b_sum_2 * b_k_in * b_x, LEVEL, False, True, DOT)
    b_dk += b_sum_2 * b_x
    b_dq += b_sum_1 * b_x_3
    return b_dg, b_dk, b_dq


@_jit(do_not_specialize=['T', 'EVERY'])
def gla_forward_kernel(
    p_S_0, p_S_in, p_S_every, p_q_kept, p_decay_kept, p_v, p_A_kept, p_o, p_k_kept, p_S_T, p_cu_seqlens, T, EVERY,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr,
    SQRT_K: tl.constexpr, STEP: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, SAVE: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    """Outputs, final states, and the states that the gradient needs."""
    NV: tl.constexpr = (V + BV - 1) // BV
    i_p = tl.program_id(0).to(tl.int64)
    i_b, i_h, i_v = i_p // (H * NV), i_p // NV % H, i_p % NV
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    NT = tl.cdiv(T, BT)
    first_block = first_block_of(p_cu_seqlens, i_b, NT, BT)
    first_span = first_block_of(p_cu_seqlens, i_b, tl.cdiv(NT, EVERY), BT * EVERY)
    o_t = tl.arange(0, BT)
    b_x = BT - o_t.to(tl.float32)
    at_hkv = ((i_b * H + i_h) * K) * V
    o_k = tl.arange(0, BK)
    o_v = (i_v * BV).to(tl.int32) + tl.arange(0, BV)
    o_hkv = o_k[:, None] * V + o_v[None, :]
    m_k = (o_k < K) | (K == BK)
    m_v = (o_v < V) | (V % BV == 0)
    m_kv = m_k[:, None] & m_v[None, :]
    b_S = tl.load(p_S_0 + at_hkv + o_hkv, mask=m_kv, other=0.0).to(tl.float32)
    o_nhtk = o_t[:, None] * K + o_k[None, :]
    o_nhtt = o_t[:, None] * BT + o_t[None, :]
    for i_n in range(0, NT):
        i_0 = i_n * BT
        at_nhkv = (((first_block + i_n) * H + i_h) * K) * V
        if not OUTPUTS:
            tl.store(p_S_in + at_nhkv + o_hkv, b_S, mask=m_kv)
        at_shkv = (((first_span + i_n // EVERY) * H + i_h) * K) * V
        if SAVE:
            if i_n % EVERY == 0:
                tl.store(p_S_every + at_shkv + o_hkv, b_S, mask=m_kv)
        at_thv = ((first + STEP * i_0) * H + i_h) * V
        o_r = tl.minimum(o_t, T - 1 - i_0)
        o_thv = o_r[:, None] * (STEP * H * V) + o_v[None, :]
        b_v = tl.load(p_v + at_thv + o_thv, mask=m_v[None, :], other=0.0).to(tl.float32)
        at_nhtk = (((first_block + i_n) * H + i_h) * BT) * K
        at_nhtt = (((first_block + i_n) * H + i_h) * BT) * BT
        m_t = o_t < T - i_0
        m_tv = m_t[:, None] & m_v[None, :]
        if OUTPUTS:
            b_q_kept = tl.load(p_q_kept + at_nhtk + o_nhtk, mask=m_k[None, :], other=0.0).to(DOT)
            b_sum = tl.dot(b_q_kept.to(DOT), b_S.to(DOT), input_precision=PRECISION)
            # what is not finite makes NaN of the sums that it is in, and of no others
            m_x = (tl.abs(b_v) < float("inf"))
            m_x_1 = (tl.max(tl.where(m_x, 0.0, b_x[:, None]), 0)[None, :] >= b_x[:, None])
            b_A_kept = tl.load(p_A_kept + at_nhtt + o_nhtt).to(DOT)
            b_x_1 = tl.where(m_x, b_v, 0.0)
            b_x_low = tl.where(m_x_1, float("nan"), tl.dot(b_A_kept.to(DOT), b_x_1.to(DOT), input_precision=PRECISION))
            # output o = sum[K](q * S) / sqrt(K)
            b_o = (b_sum + b_x_low) / SQRT_K
            tl.store(p_o + at_thv + o_thv, b_o, mask=m_tv)
        at_nhk = ((first_block + i_n) * H + i_h) * K
        b_decay_kept = tl.load(p_decay_kept + at_nhk + o_k, mask=m_k, other=0.0).to(tl.float32)
        b_x_2 = b_decay_kept[:, None] * b_S
        b_k_kept = tl.load(p_k_kept + at_nhtk + o_nhtk, mask=m_k[None, :], other=0.0).to(DOT)
        b_sum_1 = tl.dot(tl.trans(b_k_kept.to(DOT)), b_v.to(DOT), input_precision=PRECISION)
        # S = exp(g) * S[t-1] + k * v
        b_S = b_x_2 + b_sum_1
    tl.store(p_S_T + at_hkv + o_hkv, b_S, mask=m_kv)


@_jit(do_not_specialize=['B', 'T'])
def gla_pairs_kernel(
    p_g, p_decay_kept, p_q, p_q_kept, p_k, p_A_kept, p_k_kept, p_cu_seqlens, B, T, H: tl.constexpr,
    K: tl.constexpr, BK: tl.constexpr, BT: tl.constexpr, STEP: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr, COLUMNS: tl.constexpr,
):
    """Before the states, or their cotangents: what these need of pairs of steps, for all blocks at once."""
    i_p = tl.program_id(0).to(tl.int64)
    i_s, i_h = i_p // H, i_p % H
    i_b, i_n = block_of(p_cu_seqlens, i_s, B, T, BT)
    i_0 = i_n * BT
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    if p_cu_seqlens is not None and i_0 >= T:  # the pack has no block here
        return
    at_thk = ((first + STEP * i_0) * H + i_h) * K
    o_t = tl.arange(0, BT)
    o_r = tl.minimum(o_t, T - 1 - i_0)
    o_k = tl.max_contiguous(tl.arange(0, BK), COLUMNS)
    o_thk = o_r[:, None] * (STEP * H * K) + o_k[None, :]
    m_k = (o_k < K) | (K == BK)
    b_g = tl.load(p_g + at_thk + o_thk, mask=m_k[None, :], other=0.0).to(tl.float32)
    m_t = o_t < T - i_0
    b_log_decay = tl.where(m_t[:, None], b_g, 0.0)
    at_nhk = (i_s * H + i_h) * K
    tl.store(p_decay_kept + at_nhk + o_k, tl.exp(tl.sum(b_log_decay, 0)), mask=m_k)
    b_q = tl.load(p_q + at_thk + o_thk, mask=m_k[None, :], other=0.0).to(tl.float32)
    b_from_start = column_decay(b_log_decay, BT, False, False)
    at_nhtk = ((i_s * H + i_h) * BT) * K
    o_nhtk = o_t[:, None] * K + o_k[None, :]
    tl.store(p_q_kept + at_nhtk + o_nhtk, b_q * b_from_start, mask=m_k[None, :])
    b_k = tl.load(p_k + at_thk + o_thk, mask=m_k[None, :], other=0.0).to(tl.float32)
    b_k_in = tl.where(m_t[:, None], b_k, 0.0)
    b_sum = tl.dot((b_q * tl.exp(b_log_decay)).to(DOT), tl.trans(b_k_in.to(DOT)), input_precision=PRECISION)
    b_A = tl.where(of_level(o_t, 1), b_sum, 0.0)
    for i_l in tl.static_range(3):
        b_A = A_of_level(b_A, b_log_decay, b_q, b_k_in, o_t, 8 >> i_l, DOT, PRECISION)
    m_pair = (o_t[:, None] == o_t[None, :])
    b_A_here = tl.where(m_pair, tl.sum(b_q * b_k_in, 1)[:, None], 0.0)
    b_A += b_A_here
    at_nhtt = ((i_s * H + i_h) * BT) * BT
    o_nhtt = o_t[:, None] * BT + o_t[None, :]
    tl.store(p_A_kept + at_nhtt + o_nhtt, b_A)
    b_to_end = column_decay(b_log_decay, BT, True, True)
    tl.store(p_k_kept + at_nhtk + o_nhtk, b_k_in * b_to_end, mask=m_k[None, :])


@_jit(do_not_specialize=['B', 'T'])
def gla_outputs_kernel(
    p_S_in, p_q_kept, p_v, p_A_kept, p_o, p_cu_seqlens, B, T, H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr, SQRT_K: tl.constexpr, STEP: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):
    """Second phase: the outputs of all blocks at once."""
    NV: tl.constexpr = (V + BV - 1) // BV
    i_p = tl.program_id(0).to(tl.int64)
    i_s, i_h, i_v = i_p // (H * NV), i_p // NV % H, i_p % NV
    i_b, i_n = block_of(p_cu_seqlens, i_s, B, T, BT)
    i_0 = i_n * BT
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    if p_cu_seqlens is not None and i_0 >= T:  # the pack has no block here
        return
    at_nhkv = ((i_s * H + i_h) * K) * V
    o_k = tl.arange(0, BK)
    o_v = (i_v * BV).to(tl.int32) + tl.arange(0, BV)
    o_nhkv = o_k[:, None] * V + o_v[None, :]
    m_k = (o_k < K) | (K == BK)
    m_v = (o_v < V) | (V % BV == 0)
    m_kv = m_k[:, None] & m_v[None, :]
    b_S = tl.load(p_S_in + at_nhkv + o_nhkv, mask=m_kv, other=0.0).to(tl.float32)
    at_nhtk = ((i_s * H + i_h) * BT) * K
    o_t = tl.arange(0, BT)
    o_nhtk = o_t[:, None] * K + o_k[None, :]
    b_q_kept = tl.load(p_q_kept + at_nhtk + o_nhtk, mask=m_k[None, :], other=0.0).to(DOT)
    b_sum = tl.dot(b_q_kept.to(DOT), b_S.to(DOT), input_precision=PRECISION)
    at_thv = ((first + STEP * i_0) * H + i_h) * V
    o_r = tl.minimum(o_t, T - 1 - i_0)
    o_thv = o_r[:, None] * (STEP * H * V) + o_v[None, :]
    b_v = tl.load(p_v + at_thv + o_thv, mask=m_v[None, :], other=0.0).to(tl.float32)
    # what is not finite makes NaN of the sums that it is in, and of no others
    m_x = (tl.abs(b_v) < float("inf"))
    b_v_low = tl.where(m_x, b_v, 0.0)
    b_x = BT - o_t.to(tl.float32)
    b_x_1 = tl.max(tl.where(m_x, 0.0, b_x[:, None]), 0)
    at_nhtt = ((i_s * H + i_h) * BT) * BT
    o_nhtt = o_t[:, None] * BT + o_t[None, :]
    b_A_kept = tl.load(p_A_kept + at_nhtt + o_nhtt).to(DOT)
    b_sum_1 = tl.dot(b_A_kept.to(DOT), b_v_low.to(DOT), input_precision=PRECISION)
    b_x_2 = b_sum + tl.where((b_x_1[None, :] >= b_x[:, None]), float("nan"), b_sum_1)
    # output o = sum[K](q * S) / sqrt(K)
    b_o = b_x_2 / SQRT_K
    m_t = o_t < T - i_0
    m_tv = m_t[:, None] & m_v[None, :]
    tl.store(p_o + at_thv + o_thv, b_o, mask=m_tv)


@_jit(do_not_specialize=['T'])
def gla_cotangents_kernel(
    p_d_S_T, p_q_kept, p_decay_kept, p_d_S_out, p_d_o, p_d_S_0, p_cu_seqlens, T, H: tl.constexpr, K: tl.constexpr,
    V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr, SQRT_K: tl.constexpr,
    STEP: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):
    """First phase: the cotangents of the states as each block ends."""
    NV: tl.constexpr = (V + BV - 1) // BV
    i_p = tl.program_id(0).to(tl.int64)
    i_b, i_h, i_v = i_p // (H * NV), i_p // NV % H, i_p % NV
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    NT = tl.cdiv(T, BT)
    first_block = first_block_of(p_cu_seqlens, i_b, NT, BT)
    at_hkv = ((i_b * H + i_h) * K) * V
    o_k = tl.arange(0, BK)
    o_v = (i_v * BV).to(tl.int32) + tl.arange(0, BV)
    o_hkv = o_k[:, None] * V + o_v[None, :]
    m_k = (o_k < K) | (K == BK)
    m_v = (o_v < V) | (V % BV == 0)
    m_kv = m_k[:, None] & m_v[None, :]
    b_dS = tl.load(p_d_S_T + at_hkv + o_hkv, mask=m_kv, other=0.0).to(tl.float32)
    o_t = tl.arange(0, BT)
    o_nhtk = o_t[:, None] * K + o_k[None, :]
    for i_n in range(NT - 1, -1, -1):
        i_0 = i_n * BT
        at_nhtk = (((first_block + i_n) * H + i_h) * BT) * K
        b_q_kept = tl.load(p_q_kept + at_nhtk + o_nhtk, mask=m_k[None, :], other=0.0).to(DOT)
        at_nhk = ((first_block + i_n) * H + i_h) * K
        b_decay_kept = tl.load(p_decay_kept + at_nhk + o_k, mask=m_k, other=0.0).to(tl.float32)
        at_nhkv = (((first_block + i_n) * H + i_h) * K) * V
        tl.store(p_d_S_out + at_nhkv + o_hkv, b_dS, mask=m_kv)
        at_thv = ((first + STEP * i_0) * H + i_h) * V
        o_r = tl.minimum(o_t, T - 1 - i_0)
        o_thv = o_r[:, None] * (STEP * H * V) + o_v[None, :]
        m_t = o_t < T - i_0
        m_tv = m_t[:, None] & m_v[None, :]
        b_do = tl.load(p_d_o + at_thv + o_thv, mask=m_tv, other=0.0).to(tl.float32)
        # cotangents of the states, for what comes before
        b_x = b_dS * b_decay_kept[:, None]
        b_sum = tl.dot(tl.trans(b_q_kept.to(DOT)), (b_do / SQRT_K).to(DOT), input_precision=PRECISION)
        b_dS = b_x + b_sum
    tl.store(p_d_S_0 + at_hkv + o_hkv, b_dS, mask=m_kv)


@_jit(do_not_specialize=['B', 'T'])
def gla_gradients_V_kernel(
    p_k_kept, p_d_S_out, p_A_kept, p_d_o, p_d_v, p_cu_seqlens, B, T, H: tl.constexpr, K: tl.constexpr,
    V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr, SQRT_K: tl.constexpr,
    STEP: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):
    """Second phase: the gradients of v in all blocks at once, each program a piece of V."""
    NV: tl.constexpr = (V + BV - 1) // BV
    i_p = tl.program_id(0).to(tl.int64)
    i_s, i_h, i_v = i_p // (H * NV), i_p // NV % H, i_p % NV
    i_b, i_n = block_of(p_cu_seqlens, i_s, B, T, BT)
    i_0 = i_n * BT
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    if p_cu_seqlens is not None and i_0 >= T:  # the pack has no block here
        return
    at_nhtk = ((i_s * H + i_h) * BT) * K
    o_t = tl.arange(0, BT)
    o_k = tl.arange(0, BK)
    o_nhtk = o_t[:, None] * K + o_k[None, :]
    m_k = (o_k < K) | (K == BK)
    b_k_kept = tl.load(p_k_kept + at_nhtk + o_nhtk, mask=m_k[None, :], other=0.0).to(DOT)
    at_nhkv = ((i_s * H + i_h) * K) * V
    o_v = (i_v * BV).to(tl.int32) + tl.arange(0, BV)
    o_nhkv = o_k[:, None] * V + o_v[None, :]
    m_v = (o_v < V) | (V % BV == 0)
    m_kv = m_k[:, None] & m_v[None, :]
    b_dS = tl.load(p_d_S_out + at_nhkv + o_nhkv, mask=m_kv, other=0.0).to(tl.float32)
    b_sum = tl.dot(b_k_kept.to(DOT), b_dS.to(DOT), input_precision=PRECISION)
    at_nhtt = ((i_s * H + i_h) * BT) * BT
    o_nhtt = o_t[:, None] * BT + o_t[None, :]
    b_A_kept = tl.load(p_A_kept + at_nhtt + o_nhtt).to(DOT)
    at_thv = ((first + STEP * i_0) * H + i_h) * V
    o_r = tl.minimum(o_t, T - 1 - i_0)
    o_thv = o_r[:, None] * (STEP * H * V) + o_v[None, :]
    m_t = o_t < T - i_0
    m_tv = m_t[:, None] & m_v[None, :]
    b_do = tl.load(p_d_o + at_thv + o_thv, mask=m_tv, other=0.0).to(tl.float32)
    b_sum_1 = tl.dot(tl.trans(b_A_kept.to(DOT)), (b_do / SQRT_K).to(DOT), input_precision=PRECISION)
    # gradient of v
    tl.store(p_d_v + at_thv + o_thv, b_sum + b_sum_1, mask=m_tv)


@_jit(do_not_specialize=['B', 'T'])
def gla_gradients_K_kernel(
    p_v, p_d_o, p_q, p_k, p_S_in, p_g, p_d_S_out, p_d_g, p_d_q, p_d_k, p_cu_seqlens, B, T, H: tl.constexpr,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr, SQRT_K: tl.constexpr,
    STEP: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):
    """Second phase: the gradients of q, g and k in all blocks at once, each program a piece of K."""
    NK: tl.constexpr = (K + BK - 1) // BK
    i_p = tl.program_id(0).to(tl.int64)
    i_s, i_h, i_k = i_p // (H * NK), i_p // NK % H, i_p % NK
    i_b, i_n = block_of(p_cu_seqlens, i_s, B, T, BT)
    i_0 = i_n * BT
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    if p_cu_seqlens is not None and i_0 >= T:  # the pack has no block here
        return
    b_sum = tl.zeros((BT, BT), tl.float32)
    b_sum_1 = tl.zeros((BT, BK), tl.float32)
    b_sum_2 = tl.zeros((BK,), tl.float32)
    b_sum_3 = tl.zeros((BT, BK), tl.float32)
    at_thv = ((first + STEP * i_0) * H + i_h) * V
    o_t = tl.arange(0, BT)
    o_r = tl.minimum(o_t, T - 1 - i_0)
    m_t = o_t < T - i_0
    at_nhkv = ((i_s * H + i_h) * K) * V
    o_k = (i_k * BK).to(tl.int32) + tl.arange(0, BK)
    m_k = (o_k < K) | (K % BK == 0)
    for i_v in range(0, (V + BV - 1) // BV):
        o_v = i_v * BV + tl.arange(0, BV)
        o_thv = o_r[:, None] * (STEP * H * V) + o_v[None, :]
        m_v = (o_v < V) | (V % BV == 0)
        b_v = tl.load(p_v + at_thv + o_thv, mask=m_v[None, :], other=0.0).to(tl.float32)
        b_v_low = tl.where((tl.abs(b_v) < float("inf")), b_v, 0.0)
        m_tv = m_t[:, None] & m_v[None, :]
        b_do = tl.load(p_d_o + at_thv + o_thv, mask=m_tv, other=0.0).to(tl.float32)
        b_x = b_do / SQRT_K
        b_sum += tl.dot(b_x.to(DOT), tl.trans(b_v_low.to(DOT)), input_precision=PRECISION)
        o_nhkv = o_k[:, None] * V + o_v[None, :]
        m_kv = m_k[:, None] & m_v[None, :]
        b_S = tl.load(p_S_in + at_nhkv + o_nhkv, mask=m_kv, other=0.0).to(tl.float32)
        b_sum_1 += tl.dot(b_x.to(DOT), tl.trans(b_S.to(DOT)), input_precision=PRECISION)
        b_dS = tl.load(p_d_S_out + at_nhkv + o_nhkv, mask=m_kv, other=0.0).to(tl.float32)
        b_sum_2 += tl.sum(b_S * b_dS, 1)
        b_sum_3 += tl.dot(b_v.to(DOT), tl.trans(b_dS.to(DOT)), input_precision=PRECISION)
    b_sum_4 = tl.sum(tl.where((o_t[:, None] == o_t[None, :]), b_sum, 0.0), 1)
    at_thk = ((first + STEP * i_0) * H + i_h) * K
    o_thk = o_r[:, None] * (STEP * H * K) + o_k[None, :]
    b_q = tl.load(p_q + at_thk + o_thk, mask=m_k[None, :], other=0.0).to(tl.float32)
    b_dk = b_sum_4[:, None] * b_q
    b_k = tl.load(p_k + at_thk + o_thk, mask=m_k[None, :], other=0.0).to(tl.float32)
    b_k_in = tl.where(m_t[:, None], b_k, 0.0)
    b_dq = b_sum_4[:, None] * b_k_in
    b_g = tl.load(p_g + at_thk + o_thk, mask=m_k[None, :], other=0.0).to(tl.float32)
    b_log_decay = tl.where(m_t[:, None], b_g, 0.0)
    b_from_start = product_decay(b_log_decay, BT, False, False, DOT)
    b_dq += b_sum_1 * b_from_start
    b_dg = product_cumsum(b_sum_1 * b_q * b_from_start, BT, True, False, DOT)
    b_dg += (b_sum_2 * tl.exp(tl.sum(b_log_decay, 0)))[None, :]
    b_to_end = product_decay(b_log_decay, BT, True, True, DOT)
    b_dk += b_sum_3 * b_to_end
    b_dg += product_cumsum(b_sum_3 * b_k_in * b_to_end, BT, False, True, DOT)
    b_exp_log_decay = tl.exp(b_log_decay)
    b_sum_low = tl.where(of_level(o_t, 1), b_sum, 0.0)
    b_sum_5 = tl.dot(tl.trans(b_sum_low.to(DOT)), (b_q * b_exp_log_decay).to(DOT), input_precision=PRECISION)
    b_dk += b_sum_5
    b_sum_6 = tl.dot(b_sum_low.to(DOT), b_k_in.to(DOT), input_precision=PRECISION)
    b_dq += b_sum_6 * b_exp_log_decay
    b_dg += b_sum_6 * b_q * b_exp_log_decay
    for i_l in tl.static_range(3):
        b_dg, b_dk, b_dq = dg_dk_dq_of_level(
            b_dg, b_dk, b_dq, b_log_decay, b_k_in, b_sum, b_q, o_t, 8 >> i_l, DOT, PRECISION
        )
    # gradient of g
    m_tk = m_t[:, None] & m_k[None, :]
    tl.store(p_d_g + at_thk + o_thk, tl.where(m_t[:, None], b_dg, 0.0), mask=m_tk)
    # gradient of q
    tl.store(p_d_q + at_thk + o_thk, b_dq, mask=m_tk)
    # gradient of k
    tl.store(p_d_k + at_thk + o_thk, tl.where(m_t[:, None], b_dk, 0.0), mask=m_tk)


@_jit(do_not_specialize=['B', 'T', 'EVERY'])
def gla_again_kernel(
    p_S_every, p_decay_kept, p_k_kept, p_S_in, p_v, p_cu_seqlens, B, T, EVERY, H: tl.constexpr, K: tl.constexpr,
    V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr, STEP: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Before the gradients: the states as each block begins, from those that forward kept, all spans at once."""
    NV: tl.constexpr = (V + BV - 1) // BV
    i_p = tl.program_id(0).to(tl.int64)
    i_s, i_h, i_v = i_p // (H * NV), i_p // NV % H, i_p % NV
    i_b, i_c = block_of(p_cu_seqlens, i_s, B, T, BT * EVERY)
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    if p_cu_seqlens is not None and i_c * EVERY * BT >= T:  # the pack has no span here
        return
    NT = tl.cdiv(T, BT)
    first_block = first_block_of(p_cu_seqlens, i_b, NT, BT)
    at_shkv = ((i_s * H + i_h) * K) * V
    o_k = tl.arange(0, BK)
    o_v = (i_v * BV).to(tl.int32) + tl.arange(0, BV)
    o_shkv = o_k[:, None] * V + o_v[None, :]
    m_k = (o_k < K) | (K == BK)
    m_v = (o_v < V) | (V % BV == 0)
    m_kv = m_k[:, None] & m_v[None, :]
    b_S = tl.load(p_S_every + at_shkv + o_shkv, mask=m_kv, other=0.0).to(tl.float32)
    o_t = tl.arange(0, BT)
    o_nhtk = o_t[:, None] * K + o_k[None, :]
    for i_n in range(i_c * EVERY, tl.minimum(NT, i_c * EVERY + EVERY)):
        i_0 = i_n * BT
        at_nhk = ((first_block + i_n) * H + i_h) * K
        b_decay_kept = tl.load(p_decay_kept + at_nhk + o_k, mask=m_k, other=0.0).to(tl.float32)
        at_nhtk = (((first_block + i_n) * H + i_h) * BT) * K
        b_k_kept = tl.load(p_k_kept + at_nhtk + o_nhtk, mask=m_k[None, :], other=0.0).to(DOT)
        at_nhkv = (((first_block + i_n) * H + i_h) * K) * V
        tl.store(p_S_in + at_nhkv + o_shkv, b_S, mask=m_kv)
        at_thv = ((first + STEP * i_0) * H + i_h) * V
        o_r = tl.minimum(o_t, T - 1 - i_0)
        o_thv = o_r[:, None] * (STEP * H * V) + o_v[None, :]
        b_v = tl.load(p_v + at_thv + o_thv, mask=m_v[None, :], other=0.0).to(tl.float32)
        # S = exp(g) * S[t-1] + k * v
        b_x = b_decay_kept[:, None] * b_S
        b_sum = tl.dot(tl.trans(b_k_kept.to(DOT)), b_v.to(DOT), input_precision=PRECISION)
        b_S = b_x + b_sum


@_jit(do_not_specialize=['T'])
def gla_steps_kernel(
    p_S_0, p_q, p_g, p_k, p_v, p_o, p_S_T, p_cu_seqlens, T, H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, SQRT_K: tl.constexpr, STEP: tl.constexpr,
):
    """Outputs and final states, step by step: for sequences too short for blocks."""
    NV: tl.constexpr = (V + BV - 1) // BV
    i_p = tl.program_id(0).to(tl.int64)
    i_b, i_h, i_v = i_p // (H * NV), i_p // NV % H, i_p % NV
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    at_hkv = ((i_b * H + i_h) * K) * V
    o_k = tl.arange(0, BK)
    o_v = (i_v * BV).to(tl.int32) + tl.arange(0, BV)
    o_hkv = o_k[:, None] * V + o_v[None, :]
    m_k = (o_k < K) | (K == BK)
    m_v = (o_v < V) | (V % BV == 0)
    m_kv = m_k[:, None] & m_v[None, :]
    b_S = tl.load(p_S_0 + at_hkv + o_hkv, mask=m_kv, other=0.0).to(tl.float32)
    for i_t in range(0, T):
        at_thk = ((first + STEP * i_t) * H + i_h) * K
        b_q = tl.load(p_q + at_thk + o_k, mask=m_k, other=0.0).to(tl.float32)
        b_g = tl.load(p_g + at_thk + o_k, mask=m_k, other=0.0).to(tl.float32)
        b_k = tl.load(p_k + at_thk + o_k, mask=m_k, other=0.0).to(tl.float32)
        at_thv = ((first + STEP * i_t) * H + i_h) * V
        b_v = tl.load(p_v + at_thv + o_v, mask=m_v, other=0.0).to(tl.float32)
        # S = exp(g) * S[t-1] + k * v
        b_S_next = tl.exp(b_g)[:, None] * b_S + b_k[:, None] * b_v[None, :]
        # output o = sum[K](q * S) / sqrt(K)
        b_o = tl.sum(b_q[:, None] * b_S_next, 0) / SQRT_K
        tl.store(p_o + at_thv + o_v, b_o, mask=m_v)
        b_S = b_S_next
    tl.store(p_S_T + at_hkv + o_hkv, b_S, mask=m_kv)


# Programs that share a multiprocessor, nanoseconds of a block of one alone there and of so many, bytes that a block moves,
# whether a program does one block after the other, and launches: by the model of the tiles, for sm_90, bf16, H = 8, K = 64, V = 64.
_PACE = {
    "forward": (5, 725, 1416, 4480, True, 1),
    "states": (12, 548, 1228, 3136, True, 1),
    "outputs": (12, 1360, 7271, 14848, False, 1),
}


def _needs_triton(io, K, V):
    """By kernel: bytes of shared memory for the tiles that it keeps, and for one turn's loads. io: those of an element."""
    BK = _pad(K, 16)
    BV = min(_pad(V, 16), 128)
    return {
        "forward": (16 * BK * io + 32 * BK * io, 512 * io + 16 * BK * 2 * io + 256 * io),
        "pairs": (16 * BK * 2 * io, 16 * BK * 3 * io),
        "states": (256 * io + 16 * BK * io, 256 * io + 16 * BK * io),
        "outputs": (1024 * io + 64 * BK * io, 64 * BK * io + 16 * BK * io + 1024 * io + 256 * io),
        "cotangents": (16 * BK * io + 256 * io, 16 * BK * io + 256 * io),
        "gradients_V": (1024 * io + 64 * BK * io, 16 * BK * io + 64 * BK * io + 256 * io + 1024 * io),
        "gradients_K": (64 * BV * 2 * io, 16 * BV * 2 * io + 64 * BV * 2 * io + 1024 * 3 * io),
        "again": (1024 * io + 16 * BK * io, 16 * BK * io + 1024 * io),
    }


def _stages(kernel, most, x, K, V):
    """How many turns' loads a kernel may have in flight: as many as fit beside what it keeps."""
    kept, loads = _needs_triton(x.element_size(), K, V)[kernel]
    return max(1, min(most, (_room(x.device) - kept) // max(loads, 1)))


_READY = {}  # device, dtype, sizes and whether no gradient follows -> whether the kernels fit


def _ready_triton(x, K, V, alone=False):
    """Whether the kernels' tiles fit the device at these sizes: all of them, or those that a call takes where no gradient
    follows. It is asked at every call, and remembers."""
    K, V = int(K), int(V)
    key = x.device, x.dtype, K, V, alone
    if key not in _READY:
        room, needs = _room(x.device), _needs_triton(x.element_size(), K, V)
        kernels = ("forward", "pairs", "states", "outputs") if alone else needs
        need = max((sum(needs[k]) for k in kernels), default=0)
        _READY[key] = need <= room
        if need > room and not alone:
            warnings.warn(
                f"gla: with K = {K}, V = {V} a program of the Triton kernels needs {need} bytes of shared memory, and may have "
                f"{room} on {x.device}: plain torch runs. Kernels for such sizes alone, or what stands against them: "
                f"seqc compile SPEC --dim K={K} --dim V={V}",
                stacklevel=2,
            )
    return _READY[key]


_FEW_STEPS = 5  # so many steps, taken one by one, are modelled no slower than a block of 16


def _steps_triton(q, k, v, g, S_0, *, cu_seqlens=None, reverse=False):
    """Outputs and final states, step by step."""
    B, T, H, K = q.shape
    V = v.shape[3]
    B, _, _, empty, cu_seqlens = _extents(B, T, 1, cu_seqlens)
    STEP = -1 if reverse else 1
    BK = _pad(K)
    BV = min(_pad(V), 32)
    o = empty((*q.shape[:2], H, V), dtype=q.dtype, device=q.device)
    S_T = torch.empty((B, H, K, V), dtype=torch.float32, device=q.device)
    gla_steps_kernel[(B * H * -(-V // BV),)](
        S_0, q, g, k, v, o, S_T, cu_seqlens, T, H=H, K=K, V=V, BK=BK, BV=BV, SQRT_K=math.sqrt(K), STEP=STEP,
        num_warps=8, num_stages=1, enable_fp_fusion=True,
    )
    return o, S_T


def _run_triton(save, q, k, v, g, S_0, *, cu_seqlens=None, reverse=False):
    """Outputs and final states; and what the gradient needs, or None where the first argument says that none follows."""
    B, T, H, K = q.shape
    V = v.shape[3]
    B, NT, N_BLOCKS, empty, cu_seqlens = _extents(B, T, 16, cu_seqlens)
    EVERY, _, N_KEPT = _spans(B, T, 16, H * -(-V // min(_pad(V, 16), 64)), enough=109, packed=cu_seqlens is not None)
    STEP = -1 if reverse else 1
    DOT, PRECISION = _types(q, k, v, g)
    BK = _pad(K, 16)
    BV = min(_pad(V, 16), 32)
    S_every = torch.empty((N_KEPT, H, K, V), dtype=torch.float32, device=q.device) if save else None
    o = empty((*q.shape[:2], H, V), dtype=q.dtype, device=q.device)
    S_T = torch.empty((B, H, K, V), dtype=torch.float32, device=q.device)
    decay_kept = torch.empty((N_BLOCKS, H, K), dtype=torch.float32, device=q.device)
    q_kept = torch.empty((N_BLOCKS, H, 16, K), dtype=q.dtype, device=q.device)
    A_kept = torch.empty((N_BLOCKS, H, 16, 16), dtype=q.dtype, device=q.device)
    k_kept = torch.empty((N_BLOCKS, H, 16, K), dtype=q.dtype, device=q.device)
    gla_pairs_kernel[(N_BLOCKS * H,)](
        g, decay_kept, q, q_kept, k, A_kept, k_kept, cu_seqlens, B, T, H=H, K=K, BK=BK, BT=16, STEP=STEP, DOT=DOT,
        PRECISION=PRECISION, COLUMNS=max(BK // 32, 1), num_warps=1, num_stages=1, enable_fp_fusion=True,
    )
    way = _way(
        _PACE, q, NT,
        {"forward": B * H * -(-V // BV)},
        {"states": B * H * -(-V // min(_pad(V, 16), 16)), "outputs": B * H * -(-V // min(_pad(V, 16), 64))},
    )
    if way == 1:
        BV = min(_pad(V, 16), 16)
        S_in = torch.empty((N_BLOCKS, H, K, V), dtype=q.dtype, device=q.device)
        gla_forward_kernel[(B * H * -(-V // BV),)](
            S_0, S_in, S_every, None, decay_kept, v, None, None, k_kept, S_T, cu_seqlens, T, EVERY, H=H, K=K, V=V,
            BK=BK, BV=BV, BT=16, SQRT_K=math.sqrt(K), STEP=STEP, DOT=DOT, PRECISION=PRECISION,
            SAVE=save and N_KEPT > 0, OUTPUTS=False, num_warps=4, num_stages=_stages("states", 2, q, K, V),
            enable_fp_fusion=True,
        )
        BV = min(_pad(V, 16), 64)
        gla_outputs_kernel[(N_BLOCKS * H * -(-V // BV),)](
            S_in, q_kept, v, A_kept, o, cu_seqlens, B, T, H=H, K=K, V=V, BK=BK, BV=BV, BT=16, SQRT_K=math.sqrt(K),
            STEP=STEP, DOT=DOT, PRECISION=PRECISION, num_warps=4, num_stages=1, enable_fp_fusion=True,
        )
    else:
        gla_forward_kernel[(B * H * -(-V // BV),)](
            S_0, None, S_every, q_kept, decay_kept, v, A_kept, o, k_kept, S_T, cu_seqlens, T, EVERY, H=H, K=K, V=V,
            BK=BK, BV=BV, BT=16, SQRT_K=math.sqrt(K), STEP=STEP, DOT=DOT, PRECISION=PRECISION,
            SAVE=save and N_KEPT > 0, OUTPUTS=True, num_warps=4, num_stages=_stages("forward", 2, q, K, V),
            enable_fp_fusion=True,
        )
    return o, S_T, S_every


def _forward_triton(*tensors, cu_seqlens=None, reverse=False):
    """Outputs, final states, and what the gradient needs."""
    return _run_triton(True, *tensors, cu_seqlens=cu_seqlens, reverse=reverse)


def _infer_triton(*tensors, cu_seqlens=None, reverse=False):
    """Outputs and final states."""
    if tensors[0].shape[1] <= _FEW_STEPS:
        return _steps_triton(*tensors, cu_seqlens=cu_seqlens, reverse=reverse)
    return _run_triton(False, *tensors, cu_seqlens=cu_seqlens, reverse=reverse)[:2]


def _backward_triton(q, k, v, g, S_0, S_every, d_o, d_S_T, *, cu_seqlens=None, reverse=False, needs=(True,) * 5):
    """Gradients of every argument of forward."""
    B, T, H, K = q.shape
    V = v.shape[3]
    B, _, N_BLOCKS, empty, cu_seqlens = _extents(B, T, 16, cu_seqlens)
    EVERY, N_SPANS, N_KEPT = _spans(
        B, T, 16, H * -(-V // min(_pad(V, 16), 64)), enough=109, packed=cu_seqlens is not None
    )
    STEP = -1 if reverse else 1
    DOT, PRECISION = _types(q, k, v, g)
    BK = _pad(K, 16)
    BV = min(_pad(V, 16), 16)
    decay_kept = torch.empty((N_BLOCKS, H, K), dtype=torch.float32, device=q.device)
    q_kept = torch.empty((N_BLOCKS, H, 16, K), dtype=q.dtype, device=q.device)
    A_kept = torch.empty((N_BLOCKS, H, 16, 16), dtype=q.dtype, device=q.device)
    k_kept = torch.empty((N_BLOCKS, H, 16, K), dtype=q.dtype, device=q.device)
    gla_pairs_kernel[(N_BLOCKS * H,)](
        g, decay_kept, q, q_kept, k, A_kept, k_kept, cu_seqlens, B, T, H=H, K=K, BK=BK, BT=16, STEP=STEP, DOT=DOT,
        PRECISION=PRECISION, COLUMNS=max(BK // 32, 1), num_warps=1, num_stages=1, enable_fp_fusion=True,
    )
    BV = min(_pad(V, 16), 64)
    S_in = torch.empty((N_BLOCKS, H, K, V), dtype=_state_type(q.dtype), device=q.device)
    gla_again_kernel[(N_SPANS * H * -(-V // BV),)](
        S_every if N_KEPT else S_0, decay_kept, k_kept, S_in, v, cu_seqlens, B, T, EVERY, H=H, K=K, V=V, BK=BK,
        BV=BV, BT=16, STEP=STEP, DOT=DOT, PRECISION=PRECISION, num_warps=4,
        num_stages=_stages("again", 2, q, K, V), enable_fp_fusion=True,
    )
    BV = min(_pad(V, 16), 16)
    d_S_out = torch.empty((N_BLOCKS, H, K, V), dtype=_state_type(q.dtype), device=q.device)
    d_S_0 = torch.empty((B, H, K, V), dtype=torch.float32, device=q.device)
    gla_cotangents_kernel[(B * H * -(-V // BV),)](
        d_S_T, q_kept, decay_kept, d_S_out, d_o, d_S_0, cu_seqlens, T, H=H, K=K, V=V, BK=BK, BV=BV, BT=16,
        SQRT_K=math.sqrt(K), STEP=STEP, DOT=DOT, PRECISION=PRECISION, num_warps=4,
        num_stages=_stages("cotangents", 2, q, K, V), enable_fp_fusion=True,
    )
    BV = min(_pad(V, 16), 64)
    if needs[2]:
        d_v = empty((*q.shape[:2], H, V), dtype=v.dtype, device=q.device)
        gla_gradients_V_kernel[(N_BLOCKS * H * -(-V // BV),)](
            k_kept, d_S_out, A_kept, d_o, d_v, cu_seqlens, B, T, H=H, K=K, V=V, BK=BK, BV=BV, BT=16,
            SQRT_K=math.sqrt(K), STEP=STEP, DOT=DOT, PRECISION=PRECISION, num_warps=4, num_stages=1,
            enable_fp_fusion=True,
        )
    BK = min(_pad(K, 16), 64)
    BV = min(_pad(V, 16), 128)
    if needs[0] or needs[1] or needs[3]:
        d_g = empty((*q.shape[:2], H, K), dtype=g.dtype, device=q.device)
        d_q = empty((*q.shape[:2], H, K), dtype=q.dtype, device=q.device)
        d_k = empty((*q.shape[:2], H, K), dtype=k.dtype, device=q.device)
        gla_gradients_K_kernel[(N_BLOCKS * H * -(-K // BK),)](
            v, d_o, q, k, S_in, g, d_S_out, d_g, d_q, d_k, cu_seqlens, B, T, H=H, K=K, V=V, BK=BK, BV=BV, BT=16,
            SQRT_K=math.sqrt(K), STEP=STEP, DOT=DOT, PRECISION=PRECISION, num_warps=2, num_stages=1,
            enable_fp_fusion=True,
        )
    return d_q if needs[0] else None, d_k if needs[1] else None, d_v if needs[2] else None, d_g if needs[3] else None, d_S_0


def _step_triton(q, k, v, g, S_0):
    """One step: a sequence of one."""
    o, S_T = _steps_triton(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1), g.unsqueeze(1), S_0)
    return o.squeeze(1), S_T


# ---------- from a call to the recurrence: the same in every file, but for names and numbers --------------------------


def _cast(q, k, v, g):
    """The inputs in the dtypes that the operators take."""
    try:
        main = q.dtype
        if (
            k.dtype != main
            or v.dtype != main
            or g.dtype != main
            or main not in _FLOATS
            or (q.device.type in _AUTOCAST and torch.is_autocast_enabled(q.device.type))
        ):
            return _fit(q, k, v, g)
    except AttributeError:  # one is no tensor
        raise _dtype_error(q=q, k=k, v=v, g=g) from None
    return q, k, v, g


def _fit(*inputs):
    """The inputs, cast where autocast asks for it; TypeError where their dtypes do not fit together.

    Under autocast gates become float32 and the others the autocast dtype, as a matrix product's would; float64 stays.
    """
    if not _FLOATS.issuperset(x.dtype for x in inputs):
        raise _dtype_error(**dict(zip(_INPUTS, inputs, strict=True)))
    device, main = inputs[0].device.type, inputs[0].dtype
    if device in _AUTOCAST and torch.is_autocast_enabled(device) and main != torch.float64:
        main = torch.get_autocast_dtype(device)
        inputs = [x.to(torch.float32 if name in _GATES else main) for name, x in zip(_INPUTS, inputs, strict=True)]
    for name, x in zip(_INPUTS, inputs):
        if x.dtype != main and not (name in _GATES and x.dtype == torch.float32):
            raise TypeError(f"gla: {name} is {x.dtype}, {_INPUTS[0]} is {main}; inputs share a dtype")
    return inputs


def _dtype_error(**tensors):
    """The first tensor whose dtype is not served, as an error that says what to do."""
    name, x = next((name, x) for name, x in tensors.items() if getattr(x, "dtype", None) not in _FLOATS)
    if not isinstance(x, Tensor):
        kind = {"NoneType": "None", "ndarray": "an array of numpy"}.get(type(x).__name__, f"a {type(x).__name__}")
        help = {"ndarray": f": torch.from_numpy({name})", "list": f": torch.tensor({name})"}.get(type(x).__name__, "")
        return TypeError(f"gla: {name} is {kind}; it is a tensor [{_AXES[name].replace(' ', ', ')}]{help}")
    dtype = x.dtype
    what = "inputs" if name in _INPUTS else "initial states" if name.endswith("_0") else "parameters"
    if dtype.is_complex:
        help = "give real and imaginary parts as arguments of their own (x.real, x.imag)"
    elif dtype.is_floating_point:
        help = "convert it first, with its scale: x.to(torch.bfloat16)"
    else:
        help = "convert it first: x.to(torch.float32)"
    kinds = f"{what} are floating-point numbers of 64, 32 or 16 bits"
    return TypeError(f"gla: {name} is {dtype}; {kinds}: {help}")


def _to_carry(name, x, carry):
    """An initial state in the dtype that states have."""
    if x.dtype not in _FLOATS:
        raise _dtype_error(**{name: x})
    return x.to(carry)


_FLOATS = frozenset((torch.float64, torch.float32, torch.bfloat16, torch.float16))
_INPUTS = tuple("q k v g".split())
_GATES = frozenset("g".split())


def _call(operator, *arguments):
    """The operator's results; under `no_grad` without the stop at autograd that inference mode leaves out by itself."""
    needed = torch.compiler.is_compiling() or torch.is_grad_enabled() or forward_ad._current_level >= 0  # tangents
    if needed or torch.is_inference_mode_enabled():
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def _named(function, module=False):
    """The function, or the call of a Module with this `forward`, whose errors name the argument that does not fit."""

    @functools.wraps(function)
    def call(*given, **named):
        try:
            return (torch.nn.Module.__call__ if module else function)(*given, **named)
        except (AttributeError, TypeError):
            _check_call(function, given, named)
            raise

    return call


def _check_call(function, given, named):
    """TypeError where an argument is unknown, missing, given twice or no tensor."""
    import inspect

    head, who = inspect.signature(function), function.__qualname__.removesuffix(".forward").removesuffix(".__init__")
    known = {name: x for name, x in head.parameters.items() if name != "self"}
    takes = ", ".join(f"{x} [{_AXES[x].replace(' ', ', ')}]" if x in _AXES else f"{x}=" for x in known)
    try:
        if unknown := [name for name in named if name not in known]:
            raise TypeError(f"there is no argument '{unknown[0]}'")
        found = head.bind(*given, **named).arguments
    except TypeError as why:
        raise TypeError(f"{who}: {why}; it takes {takes}") from None
    for name, x in found.items():
        if name in _AXES and not isinstance(x, Tensor) and (x is not None or known[name].default is not None):
            raise _dtype_error(**{name: x})


def _whole_sizes(least: int, /, **sizes: int) -> dict[str, int]:
    """The sizes that a layer is made with, 0 for one that each call tells; ValueError where one is no size."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not hasattr(size, "__index__") or size < least:
            raise ValueError(f"{name} is {size!r}; a size is a whole number, {least} or more")
    return sizes


def _as_made(layer, **inputs):
    """ValueError where an input has other sizes than the layer was made with."""
    for name, x in inputs.items():
        axes = _AXES[name].split()
        for axis, size in zip(axes[::-1], x.shape[::-1] if isinstance(x, Tensor) else ()):
            if (layer.dims.get(axis) or size) != size:
                why = f"{axis} is {size} here and {layer.dims[axis]} in {type(layer).__name__}({layer.extra_repr()})"
                raise ValueError(f"{name} has shape {list(x.shape)} for [{', '.join(axes)}]; {why}")


if not TYPE_CHECKING:
    gla = _named(gla)
    GLA.__init__ = _named(GLA.__init__)
    GLA.__call__ = _named(GLA.forward, True)


def _along(axis, cu_seqlens, reverse, *tensors):
    """The call whose steps lie along one of the axes before the dims; the others are batch, by views if possible."""
    main = tensors[0]
    count = main.dim() - 2
    if not -count <= axis < count:
        raise ValueError(f"gla: axis is {axis}; q has {count} axes before its dims: {list(main.shape)}")
    lead, axis = main.shape[:count], axis % count
    batch = (*lead[:axis], *lead[axis + 1 :])
    given = {}
    for x, (name, axes) in zip(tensors, _AXES.items(), strict=True):
        own, *dims = axes.split() or [""]
        if x is not None and own == "B" and (cu_seqlens is None or dims[:1] == ["T"]):
            ahead, dims = (lead, dims[1:]) if dims[:1] == ["T"] else (batch, dims)
            if x.dim() != len(ahead) + len(dims) or x.shape[: len(ahead)] != ahead:
                want, why = ", ".join([*map(str, ahead), *dims]), f"axis {axis} of q has the steps"
                raise ValueError(f"gla: {name} has shape {list(x.shape)} for [{want}]; {why}")
            x = x.movedim(axis, count - 1) if ahead is lead else x
            x = x.reshape((math.prod(batch), *x.shape[len(batch) :]))
        given[name] = x
    results = gla(**given, cu_seqlens=cu_seqlens, reverse=reverse)
    outputs = [o.reshape((*batch, *o.shape[1:])).movedim(count - 1, axis) for o in results[:1]]
    states = results[1:]
    if cu_seqlens is None:
        states = [s.reshape((*batch, *s.shape[1:])) for s in states]
    return GLAResult(*outputs, *states)


def _in_pieces(every, axis, cu_seqlens, reverse, /, **given):
    """The call in pieces of `every` steps, each from the states that the last one left."""
    main, packed = given["q"], cu_seqlens is not None
    count = main.dim() - 2
    at = 1 if axis is None else axis % count
    if every < 1:
        raise ValueError(f"gla: states_every is {every}; states are kept after every so many steps, 1 or more")
    if axis is not None and (packed or not -count <= axis < count):
        why = "states_every of a pack takes none" if packed else f"q has {count} axes before its dims"
        raise ValueError(f"gla: axis is {axis}; {why}")
    bounds = [0, main.shape[at]]
    if packed:  # pieces are cut from each sequence: its bounds are read, and a GPU is waited for
        _sequences(cu_seqlens, main)
        _steps(cu_seqlens.cpu(), main)
        bounds = cu_seqlens.tolist()
    last = reverse is not False  # whether runs begin at the last step
    lengths = [after - before for before, after in zip(bounds, bounds[1:])]
    results, places, kept = [], [], []
    for start in range(0, max(lengths + [1]), every):
        rows = []
        for before, size in zip(bounds, lengths):
            low, high = min(start, size), min(start + every, size)
            rows.append((before + size - high, before + size - low) if last else (before + low, before + high))
        own, cuts = {x: given[x] for x in "q k v g".split() if given[x] is not None}, None
        if packed:
            places.append(torch.cat([torch.arange(*row, device=main.device) for row in rows or [(0, 0)]]))
            own = {name: x.index_select(1, places[-1]) for name, x in own.items()}
            sizes = torch.tensor([0] + [high - low for low, high in rows], device=main.device)
            cuts = sizes.cumsum(0).to(cu_seqlens.dtype)
        else:
            own = {name: x.narrow(at, rows[0][0], rows[0][1] - rows[0][0]) for name, x in own.items()}
        result = gla(**given | own, cu_seqlens=cuts, reverse=reverse, axis=axis)
        given |= dict(zip(("S_0",), result[1:]))
        results.append(result)
        kept.append([i for i, size in enumerate(lengths) if start + every <= size])
    whole = []
    for parts in zip(*(result[:1] for result in results)):
        joined = torch.cat(parts[::-1] if last and not packed else parts, at)
        if packed:
            joined = joined.new_zeros(1, main.shape[1], *joined.shape[2:]).index_copy(1, torch.cat(places), joined)
        whole.append(joined)
    found = GLAStates(*whole, *results[-1][1:])
    order = sorted((i, piece) for piece, ones in enumerate(kept) for i in ones)
    for name, state in zip(found._fields[1:], found[1:]):
        parts = [getattr(results[piece], name) for _, piece in order]
        if packed:
            parts, nothing = [part[i] for part, (i, _) in zip(parts, order)], state[:0]
        else:
            nothing = state.unsqueeze(at).narrow(at, 0, 0)
        setattr(found, name[:-1] + "every", torch.stack(parts, 0 if packed else at) if parts else nothing)
    return found


def _written(result, given, inplace, into):
    """The result in tensors of the caller: states in those that were given (inplace), the rest in an earlier result."""
    if any(x.requires_grad for x in result):
        why = "inplace= and into= keep nothing that a gradient needs: call it under torch.no_grad()"
        raise RuntimeError(f"gla_step: {why}")
    places = list(result if into is None else into)
    if inplace:
        places[1:] = [y if x is None else x for x, y in zip(given, places[1:], strict=True)]
    for place, x in zip(places, result, strict=True):
        if place.shape != x.shape or place.dtype != x.dtype:
            said = f"{list(place.shape)} of {place.dtype}, and the step gives {list(x.shape)} of {x.dtype}"
            raise ValueError(f"gla_step: a tensor to write has shape {said}")
    if len(set(map(id, places))) < len(places):
        raise ValueError("gla_step: one tensor is to be written twice: give every state its own")
    for place, x in zip(places, result, strict=True):
        if place is not x:
            place.copy_(x)
    return type(result)(*places)


# ---------- what kernels in Triton share: the same in every file ------------------------------------------------------


def _load_triton():
    """Import Triton and hand it the kernels: done once, when a CUDA tensor arrives, for nothing else needs Triton."""
    global triton, tl
    if _KERNELS:
        import triton
        import triton.language as tl

        for function, options in _KERNELS:
            globals()[function.__name__] = triton.jit(function, **options)
        _KERNELS.clear()
        hopper = torch.version.cuda and torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
        if hopper and torch.torch_version.TorchVersion(triton.__version__) < "3.7.1":
            warnings.warn(
                f"Triton {triton.__version__} may miscompile products with transposed operands here: take 3.7.1 or later",
                stacklevel=2,
            )


@_jit
def joined_segments(run, whole, REVERSE: tl.constexpr, PRODUCT: tl.constexpr):
    """Running sums `run` [C, W] and sums `whole` [N, W] of N segments of C rows -> those of N/2 segments of two each.

    Of two neighbours the one that is run through later takes the other's sum; PRODUCT: products instead of sums.
    """
    N: tl.constexpr = whole.shape[0] // 2
    C: tl.constexpr = run.shape[0]
    W: tl.constexpr = run.shape[1]
    later = tl.arange(0, 2)[None, :, None] == (0 if REVERSE else 1)
    whole = tl.reshape(whole, (N, 2, W))
    before = tl.sum(tl.where(later, -0.0, whole), 1)
    own = tl.sum(tl.where(later, whole, -0.0), 1)
    run = tl.reshape(run, (N, 2, C // N // 2, W))
    added = run * before[:, None, None, :] if PRODUCT else run + before[:, None, None, :]
    run = tl.where(later[:, :, None, :], added, run)
    return tl.reshape(run, (C, W)), before * own if PRODUCT else before + own


@_jit
def column_cumsum(x, BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    """Running sum of x along axis 0 (rank 2 or 3), begun afresh every BLOCK rows, from the end where REVERSE.

    Two by two segments become one: threads that hold whole columns exchange no value. Nothing is added and taken off again, so
    -inf rows are exact; EXCLUSIVE leaves the own row out.
    """
    C: tl.constexpr = x.shape[0]
    if BLOCK == C and not EXCLUSIVE:
        return tl.cumsum(x, 0, reverse=REVERSE)
    whole = tl.reshape(x, (C, x.numel // C))
    run = tl.zeros(whole.shape, tl.float32) if EXCLUSIVE else whole
    for i in tl.static_range(7):
        if 1 << i < BLOCK:
            run, whole = joined_segments(run, whole, REVERSE, False)
    return tl.reshape(run, x.shape)


@_jit
def column_decay(x, BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    """exp(column_cumsum(x, ..)) of x <= 0, as products of one exponential for each element of x, whatever BLOCK is.

    No factor is above 1: nothing overflows, and a product is 0 only where its exponential is.
    """
    C: tl.constexpr = x.shape[0]
    whole = tl.exp(tl.reshape(x, (C, x.numel // C)))
    run = tl.full(whole.shape, 1.0, tl.float32) if EXCLUSIVE else whole
    for i in tl.static_range(7):
        if 1 << i < BLOCK:
            run, whole = joined_segments(run, whole, REVERSE, True)
    return tl.reshape(run, x.shape)


@_jit
def sum_by_product(x, BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    """column_cumsum(x, ..) of rank 2 as a product with zeros and ones: nothing of a tile that a product left moves first.

    x is the sum of three parts in bf16, to the last bit. Elements that are no finite numbers are counted by another product,
    and make NaN of the sums that they are in, and of no others.
    """
    o_t = tl.arange(0, x.shape[0])[:, None]
    o_s = tl.arange(0, x.shape[0])[None, :]
    before = o_s > o_t if REVERSE else o_s < o_t
    own = before if EXCLUSIVE else before | (o_s == o_t)
    b_ones = tl.where(own & (o_t // BLOCK == o_s // BLOCK), 1.0, 0.0).to(tl.bfloat16)
    finite = tl.abs(x) < float("inf")
    x = tl.where(finite, x, 0.0)
    b_high = x.to(tl.bfloat16)
    x -= b_high.to(tl.float32)
    b_mid = x.to(tl.bfloat16)
    b_sum = tl.dot(b_ones, (x - b_mid.to(tl.float32)).to(tl.bfloat16))
    b_sum = tl.dot(b_ones, b_high, tl.dot(b_ones, b_mid, b_sum))
    return tl.where(tl.dot(b_ones, tl.where(finite, 0.0, 1.0).to(tl.bfloat16)) == 0.0, b_sum, float("nan"))


@_jit
def product_cumsum(x, BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr, DOT: tl.constexpr):
    """column_cumsum(x, ..); where products take bf16 it is one of them."""
    if DOT == tl.bfloat16 and len(x.shape) == 2 and min(x.shape[0], x.shape[1]) >= 16:
        return sum_by_product(x, BLOCK, REVERSE, EXCLUSIVE)
    else:
        return column_cumsum(x, BLOCK, REVERSE, EXCLUSIVE)


@_jit
def product_decay(x, BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr, DOT: tl.constexpr):
    """column_decay(x, ..), likewise; -inf counts as -1e30, of which the exponential is 0 as well."""
    if DOT == tl.bfloat16 and len(x.shape) == 2 and min(x.shape[0], x.shape[1]) >= 16:
        return tl.exp(sum_by_product(tl.where(x < -1e30, -1e30, x), BLOCK, REVERSE, EXCLUSIVE))
    else:
        return column_decay(x, BLOCK, REVERSE, EXCLUSIVE)


@_jit
def of_level(o_t, LEVEL: tl.constexpr):
    """[t, s]: whether t lies in the upper and s in the lower half of one segment of 2 * LEVEL of the steps o_t."""
    later = (o_t // LEVEL)[:, None] > (o_t // LEVEL)[None, :]
    if 2 * LEVEL < o_t.shape[0]:
        later &= (o_t // (2 * LEVEL))[:, None] == (o_t // (2 * LEVEL))[None, :]
    return later


@_jit
def sequence(p_cu_seqlens, i_b, T, STEP: tl.constexpr):
    """(row of the first step taken, number of steps) of sequence i_b, which is taken from its end where STEP is -1."""
    if p_cu_seqlens is None:
        first = i_b * T
    else:
        first = tl.load(p_cu_seqlens + i_b).to(tl.int64)
        T = (tl.load(p_cu_seqlens + i_b + 1) - first).to(tl.int32)
    if STEP < 0:
        first += T - 1
    return first, T


@_jit
def first_block_of(p_cu_seqlens, i_b, NT, BT):
    """Where the blocks of sequence i_b begin, in what has an entry per block."""
    if p_cu_seqlens is None:
        at = i_b * NT
    else:
        at = tl.load(p_cu_seqlens + i_b).to(tl.int64) // BT + i_b
    return at


@_jit
def block_of(p_cu_seqlens, i_s, B, T, BT):
    """(sequence, its block) at entry i_s of what has an entry per block; past the sequence's end where no block is there."""
    if p_cu_seqlens is None:
        NT = tl.cdiv(T, BT)
        i_b = i_s // NT
        i_n = i_s % NT
    else:  # the last sequence whose blocks begin here or before: each turn leaves a 32nd of them
        i_b = 0 * i_s
        left = B
        while left > 1:
            part = tl.cdiv(left, 32)
            o_part = tl.arange(0, 32) * part
            bounds = tl.load(p_cu_seqlens + i_b + o_part, mask=o_part < left, other=0).to(tl.int64)
            before = (bounds // BT + i_b + o_part <= i_s) & (o_part < left)
            skipped = (tl.sum(before.to(tl.int32), 0) - 1) * part
            i_b += skipped
            left = tl.minimum(part, left - skipped)
        i_n = i_s - (tl.load(p_cu_seqlens + i_b).to(tl.int64) // BT + i_b)
    return i_b, i_n.to(tl.int32)


def _pad(extent, least=1):
    """The tile length that holds `extent` elements: a power of two."""
    return max(least, 1 << max(extent - 1, 0).bit_length())


def _types(*tensors):
    """(type of the operands of matrix products, precision of fp32 products), for inputs of these types."""
    kinds = {x.dtype for x in tensors}
    operands = tl.bfloat16 if torch.bfloat16 in kinds else tl.float16 if torch.float16 in kinds else tl.float32
    return operands, "ieee" if torch.version.hip else "tf32x3"


def _extents(B, T, rows, cu_seqlens):
    """(sequences, blocks of one, entries for all blocks, what makes an array with an entry per step, bounds) of a call.

    rows: of a block. A pack is cu_seqlens.shape[0] - 1 sequences in one row of T steps, of lengths that the host does not know:
    blocks are those of a mean one, entries a bound, and zeros stand where no sequence has any.
    """
    if cu_seqlens is None:
        NT = -(-T // rows)
        return B, NT, B * NT, torch.empty, None
    B = cu_seqlens.shape[0] - 1
    return B, -(-T // (rows * max(B, 1))), T // rows + B, torch.zeros, cu_seqlens.contiguous()


# True: kernels hand on the states of blocks, and their cotangents, in fp32 for bf16 inputs too, which is twice the traffic.
STATES_IN_FP32 = False


def _state_type(io):
    """The type in which kernels hand on what is a state, or a cotangent of one, for every block. io: that of the inputs."""
    return torch.bfloat16 if io == torch.bfloat16 and not STATES_IN_FP32 else torch.float32


def _way(paces, x, blocks, *ways):
    """Which of several ways to do a call's work takes least time by the model. Each is its kernels and how many programs they
    have: of one block, where each does one."""
    if blocks <= 1 or x.device.type != "cuda":
        return 0
    units = torch.cuda.get_device_properties(x.device).multi_processor_count

    def time(name, programs):
        resident, alone, busy, moved, walks, launches = paces[name]
        programs, turns = (programs, blocks) if walks else (programs * blocks, 1)
        waves, rest = divmod(-(-programs // units), resident)
        last = max(alone, busy * rest // resident) if rest else 0
        return 2000 * launches + max(turns * (waves * busy + last), programs * turns * moved // 2847)

    return min(range(len(ways)), key=lambda i: sum(time(*one) for one in ways[i].items()))


def _spans(B, T, rows, programs, enough, packed):
    """(blocks of a span, spans of B sequences, how many states forward keeps for backward): one for each span, or none where
    each sequence is one span, for a walk through it begins with the initial state.

    rows: of a block; programs: that walk one span; enough: so many that more would not be done sooner. A pack has T steps.
    """
    many, blocks = 1 + (enough - 1) // max(B * programs, 1), T // rows + 1
    every = blocks // (many * B if packed else many) + 1 if many > 1 else blocks
    spans = T // (rows * every) + B if packed else -(-T // (rows * every)) * B
    return every, spans, spans if spans > B else 0


def _room(device):
    """Bytes of shared memory that a program may have on a device; on an NVIDIA H100 SXM where there is none to ask."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return 232448
    told = torch.cuda.get_device_properties(device)
    return getattr(told, "shared_memory_per_block_optin", told.shared_memory_per_block)


# ---------- the choice of a form --------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """One way to run the recurrence; `prepare` brings tensors into the dtypes and the layout that it takes."""

    prepare: Callable
    infer: Callable
    forward: Callable
    backward: Callable
    saved: Callable
    step: Callable


def _prepare_torch(carry, *tensors):
    """Contiguous, in the carried dtype."""
    return [x if x.dtype == carry and x.is_contiguous() else x.to(carry).contiguous() for x in tensors]


# T: an entry per step; B: one per sequence; -: neither
_ARGUMENTS = "TTTTB"
_RESULTS = "TB"


def _turned(tensors, kinds, reverse):
    """The tensors, those with steps from the last to the first where `reverse`."""
    return [x.flip(1) if reverse and kind == "T" and x is not None else x for x, kind in zip(tensors, kinds)]


def _parts(tensors, kinds, i, steps):
    """What sequence i of a pack has of the tensors, as views."""
    views = {"T": lambda x: x[:, steps], "B": lambda x: x[i : i + 1], "-": lambda x: x}
    return [views[kind](x) for x, kind in zip(tensors, kinds)]


def _copies(tensors, kinds, part, reverse):
    """Sequence `part` of a pack, in memory of its own: a BLAS may round by the address at which an array begins."""
    own = zip(_parts(tensors, kinds, *part), kinds)
    return _turned([x if kind == "-" else x.clone() for x, kind in own], kinds, reverse)


def _each(cu_seqlens):
    """The sequences of a pack that have steps, as (index, slice). Reads the bounds: of a GPU's, it waits for them."""
    bounds = cu_seqlens.tolist()
    steps = map(slice, bounds[:-1], bounds[1:])
    return [(i, own) for i, own in enumerate(steps) if own.start < own.stop]


def _one_by_one(infer, forward, backward):
    """(infer, forward, backward) that take packs and `reverse`, of functions of whole batches that run forward.

    The sequences of a pack run one after the other. It saves nothing: backward runs them again.
    """

    def run(function, saves):
        def call(*tensors, cu_seqlens, reverse):
            if cu_seqlens is None:
                results = function(*_turned(tensors, _ARGUMENTS, reverse))
                return [*_turned(results, _RESULTS, reverse), *(results[2:] if saves else ())]
            results = [*_fake_run(*tensors, cu_seqlens, reverse)[:1], *(s.clone() for s in tensors[4:])]
            for part in _each(cu_seqlens):
                found = function(*_copies(tensors, _ARGUMENTS, part, reverse))
                for whole, own in zip(_parts(results, _RESULTS, *part), _turned(found, _RESULTS, reverse)):
                    whole.copy_(own)
            return results

        return call

    def run_back(*everything, cu_seqlens, reverse, needs):
        tensors, saved, cotangents = everything[:5], everything[5:-2], everything[-2:]
        if cu_seqlens is None:
            turned = _turned(tensors, _ARGUMENTS, reverse), _turned(cotangents, _RESULTS, reverse)
            return _turned(backward(*turned[0], *saved, *turned[1], needs=needs), _ARGUMENTS, reverse)
        gradients = [torch.zeros_like(x) for x in tensors[:4]] + [d.clone() for d in cotangents[1:]]
        for part in _each(cu_seqlens):
            own = _copies(tensors, _ARGUMENTS, part, reverse)
            ends = _copies(cotangents, _RESULTS, part, reverse)
            found = _turned(backward(*own, *forward(*own)[2:], *ends, needs=needs), _ARGUMENTS, reverse)
            for whole, x, kind in zip(_parts(gradients, _ARGUMENTS, *part), found, _ARGUMENTS):
                if x is not None:
                    whole.add_(x) if kind == "-" else whole.copy_(x)
        return gradients

    return run(infer, False), run(forward, True), run_back


def _saved_torch(packed, B, T, H, K, V, io, carry):
    """Shapes and dtypes of what forward saves: S_all; nothing of a pack, which runs again."""
    if packed:
        return []
    return [(((T + 15) // 16 + 1, B, H, K, V), carry)]


def _saved_triton(packed, B, T, H, K, V, io, carry):
    """Shapes and dtypes of what forward saves: S_every."""
    return [((_spans(B, T, 16, H * -(-V // min(_pad(V, 16), 64)), enough=109, packed=packed)[2], H, K, V), carry)]


def _prepare_triton(carry, *tensors):
    """The kernels read tensors as they are stored; this is where Triton is first needed."""
    _load_triton()
    return [x.contiguous() for x in tensors]


_TORCH = _Form(_prepare_torch, *_one_by_one(_forward_torch, _forward_torch, _backward_torch), _saved_torch, _step_torch)
_TRITON = _Form(_prepare_triton, _infer_triton, _forward_triton, _backward_triton, _saved_triton, _step_triton)


def _form(*tensors):
    """The form that runs on some arguments, of a sequence or of one step: the one place where it is chosen."""
    x = tensors[0]
    if x.device.type == "cuda" and x.dtype != torch.float64 and _ready_triton(x, x.shape[-1], tensors[2].shape[-1]):
        return _TRITON
    return _TORCH


def _form_alone(*tensors):
    """The form where no gradient follows: kernels of forward may fit where those of backward do not."""
    x = tensors[0]
    if x.device.type == "cuda" and x.dtype != torch.float64 and _ready_triton(x, x.shape[-1], tensors[2].shape[-1], alone=True):
        return _TRITON
    return _form(*tensors)


# ---------- the torch operators ---------------------------------------------------------------------------------------

_AXES = {
    "q": "B T H K",
    "k": "B T H K",
    "v": "B T H V",
    "g": "B T H K",
    "S_0": "B H K V",
}


def _shape_error(time, cu_seqlens, *tellers, **more):
    """The first tensor whose shape disagrees with those before it, as an error that names dims and sizes.

    tellers: the arguments that tell sizes, in their order.
    """
    sizes = {}
    for name, x in [*zip(_AXES, tellers), *more.items()]:
        axes = [axis for axis in _AXES[name].split() if time or axis != "T"]
        shape = list(x.shape)
        if cu_seqlens is not None and "T" not in axes:
            sizes["B"] = (len(cu_seqlens) - 1, "cu_seqlens")
        if len(shape) != len(axes):
            return ValueError(f"gla: {name} has shape {shape}; its axes are [{', '.join(axes)}]")
        for axis, size in zip(axes, shape):
            told, by = sizes.setdefault(axis, (size, name))
            if told != size:
                want = ", ".join(axes)
                why = f"{axis} is {size} here and {told} in {by}"
                return ValueError(f"gla: {name} has shape {shape} for [{want}]; {why}")
    return ValueError(f"gla: shapes disagree: {_AXES}")


CHECK_BOUNDS = False  # whether the bounds of packs on a GPU are read and checked too: a call then waits for it


def _sequences(cu_seqlens, x):
    """The number of sequences of the pack x [1, T, ...]; an error where `cu_seqlens` cannot be its bounds."""
    if not isinstance(cu_seqlens, torch.Tensor):
        kind = type(cu_seqlens).__name__
        raise TypeError(f"gla: cu_seqlens is a {kind}; it is a tensor: torch.tensor({cu_seqlens})")
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"gla: cu_seqlens is {cu_seqlens.dtype}; it is torch.int32 or torch.int64")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] == 0:
        shape = list(cu_seqlens.shape)
        raise ValueError(f"gla: cu_seqlens has shape {shape}; for N sequences it is [N + 1]: their bounds")
    if cu_seqlens.device != x.device:
        raise ValueError(f"gla: cu_seqlens is on {cu_seqlens.device}, the inputs are on {x.device}")
    if x.shape[0] != 1:
        why = "with cu_seqlens the sequences stand one after the other in one row"
        raise ValueError(f"gla: the inputs have B = {x.shape[0]}; {why}: [1, T, ...]")
    return cu_seqlens.shape[0] - 1


def _steps(cu_seqlens, x):
    """How many steps of the row T the sequences of a pack have; ValueError where its bounds are wrong.

    The bounds of a GPU are not read, for it would have to be waited for: there the answer is T, and kernels leave zeros
    behind the last sequence.
    """
    steps = x.shape[1]
    if cu_seqlens is None or (cu_seqlens.device.type != "cpu" and not CHECK_BOUNDS):
        return steps
    bounds = cu_seqlens.tolist()
    if bounds[0] != 0 or bounds[-1] > steps or bounds != sorted(bounds):
        want = f"it begins with 0, never decreases, and ends with T = {steps} or less"
        raise ValueError(f"gla: cu_seqlens is {cu_seqlens}; {want}")
    return bounds[-1]


def _sizes(q, k, v, g, cu_seqlens):
    """Sizes of the dims B, T, H, K, V; ValueError where shapes disagree."""
    if q.dim() != 4 or v.dim() != 4:
        raise _shape_error(True, cu_seqlens, q, k, v, g)
    B, T, H, K = q.shape
    V = v.shape[3]
    if not k.shape == g.shape == (B, T, H, K) or v.shape != (B, T, H, V):
        raise _shape_error(True, cu_seqlens, q, k, v, g)
    if cu_seqlens is not None:
        B = _sequences(cu_seqlens, q)
    return B, T, H, K, V


def _step_sizes(q, k, v, g):
    """Sizes of the dims B, H, K, V; ValueError where shapes disagree."""
    if q.dim() != 3 or v.dim() != 3:
        raise _shape_error(False, None, q, k, v, g)
    B, H, K = q.shape
    V = v.shape[2]
    if not k.shape == g.shape == (B, H, K) or v.shape != (B, H, V):
        raise _shape_error(False, None, q, k, v, g)
    return B, H, K, V


# kinds of devices that have autocast: asking another one for it is an error
_AUTOCAST = frozenset(filter(torch.amp.is_autocast_available, "cpu cuda hpu mps mtia xla xpu".split()))


def _carry(x):
    """The dtype of states and sums, whatever the storage dtype of the inputs."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _dense(x, dtype):
    """x as the operators promise it: in this dtype, contiguous."""
    return x if x.dtype == dtype and x.is_contiguous() else x.to(dtype).contiguous()


def _copy(x, dtype):
    """A contiguous copy: an operator never returns its argument."""
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _autocast_off(function):
    """Autocast has done its part before an operator is called; inside, dtypes are the operator's own.

    Triton launches on the device that is current: while an operator runs, that is its tensors' own.
    """

    def call(*tensors):
        device = tensors[0].device
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                return call(*tensors)
        if device.type not in _AUTOCAST or not torch.is_autocast_enabled(device.type):
            return function(*tensors)
        with torch.autocast(device.type, enabled=False):
            return function(*tensors)

    return call


def _fake_run(q, k, v, g, S_0, cu_seqlens, reverse):
    """What `run` returns, all zeros: for tracing, and for a sequence of no steps."""
    B, T, H, K, V = _sizes(q, k, v, g, cu_seqlens)
    return q.new_zeros((*q.shape[:2], H, V)), q.new_zeros((B, H, K, V), dtype=_carry(q))


def _fake_forward(*arguments):
    """What `forward` returns, all zeros."""
    x, cu_seqlens, form = arguments[0], arguments[5], _form(*arguments[:5])
    saved = form.saved(cu_seqlens is not None, *_sizes(*arguments[:4], cu_seqlens), x.dtype, _carry(x))
    return *_fake_run(*arguments), [x.new_zeros(shape, dtype=dtype) for shape, dtype in saved]


def _asked(needs, values):
    """Those of the values, one for each gradient, whose gradient is asked for."""
    return [x for need, x in zip(needs, values, strict=True) if need]


def _fake_backward(*arguments):
    """What `backward` returns, all zeros."""
    return [x.new_zeros(x.shape) for x in _asked(arguments[8], arguments[:5])]


@_autocast_off
def _run(*arguments):
    """Operator `run`: o, S_T."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[0]
    _steps(cu_seqlens, tensors[0])  # raises where they are no bounds
    form, carry = _form_alone(*tensors), _carry(x)
    if 0 in x.shape[:2]:
        return [*_fake_run(*arguments)[:1], *(_copy(s, carry) for s in tensors[4:])]
    results = form.infer(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    return [*(_dense(o, x.dtype) for o in results[:1]), *(_dense(s, carry) for s in results[1:])]


@_autocast_off
def _forward(*arguments):
    """Operator `forward`: o, S_T, and a list of what backward needs."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[0]
    _steps(cu_seqlens, tensors[0])  # raises where they are no bounds
    form, carry = _form(*tensors), _carry(x)
    if 0 in x.shape[:2]:
        return *_run(*arguments), _fake_forward(*arguments)[-1]
    results = form.forward(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    outputs, states, saved = results[:1], results[1:2], results[2:]
    return *(_dense(o, x.dtype) for o in outputs), *(_dense(s, carry) for s in states), list(saved)


_WATCHED = (0,)  # results without which a part of the recurrence has no cotangent


def _spoilt(gradients, cotangents):
    """Whether zero times infinity may have spoilt the gradients. A GPU is waited for, unless its work is recorded."""
    if not gradients or not any(cotangents[i] is None for i in _WATCHED):
        return False
    if gradients[0].device.type == "cpu":
        return not all(math.isfinite(d.sum()) for d in gradients)
    if gradients[0].device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return False
    return not torch.stack([d.isfinite().all() for d in gradients]).all()


def _apart(tensors, cu_seqlens, reverse, needs, cotangents):
    """The gradients by single steps, whose autograd leaves out what no cotangent reaches."""
    differentiable = torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False)
    with differentiable, torch.enable_grad():
        tensors = [x.detach().requires_grad_() for x in tensors]
        return _pulled(_plain(*tensors, cu_seqlens, reverse), cotangents, _asked(needs, tensors))


def _filled(cotangents, carry, *arguments):
    """The cotangents, with zeros for those that are not there."""
    outputs, states = cotangents[:1], cotangents[1:]
    if any(d is None for d in outputs):
        outputs = [z if d is None else d for d, z in zip(outputs, _fake_run(*arguments))]
    starts = zip(states, arguments[4:5], strict=True)
    return [*outputs, *(torch.zeros_like(s, dtype=carry) if d is None else d for d, s in starts)]


@_autocast_off
def _backward(*arguments):
    """Operator `backward`: of the gradients of q, k, v, g, S_0 those that are asked for.

    needs: which are, for each; a cotangent that is not there is zero.
    """
    tensors, (cu_seqlens, reverse, saved, needs) = arguments[:5], arguments[5:9]
    cotangents = whole = arguments[9:]
    x = tensors[0]
    _steps(cu_seqlens, tensors[0])  # raises where they are no bounds
    form, carry = _form(*tensors), _carry(x)
    if any(d is None for d in cotangents):
        whole = _filled(cotangents, carry, *arguments[:7])
    if 0 in x.shape[:2]:
        final = zip(tensors[4:], whole[1:], strict=True)
        gradients = [torch.zeros_like(x) for x in tensors[:4]]
        return _asked(needs, [*gradients, *(_copy(d, s.dtype) for s, d in final)])
    everything = *form.prepare(carry, *tensors), *saved, *form.prepare(carry, *whole)
    gradients = _asked(needs, form.backward(*everything, cu_seqlens=cu_seqlens, reverse=reverse, needs=needs))
    if _spoilt(gradients, cotangents):
        gradients = _apart(tensors, cu_seqlens, reverse, needs, cotangents)
    return [_dense(d, x.dtype) for x, d in zip(_asked(needs, tensors), gradients, strict=True)]


def _fake_step(q, k, v, g, S_0):
    """What `step` returns: for tracing, and for no sequences."""
    B, H, K, V = _step_sizes(q, k, v, g)
    return q.new_empty((B, H, V)), q.new_empty((B, H, K, V), dtype=_carry(q))


@_autocast_off
def _step(*tensors):
    """Operator `step`: o, S_T."""
    x = tensors[0]
    if x.shape[0] == 0:
        return [*_fake_step(*tensors)]
    form, carry = _form_alone(*tensors), _carry(x)
    if form is _TORCH:
        results = _unshared(tensors, _plain_step(*tensors))
    else:
        results = form.step(*form.prepare(carry, *tensors))
    return [*(_dense(o, x.dtype) for o in results[:1]), *(_dense(s, carry) for s in results[1:])]


def _unshared(tensors, results):
    """The results, copied where one shares memory with an argument or with another result."""
    taken, out = {x.untyped_storage().data_ptr() for x in tensors}, []
    for x in results:
        place = x.untyped_storage().data_ptr()
        out.append(x.clone() if place in taken else x)
        taken.add(place)
    return out


@_autocast_off
def _plain_step(*tensors):
    """One step in plain torch operators."""
    x = tensors[0]
    results = _step_torch(*_prepare_torch(_carry(x), *tensors))
    return [*(o.to(x.dtype) for o in results[:1]), *results[1:]]


def _differentiable_step(*tensors):
    """The results of one step; their gradient is that of a run of one step."""
    if _needs_plain(tensors):
        return _plain_step(*tensors)
    if _needs_gradient(tensors):
        run = [*(x[:, None] for x in tensors[:4]), *tensors[4:], None, False]
        results = _applied(_Derivative, _OPS.forward.default, False, *run)
        return [*(o[:, 0].clone() for o in results[:1]), *results[1:]]  # an operator gives no view
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.step.default(*tensors)


def _plain(*arguments):
    """What `run` gives, by single steps in plain torch operators, all of whose derivatives torch knows."""
    *tensors, cu_seqlens, reverse = arguments
    if cu_seqlens is not None:
        return _plain_pack(tensors, cu_seqlens, reverse)
    if 0 in tensors[0].shape[:2]:
        return [*_fake_run(*arguments)[:1], *(x.clone() for x in tensors[4:])]
    inputs, params, states = tensors[:4], tensors[4:4], tensors[4:]
    steps = [x.unbind(1) for x in inputs]
    order = range(inputs[0].shape[1])
    order = order if not reverse else order[::-1]
    rows = {}
    for t in order:
        results = _plain_step(*(x[t] for x in steps), *params, *states)
        rows[t], states = results[:1], results[1:]
    outputs = [torch.stack(column, 1) for column in zip(*(rows[t] for t in sorted(rows)))]
    return [*outputs, *states]


def _plain_pack(tensors, cu_seqlens, reverse):
    """The same of a pack, one sequence after the other."""
    found, bounds = [], cu_seqlens.tolist()
    for i, (start, end) in enumerate(zip(bounds[:-1], bounds[1:])):
        own = [x[:, start:end] for x in tensors[:4]]
        own += [x[i : i + 1] if _OWN[k] == "B" else x for k, x in enumerate(tensors[4:], 4)]
        found.append(_plain(*own, None, reverse))
    nothing = _fake_run(*tensors, cu_seqlens, reverse)
    if not found:
        return list(nothing)
    behind = [x[:, bounds[-1] :] if k < 1 else x[:0] for k, x in enumerate(nothing)]  # the last sequence
    return [torch.cat(parts, int(k < 1)) for k, parts in enumerate(zip(*found, behind))]


def _at_asked(needs, gradients):
    """Gradients at the places of those that were asked for; None at the others."""
    found = iter(gradients)
    return [next(found) if need else None for need in needs]


class _Derivative(torch.autograd.Function):
    """gla with its gradient; backward is an operator too, so autograd and compilers never look inside.

    and_saved: whether what backward needs is a result too.
    """

    @staticmethod
    def forward(ctx, forward, and_saved, *arguments):
        *results, saved = _below(forward, *arguments)
        *given, ctx.reverse = arguments
        ctx.set_materialize_grads(False)  # a result that a loss does not use has no cotangent, not one of zeros
        ctx.save_for_backward(*given, *saved)
        if not and_saved:
            return tuple(results)
        ctx.mark_non_differentiable(*saved)
        return *results, *saved

    @staticmethod
    def backward(ctx, *cotangents):
        kept = ctx.saved_tensors
        given, saved = kept[:6], list(kept[6:])
        needs = ctx.needs_input_grad[2:7]
        arguments = *given, ctx.reverse, saved, list(needs), *cotangents[:2]
        gradients = _backward_below(*arguments)
        return None, None, *_at_asked(needs, gradients), None, None


class _SecondDerivative(torch.autograd.Function):
    """The gradient; its own gradient is that of the plain form."""

    @staticmethod
    def forward(ctx, count, needs, *flat):
        saved, cotangents = list(flat[7 : 7 + count]), flat[7 + count :]
        ctx.reverse, ctx.needs = flat[6], needs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*flat[:6], *cotangents)
        return tuple(_below(_OPS.backward.default, *flat[:7], saved, needs, *cotangents))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *weights):
        kept = ctx.saved_tensors
        alike = [x if x is None else x.detach().requires_grad_() for x in (*kept[:5], *kept[6:])]
        tensors, cu_seqlens, cotangents = alike[:5], kept[5], alike[5:]
        with torch.enable_grad():
            asked = _asked(ctx.needs, tensors)
            gradients = _pulled(_plain(*tensors, cu_seqlens, ctx.reverse), cotangents, asked, create_graph=True)
        found = iter(_pulled(gradients, weights, [x for x in alike if x is not None]))
        left = [None if x is None else next(found) for x in alike]
        saved = [None] * (len(ctx.needs_input_grad) - 2 - len(left) - 2)
        return None, None, *left[:5], None, None, *saved, *left[5:]


def _backward_below(*arguments):
    """The gradients, as a function of what is recorded below: by autograd, or by the next level of torch.func."""
    if any(d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in arguments[9:]):
        return _batched_backward(*arguments)
    if torch._C._are_functorch_transforms_active():
        return _OPS.backward.default(*arguments)
    return _differentiable_backward(*arguments)


def _batched_backward(*arguments):
    """The gradients for cotangents of `torch.autograd.grad(is_grads_batched=True)`, one after the other."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    given, dims = list(arguments), [None] * len(arguments)
    for i, d in enumerate(given[9:], 9):
        if d is not None and torch._C._functorch.is_legacy_batchedtensor(d):
            given[i], dims[i] = torch._remove_batch_dim(d, level, 1, 0), 0
    members = given[dims.index(0)].shape[0]
    return [torch._add_batch_dim(x, 0, level) for x in _in_turn(_backward_below, members, dims, given)[0]]


def _pulled(results, cotangents, wrt, create_graph=False):
    """The gradients of the results that have a cotangent; zeros where none of these depends on an argument."""
    used = [(r, d) for r, d in zip(results, cotangents, strict=True) if d is not None and r.requires_grad]
    if not used:
        return [torch.zeros_like(x) for x in wrt]
    ends, weights = zip(*used)
    return torch.autograd.grad(ends, wrt, weights, create_graph=create_graph, materialize_grads=True)


def _needs_gradient(tensors):
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _needs_plain(tensors):
    """Whether the plain form must run: for tangents (forward mode), or for torch.func's derivatives of derivatives."""
    if not torch._C._are_functorch_transforms_active():
        if forward_ad._current_level < 0:
            return False
        return any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors)
    kinds = [level.key().name for level in torch._C._functorch.get_interpreter_stack()]
    return "Jvp" in kinds or kinds.count("Grad") > 1


def _no_tangent():
    what = "a derivative in forward mode of a gradient that is recorded already"
    return NotImplementedError(f"gla: {what} is not served; take it of the call: torch.func.jvp")


def _applied(derivative, *arguments):
    """`derivative.apply`, inside a level of torch.func too: this is where it differentiates."""
    if not torch._C._are_functorch_transforms_active():
        return derivative.apply(*arguments)
    with torch._functorch.utils.enable_single_level_autograd_function():
        return super(torch.autograd.Function, derivative).apply(*arguments)


def _below(operator, *arguments):
    """The operator without its derivative; inside a level of torch.func the next one may record it again."""
    with torch._C._AutoDispatchBelowAutograd():
        if not torch._C._are_functorch_transforms_active():
            return operator(*arguments)
        with torch.enable_grad():
            return operator(*arguments)


def _differentiable_run(*arguments):
    tensors = arguments[:5]
    if _needs_plain(tensors):
        return _plain(*arguments)
    if _needs_gradient(tensors):
        return list(_applied(_Derivative, _OPS.forward.default, False, *arguments))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.run.default(*arguments)


def _differentiable_forward(*arguments):
    tensors = arguments[:5]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        results = _applied(_Derivative, _OPS.forward.default, True, *arguments)
        return *results[:2], list(results[2:])
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.forward.default(*arguments)


def _differentiable_backward(*arguments):
    given, (saved, needs), cotangents = arguments[:7], arguments[7:9], arguments[9:]
    tensors = [*given[:5], *cotangents]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        return list(_applied(_SecondDerivative, len(saved), needs, *given, *saved, *cotangents))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.backward.default(*arguments)


_OWN = "BBBBB"  # B: an argument has a batch axis; -: it is shared by the batch
_BEHIND = {"step": "", "backward": "----BB"}  # of the arguments that follow these


def _folded(x, dim, members):
    """x [.., members, .., B, ..] as [members * B, ...]; repeated where it is not batched."""
    x = x.unsqueeze(0).expand(members, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def _member(x, dim, i):
    """Member i of an argument, or of a list of them."""
    if isinstance(dim, (list, tuple)):
        return [_member(y, d, i) for y, d in zip(x, dim, strict=True)]
    return x if dim is None else x.select(dim, i)


def _in_turn(operator, members, dims, arguments):
    """The results for one member after the other, put together along a new first axis."""
    found = [operator(*_member(arguments, dims, i)) for i in range(members)]
    together = [
        [torch.stack(part) for part in zip(*column)] if isinstance(column[0], (list, tuple)) else torch.stack(column)
        for column in zip(*found)
    ]
    return together, [[0] * len(x) if isinstance(x, list) else 0 for x in together]


def _rule(name):
    """How an operator acts on batched arguments: as one call of a larger batch, or on each member in turn."""

    def rule(info, dims, *arguments):
        operator, members = getattr(_OPS, name).default, info.batch_size
        packed = name != "step" and arguments[5] is not None
        if packed or all(d is None for d in dims[:5]):
            return _in_turn(operator, members, dims, arguments)
        kinds = _OWN + _BEHIND.get(name, "--")
        flat = [x if k == "-" or x is None else _folded(x, d, members) for x, d, k in zip(arguments, dims, kinds)]
        results = operator(*flat)
        kept = len(results) - (name == "forward")  # what it saves has a layout of its own
        apart = [x.unflatten(0, (members, x.shape[0] // members)) for x in results[:kept]]
        return (*apart, *results[kept:]), (*[0] * kept, *([None] * len(x) for x in results[kept:]))

    return rule


def _register():
    """Define the operators in a namespace that no other file or import of this file has; it lives as long as torch."""
    name, tries = "seqc_gla_45bcf067043d", 0
    while hasattr(getattr(torch.ops, name), "run"):
        tries += 1
        name = f"seqc_gla_45bcf067043d_{tries}"
    library = torch.library.Library(name, "DEF")
    arguments = [f"Tensor {x}" for x in "q k v g S_0".split()]
    results = [f"Tensor {x}" for x in "o S_T".split()]
    cotangents = [f"Tensor? d_{x}" for x in "o S_T".split()]
    once, given = ", ".join(arguments), ", ".join(results)
    taken = f"{once}, Tensor? cu_seqlens, bool reverse"
    library.define(f"run({taken}) -> ({given})")
    library.define(f"forward({taken}) -> ({given}, Tensor[] saved)")
    library.define(f"backward({taken}, Tensor[] saved, bool[] needs, {', '.join(cotangents)}) -> Tensor[]")
    library.define(f"step({once}) -> ({given})")
    operators = {
        "run": (_run, _differentiable_run, _fake_run),
        "forward": (_forward, _differentiable_forward, _fake_forward),
        "backward": (_backward, _differentiable_backward, _fake_backward),
        "step": (_step, _differentiable_step, _fake_step),
    }
    for operator, (kernel, derivative, fake) in operators.items():
        library.impl(operator, kernel, "CPU")
        library.impl(operator, kernel, "CUDA")
        library.impl(operator, derivative, "Autograd")
        torch.library.register_fake(f"{name}::{operator}", fake, lib=library)
        torch.library.register_vmap(f"{name}::{operator}", _rule(operator), lib=library)
    getattr(torch.ops, name).library = library  # compiled graphs call the operators by name
    return getattr(torch.ops, name)


_OPS = _register()
