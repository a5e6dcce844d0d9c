"""Which matrices [t, s] of a block need no state, and are therefore computed for all blocks at once.

In: roots of kernels, and the roles of the dims. Out: the largest values in them over pairs of steps that depend on no state
and no cotangent, and that contract something: decayed products, the inverse of the rows' system. A kernel over all blocks
then keeps them, and operands of products with states that cost sums and exponentials over steps: the chain from block to
block has its products with states alone, and programs that take pieces of a dim do not each compute what has no such dim.
It makes no kernel; that is `schedule`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from seqc.backends.triton_gpu.roles import Roles, lines
from seqc.ir.block import BATCH, COL, ROW
from seqc.ir.dims import is_rank, is_time
from seqc.ir.graph import Node, depends, leaves, topological

CONTRACTIONS = ("sum", "tri_inv")


def pairs(roots: Iterable[Node], roles: Roles) -> tuple[Node, ...]:
    """Those below the roots, none of them only needed by another."""
    roots = list(roots)
    late = _late(roots, roles)
    grand = depends(roots, (n for n in topological(roots) if n.op in CONTRACTIONS and sum(map(is_time, n.dims)) == 2))
    return _largest(roots, lambda n: n in grand and n not in late and _is_pair(n, roles))


def operands(roots: Iterable[Node], roles: Roles, known: Iterable[Node]) -> tuple[Node, ...]:
    """Other values below the roots that no state, no cotangent and no piece of a dim is needed for, the largest of them, and
    that are costly: keys and queries times their decays to a block's ends, and the decay of a whole block. None where they
    are more than the inputs that they stand for, and one: loading them would cost more. known: values that are kept anyway."""
    roots = list(roots)
    late = _late(roots, roles)

    def wanted(n: Node) -> bool:
        if n in late or n.op in ("rename", "expand") or BATCH not in n.dims or not roles.axes(n.dims):
            return False
        times = [d for d in n.dims if is_time(d)]
        if times == [ROW]:  # no matrix of each row: a product takes its two factors
            return is_costly(n, roles) and len(lines(roles.axes(n.dims))) <= 2
        return not times and len(roles.axes(n.dims)) == 1 and bool(leaves([n], "input"))

    found = _largest(roots, wanted, known)
    rows = [n for n in found if ROW in n.dims]
    inputs = {n for n in leaves(rows, "input") if len(lines(roles.axes(n.dims))) > 1}
    return found if 0 < len(rows) <= len(inputs) + 1 else ()


def _late(roots: list[Node], roles: Roles) -> set[Node]:
    """What depends on states, cotangents, or pieces of a dim: a program of the kernel has no piece of any dim."""
    given = [n for n in leaves(roots) if n.text("kind") in ("state", "cot")]
    return depends(roots, (*given, *(n for n in topological(roots) if set(n.dims) & set(roles.blocked))))


def _largest(roots: list[Node], wanted: Callable[[Node], bool], known: Iterable[Node] = ()) -> tuple[Node, ...]:
    """The wanted values below the roots that are not below another one alone, or below known ones."""
    found: dict[Node, None] = {}
    seen: set[Node] = set(known)
    todo = roots[::-1]
    while todo:
        n = todo.pop()
        if n in seen:
            continue
        seen.add(n)
        if wanted(n):
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
    own = {d for d in n.dims if d not in roles.grid and not is_rank(d)}
    return own == {ROW, COL} and BATCH in n.dims and n.op not in ("rename", "expand")
