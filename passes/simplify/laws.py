"""The laws of simplification: every rewrite of `passes/simplify/simplify.py`, as before -> after.

In: a node. Out: the node that it may be replaced by, or None. A law keeps every finite value, up to rounding where
factors are regrouped; it never makes a NaN or an infinity where there was none, and may remove one that only the
spelling caused (log(exp(x)) at x = 1000). The sign of a zero is not kept. Nothing is folded through `stopgrad` or
`surrogate`: the derivative is part of the value. `x * 0`, `x - x` and `x / x` stay: they are not 0 and 1 at infinity.
"""

from __future__ import annotations

import math

from seqc.analysis.normal_forms import number
from seqc.ir.graph import Node, const, node, operands, rebuild, renamed, size, total
from seqc.ir.ops import TABLE
from seqc.ir.rewrite import Bindings, Rule, law, var

X, Y, Z, C = var("x"), var("y"), var("z"), var("c")
ZERO, ONE = const(0.0), const(1.0)
HUGE = 1e100  # constants are merged only if no product of two can overflow or vanish
FAR = 1e-100


def _fold(n: Node) -> Node | None:
    if n.dtype != "real" or not n.args or any(a.op != "const" for a in n.args):
        return None
    import numpy as np

    values = [number(a) for a in n.args]
    with np.errstate(all="ignore"):
        found = float(TABLE[n.op].ref(*(np.float64(v) for v in values if v is not None)))
    return None if math.isnan(found) else const(found)


def _merge_constants(n: Node) -> Node | None:
    """(x * a) * b -> x * (a b)"""
    for inner, outer in (n.args, n.args[::-1]):
        b = number(outer)
        if b is None or inner.op != "mul":
            continue
        for x, k in (inner.args, inner.args[::-1]):
            a = number(k)
            if a is not None and all(FAR <= abs(v) <= HUGE for v in (a, b, a * b)):
                return x * (a * b)
    return None


def _power(n: Node) -> Node | None:
    match number(n.args[1]):
        case 0.0:
            return ONE
        case 1.0:
            return n.args[0]
        case 2.0:
            return n.args[0] * n.args[0]
        case 3.0:
            return n.args[0] * n.args[0] * n.args[0]
        case -1.0:
            return ONE / n.args[0]
        case _:
            return None


def truth(n: Node) -> bool | None:
    """The truth value of a condition that the constants alone decide."""
    if n.op in ("and", "or"):
        sides = [truth(a) for a in n.args]
        decisive = n.op == "or"
        if decisive in sides:
            return decisive
        return None if None in sides else not decisive
    if n.op == "not":
        inner = truth(n.args[0])
        return None if inner is None else not inner
    values = [number(a) for a in n.args]
    if n.dtype != "bool" or not values or None in values:
        return None
    return bool(TABLE[n.op].ref(*values))


def _decide(n: Node) -> Node | None:
    known = truth(n.args[0])
    return None if known is None else n.args[1 if known else 2]


def _lift_expand(n: Node) -> Node | None:
    """f(expand(x), y) -> f(x, y): broadcasting is by name, and the engine adds the expansion back on top if needed."""
    if not TABLE[n.op].elementwise or all(a.op != "expand" for a in n.args):
        return None
    return node(n.op, *(a.args[0] if a.op == "expand" else a for a in n.args), **dict(n.attrs))


def _lift_expand_along(n: Node) -> Node | None:
    """op[K](expand[V](x)) -> expand[V](op[K](x)), for dims V that the operator does not touch."""
    (x,) = n.args
    if x.op != "expand":
        return None
    along = [v for key, v in n.attrs if key in ("over", "dim", "old")]
    touched = {str(d) for v in along for d in (v if isinstance(v, tuple) else (v,))}
    kept = tuple(d for d in x.names("over") if d in touched)
    if kept == x.names("over"):
        return None
    return rebuild(n, (node("expand", x.args[0], over=kept) if kept else x.args[0],))


def _merge_expand(n: Node) -> Node | None:
    """expand(expand(x)) -> expand(x)"""
    x = n.args[0]
    if not n.names("over"):
        return x
    if x.op != "expand":
        return None
    return node("expand", x.args[0], over=tuple(sorted(n.names("over") + x.names("over"))))


