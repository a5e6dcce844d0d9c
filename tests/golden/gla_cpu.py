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
    in native code for CPUs:
        step: one step at a time; no other form was asked for

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

import atexit as _atexit
import concurrent.futures as _futures
import contextlib as _contextlib
import ctypes as _ctypes
import functools as _functools
import hashlib as _hashlib
import json as _json
import os as _os
import platform as _platform
import shlex as _shlex
import shutil as _shutil
import signal as _signal
import stat as _stat
import struct as _struct
import subprocess as _subprocess
import sys as _sys
import tempfile as _tempfile
import threading as _threading
import time as _time
import warnings as _warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path as _Path
from typing import Any

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
        S_0 = q.new_zeros((B, H, K, V), dtype=carry)
    elif S_0.shape != (B, H, K, V):
        raise _shape_error(True, cu_seqlens, q, k, v, g, S_0=S_0)
    elif S_0.dtype != carry:
        S_0 = _to_carry("S_0", S_0, carry)
    return GLAResult(*_call_run(q, k, v, g, S_0, cu_seqlens, reverse))


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
    if not torch.compiler.is_compiling() and forward_ad._current_level < 0 and S_0 is not None:
        for _direct in _NATIVE_STEPS:
            _result = _direct(q, k, v, g, S_0, inplace, into)
            if _result is not None:
                return _result
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


# ---------- the recurrence in native code: CPUs -----------------------------------------------------------------------

