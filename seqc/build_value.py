"""A value while the builder works on it: a node of the step graph and the order in which its dims are read.

In: nodes. Out: nodes. The graph knows sets of dims; matrix products and messages need the order that the spec shows, so
the builder carries it along. The batch dim is never part of the order. Nothing here reports errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seqc.graph import BATCH, Node, const, lift, node, renamed


@dataclass(frozen=True)
class Value:
    """`node` with its dims, batch excluded, in reading order."""

    node: Node
    order: tuple[str, ...] = ()

    def shown(self) -> str:
        """The dims as they are written: `[H, K]`; `[]` for a scalar."""
        return shown(self.order)


def shown(dims: Iterable[str]) -> str:
    """Dims in brackets."""
    return f"[{', '.join(dims)}]"


def merged(values: Iterable[Value]) -> tuple[str, ...]:
    """The order of an elementwise result: first come, first written."""
    return tuple(dict.fromkeys(dim for value in values for dim in value.order))


def apply(op: str, *values: Value) -> Value:
    """An elementwise operator on values, broadcast by name."""
    return Value(node(op, *(value.node for value in values)), merged(values))


def number(x: float) -> Value:
    """A scalar constant."""
    return Value(const(x))


def real(value: Value) -> Value:
    """The value as a number: 1 and 0 for a truth value."""
    if value.node.dtype != "bool":
        return value
    return Value(node("where", value.node, lift(1.0), lift(0.0)), value.order)


def truth(value: Value) -> Value:
    """The value as a condition: a number holds where it is not zero."""
    return value if value.node.dtype == "bool" else apply("ne", value, number(0.0))


def reduced(op: str, value: Value, dims: tuple[str, ...]) -> Value:
    """`sum` or `amax` over dims that the value has."""
    over = tuple(sorted(dims))
    return Value(node(op, value.node, over=over), tuple(d for d in value.order if d not in dims))


def at(value: Value, dim: str, position: int) -> Value:
    """The value at one position of a dim; itself where it has no such dim."""
    if dim not in value.order:
        return value
    return Value(node("take", value.node, dim=dim, at=position), tuple(d for d in value.order if d != dim))


def constant_of(value: Value) -> float | None:
    """The number, where the value is a constant."""
    if value.node.op != "const":
        return None
    found = value.node.attr("value")
    assert isinstance(found, float)
    return found


def power(base: Value, exponent: Value) -> Value:
    """base ^ exponent, by multiplication, root or exponential where one of these is exact or safer than `pow`.

    Small whole exponents become products (right for negative bases on every target); a constant positive base becomes
    exp(log(base) * exponent), whose range and derivative are known.
    """
    e, b = constant_of(exponent), constant_of(base)
    if e is not None and e in (-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0):
        product = base
        for _ in range(int(abs(e)) - 1):
            product = apply("mul", product, base)
        return product if e > 0 else apply("div", number(1.0), product)
    if e == 0.5:
        return apply("sqrt", base)
    if b is not None and b > 0:
        return apply("exp", apply("mul", apply("log", base), exponent))
    return apply("pow", base, exponent)


def renamed_dims(value: Value, names: Mapping[str, str]) -> Value:
    """The value with its dims renamed all at once, so that two may trade places."""
    result, order = value.node, value.order
    later: dict[str, str] = {}
    for old, new in names.items():
        free = new if new not in order else primed(new, (*order, *names.values(), *later))
        result, order = renamed(result, old, free), tuple(free if d == old else d for d in order)
        if free != new:
            later[free] = new
    for old, new in later.items():
        result, order = renamed(result, old, new), tuple(new if d == old else d for d in order)
    return Value(result, order)


def primed(dim: str, taken: Iterable[str]) -> str:
    """The dim's name with as many primes as make it new."""
    names = set(taken)
    while dim in names:
        dim += "'"
    return dim


def matmul(left: Value, right: Value) -> Value | None:
    """left @ right: the last dim of the left with the like-named dim of the right; None if there is no such dim.

    R[.., D, D'] @ h[.., D]: h's D is renamed to the column D' (to a fresh name where h has a D' itself), and the
    product is summed over it. A left side without the row, v[D'], meets D' itself.
    """
    if left.order and left.order[-1] in right.order and left.order[-1].rstrip("'") not in left.order:
        over = left.order[-1]
        return Value(node("sum", node("mul", left.node, right.node), over=(over,)),
                     tuple(d for d in merged((left, right)) if d != over))
    if not left.order or left.order[-1].rstrip("'") not in right.order:
        return None
    column, row = left.order[-1], left.order[-1].rstrip("'")
    inner = column
    a, b = left.node, right.node
    if column != row or row in left.order[:-1]:
        inner = column if column not in right.order else primed(column, (*left.order, *right.order))
        a, b = a if inner == column else renamed(a, column, inner), renamed(b, row, inner)
    order = (*left.order[:-1], *(d for d in right.order if d != row and d not in left.order[:-1]))
    return Value(node("sum", node("mul", a, b), over=(inner,)), order)


def batched(value: Value) -> bool:
    """Whether the value has the batch dim."""
    return BATCH in value.node.dims
