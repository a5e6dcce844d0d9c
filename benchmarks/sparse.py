"""`python -m benchmarks.sparse`: one LSTM and one GRU layer with pruned recurrent matrices, beside dense ones and torch's.

In: sizes. Out: a table of milliseconds, forward alone and forward with all gradients: quartiles over rounds in which the
contenders take turns, and how many times faster than the dense layer. All but torch.nn have the same weights: what is pruned
is 0 in the dense layer. torch.nn has its inputs from one feature, so that its own projection costs next to nothing;
torch.sparse multiplies in a loop of steps, all gates at once, without gradients.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor

import seqc
from benchmarks.machine import machine
from benchmarks.timing import quartiles
from seqc.check.timing import race
from seqc.frontend.sources import read

GATES = {"lstm": "ifzo", "gru": "rzn"}
KINDS = ("90% of blocks of 16", "95% unstructured")
BLOCK = 16
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Layer:
    """A spec's arguments. masks: of its recurrent matrices, all of one kind."""

    spec: str
    given: dict[str, Tensor]
    masks: dict[str, Tensor]

    @property
    def pruned(self) -> dict[str, Tensor]:
        """The arguments with 0 for what is pruned."""
        made = {name: x.detach() * self.masks.get(f"{name}_mask", 1) for name, x in self.given.items()}
        return {name: x.requires_grad_() for name, x in made.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table; 1 where an output is wrong."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.sparse", description=(__doc__ or "").split("\n")[0])
    made.add_argument("specs", nargs="*", metavar="SPEC", help=f"names (default: {' '.join(GATES)})")
    made.add_argument("--width", type=int, default=1024, help="units of the layer (default: 1024)")
    made.add_argument("--steps", type=int, default=256, help="steps of a sequence (default: 256)")
    made.add_argument("--batch", type=int, default=8, help="sequences (default: 8)")
    made.add_argument("--rounds", type=int, default=7, help="rounds (default: 7)")
    made.add_argument("--threads", type=int, default=2, help="threads (default: 2)")
    made.add_argument("--backend", default="cpu", help="of seqc (default: cpu)")
    args = made.parse_args(arguments)
    torch.set_num_threads(args.threads)
    print(f"{machine()['cpu']}, {args.threads} threads, float32; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    wrong = False
    for spec in args.specs or GATES:
        for kind in KINDS:
            one = layer(spec, kind, args.width, args.steps, args.batch)
            wrong |= compared(one, args.backend) > TOLERANCE
            print(f"{spec} of {args.width}, {kind}, T {args.steps}, B {args.batch}")
            for what, calls in (("forward", forward(one, args.backend)), ("forward and gradients", trained(one, args.backend))):
                seconds = race(calls, args.rounds).seconds
                base = median(seconds["seqc, dense"])
                print(f"  {what:34}{'quarter':>10}{'median':>10}{'quarter':>10}  ms   faster than dense")
                for name, taken in seconds.items():
                    low, middle, high = (1e3 * x for x in quartiles(taken))
                    print(f"    {name:32}{low:10.1f}{middle:10.1f}{high:10.1f}{1e3 * base / middle:12.2f}")
    print("WRONG outputs" if wrong else f"outputs agree to {TOLERANCE:g}")
    return int(wrong)


def layer(spec: str, kind: str, width: int, steps: int, batch: int) -> Layer:
    """Random arguments of a spec with one head, and masks."""
    torch.manual_seed(0)
    given = {f"x_{g}": torch.randn(batch, steps, 1, width) for g in GATES[spec]}
    matrices = [f"R_{g}" for g in GATES[spec]]
    given |= {name: torch.randn(1, width, width) / math.sqrt(width) for name in matrices}
    if spec == "gru":
        given |= {f"b_{g}": torch.zeros(1, width) for g in GATES[spec]}
    masks = {f"{name}_mask": mask(kind, width) for name in matrices}
    return Layer(spec, {name: x.requires_grad_() for name, x in given.items()}, masks)


def mask(kind: str, width: int) -> Tensor:
    """What is kept of one head's matrix."""
    if kind == KINDS[1]:
        return torch.rand(1, width, width) < 0.05
    blocks = torch.rand(1, -(-width // BLOCK), -(-width // BLOCK)) < 0.1
    return blocks.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, :width, :width]


def recurrences(one: Layer, backend: str) -> dict[str, tuple[Any, dict[str, Tensor], dict[str, Tensor]]]:
    """seqc's contenders: a name, the recurrence, its arguments, and its masks."""
    text = read(one.spec).text
    names = ", ".join(name.removesuffix("_mask") for name in one.masks)
    sparse = seqc.compile(f"{text}\nsparse {names} by mask\n", backend=backend)
    dense = seqc.compile(one.spec, backend=backend)
    return {"seqc, sparse": (sparse, one.given, one.masks), "seqc, dense": (dense, one.pruned, {})}


def compared(one: Layer, backend: str) -> float:
    """The largest difference between the outputs of the sparse layer, the dense one, and torch.sparse."""
    with torch.no_grad():
        found = [call() for call in forward(one, backend, peers=False).values()]
        found.append(loop(one, "csr")())
    return max(float((a - b).abs().max()) for a, b in pairwise(found))


def forward(one: Layer, backend: str, peers: bool = True) -> dict[str, Callable[[], Any]]:
    """Calls without gradients."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, (recurrence, given, masks) in recurrences(one, backend).items():
        detached = {k: x.detach() for k, x in given.items()}
        calls[name] = lambda f=recurrence, g={**detached, **masks}: f(**g).h
    if peers:
        calls["torch.nn, dense"] = torch_nn(one, train=False)
        calls["torch.sparse, CSR"] = loop(one, "csr")
        calls["torch.sparse, BSR"] = loop(one, "bsr")
    return calls


def trained(one: Layer, backend: str) -> dict[str, Callable[[], Any]]:
    """Calls with the gradients of all arguments."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, (recurrence, given, masks) in recurrences(one, backend).items():
        def call(f: Any = recurrence, g: dict[str, Tensor] = given, m: dict[str, Tensor] = masks) -> Any:
            h = f(**g, **m).h
            return torch.autograd.grad(h, list(g.values()), torch.ones_like(h))

        calls[name] = call
    return calls | {"torch.nn, dense": torch_nn(one, train=True)}


def torch_nn(one: Layer, train: bool) -> Callable[[], Any]:
    """torch's own layer of that size."""
    x = next(iter(one.given.values()))
    width = x.shape[-1]
    module = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[one.spec](1, width, batch_first=True)
    inputs = torch.randn(*x.shape[:2], 1)

    def call() -> Any:
        if not train:
            with torch.no_grad():
                return module(inputs)[0]
        h = module(inputs)[0]
        return torch.autograd.grad(h, list(module.parameters()), torch.ones_like(h))

    return call


def loop(one: Layer, layout: str) -> Callable[[], Any]:
    """A loop of steps, whose recurrent product is one of torch.sparse's: of all gates, one under the other."""
    gates = GATES[one.spec]
    weights = torch.cat([one.pruned[f"R_{g}"].detach()[0] for g in gates])
    width = weights.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "in beta state"
        matrix: Any = weights.to_sparse_csr() if layout == "csr" else weights.to_sparse_bsr((BLOCK, BLOCK))
    inputs = torch.stack([one.given[f"x_{g}"].detach()[:, :, 0] for g in gates])

    @torch.no_grad()
    def call() -> Any:
        h = c = inputs.new_zeros(width, inputs.shape[1])
        out = []
        for t in range(inputs.shape[2]):
            x, products = inputs[:, :, t].mT, (matrix @ h).view(len(gates), width, -1)
            if one.spec == "gru":
                r, z = (x[:2] + products[:2]).sigmoid()
                n = torch.tanh(x[2] + r * products[2])
                h = n + z * (h - n)
            else:
                i, f, o = (x[k] + products[k] for k in (0, 1, 3))
                c = f.sigmoid() * c + i.sigmoid() * torch.tanh(x[2] + products[2])
                h = o.sigmoid() * torch.tanh(c)
            out.append(h.mT)
        return torch.stack(out, 1)[:, :, None]

    return call


if __name__ == "__main__":
    sys.exit(main())
