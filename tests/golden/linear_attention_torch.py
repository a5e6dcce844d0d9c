# Made by seqc from the spec `linear_attention`. Edit the spec, not this file.
"""linear_attention: Linear attention: a matrix state that only accumulates.

S_t = S_{t-1} + k_t v_t^T,    o_t = S_t^T q_t / sqrt(K)        (Katharopoulos et al. 2020, arXiv:2006.16236)

The spec:

    dim H, K, V

    input q[H, K], k[H, K], v[H, V]

    state S[H, K, V] = 0

    S = S[t-1] + k * v
    output o = sum[K](q * S) / sqrt(K)

    eigenvalues S in [1, 1]

How it is computed:

    S: diagonal: each element of S depends on its own past only
    S: eigenvalues in [1, 1]: `1`
    in plain torch:
        chunkwise: 32 rows a block: modelled time 0.03 of the step form; scan form 1.16
        S: read over K: no decay between the rows of a block: plain products

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

__all__ = [
    "LinearAttention",
    "LinearAttentionResult",
    "linear_attention",
    "linear_attention_step",
    "LinearAttentionStates",
]


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


def _forward_torch(q, k, v, S_0):
    """Outputs, final states, and the states as the blocks begin."""
    _, T, _, K = q.shape
    BT_ = 32  # steps per block
    row = torch.arange(BT_, dtype=q.dtype, device=q.device)

    q = _blocks(q, BT_, repeat=True).transpose(2, 3).contiguous()
    k = _blocks(k, BT_, repeat=True).transpose(2, 3).contiguous()
    v = _blocks(v, BT_, repeat=True).transpose(2, 3).contiguous()
    w = _inside(k, T, 0.0, -2)
    w_v = w.mT @ v

    # the recurrence itself: one step or block after the other
    S = S_0
    S_all = [S]
    for w_v_n in w_v.unbind():
        S = S + w_v_n
        S_all.append(S)

    S_all = torch.stack(S_all)
    x = torch.abs(v) < math.inf
    x2 = BT_ - row
    m = torch.where(x, 0.0, x2[:, None]).amax(-2)[..., None, :] >= x2[:, None]
    A = torch.where((row[:, None] >= row), q @ w.mT, 0.0)
    x3 = q @ S_all[:-1] + torch.where(m, math.nan, A @ torch.where(x, v, 0.0))
    # output o = sum[K](q * S) / sqrt(K)
    o = x3 / math.sqrt(K)
    return _sequence(o.transpose(2, 3), T), S, S_all


def _backward_torch(q, k, v, S_0, S_all, d_o, d_S_T, *, needs=(True,) * 4):
    """Gradients of every input, parameter and initial state."""
    _, T, _, K = q.shape
    BT_ = 32  # steps per block
    row = torch.arange(BT_, dtype=q.dtype, device=q.device)

    need_q, need_k, need_v, need_S_0 = needs

    q = _blocks(q, BT_, repeat=True).transpose(2, 3).contiguous()
    k = _blocks(k, BT_, repeat=True).transpose(2, 3).contiguous()
    v = _blocks(v, BT_, repeat=True).transpose(2, 3).contiguous()
    d_o = _blocks(d_o, BT_, repeat=False).transpose(2, 3).contiguous()
    x = d_o / math.sqrt(K)
    x_q = q.mT @ x

    # the recurrence itself: one step or block after the other
    d_S = d_S_T
    d_S_all = [d_S]
    for x_q_n in reversed(x_q.unbind()):
        d_S = d_S + x_q_n
        d_S_all.append(d_S)

    if need_k or need_v:
        d_S_all = torch.stack(d_S_all[::-1])
    if need_q or need_k or need_v:
        m = row[:, None] >= row
    if need_q or need_k:
        w = torch.where(m, x @ torch.where((torch.abs(v) < math.inf), v, 0.0).mT, 0.0)
    if need_q or need_v:
        w2 = _inside(k, T, 0.0, -2)
    if need_q:
        d_q = w @ w2 + x @ S_all[:-1].mT
    if need_v:
        A = torch.where(m, q @ w2.mT, 0.0)
        d_v = w2 @ d_S_all[1:] + A.mT @ x
    if need_k:
        d_k = _inside(v @ d_S_all[1:].mT + w.mT @ q, T, 0.0, -2, own=True)
    return (
        _sequence(d_q.transpose(2, 3), T) if need_q else None,
        _sequence(d_k.transpose(2, 3), T) if need_k else None,
        _sequence(d_v.transpose(2, 3), T) if need_v else None,
        d_S,
    )


def _step_torch(q, k, v, S_0):
    """One step: outputs and new states."""
    K = q.shape[2]

    # S = S[t-1] + k * v
    S = S_0 + k[..., None] * v[:, :, None]
    # output o = sum[K](q * S) / sqrt(K)
    o = (q[..., None, :] @ S)[..., 0, :] / math.sqrt(K)
    return o, S


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
_ARGUMENTS = "TTTB"
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
        results = [*_fake_run(*tensors, cu_seqlens, reverse)[:1], *(s.clone() for s in tensors[3:])]
        for part in _each(cu_seqlens):
            found = function(*_copies(tensors, _ARGUMENTS, part, reverse))
            for whole, own in zip(_parts(results, _RESULTS, *part), _turned(found, _RESULTS, reverse)):
                whole.copy_(own)
        return results

    def run_back(*everything, cu_seqlens, reverse, needs):
        tensors, saved, cotangents = everything[:4], everything[4:-2], everything[-2:]
        if cu_seqlens is None:
            turned = _turned(tensors, _ARGUMENTS, reverse), _turned(cotangents, _RESULTS, reverse)
            return _turned(backward(*turned[0], *saved, *turned[1], needs=needs), _ARGUMENTS, reverse)
        gradients = [torch.zeros_like(x) for x in tensors[:3]] + [d.clone() for d in cotangents[1:]]
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


def _saved_torch(packed, B, T, H, K, V, io, carry):
    """Shapes and dtypes of what forward saves: S_all; nothing of a pack, which runs again."""
    if packed:
        return []
    return [(((T + 31) // 32 + 1, B, H, K, V), carry)]


def _infer_torch(*tensors):
    """Forward without what backward needs."""
    return _forward_torch(*tensors)[:2]


_TORCH = _Form(_prepare_torch, *_one_by_one(_infer_torch, _forward_torch, _backward_torch), _saved_torch, _step_torch)


def _form(*tensors):
    """The form that runs on some arguments, of a sequence or of one step: the one place where it is chosen."""
    return _TORCH


# ---------- the torch operators ---------------------------------------------------------------------------------------

_AXES = {
    "q": "B T H K",
    "k": "B T H K",
    "v": "B T H V",
    "S_0": "B H K V",
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
            return ValueError(f"linear_attention: {name} has shape {shape}; its axes are [{', '.join(axes)}]")
        for axis, size in zip(axes, shape):
            told, by = sizes.setdefault(axis, (size, name))
            if told != size:
                want = ", ".join(axes)
                why = f"{axis} is {size} here and {told} in {by}"
                return ValueError(f"linear_attention: {name} has shape {shape} for [{want}]; {why}")
    return ValueError(f"linear_attention: shapes disagree: {_AXES}")


CHECK_BOUNDS = False  # whether the bounds of packs on a GPU are read and checked too: a call then waits for it


def _sequences(cu_seqlens, x):
    """The number of sequences of the pack x [1, T, ...]; an error where `cu_seqlens` cannot be its bounds."""
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"linear_attention: cu_seqlens is {cu_seqlens.dtype}; it is torch.int32 or torch.int64")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] == 0:
        shape = list(cu_seqlens.shape)
        raise ValueError(f"linear_attention: cu_seqlens has shape {shape}; for N sequences it is [N + 1]: their bounds")
    if cu_seqlens.device != x.device:
        raise ValueError(f"linear_attention: cu_seqlens is on {cu_seqlens.device}, the inputs are on {x.device}")
    if x.shape[0] != 1:
        why = "with cu_seqlens the sequences stand one after the other in one row"
        raise ValueError(f"linear_attention: the inputs have B = {x.shape[0]}; {why}: [1, T, ...]")
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
        raise ValueError(f"linear_attention: cu_seqlens is {cu_seqlens}; {want}")
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


def _sizes(q, k, v, cu_seqlens):
    """Sizes of the dims B, T, H, K, V; ValueError where shapes disagree."""
    if q.dim() != 4 or v.dim() != 4:
        raise _shape_error(True, cu_seqlens, q=q, k=k, v=v)
    B, T, H, K = q.shape
    V = v.shape[3]
    if k.shape != (B, T, H, K) or v.shape != (B, T, H, V):
        raise _shape_error(True, cu_seqlens, q=q, k=k, v=v)
    if cu_seqlens is not None:
        B = _sequences(cu_seqlens, q)
    return B, T, H, K, V


def _step_sizes(q, k, v):
    """Sizes of the dims B, H, K, V; ValueError where shapes disagree."""
    if q.dim() != 3 or v.dim() != 3:
        raise _shape_error(False, None, q=q, k=k, v=v)
    B, H, K = q.shape
    V = v.shape[2]
    if k.shape != (B, H, K) or v.shape != (B, H, V):
        raise _shape_error(False, None, q=q, k=k, v=v)
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


def _fake_run(q, k, v, S_0, cu_seqlens, reverse):
    """What `run` returns, all zeros: for tracing, and for a sequence of no steps."""
    B, T, H, K, V = _sizes(q, k, v, cu_seqlens)
    return q.new_zeros((*q.shape[:2], H, V)), q.new_zeros((B, H, K, V), dtype=_carry(q))


def _fake_forward(*arguments):
    """What `forward` returns, all zeros."""
    x, cu_seqlens, form = arguments[0], arguments[4], _form(*arguments[:4])
    saved = form.saved(cu_seqlens is not None, *_sizes(*arguments[:3], cu_seqlens), x.dtype, _carry(x))
    return *_fake_run(*arguments), [x.new_zeros(shape, dtype=dtype) for shape, dtype in saved]


def _asked(needs, values):
    """Those of the values, one for each gradient, whose gradient is asked for."""
    return [x for need, x in zip(needs, values, strict=True) if need]


def _fake_backward(*arguments):
    """What `backward` returns, all zeros."""
    return [x.new_zeros(x.shape) for x in _asked(arguments[7], arguments[:4])]


@_autocast_off
def _run(*arguments):
    """Operator `run`: o, S_T."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[0]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        results = _run(*_own_rows(tensors, "TTT-", steps), cu_seqlens, reverse)
        return [*(_resized(o, (1, x.shape[1], *o.shape[2:])) for o in results[:1]), *results[1:]]
    if 0 in x.shape[:2]:
        return [*_fake_run(*arguments)[:1], *(_copy(s, carry) for s in tensors[3:])]
    results = form.infer(*form.prepare(carry, *tensors), cu_seqlens=cu_seqlens, reverse=reverse)
    return [*(_dense(o, x.dtype) for o in results[:1]), *(_dense(s, carry) for s in results[1:])]


