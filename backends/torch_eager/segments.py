"""Values that live on a part of a block: which nodes need to be computed on a part of the rows only.

A chunk splits the pairs (t, s) of its rows by levels: at level b, rows t of the upper half of a segment of 2b rows meet
rows s of its lower half. Written as masks, every level costs as much as the whole block. Here

    where(same segment of 2b rows and t in its upper and s in its lower half, x, 0)

has the *form* {t: upper half at b, s: lower half at b}: it is kept as an array [segment, t inside, s inside], and with it
all that is zero elsewhere because of it (its support) or needed nowhere else (what all users demand).

A value that differs from zero on one row only (what a single row's gradient is) has the form {t: that row}.

In: nodes in topological order. Out: node -> form, for the nodes that have one; and what a form means for axes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from seqc.ir.graph import COL, ROW, Node
from seqc.ir.ops import TABLE

# (dim, b, "u" | "l"): the dim is confined to this half of every 2b rows; (dim, i, "@"): to row i
Form = frozenset[tuple[str, int, str]]
DENSE: Form = frozenset()


def forms_of(order: Sequence[Node], roots: Iterable[Node], rows: int) -> dict[Node, Form]:
    """The nodes of `order` that are computed on a part of the rows, with their forms."""
    support: dict[Node, Form] = {}
    for n in order:
        support[n] = _support(n, support, rows)
    if not any(support.values()):
        return {}
    demands: dict[Node, set[Form]] = defaultdict(set)
    for n in roots:
        demands[n].add(DENSE)
    forms: dict[Node, Form] = {}
    for n in reversed(order):
        form = support[n]
        if not form and len(demands[n]) == 1:
            form = next(iter(demands[n]))
            form = form if _can(n, form) else DENSE
        if form:
            forms[n] = form
        for a in n.args:
            demands[a].add(_demand(n, a, form))
    return forms


def within(form: Form, dims: Iterable[str]) -> Form:
    """The part of a form that concerns `dims`."""
    return frozenset(e for e in form if e[0] in dims)


def axes_in(axes: Sequence[str], form: Form) -> tuple[str, ...]:
    """The axes of a value in a form, for its axes outside: a dim becomes its segments and the rows inside a half."""
    halves = {dim: (b, side) for dim, b, side in form}
    out: list[str] = []
    for d in axes:
        if d in halves:
            b, side = halves[d]
            if side == "@":
                continue
            out += [x for x in (f"%m{b}", f"%{side}{b}") if x not in out]
        else:
            out.append(d)
    return tuple(out)


def level_of(mask: Node, rows: int) -> int:
    """b, where a mask is that of level b of a block of `rows` rows; else 0."""
    if mask.op == "gt":
        b = _segment(mask.args[0], ROW)
        return b if 2 * b == rows and _segment(mask.args[1], COL) == b else 0
    if mask.op != "and":
        return 0
    for same, order in (mask.args, mask.args[::-1]):
        if same.op == "eq" and order.op == "gt":
            b = _segment(order.args[0], ROW)
            widths = {_segment(same.args[0], ROW), _segment(same.args[1], COL)}
            if widths == {0}:
                widths = {_segment(same.args[1], ROW), _segment(same.args[0], COL)}
            if b and _segment(order.args[1], COL) == b and widths == {2 * b}:
                return b
    return 0


def row_of(mask: Node, rows: int) -> int:
    """i, where a mask is true for row i of a block only; else -1."""
    if mask.op != "eq" or mask.dims not in ((ROW,), (COL,)):
        return -1
    for index, at in (mask.args, mask.args[::-1]):
        if index.op == "index":
            if at.op == "const":
                return int(float(f"{at.attr('value')}"))
            if at.op in ("sub", "add") and at.args[0].op == "size" and at.args[1].op == "const":
                from_end = float(f"{at.args[1].attr('value')}") * (1 if at.op == "add" else -1)
                return rows + int(from_end) if from_end < 0 else -1
    return -1


def _segment(n: Node, dim: str) -> int:
    """b, where n is the number of the segment of b rows that an index of `dim` lies in; else 0."""
    if n.op == "index" and n.text("dim") == dim:
        return 1
    return n.number("block") if n.op == "block_index" and n.text("dim") == dim else 0


def zero(n: Node) -> bool:
    """Whether n is the constant 0."""
    return n.op == "const" and n.attr("value") == 0.0


def _support(n: Node, support: Mapping[Node, Form], rows: int) -> Form:
    """Where n can differ from zero, if that is a form."""
    forms = [support[a] for a in n.args if a in support]
    match n.op:
        case "where" if zero(n.args[2]):
            b = level_of(n.args[0], rows)
            if b:
                return frozenset({(ROW, b, "u"), (COL, b, "l")})
            row = row_of(n.args[0], rows) if n.args[1].op != "const" else -1
            return frozenset({(n.args[0].dims[0], row, "@")}) if row >= 0 else support.get(n.args[1], DENSE)
        case "where" if zero(n.args[1]):
            return support.get(n.args[2], DENSE)
        case "mul":
            return max(forms, key=len, default=DENSE)
        case "div" | "neg" | "stopgrad" | "surrogate" | "expand":
            return support.get(n.args[0], DENSE)
        case "add" | "sub":
            return forms[0] if len(forms) == 2 and forms[0] == forms[1] else DENSE
        case "sum":
            return within(support.get(n.args[0], DENSE), n.dims)
        case "rename":
            new = {n.text("old"): n.text("new")}
            form = support.get(n.args[0], DENSE)
            return frozenset((new.get(d, d), b, side) for d, b, side in form)
        case "cumsum":
            form = support.get(n.args[0], DENSE)
            return form if _can(n, form) else DENSE
    return DENSE


def _can(n: Node, form: Form) -> bool:
    """Whether n can be computed in a form from arguments in it."""
    if n.op == "cumsum":  # inside a half, sums that restart at least as often as the halves do
        block = n.number("block")
        return all(block and b % block == 0 and side != "@" for d, b, side in form if d == n.text("dim"))
    return n.op in ("sum", "rename", "expand") or TABLE[n.op].elementwise


def _demand(n: Node, a: Node, form: Form) -> Form:
    """The form in which n, computed in `form`, reads its argument a."""
    if n.op == "rename":
        old = {n.text("new"): n.text("old")}
        return frozenset((old.get(d, d), b, side) for d, b, side in form)
    return within(form, a.dims)
