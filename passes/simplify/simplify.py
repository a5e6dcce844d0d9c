"""graph -> the same values with fewer operators.

Needs: nothing. Gives: constants folded (by the float64 reference), neutral elements and double signs gone, factors
pulled out of sums, nested sums merged, broadcasting as late as possible; equal subexpressions are one node, and dead
ones are gone, because nodes are interned. Dims of a root stay as they are, but a broadcast at a root is dropped.

The laws, and what each may change, are in `seqc.passes.simplify.laws`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from seqc.ir.graph import Node
from seqc.ir.keys import next_key
from seqc.ir.ops.structure import unexpanded
from seqc.ir.program import Program
from seqc.ir.rewrite import rewrite
from seqc.passes.simplify.laws import CONSTANTS, RULES


def simplify(outputs: Mapping[str, Node]) -> dict[str, Node]:
    """The outputs, simplified; a root may lose dims along which it is constant."""
    return {name: unexpanded(n) for name, n in rewrite(outputs, RULES)[0].items()}


def simplify_named(
    outputs: Mapping[str, Node], names: Mapping[Node, str]
) -> tuple[dict[str, Node], dict[Node, str]]:
    """The same, with the names that nodes were given carried along to what they have become."""
    new, image = rewrite(outputs, RULES)
    kept: dict[Node, str] = {}
    for old, name in names.items():
        now = unexpanded(image.get(old, old))
        if now.op not in ("leaf", "const"):
            kept.setdefault(now, name)
    return {name: unexpanded(n) for name, n in new.items()}, kept


def folded(program: Program) -> Program:
    """The program, where an operator on constants is its value and everything else is as it is written."""
    new, image = rewrite(program.graph, CONSTANTS)
    if new == program.graph:
        return program
    return replace(
        program,
        outputs={name: new[name] for name in program.outputs},
        updates={name: new[next_key(name)] for name in program.updates},
        spans={image.get(n, n): span for n, span in program.spans.items()},
        definitions={image.get(n, n): name for n, name in program.definitions.items()},
    )