@_autocast_off
def _forward(*arguments):
    """Operator `forward`: o, S_T, and a list of what backward needs."""
    *tensors, cu_seqlens, reverse = arguments
    x = tensors[0]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        *results, saved = _forward(*_own_rows(tensors, "TTT-", steps), cu_seqlens, reverse)
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
    starts = zip(states, arguments[3:4], strict=True)
    return [*outputs, *(torch.zeros_like(s, dtype=carry) if d is None else d for d, s in starts)]


@_autocast_off
def _backward(*arguments):
    """Operator `backward`: of the gradients of q, k, v, S_0 those that are asked for.

    needs: which are, for each; a cotangent that is not there is zero.
    """
    tensors, (cu_seqlens, reverse, saved, needs) = arguments[:4], arguments[4:8]
    cotangents = whole = arguments[8:]
    x = tensors[0]
    form, carry, steps = _form(*tensors), _carry(x), _steps(cu_seqlens, tensors[0])
    if steps < x.shape[1]:
        own = _own_rows(tensors, "TTT-", steps)
        saved = [_resized(s, y.shape) for s, y in zip(saved, _fake_forward(*own, cu_seqlens, reverse)[-1], strict=True)]
        cotangents = _own_rows(cotangents, "T-", steps)
        gradients = _backward(*own, cu_seqlens, reverse, saved, needs, *cotangents)
        return [_resized(d, y.shape) for d, y in zip(gradients, _asked(needs, tensors), strict=True)]
    if any(d is None for d in cotangents):
        whole = _filled(cotangents, carry, *arguments[:6])
    if 0 in x.shape[:2]:
        final = zip(tensors[3:], whole[1:], strict=True)
        gradients = [torch.zeros_like(x) for x in tensors[:3]]
        return _asked(needs, [*gradients, *(_copy(d, s.dtype) for s, d in final)])
    everything = *form.prepare(carry, *tensors), *saved, *form.prepare(carry, *whole)
    gradients = _asked(needs, form.backward(*everything, cu_seqlens=cu_seqlens, reverse=reverse, needs=needs))
    if _spoilt(gradients, cotangents):
        gradients = _apart(tensors, cu_seqlens, reverse, needs, cotangents)
    return [_dense(d, x.dtype) for x, d in zip(_asked(needs, tensors), gradients, strict=True)]


