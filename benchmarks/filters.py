"""`python -m benchmarks.filters`: one channel through a recursive filter, beside scipy.signal.lfilter; oscillators in torch.

In: nothing. Out: two tables. Filters of orders 1, 2 and 4 (poles inside the circle of radius 0.9) over a long signal, in native
code; the contenders take turns, a window of calls each, and ratios are of neighbours. With one thread, times are of the
processor, so that others on the machine count less. Outputs are compared with lfilter's in float64. Second: 2,048 steps of
oscillators in plain torch, forward and backward, in pieces of time and step by step. Peer: `pip install scipy`; without it the
first table has no ratios.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import torch

import seqc
from benchmarks.machine import machine, pin
from benchmarks.timing import quartiles, ratio

FILTER = """spec iir
dim C = {taps}, L = {order}
input x
param b[C], a[L]
state y lag {order} = 0
y = sum[C](b * x[t - index[C]]) - sum[L](a * y[t - 1 - index[L]])
output y
"""

OSCILLATORS = """spec oscillators
dim D
input u[D]
param w[D], dt[D]
state x[D] = 0, v[D] = 0
v = (v[t-1] - dt * w * x[t-1] + dt * u) / (1 + dt^2 * w)
x = x[t-1] + dt * v
output y[D] = x
"""


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print the tables; 1 where an output is wrong."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.filters", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--samples", type=int, default=480_000, help="of the signal (default: 480,000)")
    made.add_argument("--rounds", type=int, default=50, help="windows of each contender (default: 50)")
    made.add_argument("--calls", type=int, default=10, help="in a window; with 1, caches are cold (default: 10)")
    made.add_argument("--threads", type=int, default=1, help="of native code (default: 1)")
    args = made.parse_args(arguments)
    pin(args.threads)
    torch.set_num_threads(args.threads)
    print(f"{machine()['cpu']}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':40}{'shortest':>10}{'quarter':>10}{'median':>10}{'quarter':>10}  ms")
    wrong = False
    with torch.inference_mode():
        for order in (1, 2, 4):
            for dtype in (torch.float64, torch.float32):
                wrong |= filters(order, dtype, args)
    oscillators(max(args.rounds // 10, 3))
    return int(wrong)


def filters(order: int, dtype: torch.dtype, args: argparse.Namespace) -> bool:
    """One filter; whether an output is wrong."""
    rng = np.random.default_rng(order)
    poles = 0.9 * np.exp(2j * np.pi * rng.uniform(0.05, 0.45, order // 2))
    a = np.poly([*poles, *poles.conj(), *([0.8] if order % 2 else [])]).real
    b = rng.uniform(-0.5, 0.5, min(order + 1, 5))
    signal = rng.standard_normal(args.samples)
    f = seqc.compile(FILTER.format(taps=len(b), order=order), "cpu", dims={"C": len(b), "L": order})
    x, *params = (torch.tensor(z, dtype=dtype) for z in (signal[None], b, a[1:]))
    ways: dict[str, Callable[[], Any]] = {}
    if find_spec("scipy"):
        from scipy.signal import lfilter

        given = [z.astype(np.float64 if dtype == torch.float64 else np.float32) for z in (b, a, signal)]
        ways["scipy.signal.lfilter"] = lambda: lfilter(*given)
        want = lfilter(b, a, signal)
    else:
        want = f(*(z.double() for z in (x, *params))).y[0].numpy()

    ways["seqc"] = lambda: f(x, *params).y[0]
    bound = 1e-12 if dtype == torch.float64 else 1e-4
    errors = {name: float(np.abs(np.asarray(way()) - want).max() / np.abs(want).max()) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    now = thread_time if args.threads == 1 else perf_counter
    for _ in range(args.rounds):
        for name, way in ways.items():
            start = now()
            for _ in range(args.calls):
                way()
            seconds[name].append((now() - start) / args.calls)
    print(f"order {order}, {len(b)} taps, {args.samples:,} samples, {str(dtype).removeprefix('torch.')}")
    for name, times in seconds.items():
        low, middle, high = (1e3 * t for t in quartiles(times))
        told = f"  wrong by {errors[name]:.1e}" if errors[name] > bound else ""
        if name == "seqc" and len(seconds) > 1:
            times_as_fast = ratio(seconds["scipy.signal.lfilter"], times)
            shortest = min(seconds["scipy.signal.lfilter"]) / min(times)
            told += f"  {times_as_fast[1]:.1f}x ({times_as_fast[0]:.1f} to {times_as_fast[2]:.1f}; shortest {shortest:.1f})"
        print(f"  {name:38}{1e3 * min(times):10.3f}{low:10.3f}{middle:10.3f}{high:10.3f}{told}")
    return any(error > bound for error in errors.values())


def oscillators(rounds: int) -> None:
    """Plain torch, in pieces and step by step."""
    torch.set_num_threads(1)
    f = seqc.compile(OSCILLATORS, "torch")
    for batch, width in ((1, 16), (1, 64), (4, 64), (8, 64), (32, 128)):
        make = torch.Generator().manual_seed(0)
        u = torch.randn(batch, 2048, width, generator=make).requires_grad_()
        w, dt = torch.rand(width, generator=make).requires_grad_(), (torch.rand(width, generator=make) / 10).requires_grad_()
        count = f.module._pieces(u, 6 * width, 6 * width)[0]
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(rounds):
            for pieces in (False, True):
                f.module.PIECES = pieces
                start = thread_time()
                with torch.autograd.set_multithreading_enabled(False):
                    torch.autograd.grad(f(u, w, dt).y.sum(), [u, w, dt])
                seconds[pieces].append(thread_time() - start)
        low, middle, high = ratio(seconds[False], seconds[True])
        step, cut = (1e3 * quartiles(seconds[pieces])[1] for pieces in (False, True))
        told = f"{cut:.1f} ms in {count} pieces, {step:.1f} ms step by step: {middle:.1f}x ({low:.1f} to {high:.1f})"
        told = told if count > 1 else f"{step:.1f} ms, not cut"
        print(f"oscillators, B{batch} D{width}, 2,048 steps, plain torch, with gradients: {told}")


if __name__ == "__main__":
    sys.exit(main())
