"""Form "step": products of a parameter's matrix and the past are saved by forward, and not formed again by backward.

Before: backward recomputes `x + R @ h` of every step, and so a program holds R as it is beside R transposed, which the
cotangents need. After: backward reads the value, and holds R once. Saved is the last sum that the product alone goes into
(`x + R @ h`, before the gate's sigmoid), in the type of the inputs: near the ends of a sigmoid the gate itself would lose
what its derivative is made of.

In: the two graphs, in pairs. Out: the values by name, and backward with a leaf ("value", NAME) in the place of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seqc.backends.triton_gpu.pairing import is_dot
from seqc.backends.triton_gpu.roles import Roles
from seqc.emit.names import safe_name
from seqc.ir.block import BATCH
from seqc.ir.graph import Node, depends, leaf, leaves, rebuild, topological

LINEAR = ("add", "sub", "neg")


def saved_products(
    forward: Mapping[str, Node], backward: Mapping[str, Node], roles: Roles, names: Mapping[Node, str], taken: Iterable[str]
) -> dict[str, Node]:
    """The values of forward that backward is to read, by name: `before_f` of a gate f. taken: names that are not free."""
    given = set(topological(forward.values()))
    products = products_of_past(forward.values(), backward.values(), roles)
    users: dict[Node, list[Node]] = {}
    for n in topological(backward.values()):
        for a in dict.fromkeys(n.args):
            users.setdefault(a, []).append(n)
    found: dict[Node, Node] = {}  # what is saved -> its product
    for n in reversed(products):  # the last first: what it is made of may then be needed no more
        if n in topological(backward.values(), found):
            found[_whole_sum(n, users, given)] = n
    out: dict[str, Node] = {}
    for n in reversed(found):
        wanted = safe_name(_label(n, found[n], users, names))
        numbered = (wanted, *(f"{wanted}_{i}" for i in range(1, len(found) + 1)))
        out[next(x for x in numbered if x not in out and x not in taken)] = n
    return out


def products_of_past(forward: Iterable[Node], among: Iterable[Node], roles: Roles) -> list[Node]:
    """Of some values those that forward makes too, as products of a parameter's matrix and the past, in their order."""
    given = set(topological(forward))
    past = depends(given, leaves(given, "state"))
    return [n for n in topological(among) if n in given and n in past and _multiplies(n, past, roles)]


def read_instead(backward: Mapping[str, Node], values: Mapping[str, Node]) -> tuple[dict[str, Node], dict[Node, Node]]:
    """(backward with the values as leaves, what became of each node)."""
    done = {n: leaf("value", name, n.dims) for name, n in values.items()}
    for n in topological(backward.values(), done):
        done[n] = rebuild(n, tuple(done[a] for a in n.args))
    return {key: done[n] for key, n in backward.items()}, done


def _multiplies(n: Node, past: set[Node], roles: Roles) -> bool:
    """Whether n is a matrix product of the past and what parameters alone make."""
    if BATCH not in n.dims or not is_dot(n, roles):
        return False
    return sum(a not in past and not leaves([a], "input") for a in n.args[0].args) == 1


def _whole_sum(n: Node, users: Mapping[Node, list[Node]], given: set[Node]) -> Node:
    """The last sum of forward that n alone goes into."""
    while True:
        by = users.get(n, ())
        if len(by) != 1 or by[0].op not in LINEAR or by[0] not in given or by[0].dims != n.dims:
            return n
        n = by[0]


def _label(n: Node, product: Node, users: Mapping[Node, list[Node]], names: Mapping[Node, str]) -> str:
    """A name for a value: its own, that of the one value which is made of it, or that of its product's parameter or state."""
    if n in names:
        return f"{names[n]}_kept"
    made = [names[u] for u in users.get(n, ()) if u in names]
    if made:
        return f"before_{made[0]}"
    return f"{(leaves([product], 'param') or leaves([product], 'state'))[-1].text('name')}_product"