_NATIVE_KERNELS = r"""
// seqc: gla, native CPU kernels. Dims are compile-time constants (SEQC_DIM_NAME), B and T are not.

namespace {
// The processor: bytes of its first-level cache, and the vector registers that sums may fill.
#if defined(__AVX512F__)  // x86-64-v4 (AVX-512)
constexpr i64 usual_l1 = 32768, spare = 24;
#elif defined(__AVX__)  // x86-64-v3 (AVX2)
constexpr i64 usual_l1 = 32768, spare = 12;
#elif defined(__aarch64__)  // arm64
constexpr i64 usual_l1 = 65536, spare = 24;
#else  // any other
constexpr i64 usual_l1 = 32768, spare = 12;
#endif
#ifndef SEQC_L1
#define SEQC_L1 usual_l1
#endif
constexpr i64 l1 = SEQC_L1, size = sizeof(real);

constexpr i64 n_H = SEQC_DIM_H;
constexpr i64 n_K = SEQC_DIM_K;
constexpr i64 w_K = n_K, m_K = n_K, z_K = padded(n_K);
constexpr bool e_K = n_K % W == 0;
constexpr i64 n_V = SEQC_DIM_V;
// The panels that V is cut into: the least cost of those that fit, tried one by one.
// - a panel's part of S fills half of the first-level cache at most, or is one vector wide
// - a panel has 1024 lanes at most
constexpr bool fits(i64 panels) {
  return 2 * n_K * quotient(quotient(n_V, W), panels) * W * size <= std::max<i64>(l1, 2 * n_K * W * size)
      && quotient(quotient(n_V, W), panels) * W <= 1024;
}
constexpr i64 cost(i64 panels) {
  return panels * ((16 + quotient(n_K, W) + quotient(n_K, W) + quotient(n_K, W)) + quotient(quotient(n_V, W), panels) * (n_K + 2));
}
constexpr i64 least() {
  i64 best = 0;
  constexpr i64 domain[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096, 16384, 65536, 1048576};
  for (i64 x : domain)
    if (fits(x) && (!best || cost(x) < cost(best))) best = x;
  return best;
}
constexpr i64 chosen_panels = least();
static_assert(chosen_panels > 0, "no choice fits");
constexpr bool serves(i64) { return true; }
constexpr i64 w_V = W * quotient(chunks(n_V), chosen_panels), z_V = w_V;
constexpr i64 panels = quotient(n_V, w_V);
constexpr bool e_V = n_V % w_V == 0;  // every panel is full
}  // namespace

#if SEQC_KERNELS & FORWARD
namespace {
struct Forward {
  const real *g_q, *g_k, *g_v, *g_g, *g_S_0;
  real *g_o, *g_S_T, *g_S_kept;
};

struct ForwardScratch {
  alignas(64) real s_S[w_K * z_V], s_x1[z_K], s_x2[z_V], s_x3[z_K], s_x4[z_V];
};

template <bool save>
int forward_program(const Forward& a, const Call& call, i64 i_B, i64 i_H, i64 panel) {
  ForwardScratch* const memory = scratch<ForwardScratch>();
  if (!memory) return 1;
  ForwardScratch& w = *memory;
  const i64 B = call.B, T = call.steps(i_B), rows = call.rows(), way = call.way;
  const i64 row = call.row(i_B), segment_0 = call.segment(i_B, 32), t_0 = way > 0 ? 0 : T - 1;
  const i64 o_V = panel * w_V, m_V = std::min(w_V, n_V - o_V);
  const real* __restrict const p_S_0 = a.g_S_0 + i_B * n_H * n_K * n_V + i_H * n_K * n_V + o_V;
  real s_c0;
  {
    const real x0 = seqc_sqrt(real(n_K));
    s_c0 = x0;
  }
  copy(p_S_0, n_V, w.s_S, z_V, 1, m_K, m_V);
  i64 step = 0;
  for (; step + 2 <= T; step += 2) {  // 2 steps at each reading of the state
    const i64 t = t_0 + way * step;
    const real* __restrict const p_q = a.g_q + (row + t) * n_H * n_K + i_H * n_K;
    const real* __restrict const p_g = a.g_g + (row + t) * n_H * n_K + i_H * n_K;
    const real* __restrict const p_k = a.g_k + (row + t) * n_H * n_K + i_H * n_K;
    const real* __restrict const p_v = a.g_v + (row + t) * n_H * n_V + i_H * n_V + o_V;
    for (i64 e = 0; e < n_K; e += 64 / size) __builtin_prefetch(a.g_q + (row + t + way * 6) * n_H * n_K + i_H * n_K + e);
    for (i64 e = 0; e < n_K; e += 64 / size) __builtin_prefetch(a.g_g + (row + t + way * 6) * n_H * n_K + i_H * n_K + e);
    for (i64 e = 0; e < n_K; e += 64 / size) __builtin_prefetch(a.g_k + (row + t + way * 6) * n_H * n_K + i_H * n_K + e);
    for (i64 e = 0; e < w_V; e += 64 / size) __builtin_prefetch(a.g_v + (row + t + way * 6) * n_H * n_V + i_H * n_V + o_V + e);
    real* __restrict const p_o = a.g_o + (row + t) * n_H * n_V + i_H * n_V + o_V;
    const real* __restrict const p_q_at_1 = a.g_q + (row + t + way * 1) * n_H * n_K + i_H * n_K;
    const real* __restrict const p_g_at_1 = a.g_g + (row + t + way * 1) * n_H * n_K + i_H * n_K;
    const real* __restrict const p_k_at_1 = a.g_k + (row + t + way * 1) * n_H * n_K + i_H * n_K;
    const real* __restrict const p_v_at_1 = a.g_v + (row + t + way * 1) * n_H * n_V + i_H * n_V + o_V;
    real* __restrict const p_o_at_1 = a.g_o + (row + t + way * 1) * n_H * n_V + i_H * n_V + o_V;
    for (i64 e = 0; e < n_K; e += 64 / size) __builtin_prefetch(a.g_q + (row + t + way * 7) * n_H * n_K + i_H * n_K + e);
    for (i64 e = 0; e < n_K; e += 64 / size) __builtin_prefetch(a.g_g + (row + t + way * 7) * n_H * n_K + i_H * n_K + e);
    for (i64 e = 0; e < n_K; e += 64 / size) __builtin_prefetch(a.g_k + (row + t + way * 7) * n_H * n_K + i_H * n_K + e);
    for (i64 e = 0; e < w_V; e += 64 / size) __builtin_prefetch(a.g_v + (row + t + way * 7) * n_H * n_V + i_H * n_V + o_V + e);
    if (save && step % 32 == 0) {
      const i64 segment = step / 32, segments = (T + 31) / 32;
      real* __restrict const p_S_kept = a.g_S_kept + (segment_0 + segment) * n_H * n_K * n_V + i_H * n_K * n_V + o_V;
      copy(w.s_S, z_V, p_S_kept, n_V, 1, m_K, m_V);
    }
    EACH_VECTOR(z_K, 2) {
      const vec v_g_1 = load<e_K>(p_g_at_1 + at, n_K - at);
      const vec x1 = seqc_exp(v_g_1);
      const vec v_g = load<e_K>(p_g + at, n_K - at);
      const vec x3 = seqc_exp(v_g);
      store(w.s_x3 + at, x1);
      store(w.s_x1 + at, x3);
    }
    // S = exp(g) * S[t-1] + k * v
    BLOCKS(z_V, fitting(8, spare / 4)) {
      vec r0[CB]{};
      vec r1[CB]{};
      vec v_v[CB];
      vec v_v_1[CB];
      VECTORS(CB) {
        v_v[c] = load<e_V>(p_v + at, n_V - o_V - at);
        v_v_1[c] = load<e_V>(p_v_at_1 + at, n_V - o_V - at);
      }
      for (i64 i_K = 0; i_K < m_K; ++i_K) {
        const real v_q = p_q[i_K];
        const real x1 = w.s_x1[i_K];
        const real v_k = p_k[i_K];
        const real v_q_1 = p_q_at_1[i_K];
        const real x10 = w.s_x3[i_K];
        const real v_k_1 = p_k_at_1[i_K];
        VECTORS(CB) {
          const vec v_S_old = load(w.s_S + i_K * z_V + at);
          const vec x3 = x1 * v_S_old;
          const vec x6 = v_k * v_v[c];
          const vec v_S = x3 + x6;
          const vec x8 = v_q * v_S;
          const vec x11 = x10 * v_S;
          const vec x14 = v_k_1 * v_v_1[c];
          const vec v_S_1 = x11 + x14;
          const vec x16 = v_q_1 * v_S_1;
          r0[c] += x8;
          r1[c] += x16;
          store(w.s_S + i_K * z_V + at, v_S_1);
        }
      }
      VECTORS(CB) {
        store(w.s_x2 + at, r0[c]);
        store(w.s_x4 + at, r1[c]);
      }
    }
    // output o = sum[K](q * S) / sqrt(K)
    EACH_VECTOR(z_V, 2) {
      const vec x0 = load(w.s_x2 + at);
      const vec v_o = x0 / s_c0;
      const vec x2 = load(w.s_x4 + at);
      const vec v_o_1 = x2 / s_c0;
      store<e_V>(p_o + at, v_o, n_V - o_V - at);
      store<e_V>(p_o_at_1 + at, v_o_1, n_V - o_V - at);
    }
  }
  for (; step < T; ++step) {
    const i64 t = t_0 + way * step;
    const real* __restrict const p_q = a.g_q + (row + t) * n_H * n_K + i_H * n_K;
    const real* __restrict const p_g = a.g_g + (row + t) * n_H * n_K + i_H * n_K;
    const real* __restrict const p_k = a.g_k + (row + t) * n_H * n_K + i_H * n_K;
    const real* __restrict const p_v = a.g_v + (row + t) * n_H * n_V + i_H * n_V + o_V;
    for (i64 e = 0; e < n_K; e += 64 / size) __builtin_prefetch(a.g_q + (row + t + way * 6) * n_H * n_K + i_H * n_K + e);
    for (i64 e = 0; e < n_K; e += 64 / size) __builtin_prefetch(a.g_g + (row + t + way * 6) * n_H * n_K + i_H * n_K + e);
    for (i64 e = 0; e < n_K; e += 64 / size) __builtin_prefetch(a.g_k + (row + t + way * 6) * n_H * n_K + i_H * n_K + e);
    for (i64 e = 0; e < w_V; e += 64 / size) __builtin_prefetch(a.g_v + (row + t + way * 6) * n_H * n_V + i_H * n_V + o_V + e);
    real* __restrict const p_o = a.g_o + (row + t) * n_H * n_V + i_H * n_V + o_V;
    if (save && step % 32 == 0) {
      const i64 segment = step / 32, segments = (T + 31) / 32;
      real* __restrict const p_S_kept = a.g_S_kept + (segment_0 + segment) * n_H * n_K * n_V + i_H * n_K * n_V + o_V;
      copy(w.s_S, z_V, p_S_kept, n_V, 1, m_K, m_V);
    }
    EACH_VECTOR(z_K, 2) {
      const vec v_g = load<e_K>(p_g + at, n_K - at);
      const vec x1 = seqc_exp(v_g);
      store(w.s_x1 + at, x1);
    }
    // S = exp(g) * S[t-1] + k * v
    BLOCKS(z_V, fitting(8, spare / 2)) {
      vec r0[CB]{};
      vec v_v[CB];
      VECTORS(CB) {
        v_v[c] = load<e_V>(p_v + at, n_V - o_V - at);
      }
      for (i64 i_K = 0; i_K < m_K; ++i_K) {
        const real v_q = p_q[i_K];
        const real x1 = w.s_x1[i_K];
        const real v_k = p_k[i_K];
        VECTORS(CB) {
          const vec v_S_old = load(w.s_S + i_K * z_V + at);
          const vec x3 = x1 * v_S_old;
          const vec x6 = v_k * v_v[c];
          const vec v_S = x3 + x6;
          const vec x8 = v_q * v_S;
          r0[c] += x8;
          store(w.s_S + i_K * z_V + at, v_S);
        }
      }
      VECTORS(CB) {
        store(w.s_x2 + at, r0[c]);
      }
    }
    // output o = sum[K](q * S) / sqrt(K)
    EACH_VECTOR(z_V, 2) {
      const vec x0 = load(w.s_x2 + at);
      const vec v_o = x0 / s_c0;
      store<e_V>(p_o + at, v_o, n_V - o_V - at);
    }
  }
  real* __restrict const p_S_T = a.g_S_T + i_B * n_H * n_K * n_V + i_H * n_K * n_V + o_V;
  copy(w.s_S, z_V, p_S_T, n_V, 1, m_K, m_V);
  return 0;
}

}  // namespace

extern "C" int seqc_forward(
    i64 B, i64 T, i64 way, const i64* bounds, i64 threads, i64 save, void* const* arrays) {
  const Call call{B, T, way, bounds};
  Forward a;
  std::memcpy(&a, arrays, sizeof a);  // pointers, in this order
  const bool several = threads > 1 && call.rows() * (n_H * n_K * n_V) > 1048576;  // else one thread is faster
  const i64 programs = B * n_H * panels;
  int failed = 0;
#pragma omp parallel for num_threads(int(threads)) schedule(dynamic) reduction(| : failed) if (several)
  for (i64 program = 0; program < programs; ++program) {
    const i64 panel = program % panels, i_H = program / panels % n_H, rest = program / (panels * n_H);
    failed |= (save ? forward_program<true>(a, call, rest, i_H, panel) : forward_program<false>(a, call, rest, i_H, panel));
  }
  return failed;
}
#endif

#if SEQC_KERNELS & BACKWARD
namespace {
struct Backward {
  const real *g_q, *g_k, *g_v, *g_g, *g_S_kept, *g_d_o, *g_d_S_T;
  real *g_d_q, *g_d_g, *g_d_k, *g_d_v, *g_d_S_0;
};

struct BackwardScratch {
  alignas(64) real d_S[w_V * z_K], seg_S[33 * w_V * z_K], s_x1[32 * z_K], s_x2[32 * z_V], s_x3[z_K], s_x4[z_K],
      s_x5[z_K], s_x6[z_V], rows_0[z_V * W];
};

int backward_program(const Backward& a, const Call& call, i64 i_B, i64 i_H, i64 panel) {
  BackwardScratch* const memory = scratch<BackwardScratch>();
  if (!memory) return 1;
  BackwardScratch& w = *memory;
  const i64 B = call.B, T = call.steps(i_B), rows = call.rows(), way = call.way;
  const i64 row = call.row(i_B), segment_0 = call.segment(i_B, 32), t_0 = way > 0 ? 0 : T - 1;
  const i64 o_V = panel * w_V, m_V = std::min(w_V, n_V - o_V);
  const real* __restrict const p_d_S_T = a.g_d_S_T + i_B * n_H * n_K * n_V + i_H * n_K * n_V + o_V;
  real s_c0;
  {
    const real x0 = seqc_sqrt(real(n_K));
    s_c0 = x0;
  }
  transpose(p_d_S_T, n_V, w.d_S, z_K, m_K, m_V);
  const i64 segments = (T + 31) / 32;
  for (i64 segment = segments - 1; segment >= 0; --segment) {
    const i64 first = segment * 32, count = std::min<i64>(32, T - first);
    const real* __restrict const p_S_kept = a.g_S_kept + (segment_0 + segment) * n_H * n_K * n_V + i_H * n_K * n_V + o_V;
    transpose(p_S_kept, n_V, w.seg_S, z_K, m_K, m_V);
    for (i64 slot = 0; slot < count; ++slot) {  // the states of the segment, again
      const i64 step = first + slot;
      const i64 t = t_0 + way * step;
      const real* __restrict const p_g = a.g_g + (row + t) * n_H * n_K + i_H * n_K;
      const real* __restrict const p_k = a.g_k + (row + t) * n_H * n_K + i_H * n_K;
      const real* __restrict const p_v = a.g_v + (row + t) * n_H * n_V + i_H * n_V + o_V;
      const real* __restrict const p_d_o = a.g_d_o + (row + t) * n_H * n_V + i_H * n_V + o_V;
      real* __restrict const p_d_q = a.g_d_q + panel * rows * n_H * n_K + (row + t) * n_H * n_K + i_H * n_K;
      real* const p_s_x1 = w.s_x1 + slot * (z_K);
      real* const p_s_x2 = w.s_x2 + slot * (z_V);
      real* const p_seg_S = w.seg_S + slot * (w_V * z_K);
      real* const next_seg_S = w.seg_S + (slot + 1) * (w_V * z_K);
      EACH_VECTOR(z_K, 2) {
        const vec v_g = load<e_K>(p_g + at, n_K - at);
        const vec x1 = seqc_exp(v_g);
        store(p_s_x1 + at, x1);
      }
      EACH_VECTOR(z_V, 2) {
        const vec v_d_o = load<e_V>(p_d_o + at, n_V - o_V - at);
        const vec x1 = v_d_o / s_c0;
        store(p_s_x2 + at, x1);
      }
      // S = exp(g) * S[t-1] + k * v
      BLOCKS(z_K, fitting(8, spare / 3)) {
        vec r0[CB]{};
        vec x0[CB];
        vec v_k[CB];
        VECTORS(CB) {
          x0[c] = load(p_s_x1 + at);
          v_k[c] = load<e_K>(p_k + at, n_K - at);
        }
        for (i64 i_V = 0; i_V < m_V; ++i_V) {
          const real v_v = p_v[i_V];
          const real x7 = p_s_x2[i_V];
          VECTORS(CB) {
            const vec v_S_old = load(p_seg_S + i_V * z_K + at);
            const vec x2 = x0[c] * v_S_old;
            const vec x5 = v_k[c] * v_v;
            const vec v_S = x2 + x5;
            const vec x8 = x7 * v_S;
            store(next_seg_S + i_V * z_K + at, v_S);
            r0[c] += x8;
          }
        }
        VECTORS(CB) {
          store(w.s_x3 + at, r0[c]);
        }
      }
      EACH_VECTOR(z_K, 2) {
        const vec x0 = load(w.s_x3 + at);
        store<e_K>(p_d_q + at, x0, n_K - at);
      }
    }
    for (i64 slot = count - 1; slot >= 0; --slot) {
      const i64 step = first + slot;
      const i64 t = t_0 + way * step;
      const real* __restrict const p_k = a.g_k + (row + t) * n_H * n_K + i_H * n_K;
      const real* __restrict const p_v = a.g_v + (row + t) * n_H * n_V + i_H * n_V + o_V;
      const real* __restrict const p_q = a.g_q + (row + t) * n_H * n_K + i_H * n_K;
      real* __restrict const p_d_g = a.g_d_g + panel * rows * n_H * n_K + (row + t) * n_H * n_K + i_H * n_K;
      real* __restrict const p_d_k = a.g_d_k + panel * rows * n_H * n_K + (row + t) * n_H * n_K + i_H * n_K;
      real* __restrict const p_d_v = a.g_d_v + (row + t) * n_H * n_V + i_H * n_V + o_V;
      real* const p_s_x1 = w.s_x1 + slot * (z_K);
      real* const p_s_x2 = w.s_x2 + slot * (z_V);
      real* const p_seg_S = w.seg_S + slot * (w_V * z_K);
      BLOCKS(z_K, fitting(8, spare / 5)) {
        vec r0[CB]{};
        vec r1[CB]{};
        vec v_q[CB];
        vec v_k[CB];
        vec x11[CB];
        VECTORS(CB) {
          v_q[c] = load<e_K>(p_q + at, n_K - at);
          v_k[c] = load<e_K>(p_k + at, n_K - at);
          x11[c] = load(p_s_x1 + at);
        }
        for (i64 i_V = 0; i_V < m_V; ++i_V) {
          vec r2{};
          const real x1 = p_s_x2[i_V];
          const real v_v = p_v[i_V];
          VECTORS(CB) {
            const vec v_d_S_next = load(w.d_S + i_V * z_K + at);
            const vec x3 = x1 * v_q[c];
            const vec x4 = v_d_S_next + x3;
            const vec v_S_old = load(p_seg_S + i_V * z_K + at);
            const vec x6 = x4 * v_S_old;
            const vec x8 = x4 * v_v;
            const vec x10 = x4 * v_k[c];
            const vec x12 = x4 * x11[c];
            r0[c] += x6;
            r1[c] += x8;
            r2 += keep<e_K>(x10, n_K - at, real(0));
            store(w.d_S + i_V * z_K + at, x12);
          }
          store(w.rows_0 + (i_V) * W, c0 ? load(w.rows_0 + (i_V) * W) + r2 : r2);
        }
        VECTORS(CB) {
          store(w.s_x4 + at, r0[c]);
          store(w.s_x5 + at, r1[c]);
        }
      }
      across<false>(w.rows_0, w.s_x6, z_V);
      EACH_VECTOR(z_K, 2) {
        const vec x0 = load(w.s_x4 + at);
        const vec x1 = load(p_s_x1 + at);
        const vec x2 = x0 * x1;
        const vec x3 = load(w.s_x5 + at);
        store<e_K>(p_d_g + at, x2, n_K - at);
        store<e_K>(p_d_k + at, x3, n_K - at);
      }
      EACH_VECTOR(z_V, 2) {
        const vec x0 = load(w.s_x6 + at);
        store<e_V>(p_d_v + at, x0, n_V - o_V - at);
      }
    }
  }
  real* __restrict const p_d_S_0 = a.g_d_S_0 + i_B * n_H * n_K * n_V + i_H * n_K * n_V + o_V;
  transpose(w.d_S, z_K, p_d_S_0, n_V, m_V, m_K);
  return 0;
}

}  // namespace

extern "C" int seqc_backward(
    i64 B, i64 T, i64 way, const i64* bounds, i64 threads, i64 save, void* const* arrays) {
  const Call call{B, T, way, bounds};
  Backward a;
  std::memcpy(&a, arrays, sizeof a);  // pointers, in this order
  const bool several = threads > 1 && call.rows() * (n_H * n_K * n_V) > 1048576;  // else one thread is faster
  const i64 programs = B * n_H * panels;
  int failed = 0;
#pragma omp parallel for num_threads(int(threads)) schedule(dynamic) reduction(| : failed) if (several)
  for (i64 program = 0; program < programs; ++program) {
    const i64 panel = program % panels, i_H = program / panels % n_H, rest = program / (panels * n_H);
    failed |= backward_program(a, call, rest, i_H, panel);
  }
  return failed;
}
#endif

#if SEQC_KERNELS & STEP
namespace {
struct Step {
  const real *g_q, *g_k, *g_v, *g_g, *g_S_0;
  real *g_o, *g_S_T;
};

struct StepScratch {
  alignas(64) real s_x1[z_K], s_x2[z_V];
};

int step_program(const Step& a, const Call& call, i64 i_B, i64 i_H, i64 panel) {
  StepScratch* const memory = scratch<StepScratch>();
  if (!memory) return 1;
  StepScratch& w = *memory;
  const i64 o_V = panel * w_V, m_V = std::min(w_V, n_V - o_V);
  const real* __restrict const p_q = a.g_q + i_B * n_H * n_K + i_H * n_K;
  const real* __restrict const p_k = a.g_k + i_B * n_H * n_K + i_H * n_K;
  const real* __restrict const p_v = a.g_v + i_B * n_H * n_V + i_H * n_V + o_V;
  const real* __restrict const p_g = a.g_g + i_B * n_H * n_K + i_H * n_K;
  const real* const p_S_0 = a.g_S_0 + i_B * n_H * n_K * n_V + i_H * n_K * n_V + o_V;
  real* __restrict const p_o = a.g_o + i_B * n_H * n_V + i_H * n_V + o_V;
  real* const p_S_T = a.g_S_T + i_B * n_H * n_K * n_V + i_H * n_K * n_V + o_V;
  real s_c0;
  {
    const real x0 = seqc_sqrt(real(n_K));
    s_c0 = x0;
  }
  EACH_VECTOR(z_K, 2) {
    const vec v_g = load<e_K>(p_g + at, n_K - at);
    const vec x1 = seqc_exp(v_g);
    store(w.s_x1 + at, x1);
  }
  // S = exp(g) * S[t-1] + k * v
  BLOCKS(z_V, fitting(8, spare / 2)) {
    vec r0[CB]{};
    vec v_v[CB];
    VECTORS(CB) {
      v_v[c] = load<e_V>(p_v + at, n_V - o_V - at);
    }
    for (i64 i_K = 0; i_K < m_K; ++i_K) {
      const real v_q = p_q[i_K];
      const real x1 = w.s_x1[i_K];
      const real v_k = p_k[i_K];
      VECTORS(CB) {
        const vec v_S_old = load<e_V>(p_S_0 + i_K * n_V + at, n_V - o_V - at);
        const vec x3 = x1 * v_S_old;
        const vec x6 = v_k * v_v[c];
        const vec v_S = x3 + x6;
        const vec x8 = v_q * v_S;
        r0[c] += x8;
        store<e_V>(p_S_T + i_K * n_V + at, v_S, n_V - o_V - at);
      }
    }
    VECTORS(CB) {
      store(w.s_x2 + at, r0[c]);
    }
  }
  // output o = sum[K](q * S) / sqrt(K)
  EACH_VECTOR(z_V, 2) {
    const vec x0 = load(w.s_x2 + at);
    const vec v_o = x0 / s_c0;
    store<e_V>(p_o + at, v_o, n_V - o_V - at);
  }
  return 0;
}

}  // namespace

extern "C" int seqc_step(
    i64 B, i64 T, i64 way, const i64* bounds, i64 threads, i64 save, void* const* arrays) {
  const Call call{B, T, way, bounds};
  Step a;
  std::memcpy(&a, arrays, sizeof a);  // pointers, in this order
  const bool several = threads > 1 && call.rows() * (n_H * n_K * n_V) > 1048576;  // else one thread is faster
  const i64 programs = B * n_H * panels;
  int failed = 0;
#pragma omp parallel for num_threads(int(threads)) schedule(dynamic) reduction(| : failed) if (several)
  for (i64 program = 0; program < programs; ++program) {
    const i64 panel = program % panels, i_H = program / panels % n_H, rest = program / (panels * n_H);
    failed |= step_program(a, call, rest, i_H, panel);
  }
  return failed;
}
#endif

extern "C" int seqc_panels() { return int(panels); }"""


