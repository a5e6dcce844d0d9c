"""Windows: many steps of an input read as one leaf, with a dim of its own for the distance.

    x[t - index[L]]   ->   a leaf of the input x with the dims of x and L, whose `lags` are 0, 1, .., |L| - 1

Position j of the window's dim is x at the lag `offset + stride * j`; 0 outside of the sequence, as at any other lag. A window
has as many positions as its dim, whose size is fixed. What walks over steps knows windows (the oracle, the plain form's step).
Kernels know none: a plan takes windows out of recurrences (`seqc.passes.plan.taps`), or reads each of their steps one by one
(`seqc.passes.plan.written_out`).
"""

from __future__ import annotations

from collections.abc import Iterable

from seqc.ir.graph import BATCH, Node, leaf, leaves, node

LONG = 32  # lags: fewer are read one by one, which kernels do at once with what they compute


def window(name: str, axes: tuple[str, ...], dim: str, lags: range) -> Node:
    """The leaf of an input at many lags. axes: those of the input, the batch first."""
    assert axes[0] == BATCH and dim not in axes
    return node(
        "leaf", kind="input", name=name, shape=(BATCH, dim, *axes[1:]), offset=lags.start, type="real", window=dim,
        count=len(lags), stride=lags.step,
    )  # fmt: skip


def window_of(n: Node) -> str:
    """The dim of a window's lags; "" of any other node."""
    return n.text("window") if n.op == "leaf" and len(n.attrs) > 5 else ""


def lags(n: Node) -> range:
    """The lags at which a leaf of an input reads it."""
    first = n.number("offset")
    if not window_of(n):
        return range(first, first + 1)
    return range(first, first + n.number("stride") * n.number("count"), n.number("stride"))


def read_at(n: Node, lags: range) -> Node:
    """A leaf of an input, or a window of one, at other lags."""
    axes = n.names("shape")
    if not window_of(n):
        return leaf("input", n.text("name"), axes, lags.start, n.text("type"))
    return window(n.text("name"), (BATCH, *axes[2:]), window_of(n), lags)


def sooner(n: Node, steps: int) -> Node:
    """A leaf of an input as it is so many steps ahead."""
    found = lags(n)
    return read_at(n, range(found.start - steps, found.stop - steps, found.step))


def mirrored(n: Node) -> Node:
    """A leaf of an input where time runs the other way."""
    found = lags(n)
    return read_at(n, range(-found.start, -found.stop, -found.step))


def windows(roots: Iterable[Node]) -> list[Node]:
    """The windows below some roots."""
    return [n for n in leaves(roots, "input") if window_of(n)]
