# Made by seqc from the spec `lstm`. Edit the spec, not this file.
"""lstm: Long short-term memory with block-diagonal heads: each head has its own recurrent matrices.

i, f, o = sigmoid(x + R h_{t-1}),  z = tanh(x_z + R_z h_{t-1}),  c_t = f c_{t-1} + i z,  h_t = o tanh(c_t)
(Hochreiter and Schmidhuber 1997; heads as in Poeppel et al. 2024, arXiv:2412.07752). The inputs are the gates'
pre-activations without the recurrent part: W x + b.

The spec:

    dim H, D

    input x_i[H, D], x_f[H, D], x_z[H, D], x_o[H, D]
    param R_i[H, D, D], R_f[H, D, D], R_z[H, D, D], R_o[H, D, D]

    state h[H, D] = 0, c[H, D] = 0

    i = sigmoid(x_i + R_i @ h[t-1])
    f = sigmoid(x_f + R_f @ h[t-1])
    z = tanh(x_z + R_z @ h[t-1])
    o = sigmoid(x_o + R_o @ h[t-1])
    c = f * c[t-1] + i * z
    output h = o * tanh(c)

How it is computed:

    h, c: nonlinear: `sigmoid` is applied to a value that depends on the state: `sigmoid(x_o + R_o @ h[t-1])`
    h: not known: `sigmoid` is applied to a value that depends on the state: `sigmoid(x_o + R_o @ h[t-1])`
    c: not known: `sigmoid` is applied to a value that depends on the state: `sigmoid(x_o + R_o @ h[t-1])`
    in plain torch:
        step: no block form: h: `sigmoid` is applied to a value that depends on the state: `sigmoid(x_o + R_o @
            h[t-1])`
    in Triton:
        step: no block form: h: `sigmoid` is applied to a value that depends on the state: `sigmoid(x_o + R_o @
            h[t-1])`

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

__all__ = ["LSTM", "LSTMResult", "lstm", "lstm_step", "LSTMStates"]


# ---------- what to call ----------------------------------------------------------------------------------------------


class LSTMResult(NamedTuple):
    """Outputs, and the states after the last step: the next call's NAME_0, to go on from."""

    h: Tensor  # [B, T, H, D]
    h_T: Tensor  # [B, H, D]
    c_T: Tensor  # [B, H, D]


class LSTMStates(LSTMResult):
    """What a call with `states_every` gives: its result, and each state after every so many steps as NAME_every.

    NAME_every has the pieces as an axis where inputs have the steps: [B, T // N, dims]. Of a pack it is [pieces, dims]:
    those of the first sequence, then those of the next; a sequence of n steps has n // N of them.
    """

    h_every: Tensor  # [B, pieces, H, D]
    c_every: Tensor  # [B, pieces, H, D]


def lstm(
    x_i: Tensor, x_f: Tensor, x_z: Tensor, x_o: Tensor, R_i: Tensor, R_f: Tensor, R_z: Tensor, R_o: Tensor, *,
    h_0: Tensor | None = None, c_0: Tensor | None = None, cu_seqlens: Tensor | None = None, reverse: bool = False,
    axis: int | None = None, states_every: int | None = None,
) -> LSTMResult:
    """Run lstm over a sequence.

    Shapes:
        x_i: [B, T, H, D]
        x_f: [B, T, H, D]
        x_z: [B, T, H, D]
        x_o: [B, T, H, D]
        R_i: [H, D, D]
        R_f: [H, D, D]
        R_z: [H, D, D]
        R_o: [H, D, D]
        h_0: [B, H, D]
        c_0: [B, H, D]

    States are float32 (float64 for float64 inputs); one that is not given starts at its default.

    cu_seqlens: the call is a pack of B sequences of any lengths, one after the other in one row of T steps; inputs are
        [1, T, ...], and sequence i has the steps from cu_seqlens[i] up to cu_seqlens[i + 1]. int32 or int64 [B + 1] on
        the inputs' device. One entry per sequence: h_0, c_0.
    reverse: every sequence runs from its last step to its first.
    axis: which of the axes before the dims has the steps; all others are batch, and states have these, in their order.
    states_every: the result is a LSTMStates, with the states after every so many steps.
    """
    if states_every is not None:
        return _in_pieces(
            states_every, axis, cu_seqlens, reverse, x_i=x_i, x_f=x_f, x_z=x_z, x_o=x_o, R_i=R_i, R_f=R_f, R_z=R_z,
            R_o=R_o, h_0=h_0, c_0=c_0,
        )
    if axis is not None:
        return _along(axis, cu_seqlens, reverse, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0)
    x_i, x_f, x_z, x_o = _cast(x_i, x_f, x_z, x_o)
    B, T, H, D = _sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, cu_seqlens)
    carry = _carry(x_i)
    if h_0 is None:
        h_0 = x_i.new_zeros((), dtype=carry).expand(B, H, D)
    elif h_0.shape != (B, H, D):
        raise _shape_error(True, cu_seqlens, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0=h_0)
    elif h_0.dtype != carry:
        h_0 = _to_carry("h_0", h_0, carry)
    if c_0 is None:
        c_0 = x_i.new_zeros((), dtype=carry).expand(B, H, D)
    elif c_0.shape != (B, H, D):
        raise _shape_error(True, cu_seqlens, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, c_0=c_0)
    elif c_0.dtype != carry:
        c_0 = _to_carry("c_0", c_0, carry)
    if R_i.dtype not in _FLOATS or R_f.dtype not in _FLOATS or R_z.dtype not in _FLOATS or R_o.dtype not in _FLOATS:
        raise _dtype_error(R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o)
    return LSTMResult(*_call(_OPS.run.default, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, cu_seqlens, reverse))


def lstm_step(
    x_i: Tensor, x_f: Tensor, x_z: Tensor, x_o: Tensor, R_i: Tensor, R_f: Tensor, R_z: Tensor, R_o: Tensor, *,
    h_0: Tensor | None = None, c_0: Tensor | None = None, inplace: bool = False, into: LSTMResult | None = None,
) -> LSTMResult:
    """Run lstm for one step: one token of decoding.

    Shapes:
        x_i: [B, H, D]
        x_f: [B, H, D]
        x_z: [B, H, D]
        x_o: [B, H, D]
        R_i: [H, D, D]
        R_f: [H, D, D]
        R_z: [H, D, D]
        R_o: [H, D, D]
        h_0: [B, H, D]
        c_0: [B, H, D]

    inplace: the new states are written over the old ones, and returned as these.
    into: the result of an earlier step, whose tensors are written and returned. With its own states as initial ones,
        no step allocates anything.
    """
    _given = (h_0, c_0)
    x_i, x_f, x_z, x_o = _cast(x_i, x_f, x_z, x_o)
    B, H, D = _step_sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o)
    carry = _carry(x_i)
    if h_0 is None:
        h_0 = x_i.new_zeros((B, H, D), dtype=carry)
    elif h_0.shape != (B, H, D):
        raise _shape_error(False, None, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0=h_0)
    elif h_0.dtype != carry:
        h_0 = _to_carry("h_0", h_0, carry)
    if c_0 is None:
        c_0 = x_i.new_zeros((B, H, D), dtype=carry)
    elif c_0.shape != (B, H, D):
        raise _shape_error(False, None, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, c_0=c_0)
    elif c_0.dtype != carry:
        c_0 = _to_carry("c_0", c_0, carry)
    if R_i.dtype not in _FLOATS or R_f.dtype not in _FLOATS or R_z.dtype not in _FLOATS or R_o.dtype not in _FLOATS:
        raise _dtype_error(R_i=R_i, R_f=R_f, R_z=R_z, R_o=R_o)
    _result = LSTMResult(*_call(_OPS.step.default, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0))
    return _written(_result, _given, inplace, into) if inplace or into is not None else _result


