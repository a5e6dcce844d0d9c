"""A spec's block is its step, many times over: shown in exact arithmetic, at random points of finite fields.

In: a program and a block of it. Out: `Fact`s. A block maps (states as it begins, inputs of its rows) to (states as it ends,
outputs). Where it equals so many single steps from *any* state, so does a chain of blocks, by the law of composition and
induction over the blocks: the state that one ends with is the one that the next begins with. Shown are: that a block is so many
steps; the same of a last block, whose rows after the sequence's end must count for nothing; that the block's gradient is its
derivative, by dual numbers in a random direction; and that simplification changed nothing of step and gradient.
Where an identity does not hold, a random point misses it with a chance below its degree over a million.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqc.analysis.boundaries import counters
from seqc.ir.block import VALID, Block, cotangent_leaves, gradient_key
from seqc.ir.dims import extent
from seqc.ir.graph import BATCH, COL, ROW, Node, leaves
from seqc.ir.keys import next_key
from seqc.ir.program import Program
from seqc.passes.derive_backward import derive_backward
from seqc.passes.simplify.simplify import simplify
from seqc.semantics import exact
from seqc.semantics.exact import Number, constant, drawn
from seqc.semantics.exact_graph import NotExact, shaped, values_of
from seqc.semantics.exact_slopes import slopes_of

POINTS = 2  # random points for each fact


@dataclass(frozen=True)
class Fact:
    """What was shown, or not: how many numbers were equal of how many, and the names of values that were not."""

    what: str
    equal: int
    of: int
    wrong: tuple[str, ...] = ()
    refused: str = ""

    @property
    def ok(self) -> bool:
        """Whether all are equal."""
        return not self.refused and self.equal == self.of


def prove(program: Program, block: Block, sizes: Mapping[str, int], points: int = POINTS) -> Iterator[Fact]:
    """The facts about one block, one by one."""
    step = program.graph
    yield _fact("the step, simplified, is the step", lambda rng: _alike(program, step, simplify(step), sizes, rng, 1), points)
    if block.form != "step":
        steps, less = f"a block of {block.rows} rows is {block.rows} steps", block.rows - max(block.rows // 4, 1)
        yield _fact(f"{steps}, from any state", lambda rng: _composed(program, block, sizes, rng, block.rows), points)
        last = f"a last block of {less} steps is {less} steps"
        yield _fact(last, lambda rng: _composed(program, block, sizes, rng, less), points)
    yield _fact("the gradient is the derivative (dual numbers)", lambda rng: _derived(program, block, sizes, rng), points)
    raw = derive_backward(program, block.form, block.forward)
    yield _fact("the gradient, simplified, is the gradient",
                lambda rng: _alike(program, raw, block.backward, sizes, rng, block.rows), points)


def _fact(what: str, compare: Any, points: int) -> Fact:
    equal = of = 0
    wrong: dict[str, None] = {}
    for seed in range(points):
        try:
            for name, hits in compare(np.random.default_rng(seed)):
                equal, of = equal + int(hits.sum()), of + hits.size
                wrong |= {} if hits.all() else {name: None}
        except NotExact as refusal:
            return Fact(what, 0, 0, refused=str(refusal))
    return Fact(what, equal, of, tuple(wrong))


def _extents(sizes: Mapping[str, int], rows: int) -> dict[str, int]:
    return {**sizes, BATCH: 2, ROW: rows, COL: rows}


def _shape(n: Node, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(extent(d, sizes) for d in n.names("shape"))


def _points(program: Program, roots: Mapping[str, Node], sizes: Mapping[str, int], rng: Any) -> dict[Node, Any]:
    """A random value for every leaf; all rows inside the sequence."""
    given: dict[Node, Any] = {}
    for n in leaves(roots.values()):
        if n is VALID:
            given[n] = np.ones(sizes[ROW], bool)
        elif n.text("kind") == "state" and n.text("name") in counters(program):
            given[n] = _count(program, n, sizes, rng)
        else:
            given[n] = drawn(rng, _shape(n, sizes))
    return given


def _count(program: Program, n: Node, sizes: Mapping[str, int], rng: Any) -> Number:
    """Steps since a boundary: whole numbers below the period."""
    made = rng.integers(0, min(counters(program)[n.text("name")], exact.P // 4), _shape(n, sizes))
    return exact.number(tuple(np.asarray(made, np.int64) for _ in exact.FIELDS))


def _alike(
    program: Program, before: Mapping[str, Node], after: Mapping[str, Node], sizes: Mapping[str, int], rng: Any, rows: int
) -> Iterator[tuple[str, Any]]:
    """Two graphs of the same values, at one point."""
    extents = _extents(sizes, rows)
    given = _points(program, {**before, **{f"{k}'": n for k, n in after.items()}}, extents, rng)
    first, second = values_of(before, given, extents), values_of(after, given, extents)
    for name in after:
        dims = before[name].dims
        yield name, exact.same(first[name], shaped(second[name], after[name].dims, dims, extents))


def _composed(program: Program, block: Block, sizes: Mapping[str, int], rng: Any, inside: int) -> Iterator[tuple[str, Any]]:
    """A block whose first rows lie inside, against so many single steps."""
    extents = _extents(sizes, block.rows)
    given = _points(program, block.forward, extents, rng)
    given[VALID] = np.arange(block.rows) < inside
    rows = np.minimum(np.arange(block.rows), inside - 1)  # rows outside repeat the last one inside
    repeated = {n: x.each(lambda a: np.take(a, rows, 1)) for n, x in given.items() if n.text("kind") == "input"}
    found = values_of(block.forward, given | repeated, extents)
    outputs, last = _stepped(program, _of_steps(program, given, extents, rng, block.rows), extents, inside)
    for name, d in program.output_decls.items():
        whole = shaped(found[name], block.forward[name].dims, (BATCH, ROW, *d.axes[1:]), extents)
        for t in range(inside):
            yield name, exact.same(whole.each(lambda a, t=t: a[:, t]), outputs[name][t])
    for name, d in program.states.items():
        root = block.forward[next_key(name)]
        yield f"{name}_T", exact.same(shaped(found[next_key(name)], root.dims, d.axes, extents), last[d.leaf()])


def _of_steps(program: Program, given: Mapping[Node, Any], extents: Mapping[str, int], rng: Any, rows: int) -> dict[Node, Any]:
    """The values of a block's leaves for the leaves of the step; inputs with all their rows."""
    known = {(n.text("kind"), n.text("name"), n.number("offset")): x for n, x in given.items()}
    found: dict[Node, Any] = {}
    for n in leaves([*program.graph.values(), *(d.leaf() for d in program.states.values())]):
        kind, shape = n.text("kind"), _shape(n, extents)
        value = known.get((kind, n.text("name"), n.number("offset")))
        if value is None:  # the block does not read it
            value = drawn(rng, (shape[0], rows, *shape[1:]) if kind == "input" else shape)
        found[n] = value
    return found


