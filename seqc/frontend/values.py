"""A value while the builder works on it: a node of the step graph and the order in which its dims are read.

In: nodes. Out: nodes. The graph knows sets of dims; matrix products and messages need the order that the spec shows, so
the builder carries it along. The batch dim is never part of the order. A complex value is two nodes, and from here on
nothing but real numbers is left. What does not fit raises `Misuse`; nothing here reports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeAlias

from seqc.frontend.complex_pairs import RULES, ZERO, Pair, mul
from seqc.ir.dims import primed, unprimed
from seqc.ir.graph import Node, const, constant, leaves, lift, node, renamed, total
from seqc.ir.ops.structure import expanded

Orders: TypeAlias = "frozenset[tuple[str, ...]]"

WHOLE = (-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0)  # powers that are products


class Misuse(Exception):
    """The arguments do not fit the function: message, cause and help for the diagnostic."""

    def __init__(self, message: str, cause: str = "", help: str = "") -> None:
        self.message, self.cause, self.help = message, cause, help
        super().__init__(message)


@dataclass(frozen=True)
class Value:
    """`node` with its dims, batch excluded, in reading order; of a complex value, `node` is the real part.

    A part may lack dims of the value: it is constant along them. `written`: the orders that declarations give to dims of the
    value, for outputs whose dims are not written; an order of one dim alone says nothing and is left out. `places`: the dim of
    which the value tells positions; "" of a number that is only a number.
    """

    node: Node
    order: tuple[str, ...] = ()
    imag: Node | None = None
    written: Orders = frozenset()
    places: str = ""

    def of(self, nodes: Iterable[Node]) -> Value:
        """Another value with the same dims, which is only a number."""
        found = tuple(nodes)
        imag = found[1] if len(found) > 1 and found[1] is not ZERO else None
        return replace(self, node=found[0], imag=imag, places="")

    def over(self, dims: Iterable[str]) -> Value:
        """The value without some of its dims."""
        gone = set(dims)
        order = tuple(dim for dim in self.order if dim not in gone)
        return replace(self, order=order, written=within(self.written, order))

    def declared_order(self) -> tuple[str, ...] | None:
        """The one order of the dims that all of the declarations allow; None where there are several, or none."""
        before = {pair for own in self.written for pair in combinations(own, 2)}
        found = tuple(sorted(self.order, key=lambda dim: sum((other, dim) in before for other in self.order)))
        pairs = set(combinations(found, 2))
        return found if pairs <= before and not any((b, a) in before for a, b in pairs) else None

    @property
    def pair(self) -> Pair:
        """(real part, imaginary part)"""
        return self.node, ZERO if self.imag is None else self.imag

    @property
    def parts(self) -> tuple[Node, ...]:
        """The real part, and the imaginary part of a complex value."""
        return (self.node,) if self.imag is None else (self.node, self.imag)

    def shown(self) -> str:
        """The dims as they are written: `[H, K]`; `[]` for a scalar."""
        return shown(self.order)

    def __add__(self, other: Value | float) -> Value:
        return apply("add", self, _value(other))

    def __sub__(self, other: Value | float) -> Value:
        return apply("sub", self, _value(other))

    def __mul__(self, other: Value | float) -> Value:
        return apply("mul", self, _value(other))

    def __truediv__(self, other: Value | float) -> Value:
        return apply("div", self, _value(other))

    def __radd__(self, other: float) -> Value:
        return number(other) + self

    def __rsub__(self, other: float) -> Value:
        return number(other) - self

    def __rmul__(self, other: float) -> Value:
        return number(other) * self

    def __rtruediv__(self, other: float) -> Value:
        return number(other) / self

    def __neg__(self) -> Value:
        return apply("neg", self)


def shown(dims: Iterable[str]) -> str:
    """Dims in brackets."""
    return f"[{', '.join(dims)}]"


def merged(values: Iterable[Value]) -> tuple[str, ...]:
    """The order of an elementwise result: first come, first written."""
    return tuple(dict.fromkeys(dim for value in values for dim in value.order))


def within(orders: Iterable[tuple[str, ...]], dims: Iterable[str]) -> Orders:
    """Orders, of some dims only."""
    kept = set(dims)
    cut = (tuple(dim for dim in order if dim in kept) for order in orders)
    return frozenset(order for order in cut if len(order) > 1)


def written(values: Iterable[Value]) -> Orders:
    """What the declarations behind all of the values say."""
    return frozenset().union(*(value.written for value in values))


def of_pair(pair: Pair, order: tuple[str, ...], written: Orders = frozenset()) -> Value:
    """The value of two parts: real where the imaginary part is no more than the constant 0."""
    return Value(pair[0], order, None if pair[1] is ZERO else pair[1], written)


def part_names(word: str, is_complex: bool) -> tuple[str, ...]:
    """What the parts of a value are called outside: the name itself, or NAME_re and NAME_im."""
    return (f"{word}_re", f"{word}_im") if is_complex else (word,)


def part(value: Value, which: int) -> Value:
    """The real (0) or the imaginary part (1) as a value with the same dims."""
    found = value.pair[which]
    return value.of([expanded(found, (*found.dims, *value.order))])


def _value(x: Value | float) -> Value:
    return x if isinstance(x, Value) else number(x)


def apply(op: str, *given: Value | float) -> Value:
    """An elementwise operator on values and numbers, broadcast by name."""
    values = [_value(x) for x in given]
    if any(value.imag is not None for value in values):
        if op not in RULES:
            raise Misuse(f"`{op}` takes no complex value", "complex values have no order, and few functions")
        return of_pair(RULES[op](*(value.pair for value in values)), merged(values), written(values))
    return Value(node(op, *(value.node for value in values)), merged(values), None, written(values))


def number(x: float) -> Value:
    """A scalar constant."""
    return Value(const(x))


def real(value: Value) -> Value:
    """The value as a number: 1 and 0 for a truth value."""
    if value.node.dtype != "bool":
        return value
    return value.of([node("where", value.node, lift(1.0), lift(0.0))])


def truth(value: Value) -> Value:
    """The value as a condition: a number holds where it is not zero."""
    if value.imag is not None:
        raise Misuse("a complex value is no condition", help="write `abs(x) > 0`")
    return value if value.node.dtype == "bool" else apply("ne", value, 0.0)


def reduced(op: str, value: Value, dims: tuple[str, ...]) -> Value:
    """`sum` or `amax` over dims that the value has."""
    rest = value.over(dims)
    if value.imag is not None:
        if op != "sum":
            raise Misuse("complex values have no order", help="take `re`, `im` or `abs` of them")
        return rest.of((total(value.node, dims), total(value.imag, dims)))
    return rest.of([node(op, value.node, over=tuple(sorted(dims)))])


def at(value: Value, dim: str, position: int) -> Value:
    """The value at one position of a dim; itself where it has no such dim."""
    if dim not in value.order:
        return value
    found = value.over((dim,)).of(node("take", x, dim=dim, at=position) if dim in x.dims else x for x in value.pair)
    return replace(found, places=value.places)


def constant_of(value: Value) -> float | None:
    """The number, where the value is a constant."""
    return constant(value.node) if value.node.op == "const" and value.imag is None else None


def power(base: Value, exponent: Value) -> Value:
    """base ^ exponent, by multiplication, root or exponential where one of these is exact or safer than `pow`.

    Small whole exponents become products (right for negative bases on every target); a constant positive base becomes
    exp(log(base) * exponent), whose range and derivative are known, where the exponent is made of inputs or parameters. An
    exponent of positions and counts alone may be whole, and a whole power of a whole number is exact.
    """
    e, b = constant_of(exponent), constant_of(base)
    if base.imag is not None and e not in WHOLE:
        raise Misuse("complex values have whole powers up to 4 in size only", help="write exp(...) where it is meant")
    if e is not None and e in WHOLE:
        product = base
        for _ in range(int(abs(e)) - 1):
            product = product * base
        return product if e > 0 else 1.0 / product
    if e == 0.5:
        return apply("sqrt", base)
    if b is not None and b > 0 and any(leaf.text("kind") in ("input", "param") for leaf in leaves([exponent.node])):
        return apply("exp", apply("log", base) * exponent)
    return apply("pow", base, exponent)


def renamed_dims(value: Value, names: Mapping[str, str]) -> Value:
    """The value with its dims renamed all at once, so that two may trade places; a truth value becomes a number."""
    value = real(value)
    result, order = value.pair, value.order
    later: dict[str, str] = {}
    for old, new in names.items():
        free = new if new not in order else primed(new, (*order, *names.values(), *later))
        result, order = _renamed(result, old, free), tuple(free if d == old else d for d in order)
        if free != new:
            later[free] = new
    for old, new in later.items():
        result, order = _renamed(result, old, new), tuple(new if d == old else d for d in order)
    found = of_pair(result, order, frozenset(tuple(names.get(dim, dim) for dim in own) for own in value.written))
    return replace(found, places=value.places)


def contracting(left: tuple[str, Sequence[str]], right: tuple[str, Sequence[str]]) -> str:
    """What to write where `@` finds nothing to contract: of both sides, the text and the dims."""
    (a, ours), (b, theirs) = left, right
    common = [dim for dim in ours if dim in theirs]
    if common:
        return f"contract by name: `sum[{common[-1]}]({a} * {b})`"
    if not ours or not theirs:
        return f"the product with a scalar is `{a} * {b}`"
    return f"the outer product is `{a} * {b}`; to contract two dims of one size, rename one: `{b}[{theirs[-1]} -> {ours[-1]}]`"


def matmul(left: Value, right: Value) -> Value | None:
    """left @ right: the last dim of the left with the like-named dim of the right; None if there is no such dim.

    Of a square the column D' meets the D of the right, whichever of D and D' is last: a transposed matrix is one.
    R[.., D, D'] @ h[.., D]: h's D is renamed to the column D' (to a fresh name where h has a D' itself), and the
    product is summed over it. Where one of the two has no row, as v[D'] has none, D' meets D' itself.
    """
    left, right = real(left), real(right)
    plain = unprimed(left.order[-1]) if left.order else ""
    if (column := f"{plain}'") in left.order[:-1] and left.order[-1] == plain:
        left = replace(left, order=(*(d for d in left.order if d != column), column))
    if plain and left.order[-1] in right.order and not (plain in left.order and plain in right.order):
        over = left.order[-1]
        return _product(left, right, (left.pair, right.pair), over, tuple(d for d in merged((left, right)) if d != over))
    if not left.order or unprimed(left.order[-1]) not in right.order:
        return None
    column, row = left.order[-1], unprimed(left.order[-1])
    inner = column
    a, b = left.pair, right.pair
    if column != row or row in left.order[:-1]:
        inner = column if column not in right.order else primed(column, (*left.order, *right.order))
        a = a if inner == column else _renamed(a, column, inner)
        b = _renamed(b, row, inner)
    order = (*left.order[:-1], *(d for d in right.order if d != row and d not in left.order[:-1]))
    return _product(left, right, (a, b), inner, order)


def _renamed(pair: Pair, old: str, new: str) -> Pair:
    return renamed(pair[0], old, new), renamed(pair[1], old, new)


def _product(left: Value, right: Value, pairs: tuple[Pair, Pair], over: str, order: tuple[str, ...]) -> Value:
    own = within(written((left, right)), order)
    a, b = pairs
    if a[1] is ZERO and b[1] is ZERO:
        return Value(node("sum", node("mul", a[0], b[0]), over=(over,)), order, None, own)
    found = mul(a, b)
    return of_pair((total(found[0], (over,)), found[1] if found[1] is ZERO else total(found[1], (over,))), order, own)
