"""Which arguments' gradients a kernel of a backward pass in phases serves: where none of them is asked for, it does not run.

In: the ways through the backward pass, and what outer products are made of. Out: kernel -> arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seqc.backends.triton_gpu.kernel import Array
from seqc.backends.triton_gpu.outer import Outer
from seqc.backends.triton_gpu.print_kernel import Printed
from seqc.ir.keys import slope_of

WRITTEN = ("grad", "scratch", "factor", "kept")  # roles of what kernels write for others, or for the caller of backward


def serves(
    ways: Sequence[Sequence[Sequence[Printed]]], outer: Mapping[str, Sequence[Outer]], every: frozenset[str]
) -> dict[str, frozenset[str]]:
    """Kernel -> the arguments that it serves, by itself or through kernels that read what it writes. every: what has
    a gradient."""
    factors: dict[str, set[str]] = {}
    for x, terms in outer.items():
        for term in terms:
            for f in term.factors:
                factors.setdefault(f.array, set()).add(x)
    found: dict[str, frozenset[str]] = {}
    for groups in ways:
        kernels = [k for group in groups for k in group]
        writer = {a.name: k for k in reversed(kernels) for a in k.arrays if a.role in WRITTEN}  # the first that has it
        readers: dict[str, set[str]] = {}
        for one in reversed(kernels):
            own: set[str] = set()
            for a in one.arrays:
                if writer.get(a.name) is one:
                    own |= _behind(a, every) | factors.get(a.name, set()) | readers.get(a.name, set())
            for given in filter(None, one.given):
                readers.setdefault(given.name, set()).update(own)
            found[one.kernel.name] = found.get(one.kernel.name, frozenset()) | own
    return found


def _behind(array: Array, every: frozenset[str]) -> frozenset[str]:
    """The argument whose gradient an array is, or is added to; all where its source does not tell."""
    if array.role != "grad":
        return frozenset()
    base = slope_of(array.source).name
    return frozenset({base, base.removesuffix("_0")}) & every or every
