"""ggml's recurrent operators through its C interface. In: arrays of one token. Out: a step that goes on from the last one.

The wheel `libggml-python` holds the libraries and nothing else; they are called by ctypes. An axis of ggml is the last one of
torch first, so [B, T, H, K] is its [K, H, T, B]. Results lie in one array: outputs, then states. Two graphs take turns, so that
each reads the states that the other one has written, and nothing is copied.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SPECS = ("gla", "gated_delta_rule")
_DATA = 248  # where a ggml_tensor holds the address of its numbers
_WHOLE, _POINTER = ctypes.c_int64, ctypes.c_void_p


class _Init(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("buffer", _POINTER), ("no_alloc", ctypes.c_bool)]


class _Plan(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("work", _POINTER), ("threads", ctypes.c_int), ("pool", _POINTER),
                ("abort", _POINTER), ("about", _POINTER), ("reference", ctypes.c_bool)]


def installed() -> bool:
    """Whether the wheel is there."""
    return find_spec("libggml") is not None


@cache
def _libraries() -> tuple[Any, Any]:
    found = find_spec("libggml")
    assert found is not None and found.origin is not None
    folder = Path(found.origin).parent / "lib64"
    base, cpu = (ctypes.CDLL(str(folder / f"libggml{end}.so"), ctypes.RTLD_GLOBAL) for end in ("-base", "-cpu"))
    takes = {
        "ggml_init": [_Init], "ggml_new_tensor_4d": [_POINTER, ctypes.c_int, *[_WHOLE] * 4], "ggml_new_graph": [_POINTER],
        "ggml_gated_linear_attn": [*[_POINTER] * 6, ctypes.c_float], "ggml_gated_delta_net": [*[_POINTER] * 7, _WHOLE],
        "ggml_get_data": [_POINTER], "ggml_build_forward_expand": [_POINTER] * 2,
    }
    for name, arguments in takes.items():
        getattr(base, name).argtypes, getattr(base, name).restype = arguments, _POINTER
    cpu.ggml_graph_plan.argtypes, cpu.ggml_graph_plan.restype = [_POINTER, ctypes.c_int, _POINTER], _Plan
    cpu.ggml_threadpool_new.argtypes, cpu.ggml_threadpool_new.restype = [_POINTER], _POINTER
    cpu.ggml_graph_compute.argtypes = [_POINTER, ctypes.POINTER(_Plan)]
    cpu.ggml_cpu_init()
    return base, cpu


def step(spec: str, token: Mapping[str, Tensor], state: Tensor) -> tuple[Callable[[], Any], Tensor]:
    """A step of `gla` or `gated_delta_rule` on one thread, and its first output [B, H, V], from a zero state [B, H, K, V]."""
    base, cpu = _libraries()
    B, H, K, V = state.shape
    assert K == V, "ggml's states are square"
    context = base.ggml_init(_Init(64 * state.nbytes + (1 << 24), None, False))

    def new(x: Tensor, *shape: int) -> int:
        made: int = base.ggml_new_tensor_4d(context, 0, *shape)
        ctypes.memmove(base.ggml_get_data(made), x.contiguous().data_ptr(), 4 * x.numel())
        return made

    vectors = {name: new(token[name], K, H, *((B, 1) if spec == "gla" else (1, B))) for name in "qkv"}
    if spec == "gla":
        decay = new(token["g"].exp(), K, H, B, 1)
        states = [new(state, K * V * H, B, 1, 1) for _ in range(2)]
        outs = [base.ggml_gated_linear_attn(context, *(vectors[n] for n in "kvq"), decay, s, K**-0.5) for s in states]
    else:
        decay, beta = (new(token[name], 1, H, 1, B) for name in ("g", "beta"))
        states = [new(state, V, V, H, B) for _ in range(2)]
        outs = [base.ggml_gated_delta_net(context, *vectors.values(), decay, beta, s, 1) for s in states]
    wishes = ctypes.create_string_buffer(1024)
    base.ggml_threadpool_params_init(wishes, 1)
    pool = cpu.ggml_threadpool_new(wishes)  # else each call would make its own
    graphs, plans, work = [], [], list[Any]()
    for out in outs:
        graph = base.ggml_new_graph(context)
        base.ggml_build_forward_expand(graph, out)
        plan = cpu.ggml_graph_plan(graph, 1, pool)
        work.append(ctypes.create_string_buffer(max(plan.size, 1)))
        plan.work = ctypes.addressof(work[-1])
        graphs.append(graph)
        plans.append(plan)
    assert not cpu.ggml_graph_compute(graphs[0], plans[0])
    first = torch.empty(B, H, V)
    ctypes.memmove(first.data_ptr(), base.ggml_get_data(outs[0]), first.nbytes)
    for own, other in zip(states, reversed(outs), strict=True):
        place = ctypes.c_void_p.from_address(own + _DATA)
        assert place.value == base.ggml_get_data(own), "this ggml lays its tensors out otherwise"
        place.value = base.ggml_get_data(other) + 4 * B * H * V
    count, compute, kept = 0, cpu.ggml_graph_compute, work  # the plans hold addresses alone
    pairs = [(graph, ctypes.byref(plan)) for graph, plan in zip(graphs, plans, strict=True)]
    results = [(ctypes.c_float * (B * H * V)).from_address(base.ggml_get_data(out)) for out in outs]

    def run() -> Any:
        nonlocal count
        count += 1
        compute(*pairs[count % 2])
        return results[count % 2], kept

    return run, first
