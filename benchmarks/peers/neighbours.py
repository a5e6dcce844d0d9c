"""Libraries of neighbouring fields. In: a task. Out: a contender.

snntorch and spikingjelly run leaky integrate-and-fire neurons under autograd; arch runs GARCH one series after the other, in
float64; scipy and torchlpc run recursive filters. arch and scipy have no gradients, and the reset of snntorch's neuron has one,
which the spec's has not: these are timed forward. One long channel beside scipy stands in `benchmarks.filters`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.contender import FORWARD, Contender, Results
from benchmarks.ours import calls, leaves
from benchmarks.tasks import Task

SLOPE = 5.0  # of both libraries' arctangent at which its derivative is the spec's


def snntorch(task: Task) -> Contender:
    """`snntorch.Leaky`, step by step."""
    from snntorch import Leaky, surrogate

    cell = Leaky(beta=task.params["decay"], spike_grad=surrogate.atan(SLOPE), reset_mechanism="zero", reset_delay=False)

    def run(x: Tensor, decay: Tensor) -> Results:
        spikes, potentials, now = [], [], torch.zeros_like(x[:, 0])
        for step in x.unbind(1):
            spike, now = cell(step, now)
            spikes.append(spike)
            potentials.append(now)
        return {"s": torch.stack(spikes, 1), "potential": torch.stack(potentials, 1)}

    return Contender("snntorch", {FORWARD: calls(run, leaves(task), task.cotangents)[FORWARD]})


def spikingjelly(task: Task) -> Contender:
    """`spikingjelly`'s node with a parametric time constant, over all steps in one call; its constant is a gate's logit."""
    from spikingjelly.activation_based import neuron, surrogate

    node = neuron.ParametricLIFNode(
        decay_input=False, v_reset=0.0, surrogate_function=surrogate.ATan(SLOPE), detach_reset=True, step_mode="m",
        store_v_seq=True,
    )
    del node.w

    def run(x: Tensor, decay: Tensor) -> Results:
        node.reset()
        node.w = torch.logit(1 - decay)
        spikes = node(x.transpose(0, 1))
        return {"s": spikes.transpose(0, 1), "potential": node.v_seq.transpose(0, 1)}

    return Contender("spikingjelly", calls(run, leaves(task), task.cotangents))


def arch(task: Task) -> Contender:
    """`arch`'s recursion of variances; the variance and the return before the first step are the spec's."""
    from arch.univariate.recursions import garch_recursion

    r = np.ascontiguousarray(task.inputs["r"].double().numpy().transpose(0, 2, 1))
    params = np.stack([task.params[name].double().numpy() for name in ("omega", "alpha", "beta")], -1)
    batch, width, steps = r.shape
    signs, bounds = np.ones(steps), np.tile([1e-12, 1e12], (steps, 1))

    def run() -> Results:
        s, squares = np.empty_like(r), r * r
        for i in range(batch):
            for d in range(width):
                start = params[d, 2] / max(params[d, 1] + params[d, 2], 1e-30)
                garch_recursion(params[d], squares[i, d], signs, s[i, d], 1, 0, 1, steps, start, bounds)
        likelihood = -(np.log(2 * np.pi * s) + squares / s) / 2
        return {"s": s.transpose(0, 2, 1), "ll": likelihood.transpose(0, 2, 1)}

    return Contender("arch", {FORWARD: run})


def scipy(task: Task) -> Contender:
    """`scipy.signal.lfilter`, channel by channel: each has coefficients of its own."""
    from scipy.signal import lfilter

    x = np.ascontiguousarray(task.inputs["x"].numpy().transpose(2, 0, 1))
    b, a = (task.params[name].numpy().T for name in ("b", "a"))
    a = np.concatenate([np.ones_like(a[:, :1]), a], 1)

    def run() -> Results:
        return {"y": np.stack([lfilter(*given) for given in zip(b, a, x, strict=True)], -1)}

    return Contender("scipy lfilter", {FORWARD: run})


def torchlpc(task: Task) -> Contender:
    """`torchlpc`'s filter with coefficients of each step, which are the same here, behind a convolution for the taps."""
    from torchlpc import sample_wise_lpc

    def run(x: Tensor, b: Tensor, a: Tensor) -> Results:
        batch, steps, width = x.shape
        past = torch.nn.functional.pad(x.mT, (len(b) - 1, 0))
        driven = torch.nn.functional.conv1d(past, b.flip(0).T[:, None], groups=width).reshape(batch * width, steps)
        weights = a.T[None, :, None].expand(batch, width, steps, len(a)).reshape(batch * width, steps, len(a))
        return {"y": sample_wise_lpc(driven, weights).reshape(batch, width, steps).mT}

    return Contender("torchlpc", calls(run, leaves(task), task.cotangents))
