"""What cutting a step graph in parts needs to know of its nodes.

In: nodes, programs. Out: nodes and answers. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seqc.ir.graph import BATCH, RESERVED, Node, leaf, rebuild, topological
from seqc.ir.program import Program


def times(values: Iterable[Node]) -> Node:
    """The product of all values."""
    first, *rest = values
    for x in rest:
        first = first * x
    return first


def bare(n: Node) -> Node:
    """n under the names and the repetition of its dims."""
    while n.op in ("rename", "expand"):
        n = n.args[0]
    return n


def plain(n: Node) -> bool:
    """Whether a tensor can be declared for n."""
    return n.dtype == "real" and BATCH in n.dims and not any(d.endswith("'") for d in n.dims)


def sized(part: Program) -> bool:
    """Whether each dim of a part has a size: a default, or a tensor that has the dim."""
    tensors = (*part.inputs.values(), *part.params.values())
    told = {d.rstrip("'") for tensor in tensors for d in tensor.dims}
    return all(d.default is not None or name in told for name, d in part.dims.items())


def terms(n: Node) -> list[Node]:
    """The terms of a sum, without their signs."""
    out, stack = [], [n]
    while stack:
        x = stack.pop()
        if x.op in ("add", "sub"):
            stack += reversed(x.args)
        else:
            out.append(x)
    return out


def reached(roots: Iterable[Node], stops: set[Node]) -> set[Node]:
    """Everything below the roots, but nothing below `stops`."""
    seen: set[Node] = set()
    todo = list(roots)
    while todo:
        n = todo.pop()
        if n not in seen:
            seen.add(n)
            todo += () if n in stops else n.args
    return seen


def replaced(
    outputs: Mapping[str, Node], table: Mapping[Node, Node], mirrored: bool
) -> tuple[dict[str, Node], dict[Node, Node]]:
    """(the roots, node -> what it has become). mirrored: what was a step ago is a step ahead."""
    done: dict[Node, Node] = {}
    for n in topological(outputs.values()):
        if n in table:
            done[n] = table[n]
        elif mirrored and n.op == "leaf" and n.text("kind") == "input":
            done[n] = leaf("input", n.text("name"), n.names("shape"), -n.number("offset"), n.text("type"))
        else:
            done[n] = rebuild(n, tuple(done[a] for a in n.args))
    return {name: done[n] for name, n in outputs.items()}, done


def names_of(program: Program) -> set[str]:
    """The names that nothing new of a program may have."""
    taken = {*program.inputs, *program.params, *program.states, *program.outputs, *program.dims, *RESERVED}
    return taken | {f"{name}{mark}" for name in program.states for mark in ("_0", "_T", "_all")}


def fresh(wish: str, taken: set[str]) -> str:
    """A name that is not taken, and is from now on."""
    name, i = wish, 1
    while name in taken:
        i += 1
        name = f"{wish}_{i}"
    taken.add(name)
    return name


__all__ = ["bare", "fresh", "names_of", "plain", "reached", "replaced", "sized", "terms", "times"]