def _stepped(
    program: Program, fixed: Mapping[Node, Any], extents: Mapping[str, int], count: int
) -> tuple[dict[str, list[Any]], dict[Node, Any]]:
    """(outputs of each step, the states after the last one) of single steps."""
    step = program.graph
    now = {d.leaf(): fixed[d.leaf()] for d in program.states.values()}
    outputs: dict[str, list[Any]] = {name: [] for name in program.outputs}
    for t in range(count):
        here = {n: x.each(lambda a, t=t: a[:, t]) if n.text("kind") == "input" else x for n, x in fixed.items()}
        values = values_of(step, {**here, **now}, extents)
        for name, d in program.output_decls.items():
            outputs[name].append(shaped(values[name], step[name].dims, d.axes, extents))
        for d in program.states.values():
            root = step[next_key(d.name)]
            now[d.leaf()] = shaped(values[next_key(d.name)], root.dims, d.axes, extents)
    return outputs, now


def _derived(program: Program, block: Block, sizes: Mapping[str, int], rng: Any) -> Iterator[tuple[str, Any]]:
    """sum(cotangent * derivative along a direction) = sum(gradient * direction)."""
    extents = _extents(sizes, block.rows)
    given = _points(program, {**block.forward, **block.backward}, extents, rng)
    moving = [n for n in leaves(block.forward.values())
              if n is not VALID and program.declared(n).gradient and n.text("name") not in counters(program)]
    along = {n: drawn(rng, _shape(n, extents)) for n in moving}
    slopes = slopes_of(block.forward, given, along, extents)
    cotangents = cotangent_leaves(program, block.form)
    left = constant(0.0)
    for name, root in block.forward.items():
        cot = cotangents[name]
        value = given.get(cot)
        if value is None:  # backward does not read it: the result must not move
            value = drawn(rng, _shape(cot, extents))
        spread = shaped(slopes[name], root.dims, cot.names("shape"), extents)
        left = exact.add(left, _inner(value, spread))
    gradients = values_of(block.backward, given, extents)
    right = constant(0.0)
    for n in moving:
        key = gradient_key(n)
        if key in gradients:
            spread = shaped(gradients[key], block.backward[key].dims, n.names("shape"), extents)
            right = exact.add(right, _inner(spread, along[n]))
    yield "the derivative", np.atleast_1d(exact.same(left, right))


def _inner(a: Number, b: Number) -> Number:
    product = exact.multiply(a, b)
    return exact.total(product, tuple(range(len(product.shape))))