def _ready_cpu(q, k, v, g, S_0, _kernels):
    """Whether these kernels can run on these arguments: built now, or built ahead for their sizes."""
    double = torch.float64 in [q.dtype, k.dtype, v.dtype, g.dtype, S_0.dtype]
    return _native_ready(_kernels, torch.float64 if double else torch.float32, q.shape[-2], q.shape[-1], v.shape[-1])


def _forward_cpu(q, k, v, g, S_0, *, cu_seqlens=None, reverse=False):
    """Results, and what backward needs."""
    B, T, H, K = q.shape
    V = v.shape[3]
    segments = B, (T + 31) // 32
    if cu_seqlens is not None:  # B sequences in one row of T steps
        B = cu_seqlens.shape[0] - 1
        segments = 1, T // 32 + B
        cu_seqlens = cu_seqlens.to(torch.int64).contiguous()
    way = -1 if reverse else 1
    library, panels = _native_kernel("forward", q.dtype, H, K, V)
    out_o = _native_new(library, q, *q.shape[:2], H, V)
    out_S_T = q.new_empty(B, H, K, V)
    out_S_kept = _native_new(library, q, *segments, H, K, V)
    _native_run(library.seqc_forward, B, T, way, cu_seqlens, 1, q, k, v, g, S_0, out_o, out_S_T, out_S_kept)
    return out_o, out_S_T, out_S_kept


def _infer_cpu(q, k, v, g, S_0, *, cu_seqlens=None, reverse=False):
    """Results only."""
    B, T, H, K = q.shape
    V = v.shape[3]
    if cu_seqlens is not None:  # B sequences in one row of T steps
        B = cu_seqlens.shape[0] - 1
        cu_seqlens = cu_seqlens.to(torch.int64).contiguous()
    way = -1 if reverse else 1
    library, panels = _native_kernel("forward", q.dtype, H, K, V)
    out_o = _native_new(library, q, *q.shape[:2], H, V)
    out_S_T = q.new_empty(B, H, K, V)
    _native_run(library.seqc_forward, B, T, way, cu_seqlens, 0, q, k, v, g, S_0, out_o, out_S_T, None)
    return out_o, out_S_T


def _backward_cpu(q, k, v, g, S_0, S_kept, d_o, d_S_T, *, cu_seqlens=None, reverse=False, needs=(True,) * 5):
    """Gradients of inputs, params, initial states."""
    B, T, H, K = q.shape
    V = v.shape[3]
    if cu_seqlens is not None:  # B sequences in one row of T steps
        B = cu_seqlens.shape[0] - 1
        cu_seqlens = cu_seqlens.to(torch.int64).contiguous()
    way = -1 if reverse else 1
    library, panels = _native_kernel("backward", q.dtype, H, K, V)
    grad_q = _native_new(library, q, panels, *q.shape[:2], H, K)
    grad_g = _native_new(library, q, panels, *q.shape[:2], H, K)
    grad_k = _native_new(library, q, panels, *q.shape[:2], H, K)
    grad_v = _native_new(library, q, *q.shape[:2], H, V)
    grad_S_0 = q.new_empty(B, H, K, V)
    _native_run(
        library.seqc_backward, B, T, way, cu_seqlens, 0, q, k, v, g, S_kept, d_o, d_S_T, grad_q, grad_g, grad_k,
        grad_v, grad_S_0,
    )
    grad_q = _native_added(grad_q, 1)
    grad_g = _native_added(grad_g, 1)
    grad_k = _native_added(grad_k, 1)
    return grad_q, grad_k, grad_v, grad_g, grad_S_0


def _step_cpu(q, k, v, g, S_0):
    """Results of one step."""
    B, H, K = q.shape
    V = v.shape[2]
    library, _ = _native_kernel("step", q.dtype, H, K, V)
    out_o = q.new_empty(B, H, V)
    out_S_T = q.new_empty(B, H, K, V)
    _native_run(library.seqc_step, B, 1, 1, None, 0, q, k, v, g, S_0, out_o, out_S_T)
    return out_o, out_S_T


_NATIVE_FUNCTIONS = "forward backward step".split()
_NATIVE_SIZES = "SEQC_DIM_H SEQC_DIM_K SEQC_DIM_V".split()


def _native_entry(library, panels, dtype, H, K, V):
    """Add the step of a library, for dims of these sizes, to the functions that take tensors."""
    _native_direct(
        library, GLAResult, dtype, 1,
        [(-1, H, K), (-1, H, K), (-1, H, V), (-1, H, K), (-1, H, K, V), (-1, H, V)],
        [False],
    )


def _native_source():
    """The C++ text of the library: around the kernels what is the same for every recurrence."""
    return _NATIVE_RUNTIME + _NATIVE_KERNELS + _NATIVE_ENTRY


def _native_defines(kernels, dtype, *sizes):
    """The macros of a library of these kernels for dims of these sizes."""
    defines = {macro: str(int(size)) for macro, size in zip(_NATIVE_SIZES, sizes, strict=True)}
    return {**defines, "SEQC_KERNELS": kernels.upper(), "SEQC_REAL": "double" if dtype == torch.float64 else "float"}