class LSTM(torch.nn.Module):
    """lstm as a layer: it owns R_i, R_f, R_z, R_o.

    axis: which of the inputs' axes has the steps, of every call that does not say it; see the function.
    """

    def __init__(
        self,
        *,
        H: int,
        D: int,
        axis: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.dims = _whole_sizes(0, H=H, D=D)
        self.R_i = torch.nn.Parameter(torch.empty((H, D, D), device=device, dtype=dtype))
        self.R_f = torch.nn.Parameter(torch.empty((H, D, D), device=device, dtype=dtype))
        self.R_z = torch.nn.Parameter(torch.empty((H, D, D), device=device, dtype=dtype))
        self.R_o = torch.nn.Parameter(torch.empty((H, D, D), device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Give every parameter its initial value."""
        D = self.dims["D"]
        self.R_i.normal_(std=D**-0.5)
        self.R_f.normal_(std=D**-0.5)
        self.R_z.normal_(std=D**-0.5)
        self.R_o.normal_(std=D**-0.5)

    def forward(
        self, x_i: Tensor, x_f: Tensor, x_z: Tensor, x_o: Tensor, *, h_0: Tensor | None = None,
        c_0: Tensor | None = None, cu_seqlens: Tensor | None = None, reverse: bool = False, axis: int | None = None,
        states_every: int | None = None,
    ) -> LSTMResult:
        """The recurrence over a sequence; see `lstm`."""
        axis = self.axis if axis is None else axis
        _as_made(self, x_i=x_i)
        return lstm(
            x_i, x_f, x_z, x_o, self.R_i, self.R_f, self.R_z, self.R_o, h_0=h_0, c_0=c_0, cu_seqlens=cu_seqlens,
            reverse=reverse, axis=axis, states_every=states_every,
        )

    def step(
        self,
        x_i: Tensor,
        x_f: Tensor,
        x_z: Tensor,
        x_o: Tensor,
        *,
        h_0: Tensor | None = None,
        c_0: Tensor | None = None,
        inplace: bool = False,
        into: LSTMResult | None = None,
    ) -> LSTMResult:
        """One step; see `lstm_step`."""
        if h_0 is None:
            _as_made(self, x_i=x_i)
        return lstm_step(
            x_i, x_f, x_z, x_o, self.R_i, self.R_f, self.R_z, self.R_o, h_0=h_0, c_0=c_0, inplace=inplace, into=into
        )

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={size}" for name, size in self.dims.items())


# torch.fx keeps a call as one node, instead of tracing into it
torch.fx.wrap("lstm")
torch.fx.wrap("lstm_step")


# ---------- the recurrence in plain torch: every device, every dtype --------------------------------------------------


def _forward_torch(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0):
    """Outputs, final states, and the states as the blocks begin."""
    x_i = x_i.transpose(0, 1)
    x_f = x_f.transpose(0, 1)
    x_z = x_z.transpose(0, 1)
    x_o = x_o.transpose(0, 1)

    # the recurrence itself: one step or block after the other
    h = h_0
    h_all = [h]
    c = c_0
    c_all = [c]
    R2 = torch.cat([R_o, R_f, R_i, R_z], -2).mT
    for x_o_t, x_f_t, x_i_t, x_z_t in zip(x_o, x_f, x_i, x_z):
        p, p2, p3, p4 = (h.transpose(0, 1) @ R2).transpose(0, 1).chunk(4, -1)
        # o = sigmoid(x_o + R_o @ h[t-1])
        o = torch.sigmoid(x_o_t + p)
        # i = sigmoid(x_i + R_i @ h[t-1])
        i = torch.sigmoid(x_i_t + p3)
        # z = tanh(x_z + R_z @ h[t-1])
        z = torch.tanh(x_z_t + p4)
        # f = sigmoid(x_f + R_f @ h[t-1])
        f = torch.sigmoid(x_f_t + p2)
        # c = f * c[t-1] + i * z
        c_next = torch.addcmul(i * z, f, c)
        # output h = o * tanh(c)
        h, c = o * torch.tanh(c_next), c_next
        h_all.append(h)
        c_all.append(c)

    h_all = torch.stack(h_all)
    c_all = torch.stack(c_all)
    return h_all[1:].transpose(0, 1).clone(), h, c, h_all, c_all


def _backward_torch(
    x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, h_all, c_all, d_h, d_h_T, d_c_T, *, needs=(True,) * 10
):
    """Gradients of every input, parameter and initial state."""
    need_x_i, need_x_f, need_x_z, need_x_o, need_R_i, need_R_f, need_R_z, need_R_o, need_h_0, need_c_0 = needs

    x_i = x_i.transpose(0, 1)
    x_f = x_f.transpose(0, 1)
    x_z = x_z.transpose(0, 1)
    x_o = x_o.transpose(0, 1)
    d_h = d_h.transpose(0, 1)
    x = h_all[:-1]
    R = torch.cat([R_o, R_i, R_z, R_f], -2)
    p, p2, p3, p4 = torch.einsum("nbhd,hDd->nbhD", x, R).chunk(4, -1)
    # o = sigmoid(x_o + R_o @ h[t-1])
    o = torch.sigmoid(x_o + p)
    x2 = torch.tanh(c_all[1:])
    x3 = o * (1.0 - x2 * x2)
    # i = sigmoid(x_i + R_i @ h[t-1])
    i = torch.sigmoid(x_i + p2)
    # z = tanh(x_z + R_z @ h[t-1])
    z = torch.tanh(x_z + p3)
    x4 = i * (1.0 - z * z)
    x5 = z * i * (1.0 - i)
    # f = sigmoid(x_f + R_f @ h[t-1])
    f = torch.sigmoid(x_f + p4)
    x6 = c_all[:-1] * f * (1.0 - f)
    x7 = x2 * o * (1.0 - o)

    # the recurrence itself: one step or block after the other
    d_h2 = d_h_T
    d_h_all = [d_h2]
    d_c = d_c_T
    d_c_all = [d_c]
    R2 = torch.cat([R_z, R_i, R_f, R_o], -2)
    for d_h_t, x3_t, x4_t, x5_t, x6_t, x7_t, f_t in reversed(list(zip(d_h, x3, x4, x5, x6, x7, f))):
        x8 = d_h_t + d_h2
        x9 = torch.addcmul(d_c, x8, x3_t)
        d_x_z = x9 * x4_t
        d_x_i = x9 * x5_t
        d_x_f = x9 * x6_t
        d_x_o = x8 * x7_t
        d_h2, d_c = (torch.cat([d_x_z, d_x_i, d_x_f, d_x_o], -1).transpose(0, 1) @ R2).transpose(0, 1), x9 * f_t
        d_h_all.append(d_h2)
        d_c_all.append(d_c)

    if need_x_i or need_x_f or need_x_z or need_x_o or need_R_i or need_R_f or need_R_z or need_R_o:
        d_h_all = torch.stack(d_h_all[::-1])
        x10 = d_h + d_h_all[1:]
    if need_x_i or need_x_f or need_x_z or need_R_i or need_R_f or need_R_z:
        d_c_all = torch.stack(d_c_all[::-1])
        x11 = d_c_all[1:] + x10 * x3
    if need_x_o or need_R_o:
        d_x_o2 = x10 * x7
    if need_x_f or need_R_f:
        d_x_f2 = x11 * x6
    if need_x_i or need_R_i:
        d_x_i2 = x11 * x5
    if need_x_z or need_R_z:
        d_x_z2 = x11 * x4
    return (
        d_x_i2.transpose(0, 1) if need_x_i else None,
        d_x_f2.transpose(0, 1) if need_x_f else None,
        d_x_z2.transpose(0, 1) if need_x_z else None,
        d_x_o2.transpose(0, 1) if need_x_o else None,
        torch.einsum("nbhk,nbhd->hkd", d_x_i2, x) if need_R_i else None,
        torch.einsum("nbhk,nbhd->hkd", d_x_f2, x) if need_R_f else None,
        torch.einsum("nbhk,nbhd->hkd", d_x_z2, x) if need_R_z else None,
        torch.einsum("nbhk,nbhd->hkd", d_x_o2, x) if need_R_o else None,
        d_h2.clone() if need_h_0 else None,
        d_c,
    )


def _step_torch(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0):
    """One step: outputs and new states."""
    R = torch.cat([R_o, R_f, R_i, R_z], -2)
    p, p2, p3, p4 = (h_0.transpose(0, 1) @ R.mT).transpose(0, 1).chunk(4, -1)
    # o = sigmoid(x_o + R_o @ h[t-1])
    o = torch.sigmoid(x_o + p)
    # f = sigmoid(x_f + R_f @ h[t-1])
    f = torch.sigmoid(x_f + p2)
    # i = sigmoid(x_i + R_i @ h[t-1])
    i = torch.sigmoid(x_i + p3)
    # z = tanh(x_z + R_z @ h[t-1])
    z = torch.tanh(x_z + p4)
    # c = f * c[t-1] + i * z
    c = f * c_0 + i * z
    # output h = o * tanh(c)
    h = o * torch.tanh(c)
    return h, h, c


# ---------- the recurrence in Triton: CUDA devices --------------------------------------------------------------------

triton = tl = None  # imported by _load_triton
_KERNELS = []


def _jit(function=None, **options):
    """Mark a Triton kernel. The function stays as it is until `_load_triton` hands it to Triton."""
    if function is None:
        return lambda function: _jit(function, **options)
    _KERNELS.append((function, options))
    return function


@_jit(do_not_specialize=['B', 'T'])
def lstm_forward_kernel(
    p_R_o, p_R_f, p_R_i, p_R_z, p_h_0, p_c_0, p_h_in, p_c_in, p_x_o, p_x_f, p_x_i, p_x_z, p_h, p_before_f,
    p_before_i, p_before_z, p_before_o, p_h_T, p_c_T, p_cu_seqlens, B, T, H: tl.constexpr, D: tl.constexpr,
    BB: tl.constexpr, BD: tl.constexpr, STEP: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    STAGES: tl.constexpr, SAVE: tl.constexpr,
):
    """Outputs, final states, and the states that the gradient needs."""
    NB = tl.cdiv(B, BB) if p_cu_seqlens is None else B
    i_p = tl.program_id(0).to(tl.int64)
    i_b, i_h = i_p // H, i_p % H
    o_b = i_b * (BB if p_cu_seqlens is None else 1) + tl.arange(0, BB)
    first, T = sequences(p_cu_seqlens, i_b, o_b, T, STEP)
    at_hdd = i_h * D * D
    o_d = tl.arange(0, BD)
    o_hdd = o_d[:, None] * D + o_d[None, :]
    m_d = (o_d < D) | (D == BD)
    m_dd = m_d[:, None] & m_d[None, :]
    b_R_o = tl.load(p_R_o + at_hdd + o_hdd, mask=m_dd, other=0.0).to(DOT)
    b_R_f = tl.load(p_R_f + at_hdd + o_hdd, mask=m_dd, other=0.0).to(DOT)
    b_R_i = tl.load(p_R_i + at_hdd + o_hdd, mask=m_dd, other=0.0).to(DOT)
    b_R_z = tl.load(p_R_z + at_hdd + o_hdd, mask=m_dd, other=0.0).to(DOT)
    at_hd = i_h * D
    o_bhd = o_b[:, None] * (H * D) + o_d[None, :]
    m_b = o_b < (B if p_cu_seqlens is None else i_b + 1)
    m_bd = m_b[:, None] & m_d[None, :]
    b_h = tl.load(p_h_0 + at_hd + o_bhd, mask=m_bd, other=0.0).to(tl.float32)
    b_c = tl.load(p_c_0 + at_hd + o_bhd, mask=m_bd, other=0.0).to(tl.float32)
    o_bnhd = first[:, None] * (H * D) + o_d[None, :]
    for i_t in tl.range(0, T, num_stages=STAGES):
        at_nhd = (STEP * i_t * H + i_h) * D
        if SAVE:
            tl.store(p_h_in + at_nhd + o_bnhd, b_h, mask=m_bd)
        if SAVE:
            tl.store(p_c_in + at_nhd + o_bnhd, b_c, mask=m_bd)
        b_x_o = tl.load(p_x_o + at_nhd + o_bnhd, mask=m_bd, other=0.0).to(tl.float32)
        b_x_f = tl.load(p_x_f + at_nhd + o_bnhd, mask=m_bd, other=0.0).to(tl.float32)
        b_x_i = tl.load(p_x_i + at_nhd + o_bnhd, mask=m_bd, other=0.0).to(tl.float32)
        b_x_z = tl.load(p_x_z + at_nhd + o_bnhd, mask=m_bd, other=0.0).to(tl.float32)
        # o = sigmoid(x_o + R_o @ h[t-1])
        b_x = b_x_o + tl.dot(b_h.to(DOT), tl.trans(b_R_o.to(DOT)), input_precision=PRECISION)
        b_o = sigmoid(b_x)
        # f = sigmoid(x_f + R_f @ h[t-1])
        b_x_1 = b_x_f + tl.dot(b_h.to(DOT), tl.trans(b_R_f.to(DOT)), input_precision=PRECISION)
        b_f = sigmoid(b_x_1)
        # i = sigmoid(x_i + R_i @ h[t-1])
        b_x_2 = b_x_i + tl.dot(b_h.to(DOT), tl.trans(b_R_i.to(DOT)), input_precision=PRECISION)
        b_i = sigmoid(b_x_2)
        # z = tanh(x_z + R_z @ h[t-1])
        b_x_3 = b_x_z + tl.dot(b_h.to(DOT), tl.trans(b_R_z.to(DOT)), input_precision=PRECISION)
        b_z = tanh(b_x_3)
        # c = f * c[t-1] + i * z
        b_c_next = b_f * b_c + b_i * b_z
        # output h = o * tanh(c)
        b_h_next = b_o * tanh(b_c_next)
        tl.store(p_h + at_nhd + o_bnhd, b_h_next, mask=m_bd)
        if SAVE:
            tl.store(p_before_f + at_nhd + o_bnhd, b_x_1, mask=m_bd)
        if SAVE:
            tl.store(p_before_i + at_nhd + o_bnhd, b_x_2, mask=m_bd)
        if SAVE:
            tl.store(p_before_z + at_nhd + o_bnhd, b_x_3, mask=m_bd)
        if SAVE:
            tl.store(p_before_o + at_nhd + o_bnhd, b_x, mask=m_bd)
        b_h = b_h_next
        b_c = b_c_next
    tl.store(p_h_T + at_hd + o_bhd, b_h, mask=m_bd)
    tl.store(p_c_T + at_hd + o_bhd, b_c, mask=m_bd)


@_jit(do_not_specialize=['B', 'T'])
def lstm_backward_kernel(
    p_R_z, p_R_i, p_R_f, p_R_o, p_d_h_T, p_d_c_T, p_c_in, p_before_f, p_before_i, p_before_z, p_before_o, p_d_h,
    p_d_x_o, p_d_x_f, p_d_x_i, p_d_x_z, p_d_h_0, p_d_c_0, p_cu_seqlens, B, T, H: tl.constexpr, D: tl.constexpr,
    BB: tl.constexpr, BD: tl.constexpr, STEP: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
):
    """All gradients, from the last block to the first."""
    NB = tl.cdiv(B, BB) if p_cu_seqlens is None else B
    i_p = tl.program_id(0).to(tl.int64)
    i_b, i_h = i_p // H, i_p % H
    o_b = i_b * (BB if p_cu_seqlens is None else 1) + tl.arange(0, BB)
    first, T = sequences(p_cu_seqlens, i_b, o_b, T, STEP)
    at_hdd = i_h * D * D
    o_d = tl.arange(0, BD)
    o_hdd = o_d[:, None] * D + o_d[None, :]
    m_d = (o_d < D) | (D == BD)
    m_dd = m_d[:, None] & m_d[None, :]
    b_R_z = tl.load(p_R_z + at_hdd + o_hdd, mask=m_dd, other=0.0).to(DOT)
    b_R_i = tl.load(p_R_i + at_hdd + o_hdd, mask=m_dd, other=0.0).to(DOT)
    b_R_f = tl.load(p_R_f + at_hdd + o_hdd, mask=m_dd, other=0.0).to(DOT)
    b_R_o = tl.load(p_R_o + at_hdd + o_hdd, mask=m_dd, other=0.0).to(DOT)
    at_hd = i_h * D
    o_bhd = o_b[:, None] * (H * D) + o_d[None, :]
    m_b = o_b < (B if p_cu_seqlens is None else i_b + 1)
    m_bd = m_b[:, None] & m_d[None, :]
    b_dh = tl.load(p_d_h_T + at_hd + o_bhd, mask=m_bd, other=0.0).to(tl.float32)
    b_dc = tl.load(p_d_c_T + at_hd + o_bhd, mask=m_bd, other=0.0).to(tl.float32)
    o_bnhd = first[:, None] * (H * D) + o_d[None, :]
    for i_t in tl.range(T - 1, -1, -1, num_stages=STAGES):
        at_nhd = (STEP * i_t * H + i_h) * D
        b_c = tl.load(p_c_in + at_nhd + o_bnhd, mask=m_bd, other=0.0).to(tl.float32)
        b_before_f = tl.load(p_before_f + at_nhd + o_bnhd, mask=m_bd, other=0.0).to(tl.float32)
        b_before_i = tl.load(p_before_i + at_nhd + o_bnhd, mask=m_bd, other=0.0).to(tl.float32)
        b_before_z = tl.load(p_before_z + at_nhd + o_bnhd, mask=m_bd, other=0.0).to(tl.float32)
        b_before_o = tl.load(p_before_o + at_nhd + o_bnhd, mask=m_bd, other=0.0).to(tl.float32)
        b_dh_1 = tl.load(p_d_h + at_nhd + o_bnhd, mask=m_bd, other=0.0).to(tl.float32)
        # gradient of x_o
        # f = sigmoid(x_f + R_f @ h[t-1])
        b_f = sigmoid(b_before_f)
        # i = sigmoid(x_i + R_i @ h[t-1])
        b_i = sigmoid(b_before_i)
        # z = tanh(x_z + R_z @ h[t-1])
        b_z = tanh(b_before_z)
        # c = f * c[t-1] + i * z
        b_c_1 = b_f * b_c + b_i * b_z
        # o = sigmoid(x_o + R_o @ h[t-1])
        b_o = sigmoid(b_before_o)
        b_x = b_dh_1 + b_dh
        b_tanh_c_1 = tanh(b_c_1)
        b_dx_o = b_x * b_tanh_c_1 * b_o * (1.0 - b_o)
        tl.store(p_d_x_o + at_nhd + o_bnhd, b_dx_o, mask=m_bd)
        # gradient of x_f
        b_x_1 = b_dc + b_x * b_o * (1.0 - b_tanh_c_1 * b_tanh_c_1)
        b_dx_f = b_x_1 * b_c * b_f * (1.0 - b_f)
        tl.store(p_d_x_f + at_nhd + o_bnhd, b_dx_f, mask=m_bd)
        # gradient of x_i
        b_dx_i = b_x_1 * b_z * b_i * (1.0 - b_i)
        tl.store(p_d_x_i + at_nhd + o_bnhd, b_dx_i, mask=m_bd)
        # gradient of x_z
        b_dx_z = b_x_1 * b_i * (1.0 - b_z * b_z)
        tl.store(p_d_x_z + at_nhd + o_bnhd, b_dx_z, mask=m_bd)
        # cotangents of the states, for what comes before
        b_sum = tl.dot(b_dx_z.to(DOT), b_R_z.to(DOT), input_precision=PRECISION)
        b_dh_2 = b_sum + tl.dot(b_dx_i.to(DOT), b_R_i.to(DOT), input_precision=PRECISION)
        b_dh_2 += tl.dot(b_dx_f.to(DOT), b_R_f.to(DOT), input_precision=PRECISION)
        b_dh_2 += tl.dot(b_dx_o.to(DOT), b_R_o.to(DOT), input_precision=PRECISION)
        b_dc_next = b_x_1 * b_f
        b_dh = b_dh_2
        b_dc = b_dc_next
    tl.store(p_d_h_0 + at_hd + o_bhd, b_dh, mask=m_bd)
    tl.store(p_d_c_0 + at_hd + o_bhd, b_dc, mask=m_bd)


@_jit(do_not_specialize=['B', 'T', 'FIRST'])
def lstm_team_forward_kernel(
    p_R_o, p_R_f, p_R_i, p_R_z, p_h_0, p_c_0, p_h_all, p_met, p_x_o, p_x_f, p_x_i, p_x_z, p_h, p_h_in, p_c_in,
    p_before_f, p_before_i, p_before_z, p_before_o, p_h_T, p_c_T, p_cu_seqlens, B, T, FIRST, H: tl.constexpr,
    D: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr, BD_ALL: tl.constexpr, STEP: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, PARTS: tl.constexpr, HELD: tl.constexpr, AT_ONCE: tl.constexpr,
    SAVE: tl.constexpr,
):
    """Outputs, final states, and what the gradient needs, by several programs for each head."""
    NB = tl.cdiv(B, BB) if p_cu_seqlens is None else B
    ND: tl.constexpr = (D + BD - 1) // BD
    i_p = tl.program_id(0).to(tl.int64) + FIRST
    i_b, i_h, i_d = i_p // (H * ND), i_p // ND % H, i_p % ND
    ND_ALL: tl.constexpr = (D + BD_ALL - 1) // BD_ALL
    o_b = i_b * (BB if p_cu_seqlens is None else 1) + tl.arange(0, BB)
    first, T = sequences(p_cu_seqlens, i_b, o_b, T, STEP)
    held_rows = ()
    at_h_d_d_all = i_h * D * D
    o_d = (i_d * BD).to(tl.int32) + tl.arange(0, BD)
    m_d = (o_d < D) | (D % BD == 0)
    for i_d_all in tl.static_range(min(HELD, ND_ALL)):
        o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
        o_h_d_d_all = o_d[None, :, None] * D + o_d_all[:, None, :]
        m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
        m_d_d_all = m_d[None, :, None] & m_d_all[:, None, :]
        b_R_o = tl.load(p_R_o + at_h_d_d_all + o_h_d_d_all, mask=m_d_d_all, other=0.0).to(DOT)
        b_R_f = tl.load(p_R_f + at_h_d_d_all + o_h_d_d_all, mask=m_d_d_all, other=0.0).to(DOT)
        b_R_i = tl.load(p_R_i + at_h_d_d_all + o_h_d_d_all, mask=m_d_d_all, other=0.0).to(DOT)
        b_R_z = tl.load(p_R_z + at_h_d_d_all + o_h_d_d_all, mask=m_d_d_all, other=0.0).to(DOT)
        held_rows = held_rows + (four_as_one(b_R_o, b_R_f, b_R_i, b_R_z),)
    at_hd = i_h * D
    o_bhd = o_b[:, None] * (H * D) + o_d[None, :]
    m_b = o_b < (B if p_cu_seqlens is None else i_b + 1)
    m_bd = m_b[:, None] & m_d[None, :]
    b_h = tl.load(p_h_0 + at_hd + o_bhd, mask=m_bd, other=0.0).to(tl.float32)
    b_c = tl.load(p_c_0 + at_hd + o_bhd, mask=m_bd, other=0.0).to(tl.float32)
    o_bthd = first[:, None] * (H * D) + o_d[None, :]
    for i_t in range(0, T):
        at_thd = (STEP * i_t * H + i_h) * D
        n_x_o = tl.load(p_x_o + at_thd + o_bthd, mask=m_bd, other=0.0)
        n_x_f = tl.load(p_x_f + at_thd + o_bthd, mask=m_bd, other=0.0)
        n_x_i = tl.load(p_x_i + at_thd + o_bthd, mask=m_bd, other=0.0)
        n_x_z = tl.load(p_x_z + at_thd + o_bthd, mask=m_bd, other=0.0)
        at_2hd = (i_t % 2 * B * H + i_h) * D
        tl.store(p_h_all + at_2hd + o_bhd, b_h, mask=m_bd)
        meet(p_met + i_p // ND, (i_t + 1) * ND)
        b_four = tl.zeros((4 * BD, BB), tl.float32)
        for i_some in tl.static_range(0, ND_ALL, AT_ONCE):
            b_h_all = ()
            for i_d_all in tl.static_range(i_some, min(i_some + AT_ONCE, ND_ALL)):
                o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
                o_b2_h_d_all = o_b[None, :, None] * (H * D) + o_d_all[:, None, :]
                m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
                m_b_d_all = m_b[None, :, None] & m_d_all[:, None, :]
                b_h_all = b_h_all + (tl.load(p_h_all + at_2hd + o_b2_h_d_all, mask=m_b_d_all, other=0.0, cache_modifier=".cg").to(DOT),)
            for i_d_all in tl.static_range(i_some, min(i_some + AT_ONCE, ND_ALL)):
                if i_d_all < HELD:
                    b_rows = held_rows[i_d_all]
                else:
                    o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
                    o_h_d_d_all_1 = o_d[None, :, None] * D + o_d_all[:, None, :]
                    m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
                    m_d_d_all_1 = m_d[None, :, None] & m_d_all[:, None, :]
                    b_R_o_1 = tl.load(p_R_o + at_h_d_d_all + o_h_d_d_all_1, mask=m_d_d_all_1, other=0.0).to(DOT)
                    b_R_f_1 = tl.load(p_R_f + at_h_d_d_all + o_h_d_d_all_1, mask=m_d_d_all_1, other=0.0).to(DOT)
                    b_R_i_1 = tl.load(p_R_i + at_h_d_d_all + o_h_d_d_all_1, mask=m_d_d_all_1, other=0.0).to(DOT)
                    b_R_z_1 = tl.load(p_R_z + at_h_d_d_all + o_h_d_d_all_1, mask=m_d_d_all_1, other=0.0).to(DOT)
                    b_rows = four_as_one(b_R_o_1, b_R_f_1, b_R_i_1, b_R_z_1)
                b_four = tl.dot(b_rows, tl.trans(tl.reshape(b_h_all[i_d_all - i_some].to(DOT), (BB, BD_ALL))), b_four, input_precision=PRECISION)
        b_sum, b_sum_1, b_sum_2, b_sum_3 = one_as_four(b_four)
        b_x_o = n_x_o.to(tl.float32)
        b_x_f = n_x_f.to(tl.float32)
        b_x_i = n_x_i.to(tl.float32)
        b_x_z = n_x_z.to(tl.float32)
        # o = sigmoid(x_o + R_o @ h[t-1])
        b_x = b_x_o + b_sum
        b_o = sigmoid(b_x)
        # f = sigmoid(x_f + R_f @ h[t-1])
        b_x_1 = b_x_f + b_sum_1
        b_f = sigmoid(b_x_1)
        # i = sigmoid(x_i + R_i @ h[t-1])
        b_x_2 = b_x_i + b_sum_2
        b_i = sigmoid(b_x_2)
        # z = tanh(x_z + R_z @ h[t-1])
        b_x_3 = b_x_z + b_sum_3
        b_z = tanh(b_x_3)
        # c = f * c[t-1] + i * z
        b_c_next = b_f * b_c + b_i * b_z
        # output h = o * tanh(c)
        b_h_next = b_o * tanh(b_c_next)
        tl.store(p_h + at_thd + o_bthd, b_h_next, mask=m_bd)
        if SAVE:
            tl.store(p_h_in + at_thd + o_bthd, b_h, mask=m_bd)
        if SAVE:
            tl.store(p_c_in + at_thd + o_bthd, b_c, mask=m_bd)
        if SAVE:
            tl.store(p_before_f + at_thd + o_bthd, b_x_1, mask=m_bd)
        if SAVE:
            tl.store(p_before_i + at_thd + o_bthd, b_x_2, mask=m_bd)
        if SAVE:
            tl.store(p_before_z + at_thd + o_bthd, b_x_3, mask=m_bd)
        if SAVE:
            tl.store(p_before_o + at_thd + o_bthd, b_x, mask=m_bd)
        b_h = b_h_next
        b_c = b_c_next
    tl.store(p_h_T + at_hd + o_bhd, b_h, mask=m_bd)
    tl.store(p_c_T + at_hd + o_bhd, b_c, mask=m_bd)


@_jit(do_not_specialize=['B', 'T', 'FIRST'])
def lstm_team_backward_kernel(
    p_R_z, p_R_i, p_R_f, p_R_o, p_d_h_T, p_d_c_T, p_c_in, p_before_f, p_before_i, p_before_z, p_before_o, p_d_h,
    p_dx_z_all, p_dx_i_all, p_dx_f_all, p_dx_o_all, p_met, p_d_x_o, p_d_x_f, p_d_x_i, p_d_x_z, p_d_h_0, p_d_c_0,
    p_cu_seqlens, B, T, FIRST, H: tl.constexpr, D: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr,
    BD_ALL: tl.constexpr, STEP: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, PARTS: tl.constexpr,
    HELD: tl.constexpr, AT_ONCE: tl.constexpr,
):
    """All gradients, from the last step to the first, by several programs for each head."""
    NB = tl.cdiv(B, BB) if p_cu_seqlens is None else B
    ND: tl.constexpr = (D + BD - 1) // BD
    i_p = tl.program_id(0).to(tl.int64) + FIRST
    i_b, i_h, i_d = i_p // (H * ND), i_p // ND % H, i_p % ND
    ND_ALL: tl.constexpr = (D + BD_ALL - 1) // BD_ALL
    o_b = i_b * (BB if p_cu_seqlens is None else 1) + tl.arange(0, BB)
    first, T = sequences(p_cu_seqlens, i_b, o_b, T, STEP)
    held_R_z = ()
    held_R_i = ()
    held_R_f = ()
    held_R_o = ()
    at_h_d_all_d = i_h * D * D
    o_d = (i_d * BD).to(tl.int32) + tl.arange(0, BD)
    m_d = (o_d < D) | (D % BD == 0)
    for i_d_all in tl.static_range(min(HELD, ND_ALL)):
        o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
        o_h_d_all_d = o_d_all[:, None, :] * D + o_d[None, :, None]
        m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
        m_d_d_all = m_d[None, :, None] & m_d_all[:, None, :]
        held_R_z = held_R_z + (tl.load(p_R_z + at_h_d_all_d + o_h_d_all_d, mask=m_d_d_all, other=0.0).to(DOT),)
        held_R_i = held_R_i + (tl.load(p_R_i + at_h_d_all_d + o_h_d_all_d, mask=m_d_d_all, other=0.0).to(DOT),)
        held_R_f = held_R_f + (tl.load(p_R_f + at_h_d_all_d + o_h_d_all_d, mask=m_d_d_all, other=0.0).to(DOT),)
        held_R_o = held_R_o + (tl.load(p_R_o + at_h_d_all_d + o_h_d_all_d, mask=m_d_d_all, other=0.0).to(DOT),)
    at_hd = i_h * D
    o_bhd = o_b[:, None] * (H * D) + o_d[None, :]
    m_b = o_b < (B if p_cu_seqlens is None else i_b + 1)
    m_bd = m_b[:, None] & m_d[None, :]
    b_dh = tl.load(p_d_h_T + at_hd + o_bhd, mask=m_bd, other=0.0).to(tl.float32)
    b_dc = tl.load(p_d_c_T + at_hd + o_bhd, mask=m_bd, other=0.0).to(tl.float32)
    i_start = T - 1
    at_nhd = (STEP * i_start * H + i_h) * D
    o_bnhd = first[:, None] * (H * D) + o_d[None, :]
    n_c = tl.load(p_c_in + at_nhd + o_bnhd, mask=m_bd & (T > 0), other=0.0)
    n_before_f = tl.load(p_before_f + at_nhd + o_bnhd, mask=m_bd & (T > 0), other=0.0)
    n_before_i = tl.load(p_before_i + at_nhd + o_bnhd, mask=m_bd & (T > 0), other=0.0)
    n_before_z = tl.load(p_before_z + at_nhd + o_bnhd, mask=m_bd & (T > 0), other=0.0)
    n_before_o = tl.load(p_before_o + at_nhd + o_bnhd, mask=m_bd & (T > 0), other=0.0)
    n_dh = tl.load(p_d_h + at_nhd + o_bnhd, mask=m_bd & (T > 0), other=0.0)
    for i_t in range(T - 1, -1, -1):
        b_c = n_c.to(tl.float32)
        b_before_f = n_before_f.to(tl.float32)
        b_before_i = n_before_i.to(tl.float32)
        b_before_z = n_before_z.to(tl.float32)
        b_before_o = n_before_o.to(tl.float32)
        b_dh_1 = n_dh.to(tl.float32)
        # o = sigmoid(x_o + R_o @ h[t-1])
        b_o = sigmoid(b_before_o)
        # f = sigmoid(x_f + R_f @ h[t-1])
        b_f = sigmoid(b_before_f)
        # i = sigmoid(x_i + R_i @ h[t-1])
        b_i = sigmoid(b_before_i)
        # z = tanh(x_z + R_z @ h[t-1])
        b_z = tanh(b_before_z)
        # c = f * c[t-1] + i * z
        b_c_1 = b_f * b_c + b_i * b_z
        b_x = b_dh_1 + b_dh
        b_tanh_c_1 = tanh(b_c_1)
        b_x_1 = b_dc + b_x * b_o * (1.0 - b_tanh_c_1 * b_tanh_c_1)
        b_dx_z = b_x_1 * b_i * (1.0 - b_z * b_z)
        b_dx_i = b_x_1 * b_z * b_i * (1.0 - b_i)
        b_dx_f = b_x_1 * b_c * b_f * (1.0 - b_f)
        b_dx_o = b_x * b_tanh_c_1 * b_o * (1.0 - b_o)
        at_2hd = (i_t % 2 * B * H + i_h) * D
        tl.store(p_dx_z_all + at_2hd + o_bhd, b_dx_z, mask=m_bd)
        tl.store(p_dx_i_all + at_2hd + o_bhd, b_dx_i, mask=m_bd)
        tl.store(p_dx_f_all + at_2hd + o_bhd, b_dx_f, mask=m_bd)
        tl.store(p_dx_o_all + at_2hd + o_bhd, b_dx_o, mask=m_bd)
        meet(p_met + i_p // ND, (T - 1 - i_t + 1) * ND)
        b_dh_2 = tl.zeros((PARTS, BB, BD), tl.float32)
        for i_some in tl.static_range(0, ND_ALL, AT_ONCE):
            b_dx_z_all = ()
            for i_d_all in tl.static_range(i_some, min(i_some + AT_ONCE, ND_ALL)):
                o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
                o_b2_h_d_all = o_b[None, :, None] * (H * D) + o_d_all[:, None, :]
                m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
                m_b_d_all = m_b[None, :, None] & m_d_all[:, None, :]
                b_dx_z_all = b_dx_z_all + (tl.load(p_dx_z_all + at_2hd + o_b2_h_d_all, mask=m_b_d_all, other=0.0, cache_modifier=".cg").to(DOT),)
            b_dx_i_all = ()
            for i_d_all in tl.static_range(i_some, min(i_some + AT_ONCE, ND_ALL)):
                o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
                o_b2_h_d_all_1 = o_b[None, :, None] * (H * D) + o_d_all[:, None, :]
                m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
                m_b_d_all_1 = m_b[None, :, None] & m_d_all[:, None, :]
                b_dx_i_all = b_dx_i_all + (tl.load(p_dx_i_all + at_2hd + o_b2_h_d_all_1, mask=m_b_d_all_1, other=0.0, cache_modifier=".cg").to(DOT),)
            for i_d_all in tl.static_range(i_some, min(i_some + AT_ONCE, ND_ALL)):
                if i_d_all < HELD:
                    b_R_z = held_R_z[i_d_all]
                else:
                    o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
                    o_h_d_all_d_1 = o_d_all[:, None, :] * D + o_d[None, :, None]
                    m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
                    m_d_d_all_1 = m_d[None, :, None] & m_d_all[:, None, :]
                    b_R_z = tl.load(p_R_z + at_h_d_all_d + o_h_d_all_d_1, mask=m_d_d_all_1, other=0.0).to(DOT)
                b_dh_2 = tl.dot(b_dx_z_all[i_d_all - i_some].to(DOT), tl.permute(b_R_z.to(DOT), (0, 2, 1)), b_dh_2, input_precision=PRECISION)
            b_dx_f_all = ()
            for i_d_all in tl.static_range(i_some, min(i_some + AT_ONCE, ND_ALL)):
                o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
                o_b2_h_d_all_2 = o_b[None, :, None] * (H * D) + o_d_all[:, None, :]
                m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
                m_b_d_all_2 = m_b[None, :, None] & m_d_all[:, None, :]
                b_dx_f_all = b_dx_f_all + (tl.load(p_dx_f_all + at_2hd + o_b2_h_d_all_2, mask=m_b_d_all_2, other=0.0, cache_modifier=".cg").to(DOT),)
            for i_d_all in tl.static_range(i_some, min(i_some + AT_ONCE, ND_ALL)):
                if i_d_all < HELD:
                    b_R_i = held_R_i[i_d_all]
                else:
                    o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
                    o_h_d_all_d_2 = o_d_all[:, None, :] * D + o_d[None, :, None]
                    m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
                    m_d_d_all_2 = m_d[None, :, None] & m_d_all[:, None, :]
                    b_R_i = tl.load(p_R_i + at_h_d_all_d + o_h_d_all_d_2, mask=m_d_d_all_2, other=0.0).to(DOT)
                b_dh_2 = tl.dot(b_dx_i_all[i_d_all - i_some].to(DOT), tl.permute(b_R_i.to(DOT), (0, 2, 1)), b_dh_2, input_precision=PRECISION)
            b_dx_o_all = ()
            for i_d_all in tl.static_range(i_some, min(i_some + AT_ONCE, ND_ALL)):
                o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
                o_b2_h_d_all_3 = o_b[None, :, None] * (H * D) + o_d_all[:, None, :]
                m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
                m_b_d_all_3 = m_b[None, :, None] & m_d_all[:, None, :]
                b_dx_o_all = b_dx_o_all + (tl.load(p_dx_o_all + at_2hd + o_b2_h_d_all_3, mask=m_b_d_all_3, other=0.0, cache_modifier=".cg").to(DOT),)
            for i_d_all in tl.static_range(i_some, min(i_some + AT_ONCE, ND_ALL)):
                if i_d_all < HELD:
                    b_R_f = held_R_f[i_d_all]
                else:
                    o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
                    o_h_d_all_d_3 = o_d_all[:, None, :] * D + o_d[None, :, None]
                    m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
                    m_d_d_all_3 = m_d[None, :, None] & m_d_all[:, None, :]
                    b_R_f = tl.load(p_R_f + at_h_d_all_d + o_h_d_all_d_3, mask=m_d_d_all_3, other=0.0).to(DOT)
                b_dh_2 = tl.dot(b_dx_f_all[i_d_all - i_some].to(DOT), tl.permute(b_R_f.to(DOT), (0, 2, 1)), b_dh_2, input_precision=PRECISION)
            for i_d_all in tl.static_range(i_some, min(i_some + AT_ONCE, ND_ALL)):
                if i_d_all < HELD:
                    b_R_o = held_R_o[i_d_all]
                else:
                    o_d_all = in_parts(i_d_all, BD_ALL, PARTS)
                    o_h_d_all_d_4 = o_d_all[:, None, :] * D + o_d[None, :, None]
                    m_d_all = (o_d_all < D) | (D % BD_ALL == 0)
                    m_d_d_all_4 = m_d[None, :, None] & m_d_all[:, None, :]
                    b_R_o = tl.load(p_R_o + at_h_d_all_d + o_h_d_all_d_4, mask=m_d_d_all_4, other=0.0).to(DOT)
                b_dh_2 = tl.dot(b_dx_o_all[i_d_all - i_some].to(DOT), tl.permute(b_R_o.to(DOT), (0, 2, 1)), b_dh_2, input_precision=PRECISION)
        b_dh_2 = tl.sum(b_dh_2, 0)
        # gradient of x_o
        at_thd = (STEP * i_t * H + i_h) * D
        tl.store(p_d_x_o + at_thd + o_bnhd, b_dx_o, mask=m_bd)
        # gradient of x_f
        tl.store(p_d_x_f + at_thd + o_bnhd, b_dx_f, mask=m_bd)
        # gradient of x_i
        tl.store(p_d_x_i + at_thd + o_bnhd, b_dx_i, mask=m_bd)
        # gradient of x_z
        tl.store(p_d_x_z + at_thd + o_bnhd, b_dx_z, mask=m_bd)
        # cotangents of the states, for what comes before
        b_dc_1 = b_x_1 * b_f
        i_next = tl.maximum(i_t - 1, 0)
        at_nhd_1 = (STEP * i_next * H + i_h) * D
        n_c = tl.load(p_c_in + at_nhd_1 + o_bnhd, mask=m_bd, other=0.0)
        n_before_f = tl.load(p_before_f + at_nhd_1 + o_bnhd, mask=m_bd, other=0.0)
        n_before_i = tl.load(p_before_i + at_nhd_1 + o_bnhd, mask=m_bd, other=0.0)
        n_before_z = tl.load(p_before_z + at_nhd_1 + o_bnhd, mask=m_bd, other=0.0)
        n_before_o = tl.load(p_before_o + at_nhd_1 + o_bnhd, mask=m_bd, other=0.0)
        n_dh = tl.load(p_d_h + at_nhd_1 + o_bnhd, mask=m_bd, other=0.0)
        b_dh = b_dh_2
        b_dc = b_dc_1
    tl.store(p_d_h_0 + at_hd + o_bhd, b_dh, mask=m_bd)
    tl.store(p_d_c_0 + at_hd + o_bhd, b_dc, mask=m_bd)


def _needs_triton(io, D, BB=16):
    """By kernel: bytes of shared memory for the tiles that it keeps, and for one turn's loads. io: those of an element."""
    BD = _pad(D, 16)
    stays = 0 if torch.version.hip else 2 if io == 4 else 1  # what is kept from turn to turn: in registers on AMD, and of
    # fp32 both parts that three products in tf32 take
    return {
        "forward": (16 * BD * 2 * io + stays * BD * BD * 4 * io, 16 * BD * 4 * io),
        "infer": (16 * BD * 2 * io + stays * BD * BD * 4 * io, 16 * BD * 4 * io),
        "backward": (16 * BD * 2 * io + stays * BD * BD * 4 * io, 16 * BD * (5 * io + 4)),
        "team_forward": (16 * BB * 16, max(stays, 1) * BB * min(BD, _COLUMNS) * io, stays * 16 * min(BD, _COLUMNS) * 4 * io, stays * 16 * min(BD, _COLUMNS) * 4 * io),
        "team_infer": (16 * BB * 16, max(stays, 1) * BB * min(BD, _COLUMNS) * io, stays * 16 * min(BD, _COLUMNS) * 4 * io, stays * 16 * min(BD, _COLUMNS) * 4 * io),
        "team_backward": (16 * BB * 16, max(stays, 1) * BB * min(BD, _COLUMNS) * 2 * io, stays * 16 * min(BD, _COLUMNS) * 4 * io, stays * 16 * min(BD, _COLUMNS) * 2 * io),
    }


def _stages(kernel, most, x, D):
    """How many turns' loads a kernel may have in flight: as many as fit beside what it keeps."""
    kept, loads = _needs_triton(x.element_size(), D)[kernel]
    return max(1, min(most, (_room(x.device) - kept) // max(loads, 1)))


_READY = {}  # device, dtype, sizes and whether no gradient follows -> whether the kernels fit


def _ready_triton(x, D, alone=False):
    """Whether the kernels' tiles fit the device at these sizes: all of them, or those that a call takes where no gradient
    follows. It is asked at every call, and remembers."""
    D = int(D)
    key = x.device, x.dtype, D, alone
    if key not in _READY:
        room, needs = _room(x.device), _needs_triton(x.element_size(), D)
        kernels = ("infer",) if alone else [k for k in needs if k not in ("team_forward", "team_infer", "team_backward")]
        need = max((_least_triton(k, needs, x, D) for k in kernels), default=0)
        _READY[key] = need <= room
        if need > room and not alone:
            warnings.warn(
                f"lstm: with D = {D} a program of the Triton kernels needs {need} bytes of shared memory, and may have "
                f"{room} on {x.device}: plain torch runs. Kernels for such sizes alone, or what stands against them: "
                f"seqc compile SPEC --dim D={D}",
                stacklevel=2,
            )
    return _READY[key]


_COLUMNS = 256  # units of a piece of what all programs of a team have


def _machine(device):
    """(multiprocessors, bytes of shared memory of one, registers of one); of an NVIDIA H100 SXM where there is none to ask."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return 132, 233472, 65536
    told = torch.cuda.get_device_properties(device)
    shared = getattr(told, "shared_memory_per_multiprocessor", 0)
    return told.multi_processor_count, shared, getattr(told, "regs_per_multiprocessor", 65536)


def _alone_triton(kernel, x, D):
    """Whether one program has room for what a kernel keeps of a head."""
    return sum(_needs_triton(x.element_size(), D)[kernel]) <= _room(x.device)


def _held_triton(kernel, x, D, each=16):
    """(pieces of its matrices that a program of a team holds, pieces of what it is told that it takes at once, bytes of shared
    memory, programs of a multiprocessor), or None where the device has no room for -(-D // 16) programs at once.

    How many a multiprocessor runs follows from the shared memory that the kernel needs by the tile model, and from the most
    registers that 128 threads have; on AMD it is one. Only a program that has one for itself may read again in every step
    what it has no room for.
    """
    units, shared, registers = _machine(x.device)
    kept, told, held, again = _needs_triton(x.element_size(), D, each)[kernel]
    pieces, found = -(-D // _COLUMNS), None
    share = -(-(-(-D // 16)) // units)
    if share > (1 if torch.version.hip else registers // 32768):
        return None
    room = min(_room(x.device), shared // share - 1024)
    for most in (4, 3, 2, 1):
        at_once = -(-pieces // -(-pieces // most))  # no less in the last turn than in the first
        passing = 256 + max(kept, at_once * told)  # sums of the warps' parts take the place of what was told
        rest = room - passing
        fit = pieces if rest >= pieces * held else (rest - again) // held if share == 1 else -1
        if fit >= 0 and (found is None or fit > found[0]):
            need = passing + fit * held + (again if fit < pieces else 0)
            many = 1 if torch.version.hip else max(1, min(shared // (need + 1024), registers // 32768))
            found = fit, at_once, need, many if fit == pieces else 1
    return found


def _team_triton(kernel, x, B, heads, D, packed):
    """(sequences of a program, programs of a launch, pieces that it holds, pieces that it takes at once) of a kernel whose
    programs wait for each other, -(-D // 16) for each head: all programs of a launch run at once. A program takes more sequences if
    fewer launches do, and it holds as much then."""
    found, least = None, None
    for each in (16,) if packed or kernel == "team_backward" else (16, 32):
        held = _held_triton(kernel, x, D, each)
        if held is None or (found is not None and held[0] < found[2]):
            break
        many = _machine(x.device)[0] * held[3]
        many -= many % (-(-D // 16))
        launches = -(-(B if packed else -(-B // each)) * heads * (-(-D // 16)) // many)
        if found is None or launches < least:
            found, least = (each, many, *held[:2]), launches
    return found


def _least_triton(kernel, needs, x, D):
    """Bytes of shared memory of a program that does a kernel's work by itself, or as one of a team that the device holds."""
    alone, team = sum(needs[kernel]), _held_triton("team_" + kernel, x, D)
    return alone if team is None else min(alone, team[2])


def _forward_triton(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, *, cu_seqlens=None, reverse=False):
    """Outputs, final states, and what the gradient needs."""
    B, T, H, D = x_i.shape
    B, _, _, empty, cu_seqlens = _extents(B, T, 1, cu_seqlens)
    STEP = -1 if reverse else 1
    DOT, PRECISION = _types(x_i, x_f, x_z, x_o)
    h_in = torch.empty((*x_i.shape[:2], H, D), dtype=torch.float32, device=x_i.device)
    c_in = torch.empty((*x_i.shape[:2], H, D), dtype=torch.float32, device=x_i.device)
    h = empty((*x_i.shape[:2], H, D), dtype=x_i.dtype, device=x_i.device)
    before_f = torch.empty((*x_i.shape[:2], H, D), dtype=x_i.dtype, device=x_i.device)
    before_i = torch.empty((*x_i.shape[:2], H, D), dtype=x_i.dtype, device=x_i.device)
    before_z = torch.empty((*x_i.shape[:2], H, D), dtype=x_i.dtype, device=x_i.device)
    before_o = torch.empty((*x_i.shape[:2], H, D), dtype=x_i.dtype, device=x_i.device)
    h_T = torch.empty((B, H, D), dtype=torch.float32, device=x_i.device)
    c_T = torch.empty((B, H, D), dtype=torch.float32, device=x_i.device)
    if _alone_triton("forward", x_i, D):
        BB = min(_pad(B, 16), 16)
        NB = B if cu_seqlens is not None else -(-B // BB)
        BD = _pad(D, 16)
        lstm_forward_kernel[(NB * H,)](
            R_o, R_f, R_i, R_z, h_0, c_0, h_in, c_in, x_o, x_f, x_i, x_z, h, before_f, before_i, before_z, before_o,
            h_T, c_T, cu_seqlens, B, T, H=H, D=D, BB=BB, BD=BD, STEP=STEP, DOT=DOT, PRECISION=PRECISION,
            STAGES=_stages("forward", 2, x_i, D), SAVE=True, num_warps=4, num_stages=_stages("forward", 2, x_i, D),
            enable_fp_fusion=True,
        )
    else:
        BB, many, HELD, AT_ONCE = _team_triton("team_forward", x_i, B, H, D, cu_seqlens is not None)
        NB = B if cu_seqlens is not None else -(-B // BB)
        BD, BD_ALL = 16, min(_pad(D, 16), _COLUMNS)
        h_all = torch.empty((2, B, H, D), dtype=x_i.dtype, device=x_i.device)
        met = torch.zeros(NB * H, dtype=torch.int32, device=x_i.device)
        for FIRST in range(0, NB * H * -(-D // BD), many):
            lstm_team_forward_kernel[(min(many, NB * H * -(-D // BD) - FIRST),)](
                R_o, R_f, R_i, R_z, h_0, c_0, h_all, met, x_o, x_f, x_i, x_z, h, h_in, c_in, before_f, before_i, before_z,
                before_o, h_T, c_T, cu_seqlens, B, T, FIRST, H=H, D=D, BB=BB, BD=BD, BD_ALL=BD_ALL, STEP=STEP, DOT=DOT,
                PRECISION=PRECISION, PARTS=1, HELD=HELD, AT_ONCE=AT_ONCE, SAVE=True, num_warps=4, num_stages=1,
                enable_fp_fusion=True, launch_cooperative_grid=x_i.device.type == "cuda",
            )
    return h, h_T, c_T, h_in, c_in, before_f, before_i, before_z, before_o


def _infer_triton(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, *, cu_seqlens=None, reverse=False):
    """Outputs and final states."""
    B, T, H, D = x_i.shape
    B, _, _, empty, cu_seqlens = _extents(B, T, 1, cu_seqlens)
    STEP = -1 if reverse else 1
    DOT, PRECISION = _types(x_i, x_f, x_z, x_o)
    h = empty((*x_i.shape[:2], H, D), dtype=x_i.dtype, device=x_i.device)
    h_T = torch.empty((B, H, D), dtype=torch.float32, device=x_i.device)
    c_T = torch.empty((B, H, D), dtype=torch.float32, device=x_i.device)
    if _alone_triton("infer", x_i, D):
        BB = min(_pad(B, 16), 16)
        NB = B if cu_seqlens is not None else -(-B // BB)
        BD = _pad(D, 16)
        lstm_forward_kernel[(NB * H,)](
            R_o, R_f, R_i, R_z, h_0, c_0, None, None, x_o, x_f, x_i, x_z, h, None, None, None, None, h_T, c_T,
            cu_seqlens, B, T, H=H, D=D, BB=BB, BD=BD, STEP=STEP, DOT=DOT, PRECISION=PRECISION,
            STAGES=_stages("infer", 2, x_i, D), SAVE=False, num_warps=4, num_stages=_stages("infer", 2, x_i, D),
            enable_fp_fusion=True,
        )
    else:
        BB, many, HELD, AT_ONCE = _team_triton("team_infer", x_i, B, H, D, cu_seqlens is not None)
        NB = B if cu_seqlens is not None else -(-B // BB)
        BD, BD_ALL = 16, min(_pad(D, 16), _COLUMNS)
        h_all = torch.empty((2, B, H, D), dtype=x_i.dtype, device=x_i.device)
        met = torch.zeros(NB * H, dtype=torch.int32, device=x_i.device)
        for FIRST in range(0, NB * H * -(-D // BD), many):
            lstm_team_forward_kernel[(min(many, NB * H * -(-D // BD) - FIRST),)](
                R_o, R_f, R_i, R_z, h_0, c_0, h_all, met, x_o, x_f, x_i, x_z, h, None, None, None, None, None, None, h_T,
                c_T, cu_seqlens, B, T, FIRST, H=H, D=D, BB=BB, BD=BD, BD_ALL=BD_ALL, STEP=STEP, DOT=DOT,
                PRECISION=PRECISION, PARTS=1, HELD=HELD, AT_ONCE=AT_ONCE, SAVE=False, num_warps=4, num_stages=1,
                enable_fp_fusion=True, launch_cooperative_grid=x_i.device.type == "cuda",
            )
    return h, h_T, c_T


def _backward_triton(
    x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, h_in, c_in, before_f, before_i, before_z, before_o, d_h,
    d_h_T, d_c_T, *, cu_seqlens=None, reverse=False, needs=(True,) * 10,
):
    """Gradients of every argument of forward."""
    B, T, H, D = x_i.shape
    B, _, _, empty, cu_seqlens = _extents(B, T, 1, cu_seqlens)
    STEP = -1 if reverse else 1
    DOT, PRECISION = _types(x_i, x_f, x_z, x_o)
    if _alone_triton("backward", x_i, D):
        BB = min(_pad(B, 16), 16)
        NB = B if cu_seqlens is not None else -(-B // BB)
        BD = _pad(D, 16)
        d_x_o = empty((*x_i.shape[:2], H, D), dtype=x_o.dtype, device=x_i.device)
        d_x_f = empty((*x_i.shape[:2], H, D), dtype=x_f.dtype, device=x_i.device)
        d_x_i = empty((*x_i.shape[:2], H, D), dtype=x_i.dtype, device=x_i.device)
        d_x_z = empty((*x_i.shape[:2], H, D), dtype=x_z.dtype, device=x_i.device)
        d_h_0 = torch.empty((B, H, D), dtype=torch.float32, device=x_i.device)
        d_c_0 = torch.empty((B, H, D), dtype=torch.float32, device=x_i.device)
        lstm_backward_kernel[(NB * H,)](
            R_z, R_i, R_f, R_o, d_h_T, d_c_T, c_in, before_f, before_i, before_z, before_o, d_h, d_x_o, d_x_f, d_x_i,
            d_x_z, d_h_0, d_c_0, cu_seqlens, B, T, H=H, D=D, BB=BB, BD=BD, STEP=STEP, DOT=DOT, PRECISION=PRECISION,
            STAGES=_stages("backward", 2, x_i, D), num_warps=4, num_stages=_stages("backward", 2, x_i, D),
            enable_fp_fusion=True,
        )
    else:
        BB, many, HELD, AT_ONCE = _team_triton("team_backward", x_i, B, H, D, cu_seqlens is not None)
        NB = B if cu_seqlens is not None else -(-B // BB)
        BD, BD_ALL = 16, min(_pad(D, 16), _COLUMNS)
        dx_z_all = torch.empty((2, B, H, D), dtype=x_i.dtype, device=x_i.device)
        dx_i_all = torch.empty((2, B, H, D), dtype=x_i.dtype, device=x_i.device)
        dx_f_all = torch.empty((2, B, H, D), dtype=x_i.dtype, device=x_i.device)
        dx_o_all = torch.empty((2, B, H, D), dtype=x_i.dtype, device=x_i.device)
        met = torch.zeros(NB * H, dtype=torch.int32, device=x_i.device)
        d_x_o = empty((*x_i.shape[:2], H, D), dtype=x_o.dtype, device=x_i.device)
        d_x_f = empty((*x_i.shape[:2], H, D), dtype=x_f.dtype, device=x_i.device)
        d_x_i = empty((*x_i.shape[:2], H, D), dtype=x_i.dtype, device=x_i.device)
        d_x_z = empty((*x_i.shape[:2], H, D), dtype=x_z.dtype, device=x_i.device)
        d_h_0 = torch.empty((B, H, D), dtype=torch.float32, device=x_i.device)
        d_c_0 = torch.empty((B, H, D), dtype=torch.float32, device=x_i.device)
        for FIRST in range(0, NB * H * -(-D // BD), many):
            lstm_team_backward_kernel[(min(many, NB * H * -(-D // BD) - FIRST),)](
                R_z, R_i, R_f, R_o, d_h_T, d_c_T, c_in, before_f, before_i, before_z, before_o, d_h, dx_z_all, dx_i_all,
                dx_f_all, dx_o_all, met, d_x_o, d_x_f, d_x_i, d_x_z, d_h_0, d_c_0, cu_seqlens, B, T, FIRST, H=H, D=D,
                BB=BB, BD=BD, BD_ALL=BD_ALL, STEP=STEP, DOT=DOT, PRECISION=PRECISION, PARTS=min(4, BD_ALL // 16),
                HELD=HELD, AT_ONCE=AT_ONCE, num_warps=4, num_stages=1, enable_fp_fusion=True, launch_cooperative_grid=x_i.device.type == "cuda",
            )
    if needs[4]:
        d_R_i = torch.einsum("abce,abcd->cde", h_in.float(), d_x_i.float())
    if needs[5]:
        d_R_f = torch.einsum("abce,abcd->cde", h_in.float(), d_x_f.float())
    if needs[6]:
        d_R_z = torch.einsum("abce,abcd->cde", h_in.float(), d_x_z.float())
    if needs[7]:
        d_R_o = torch.einsum("abce,abcd->cde", h_in.float(), d_x_o.float())
    return (
        d_x_i,
        d_x_f,
        d_x_z,
        d_x_o,
        d_R_i if needs[4] else None,
        d_R_f if needs[5] else None,
        d_R_z if needs[6] else None,
        d_R_o if needs[7] else None,
        d_h_0,
        d_c_0,
    )


def _step_triton(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0):
    """One step: a sequence of one."""
    h, h_T, c_T = _infer_triton(
        x_i.unsqueeze(1), x_f.unsqueeze(1), x_z.unsqueeze(1), x_o.unsqueeze(1), R_i, R_f, R_z, R_o, h_0, c_0
    )
    return h.squeeze(1), h_T, c_T


# ---------- from a call to the recurrence: the same in every file, but for names and numbers --------------------------


def _cast(x_i, x_f, x_z, x_o):
    """The inputs in the dtypes that the operators take."""
    try:
        main = x_i.dtype
        if (
            x_f.dtype != main
            or x_z.dtype != main
            or x_o.dtype != main
            or main not in _FLOATS
            or (x_i.device.type in _AUTOCAST and torch.is_autocast_enabled(x_i.device.type))
        ):
            return _fit(x_i, x_f, x_z, x_o)
    except AttributeError:  # one is no tensor
        raise _dtype_error(x_i=x_i, x_f=x_f, x_z=x_z, x_o=x_o) from None
    return x_i, x_f, x_z, x_o


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
            raise TypeError(f"lstm: {name} is {x.dtype}, {_INPUTS[0]} is {main}; inputs share a dtype")
    return inputs


def _dtype_error(**tensors):
    """The first tensor whose dtype is not served, as an error that says what to do."""
    name, x = next((name, x) for name, x in tensors.items() if getattr(x, "dtype", None) not in _FLOATS)
    if not isinstance(x, Tensor):
        kind = {"NoneType": "None", "ndarray": "an array of numpy"}.get(type(x).__name__, f"a {type(x).__name__}")
        help = {"ndarray": f": torch.from_numpy({name})", "list": f": torch.tensor({name})"}.get(type(x).__name__, "")
        return TypeError(f"lstm: {name} is {kind}; it is a tensor [{_AXES[name].replace(' ', ', ')}]{help}")
    dtype = x.dtype
    what = "inputs" if name in _INPUTS else "initial states" if name.endswith("_0") else "parameters"
    if dtype.is_complex:
        help = "give real and imaginary parts as arguments of their own (x.real, x.imag)"
    elif dtype.is_floating_point:
        help = "convert it first, with its scale: x.to(torch.bfloat16)"
    else:
        help = "convert it first: x.to(torch.float32)"
    kinds = f"{what} are floating-point numbers of 64, 32 or 16 bits"
    return TypeError(f"lstm: {name} is {dtype}; {kinds}: {help}")


def _to_carry(name, x, carry):
    """An initial state in the dtype that states have."""
    if x.dtype not in _FLOATS:
        raise _dtype_error(**{name: x})
    return x.to(carry)


_FLOATS = frozenset((torch.float64, torch.float32, torch.bfloat16, torch.float16))
_INPUTS = tuple("x_i x_f x_z x_o".split())
_GATES = frozenset("".split())


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
    lstm = _named(lstm)
    LSTM.__init__ = _named(LSTM.__init__)
    LSTM.__call__ = _named(LSTM.forward, True)


def _along(axis, cu_seqlens, reverse, *tensors):
    """The call whose steps lie along one of the axes before the dims; the others are batch, by views if possible."""
    main = tensors[0]
    count = main.dim() - 2
    if not -count <= axis < count:
        raise ValueError(f"lstm: axis is {axis}; x_i has {count} axes before its dims: {list(main.shape)}")
    lead, axis = main.shape[:count], axis % count
    batch = (*lead[:axis], *lead[axis + 1 :])
    given = {}
    for x, (name, axes) in zip(tensors, _AXES.items(), strict=True):
        own, *dims = axes.split() or [""]
        if x is not None and own == "B" and (cu_seqlens is None or dims[:1] == ["T"]):
            ahead, dims = (lead, dims[1:]) if dims[:1] == ["T"] else (batch, dims)
            if x.dim() != len(ahead) + len(dims) or x.shape[: len(ahead)] != ahead:
                want, why = ", ".join([*map(str, ahead), *dims]), f"axis {axis} of x_i has the steps"
                raise ValueError(f"lstm: {name} has shape {list(x.shape)} for [{want}]; {why}")
            x = x.movedim(axis, count - 1) if ahead is lead else x
            x = x.reshape((math.prod(batch), *x.shape[len(batch) :]))
        given[name] = x
    results = lstm(**given, cu_seqlens=cu_seqlens, reverse=reverse)
    outputs = [o.reshape((*batch, *o.shape[1:])).movedim(count - 1, axis) for o in results[:1]]
    states = results[1:]
    if cu_seqlens is None:
        states = [s.reshape((*batch, *s.shape[1:])) for s in states]
    return LSTMResult(*outputs, *states)


def _in_pieces(every, axis, cu_seqlens, reverse, /, **given):
    """The call in pieces of `every` steps, each from the states that the last one left."""
    main, packed = given["x_i"], cu_seqlens is not None
    count = main.dim() - 2
    at = 1 if axis is None else axis % count
    if every < 1:
        raise ValueError(f"lstm: states_every is {every}; states are kept after every so many steps, 1 or more")
    if axis is not None and (packed or not -count <= axis < count):
        why = "states_every of a pack takes none" if packed else f"x_i has {count} axes before its dims"
        raise ValueError(f"lstm: axis is {axis}; {why}")
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
        own, cuts = {x: given[x] for x in "x_i x_f x_z x_o".split() if given[x] is not None}, None
        if packed:
            places.append(torch.cat([torch.arange(*row, device=main.device) for row in rows or [(0, 0)]]))
            own = {name: x.index_select(1, places[-1]) for name, x in own.items()}
            sizes = torch.tensor([0] + [high - low for low, high in rows], device=main.device)
            cuts = sizes.cumsum(0).to(cu_seqlens.dtype)
        else:
            own = {name: x.narrow(at, rows[0][0], rows[0][1] - rows[0][0]) for name, x in own.items()}
        result = lstm(**given | own, cu_seqlens=cuts, reverse=reverse, axis=axis)
        given |= dict(zip(("h_0", "c_0"), result[1:]))
        results.append(result)
        kept.append([i for i, size in enumerate(lengths) if start + every <= size])
    whole = []
    for parts in zip(*(result[:1] for result in results)):
        joined = torch.cat(parts[::-1] if last and not packed else parts, at)
        if packed:
            joined = joined.new_zeros(1, main.shape[1], *joined.shape[2:]).index_copy(1, torch.cat(places), joined)
        whole.append(joined)
    found = LSTMStates(*whole, *results[-1][1:])
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
        raise RuntimeError(f"lstm_step: {why}")
    places = list(result if into is None else into)
    if inplace:
        places[1:] = [y if x is None else x for x, y in zip(given, places[1:], strict=True)]
    for place, x in zip(places, result, strict=True):
        if place.shape != x.shape or place.dtype != x.dtype:
            said = f"{list(place.shape)} of {place.dtype}, and the step gives {list(x.shape)} of {x.dtype}"
            raise ValueError(f"lstm_step: a tensor to write has shape {said}")
    if len(set(map(id, places))) < len(places):
        raise ValueError("lstm_step: one tensor is to be written twice: give every state its own")
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


@_jit
def expm1(x):
    """exp(x) - 1 without cancellation: for |x| <= 1/2 its Taylor polynomial of degree 9."""
    near = tl.abs(x) <= 0.5
    u = tl.where(near, x, 0.0)
    series = 1.0 / 40320.0 + u * (1.0 / 362880.0)
    series = 1.0 / 720.0 + u * (1.0 / 5040.0 + u * series)
    series = 1.0 / 24.0 + u * (1.0 / 120.0 + u * series)
    series = 0.5 + u * (1.0 / 6.0 + u * series)
    return tl.where(near, u + u * u * series, tl.exp(x) - 1.0)


@_jit
def sigmoid(x):
    """1 / (1 + exp(-x)) with the exponent kept <= 0, so that small values keep their relative accuracy."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@_jit
def tanh(x):
    """tanh from expm1(-2 |x|), which never overflows and is accurate for tiny x."""
    e = expm1(-2.0 * tl.abs(x))
    t = -e / (2.0 + e)
    return tl.where(x < 0, -t, t)


@_jit
def meet(p_met, count):
    """Wait until the programs of the team have come here `count` times, all together. What each of them stored before is then
    seen by all: the counter is raised once the program's threads have stored, and read again until it is high enough."""
    tl.debug_barrier()
    tl.atomic_add(p_met, 1, sem="release", scope="gpu")
    met = tl.atomic_add(p_met, 0, sem="acquire", scope="gpu")
    while met < count:
        met = tl.atomic_add(p_met, 0, sem="acquire", scope="gpu")
    tl.debug_barrier()


@_jit
def in_parts(i, LENGTH: tl.constexpr, PARTS: tl.constexpr):
    """[PARTS, LENGTH / PARTS], the positions of the i-th piece of a dim: of a product each warp takes one part."""
    EACH: tl.constexpr = LENGTH // PARTS
    return i * LENGTH + tl.arange(0, PARTS)[:, None] * EACH + tl.arange(0, EACH)[None, :]


@_jit
def four_as_one(a, b, c, d):
    """Four matrices [1, M, K] below each other: [4 M, K]."""
    both = tl.join(tl.join(a, c), tl.join(b, d))  # [1, M, K, 2, 2]
    return tl.reshape(tl.permute(both, (3, 4, 0, 1, 2)), (4 * a.shape[1], a.shape[2]))


@_jit
def one_as_four(x):
    """Four matrices [N, M] from the transposed ones below each other, [4 M, N]."""
    a_c, b_d = tl.split(tl.permute(tl.reshape(x, (2, 2, x.shape[0] // 4, x.shape[1])), (3, 2, 0, 1)))
    a, c = tl.split(a_c)
    b, d = tl.split(b_d)
    return a, b, c, d


@_jit
def sequences(p_cu_seqlens, i_b, o_b, T, STEP: tl.constexpr):
    """`sequence` of each of the sequences o_b of a program; of a pack a program has the one, i_b."""
    if p_cu_seqlens is None:
        first = o_b * T
    else:
        first = tl.load(p_cu_seqlens + i_b).to(tl.int64) + 0 * o_b
        T = (tl.load(p_cu_seqlens + i_b + 1) - tl.load(p_cu_seqlens + i_b)).to(tl.int32)
    if STEP < 0:
        first += T - 1
    return first, T


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
_ARGUMENTS = "TTTT----BB"
_RESULTS = "TBB"


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
                return [*_turned(results, _RESULTS, reverse), *(results[3:] if saves else ())]
            results = [*_fake_run(*tensors, cu_seqlens, reverse)[:1], *(s.clone() for s in tensors[8:])]
            for part in _each(cu_seqlens):
                found = function(*_copies(tensors, _ARGUMENTS, part, reverse))
                for whole, own in zip(_parts(results, _RESULTS, *part), _turned(found, _RESULTS, reverse)):
                    whole.copy_(own)
            return results

        return call

    def run_back(*everything, cu_seqlens, reverse, needs):
        tensors, saved, cotangents = everything[:10], everything[10:-3], everything[-3:]
        if cu_seqlens is None:
            turned = _turned(tensors, _ARGUMENTS, reverse), _turned(cotangents, _RESULTS, reverse)
            return _turned(backward(*turned[0], *saved, *turned[1], needs=needs), _ARGUMENTS, reverse)
        gradients = [torch.zeros_like(x) for x in tensors[:8]] + [d.clone() for d in cotangents[1:]]
        for part in _each(cu_seqlens):
            own = _copies(tensors, _ARGUMENTS, part, reverse)
            ends = _copies(cotangents, _RESULTS, part, reverse)
            found = _turned(backward(*own, *forward(*own)[3:], *ends, needs=needs), _ARGUMENTS, reverse)
            for whole, x, kind in zip(_parts(gradients, _ARGUMENTS, *part), found, _ARGUMENTS):
                if x is not None:
                    whole.add_(x) if kind == "-" else whole.copy_(x)
        return gradients

    return run(infer, False), run(forward, True), run_back


def _saved_torch(packed, B, T, H, D, io, carry):
    """Shapes and dtypes of what forward saves: h_all, c_all; nothing of a pack, which runs again."""
    if packed:
        return []
    return [((T + 1, B, H, D), carry), ((T + 1, B, H, D), carry)]


def _saved_triton(packed, B, T, H, D, io, carry):
    """Shapes and dtypes of what forward saves: h_in, c_in, before_f, before_i, before_z, before_o."""
    if packed:
        return [
            ((1, T, H, D), carry),
            ((1, T, H, D), carry),
            ((1, T, H, D), io),
            ((1, T, H, D), io),
            ((1, T, H, D), io),
            ((1, T, H, D), io),
        ]
    return [
        ((B, T, H, D), carry),
        ((B, T, H, D), carry),
        ((B, T, H, D), io),
        ((B, T, H, D), io),
        ((B, T, H, D), io),
        ((B, T, H, D), io),
    ]


def _prepare_triton(carry, *tensors):
    """The kernels read tensors as they are stored; this is where Triton is first needed."""
    _load_triton()
    return [x.contiguous() for x in tensors]


_TORCH = _Form(_prepare_torch, *_one_by_one(_forward_torch, _forward_torch, _backward_torch), _saved_torch, _step_torch)
_TRITON = _Form(_prepare_triton, _infer_triton, _forward_triton, _backward_triton, _saved_triton, _step_triton)


def _form(*tensors):
    """The form that runs on some arguments, of a sequence or of one step: the one place where it is chosen."""
    x = tensors[0]
    if x.device.type == "cuda" and x.dtype != torch.float64 and _ready_triton(x, x.shape[-1]):
        return _TRITON
    return _TORCH


def _form_alone(*tensors):
    """The form where no gradient follows: kernels of forward may fit where those of backward do not."""
    x = tensors[0]
    if x.device.type == "cuda" and x.dtype != torch.float64 and _ready_triton(x, x.shape[-1], alone=True):
        return _TRITON
    return _form(*tensors)


# ---------- the torch operators ---------------------------------------------------------------------------------------

_AXES = {
    "x_i": "B T H D",
    "x_f": "B T H D",
    "x_z": "B T H D",
    "x_o": "B T H D",
    "R_i": "H D D",
    "R_f": "H D D",
    "R_z": "H D D",
    "R_o": "H D D",
    "h_0": "B H D",
    "c_0": "B H D",
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
            return ValueError(f"lstm: {name} has shape {shape}; its axes are [{', '.join(axes)}]")
        for axis, size in zip(axes, shape):
            told, by = sizes.setdefault(axis, (size, name))
            if told != size:
                want = ", ".join(axes)
                why = f"{axis} is {size} here and {told} in {by}"
                return ValueError(f"lstm: {name} has shape {shape} for [{want}]; {why}")
    return ValueError(f"lstm: shapes disagree: {_AXES}")


CHECK_BOUNDS = False  # whether the bounds of packs on a GPU are read and checked too: a call then waits for it


def _sequences(cu_seqlens, x):
    """The number of sequences of the pack x [1, T, ...]; an error where `cu_seqlens` cannot be its bounds."""
    if not isinstance(cu_seqlens, torch.Tensor):
        kind = type(cu_seqlens).__name__
        raise TypeError(f"lstm: cu_seqlens is a {kind}; it is a tensor: torch.tensor({cu_seqlens})")
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"lstm: cu_seqlens is {cu_seqlens.dtype}; it is torch.int32 or torch.int64")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] == 0:
        shape = list(cu_seqlens.shape)
        raise ValueError(f"lstm: cu_seqlens has shape {shape}; for N sequences it is [N + 1]: their bounds")
    if cu_seqlens.device != x.device:
        raise ValueError(f"lstm: cu_seqlens is on {cu_seqlens.device}, the inputs are on {x.device}")
    if x.shape[0] != 1:
        why = "with cu_seqlens the sequences stand one after the other in one row"
        raise ValueError(f"lstm: the inputs have B = {x.shape[0]}; {why}: [1, T, ...]")
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
        raise ValueError(f"lstm: cu_seqlens is {cu_seqlens}; {want}")
    return bounds[-1]


def _sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, cu_seqlens):
    """Sizes of the dims B, T, H, D; ValueError where shapes disagree."""
    if x_i.dim() != 4:
        raise _shape_error(True, cu_seqlens, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o)
    B, T, H, D = x_i.shape
    if (
        not x_f.shape == x_z.shape == x_o.shape == (B, T, H, D)
        or not R_i.shape == R_f.shape == R_z.shape == R_o.shape == (H, D, D)
    ):
        raise _shape_error(True, cu_seqlens, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o)
    if cu_seqlens is not None:
        B = _sequences(cu_seqlens, x_i)
    return B, T, H, D


def _step_sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o):
    """Sizes of the dims B, H, D; ValueError where shapes disagree."""
    if x_i.dim() != 3:
        raise _shape_error(False, None, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o)
    B, H, D = x_i.shape
    if (
        not x_f.shape == x_z.shape == x_o.shape == (B, H, D)
        or not R_i.shape == R_f.shape == R_z.shape == R_o.shape == (H, D, D)
    ):
        raise _shape_error(False, None, x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o)
    return B, H, D


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


def _fake_run(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0, cu_seqlens, reverse):
    """What `run` returns, all zeros: for tracing, and for a sequence of no steps."""
    B, T, H, D = _sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, cu_seqlens)
    return (
        x_i.new_zeros((*x_i.shape[:2], H, D)),
        x_i.new_zeros((B, H, D), dtype=_carry(x_i)),
        x_i.new_zeros((B, H, D), dtype=_carry(x_i)),
    )


def _fake_forward(*arguments):
    """What `forward` returns, all zeros."""
    x, cu_seqlens, form = arguments[0], arguments[10], _form(*arguments[:10])
    saved = form.saved(cu_seqlens is not None, *_sizes(*arguments[:8], cu_seqlens), x.dtype, _carry(x))
    return *_fake_run(*arguments), [x.new_zeros(shape, dtype=dtype) for shape, dtype in saved]


def _asked(needs, values):
    """Those of the values, one for each gradient, whose gradient is asked for."""
    return [x for need, x in zip(needs, values, strict=True) if need]


def _fake_backward(*arguments):
    """What `backward` returns, all zeros."""
    return [x.new_zeros(x.shape) for x in _asked(arguments[13], arguments[:10])]


@_autocast_off
def _run(*arguments):
    """Operator `run`: h, h_T, c_T."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[0]
    _steps(cu_seqlens, tensors[0])  # raises where they are no bounds
    form, carry = _form_alone(*tensors), _carry(x)
    if 0 in x.shape[:2]:
        return [*_fake_run(*arguments)[:1], *(_copy(s, carry) for s in tensors[8:])]
    results = form.infer(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    return [*(_dense(o, x.dtype) for o in results[:1]), *(_dense(s, carry) for s in results[1:])]


@_autocast_off
def _forward(*arguments):
    """Operator `forward`: h, h_T, c_T, and a list of what backward needs."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[0]
    _steps(cu_seqlens, tensors[0])  # raises where they are no bounds
    form, carry = _form(*tensors), _carry(x)
    if 0 in x.shape[:2]:
        return *_run(*arguments), _fake_forward(*arguments)[-1]
    results = form.forward(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    outputs, states, saved = results[:1], results[1:3], results[3:]
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
    starts = zip(states, arguments[8:10], strict=True)
    return [*outputs, *(torch.zeros_like(s, dtype=carry) if d is None else d for d, s in starts)]


@_autocast_off
def _backward(*arguments):
    """Operator `backward`: of the gradients of x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0 those that are asked for.

    needs: which are, for each; a cotangent that is not there is zero.
    """
    tensors, (cu_seqlens, reverse, saved, needs) = arguments[:10], arguments[10:14]
    cotangents = whole = arguments[14:]
    x = tensors[0]
    _steps(cu_seqlens, tensors[0])  # raises where they are no bounds
    form, carry = _form(*tensors), _carry(x)
    if any(d is None for d in cotangents):
        whole = _filled(cotangents, carry, *arguments[:12])
    if 0 in x.shape[:2]:
        final = zip(tensors[8:], whole[1:], strict=True)
        gradients = [torch.zeros_like(x) for x in tensors[:8]]
        return _asked(needs, [*gradients, *(_copy(d, s.dtype) for s, d in final)])
    everything = *form.prepare(carry, *tensors), *saved, *form.prepare(carry, *whole)
    gradients = _asked(needs, form.backward(*everything, cu_seqlens=cu_seqlens, reverse=reverse, needs=needs))
    if _spoilt(gradients, cotangents):
        gradients = _apart(tensors, cu_seqlens, reverse, needs, cotangents)
    return [_dense(d, x.dtype) for x, d in zip(_asked(needs, tensors), gradients, strict=True)]


def _fake_step(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o, h_0, c_0):
    """What `step` returns: for tracing, and for no sequences."""
    B, H, D = _step_sizes(x_i, x_f, x_z, x_o, R_i, R_f, R_z, R_o)
    return (
        x_i.new_empty((B, H, D)),
        x_i.new_empty((B, H, D), dtype=_carry(x_i)),
        x_i.new_empty((B, H, D), dtype=_carry(x_i)),
    )


@_autocast_off
def _step(*tensors):
    """Operator `step`: h, h_T, c_T."""
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
        return [*_fake_run(*arguments)[:1], *(x.clone() for x in tensors[8:])]
    inputs, params, states = tensors[:4], tensors[4:8], tensors[8:]
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
    """lstm with its gradient; backward is an operator too, so autograd and compilers never look inside.

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
        given, saved = kept[:11], list(kept[11:])
        needs = ctx.needs_input_grad[2:12]
        arguments = *given, ctx.reverse, saved, list(needs), *cotangents[:3]
        gradients = _backward_below(*arguments)
        return None, None, *_at_asked(needs, gradients), None, None


class _SecondDerivative(torch.autograd.Function):
    """The gradient; its own gradient is that of the plain form."""

    @staticmethod
    def forward(ctx, count, needs, *flat):
        saved, cotangents = list(flat[12 : 12 + count]), flat[12 + count :]
        ctx.reverse, ctx.needs = flat[11], needs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*flat[:11], *cotangents)
        return tuple(_below(_OPS.backward.default, *flat[:12], saved, needs, *cotangents))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *weights):
        kept = ctx.saved_tensors
        alike = [x if x is None else x.detach().requires_grad_() for x in (*kept[:10], *kept[11:])]
        tensors, cu_seqlens, cotangents = alike[:10], kept[10], alike[10:]
        with torch.enable_grad():
            asked = _asked(ctx.needs, tensors)
            gradients = _pulled(_plain(*tensors, cu_seqlens, ctx.reverse), cotangents, asked, create_graph=True)
        found = iter(_pulled(gradients, weights, [x for x in alike if x is not None]))
        left = [None if x is None else next(found) for x in alike]
        saved = [None] * (len(ctx.needs_input_grad) - 2 - len(left) - 2)
        return None, None, *left[:10], None, None, *saved, *left[10:]


def _backward_below(*arguments):
    """The gradients, as a function of what is recorded below: by autograd, or by the next level of torch.func."""
    if any(d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in arguments[14:]):
        return _batched_backward(*arguments)
    if torch._C._are_functorch_transforms_active():
        return _OPS.backward.default(*arguments)
    return _differentiable_backward(*arguments)


def _batched_backward(*arguments):
    """The gradients for cotangents of `torch.autograd.grad(is_grads_batched=True)`, one after the other."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    given, dims = list(arguments), [None] * len(arguments)
    for i, d in enumerate(given[14:], 14):
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
    return NotImplementedError(f"lstm: {what} is not served; take it of the call: torch.func.jvp")


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
    tensors = arguments[:10]
    if _needs_plain(tensors):
        return _plain(*arguments)
    if _needs_gradient(tensors):
        return list(_applied(_Derivative, _OPS.forward.default, False, *arguments))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.run.default(*arguments)


def _differentiable_forward(*arguments):
    tensors = arguments[:10]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        results = _applied(_Derivative, _OPS.forward.default, True, *arguments)
        return *results[:3], list(results[3:])
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.forward.default(*arguments)


def _differentiable_backward(*arguments):
    given, (saved, needs), cotangents = arguments[:12], arguments[12:14], arguments[14:]
    tensors = [*given[:10], *cotangents]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        return list(_applied(_SecondDerivative, len(saved), needs, *given, *saved, *cotangents))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.backward.default(*arguments)


_OWN = "BBBB----BB"  # B: an argument has a batch axis; -: it is shared by the batch


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
        shared = any(d is not None and own == "-" for d, own in zip(dims, _OWN))
        packed = name != "step" and arguments[10] is not None
        if name in ("forward", "backward") or shared or packed or all(d is None for d in dims[:10]):
            return _in_turn(operator, members, dims, arguments)
        flat = [x if own == "-" else _folded(x, d, members) for x, d, own in zip(arguments, dims, _OWN)]
        results = operator(*flat, *arguments[10:])
        return [x.unflatten(0, (members, x.shape[0] // members)) for x in results], [0] * len(results)

    return rule


def _register():
    """Define the operators in a namespace that no other file or import of this file has; it lives as long as torch."""
    name, tries = "seqc_lstm_32b213cd8df3", 0
    while hasattr(getattr(torch.ops, name), "run"):
        tries += 1
        name = f"seqc_lstm_32b213cd8df3_{tries}"
    library = torch.library.Library(name, "DEF")
    arguments = [f"Tensor {x}" for x in "x_i x_f x_z x_o R_i R_f R_z R_o h_0 c_0".split()]
    results = [f"Tensor {x}" for x in "h h_T c_T".split()]
    cotangents = [f"Tensor? d_{x}" for x in "h h_T c_T".split()]
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
