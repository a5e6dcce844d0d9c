# Made by seqc from the spec `hgrn`. Edit the spec, not this file.
"""hgrn: HGRN's recurrence: an elementwise gated average of its input.

h_t = exp(g_t) h_{t-1} + x_t        (Qin et al. 2023, arXiv:2311.04823; x holds the already gated input)

The spec:

    dim D

    input x[D]
    input g[D] in [-inf, 0]                     # log of the forget gate

    state h[D] = 0

    h = exp(g) * h[t-1] + x
    output o = h

    eigenvalues h in [0, 1]

How it is computed:

    h: diagonal: each element of h depends on its own past only
    h: eigenvalues in [0, 1]: `exp(g)`
    in plain torch:
        scan: 64 rows a block: modelled time 0.0046 of the step form
        h: products of coefficients are formed by the scan itself: any sign, and zero, are exact
    in Triton:
        scan: 64 rows a block: modelled time 0.13 of the step form
        h: products of coefficients are formed by the scan itself: any sign, and zero, are exact

Inputs and outputs are [B, T, dims], states [B, dims], parameters [dims]; each function says its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

# What is called has types; kernels and operators have none that a checker could follow.
# mypy: ignore-errors

__all__ = ["HGRN", "HGRNResult", "hgrn", "hgrn_step", "HGRNStates"]


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


def _inside(x, steps, value, dim, own=False):
    """x with `value` in the rows (along `dim`, counted from the end) after the last step; own: x may be written to."""
    rows = x.shape[dim]
    left = steps - (x.shape[0] - 1) * rows
    if left >= rows:
        return x
    x = x if own else x.clone()
    x[-1].narrow(dim, left, rows - left).fill_(value)
    return x


def _before(first, x, dim):
    """x moved down by one row along `dim` (counted from the end), `first` as the first row."""
    first = first.unsqueeze(dim) if first.dim() else first
    return torch.cat([first.expand_as(x.narrow(dim, 0, 1)), x.narrow(dim, 0, x.shape[dim] - 1)], dim)


def _affine_scan(a, b, start, dim, reverse=False, later=False, own=False, end=False, resets=False):
    """h[i] = a[i] h[i-1] + b[i] along `dim` (counted from the end), h[-1] = start; from the other end if reverse.

    start: None is zero; later: row i takes the coefficient of the row visited before it; own: the result may take the
    memory of b; end: only the last value is wanted; resets: a coefficient of 0 drops what was before, whatever it is.
    """
    a_rows, b_rows = a.unbind(dim), b.unbind(dim)
    row = torch.broadcast_shapes(a_rows[0].shape, b_rows[0].shape, () if start is None else start.shape)
    out = b if own or end else b.new_empty((*row[: len(row) + dim + 1], len(a_rows), *row[len(row) + dim + 1 :]))
    out_rows = out.unbind(dim)
    order = range(len(a_rows))
    h = start
    for i in reversed(order) if reverse else order:
        if h is None:
            h = b_rows[i] if own or end else out_rows[i].copy_(b_rows[i])
        else:
            step = i if not later else i + 1 if reverse else i - 1
            if resets:
                h = torch.where(a_rows[step] == 0, 0.0, h)
            h = torch.addcmul(b_rows[i], a_rows[step], h, out=None if end else out_rows[i])
    return h.expand(row) if end else out


def _forward_torch(x, g, h_0):
    """Outputs, final states, and the states as the blocks begin."""
    T = x.shape[1]
    BT_ = 64  # steps per block

    x = _blocks(x, BT_, repeat=True)
    g = _blocks(g, BT_, repeat=True)
    w = _inside(torch.exp(g), T, 1.0, -2, own=True)
    x2 = w.prod(-2)
    w2 = _inside(x, T, 0.0, -2)
    x3 = _affine_scan(w, w2, None, -2, end=True)

    # the recurrence itself: one step or block after the other
    h = h_0
    h_all = [h]
    for x2_n, x3_n in zip(x2, x3):
        h = torch.addcmul(x3_n, x2_n, h)
        h_all.append(h)

    h_all = torch.stack(h_all)
    # h = exp(g) * h[t-1] + x
    h2 = _affine_scan(w, w2, h_all[:-1], -2)
    return _sequence(h2, T), h, h_all


def _backward_torch(x, g, h_0, h_all, d_o, d_h_T, *, needs=(True,) * 3):
    """Gradients of every input, parameter and initial state."""
    T = x.shape[1]
    BT_ = 64  # steps per block
    row = torch.arange(BT_, dtype=x.dtype, device=x.device)

    need_x, need_g, need_h_0 = needs

    x = _blocks(x, BT_, repeat=True)
    g = _blocks(g, BT_, repeat=True)
    d_o = _blocks(d_o, BT_, repeat=False)
    exp_g = torch.exp(g)
    w = _inside(exp_g, T, 1.0, -2)
    x2 = _affine_scan(w, (row == BT_ - 1.0).to(x.dtype)[:, None], None, -2, reverse=True, later=True, end=True)
    x3 = _affine_scan(w, d_o, None, -2, reverse=True, later=True, end=True)
    x4 = w[:, :, 0]

    # the recurrence itself: one step or block after the other
    d_h = d_h_T
    d_h_all = [d_h]
    for x2_n, x3_n, x4_n in reversed(list(zip(x2, x3, x4))):
        d_h = x4_n * torch.addcmul(x3_n, x2_n, d_h)
        d_h_all.append(d_h)

    if need_x or need_g:
        d_h_all = torch.stack(d_h_all[::-1])
        x5 = d_o.clone()
        x5[:, :, 63].add_(d_h_all[1:])
        x6 = _affine_scan(w, x5, None, -2, reverse=True, later=True, own=True)
    if need_g:
        # h = exp(g) * h[t-1] + x
        h = _affine_scan(w, _inside(x, T, 0.0, -2), h_all[:-1], -2)
        d_g = _inside(x6 * _before(h_all[:-1], h, -2), T, 0.0, -2, own=True) * exp_g
    if need_x:
        d_x = _inside(x6, T, 0.0, -2)
    return _sequence(d_x, T) if need_x else None, _sequence(d_g, T) if need_g else None, d_h


def _step_torch(x, g, h_0):
    """One step: outputs and new states."""
    # h = exp(g) * h[t-1] + x
    h = torch.exp(g) * h_0 + x
    return h, h


# ---------- the recurrence in Triton: CUDA devices --------------------------------------------------------------------

triton = tl = None  # imported by _load_triton
_KERNELS = []


def _jit(function=None, **options):
    """Mark a Triton kernel. The function stays as it is until `_load_triton` hands it to Triton."""
    if function is None:
        return lambda function: _jit(function, **options)
    _KERNELS.append((function, options))
    return function


def _load_triton():
    """Import Triton and hand it the kernels: done once, when a CUDA tensor arrives, for nothing else needs Triton."""
    global triton, tl
    if _KERNELS:
        import triton
        import triton.language as tl

        for function, options in _KERNELS:
            globals()[function.__name__] = triton.jit(function, **options)
        _KERNELS.clear()


@_jit
def down_rows(o, x):
    """A value for each row (axis 0) of x, as it broadcasts against x."""
    for _ in tl.static_range(len(x.shape) - 1):
        o = tl.expand_dims(o, -1)
    return o


@_jit
def shift_rows(x, BY: tl.constexpr):
    """x with its rows (axis 0; rank 1 to 4) moved down by BY, up where BY < 0; rows that come free are zero."""
    C: tl.constexpr = x.shape[0]
    o_from = tl.arange(0, C) - BY
    m_from = down_rows((o_from >= 0) & (o_from < C), x)
    o_from = down_rows(tl.minimum(tl.maximum(o_from, 0), C - 1), x)
    return tl.where(m_from, tl.gather(x, tl.broadcast_to(o_from, x.shape), 0), 0.0)


@_jit
def affine_after(a_past, b_past, a_now, b_now):
    """The map h -> a_now * (a_past * h + b_past) + b_now as its pair of slope and offset."""
    return a_now * a_past, a_now * b_past + b_now


@_jit
def affine_scan(a, b, REVERSE: tl.constexpr):
    """h[t] = a[t] * h[t-1] + b[t] along axis 0 from h = 0, from the end where REVERSE; also the products of a.

    Returns (products of a up to t, h): with a state h_in before the tile, h[t] + product[t] * h_in.
    """
    return tl.associative_scan((a, b), 0, affine_after, reverse=REVERSE)


@_jit
def affine_scan_from(a, b, start, REVERSE: tl.constexpr):
    """h[t] = a[t] * h[t-1] + b[t] along axis 0 from `start` (which broadcasts against a row), from the end where REVERSE."""
    slope, offset = affine_scan(a, b, REVERSE)
    return offset + slope * start


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
def first_block_of(p_cu_seqlens, i_b, NT, BT: tl.constexpr):
    """Where the blocks of sequence i_b begin, in what has an entry per block."""
    if p_cu_seqlens is None:
        at = i_b * NT
    else:
        at = tl.load(p_cu_seqlens + i_b).to(tl.int64) // BT + i_b
    return at


@_jit
def block_of(p_cu_seqlens, i_s, B, T, BT: tl.constexpr):
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


@_jit(do_not_specialize=['T'])
def hgrn_forward_kernel(
    p_h_0, p_h_in, p_g, p_x, p_o, p_h_T, p_cu_seqlens, T, D: tl.constexpr, BD: tl.constexpr, BT: tl.constexpr,
    STEP: tl.constexpr, STAGES: tl.constexpr, SAVE: tl.constexpr,
):
    """Outputs, final states, and the states that the gradient needs."""
    ND: tl.constexpr = (D + BD - 1) // BD
    i_p = tl.program_id(0).to(tl.int64)
    i_b, i_d = i_p // ND, i_p % ND
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    NT = tl.cdiv(T, BT)
    first_block = first_block_of(p_cu_seqlens, i_b, NT, BT)
    at_d = i_b * D
    o_d = (i_d * BD).to(tl.int32) + tl.arange(0, BD)
    m_d = (o_d < D) | (D % BD == 0)
    b_h = tl.load(p_h_0 + at_d + o_d, mask=m_d, other=0.0).to(tl.float32)
    o_t = tl.arange(0, BT)
    for i_n in tl.range(0, NT, num_stages=STAGES):
        i_0 = i_n * BT
        at_nd = (first_block + i_n) * D
        if SAVE:
            tl.store(p_h_in + at_nd + o_d, b_h, mask=m_d)
        at_td = (first + STEP * i_0) * D
        o_r = tl.minimum(o_t, T - 1 - i_0)
        o_td = o_r[:, None] * (STEP * D) + o_d[None, :]
        b_g = tl.load(p_g + at_td + o_td, mask=m_d[None, :], other=0.0).to(tl.float32)
        b_x = tl.load(p_x + at_td + o_td, mask=m_d[None, :], other=0.0).to(tl.float32)
        # h = exp(g) * h[t-1] + x
        m_t = o_t < T - i_0
        b_h_1 = affine_scan_from(tl.where(m_t[:, None], tl.exp(b_g), 1.0), tl.where(m_t[:, None], b_x, 0.0), b_h[None, :], False)
        m_td = m_t[:, None] & m_d[None, :]
        tl.store(p_o + at_td + o_td, b_h_1, mask=m_td)
        # h = exp(g) * h[t-1] + x
        b_h = tl.sum(tl.where((o_t == BT - 1)[:, None], b_h_1, 0.0), 0)
    tl.store(p_h_T + at_d + o_d, b_h, mask=m_d)


@_jit(do_not_specialize=['T'])
def hgrn_backward_kernel(
    p_d_h_T, p_h_in, p_g, p_x, p_d_o, p_d_g, p_d_x, p_d_h_0, p_cu_seqlens, T, D: tl.constexpr, BD: tl.constexpr,
    BT: tl.constexpr, ADD_VALUE: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
):
    """All gradients, from the last block to the first."""
    ND: tl.constexpr = (D + BD - 1) // BD
    i_p = tl.program_id(0).to(tl.int64)
    i_b, i_d = i_p // ND, i_p % ND
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    NT = tl.cdiv(T, BT)
    first_block = first_block_of(p_cu_seqlens, i_b, NT, BT)
    o_t = tl.arange(0, BT)
    m_pair = (o_t == BT + -1)
    b_x = 0.0
    m_pair_1 = (o_t == 0)
    at_d = i_b * D
    o_d = (i_d * BD).to(tl.int32) + tl.arange(0, BD)
    m_d = (o_d < D) | (D % BD == 0)
    b_dh = tl.load(p_d_h_T + at_d + o_d, mask=m_d, other=0.0).to(tl.float32)
    for i_n in tl.range(NT - 1, -1, -1, num_stages=STAGES):
        i_0 = i_n * BT
        at_nd = (first_block + i_n) * D
        b_h = tl.load(p_h_in + at_nd + o_d, mask=m_d, other=0.0).to(tl.float32)
        at_td = (first + STEP * i_0) * D
        o_r = tl.minimum(o_t, T - 1 - i_0)
        o_td = o_r[:, None] * (STEP * D) + o_d[None, :]
        b_g = tl.load(p_g + at_td + o_td, mask=m_d[None, :], other=0.0).to(tl.float32)
        b_x_1 = tl.load(p_x + at_td + o_td, mask=m_d[None, :], other=0.0).to(tl.float32)
        m_t = o_t < T - i_0
        m_td = m_t[:, None] & m_d[None, :]
        b_do = tl.load(p_d_o + at_td + o_td, mask=m_td, other=0.0).to(tl.float32)
        # gradient of g
        # h = exp(g) * h[t-1] + x
        b_exp_g = tl.exp(b_g)
        b_exp_g_in = tl.where(m_t[:, None], b_exp_g, 1.0)
        b_h_1 = affine_scan_from(b_exp_g_in, tl.where(m_t[:, None], b_x_1, 0.0), b_h[None, :], False)
        b_shift_exp_g_in = shift_rows(b_exp_g_in, -1)
        b_x_2 = affine_scan_from(b_shift_exp_g_in, b_do + tl.where(m_pair[:, None], b_dh[None, :], 0.0), b_x, True)
        b_x_low = tl.where(m_t[:, None], b_x_2 * tl.where(m_pair_1[:, None], b_h[None, :], shift_rows(b_h_1, 1)), 0.0)
        tl.store(p_d_g + at_td + o_td, b_x_low * b_exp_g, mask=m_td)
        # gradient of x
        tl.store(p_d_x + at_td + o_td, tl.where(m_t[:, None], b_x_2, 0.0), mask=m_td)
        # cotangents of the states, for what comes before
        b_dh = tl.sum(tl.where((o_t == 0)[:, None], b_exp_g_in * b_x_2, 0.0), 0)
    tl.store(p_d_h_0 + at_d + o_d, b_dh, mask=m_d)


@_jit(do_not_specialize=['T'])
def hgrn_states_kernel(
    p_h_0, p_h_in, p_g, p_x, p_h_T, p_cu_seqlens, T, D: tl.constexpr, BD: tl.constexpr, BT: tl.constexpr,
    STEP: tl.constexpr, STAGES: tl.constexpr,
):
    """First phase: the states as each block begins."""
    ND: tl.constexpr = (D + BD - 1) // BD
    i_p = tl.program_id(0).to(tl.int64)
    i_b, i_d = i_p // ND, i_p % ND
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    NT = tl.cdiv(T, BT)
    first_block = first_block_of(p_cu_seqlens, i_b, NT, BT)
    at_d = i_b * D
    o_d = (i_d * BD).to(tl.int32) + tl.arange(0, BD)
    m_d = (o_d < D) | (D % BD == 0)
    b_h = tl.load(p_h_0 + at_d + o_d, mask=m_d, other=0.0).to(tl.float32)
    o_t = tl.arange(0, BT)
    for i_n in tl.range(0, NT, num_stages=STAGES):
        i_0 = i_n * BT
        at_nd = (first_block + i_n) * D
        tl.store(p_h_in + at_nd + o_d, b_h, mask=m_d)
        at_td = (first + STEP * i_0) * D
        o_r = tl.minimum(o_t, T - 1 - i_0)
        o_td = o_r[:, None] * (STEP * D) + o_d[None, :]
        b_g = tl.load(p_g + at_td + o_td, mask=m_d[None, :], other=0.0).to(tl.float32)
        b_x = tl.load(p_x + at_td + o_td, mask=m_d[None, :], other=0.0).to(tl.float32)
        # h = exp(g) * h[t-1] + x
        m_t = o_t < T - i_0
        b_h_1 = affine_scan_from(tl.where(m_t[:, None], tl.exp(b_g), 1.0), tl.where(m_t[:, None], b_x, 0.0), b_h[None, :], False)
        # h = exp(g) * h[t-1] + x
        b_h = tl.sum(tl.where((o_t == BT - 1)[:, None], b_h_1, 0.0), 0)
    tl.store(p_h_T + at_d + o_d, b_h, mask=m_d)


@_jit(do_not_specialize=['B', 'T'])
def hgrn_outputs_kernel(
    p_h_in, p_g, p_x, p_o, p_cu_seqlens, B, T, D: tl.constexpr, BD: tl.constexpr, BT: tl.constexpr,
    STEP: tl.constexpr,
):
    """Second phase: the outputs of all blocks at once."""
    ND: tl.constexpr = (D + BD - 1) // BD
    i_p = tl.program_id(0).to(tl.int64)
    i_s, i_d = i_p // ND, i_p % ND
    i_b, i_n = block_of(p_cu_seqlens, i_s, B, T, BT)
    i_0 = i_n * BT
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    if p_cu_seqlens is not None and i_0 >= T:  # the pack has no block here
        return
    at_nd = i_s * D
    o_d = (i_d * BD).to(tl.int32) + tl.arange(0, BD)
    m_d = (o_d < D) | (D % BD == 0)
    b_h = tl.load(p_h_in + at_nd + o_d, mask=m_d, other=0.0).to(tl.float32)
    at_td = (first + STEP * i_0) * D
    o_t = tl.arange(0, BT)
    o_r = tl.minimum(o_t, T - 1 - i_0)
    o_td = o_r[:, None] * (STEP * D) + o_d[None, :]
    b_g = tl.load(p_g + at_td + o_td, mask=m_d[None, :], other=0.0).to(tl.float32)
    b_x = tl.load(p_x + at_td + o_td, mask=m_d[None, :], other=0.0).to(tl.float32)
    # h = exp(g) * h[t-1] + x
    m_t = o_t < T - i_0
    b_h_1 = affine_scan_from(tl.where(m_t[:, None], tl.exp(b_g), 1.0), tl.where(m_t[:, None], b_x, 0.0), b_h[None, :], False)
    m_td = m_t[:, None] & m_d[None, :]
    tl.store(p_o + at_td + o_td, b_h_1, mask=m_td)


@_jit(do_not_specialize=['T'])
def hgrn_cotangents_kernel(
    p_d_h_T, p_d_h_out, p_g, p_d_o, p_d_h_0, p_cu_seqlens, T, D: tl.constexpr, BD: tl.constexpr, BT: tl.constexpr,
    ADD_VALUE: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
):
    """First phase: the cotangents of the states as each block ends."""
    ND: tl.constexpr = (D + BD - 1) // BD
    i_p = tl.program_id(0).to(tl.int64)
    i_b, i_d = i_p // ND, i_p % ND
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    NT = tl.cdiv(T, BT)
    first_block = first_block_of(p_cu_seqlens, i_b, NT, BT)
    o_t = tl.arange(0, BT)
    m_pair = (o_t == BT + -1)
    b_x = 0.0
    at_d = i_b * D
    o_d = (i_d * BD).to(tl.int32) + tl.arange(0, BD)
    m_d = (o_d < D) | (D % BD == 0)
    b_dh = tl.load(p_d_h_T + at_d + o_d, mask=m_d, other=0.0).to(tl.float32)
    for i_n in tl.range(NT - 1, -1, -1, num_stages=STAGES):
        i_0 = i_n * BT
        at_nd = (first_block + i_n) * D
        tl.store(p_d_h_out + at_nd + o_d, b_dh, mask=m_d)
        at_td = (first + STEP * i_0) * D
        o_r = tl.minimum(o_t, T - 1 - i_0)
        o_td = o_r[:, None] * (STEP * D) + o_d[None, :]
        b_g = tl.load(p_g + at_td + o_td, mask=m_d[None, :], other=0.0).to(tl.float32)
        m_t = o_t < T - i_0
        m_td = m_t[:, None] & m_d[None, :]
        b_do = tl.load(p_d_o + at_td + o_td, mask=m_td, other=0.0).to(tl.float32)
        # cotangents of the states, for what comes before
        b_x_low = tl.where(m_t[:, None], tl.exp(b_g), 1.0)
        b_shift_x_low = shift_rows(b_x_low, -1)
        b_x_1 = affine_scan_from(b_shift_x_low, b_do + tl.where(m_pair[:, None], b_dh[None, :], 0.0), b_x, True)
        b_dh = tl.sum(tl.where((o_t == 0)[:, None], b_x_low * b_x_1, 0.0), 0)
    tl.store(p_d_h_0 + at_d + o_d, b_dh, mask=m_d)


@_jit(do_not_specialize=['B', 'T'])
def hgrn_gradients_kernel(
    p_h_in, p_d_h_out, p_g, p_x, p_d_o, p_d_g, p_d_x, p_cu_seqlens, B, T, D: tl.constexpr, BD: tl.constexpr,
    BT: tl.constexpr, ADD_VALUE: tl.constexpr, STEP: tl.constexpr,
):
    """Second phase: the gradients of all blocks at once."""
    ND: tl.constexpr = (D + BD - 1) // BD
    i_p = tl.program_id(0).to(tl.int64)
    i_s, i_d = i_p // ND, i_p % ND
    i_b, i_n = block_of(p_cu_seqlens, i_s, B, T, BT)
    i_0 = i_n * BT
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    if p_cu_seqlens is not None and i_0 >= T:  # the pack has no block here
        return
    o_t = tl.arange(0, BT)
    m_pair = (o_t == BT + -1)
    b_x = 0.0
    m_pair_1 = (o_t == 0)
    at_nd = i_s * D
    o_d = (i_d * BD).to(tl.int32) + tl.arange(0, BD)
    m_d = (o_d < D) | (D % BD == 0)
    b_h = tl.load(p_h_in + at_nd + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_dh = tl.load(p_d_h_out + at_nd + o_d, mask=m_d, other=0.0).to(tl.float32)
    at_td = (first + STEP * i_0) * D
    o_r = tl.minimum(o_t, T - 1 - i_0)
    o_td = o_r[:, None] * (STEP * D) + o_d[None, :]
    b_g = tl.load(p_g + at_td + o_td, mask=m_d[None, :], other=0.0).to(tl.float32)
    b_x_1 = tl.load(p_x + at_td + o_td, mask=m_d[None, :], other=0.0).to(tl.float32)
    m_t = o_t < T - i_0
    m_td = m_t[:, None] & m_d[None, :]
    b_do = tl.load(p_d_o + at_td + o_td, mask=m_td, other=0.0).to(tl.float32)
    # gradient of g
    # h = exp(g) * h[t-1] + x
    b_exp_g = tl.exp(b_g)
    b_exp_g_in = tl.where(m_t[:, None], b_exp_g, 1.0)
    b_h_1 = affine_scan_from(b_exp_g_in, tl.where(m_t[:, None], b_x_1, 0.0), b_h[None, :], False)
    b_shift_exp_g_in = shift_rows(b_exp_g_in, -1)
    b_x_2 = affine_scan_from(b_shift_exp_g_in, b_do + tl.where(m_pair[:, None], b_dh[None, :], 0.0), b_x, True)
    b_x_low = tl.where(m_t[:, None], b_x_2 * tl.where(m_pair_1[:, None], b_h[None, :], shift_rows(b_h_1, 1)), 0.0)
    tl.store(p_d_g + at_td + o_td, b_x_low * b_exp_g, mask=m_td)
    # gradient of x
    tl.store(p_d_x + at_td + o_td, tl.where(m_t[:, None], b_x_2, 0.0), mask=m_td)


@_jit(do_not_specialize=['T'])
def hgrn_steps_kernel(
    p_h_0, p_g, p_x, p_o, p_h_T, p_cu_seqlens, T, D: tl.constexpr, BD: tl.constexpr, STEP: tl.constexpr,
):
    """Outputs and final states, step by step: for sequences too short for blocks."""
    ND: tl.constexpr = (D + BD - 1) // BD
    i_p = tl.program_id(0).to(tl.int64)
    i_b, i_d = i_p // ND, i_p % ND
    first, T = sequence(p_cu_seqlens, i_b, T, STEP)
    at_d = i_b * D
    o_d = (i_d * BD).to(tl.int32) + tl.arange(0, BD)
    m_d = (o_d < D) | (D % BD == 0)
    b_h = tl.load(p_h_0 + at_d + o_d, mask=m_d, other=0.0).to(tl.float32)
    for i_t in range(0, T):
        at_td = (first + STEP * i_t) * D
        b_g = tl.load(p_g + at_td + o_d, mask=m_d, other=0.0).to(tl.float32)
        b_x = tl.load(p_x + at_td + o_d, mask=m_d, other=0.0).to(tl.float32)
        # h = exp(g) * h[t-1] + x
        b_h_next = tl.exp(b_g) * b_h + b_x
        tl.store(p_o + at_td + o_d, b_h_next, mask=m_d)
        b_h = b_h_next
    tl.store(p_h_T + at_d + o_d, b_h, mask=m_d)


def _pad(extent, least=1):
    """The tile length that holds `extent` elements: a power of two."""
    return max(least, 1 << max(extent - 1, 0).bit_length())


def _types(*tensors):
    """(type of the operands of matrix products, precision of fp32 products), for inputs of these types."""
    kinds = {x.dtype for x in tensors}
    operands = tl.bfloat16 if torch.bfloat16 in kinds else tl.float16 if torch.float16 in kinds else tl.float32
    return operands, "ieee" if torch.version.hip else "tf32x3"


# Programs that share a multiprocessor, nanoseconds of a block there, bytes that it moves, whether a program does one block
# after the other, and launches: by the model of the tiles, for sm_90, bf16, D = 64.
_PACE = {
    "forward": (5, 1834, 12416, True, 1),
    "infer": (5, 1834, 12288, True, 1),
    "backward": (2, 1464, 20608, True, 1),
    "states": (3, 558, 8320, True, 1),
    "outputs": (4, 2294, 12416, False, 1),
    "cotangents": (2, 367, 8320, True, 1),
    "gradients": (3, 10576, 20736, False, 1),
}


def _way(x, blocks, *ways):
    """Which of several ways to do a call's work takes least time by the model. Each is its kernels and how many programs they
    have: of one block, where each does one."""
    if blocks <= 1 or x.device.type != "cuda":
        return 0
    units = torch.cuda.get_device_properties(x.device).multi_processor_count

    def time(name, programs):
        resident, busy, moved, walks, launches = _PACE[name]
        programs, turns = (programs, blocks) if walks else (programs * blocks, 1)
        waves = -(-programs // (resident * units))
        return 2000 * launches + max(waves * turns * busy, programs * turns * moved // 3350)

    return min(range(len(ways)), key=lambda i: sum(time(*one) for one in ways[i].items()))


_FEW_STEPS = 1  # so many steps, taken one by one, are modelled no slower than a block of 64


def _steps_triton(x, g, h_0, *, cu_seqlens=None, reverse=False):
    """Outputs and final states, step by step."""
    B, T, D = x.shape
    empty = torch.empty
    if cu_seqlens is not None:  # B sequences in one row of T steps
        B = cu_seqlens.shape[0] - 1
        empty = torch.zeros  # some entries belong to no sequence
        cu_seqlens = cu_seqlens.contiguous()
    STEP = -1 if reverse else 1
    BD = min(_pad(D), 32)
    ND = -(-D // BD)
    o = empty((*x.shape[:2], D), dtype=x.dtype, device=x.device)
    h_T = torch.empty((B, D), dtype=torch.float32, device=x.device)
    hgrn_steps_kernel[(B * ND,)](
        h_0, g, x, o, h_T, cu_seqlens, T, D=D, BD=BD, STEP=STEP, num_warps=8, num_stages=3, enable_fp_fusion=True,
    )
    return o, h_T


def _run_triton(save, x, g, h_0, *, cu_seqlens=None, reverse=False):
    """Outputs and final states; and what the gradient needs, or None where the first argument says that none follows."""
    B, T, D = x.shape
    NT = (T + 63) // 64
    N_BLOCKS = B * NT
    empty = torch.empty
    if cu_seqlens is not None:  # B sequences in one row of T steps
        B = cu_seqlens.shape[0] - 1
        NT = -(-T // (64 * max(B, 1)))  # of a sequence of mean length
        N_BLOCKS = T // 64 + B
        empty = torch.zeros  # some entries belong to no sequence
        cu_seqlens = cu_seqlens.contiguous()
    STEP = -1 if reverse else 1
    DOT, PRECISION = _types(x, g)
    BD = min(_pad(D), 32)
    ND = -(-D // BD)
    h_in = torch.empty((N_BLOCKS, D), dtype=torch.float32, device=x.device) if save else None
    o = empty((*x.shape[:2], D), dtype=x.dtype, device=x.device)
    h_T = torch.empty((B, D), dtype=torch.float32, device=x.device)
    way = _way(
        x, NT,
        {("forward" if save else "infer"): B * ND},
        {"states": B * ND, "outputs": B * ND},
    )
    if way == 1:
        if not save:
            h_in = torch.empty((N_BLOCKS, D), dtype=torch.float32, device=x.device)
        hgrn_states_kernel[(B * ND,)](
            h_0, h_in, g, x, h_T, cu_seqlens, T, D=D, BD=BD, BT=64, STEP=STEP, STAGES=3, num_warps=8, num_stages=3,
            enable_fp_fusion=True,
        )
        hgrn_outputs_kernel[(N_BLOCKS * ND,)](
            h_in, g, x, o, cu_seqlens, B, T, D=D, BD=BD, BT=64, STEP=STEP, num_warps=8, num_stages=1,
            enable_fp_fusion=True,
        )
    else:
        hgrn_forward_kernel[(B * ND,)](
            h_0, h_in, g, x, o, h_T, cu_seqlens, T, D=D, BD=BD, BT=64, STEP=STEP, STAGES=3, SAVE=save, num_warps=4,
            num_stages=3, enable_fp_fusion=True,
        )
    return o, h_T, h_in


def _forward_triton(*tensors, cu_seqlens=None, reverse=False):
    """Outputs, final states, and what the gradient needs."""
    return _run_triton(True, *tensors, cu_seqlens=cu_seqlens, reverse=reverse)


def _infer_triton(*tensors, cu_seqlens=None, reverse=False):
    """Outputs and final states."""
    if tensors[0].shape[1] <= _FEW_STEPS:
        return _steps_triton(*tensors, cu_seqlens=cu_seqlens, reverse=reverse)
    return _run_triton(False, *tensors, cu_seqlens=cu_seqlens, reverse=reverse)[:2]


def _backward_triton(x, g, h_0, h_in, d_o, d_h_T, *, cu_seqlens=None, reverse=False, needs=(True,) * 3):
    """Gradients of every argument of forward."""
    B, T, D = x.shape
    NT = (T + 63) // 64
    N_BLOCKS = B * NT
    empty = torch.empty
    if cu_seqlens is not None:  # B sequences in one row of T steps
        B = cu_seqlens.shape[0] - 1
        NT = -(-T // (64 * max(B, 1)))  # of a sequence of mean length
        N_BLOCKS = T // 64 + B
        empty = torch.zeros  # some entries belong to no sequence
        cu_seqlens = cu_seqlens.contiguous()
    STEP = -1 if reverse else 1
    DOT, PRECISION = _types(x, g)
    BD = min(_pad(D), 32)
    ND = -(-D // BD)
    way = _way(
        x, NT,
        {"backward": B * ND},
        {"cotangents": B * ND, "gradients": B * ND},
    )
    if way == 1:
        d_h_out = torch.empty((N_BLOCKS, D), dtype=torch.float32, device=x.device)
        d_h_0 = torch.empty((B, D), dtype=torch.float32, device=x.device)
        d_g = empty((*x.shape[:2], D), dtype=g.dtype, device=x.device)
        d_x = empty((*x.shape[:2], D), dtype=x.dtype, device=x.device)
        hgrn_cotangents_kernel[(B * ND,)](
            d_h_T, d_h_out, g, d_o, d_h_0, cu_seqlens, T, D=D, BD=BD, BT=64, ADD_VALUE=(64 + (-1.0)), STEP=STEP,
            STAGES=3, num_warps=8, num_stages=3, enable_fp_fusion=True,
        )
        hgrn_gradients_kernel[(N_BLOCKS * ND,)](
            h_in, d_h_out, g, x, d_o, d_g, d_x, cu_seqlens, B, T, D=D, BD=BD, BT=64, ADD_VALUE=(64 + (-1.0)),
            STEP=STEP, num_warps=4, num_stages=1, enable_fp_fusion=True,
        )
    else:
        d_g = empty((*x.shape[:2], D), dtype=g.dtype, device=x.device)
        d_x = empty((*x.shape[:2], D), dtype=x.dtype, device=x.device)
        d_h_0 = torch.empty((B, D), dtype=torch.float32, device=x.device)
        hgrn_backward_kernel[(B * ND,)](
            d_h_T, h_in, g, x, d_o, d_g, d_x, d_h_0, cu_seqlens, T, D=D, BD=BD, BT=64, ADD_VALUE=(64 + (-1.0)),
            STEP=STEP, STAGES=3, num_warps=8, num_stages=3, enable_fp_fusion=True,
        )
    return d_x if needs[0] else None, d_g if needs[1] else None, d_h_0


def _step_triton(x, g, h_0):
    """One step: a sequence of one."""
    o, h_T = _steps_triton(
        x.unsqueeze(1), g.unsqueeze(1), h_0,
    )
    return o.squeeze(1), h_T


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
_ARGUMENTS = "TTB"
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

    def run(function, tensors, cu_seqlens, reverse):
        if cu_seqlens is None:
            results = function(*_turned(tensors, _ARGUMENTS, reverse))
            return [*_turned(results, _RESULTS, reverse), *results[2:]]
        results = [*_fake_run(*tensors, cu_seqlens, reverse)[:1], *(s.clone() for s in tensors[2:])]
        for part in _each(cu_seqlens):
            found = function(*_copies(tensors, _ARGUMENTS, part, reverse))
            for whole, own in zip(_parts(results, _RESULTS, *part), _turned(found, _RESULTS, reverse)):
                whole.copy_(own)
        return results

    def run_back(*everything, cu_seqlens, reverse, needs):
        tensors, saved, cotangents = everything[:3], everything[3:-2], everything[-2:]
        if cu_seqlens is None:
            turned = _turned(tensors, _ARGUMENTS, reverse), _turned(cotangents, _RESULTS, reverse)
            return _turned(backward(*turned[0], *saved, *turned[1], needs=needs), _ARGUMENTS, reverse)
        gradients = [torch.zeros_like(x) for x in tensors[:2]] + [d.clone() for d in cotangents[1:]]
        for part in _each(cu_seqlens):
            own = _copies(tensors, _ARGUMENTS, part, reverse)
            ends = _copies(cotangents, _RESULTS, part, reverse)
            found = _turned(backward(*own, *forward(*own)[2:], *ends, needs=needs), _ARGUMENTS, reverse)
            for whole, x, kind in zip(_parts(gradients, _ARGUMENTS, *part), found, _ARGUMENTS):
                if x is not None:
                    whole.add_(x) if kind == "-" else whole.copy_(x)
        return gradients

    def run_infer(*tensors, cu_seqlens, reverse):
        return run(infer, tensors, cu_seqlens, reverse)

    def run_forward(*tensors, cu_seqlens, reverse):
        return run(forward, tensors, cu_seqlens, reverse)

    return run_infer, run_forward, run_back


def _saved_torch(packed, B, T, D, io, carry):
    """Shapes and dtypes of what forward saves: h_all; nothing of a pack, which runs again."""
    if packed:
        return []
    return [(((T + 63) // 64 + 1, B, D), carry)]


def _infer_torch(*tensors):
    """Forward without what backward needs."""
    return _forward_torch(*tensors)[:2]


def _saved_triton(packed, B, T, D, io, carry):
    """Shapes and dtypes of what forward saves: h_in."""
    if packed:
        return [((T // 64 + B, D), carry)]
    return [((B * ((T + 63) // 64), D), carry)]


def _prepare_triton(carry, *tensors):
    """The kernels read tensors as they are stored; this is where Triton is first needed."""
    _load_triton()
    return [x.contiguous() for x in tensors]


_TORCH = _Form(_prepare_torch, *_one_by_one(_infer_torch, _forward_torch, _backward_torch), _saved_torch, _step_torch)
_TRITON = _Form(_prepare_triton, _infer_triton, _forward_triton, _backward_triton, _saved_triton, _step_triton)


def _form(*tensors):
    """The form that runs on some arguments, of a sequence or of one step: the one place where it is chosen."""
    x = tensors[0]
    if x.device.type == "cuda" and x.dtype != torch.float64:
        return _TRITON
    return _TORCH


# ---------- the torch operators ---------------------------------------------------------------------------------------

_AXES = {
    "x": "B T D",
    "g": "B T D",
    "h_0": "B D",
}


def _shape_error(time, cu_seqlens, **tensors):
    """The first tensor whose shape disagrees with those before it, as an error that names dims and sizes."""
    sizes = {}
    for name, x in tensors.items():
        axes = [axis for axis in _AXES[name].split() if time or axis != "T"]
        shape = list(x.shape)
        if cu_seqlens is not None and "T" not in axes:
            sizes["B"] = (len(cu_seqlens) - 1, "cu_seqlens")
        if len(shape) != len(axes):
            return ValueError(f"hgrn: {name} has shape {shape}; its axes are [{', '.join(axes)}]")
        for axis, size in zip(axes, shape):
            told, by = sizes.setdefault(axis, (size, name))
            if told != size:
                want = ", ".join(axes)
                why = f"{axis} is {size} here and {told} in {by}"
                return ValueError(f"hgrn: {name} has shape {shape} for [{want}]; {why}")
    return ValueError(f"hgrn: shapes disagree: {_AXES}")


CHECK_BOUNDS = False  # whether the bounds of packs on a GPU are read and checked too: a call then waits for it


def _sequences(cu_seqlens, x):
    """The number of sequences of the pack x [1, T, ...]; an error where `cu_seqlens` cannot be its bounds."""
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"hgrn: cu_seqlens is {cu_seqlens.dtype}; it is torch.int32 or torch.int64")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] == 0:
        shape = list(cu_seqlens.shape)
        raise ValueError(f"hgrn: cu_seqlens has shape {shape}; for N sequences it is [N + 1]: their bounds")
    if cu_seqlens.device != x.device:
        raise ValueError(f"hgrn: cu_seqlens is on {cu_seqlens.device}, the inputs are on {x.device}")
    if x.shape[0] != 1:
        why = "with cu_seqlens the sequences stand one after the other in one row"
        raise ValueError(f"hgrn: the inputs have B = {x.shape[0]}; {why}: [1, T, ...]")
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
        raise ValueError(f"hgrn: cu_seqlens is {cu_seqlens}; {want}")
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


def _sizes(x, g, cu_seqlens):
    """Sizes of the dims B, T, D; ValueError where shapes disagree."""
    if x.dim() != 3:
        raise _shape_error(True, cu_seqlens, x=x, g=g)
    B, T, D = x.shape
    if g.shape != (B, T, D):
        raise _shape_error(True, cu_seqlens, x=x, g=g)
    if cu_seqlens is not None:
        B = _sequences(cu_seqlens, x)
    return B, T, D


def _step_sizes(x, g):
    """Sizes of the dims B, D; ValueError where shapes disagree."""
    if x.dim() != 2:
        raise _shape_error(False, None, x=x, g=g)
    B, D = x.shape
    if g.shape != (B, D):
        raise _shape_error(False, None, x=x, g=g)
    return B, D


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


def _fake_run(x, g, h_0, cu_seqlens, reverse):
    """What `run` returns, all zeros: for tracing, and for a sequence of no steps."""
    B, T, D = _sizes(x, g, cu_seqlens)
    return x.new_zeros((*x.shape[:2], D)), x.new_zeros((B, D), dtype=_carry(x))


def _fake_forward(*arguments):
    """What `forward` returns, all zeros."""
    x, cu_seqlens, form = arguments[0], arguments[3], _form(*arguments[:3])
    saved = form.saved(cu_seqlens is not None, *_sizes(*arguments[:2], cu_seqlens), x.dtype, _carry(x))
    return *_fake_run(*arguments), [x.new_zeros(shape, dtype=dtype) for shape, dtype in saved]


def _asked(needs, values):
    """Those of the values, one for each gradient, whose gradient is asked for."""
    return [x for need, x in zip(needs, values, strict=True) if need]


def _fake_backward(*arguments):
    """What `backward` returns, all zeros."""
    return [x.new_zeros(x.shape) for x in _asked(arguments[6], arguments[:3])]


@_autocast_off
def _run(*arguments):
    """Operator `run`: o, h_T."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[0]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        results = _run(*_own_rows(tensors, "TT-", steps), cu_seqlens, reverse)
        return [*(_resized(o, (1, x.shape[1], *o.shape[2:])) for o in results[:1]), *results[1:]]
    if 0 in x.shape[:2]:
        return [*_fake_run(*arguments)[:1], *(_copy(s, carry) for s in tensors[2:])]
    results = form.infer(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    return [*(_dense(o, x.dtype) for o in results[:1]), *(_dense(s, carry) for s in results[1:])]


@_autocast_off
def _forward(*arguments):
    """Operator `forward`: o, h_T, and a list of what backward needs."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[0]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        *results, saved = _forward(*_own_rows(tensors, "TT-", steps), cu_seqlens, reverse)
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
    starts = zip(states, arguments[2:3], strict=True)
    return [*outputs, *(torch.zeros_like(s, dtype=carry) if d is None else d for d, s in starts)]


@_autocast_off
def _backward(*arguments):
    """Operator `backward`: of the gradients of x, g, h_0 those that are asked for.

    needs: which are, for each; a cotangent that is not there is zero.
    """
    tensors, (cu_seqlens, reverse, saved, needs) = arguments[:3], arguments[3:7]
    cotangents = whole = arguments[7:]
    x = tensors[0]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        own = _own_rows(tensors, "TT-", steps)
        saved = [_resized(s, y.shape) for s, y in zip(saved, _fake_forward(*own, cu_seqlens, reverse)[-1], strict=True)]
        cotangents = _own_rows(cotangents, "T-", steps)
        gradients = _backward(*own, cu_seqlens, reverse, saved, needs, *cotangents)
        return [_resized(d, y.shape) for d, y in zip(gradients, _asked(needs, tensors), strict=True)]
    if any(d is None for d in cotangents):
        whole = _filled(cotangents, carry, *arguments[:5])
    if 0 in x.shape[:2]:
        final = zip(tensors[2:], whole[1:], strict=True)
        gradients = [torch.zeros_like(x) for x in tensors[:2]]
        return _asked(needs, [*gradients, *(_copy(d, s.dtype) for s, d in final)])
    everything = *form.prepare(carry, *tensors), *saved, *form.prepare(carry, *whole)
    gradients = _asked(needs, form.backward(*everything, cu_seqlens=cu_seqlens, reverse=reverse, needs=needs))
    if _spoilt(gradients, cotangents):
        gradients = _apart(tensors, cu_seqlens, reverse, needs, cotangents)
    return [_dense(d, x.dtype) for x, d in zip(_asked(needs, tensors), gradients, strict=True)]


def _fake_step(x, g, h_0):
    """What `step` returns: for tracing, and for no sequences."""
    B, D = _step_sizes(x, g)
    return x.new_empty((B, D)), x.new_empty((B, D), dtype=_carry(x))


@_autocast_off
def _step(*tensors):
    """Operator `step`: o, h_T."""
    x = tensors[0]
    if x.shape[0] == 0:
        return [*_fake_step(*tensors)]
    form, carry = _form(*tensors), _carry(x)
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


class _StepDerivative(torch.autograd.Function):
    """One step with its gradient: that of a run of one step."""

    @staticmethod
    def forward(ctx, *tensors):
        run = [*(x[:, None] for x in tensors[:2]), *tensors[2:], None, False]
        *results, saved = _below(_OPS.forward.default, *run)
        _Derivative.keep(ctx, (*tensors, None, False), saved)
        return *(o[:, 0].clone() for o in results[:1]), *results[1:]

    @staticmethod
    def backward(ctx, *cotangents):
        kept = ctx.saved_tensors
        given, saved = kept[:3], list(kept[3 + 1 :])
        run = [*(x[:, None] for x in given[:2]), *given[2:], None, False]
        ends = [*(d if d is None else d[:, None] for d in cotangents[:1]), *cotangents[1:]]
        needs = ctx.needs_input_grad
        gradients = _at_asked(needs, _backward_below(*run, saved, list(needs), *ends))
        return *(d if d is None else d[:, 0] for d in gradients[:2]), *gradients[2:]


def _differentiable_step(*tensors):
    if _needs_plain(tensors):
        return _plain_step(*tensors)
    if _needs_gradient(tensors):
        return list(_applied(_StepDerivative, *tensors))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.step.default(*tensors)


def _plain(*arguments):
    """What `run` gives, by single steps in plain torch operators, all of whose derivatives torch knows."""
    *tensors, cu_seqlens, reverse = arguments
    if cu_seqlens is not None:
        return _plain_pack(tensors, cu_seqlens, reverse)
    if 0 in tensors[0].shape[:2]:
        return [*_fake_run(*arguments)[:1], *(x.clone() for x in tensors[2:])]
    inputs, params, states = tensors[:2], tensors[2:2], tensors[2:]
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
        own = [x[:, start:end] for x in tensors[:2]]
        own += [x[i : i + 1] if _OWN[k] == "B" else x for k, x in enumerate(tensors[2:], 2)]
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
    """hgrn with its gradient; backward is an operator too, so autograd and compilers never look inside."""

    @staticmethod
    def forward(ctx, *arguments):
        *results, saved = _below(_OPS.forward.default, *arguments)
        _Derivative.keep(ctx, arguments, saved)
        return tuple(results)

    @staticmethod
    def keep(ctx, arguments, saved):
        """What backward takes; a result that a loss does not use has no cotangent, not one of zeros."""
        *given, ctx.reverse = arguments
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *saved)

    @staticmethod
    def backward(ctx, *cotangents):
        kept = ctx.saved_tensors
        given, saved = kept[:4], list(kept[4:])
        needs = ctx.needs_input_grad[:3]
        gradients = _backward_below(*given, ctx.reverse, saved, list(needs), *cotangents[:2])
        return *_at_asked(needs, gradients), None, None


class _DerivativeAndSaved(torch.autograd.Function):
    """The same, which also gives what backward needs: `forward` where its arguments require a gradient."""

    @staticmethod
    def forward(ctx, *arguments):
        *results, saved = _below(_OPS.forward.default, *arguments)
        _Derivative.keep(ctx, arguments, saved)
        ctx.mark_non_differentiable(*saved)
        return *results, *saved

    backward = _Derivative.backward


class _SecondDerivative(torch.autograd.Function):
    """The gradient; its own gradient is that of the plain form."""

    @staticmethod
    def forward(ctx, count, needs, *flat):
        saved, cotangents = list(flat[5 : 5 + count]), flat[5 + count :]
        ctx.reverse, ctx.needs = flat[4], needs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*flat[:4], *cotangents)
        return tuple(_below(_OPS.backward.default, *flat[:5], saved, needs, *cotangents))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *weights):
        kept = ctx.saved_tensors
        alike = [x if x is None else x.detach().requires_grad_() for x in (*kept[:3], *kept[4:])]
        tensors, cu_seqlens, cotangents = alike[:3], kept[3], alike[3:]
        with torch.enable_grad():
            asked = _asked(ctx.needs, tensors)
            gradients = _pulled(_plain(*tensors, cu_seqlens, ctx.reverse), cotangents, asked, create_graph=True)
        found = iter(_pulled(gradients, weights, [x for x in alike if x is not None]))
        left = [None if x is None else next(found) for x in alike]
        saved = [None] * (len(ctx.needs_input_grad) - 2 - len(left) - 2)
        return None, None, *left[:3], None, None, *saved, *left[3:]


def _backward_below(*arguments):
    """The gradients, as a function of what is recorded below: by autograd, or by the next level of torch.func."""
    if any(d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in arguments[7:]):
        return _batched_backward(*arguments)
    if torch._C._are_functorch_transforms_active():
        return _OPS.backward.default(*arguments)
    return _differentiable_backward(*arguments)


def _batched_backward(*arguments):
    """The gradients for cotangents of `torch.autograd.grad(is_grads_batched=True)`, one after the other."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    cotangents = arguments[7:]
    batched = [d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in cotangents]
    columns = [torch._remove_batch_dim(d, level, 1, 0) if own else d for d, own in zip(cotangents, batched)]
    members = next(d.shape[0] for d, own in zip(columns, batched) if own)
    rows = [[d[i] if own else d for d, own in zip(columns, batched)] for i in range(members)]
    found = [_backward_below(*arguments[:7], *row) for row in rows]
    return [torch._add_batch_dim(torch.stack(parts), 0, level) for parts in zip(*found)]


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
    return NotImplementedError(f"hgrn: {what} is not served; take it of the call: torch.func.jvp")


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
    tensors = arguments[:3]
    if _needs_plain(tensors):
        return _plain(*arguments)
    if _needs_gradient(tensors):
        return list(_applied(_Derivative, *arguments))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.run.default(*arguments)


def _differentiable_forward(*arguments):
    tensors = arguments[:3]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        results = _applied(_DerivativeAndSaved, *arguments)
        return *results[:2], list(results[2:])
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.forward.default(*arguments)


def _differentiable_backward(*arguments):
    given, (saved, needs), cotangents = arguments[:5], arguments[5:7], arguments[7:]
    tensors = [*given[:3], *cotangents]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        return list(_applied(_SecondDerivative, len(saved), needs, *given, *saved, *cotangents))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.backward.default(*arguments)


_OWN = "BBB"  # B: an argument has a batch axis; -: it is shared by the batch


def _folded(x, dim, members):
    """x [.., members, .., B, ..] as [members * B, ...]; repeated where it is not batched."""
    x = x.unsqueeze(0).expand(members, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def _member(x, dim, i):
    """Member i of an argument, or of a list of them."""
    if isinstance(x, (list, tuple)):
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


def _rule(name, differentiates):
    """How an operator acts on batched arguments. differentiates: whether gradients of shared ones must stay apart."""

    def rule(info, dims, *arguments):
        operator, members = getattr(_OPS, name).default, info.batch_size
        tensors, here = arguments[:3], dims[:3]
        shared = any(d is not None and own == "-" for d, own in zip(here, _OWN))
        packed = name != "step" and arguments[3] is not None
        if shared or packed or differentiates or all(d is None for d in here):
            return _in_turn(operator, members, dims, arguments)
        size = tensors[0].shape[0] if here[0] is None else tensors[0].movedim(here[0], 0).shape[1]
        flat = [x if own == "-" else _folded(x, d, members) for x, d, own in zip(tensors, here, _OWN)]
        if name == "backward":
            *more, saved, needs = arguments[3:7]
            ends = [None if x is None else _folded(x, d, members) for x, d in zip(arguments[7:], dims[7:])]
            return _unfolded(operator(*flat, *more, saved, needs, *ends), members, size)
        results = operator(*flat, *arguments[3:])
        if name != "forward":
            return _unfolded(results, members, size)
        results, places = _unfolded(results[:-1], members, size), results[-1]
        return (*results[0], places), (*results[1], [None] * len(places))

    return rule


def _unfolded(results, members, size):
    """Results of the larger batch with the members' axis in front again, and the place of that axis."""
    return [x.unflatten(0, (members, size)) for x in results], [0] * len(results)


def _rules():
    """Operator -> its rule."""
    apart = False  # whether an argument is shared, whose gradient each member has for itself
    return {"run": _rule("run", False), "step": _rule("step", False)} | {
        name: _rule(name, apart) for name in ("forward", "backward")
    }


def _register():
    """Define the operators in a namespace that no other file or import of this file has; it lives as long as torch."""
    name, tries = "seqc_hgrn_9b7202e7bd08", 0
    while hasattr(getattr(torch.ops, name), "run"):
        tries += 1
        name = f"seqc_hgrn_9b7202e7bd08_{tries}"
    library = torch.library.Library(name, "DEF")
    arguments = [f"Tensor {x}" for x in "x g h_0".split()]
    results = [f"Tensor {x}" for x in "o h_T".split()]
    cotangents = [f"Tensor? d_{x}" for x in "o h_T".split()]
    once, given = ", ".join(arguments), ", ".join(results)
    taken = f"{once}, Tensor? cu_seqlens, bool reverse"
    library.define(f"run({taken}) -> ({given})")
    library.define(f"forward({taken}) -> ({given}, Tensor[] saved)")
    library.define(f"backward({taken}, Tensor[] saved, bool[] needs, {', '.join(cotangents)}) -> Tensor[]")
    library.define(f"step({once}) -> ({given})")
    fakes = {"run": _fake_run, "forward": _fake_forward, "backward": _fake_backward, "step": _fake_step}
    kernels = {"run": _run, "forward": _forward, "backward": _backward, "step": _step}
    derivatives = {
        "run": _differentiable_run,
        "forward": _differentiable_forward,
        "backward": _differentiable_backward,
        "step": _differentiable_step,
    }
    rules = _rules()
    for operator, kernel in kernels.items():
        library.impl(operator, kernel, "CPU")
        library.impl(operator, kernel, "CUDA")
        library.impl(operator, derivatives[operator], "Autograd")
        torch.library.register_fake(f"{name}::{operator}", fakes[operator], lib=library)
        torch.library.register_vmap(f"{name}::{operator}", rules[operator], lib=library)
    getattr(torch.ops, name).library = library  # compiled graphs call the operators by name
    return getattr(torch.ops, name)


_OPS = _register()


# ---------- what to call ----------------------------------------------------------------------------------------------


class HGRNResult(NamedTuple):
    """Outputs, and the states after the last step: the next call's NAME_0, to go on from."""

    o: Tensor  # [B, T, D]
    h_T: Tensor  # [B, D]


def _cast(x, g):
    """The inputs in the dtypes that the operators take."""
    main = x.dtype
    if (
        g.dtype != main
        or main not in _FLOATS
        or (x.device.type in _AUTOCAST and torch.is_autocast_enabled(x.device.type))
    ):
        return _fit(x, g)
    return x, g


def _fit(*inputs):
    """The inputs, cast where autocast asks for it; TypeError where their dtypes do not fit together.

    Under autocast gates become float32 and the others the autocast dtype, as a matrix product's would; float64 stays.
    """
    device, main = inputs[0].device.type, inputs[0].dtype
    if not _FLOATS.issuperset(x.dtype for x in inputs):
        raise _dtype_error(**dict(zip(_INPUTS, inputs, strict=True)))
    if device in _AUTOCAST and torch.is_autocast_enabled(device) and main != torch.float64:
        main = torch.get_autocast_dtype(device)
        inputs = [x.to(torch.float32 if name in _GATES else main) for name, x in zip(_INPUTS, inputs, strict=True)]
    for name, x in zip(_INPUTS, inputs):
        if x.dtype != main and not (name in _GATES and x.dtype == torch.float32):
            raise TypeError(f"hgrn: {name} is {x.dtype}, {_INPUTS[0]} is {main}; inputs share a dtype")
    return inputs


def _dtype_error(**tensors):
    """The first tensor whose dtype is not served, as an error that says what to do."""
    name, dtype = next((name, x.dtype) for name, x in tensors.items() if x.dtype not in _FLOATS)
    what = "inputs" if name in _INPUTS else "initial states" if name.endswith("_0") else "parameters"
    if dtype.is_complex:
        help = "give real and imaginary parts as arguments of their own (x.real, x.imag)"
    elif dtype.is_floating_point:
        help = "convert it first, with its scale: x.to(torch.bfloat16)"
    else:
        help = "convert it first: x.to(torch.float32)"
    kinds = f"{what} are floating-point numbers of 64, 32 or 16 bits"
    return TypeError(f"hgrn: {name} is {dtype}; {kinds}: {help}")


def _to_carry(name, x, carry):
    """An initial state in the dtype that states have."""
    if x.dtype not in _FLOATS:
        raise _dtype_error(**{name: x})
    return x.to(carry)


_FLOATS = frozenset((torch.float64, torch.float32, torch.bfloat16, torch.float16))
_INPUTS = tuple("x g".split())
_GATES = frozenset("g".split())


def _call(operator, *arguments):
    """The operator's results; under `no_grad` without the stop at autograd that inference mode leaves out by itself."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return operator(*arguments)
    if forward_ad._current_level >= 0:  # tangents pass through autograd, with or without gradients
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def _along(axis, cu_seqlens, reverse, *tensors):
    """The call whose steps lie along one of the axes before the dims; the others are batch, by views if possible."""
    main = tensors[0]
    count = main.dim() - 1
    if not -count <= axis < count:
        raise ValueError(f"hgrn: axis is {axis}; x has {count} axes before its dims: {list(main.shape)}")
    lead, axis = main.shape[:count], axis % count
    batch = (*lead[:axis], *lead[axis + 1 :])
    given = {}
    for x, (name, axes) in zip(tensors, _AXES.items(), strict=True):
        own, *dims = axes.split() or [""]
        if x is not None and own == "B" and (cu_seqlens is None or dims[:1] == ["T"]):
            ahead, dims = (lead, dims[1:]) if dims[:1] == ["T"] else (batch, dims)
            if x.dim() != len(ahead) + len(dims) or x.shape[: len(ahead)] != ahead:
                want, why = ", ".join([*map(str, ahead), *dims]), f"axis {axis} of x has the steps"
                raise ValueError(f"hgrn: {name} has shape {list(x.shape)} for [{want}]; {why}")
            x = x.movedim(axis, count - 1) if ahead is lead else x
            x = x.reshape((math.prod(batch), *x.shape[len(batch) :]))
        given[name] = x
    results = hgrn(**given, cu_seqlens=cu_seqlens, reverse=reverse)
    outputs = [o.reshape((*batch, *o.shape[1:])).movedim(count - 1, axis) for o in results[:1]]
    states = results[1:]
    if cu_seqlens is None:
        states = [s.reshape((*batch, *s.shape[1:])) for s in states]
    return HGRNResult(*outputs, *states)


class HGRNStates(HGRNResult):
    """What a call with `states_every` gives: its result, and each state after every so many steps as NAME_every.

    NAME_every has the pieces as an axis where inputs have the steps: [B, T // N, dims]. Of a pack it is [pieces, dims]:
    those of the first sequence, then those of the next; a sequence of n steps has n // N of them.
    """

    h_every: Tensor  # [B, pieces, D]


def _in_pieces(every, axis, cu_seqlens, reverse, /, **given):
    """The call in pieces of `every` steps, each from the states that the last one left."""
    main = given["x"]
    count = main.dim() - 1
    at = 1 if axis is None else axis % count
    if every < 1:
        why = f"states_every is {every}; states are kept after every so many steps, 1 or more"
        raise ValueError(f"hgrn: {why}")
    if axis is not None and (cu_seqlens is not None or not -count <= axis < count):
        why = f"x has {count} axes before its dims" if cu_seqlens is None else "states_every of a pack takes none"
        raise ValueError(f"hgrn: axis is {axis}; {why}")
    steps = main.shape[at]
    bounds = [0, steps]
    if cu_seqlens is not None:  # pieces are cut from each sequence: its bounds are read, and a GPU is waited for
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
        cuts, own = None, dict(given)
        if cu_seqlens is None:
            low, high = rows[0]
            own |= {x: given[x].narrow(at, low, high - low) for x in _STEPPED if given[x] is not None}
        else:
            index = torch.cat([torch.arange(*row, device=main.device) for row in rows or [(0, 0)]])
            own |= {x: given[x].index_select(1, index) for x in _STEPPED if given[x] is not None}
            sizes = torch.tensor([0] + [high - low for low, high in rows], device=main.device)
            cuts = sizes.cumsum(0).to(cu_seqlens.dtype)
            places.append(index)
        result = hgrn(**own, cu_seqlens=cuts, reverse=reverse, axis=axis)
        given |= dict(zip(("h_0",), result[1:]))
        results.append(result)
        kept.append([i for i, size in enumerate(lengths) if start + every <= size])
    whole = []
    for parts in zip(*(result[:1] for result in results)):
        joined = torch.cat(parts if cu_seqlens is not None or not last else parts[::-1], at)
        if cu_seqlens is not None:
            joined = joined.new_zeros(1, steps, *joined.shape[2:]).index_copy(1, torch.cat(places), joined)
        whole.append(joined)
    found = HGRNStates(*whole, *results[-1][1:])
    order = sorted((i, piece) for piece, ones in enumerate(kept) for i in ones)
    for name, state in zip(found._fields[1:], found[1:]):
        if cu_seqlens is not None:
            parts = [getattr(results[piece], name)[i] for i, piece in order]
            stacked = torch.stack(parts) if parts else state.new_zeros(0, *state.shape[1:])
        else:
            parts = [getattr(results[piece], name) for _, piece in order]
            stacked = torch.stack(parts, at) if parts else state.new_zeros(*state.shape[:at], 0, *state.shape[at:])
        setattr(found, name[:-1] + "every", stacked)
    return found


_STEPPED = tuple("x g".split())


def hgrn(
    x: Tensor,
    g: Tensor,
    *,
    h_0: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    reverse: bool = False,
    axis: int | None = None,
    states_every: int | None = None,
) -> HGRNResult:
    """Run hgrn over a sequence.

    Shapes:
        x: [B, T, D]
        g: [B, T, D]
        h_0: [B, D]

    States are float32 (float64 for float64 inputs); one that is not given starts at its default.

    cu_seqlens: the call is a pack of B sequences of any lengths, one after the other in one row of T steps; inputs are
        [1, T, ...], and sequence i has the steps from cu_seqlens[i] up to cu_seqlens[i + 1]. int32 or int64 [B + 1] on
        the inputs' device. One entry per sequence: h_0.
    reverse: every sequence runs from its last step to its first.
    axis: which of the axes before the dims has the steps; all others are batch, and states have these, in their order.
    states_every: the result is a HGRNStates, with the states after every so many steps.
    """
    if states_every is not None:
        return _in_pieces(states_every, axis, cu_seqlens, reverse, x=x, g=g, h_0=h_0)
    if axis is not None:
        return _along(axis, cu_seqlens, reverse, x, g, h_0)
    x, g = _cast(x, g)
    B, T, D = _sizes(x, g, cu_seqlens)
    carry = _carry(x)
    if h_0 is None:
        h_0 = x.new_zeros((B, D), dtype=carry)
    elif h_0.shape != (B, D):
        raise _shape_error(True, cu_seqlens, x=x, g=g, h_0=h_0)
    elif h_0.dtype != carry:
        h_0 = _to_carry("h_0", h_0, carry)
    return HGRNResult(*_call(_OPS.run.default, x, g, h_0, cu_seqlens, reverse))


def _written(result, given, inplace, into):
    """The result in tensors of the caller: states in those that were given (inplace), the rest in an earlier result."""
    if any(x.requires_grad for x in result):
        why = "inplace= and into= keep nothing that a gradient needs: call it under torch.no_grad()"
        raise RuntimeError(f"hgrn_step: {why}")
    places = list(result if into is None else into)
    if inplace:
        places[1:] = [y if x is None else x for x, y in zip(given, places[1:], strict=True)]
    for place, x in zip(places, result, strict=True):
        if place.shape != x.shape or place.dtype != x.dtype:
            said = f"{list(place.shape)} of {place.dtype}, and the step gives {list(x.shape)} of {x.dtype}"
            raise ValueError(f"hgrn_step: a tensor to write has shape {said}")
    if len(set(map(id, places))) < len(places):
        raise ValueError("hgrn_step: one tensor is to be written twice: give every state its own")
    for place, x in zip(places, result, strict=True):
        if place is not x:
            place.copy_(x)
    return type(result)(*places)


def hgrn_step(
    x: Tensor, g: Tensor, *, h_0: Tensor | None = None, inplace: bool = False, into: HGRNResult | None = None
) -> HGRNResult:
    """Run hgrn for one step: one token of decoding.

    Shapes:
        x: [B, D]
        g: [B, D]
        h_0: [B, D]

    inplace: the new states are written over the old ones, and returned as these.
    into: the result of an earlier step, whose tensors are written and returned. With its own states as initial ones,
        no step allocates anything.
    """
    _given = (h_0,)
    x, g = _cast(x, g)
    B, D = _step_sizes(x, g)
    carry = _carry(x)
    if h_0 is None:
        h_0 = x.new_zeros((B, D), dtype=carry)
    elif h_0.shape != (B, D):
        raise _shape_error(False, None, x=x, g=g, h_0=h_0)
    elif h_0.dtype != carry:
        h_0 = _to_carry("h_0", h_0, carry)
    _result = HGRNResult(*_call(_OPS.step.default, x, g, h_0))
    return _written(_result, _given, inplace, into) if inplace or into is not None else _result


class HGRN(torch.nn.Module):
    """hgrn as a layer: it owns no parameter.

    axis: which of the inputs' axes has the steps, of every call that does not say it; see the function.
    """

    def __init__(
        self,
        *,
        D: int,
        axis: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.dims = {"D": D}

    def forward(
        self,
        x: Tensor,
        g: Tensor,
        *,
        h_0: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
        axis: int | None = None,
        states_every: int | None = None,
    ) -> HGRNResult:
        """The recurrence over a sequence; see `hgrn`."""
        return hgrn(
            x,
            g,
            h_0=h_0,
            cu_seqlens=cu_seqlens,
            reverse=reverse,
            axis=self.axis if axis is None else axis,
            states_every=states_every,
        )

    def step(
        self, x: Tensor, g: Tensor, *, h_0: Tensor | None = None, inplace: bool = False, into: HGRNResult | None = None
    ) -> HGRNResult:
        """One step; see `hgrn_step`."""
        return hgrn_step(x, g, h_0=h_0, inplace=inplace, into=into)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={size}" for name, size in self.dims.items())


# torch.fx keeps a call as one node, instead of tracing into it
torch.fx.wrap("hgrn")
torch.fx.wrap("hgrn_step")