def _fake_step(q, k, v, S_0):
    """What `step` returns: for tracing, and for no sequences."""
    B, H, K, V = _step_sizes(q, k, v)
    return q.new_empty((B, H, V)), q.new_empty((B, H, K, V), dtype=_carry(q))


@_autocast_off
def _step(*tensors):
    """Operator `step`: o, S_T."""
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
        run = [*(x[:, None] for x in tensors[:3]), *tensors[3:], None, False]
        *results, saved = _below(_OPS.forward.default, *run)
        _Derivative.keep(ctx, (*tensors, None, False), saved)
        return *(o[:, 0].clone() for o in results[:1]), *results[1:]

    @staticmethod
    def backward(ctx, *cotangents):
        kept = ctx.saved_tensors
        given, saved = kept[:4], list(kept[4 + 1 :])
        run = [*(x[:, None] for x in given[:3]), *given[3:], None, False]
        ends = [*(d if d is None else d[:, None] for d in cotangents[:1]), *cotangents[1:]]
        needs = ctx.needs_input_grad
        gradients = _at_asked(needs, _backward_below(*run, saved, list(needs), *ends))
        return *(d if d is None else d[:, 0] for d in gradients[:3]), *gradients[3:]


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
        return [*_fake_run(*arguments)[:1], *(x.clone() for x in tensors[3:])]
    inputs, params, states = tensors[:3], tensors[3:3], tensors[3:]
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
        own = [x[:, start:end] for x in tensors[:3]]
        own += [x[i : i + 1] if _OWN[k] == "B" else x for k, x in enumerate(tensors[3:], 3)]
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
    """linear_attention with its gradient; backward is an operator too, so autograd and compilers never look inside."""

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
        given, saved = kept[:5], list(kept[5:])
        needs = ctx.needs_input_grad[:4]
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
        saved, cotangents = list(flat[6 : 6 + count]), flat[6 + count :]
        ctx.reverse, ctx.needs = flat[5], needs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*flat[:5], *cotangents)
        return tuple(_below(_OPS.backward.default, *flat[:6], saved, needs, *cotangents))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *weights):
        kept = ctx.saved_tensors
        alike = [x if x is None else x.detach().requires_grad_() for x in (*kept[:4], *kept[5:])]
        tensors, cu_seqlens, cotangents = alike[:4], kept[4], alike[4:]
        with torch.enable_grad():
            asked = _asked(ctx.needs, tensors)
            gradients = _pulled(_plain(*tensors, cu_seqlens, ctx.reverse), cotangents, asked, create_graph=True)
        found = iter(_pulled(gradients, weights, [x for x in alike if x is not None]))
        left = [None if x is None else next(found) for x in alike]
        saved = [None] * (len(ctx.needs_input_grad) - 2 - len(left) - 2)
        return None, None, *left[:4], None, None, *saved, *left[4:]