def _sum_of_expand(n: Node) -> Node | None:
    """sum[K](expand[K](x)) -> x * size(K)"""
    x = n.args[0]
    if not n.names("over"):
        return x
    if x.op != "expand":
        return None
    gone = tuple(d for d in n.names("over") if d in x.names("over"))
    if not gone:
        return None
    kept = tuple(d for d in x.names("over") if d not in gone)
    out = total(node("expand", x.args[0], over=kept) if kept else x.args[0], set(n.names("over")) - set(gone))
    for d in gone:
        out = out * size(d)
    return out


def _merge_sums(n: Node) -> Node | None:
    """sum[K](sum[V](x)) -> sum[K, V](x)"""
    x = n.args[0]
    if x.op != "sum":
        return None
    return node("sum", x.args[0], over=tuple(sorted(n.names("over") + x.names("over"))))


def _pull_factors(n: Node) -> Node | None:
    """sum[K](c * x) -> c * sum[K](x) for c without K; sum[K, V](a * b) -> sum[K](a) * sum[V](b) for a[K], b[V]"""
    over = set(n.names("over"))
    if n.args[0].op not in ("mul", "div"):
        return None
    whole, below = n.args[0], list[Node]()
    while whole.op == "div" and not over & set(whole.args[1].dims):
        below.append(whole.args[1])
        whole = whole.args[0]
    above = operands(whole, lambda x: x.op == "mul")  # a quotient further inside may be shared: it stays one factor
    groups: list[tuple[set[str], list[Node]]] = []  # factors that share summed dims
    outer = []
    for f in above:
        dims = over & set(f.dims)
        if not dims:
            outer.append(f)
            continue
        joined = [g for g in groups if g[0] & dims]
        groups = [g for g in groups if not g[0] & dims]
        groups.append((dims.union(*(g[0] for g in joined)), [*(x for g in joined for x in g[1]), f]))
    if not outer and not below and len(groups) < 2:
        return None
    order = {f: i for i, f in enumerate(above)}
    parts = [*outer]
    for dims, members in sorted(groups, key=lambda g: min(order[f] for f in g[1])):
        parts.append(total(_times(sorted(members, key=order.__getitem__)), dims))
    out = _times(parts)
    for f in below:
        out = out / f
    return out


def _times(parts: list[Node]) -> Node:
    out = parts[0]
    for p in parts[1:]:
        out = out * p
    return out


def _sum_of_negative(n: Node) -> Node | None:
    """sum(-x) -> -sum(x)"""
    x = n.args[0]
    return -node("sum", x.args[0], over=n.names("over")) if x.op == "neg" else None


def _rename_twice(n: Node) -> Node | None:
    """rename b->c of rename a->b -> rename a->c; nothing for a->b->a"""
    x = n.args[0]
    if x.op != "rename" or x.text("new") != n.text("old"):
        return None
    return renamed(x.args[0], x.text("old"), n.text("new")) if x.text("old") != n.text("new") else x.args[0]


def _rename_expanded(n: Node) -> Node | None:
    """rename a->b of expand[a](x) -> expand[b](x): the engine adds the expansion"""
    x = n.args[0]
    if x.op != "expand" or n.text("old") not in x.names("over"):
        return None
    over = tuple(sorted(n.text("new") if d == n.text("old") else d for d in x.names("over")))
    return node("expand", x.args[0], over=over)


def _take_of_expand(n: Node) -> Node | None:
    """take[K](expand[K](x)) -> x"""
    x = n.args[0]
    if x.op != "expand" or n.text("dim") not in x.names("over"):
        return None
    kept = tuple(d for d in x.names("over") if d != n.text("dim"))
    return node("expand", x.args[0], over=kept) if kept else x.args[0]


def _scan_of_nothing(n: Node) -> Node | None:
    """affine_scan(1, 0, x) -> x, along the whole dim"""
    a, b, start = n.args
    return start if _spread(a) is ONE and _spread(b) is ZERO else None


def _spread(n: Node) -> Node:
    return n.args[0] if n.op == "expand" else n


def _nonnegative(bound: Bindings) -> bool:
    return bound[X].op in ("exp", "sigmoid", "softplus", "abs", "sqrt")


def _is_power_of_two(bound: Bindings) -> bool:
    c = number(bound[C])
    return c is not None and c != 0.0 and math.frexp(c)[0] in (0.5, -0.5) and FAR <= abs(c) <= HUGE


def op(name: str, *args: Node) -> Node:
    """Shorthand for patterns."""
    return node(name, *args)