@_functools.cache
def _native_kernel(kernels, dtype, *sizes):
    """The library of the kernels "forward", "backward" or "step" for dims of these sizes, or of "all" of them, built on first
    use; and the number of panels that the last free dim is cut into."""
    every = ("all", dtype, *sizes)
    if (kernels, dtype, *sizes) != every:  # a library of all kernels, which was built ahead, serves every batch
        if _NATIVE_ALL or _native_prebuilt(_native_source(), _native_defines(*every)):
            return _native_kernel(*every)
    library = _native_library(_native_source(), _native_defines(kernels, dtype, *sizes))
    for name in _NATIVE_FUNCTIONS if kernels == "all" else [kernels]:
        whole, pointer = _ctypes.c_int64, _ctypes.c_void_p
        getattr(library, f"seqc_{name}").argtypes = [whole, whole, whole, pointer, whole, whole, pointer]
    library.seqc_large_pages.argtypes = [_ctypes.c_void_p, _ctypes.c_int64]
    library.seqc_large_pages.restype = None
    panels = library.seqc_panels()
    if kernels in ("all", "step"):
        _native_entry(library, panels, dtype, *sizes)
    return library, panels


def _native_ready(_kernels, _dtype, *sizes):
    """Whether native code runs with dims of these sizes: not where one is 0. What cannot be built or loaded is an error."""
    return 0 not in sizes


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