def _backward_below(*arguments):
    """The gradients, as a function of what is recorded below: by autograd, or by the next level of torch.func."""
    if any(d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in arguments[8:]):
        return _batched_backward(*arguments)
    if torch._C._are_functorch_transforms_active():
        return _OPS.backward.default(*arguments)
    return _differentiable_backward(*arguments)


def _batched_backward(*arguments):
    """The gradients for cotangents of `torch.autograd.grad(is_grads_batched=True)`, one after the other."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    cotangents = arguments[8:]
    batched = [d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in cotangents]
    columns = [torch._remove_batch_dim(d, level, 1, 0) if own else d for d, own in zip(cotangents, batched)]
    members = next(d.shape[0] for d, own in zip(columns, batched) if own)
    rows = [[d[i] if own else d for d, own in zip(columns, batched)] for i in range(members)]
    found = [_backward_below(*arguments[:8], *row) for row in rows]
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
    return NotImplementedError(f"linear_attention: {what} is not served; take it of the call: torch.func.jvp")


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
    tensors = arguments[:4]
    if _needs_plain(tensors):
        return _plain(*arguments)
    if _needs_gradient(tensors):
        return list(_applied(_Derivative, *arguments))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.run.default(*arguments)


def _differentiable_forward(*arguments):
    tensors = arguments[:4]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        results = _applied(_DerivativeAndSaved, *arguments)
        return *results[:2], list(results[2:])
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.forward.default(*arguments)


def _differentiable_backward(*arguments):
    given, (saved, needs), cotangents = arguments[:6], arguments[6:8], arguments[8:]
    tensors = [*given[:4], *cotangents]
    if _needs_plain(tensors):
        raise _no_tangent()
    if _needs_gradient(tensors):
        return list(_applied(_SecondDerivative, len(saved), needs, *given, *saved, *cotangents))
    with torch._C._AutoDispatchBelowAutograd():
        return _OPS.backward.default(*arguments)


_OWN = "BBBB"  # B: an argument has a batch axis; -: it is shared by the batch


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
        tensors, here = arguments[:4], dims[:4]
        shared = any(d is not None and own == "-" for d, own in zip(here, _OWN))
        packed = name != "step" and arguments[4] is not None
        if shared or packed or differentiates or all(d is None for d in here):
            return _in_turn(operator, members, dims, arguments)
        size = tensors[0].shape[0] if here[0] is None else tensors[0].movedim(here[0], 0).shape[1]
        flat = [x if own == "-" else _folded(x, d, members) for x, d, own in zip(tensors, here, _OWN)]
        if name == "backward":
            *more, saved, needs = arguments[4:8]
            ends = [None if x is None else _folded(x, d, members) for x, d in zip(arguments[8:], dims[8:])]
            return _unfolded(operator(*flat, *more, saved, needs, *ends), members, size)
        results = operator(*flat, *arguments[4:])
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
    name, tries = "seqc_linear_attention_840dbbb6f72f", 0
    while hasattr(getattr(torch.ops, name), "run"):
        tries += 1
        name = f"seqc_linear_attention_840dbbb6f72f_{tries}"
    library = torch.library.Library(name, "DEF")
    arguments = [f"Tensor {x}" for x in "q k v S_0".split()]
    results = [f"Tensor {x}" for x in "o S_T".split()]
    cotangents = [f"Tensor? d_{x}" for x in "o S_T".split()]
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


class LinearAttentionResult(NamedTuple):
    """Outputs, and the states after the last step: the next call's NAME_0, to go on from."""

    o: Tensor  # [B, T, H, V]
    S_T: Tensor  # [B, H, K, V]


