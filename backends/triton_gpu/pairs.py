"""Which matrices [t, s] of a block need no state, and are therefore computed for all blocks at once.

In: roots of kernels, and the roles of the dims. Out: the largest values in them over pairs of steps that depend on no state
and no cotangent, and that contract something: decayed products, the inverse of the rows' system. A kernel over all blocks
then keeps them: the chain from block to block has its products with states alone, and programs that take pieces of a
dim do not each compute what has no such dim. It makes no kernel; that is `schedule`'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from seqc.backends.triton_gpu.roles import Roles, is_time
from seqc.ir.block import BATCH, COL, ROW
from seqc.ir.graph import Node, depends, leaves, topological

CONTRACTIONS = ("sum", "tri_inv")


def pairs(roots: Iterable[Node], roles: Roles) -> tuple[Node, ...]:
    """Those below the roots, none of them only needed by another."""
    roots = list(roots)
    order = topological(roots)
    given = [n for n in leaves(roots) if n.text("kind") in ("state", "cot")]
    pieces = [n for n in order if set(n.dims) & set(roles.blocked)]
    late = depends(roots, (*given, *pieces))  # a program of that kernel has no piece of any dim
    grand = depends(roots, (n for n in order if n.op in CONTRACTIONS and sum(map(is_time, n.dims)) == 2))
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    todo = roots[::-1]
    while todo:
        n = todo.pop()
        if n in seen:
            continue
        seen.add(n)
        if n in grand and n not in late and _is_pair(n, roles):
            found[n] = None
        else:
            todo += n.args[::-1]
    return tuple(found)


def is_costly(n: Node, roles: Roles) -> bool:
    """Whether each program of pieces would compute n again at the price of sums or exponentials over steps and a contracted
    dim, as the levels of a decayed product have them. A product alone is sooner computed again than loaded."""
    wide = (x for x in topological([n]) if x.op in ("exp", "cumsum", "affine_scan") and any(map(is_time, x.dims)))
    return any(not is_time(d) for x in wide for d in roles.axes(x.dims))


def _is_pair(n: Node, roles: Roles) -> bool:
    """Whether n has a value for each pair of steps of each sequence, one for each program, and is no other value's alias."""
    return {d for d in n.dims if d not in roles.grid} == {ROW, COL} and BATCH in n.dims and n.op not in ("rename", "expand")
