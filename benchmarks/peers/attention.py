"""onnxruntime's operator LinearAttention. In: a task. Out: a contender over whole sequences, or a step of one token.

A model of one node, bound to buffers. The operator of the domain `com.microsoft` is the fast one. It has no backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import FORWARD, Contender, Results
from benchmarks.tasks import Task

NAME = "onnxruntime LinearAttention"
RULES = {"linear_attention": "linear", "retention": "gated", "gla": "gated", "delta_rule": "delta",
         "gated_delta_rule": "gated_delta"}
FEEDS = {"query": "q", "key": "k", "value": "v", "past_state": "", "decay": "g", "beta": "beta"}


def installed() -> bool:
    """Whether the packages are there."""
    return find_spec("onnxruntime") is not None and find_spec("onnx") is not None


def arrays(task: Task, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the operator reads, [B, T, heads * width]; retention's decay is one number a head."""
    B, T, H = task.sizes["B"], given["q"].shape[1], task.sizes["H"]
    found = {feed: given[name].reshape(B, T, -1).contiguous() for feed, name in FEEDS.items() if name in given}
    if task.name == "retention":
        found["decay"] = torch.log(1 - 2.0 ** (-5 - torch.arange(H, dtype=torch.float32))).expand(B, T, H).contiguous()
    found["past_state"] = torch.zeros(B, H, task.sizes["K"], task.sizes["V"])
    return found


def session(task: Task, given: Mapping[str, Tensor], results: Mapping[str, Tensor]) -> Any:
    """The model of one node, on torch's number of threads."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    feeds = [x if x in given else "" for x in FEEDS]
    while not feeds[-1]:
        feeds.pop()
    node = helper.make_node(
        "LinearAttention", feeds, ["output", "present"], domain="com.microsoft", update_rule=RULES[task.name],
        q_num_heads=task.sizes["H"], kv_num_heads=task.sizes["H"], scale=1 / math.sqrt(task.sizes["K"]),
    )
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    graph = helper.make_graph([node], "run", [value(k, x.shape) for k, x in given.items()],
                              [value(k, x.shape) for k, x in results.items()])
    versions = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def binding(made: Any, given: Mapping[str, Tensor], results: Mapping[str, Tensor]) -> Any:
    """Buffers of a call; it holds addresses alone."""
    found = made.io_binding()
    for k, x in given.items():
        found.bind_input(k, "cpu", 0, "float32", list(x.shape), x.data_ptr())
    for k, x in results.items():
        found.bind_output(k, "cpu", 0, "float32", list(x.shape), x.data_ptr())
    return found


def contender(task: Task) -> Contender:
    """A whole sequence forward."""
    B, T, H, V = (task.sizes[d] for d in ("B", "T", "H", "V"))
    given = arrays(task, task.inputs)
    results = {"output": torch.zeros(B, T, H * V), "present": torch.zeros_like(given["past_state"])}
    made = session(task, given, results)
    way = binding(made, given, results)

    def forward() -> Results:
        made.run_with_iobinding(way)
        return {"o": results["output"].view(B, T, H, V)} if given else {}

    return Contender(NAME, {FORWARD: forward})


def step(task: Task, token: Mapping[str, Tensor]) -> tuple[Callable[[], Any], Tensor]:
    """A step whose state goes to and fro between two buffers, and its first output [B, H, V]."""
    B, H, V = (task.sizes[d] for d in ("B", "H", "V"))
    given = arrays(task, {name: x[:, None] for name, x in token.items()})
    results = {"output": torch.zeros(B, 1, H * V), "present": torch.zeros_like(given["past_state"])}
    made = session(task, given, results)
    past, present = given["past_state"], results["present"]
    ways = [binding(made, {**given, "past_state": x}, {**results, "present": y}) for x, y in ((past, present), (present, past))]
    made.run_with_iobinding(ways[0])
    output = results["output"].reshape(B, H, V).clone()
    count, kept = 0, (given, results)

    def run() -> Any:
        nonlocal count
        count += 1
        made.run_with_iobinding(ways[count % 2])
        return kept

    return run, output