def _cast(q, k, v):
    """The inputs in the dtypes that the operators take."""
    main = q.dtype
    if (
        k.dtype != main
        or v.dtype != main
        or main not in _FLOATS
        or (q.device.type in _AUTOCAST and torch.is_autocast_enabled(q.device.type))
    ):
        return _fit(q, k, v)
    return q, k, v


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
            raise TypeError(f"linear_attention: {name} is {x.dtype}, {_INPUTS[0]} is {main}; inputs share a dtype")
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
    return TypeError(f"linear_attention: {name} is {dtype}; {kinds}: {help}")


def _to_carry(name, x, carry):
    """An initial state in the dtype that states have."""
    if x.dtype not in _FLOATS:
        raise _dtype_error(**{name: x})
    return x.to(carry)


_FLOATS = frozenset((torch.float64, torch.float32, torch.bfloat16, torch.float16))
_INPUTS = tuple("q k v".split())
_GATES = frozenset("".split())


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
    count = main.dim() - 2
    if not -count <= axis < count:
        raise ValueError(f"linear_attention: axis is {axis}; q has {count} axes before its dims: {list(main.shape)}")
    lead, axis = main.shape[:count], axis % count
    batch = (*lead[:axis], *lead[axis + 1 :])
    given = {}
    for x, (name, axes) in zip(tensors, _AXES.items(), strict=True):
        own, *dims = axes.split() or [""]
        if x is not None and own == "B" and (cu_seqlens is None or dims[:1] == ["T"]):
            ahead, dims = (lead, dims[1:]) if dims[:1] == ["T"] else (batch, dims)
            if x.dim() != len(ahead) + len(dims) or x.shape[: len(ahead)] != ahead:
                want, why = ", ".join([*map(str, ahead), *dims]), f"axis {axis} of q has the steps"
                raise ValueError(f"linear_attention: {name} has shape {list(x.shape)} for [{want}]; {why}")
            x = x.movedim(axis, count - 1) if ahead is lead else x
            x = x.reshape((math.prod(batch), *x.shape[len(batch) :]))
        given[name] = x
    results = linear_attention(**given, cu_seqlens=cu_seqlens, reverse=reverse)
    outputs = [o.reshape((*batch, *o.shape[1:])).movedim(count - 1, axis) for o in results[:1]]
    states = results[1:]
    if cu_seqlens is None:
        states = [s.reshape((*batch, *s.shape[1:])) for s in states]
    return LinearAttentionResult(*outputs, *states)


