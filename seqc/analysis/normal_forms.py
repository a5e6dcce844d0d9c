"""Two normal forms of a value: a product of factors, and a linear combination of atoms.

In: a node. Out: the nodes that it is a product (or a weighted sum) of. Both describe the *value* in exact arithmetic:
they look through `stopgrad` and reassociate, so analyses (`seqc.analysis.ranges`,
`seqc.passes.claims.bounds`) may use them; a rewrite may not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from seqc.ir.graph import Node, const, constant, node

LIMIT = 24  # more terms than this are left as they are: no analysis gains from them


def number(n: Node) -> float | None:
    """The value of a constant, else None."""
    return constant(n) if n.op == "const" else None


def bare(n: Node) -> Node:
    """n without `stopgrad` around it: the same value."""
    while n.op == "stopgrad":
        n = n.args[0]
    return n


def factors(n: Node, whole: Callable[[Node], bool] = lambda n: False) -> tuple[float, list[Node]]:
    """(coefficient, factors) whose product is n; a divisor b stands as the node 1 / b. At most LIMIT factors.

    A node for which `whole` holds is not taken apart.
    """
    coefficient, found, work = 1.0, list[Node](), [bare(n)]
    while work:
        x = bare(work.pop())
        if len(found) + len(work) >= LIMIT or whole(x):
            found.append(x)
        elif x.op == "mul":
            work += reversed(x.args)
        elif x.op == "neg":
            coefficient = -coefficient
            work.append(x.args[0])
        elif x.op == "div" and number(x.args[0]) != 1.0:
            work += (const(1.0) / x.args[1], x.args[0])
        elif x.op == "expand":
            work.append(x.args[0])
        elif (c := number(x)) is not None:
            coefficient *= c
        else:
            found.append(x)
    return coefficient, found


def terms(n: Node, inside: Callable[[Node], bool] = lambda n: True) -> list[tuple[int, Node]]:
    """n as a sum: (sign, term) of each, from left to right. A sum that does not lie `inside` is one term."""
    out = []
    stack = [(1, n)]
    while stack:
        sign, x = stack.pop()
        if not inside(x):
            out.append((sign, x))
        elif x.op in ("add", "sub"):
            stack += [(sign if x.op == "add" else -sign, x.args[1]), (sign, x.args[0])]
        elif x.op == "neg":
            stack.append((-sign, x.args[0]))
        else:
            out.append((sign, x))
    return out


def without(factors: Iterable[Node], gone: Iterable[Node]) -> tuple[Node, ...] | None:
    """The factors of a product but those that are gone; None if one of these is not there."""
    left = list(factors)
    for f in gone:
        if f not in left:
            return None
        left.remove(f)
    return tuple(left)


@dataclass(frozen=True)
class Linear:
    """constant + sum of weight * atom; no weight is zero."""

    constant: float
    weights: Mapping[Node, float]

    def plus(self, other: Linear, scale: float = 1.0) -> Linear:
        """self + scale * other."""
        weights = dict(self.weights)
        for atom, w in other.weights.items():
            weights[atom] = weights.get(atom, 0.0) + scale * w
        return Linear(self.constant + scale * other.constant, {a: w for a, w in weights.items() if w != 0.0})


def linear(n: Node) -> Linear:
    """n as a linear combination. expm1(x) is read as exp(x) - 1, and sigmoid(-x) as 1 - sigmoid(x)."""
    constant, weights = 0.0, dict[Node, float]()
    work = [(1.0, n)]
    while work:
        scale, x = work.pop()
        x = bare(x)
        if (c := number(x)) is not None:
            constant += scale * c
        elif len(weights) + len(work) >= LIMIT:
            weights[x] = weights.get(x, 0.0) + scale
        elif x.op == "add":
            work += [(scale, a) for a in reversed(x.args)]
        elif x.op == "sub":
            work += [(-scale, x.args[1]), (scale, x.args[0])]
        elif x.op == "neg":
            work.append((-scale, x.args[0]))
        elif x.op == "expand":
            work.append((scale, x.args[0]))
        elif x.op == "mul" and (found := _scaled(x)) is not None:
            work.append((scale * found[0], found[1]))
        elif x.op == "div" and (c := number(x.args[1])) is not None and c != 0.0:
            work.append((scale / c, x.args[0]))
        elif x.op == "expm1":
            work += [(-scale, const(1.0)), (scale, node("exp", x.args[0]))]
        elif x.op == "sigmoid" and x.args[0].op == "neg":
            work += [(-scale, node("sigmoid", x.args[0].args[0])), (scale, const(1.0))]
        else:
            weights[x] = weights.get(x, 0.0) + scale
    return Linear(constant, {a: w for a, w in weights.items() if w != 0.0})


def _scaled(x: Node) -> tuple[float, Node] | None:
    """(c, y) if the product x is a constant c times y."""
    for i in (0, 1):
        c = number(x.args[i])
        if c is not None:
            return c, x.args[1 - i]
    return None


def complement(n: Node) -> Node | None:
    """f if n is 1 - f in exact arithmetic, else None."""
    form = linear(n)
    if form.constant == 1.0 and len(form.weights) == 1:
        ((atom, weight),) = form.weights.items()
        if weight == -1.0:
            return atom
    return None
