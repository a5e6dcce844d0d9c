"""ggml's recurrent operators through its C interface. In: a task, or arrays of one token. Out: a contender, or a step.

The wheel `libggml-python` holds the libraries and nothing else; they are called by ctypes. An axis of ggml is the last one of
torch first, so [B, T, H, K] is its [K, H, T, B]. Results lie in one array: outputs, then states. Two graphs take turns, so that
each reads the states that the other one has written, and nothing is copied.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import FORWARD, Contender
from benchmarks.tasks import Task

SPECS = ("gla", "gated_delta_rule")  # of the same widths of keys and values
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


class Operator:
    """One of ggml's recurrent operators for given arrays, as two graphs with states of their own.

    arrays: q, k, v [B, T, H, K], g and beta, as `gla` and `gated_delta_rule` have them. state: [B, H, K, V], K = V.
    """

    def __init__(self, spec: str, arrays: Mapping[str, Tensor], state: Tensor, threads: int = 1) -> None:
        base, cpu = _libraries()
        B, H, K, V = state.shape
        T = arrays["q"].shape[1]
        assert K == V, "ggml's states are square"
        self.base, self.cpu, self.shape = base, cpu, (B, T, H, V)
        self.context = base.ggml_init(_Init(8 * sum(4 * x.nbytes for x in (*arrays.values(), state)) + (1 << 24), None, False))
        if spec == "gla":  # sequences lie one after the other in the axis of the steps
            given = [self.new(arrays[n], K, H, B * T, 1) for n in "kvq"] + [self.new(arrays["g"].exp(), K, H, B * T, 1)]
            self.states = [self.new(state, K * V * H, B, 1, 1) for _ in range(2)]
            outs = [base.ggml_gated_linear_attn(self.context, *given, s, K**-0.5) for s in self.states]
        else:
            given = [self.new(arrays[n], K, H, T, B) for n in "qkv"] + [self.new(arrays[n], 1, H, T, B) for n in ("g", "beta")]
            self.states = [self.new(state, V, V, H, B) for _ in range(2)]
            outs = [base.ggml_gated_delta_net(self.context, *given, s, 1) for s in self.states]
        wishes = ctypes.create_string_buffer(1024)
        base.ggml_threadpool_params_init(wishes, threads)
        pool = cpu.ggml_threadpool_new(wishes)  # else each call would make its own
        self.outs, self.work, self.pairs = outs, list[Any](), list[tuple[int, Any]]()
        for out in outs:
            graph = base.ggml_new_graph(self.context)
            base.ggml_build_forward_expand(graph, out)
            plan = cpu.ggml_graph_plan(graph, threads, pool)
            self.work.append((ctypes.create_string_buffer(max(plan.size, 1)), plan))
            plan.work = ctypes.addressof(self.work[-1][0])
            self.pairs.append((graph, ctypes.byref(plan)))

    def new(self, x: Tensor, *shape: int) -> int:
        """A tensor of ggml with a copy of the numbers."""
        made: int = self.base.ggml_new_tensor_4d(self.context, 0, *shape)
        ctypes.memmove(self.base.ggml_get_data(made), x.contiguous().data_ptr(), 4 * x.numel())
        return made

    def run(self, graph: int = 0) -> Tensor:
        """Compute one of the graphs; a copy of its outputs [B, T, H, V]."""
        assert not self.cpu.ggml_graph_compute(*self.pairs[graph])
        found = torch.empty(self.shape)
        ctypes.memmove(found.data_ptr(), self.base.ggml_get_data(self.outs[graph]), found.nbytes)
        return found

    def chain(self) -> None:
        """Each graph reads the states that the other one writes."""
        count = math.prod(self.shape)
        for own, other in zip(self.states, reversed(self.outs), strict=True):
            place = ctypes.c_void_p.from_address(own + _DATA)
            assert place.value == self.base.ggml_get_data(own), "this ggml lays its tensors out otherwise"
            place.value = self.base.ggml_get_data(other) + 4 * count


def step(spec: str, token: Mapping[str, Tensor], state: Tensor) -> tuple[Callable[[], Any], Tensor]:
    """A step on one thread, and its first output [B, H, V], from a zero state [B, H, K, V]."""
    made = Operator(spec, {name: x[:, None] for name, x in token.items()}, state)
    first = made.run()[:, 0]
    made.chain()
    count, compute, pairs = 0, made.cpu.ggml_graph_compute, made.pairs

    def run() -> Any:
        nonlocal count
        count += 1
        compute(*pairs[count % 2])
        return made

    return run, first


def contender(task: Task) -> Contender:
    """A whole sequence forward, on torch's number of threads."""
    made = Operator(task.name, task.inputs, next(iter(task.zeros.values())), torch.get_num_threads())
    return Contender("ggml", {FORWARD: lambda: {"o": made.run()}})