class LinearAttentionStates(LinearAttentionResult):
    """What a call with `states_every` gives: its result, and each state after every so many steps as NAME_every.

    NAME_every has the pieces as an axis where inputs have the steps: [B, T // N, dims]. Of a pack it is [pieces, dims]:
    those of the first sequence, then those of the next; a sequence of n steps has n // N of them.
    """

    S_every: Tensor  # [B, pieces, H, K, V]


def _in_pieces(every, axis, cu_seqlens, reverse, /, **given):
    """The call in pieces of `every` steps, each from the states that the last one left."""
    main = given["q"]
    count = main.dim() - 2
    at = 1 if axis is None else axis % count
    if every < 1:
        why = f"states_every is {every}; states are kept after every so many steps, 1 or more"
        raise ValueError(f"linear_attention: {why}")
    if axis is not None and (cu_seqlens is not None or not -count <= axis < count):
        why = f"q has {count} axes before its dims" if cu_seqlens is None else "states_every of a pack takes none"
        raise ValueError(f"linear_attention: axis is {axis}; {why}")
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
        result = linear_attention(**own, cu_seqlens=cuts, reverse=reverse, axis=axis)
        given |= dict(zip(("S_0",), result[1:]))
        results.append(result)
        kept.append([i for i, size in enumerate(lengths) if start + every <= size])
    whole = []
    for parts in zip(*(result[:1] for result in results)):
        joined = torch.cat(parts if cu_seqlens is not None or not last else parts[::-1], at)
        if cu_seqlens is not None:
            joined = joined.new_zeros(1, steps, *joined.shape[2:]).index_copy(1, torch.cat(places), joined)
        whole.append(joined)
    found = LinearAttentionStates(*whole, *results[-1][1:])
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


_STEPPED = tuple("q k v".split())


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    S_0: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    reverse: bool = False,
    axis: int | None = None,
    states_every: int | None = None,
) -> LinearAttentionResult:
    """Run linear_attention over a sequence.

    Shapes:
        q: [B, T, H, K]
        k: [B, T, H, K]
        v: [B, T, H, V]
        S_0: [B, H, K, V]

    States are float32 (float64 for float64 inputs); one that is not given starts at its default.

    cu_seqlens: the call is a pack of B sequences of any lengths, one after the other in one row of T steps; inputs are
        [1, T, ...], and sequence i has the steps from cu_seqlens[i] up to cu_seqlens[i + 1]. int32 or int64 [B + 1] on
        the inputs' device. One entry per sequence: S_0.
    reverse: every sequence runs from its last step to its first.
    axis: which of the axes before the dims has the steps; all others are batch, and states have these, in their order.
    states_every: the result is a LinearAttentionStates, with the states after every so many steps.
    """
    if states_every is not None:
        return _in_pieces(states_every, axis, cu_seqlens, reverse, q=q, k=k, v=v, S_0=S_0)
    if axis is not None:
        return _along(axis, cu_seqlens, reverse, q, k, v, S_0)
    q, k, v = _cast(q, k, v)
    B, T, H, K, V = _sizes(q, k, v, cu_seqlens)
    carry = _carry(q)
    if S_0 is None:
        S_0 = q.new_zeros((B, H, K, V), dtype=carry)
    elif S_0.shape != (B, H, K, V):
        raise _shape_error(True, cu_seqlens, q=q, k=k, v=v, S_0=S_0)
    elif S_0.dtype != carry:
        S_0 = _to_carry("S_0", S_0, carry)
    return LinearAttentionResult(*_call(_OPS.run.default, q, k, v, S_0, cu_seqlens, reverse))