FOLDED = tuple(name for name, row in TABLE.items() if row.elementwise and name != "surrogate")
ELEMENTWISE = tuple(name for name, row in TABLE.items() if row.elementwise and row.linear_backward)

CONSTANTS = (
    Rule("an operator on constants -> its value", FOLDED, _fold),
    Rule("where(true, x, y) -> x, where(false, x, y) -> y", ("where",), _decide),
)
RULES: tuple[Rule, ...] = (
    *CONSTANTS,
    # neutral elements
    law(X + ZERO, X),
    law(X + const(-0.0), X),
    law(X - ZERO, X),
    law(ZERO - X, -X),
    law(X * ONE, X),
    law(X * const(-1.0), -X),
    law(X / ONE, X),
    law(op("max", X, X), X),
    law(op("min", X, X), X),
    Rule("pow(x, c) -> products, for c in 0, 1, 2, 3, -1", ("pow",), _power),
    # signs move outward, and cancel
    law(op("neg", -X), X),
    law((-X) * (-Y), X * Y),
    law((-X) * Y, -(X * Y)),
    law((-X) / (-Y), X / Y),
    law((-X) / Y, -(X / Y)),
    law(X / (-Y), -(X / Y)),
    law(X + (-Y), X - Y),
    law(X - (-Y), X + Y),
    law(-(X - Y), Y - X),
    law(op("abs", -X), op("abs", X)),
    law(op("abs", op("abs", X)), op("abs", X)),
    # constants
    Rule("mul(mul(x, a), b) -> mul(x, a b)", ("mul",), _merge_constants),
    law(X / C, X * (ONE / C), _is_power_of_two, "for a power of two"),
    # exponentials, in the form that keeps its digits
    law(op("log", op("exp", X)), X),
    law(op("exp", op("log", X)), X, _nonnegative, "for x that cannot be negative"),
    law(op("exp", op("logsigmoid", X)), op("sigmoid", X)),
    law(op("exp", -op("softplus", X)), op("sigmoid", -X)),
    law(op("log", op("sigmoid", X)), op("logsigmoid", X)),
    law(op("log", ONE - op("sigmoid", X)), op("logsigmoid", -X)),
    law(-op("softplus", -X), op("logsigmoid", X)),
    law(op("log", ONE + op("exp", X)), op("softplus", X)),
    law(op("log1p", op("exp", X)), op("softplus", X)),
    law(op("log", ONE + X), op("log1p", X)),
    law(op("log", ONE - X), op("log1p", -X)),
    law(op("exp", X) - ONE, op("expm1", X)),
    # choices
    law(op("where", C, X, X), X),
    law(op("where", op("not", C), X, Y), op("where", C, Y, X)),
    law(op("where", C, op("where", C, X, Y), Z), op("where", C, X, Z)),
    law(op("where", C, X, op("where", C, Y, Z)), op("where", C, X, Z)),
    law(op("where", C, X, ZERO) + op("where", C, ZERO, Y), op("where", C, X, Y)),
    law(op("not", op("not", C)), C),
    law(op("and", C, C), C),
    law(op("or", C, C), C),
    # broadcasting, as late as possible
    Rule("f(expand(x), y) -> expand(f(x, y)), for f elementwise", ELEMENTWISE, _lift_expand),
    Rule("f[K](expand[V](x)) -> expand[V](f[K](x))", ("sum", "amax", "rename", "take", "cumsum", "shift"),
         _lift_expand_along),
    Rule("expand(expand(x)) -> expand(x)", ("expand",), _merge_expand),
    Rule("sum[K](expand[K](x)) -> x * size(K)", ("sum",), _sum_of_expand),
    Rule("take[K](expand[K](x)) -> x", ("take",), _take_of_expand),
    Rule("affine_scan(1, 0, x) -> x", ("affine_scan",), _scan_of_nothing),
    Rule("rename[a->b](expand[a](x)) -> expand[b](x)", ("rename",), _rename_expanded),
    Rule("rename[b->c](rename[a->b](x)) -> rename[a->c](x)", ("rename",), _rename_twice),
    # sums
    Rule("sum[K](sum[V](x)) -> sum[K, V](x)", ("sum",), _merge_sums),
    Rule("sum(-x) -> -sum(x)", ("sum",), _sum_of_negative),
    Rule("sum[K](c * x / d) -> c * sum[K](x) / d, for c and d without K", ("sum",), _pull_factors),
)
