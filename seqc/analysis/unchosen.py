"""A step that torch differentiates -> one of the same values, in which a branch that is not chosen has no derivative.

torch gives a branch of `where` that is not chosen the cotangent zero, and zero times an infinite slope is NaN. So what enters
the part of a branch that may be infinite is `where(chosen, x, stopgrad(x))`: the same value, whose cotangent is selected, not
multiplied, and so is zero whatever comes from above; derivatives of every order likewise. What is finite where its arguments
are stays as it is, and so does all that no branch holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from seqc.analysis.choices import any_of, steep_nodes
from seqc.ir.graph import BATCH, Node, leaves, node, renamed
from seqc.ir.once import found_once
from seqc.ir.ops import TABLE, holds
from seqc.ir.ops.elementwise import where
from seqc.ir.program import Program
from seqc.ir.traverse import postorder

_ALONG = ("sum", "amax", "expand", "rename")  # operators on dims that leave other dims as they are
_Value = TypeVar("_Value")
_Key = tuple[Node, Node | None]


@found_once
def without_unchosen(program: Program) -> Program:
    """The program with guarded branches; itself where no branch may be infinite."""
    made = _Branches(program.graph.values())

    def named(given: Mapping[Node, _Value]) -> dict[Node, _Value]:
        return {made.rebuilt(n) if n in made.steep else n: value for n, value in given.items()}

    updates = {x: made.rebuilt(n) for x, n in program.updates.items()}
    outputs = {x: made.rebuilt(n) for x, n in program.outputs.items()}
    if updates == program.updates and outputs == program.outputs:
        return program
    definitions, spans = named(program.definitions), named(program.spans)
    return replace(program, updates=updates, outputs=outputs, definitions=definitions, spans=spans)


class _Branches:
    """Rebuilds nodes for the choices under which they count: (node, condition) -> node."""

    def __init__(self, roots: Iterable[Node]) -> None:
        self.steep = steep_nodes(roots)
        self.done: dict[_Key, Node] = {}

    def rebuilt(self, root: Node) -> Node:
        """A node that always counts."""
        start: _Key = (root, None)
        for key in postorder([start], lambda key: self._below(*key), self.done):
            self.done[key] = self._made(*key)
        return self.done[start]

    def _below(self, n: Node, chosen: Node | None) -> list[_Key]:
        """The arguments of a node, with the conditions under which they count."""
        if not self.steep[n]:
            return []
        if n.op == "where":
            test, a, b = n.args
            return [(test, None), _key(a, _both(chosen, test)), _key(b, _both(chosen, node("not", test)))]
        if chosen is not None and n.op == "rename":
            chosen = renamed(chosen, n.text("new"), n.text("old"))
        return [_key(a, self._inside(n, chosen)) for a in n.args]

    def _inside(self, n: Node, chosen: Node | None) -> Node | None:
        """The condition within an operator: one that mixes the places of a dim is there for all of them."""
        if chosen is None or TABLE[n.op].elementwise or n.op in _ALONG:
            return chosen
        return any_of(chosen, tuple(d for d in chosen.dims if d != BATCH))

    def _made(self, n: Node, chosen: Node | None) -> Node:
        if not self.steep[n]:
            return n
        args = [self.done[key] for key in self._below(n, chosen)]
        if chosen is not None and n.op != "where" and not holds(n, "additive"):
            args = [self._guarded(n, a, x, chosen) for a, x in zip(n.args, args, strict=True)]
        return node(n.op, *args, **dict(n.attrs)) if tuple(args) != n.args else n

    def _guarded(self, n: Node, a: Node, x: Node, chosen: Node) -> Node:
        """An argument that enters the part of a branch that may be infinite."""
        if self.steep[a] or a.dtype != "real" or not leaves([a]):
            return x
        inside = self._inside(n, chosen)
        assert inside is not None
        if not TABLE[n.op].elementwise:
            inside = any_of(inside, tuple(d for d in inside.dims if d not in a.dims))
        return where(inside, x, node("stopgrad", x))


def _both(chosen: Node | None, test: Node) -> Node:
    return test if chosen is None else node("and", chosen, test)


def _key(a: Node, chosen: Node | None) -> _Key:
    """A node and the condition on its own dims: where any place of another dim is chosen."""
    return a, None if chosen is None else any_of(chosen, tuple(d for d in chosen.dims if d not in a.dims))