def _written(result, given, inplace, into):
    """The result in tensors of the caller: states in those that were given (inplace), the rest in an earlier result."""
    if any(x.requires_grad for x in result):
        why = "inplace= and into= keep nothing that a gradient needs: call it under torch.no_grad()"
        raise RuntimeError(f"linear_attention_step: {why}")
    places = list(result if into is None else into)
    if inplace:
        places[1:] = [y if x is None else x for x, y in zip(given, places[1:], strict=True)]
    for place, x in zip(places, result, strict=True):
        if place.shape != x.shape or place.dtype != x.dtype:
            said = f"{list(place.shape)} of {place.dtype}, and the step gives {list(x.shape)} of {x.dtype}"
            raise ValueError(f"linear_attention_step: a tensor to write has shape {said}")
    if len(set(map(id, places))) < len(places):
        raise ValueError("linear_attention_step: one tensor is to be written twice: give every state its own")
    for place, x in zip(places, result, strict=True):
        if place is not x:
            place.copy_(x)
    return type(result)(*places)


def linear_attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    S_0: Tensor | None = None,
    inplace: bool = False,
    into: LinearAttentionResult | None = None,
) -> LinearAttentionResult:
    """Run linear_attention for one step: one token of decoding.

    Shapes:
        q: [B, H, K]
        k: [B, H, K]
        v: [B, H, V]
        S_0: [B, H, K, V]

    inplace: the new states are written over the old ones, and returned as these.
    into: the result of an earlier step, whose tensors are written and returned. With its own states as initial ones,
        no step allocates anything.
    """
    _given = (S_0,)
    q, k, v = _cast(q, k, v)
    B, H, K, V = _step_sizes(q, k, v)
    carry = _carry(q)
    if S_0 is None:
        S_0 = q.new_zeros((B, H, K, V), dtype=carry)
    elif S_0.shape != (B, H, K, V):
        raise _shape_error(False, None, q=q, k=k, v=v, S_0=S_0)
    elif S_0.dtype != carry:
        S_0 = _to_carry("S_0", S_0, carry)
    _result = LinearAttentionResult(*_call(_OPS.step.default, q, k, v, S_0))
    return _written(_result, _given, inplace, into) if inplace or into is not None else _result


class LinearAttention(torch.nn.Module):
    """linear_attention as a layer: it owns no parameter.

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
        self.dims = {"H": H, "K": K, "V": V}

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        S_0: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
        axis: int | None = None,
        states_every: int | None = None,
    ) -> LinearAttentionResult:
        """The recurrence over a sequence; see `linear_attention`."""
        return linear_attention(
            q,
            k,
            v,
            S_0=S_0,
            cu_seqlens=cu_seqlens,
            reverse=reverse,
            axis=self.axis if axis is None else axis,
            states_every=states_every,
        )

    def step(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        S_0: Tensor | None = None,
        inplace: bool = False,
        into: LinearAttentionResult | None = None,
    ) -> LinearAttentionResult:
        """One step; see `linear_attention_step`."""
        return linear_attention_step(q, k, v, S_0=S_0, inplace=inplace, into=into)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={size}" for name, size in self.dims.items())


# torch.fx keeps a call as one node, instead of tracing into it
torch.fx.wrap("linear_attention")
torch.fx.wrap("linear_attention_step")
