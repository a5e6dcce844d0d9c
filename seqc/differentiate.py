"""graph (outputs, cotangents) -> graph of the cotangents of leaves: the vector-Jacobian product, as nodes.

Needs: nothing. Gives: for each leaf asked for, the sum over all uses of (cotangent of the user) times (local derivative),
rules from the operator table. It works on any graph, a step, a scan block or a chunk alike: time inside a block is one
more named dim. An operator without a rule is refused; it never contributes zero silently. Where an argument was
broadcast, its cotangent is summed over the dims that it lacks; and so is the cotangent of a root that is stored to an array
with more dims (an output made of params alone has neither batch nor rows), before any other contribution is added to it.
The result is linear in the cotangents, which is why a backward kernel may split any dim that the forward never mixes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seqc.diagnostics import Unsupported
from seqc.graph import Node, const, depends, topological, total
from seqc.ops import TABLE


def vjp(outputs: Mapping[str, Node], cotangents: Mapping[str, Node], wrt: Iterable[Node]) -> dict[Node, Node]:
    """Cotangent of every node in `wrt` (leaves, or inner nodes), given those of some `outputs`.

    A cotangent may lack dims of its node: it is then constant along them. A leaf that no output depends on gets the
    constant 0. Raises Unsupported for an operator that has no derivative rule.
    """
    wanted = list(wrt)
    roots = [outputs[name] for name in cotangents]
    active = depends(roots, wanted)
    found: dict[Node, Node] = {}
    for name, d in cotangents.items():
        _add(found, outputs[name], d)
    for n in reversed(topological(roots)):
        if n not in active or n not in found:
            continue
        d = found[n]
        row = TABLE[n.op]
        if row.vjp is None:
            raise Unsupported(f"operator '{n.op}' has no derivative rule, so no gradient can be derived through it")
        for arg, rule in zip(n.args, row.vjp, strict=True):
            if rule is not None and arg in active:
                part = rule(n, d)
                # an elementwise argument was broadcast along the dims that it lacks: sum over them, whether or not
                # the cotangent varies along them
                _add(found, arg, total(part, [x for x in n.dims if x not in arg.dims]) if row.elementwise else part)
    return {n: found.get(n, const(0.0)) for n in wanted}


def fit(d: Node, n: Node) -> Node:
    """The cotangent d summed over the dims that n lacks."""
    extra = [x for x in d.dims if x not in n.dims]
    return total(d, extra) if extra else d


def _add(found: dict[Node, Node], n: Node, d: Node) -> None:
    if d.op == "const" and d.attr("value") == 0.0:
        return
    d = fit(d, n)  # before it is added: a sum would repeat the others along a dim that d alone has
    found[n] = found[n] + d if n in found else d