def _saved_cpu(packed, B, T, H, K, V, io, carry):
    """Shapes and dtypes of what forward saves: S_kept."""
    if packed:
        return [((1, T // 32 + B, H, K, V), carry)]
    return [((B, (T + 31) // 32, H, K, V), carry)]


_TORCH = _Form(_prepare_torch, *_one_by_one(_forward_torch, _forward_torch, _backward_torch), _saved_torch, _step_torch)
_CPU = _Form(_prepare_torch, _infer_cpu, _forward_cpu, _backward_cpu, _saved_cpu, _step_cpu)


def _form(*tensors, kernels=("forward", "backward")):
    """The form that runs on some arguments, of a sequence or of one step: the one place where it is chosen."""
    x = tensors[0]
    if x.device.type == "cpu" and _ready_cpu(*tensors, kernels):
        return _CPU
    return _TORCH


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


def _resized(x, shape):
    """x cut to a shape, or with zeros up to it."""
    part = x[tuple(map(slice, shape))]
    if part.shape == torch.Size(shape):
        return part.contiguous()
    whole = x.new_zeros(shape)
    whole[tuple(map(slice, part.shape))] = part
    return whole


def _own_rows(tensors, kinds, steps):
    """The tensors, those with steps ("T" in kinds) without the rows behind the last sequence of a pack."""
    cut = [x is not None and kind == "T" for x, kind in zip(tensors, kinds)]
    return [x[:, :steps].contiguous() if own else x for x, own in zip(tensors, cut)]


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
    """Autocast has done its part before an operator is called; inside, dtypes are the operator's own."""

    def call(*tensors):
        device = tensors[0].device.type
        if device not in _AUTOCAST or not torch.is_autocast_enabled(device):
            return function(*tensors)
        with torch.autocast(device, enabled=False):
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
    form, carry, steps = _form(*tensors, kernels=("forward",)), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        results = _run(*_own_rows(tensors, "TTTT-", steps), cu_seqlens, reverse)
        return [*(_resized(o, (1, x.shape[1], *o.shape[2:])) for o in results[:1]), *results[1:]]
    if 0 in x.shape[:2]:
        return [*_fake_run(*arguments)[:1], *(_copy(s, carry) for s in tensors[4:])]
    results = form.infer(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    return [*(_dense(o, x.dtype) for o in results[:1]), *(_dense(s, carry) for s in results[1:])]


@_autocast_off
def _forward(*arguments):
    """Operator `forward`: o, S_T, and a list of what backward needs."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[0]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        *results, saved = _forward(*_own_rows(tensors, "TTTT-", steps), cu_seqlens, reverse)
        shapes = [y.shape for y in (*_fake_run(*arguments)[:1], *results[1:], *_fake_forward(*arguments)[-1])]
        results = [_resized(y, shape) for y, shape in zip([*results, *saved], shapes, strict=True)]
        return *results[:2], results[2:]
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
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        own = _own_rows(tensors, "TTTT-", steps)
        saved = [_resized(s, y.shape) for s, y in zip(saved, _fake_forward(*own, cu_seqlens, reverse)[-1], strict=True)]
        cotangents = _own_rows(cotangents, "T-", steps)
        gradients = _backward(*own, cu_seqlens, reverse, saved, needs, *cotangents)
        return [_resized(d, y.shape) for d, y in zip(gradients, _asked(needs, tensors), strict=True)]
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
    form, carry = _form(*tensors, kernels=("step",)), _carry(x)
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
        ctx.direct = forward is _forward
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
        past = ctx.direct and not torch.is_grad_enabled() and _unwatched(cotangents)
        gradients = _below(_backward, *arguments) if past else _backward_below(*arguments)
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


def _plain_keys():
    """What dispatches an ordinary tensor of a CPU, made in inference mode or not."""
    keys = torch._C.DispatchKey
    sets = [torch._C.DispatchKeySet(x) for x in (keys.CPU, keys.AutocastCPU, keys.AutogradCPU, keys.ADInplaceOrView)]
    return frozenset(x.raw_repr() for x in (sets[0] | sets[1], sets[0] | sets[1] | sets[2] | sets[3]))


_PLAIN_KEYS, _PLAIN_KINDS = _plain_keys(), frozenset((Tensor, torch.nn.Parameter))


def _unwatched(tensors):
    """Whether torch's dispatcher would do nothing but call the kernel: these are ordinary tensors of a CPU, or None,
    and no mode, transform, trace or profiler looks at operators."""
    ask, tensors = torch._C, [x for x in tensors if x is not None]
    watched = ask._len_torch_dispatch_stack() or ask._len_torch_function_stack() or ask._get_tracing_state()
    watched = watched or ask._are_functorch_transforms_active() or ask._autograd._profiler_enabled()
    if watched or forward_ad._current_level >= 0 or not _PLAIN_KINDS.issuperset(map(type, tensors)):
        return False
    return _PLAIN_KEYS.issuperset(map(torch._C.DispatchKeySet.raw_repr, map(torch._C._dispatch_keys, tensors)))


def _call_run(*arguments):
    """The results of `run` for a caller; past torch's dispatcher where a gradient is recorded and nobody looks."""
    if torch.compiler.is_compiling() or type(arguments[-1]) is not bool or not _needs_gradient(arguments[:5]):
        return _call(_OPS.run.default, *arguments)
    if not _unwatched(arguments[:-1]):
        return _call(_OPS.run.default, *arguments)
    return _Derivative.apply(_forward, False, *arguments)


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
    name, tries = "seqc_gla_f5455da11d17", 0
    while hasattr(getattr(torch.ops, name), "run"):
        tries += 1
        name = f"seqc_gla_f5455da11d17_{tries}"
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


# ---------- building and loading native code: the same in every file --------------------------------------------------

# Where libraries are kept: None is $XDG_CACHE_HOME/seqc or ~/.cache/seqc.
NATIVE_CACHE: str | None = None
# How long a call of the compiler may take, in seconds; and its answer to `--version`.
NATIVE_SECONDS, NATIVE_ANSWER = 180.0, 20.0
# After how many seconds a build is told on stderr: on a terminal, and elsewhere.
NATIVE_PATIENCE = 1.0, 10.0

_native_loaded: dict[str, _ctypes.CDLL] = {}
_native_running: dict[int, _subprocess.Popen[str]] = {}  # the program that each thread runs


def _native_command(words: Sequence[str], seconds: float) -> tuple[int, str, str]:
    """Run a program: (exit status, stdout, stderr). RuntimeError if it takes longer: it is stopped, with all that it began."""
    group = 0 if _os.name == "posix" else None
    with _subprocess.Popen(words, stdin=_subprocess.DEVNULL, stdout=_subprocess.PIPE, stderr=_subprocess.PIPE, text=True,
                           errors="replace", process_group=group) as running:
        _native_running[_threading.get_ident()] = running
        try:
            out, err = running.communicate(timeout=seconds)
        except BaseException as problem:
            _native_stop(running)
            if isinstance(problem, _subprocess.TimeoutExpired):
                raise RuntimeError(f"`{_shlex.join(words)}` did not end within {seconds:g} seconds") from None
            raise
        finally:
            del _native_running[_threading.get_ident()]
    return running.returncode, out, err


def _native_stop(running: _subprocess.Popen[str]) -> None:
    """End a program, with all that it began."""
    with _contextlib.suppress(ProcessLookupError):
        running.kill() if _os.name != "posix" else _os.killpg(running.pid, _signal.SIGKILL)


def _native_each(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each gives. They build libraries side by side, as many as there are cores; where one fails, the others stop."""
    if len(works) < 2:
        return [work() for work in works]
    own = set[int]()
    with _futures.ThreadPoolExecutor(_os.cpu_count(), initializer=lambda: own.add(_threading.get_ident())) as pool:
        made = [pool.submit(work) for work in works]
        try:
            return [one.result() for one in made]
        except BaseException:
            for one in made:
                one.cancel()
            while not all(one.done() for one in made):
                for running in [x for thread, x in [*_native_running.items()] if thread in own]:
                    _native_stop(running)
                _futures.wait(made, timeout=0.05)
            raise


@_functools.cache
def _native_search() -> tuple[tuple[str, ...], str, str]:
    """(the words that call the C++ compiler, what it says of itself, why there is none: "" if there is one).

    $CXX may hold flags, and a program that calls the compiler (`ccache g++ -O2`); if it is set, nothing else is tried.
    """
    wish = _os.environ.get("CXX", "").strip()
    if not wish:
        path = next(filter(None, map(_shutil.which, ("c++", "g++", "clang++"))), None)
        if path is None:
            return (), "", "no C++ compiler found: install one or set CXX"
        words: tuple[str, ...] = (path,)
    else:
        try:
            words = (wish,) if _shutil.which(wish) else tuple(_shlex.split(wish))
        except ValueError as problem:
            return (), "", f"CXX is `{wish}`, which is no command: {problem}"
        path = _shutil.which(words[0]) if words else None
        if path is None:
            return (), "", f"CXX is `{wish}`, and there is no program `{words[0] if words else wish}`"
        words = (path, *words[1:])
    try:
        status, told, err = _native_command([*words, "--version"], NATIVE_ANSWER)
    except (OSError, RuntimeError) as problem:
        return (), "", f"the C++ compiler cannot be used: {problem}"
    if status:
        return (), "", f"the C++ compiler cannot be used: `{_shlex.join([*words, '--version'])}` failed\n{err[:1000]}"
    return words, told, ""


def _native_compiler() -> tuple[tuple[str, ...], str] | None:
    """The words that call the C++ compiler, and what it says of itself; None if there is none."""
    words, told, problem = _native_search()
    return None if problem else (words, told)


@_functools.cache
def _native_tell(words: str) -> None:
    """Warn, once."""
    _warnings.warn(words, stacklevel=2)


@_functools.cache
def _native_processor() -> str:
    """What the build depends on of the processor."""
    words = [_platform.system(), _platform.machine()]
    info = _Path("/proc/cpuinfo")
    if info.exists():
        wanted = ("model name", "flags", "Features", "CPU part")
        lines = {line for line in info.read_text().splitlines() if line.startswith(wanted)}
        words += sorted(lines)
    return "\n".join(words)


@_functools.cache
def _native_flags() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(flags to compile, flags to link). No fast-math: infinities, NaN and -0 keep their meaning."""
    compiler = _native_compiler()
    assert compiler is not None
    host = "-march=native" if _platform.machine().lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"
    clang = "clang" in compiler[1]
    flags = ["-std=c++17", "-O3" if clang else "-O2", host, "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
    flags += ["-fPIC", "-w"]
    if not clang:  # what finds vectors, and values to keep, in plain loops: they are written out here
        flags += [f"-fno-{x}" for x in ("tree-pre", "tree-vectorize", "tree-loop-distribute-patterns")]
        # gcc's choice of counters for addresses makes loops faster with AVX2, slower with AVX-512, and takes a sixth of a build
        flags += ["-fno-ivopts"] if "avx512f" in _native_processor() else []
    cache = _os.sysconf("SC_LEVEL1_DCACHE_SIZE") if "SC_LEVEL1_DCACHE_SIZE" in _os.sysconf_names else 0
    if cache > 0:
        flags.append(f"-DSEQC_L1={cache}")
    link = ["-shared"]
    if _platform.system() != "Darwin":  # the system compiler there comes without OpenMP: one thread
        flags.append("-fopenmp")
        # torch has loaded an OpenMP library: share its threads if its symbols are in sight, else bring one
        if not hasattr(_ctypes.CDLL(None), _native_threads(compiler[1])):
            link.append("-fopenmp")
    return tuple(flags), tuple(link)


def _native_threads(compiler: str) -> str:
    """The function of the OpenMP library by which code of this compiler starts threads."""
    return "__kmpc_fork_call" if "clang" in compiler else "GOMP_parallel"


def _native_cache() -> _Path | None:
    """The folder of built libraries; None if there is no home to keep it in."""
    if NATIVE_CACHE:
        return _Path(NATIVE_CACHE)
    told = _Path(_os.environ.get("XDG_CACHE_HOME", ""))
    if told.is_absolute():  # another is to be ignored, says XDG's specification
        return told / "seqc"
    try:
        return _Path.home() / ".cache" / "seqc"
    except RuntimeError:  # no $HOME, and a user of whom the system knows none
        return None


def _native_distrust(path: _Path, folder: bool) -> str:
    """Why what lies here must not be loaded; "" if it belongs to this user and nobody else may write it."""
    if _os.name != "posix":
        return ""
    found = path.lstat()
    if not (_stat.S_ISDIR if folder else _stat.S_ISREG)(found.st_mode):
        return f"it is {'a link' if _stat.S_ISLNK(found.st_mode) else 'no folder' if folder else 'no file'}"
    if found.st_uid != _os.geteuid():
        return f"it belongs to another user ({found.st_uid})"
    if found.st_mode & 0o022:
        return f"others may write it (its mode is {_stat.S_IMODE(found.st_mode):o})"
    own = path.parent.resolve()
    for above in (own, *own.parents) if folder else ():
        mode = above.stat().st_mode
        if mode & 0o002 and not mode & _stat.S_ISVTX:
            return f"others may replace it (the mode of {above} is {_stat.S_IMODE(mode):o})"
    return ""


def _native_trusted(cache: _Path | None) -> _Path:
    """The folder to read and to build in: the cache, made if it is not there, or a temporary one if it cannot be used."""
    if cache is None:
        _native_tell("there is no home folder for a cache: native kernels are built for this process only")
        return _native_private()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with _contextlib.suppress(FileExistsError):
            cache.mkdir(mode=0o700)
        problem = _native_distrust(cache, folder=True)
    except OSError as error:
        problem = f"{error.strerror}"
    if not problem:
        return cache
    _native_tell(f"the cache {cache} is not used, for {problem}: native kernels are built for this process only")
    return _native_private()


@_functools.cache
def _native_private() -> _Path:
    folder = _tempfile.mkdtemp(prefix="seqc-")
    _atexit.register(_shutil.rmtree, folder, ignore_errors=True)
    return _Path(folder)


@_contextlib.contextmanager
def _native_alone(path: _Path) -> Iterator[None]:
    """Hold a lock between processes, and between threads; it ends with the process that holds it."""
    with open(_os.open(path, _os.O_RDWR | _os.O_CREAT | getattr(_os, "O_NOFOLLOW", 0), 0o600), "w") as file:
        if _os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@_contextlib.contextmanager
def _native_told(text: str, defines: Mapping[str, str]) -> Iterator[None]:
    """Say on stderr that kernels are built, where it takes long, and how long it took."""
    sizes = _native_words(sorted(defines.items()))
    who = text.partition("// seqc: ")[2].partition(",")[0]
    begin, said = _time.monotonic(), list[str]()
    patience = NATIVE_PATIENCE[0 if _sys.stderr is not None and _sys.stderr.isatty() else 1]

    def say(words: str) -> None:
        said.append(words)
        if _sys.stderr is not None:
            print(f"seqc: {who}: native kernels for {sizes} {words}", file=_sys.stderr, flush=True)

    timer = _threading.Timer(patience, say, ["are being built: once, then they lie in the cache"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if said:
            say(f"took {_time.monotonic() - begin:.0f} s")


def _native_words(sizes: Iterable[tuple[str, object]]) -> str:
    """Macros and their values as a reader knows them: by the names of dims."""
    return ", ".join(f"{macro.removeprefix('SEQC_').removeprefix('DIM_')}={value}" for macro, value in sizes)


def _native_macros(defines: Mapping[str, str]) -> list[str]:
    return [f"-D{name}={value}" for name, value in sorted(defines.items())]


def _native_digest(*parts: str) -> str:
    return _hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _native_sum(library: _Path) -> str:
    return _hashlib.sha256(library.read_bytes()).hexdigest()


def _native_note(library: _Path, own: bool = True) -> dict[str, Any] | None:
    """What is noted of a library; None if it is not there, or not whole, or (own) not this user's alone."""
    try:
        if own and any(_native_distrust(path, folder=False) for path in (library, library.with_suffix(".json"))):
            return None
        note = _json.loads(library.with_suffix(".json").read_text())
        return note if note["sum"] == _native_sum(library) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _native_build(text: str, defines: Mapping[str, str]) -> _Path:
    """The library's file, built if it is not in the cache. RuntimeError with the compiler's words if it does not compile."""
    words, told, problem = _native_search()
    if problem:
        raise RuntimeError(problem)
    flags, link = _native_flags()
    parts = (text, *_native_macros(defines), *words[1:], *flags, *link, told, _native_processor())
    name = f"{_native_digest(*parts)}.so"
    cache = _native_cache()
    folder = _native_trusted(cache)
    if _native_note(folder / name) is not None:
        return folder / name
    if not _os.access(folder, _os.W_OK | _os.X_OK):
        _native_tell(f"cannot write {cache}: native kernels are built for this process only")
        folder = _native_private()
    with _native_told(text, defines), _native_alone(folder / f"{name}.lock"):
        if _native_note(folder / name) is None:
            _native_make(text, defines, link, folder / name, {})
    return folder / name


def _native_make(text: str, defines: Mapping[str, str], link: Sequence[str], target: _Path, note: dict[str, Any]) -> None:
    """Compile a library and put it at `target`, its note beside it."""
    compiler = _native_compiler()
    assert compiler is not None
    _native_sweep(target.parent)
    with _tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as folder:
        source, part, built, told = (_Path(folder, f"kernel.{end}") for end in ("cpp", "o", "so", "json"))
        source.write_text(text)
        for command in (
            [*compiler[0], *_native_flags()[0], *_native_macros(defines), "-c", str(source), "-o", str(part)],
            [*compiler[0], *link, str(part), "-o", str(built)],
        ):
            status, _, err = _native_command(command, NATIVE_SECONDS)
            if status or not _Path(command[-1]).is_file():
                raise RuntimeError(f"the kernel does not compile: {_shlex.join(command)}\n{err[:4000]}")
        built.chmod(0o755)
        told.write_text(_json.dumps({**note, "sum": _native_sum(built)}, indent=1))
        told.chmod(0o644)
        _os.replace(built, target)
        _os.replace(told, target.with_suffix(".json"))


def _native_sweep(cache: _Path) -> None:
    """Remove what builds that were interrupted more than a day ago have left."""
    for folder in cache.glob("build-*"):
        with _contextlib.suppress(OSError):  # another process has swept it
            if folder.stat().st_mtime < _time.time() - 86400:
                _shutil.rmtree(folder, ignore_errors=True)


def _native_pointers(arrays: Sequence[Any]) -> bytes:
    """The addresses of tensors as a C array; of None, null."""
    return _struct.pack(f"{len(arrays)}P", *[0 if x is None else x.data_ptr() for x in arrays])


def _native_library(text: str, defines: Mapping[str, str]) -> _ctypes.CDLL:
    """The loaded library of a translation unit: built ahead, or built now."""
    key = _native_digest(text, *_native_macros(defines))
    if key not in _native_loaded:
        ahead = _native_prebuilt(text, defines)
        path = ahead or _native_build(text, defines)
        try:
            _native_loaded[key] = _ctypes.CDLL(str(path))
        except OSError:  # of a cache that another system has filled: what cannot be loaded here is built here
            if ahead:
                raise
            path.unlink(missing_ok=True)
            _native_loaded[key] = _ctypes.CDLL(str(_native_build(text, defines)))
    return _native_loaded[key]


# ---- libraries that were built ahead, by `seqc compile --prebuild` ----


def _native_lacks(note: Mapping[str, Any]) -> str:
    """What this machine lacks for a library with this note; "" if it can run it."""
    words, have = list(note["processor"]), _native_processor().splitlines()
    if words[:2] != have[:2]:
        return f"it is for {' '.join(words[:2])}, this is {' '.join(have[:2])}"

    def features(lines: Sequence[str]) -> set[str]:
        return {word for line in lines if not line.startswith("model name") for word in line.partition(":")[2].split()}

    lacking = features(words) - features(have)
    if lacking or (not features(words) and words != have):
        return f"this processor lacks {', '.join(sorted(lacking)) or 'a description'}"
    threads = note["threads"]
    return f"no OpenMP library with {threads} is loaded" if threads and not hasattr(_ctypes.CDLL(None), threads) else ""


def _native_ahead(folder: _Path, text: str, defines: Mapping[str, str]) -> _Path:
    """Where the library lies that was built ahead."""
    return folder / f"{_native_digest(text, *_native_macros(defines))}.so"


def _native_prebuilt(text: str, defines: Mapping[str, str]) -> _Path | None:
    """The library that was built ahead, if there is one that this machine can run; told once if there is another.

    It lies beside this file, in the folder `NAME.native`.
    """
    path = _native_ahead(_Path(__file__).with_suffix(".native"), text, defines)
    note = _native_note(path, own=False)
    if note is None:
        if path.exists():
            _native_tell(f"{path} is damaged and not used")
        return None
    lack = _native_lacks(note)
    if lack:
        _native_tell(f"{path} is not used: {lack}")
    return None if lack else path


# A call builds the kernels that it needs, for the rows of its batch. SEQC_BATCHES=all: one library has all of them.
_NATIVE_ALL = _os.environ.get("SEQC_BATCHES") == "all"


def _native_run(function, B, T, way, bounds, save, *arrays):
    """Call a kernel on contiguous tensors; None is an array that it does not write. bounds: of a pack's sequences, or None."""
    pointer = None if bounds is None else bounds.data_ptr()
    if function(B, T, way, pointer, torch.get_num_threads(), save, _native_pointers(arrays)):
        raise MemoryError("a native kernel found no memory for its buffers")


def _native_new(library, like, *shape):
    """A new array. A large one begins on a large page: the first touch of each small page would cost more than writing it."""
    count, size = math.prod(shape), like.element_size()
    if count * size < 1 << 21:
        return like.new_empty(shape)
    page = (1 << 21) // size
    whole = like.new_empty(count + page)
    made = like.new_empty(0).set_(whole.untyped_storage(), -(whole.data_ptr() // size) % page, shape)
    library.seqc_large_pages(made.data_ptr(), made.nbytes)
    return made


def _native_added(x, count):
    """x summed over its first axes, which number contributions; no copy where there is one."""
    for _ in range(count):
        x = x[0] if x.shape[0] == 1 else x.sum(0)
    return x


_NATIVE_STEPS: list[Callable] = []  # the step of each library as a function: for calls that need nothing of torch's dispatcher
_native_held: list[Any] = []  # what these functions point to

_NATIVE_PYTHON = (
    "PyObject_Type Py_IncRef Py_DecRef PyObject_CallObject PyTuple_New PyTuple_SetItem PyTuple_GetItem PyErr_Clear "
    "PyLong_AsLongLong PyLong_FromLongLong PyEval_SaveThread PyEval_RestoreThread PyErr_NoMemory"
).split()


class _NativeMethod(_ctypes.Structure):
    """A function as Python keeps it."""

    _fields_ = [("name", _ctypes.c_char_p), ("call", _ctypes.c_void_p), ("flags", _ctypes.c_int), ("doc", _ctypes.c_char_p)]


@_functools.cache
def _native_watches() -> dict[Any, Any]:
    """What tells whether something watches or changes what operators do, and its answer where nothing does."""
    return {
        torch.is_grad_enabled: False,
        torch._C._are_functorch_transforms_active: False,
        torch._C._len_torch_dispatch_stack: 0,
        torch._C._len_torch_function_stack: 0,
        torch._C._get_tracing_state: None,
        torch._C._is_any_autocast_enabled: False,
        torch._C._autograd._profiler_enabled: False,
    }


@_functools.cache
def _native_exchange() -> int:
    """Where torch's function lies that describes a tensor to other libraries; 0 if it, or Python's interface, is not there."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None or _platform.python_implementation() != "CPython":
        return 0
    get = _ctypes.PYFUNCTYPE(_ctypes.c_void_p, _ctypes.py_object, _ctypes.c_char_p)(("PyCapsule_GetPointer", _ctypes.pythonapi))
    table = (_ctypes.c_void_p * 6).from_address(get(capsule, b"dlpack_exchange_api"))
    version = (table[0] or 0) & 0xFFFFFFFF  # the table begins with the version of the interface; pointers follow
    return table[5] or 0 if version == 1 else 0


def _native_place(function: Any) -> int:
    """Where a function lies."""
    return _ctypes.cast(function, _ctypes.c_void_p).value or 0


def _native_numbers(*values: int) -> Any:
    return (_ctypes.c_int64 * len(values))(*values)


def _native_direct(library: Any, result: Any, dtype: torch.dtype, states: int, shapes: Sequence[Any], shared: Any) -> None:
    """Add the step of a library to `_NATIVE_STEPS`. shapes: of the arguments, then of the outputs; -1 is the batch."""
    read = _native_exchange()
    if not read:
        return
    outputs = len(result._fields) - states
    count = len(shapes) - outputs
    given, made = shapes[: count - states], shapes[count:]
    alike = [next((i for i, x in enumerate(given) if x == shape), -1) for shape in made]
    fresh = [_functools.partial(_native_fresh, dtype, shape[1:]) for shape in made]
    objects = [None, True, torch.Tensor, torch.nn.Parameter, result, torch.empty_like, torch.is_neg,
               torch._C._increment_version, torch.get_num_threads]
    watches = _native_watches()
    sizes = [n for shape in shapes for n in (len(shape), *shape)]
    tables = [*(_native_numbers(*row) for row in ((count, states, outputs), sizes, shared, alike)),
              (_ctypes.c_void_p * outputs)(*map(id, fresh))]
    words = [*(_native_place(getattr(_ctypes.pythonapi, name)) for name in _NATIVE_PYTHON), read]
    words += [_native_place(library.seqc_step), *map(id, objects), *[*map(id, watches), 0, 0][:8]]
    words += [*[*map(id, watches.values()), 0, 0][:8], *map(_ctypes.addressof, tables)]
    entry = (_ctypes.c_void_p * len(words))(*words)
    library.seqc_direct_begin.argtypes = [_ctypes.c_void_p]
    library.seqc_direct_begin(_native_place(_ctypes.pythonapi.PyCapsule_GetPointer))
    name, pointer, thing = _ctypes.create_string_buffer(b"seqc"), _ctypes.c_void_p, _ctypes.py_object
    capsule = _ctypes.PYFUNCTYPE(thing, pointer, pointer, pointer)(("PyCapsule_New", _ctypes.pythonapi))(
        _ctypes.addressof(entry), _ctypes.addressof(name), None
    )
    method = _NativeMethod(b"seqc_direct", _native_place(library.seqc_direct), 0x80, None)  # METH_FASTCALL
    function = _ctypes.PYFUNCTYPE(thing, pointer, thing, pointer)(("PyCFunction_NewEx", _ctypes.pythonapi))(
        _ctypes.addressof(method), capsule, None
    )
    _native_held.append((entry, name, method, tables, fresh, objects, watches))
    _NATIVE_STEPS.append(function)


def _native_fresh(dtype: torch.dtype, sizes: Sequence[int], B: int) -> Tensor:
    """A new tensor of a batch of B."""
    return torch.empty((B, *sizes), dtype=dtype, device="cpu")


_NATIVE_RUNTIME = r"""
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

// Of <algorithm>, <memory> and <thread>, which are more than half of what is read here, a few names are used.
#if __has_include(<bits/stl_algobase.h>) && __has_include(<bits/unique_ptr.h>) && __has_include(<sched.h>)
#include <bits/stl_algobase.h>
#include <bits/unique_ptr.h>
#include <sched.h>
#else
#include <algorithm>
#include <memory>
#include <thread>
#define sched_yield std::this_thread::yield
#endif

using real = SEQC_REAL;
using i64 = std::int64_t;

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__AVX512F__) && defined(__clang__)  // gcc reads this header for as long as all others: its own names are used there
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
constexpr int W = BYTES / int(sizeof(real));  // lanes of a vector
constexpr bool single = sizeof(real) == 4;
constexpr real infinity = std::numeric_limits<real>::infinity();
using whole = std::conditional_t<sizeof(real) == 4, std::int32_t, std::int64_t>;
typedef real vec __attribute__((vector_size(BYTES)));
typedef whole mask __attribute__((vector_size(BYTES)));  // all bits of a lane: its truth value; or integers

// A call: B sequences of T steps, or a pack of B in one row: sequence i has the steps from bounds[i] up to bounds[i + 1].
// way: 1 from the first step to the last, -1 from the last to the first.
struct Call {
  i64 B, T, way;
  const i64* bounds;
  i64 rows() const { return bounds ? bounds[B] : B * T; }
  i64 steps(i64 i) const { return bounds ? bounds[i + 1] - bounds[i] : T; }
  i64 row(i64 i) const { return bounds ? bounds[i] : i * T; }
  // where the segments of sequence i begin: bounds[i] / every + i leaves each sequence of a pack as many as it needs
  i64 segment(i64 i, i64 every) const { return bounds ? bounds[i] / every + i : i * ((T + every - 1) / every); }
};

#define INLINE inline __attribute__((always_inline))
#define ONCE inline __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 32")

constexpr i64 chunks(i64 n) { return (n + W - 1) / W; }  // vectors that n values fill
constexpr i64 padded(i64 n) { return chunks(n) * W; }
constexpr i64 quotient(i64 n, i64 by) { return (n + by - 1) / by; }  // rounded up
constexpr i64 fitting(i64 most, i64 room) { return std::max<i64>(1, std::min(most, room)); }
constexpr i64 divisor(i64 n, i64 most) {  // the largest divisor of n that is at most `most`
  i64 d = std::max<i64>(1, std::min(n, most));
  while (n % d) --d;
  return d;
}
// Loops over the vectors of n values: blocks of CB vectors, as many as leave no rest, at most `most`; c0 is the first of one.
// BLOCKS_OF: those from `first` up to `last`, the b-th at its `place`. VECTORS: of one block; `at` is where a vector begins.
#define BLOCKS(n, most)                                               \
  if constexpr (constexpr i64 CB = divisor((n) / W, most); true)      \
    for (i64 c0 = 0; c0 < (n) / W; c0 += CB)
#define BLOCKS_OF(n, most, first, last, place)                                                        \
  if constexpr (constexpr i64 CB = divisor((n) / W, most), blocks = (n) / W / CB; true)               \
    for (i64 b = first; b < last; ++b)                                                                \
      if (const i64 c0 = CB * (place); true)
#define VECTORS(count) UNROLL for (int c = 0; c < count; ++c) if (const i64 at = (c0 + c) * W; true)
#define EACH_VECTOR(n, most) BLOCKS(n, most) VECTORS(CB)

INLINE vec splat(real x) { return x - vec{}; }
INLINE vec splat(vec x) { return x; }
INLINE vec lanes() {  // 0, 1, 2, ...
  vec r{};
  for (int i = 0; i < W; ++i) r[i] = real(i);
  return r;
}

// Loads and stores. `full`: the extent is a multiple of W, known when compiled; else `left` values are inside. No
// memcpy: GCC 12 stores 64 bytes of known numbers that end in zeros as if the first were repeated in all of them.
typedef vec loose __attribute__((aligned(alignof(real)), may_alias));
INLINE vec load(const real* p) { return *reinterpret_cast<const loose*>(p); }
INLINE void store(real* p, vec x) { *reinterpret_cast<loose*>(p) = x; }
INLINE void store(real* p, real x) { store(p, splat(x)); }
// The first `left` elements, and 0 in the other lanes: one instruction where the processor has it, which touches nothing else.
#if defined(__AVX512F__)
INLINE unsigned first(i64 left) { return left > 0 ? (1u << left) - 1 : 0; }
#endif
#if defined(__AVX__) && !defined(__clang__)
typedef float floats __attribute__((vector_size(BYTES)));
typedef double doubles __attribute__((vector_size(BYTES)));
typedef int ints __attribute__((vector_size(BYTES)));
typedef long long longs __attribute__((vector_size(BYTES)));
#endif
#if defined(__AVX512F__) && defined(__clang__)
INLINE vec load_some(const real* p, i64 left) {
  if constexpr (sizeof(real) == 4) return (vec)_mm512_maskz_loadu_ps(__mmask16(first(left)), p);
  else return (vec)_mm512_maskz_loadu_pd(__mmask8(first(left)), p);
}
INLINE void store_some(real* p, vec x, i64 left) {
  if constexpr (sizeof(real) == 4) _mm512_mask_storeu_ps(p, __mmask16(first(left)), (__m512)x);
  else _mm512_mask_storeu_pd(p, __mmask8(first(left)), (__m512d)x);
}
#elif defined(__AVX512F__)
INLINE vec load_some(const real* p, i64 left) {
  if constexpr (sizeof(real) == 4) return (vec)__builtin_ia32_loadups512_mask((const float*)p, floats{}, short(first(left)));
  else return (vec)__builtin_ia32_loadupd512_mask((const double*)p, doubles{}, char(first(left)));
}
INLINE void store_some(real* p, vec x, i64 left) {
  if constexpr (sizeof(real) == 4) __builtin_ia32_storeups512_mask((float*)p, (floats)x, short(first(left)));
  else __builtin_ia32_storeupd512_mask((double*)p, (doubles)x, char(first(left)));
}
#elif defined(__AVX2__) && !defined(__clang__)
INLINE mask first(i64 left) { return lanes() < splat(real(left)); }
INLINE vec load_some(const real* p, i64 left) {
  if constexpr (sizeof(real) == 4) return (vec)__builtin_ia32_maskloadps256((const floats*)p, (ints)first(left));
  else return (vec)__builtin_ia32_maskloadpd256((const doubles*)p, (longs)first(left));
}
INLINE void store_some(real* p, vec x, i64 left) {
  if constexpr (sizeof(real) == 4) __builtin_ia32_maskstoreps256((floats*)p, (ints)first(left), (floats)x);
  else __builtin_ia32_maskstorepd256((doubles*)p, (longs)first(left), (doubles)x);
}
#else
INLINE vec load_some(const real* p, i64 left) {
  vec r{};
  for (int i = 0; i < W; ++i)
    if (i < left) r[i] = p[i];
  return r;
}
INLINE void store_some(real* p, vec x, i64 left) {
  for (int i = 0; i < W; ++i)
    if (i < left) p[i] = x[i];
}
#endif
template <bool full>
INLINE vec load(const real* p, i64 left) { return full || left >= W ? load(p) : load_some(p, left); }
template <bool full>
INLINE void store(real* p, vec x, i64 left) { return full || left >= W ? store(p, x) : store_some(p, x, left); }
template <bool full>
INLINE void store(real* p, real x, i64 left) { store<full>(p, splat(x), left); }
template <class Scratch>
Scratch* scratch() {  // one per thread and kernel, kept between calls; zero at first
  static thread_local std::unique_ptr<Scratch> kept;
  if (!kept) kept.reset(new (std::nothrow) Scratch());
  return kept.get();
}

template <bool full>
INLINE vec keep(vec x, i64 left, real otherwise) {  // lanes outside are replaced before a sum over lanes
  return full || left >= W ? x : lanes() < splat(real(left)) ? x : splat(otherwise);
}

INLINE real seqc_max(real a, real b) { return a > b || a != a ? a : b; }
INLINE vec seqc_max(vec a, vec b) { return ((a > b) | (a != a)) ? a : b; }
INLINE vec seqc_max(real a, vec b) { return seqc_max(splat(a), b); }
INLINE vec seqc_max(vec a, real b) { return seqc_max(a, splat(b)); }

// Sums over lanes, for W rows at once: lane r of the result is the sum (or the maximum) of row r, in a fixed order.
template <int d, int... l>
INLINE vec pair_low(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? l + W : l)...);
}
template <int d, int... l>
INLINE vec pair_high(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? (l ^ d) + W : (l ^ d))...);
}
template <bool most, int d>
INLINE void fold_rows(vec* r) {
  if constexpr (d > 0) {
    constexpr auto l = std::make_integer_sequence<int, W>{};
    UNROLL for (int i = 0; i < d; ++i) {
      const vec low = pair_low<d>(r[i], r[i + d], l), high = pair_high<d>(r[i], r[i + d], l);
      r[i] = most ? seqc_max(low, high) : low + high;
    }
    fold_rows<most, d / 2>(r);
  }
}
template <bool most = false>
ONCE void across(const real* rows, real* out, i64 n) {  // rows: n vectors; out: n values, padded
  for (i64 i = 0; i < n; i += W) {
    vec r[W];
    UNROLL for (int j = 0; j < W; ++j) r[j] = i + j < n ? load(rows + (i + j) * W) : vec{};
    fold_rows<most, W / 2>(r);
    store(out + i, r[0]);
  }
}
template <bool most>
INLINE real total(vec x) {
  alignas(BYTES) real out[W];
  alignas(BYTES) real row[W];
  store(row, x);
  across<most>(row, out, 1);
  return out[0];
}

template <int d, int... l>
INLINE vec pair_first(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? (l ^ d) + W : l)...);
}
template <int d, int... l>
INLINE vec pair_second(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? l + W : (l ^ d))...);
}
template <int d>
INLINE void turn(vec* r) {
  if constexpr (d > 0) {
    constexpr auto l = std::make_integer_sequence<int, W>{};
    UNROLL for (int i = 0; i < W; ++i)
      if (!(i & d)) {
        const vec first = pair_first<d>(r[i], r[i + d], l), second = pair_second<d>(r[i], r[i + d], l);
        r[i] = first, r[i + d] = second;
      }
    turn<d / 2>(r);
  }
}
// to[j * to_stride + i] = from[i * from_stride + j] for i < rows, j < columns. Of many instructions: compiled once.
ONCE void transpose(const real* from, i64 from_stride, real* to, i64 to_stride, i64 rows, i64 columns) {
  for (i64 i0 = 0; i0 < rows; i0 += W)
    for (i64 j0 = 0; j0 < columns; j0 += W) {
      vec r[W];
      UNROLL for (int i = 0; i < W; ++i)
        r[i] = i0 + i < rows ? load<false>(from + (i0 + i) * from_stride + j0, columns - j0) : vec{};
      turn<W / 2>(r);
      UNROLL for (int j = 0; j < W; ++j)
        if (j0 + j < columns) store<false>(to + (j0 + j) * to_stride + i0, r[j], rows - i0);
    }
}

INLINE mask bits(vec x) {
  mask r;
  std::memcpy(&r, &x, sizeof r);
  return r;
}
INLINE vec number(mask x) {
  vec r;
  std::memcpy(&r, &x, sizeof r);
  return r;
}

template <int n>
INLINE vec horner(vec x, const real (&c)[n]) {
  vec r = splat(c[n - 1]);
  UNROLL for (int i = n - 2; i >= 0; --i) r = r * x + c[i];
  return r;
}

constexpr int FRACTION = single ? 23 : 52;  // bits of a fraction

constexpr int BIAS = single ? 127 : 1023;
INLINE vec power2(mask n) { return number((n + whole(BIAS)) << FRACTION); }  // 2^n, n a normal exponent
#if defined(__AVX512F__) && defined(__clang__)  // one instruction each; NaN passes through all of them
INLINE vec at_most(real top, vec x) {
  if constexpr (single) return (vec)_mm512_min_ps((__m512)splat(top), (__m512)x);
  else return (vec)_mm512_min_pd((__m512d)splat(top), (__m512d)x);
}
INLINE vec at_least(real bottom, vec x) {
  if constexpr (single) return (vec)_mm512_max_ps((__m512)splat(bottom), (__m512)x);
  else return (vec)_mm512_max_pd((__m512d)splat(bottom), (__m512d)x);
}
INLINE vec scaled(vec x, vec n) {  // x 2^n, n whole
  if constexpr (single) return (vec)_mm512_scalef_ps((__m512)x, (__m512)n);
  else return (vec)_mm512_scalef_pd((__m512d)x, (__m512d)n);
}
#elif defined(__AVX512F__)  // the same as gcc names them: all lanes, and the direction of rounding that is set
INLINE vec at_most(real top, vec x) {
  if constexpr (single) return (vec)__builtin_ia32_minps512_mask((floats)splat(top), (floats)x, floats{}, -1, 4);
  else return (vec)__builtin_ia32_minpd512_mask((doubles)splat(top), (doubles)x, doubles{}, -1, 4);
}
INLINE vec at_least(real bottom, vec x) {
  if constexpr (single) return (vec)__builtin_ia32_maxps512_mask((floats)splat(bottom), (floats)x, floats{}, -1, 4);
  else return (vec)__builtin_ia32_maxpd512_mask((doubles)splat(bottom), (doubles)x, doubles{}, -1, 4);
}
INLINE vec scaled(vec x, vec n) {  // x 2^n, n whole
  if constexpr (single) return (vec)__builtin_ia32_scalefps512_mask((floats)x, (floats)n, floats{}, -1, 4);
  else return (vec)__builtin_ia32_scalefpd512_mask((doubles)x, (doubles)n, doubles{}, -1, 4);
}
#else
INLINE vec at_most(real top, vec x) { return x > top ? splat(top) : x; }
INLINE vec at_least(real bottom, vec x) { return x < bottom ? splat(bottom) : x; }
INLINE vec scaled(vec x, vec n) {  // in two factors: the result may lie outside of the normal exponents
  const mask k = __builtin_convertvector(n == n ? n : vec{}, mask), half = k >> 1;
  return x * power2(half) * power2(k - half);
}
#endif
struct Reduced {
  vec n;  // x = n ln 2 + r, n whole
  vec p;   // exp(r) - 1
};
INLINE Reduced reduce(vec x) {
  constexpr real magic = single ? real(12582912.0) : real(6755399441055744.0);  // 1.5 * 2^FRACTION: rounds to integers
  constexpr real high = single ? real(0.693145751953125) : real(0.69314718036912381649);
  constexpr real low = single ? real(1.4286068203094172e-6) : real(1.9082149292705877e-10);
  const vec shifted = x * real(1.4426950408889634074) + magic;
  const vec n = shifted - magic;
  const vec r = (x - n * high) - n * low;
  vec q;
  if constexpr (single) {
    constexpr real c[] = {0.5, 0.16666576666119928, 0.041666554212984150, 0.0083632328836826182, 0.0013926250831497612};
    q = horner(r, c);
  } else {
    constexpr real c[] = {0.5, 0.1666666666666667103, 0.041666666666666669783, 0.0083333333333260831202,
                          0.0013888888888883711167, 0.00019841269875002278793, 0.0000248015873256774619,
                          2.7557255170000887438e-6, 2.7557273478718580474e-7, 2.5105312729622101787e-8,
                          2.09147553258932022e-9};
    q = horner(r, c);
  }
  return {n, r + r * r * q};
}

INLINE vec seqc_exp(vec x) {
  constexpr real top = single ? 89 : 710, bottom = single ? -104 : -746;
  const Reduced e = reduce(at_least(bottom, at_most(top, x)));
  return scaled(e.p + real(1), e.n);
}
INLINE real seqc_exp(real x) { return seqc_exp(splat(x))[0]; }

INLINE vec seqc_sqrt(vec x) {
  vec r;
  for (int i = 0; i < W; ++i) r[i] = std::sqrt(x[i]);
  return r;
}
INLINE real seqc_sqrt(real x) { return std::sqrt(x); }

// Copies `rows` of `columns` numbers that are neighbours. Vectors of a row are W * apart numbers apart where they go to:
// neighbours too (apart: 1), or in tiles. begin: the first column that is copied. Compiled once.
ONCE void copy(
    const real* from, i64 from_stride, real* to, i64 to_stride, i64 apart, i64 rows, i64 columns, i64 begin = 0) {
  for (i64 j0 = begin; j0 < columns; j0 += 8 * W)
    for (i64 i = 0; i < rows; ++i)
      for (i64 j = j0; j < std::min(columns, j0 + 8 * W); j += W)
        store<false>(to + i * to_stride + j * apart, load<false>(from + i * from_stride + j, columns - j), columns - j);
}
}  // namespace

// Pages of two megabytes, where the system grants them, for the part of an array that fills such pages.
extern "C" void seqc_large_pages(void* array, i64 bytes) {
#if defined(__linux__)
  constexpr std::uintptr_t page = std::uintptr_t(1) << 21;
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(array), end = begin + std::uintptr_t(bytes);
  const std::uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // a wish: it may be refused
#endif
}

// The kernels of this library: FORWARD, BACKWARD, STEP (one step, with its function for Python) or ALL.
#define FORWARD 1
#define BACKWARD 2
#define STEP 4
#define ALL 7
#ifndef SEQC_KERNELS
#define SEQC_KERNELS ALL
#endif
"""


_NATIVE_ENTRY = r"""
#if SEQC_KERNELS & STEP
// The step as a function that Python calls with tensors. Declared is what it needs of Python's stable interface and of DLPack.
namespace {
struct Object;
struct Tensor {
  void* data;
  std::int32_t device, number, axes;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  const i64 *sizes, *strides;
  std::uint64_t offset;
};
struct Direct {  // made by Python: pointers, in this order
  Object* (*type)(Object*);
  void (*hold)(Object*);
  void (*drop)(Object*);
  Object* (*call)(Object*, Object*);
  Object* (*tuple)(std::ptrdiff_t);
  int (*put)(Object*, std::ptrdiff_t, Object*);
  Object* (*item)(Object*, std::ptrdiff_t);
  void (*forget)();
  i64 (*number)(Object*);
  Object* (*whole)(i64);
  void* (*unlock)();
  void (*lock)(void*);
  Object* (*no_memory)();
  int (*read)(Object*, Tensor*);
  int (*run)(i64, i64, i64, const i64*, i64, i64, void* const*);
  Object *none, *yes, *tensor, *parameter, *result, *empty_like, *is_neg, *changed, *threads;
  Object *watches[8], *answers[8];  // what tells whether something watches, and what it answers where nothing does
  const i64* counts;  // arguments; states, which are the last of them; outputs
  const i64* sizes;   // of arguments, then outputs: how many axes, and their extents; -1 is the batch
  const i64* shared;  // of each state: whether several programs of the kernel read what one of them writes
  const i64* alike;   // of each output: the argument that has its shape, or -1
  Object* const* fresh;  // of each output: what makes one for a batch
};
constexpr int MOST = 128;  // tensors
void* (*inside)(Object*, const char*);  // PyCapsule_GetPointer

bool calm(const Direct& d) {
  for (int i = 0; i < 8 && d.watches[i]; ++i) {
    Object* const answer = d.call(d.watches[i], nullptr);
    if (!answer) return d.forget(), false;
    d.drop(answer);
    if (answer != d.answers[i]) return false;
  }
  return true;
}

// Reads a tensor if it is of the kind that is taken: shape as `sizes` says, where B is -1 until the first tensor tells it.
bool taken(const Direct& d, Object* x, Tensor& t, const i64* sizes, i64& B, i64& bytes) {
  Object* const type = d.type(x);
  d.drop(type);  // a class lives on
  if (type != d.tensor && type != d.parameter) return false;
  if (d.read(x, &t)) return d.forget(), false;
  if (t.device != 1 || t.code != 2 || t.bits != 8 * sizeof(real) || t.lanes != 1 || !t.data || t.axes != *sizes) return false;
  i64 size = 1;
  for (i64 i = t.axes; i-- > 0;) {
    i64 wanted = sizes[1 + i];
    if (wanted < 0) {
      if (B < 0) B = t.sizes[i];
      wanted = B;
    }
    if (t.sizes[i] != wanted || (wanted != 1 && t.strides[i] != size)) return false;
    size *= wanted;
  }
  if (size == 0) return false;
  if (size == 1) {  // a view that stands for its negative is contiguous only where it has one element
    Object* const one = d.tuple(1);
    d.hold(x);
    d.put(one, 0, x);
    Object* const answer = d.call(d.is_neg, one);
    d.drop(one);
    if (!answer) return d.forget(), false;
    d.drop(answer);
    if (answer == d.yes) return false;
  }
  t.data = static_cast<char*>(t.data) + t.offset;
  bytes = size * i64(sizeof(real));
  return true;
}

Object* made(const Direct& d, Object* maker, Object* argument) {  // argument: ours
  Object* const one = d.tuple(1);
  d.put(one, 0, argument);
  Object* const x = d.call(maker, one);
  d.drop(one);
  return x;
}

struct Written {  // the tensors that the step writes; ours
  const Direct& d;
  Object* x[MOST];
  int count = 0;
  ~Written() {
    for (int i = 0; i < count; ++i) d.drop(x[i]);
  }
};
}  // namespace

extern "C" void seqc_direct_begin(void* (*pointer)(Object*, const char*)) { inside = pointer; }

// given: the arguments of a step, whether it is in place, and the earlier result that is written, or None.
extern "C" Object* seqc_direct(Object* self, Object* const* given, std::ptrdiff_t count) {
  const Direct& d = *static_cast<const Direct*>(inside(self, "seqc"));
  const i64 arguments = d.counts[0], states = d.counts[1], outputs = d.counts[2], results = outputs + states;
  const auto declined = [&] { return d.hold(d.none), d.none; };
  if (count != arguments + 2 || arguments + results > MOST || !calm(d)) return declined();
  const bool in_place = given[arguments] == d.yes;
  Object* const out = given[arguments + 1] == d.none ? nullptr : given[arguments + 1];
  if (out) {
    Object* const type = d.type(out);
    d.drop(type);
    if (type != d.result) return declined();
  }
  Tensor t[MOST];
  void* arrays[MOST];
  i64 B = -1, bytes[MOST], sum = 0;
  const i64 *sizes = d.sizes, *starts[MOST];
  for (i64 i = 0; i < arguments + outputs; ++i, sizes += 1 + *sizes) {
    starts[i] = sizes;
    if (i >= arguments) continue;
    if (!taken(d, given[i], t[i], sizes, B, bytes[i])) return declined();
    arrays[i] = t[i].data;
    sum += bytes[i];
  }
  if (!serves(B)) return declined();
  Written written{d};
  bool old = out || in_place;  // whether what is written was there before
  for (i64 i = 0; i < results; ++i) {
    const i64 at = arguments + i, state = i - outputs, before = arguments - states + state;
    Object* x;
    if (state >= 0 && in_place) {
      x = given[before];
      d.hold(x);
    } else if (out) {
      x = d.item(out, i);
      d.hold(x);
    } else if (const i64 like = state >= 0 ? before : d.alike[i]; like >= 0) {
      d.hold(given[like]);
      x = made(d, d.empty_like, given[like]);
    } else {
      x = made(d, d.fresh[i], d.whole(B));
    }
    if (!x) return d.forget(), declined();
    written.x[written.count++] = x;
    if (!taken(d, x, t[at], starts[state >= 0 ? before : at], B, bytes[at])) return declined();
    arrays[at] = t[at].data;
    for (i64 j = 0; old && j < at; ++j) {  // no other array may lie where this one is written
      const char *a = static_cast<char*>(arrays[at]), *b = static_cast<char*>(arrays[j]);
      if (a < b + bytes[j] && b < a + bytes[at] && !(j == before && a == b)) return declined();
    }
  }
  thread_local std::unique_ptr<char[]> aside;  // new states, where several programs read the old ones
  thread_local i64 room = 0;
  i64 used = 0;
  const auto overwritten = [&](i64 state) {
    return d.shared[state] && arrays[arguments + outputs + state] == arrays[arguments - states + state];
  };
  for (i64 s = 0; s < states; ++s) used += overwritten(s) ? bytes[arguments - states + s] : 0;
  if (used > room) aside.reset(new (std::nothrow) char[used]), room = aside ? used : 0;
  if (used > room) return declined();
  used = 0;
  for (i64 s = 0; s < states; ++s) {
    if (!overwritten(s)) continue;
    arrays[arguments + outputs + s] = aside.get() + used;
    used += bytes[arguments - states + s];
  }
  Object* const told = d.call(d.threads, nullptr);
  if (!told) return d.forget(), declined();
  const i64 threads = d.number(told);
  d.drop(told);
  const bool large = sum > i64(1) << 20;  // other threads may run meanwhile
  void* const held = large ? d.unlock() : nullptr;
  const int failed = d.run(B, 1, 1, nullptr, threads, 0, arrays);
  for (i64 s = 0; used && !failed && s < states; ++s) {
    const i64 at = arguments + outputs + s;
    if (arrays[at] != t[at].data) std::memcpy(t[at].data, arrays[at], bytes[at]);
  }
  if (large) d.lock(held);
  if (failed) return d.no_memory();
  bool same = out;  // whether all that is written is the earlier result's
  for (i64 i = outputs; out && i < results; ++i) same &= written.x[i] == d.item(out, i);
  Object* const tensors = d.tuple(results);
  for (i64 i = 0; i < results; ++i) d.hold(written.x[i]), d.put(tensors, i, written.x[i]);
  if (old) {
    d.hold(tensors);
    Object* const counted = made(d, d.changed, tensors);
    if (!counted) return d.drop(tensors), nullptr;
    d.drop(counted);
  }
  Object* const result = same ? (d.hold(out), out) : d.call(d.result, tensors);
  d.drop(tensors);
  return result;
}
#endif"""
