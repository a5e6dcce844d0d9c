"""loop graph -> the same values with linear scans taken out of the loop.

    take(f(x, y), row)         ->  f(take(x, row), take(y, row)), when f is elementwise and depends on carried values; a row is
        one of the block: a position of another dim stays as it is
    affine_scan(a, b, start)   ->  P * start + sum_i G_i * x_i + affine_scan(a, rest, 0)
        P = affine_scan(a, 0, 1),  G_i = affine_scan(a, c_i, 0),
        when a row of it is taken, or the loop needs all of it; start depends on carried values, or b is
        sum_i c_i * x_i + rest with carried x_i that lack the scan's dim; a, c_i and rest do not depend on carried values
    affine_scan(1, b, start)   ->  cumsum(b) + start
    max_scan(a, b, start)      ->  max(cumsum(a) + start, max_scan(a, b, -inf)), when only start depends on carried values
    (x * a) * b                ->  x * (a * b), when x depends on carried values, a and b do not, and a * b is no bigger

After this, the loop holds one multiplication and one addition per block, and every scan runs for all blocks at once.
In: roots of a block, the carried leaves, the number of rows of a block. Out: roots with the same values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from seqc.ir.graph import ROW, Node, const, depends, leaves, node, rebuild, renamed, topological, total
from seqc.ir.ops import TABLE
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.structure import affine_scan, cumsum, expanded, max_scan, resets, take, unexpanded
from seqc.ir.traverse import postorder
from seqc.ir.verify import verify

ZERO, ONE = const(0.0), const(1.0)
SCANS = ("affine_scan", "max_scan")


def hoist(
    outputs: Mapping[str, Node], carried: Mapping[Node, str], rows: int
) -> tuple[dict[str, Node], dict[Node, Node]]:
    """(the roots, old node -> new node); see the file's docstring. carried: leaf -> key of its next value."""
    late = Late(outputs.values(), carried)
    order = topological(outputs.values())
    uses = Counter(outputs.values())
    for n in order:
        uses.update(n.args)
    done: dict[Node, Node] = {}
    for n in order:
        fresh = _made(rebuild(n, tuple(done[a] for a in n.args)), late)
        if fresh.op == "take" and fresh.text("dim") == ROW and fresh in late:
            fresh = _taken(fresh.args[0], fresh.text("dim"), fresh.number("at"), rows, late)
        elif fresh.op == "affine_scan" and fresh.args[1] not in late:
            fresh = _made(_as_sum(fresh), late)
        elif fresh.op == "mul" and fresh in late:
            fresh = _grouped(fresh, [uses[a] == 1 for a in n.args], late)
        done[n] = fresh
    roots = {name: done[n] for name, n in outputs.items()}
    sequential = {n for n in topological(roots[key] for key in carried.values()) if n in late and n.op in SCANS}
    if sequential:  # a scan that the loop needs as a whole
        again: dict[Node, Node] = {}
        for n in topological(roots.values()):
            fresh = _made(rebuild(n, tuple(again[a] for a in n.args)), late)
            again[n] = _split(fresh, late) if n in sequential else fresh
        roots = {name: again[n] for name, n in roots.items()}
        done = {old: again.get(new, new) for old, new in done.items()}
    verify(roots, "hoist")
    return roots, done


class Late:
    """The nodes that depend on carried values; grows with the graph."""

    def __init__(self, roots: Iterable[Node], carried: Iterable[Node]) -> None:
        roots = list(roots)
        self._hit = depends(roots, carried)
        self._seen = set(topological(roots))

    def __contains__(self, n: Node) -> bool:
        return n in self._hit

    def learn(self, n: Node) -> None:
        """Judge n and every new node below it."""
        for x in postorder([n], lambda x: x.args, self._seen):
            self._seen.add(x)
            if any(a in self._hit for a in x.args):
                self._hit.add(x)


def _made(n: Node, late: Late) -> Node:
    late.learn(n)
    return n


def _grouped(n: Node, once: list[bool], late: Late) -> Node:
    for (product, factor), alone in zip((n.args, n.args[::-1]), once, strict=True):
        if product.op == "mul" and alone and factor not in late:
            for carried, other in (product.args, product.args[::-1]):
                dims = {*other.dims, *factor.dims}
                if other not in late and dims in (set(other.dims), set(factor.dims)) and carried in late:
                    return _made(carried * _made(other * factor, late), late)
    return n


def _split(n: Node, late: Late) -> Node:
    """A scan as scans that do not depend on carried values, times what does; n itself if it is not linear in that."""
    a, b, start = n.args
    if n.op == "max_scan":
        return _split_max(n, late)
    dim, reverse = n.text("dim"), bool(n.number("reverse"))
    terms = _linear(b, dim, late)
    if a in late or terms is None or dim in start.dims:
        return n
    carried, rest = terms
    out = _as_sum(affine_scan(a, expanded(rest, n.dims), ZERO if start in late else start, dim, reverse, resets(n)))
    if start in late:
        share = _as_sum(affine_scan(unexpanded(a, dim), ZERO, const(1.0), dim, reverse)) * start
        out = _unbroken(n, ZERO, const(1.0), share) + out
    for coefficient, x in carried:
        c = expanded(coefficient, (dim,))
        out = _unbroken(n, c, ZERO, _as_sum(affine_scan(unexpanded(a, dim), c, ZERO, dim, reverse)) * x) + out
    return _made(out, late)


def _unbroken(n: Node, given: Node, start: Node, part: Node) -> Node:
    """What a carried value adds to the scan n; 0, whatever that value is, where a reset lies between."""
    if not resets(n):
        return part
    dim, a = n.text("dim"), unexpanded(n.args[0], n.text("dim"))
    keeps, reach = (where(node("ne", x, ZERO), 1.0, 0.0) for x in (a, given))
    reached = affine_scan(keeps, reach, start, dim, bool(n.number("reverse")))
    return where(node("gt", reached, ZERO), part, 0.0)


def _as_sum(n: Node) -> Node:
    """A scan whose coefficients are all one, as a running sum."""
    a, b, start = n.args
    dim, reverse = n.text("dim"), bool(n.number("reverse"))
    plain = unexpanded(a)
    if plain.op == "shift" and plain.text("dim") == dim and plain.number("by") == (-1 if reverse else 1):
        if unexpanded(start) is not ZERO:  # the first row is multiplied by zero
            return n
        plain = unexpanded(plain.args[0])
    if plain is not ONE:
        return n
    if unexpanded(b) is ZERO:
        return expanded(start, n.dims)
    run = cumsum(b, dim, reverse=reverse)
    return run if unexpanded(start) is ZERO else run + start


def _split_max(n: Node, late: Late) -> Node:
    a, b, start = n.args
    dim = n.text("dim")
    if a in late or b in late or dim in start.dims:
        return n
    rest = max_scan(a, b, const(-math.inf), dim)
    moved = start if unexpanded(a) is ZERO else cumsum(a, dim) + start
    return _made(node("max", moved, rest), late)


Terms = tuple[list[tuple[Node, Node]], Node]  # (coefficient, carried value) pairs, and the rest


def _linear(b: Node, dim: str, late: Late) -> Terms | None:
    """b as sum_i c_i * x_i + rest (the x_i late and without `dim`), or None if it is not of this form."""
    done: dict[Node, Terms | None] = {}
    for x in postorder([b], lambda x: _parts(x, dim, late)):
        done[x] = _terms(x, dim, late, done)
    return done[b]


def _parts(b: Node, dim: str, late: Late) -> tuple[Node, ...]:
    """The arguments whose linear form that of b is made of."""
    if b not in late or dim not in b.dims:
        return ()
    match b.op:
        case "add" | "sub" | "neg" | "expand":
            return b.args
        case "mul":
            return next(((x,) for x, factor in (b.args, b.args[::-1]) if factor not in late), ())
        case "div" if b.args[1] not in late:
            return b.args[:1]
        case "where" if b.args[0] not in late and not any(x.text("kind") != "mask" for x in leaves([b.args[0]])):
            return b.args[1:]  # of rows alone: by values of a spec, 0 times what is dropped would be taken for nothing
    return ()


def _terms(b: Node, dim: str, late: Late, done: Mapping[Node, Terms | None]) -> Terms | None:
    """The linear form of b, from those of its parts."""
    if b not in late:
        return [], b
    if dim not in b.dims:
        return [(const(1.0), b)], ZERO
    parts = [done[x] for x in _parts(b, dim, late)]
    forms = [x for x in parts if x is not None]
    if not forms or len(forms) < len(parts):
        return None
    pairs, rest = forms[0]
    match b.op:
        case "add" | "sub":
            q, s = forms[1]
            if b.op == "sub":
                q, s = [(-c, x) for c, x in q], -s
            return pairs + q, rest if s is ZERO else s if rest is ZERO else rest + s
        case "neg":
            return [(-c, x) for c, x in pairs], -rest
        case "mul":
            factor = b.args[1] if b.args[1] not in late else b.args[0]
            return [(c * factor, v) for c, v in pairs], ZERO if rest is ZERO else rest * factor
        case "div":
            return [(c / b.args[1], v) for c, v in pairs], ZERO if rest is ZERO else rest / b.args[1]
        case "where":
            c, (others, other) = b.args[0], forms[1]
            joined = [(where(c, k, 0.0), v) for k, v in pairs] + [(where(c, 0.0, k), v) for k, v in others]
            return joined, where(c, rest, other) if (rest, other) != (ZERO, ZERO) else ZERO
    return pairs, rest


def _taken(x: Node, dim: str, at: int, rows: int, late: Late) -> Node:
    """x at one row, computed from that row alone where x is elementwise and late."""
    if dim not in x.dims:
        return x
    at %= rows
    row = TABLE[x.op]
    if x.op == "index":
        return const(float(at))
    if x not in late:
        return _take(x, dim, at, rows)
    if x.op == "where":
        settled = _truth(x.args[0], dim, at, rows)
        if settled is not None:
            return _taken(x.args[1 if settled else 2], dim, at, rows, late)
    if row.elementwise or x.op == "where":
        return _made(rebuild(x, tuple(_taken(a, dim, at, rows, late) for a in x.args)), late)
    if x.op == "expand":
        left = tuple(d for d in x.names("over") if d != dim)
        inner = _taken(x.args[0], dim, at, rows, late)
        return _made(node("expand", inner, over=left), late) if left else inner
    if x.op in ("sum", "amax") and dim in x.args[0].dims:
        return _made(rebuild(x, (_taken(x.args[0], dim, at, rows, late),)), late)
    if x.op == "shift" and x.text("dim") == dim:
        before = at - x.number("by")
        return _taken(x.args[0], dim, before, rows, late) if 0 <= before < rows else ZERO
    if x.op == "rename" and dim not in (x.text("old"), x.text("new")):
        return _made(renamed(_taken(x.args[0], dim, at, rows, late), x.text("old"), x.text("new")), late)
    if x.op in SCANS and x.text("dim") == dim and (parts := _split(x, late)) is not x:
        return _taken(parts, dim, at, rows, late)
    return _made(_take(x, dim, at, rows), late)


def _take(x: Node, dim: str, at: int, rows: int) -> Node:
    """A row; the last one is counted from the end, so that it reads as what it is."""
    if x.op == "expand":
        left = tuple(d for d in x.names("over") if d != dim)
        inner = _take(x.args[0], dim, at, rows) if dim in x.args[0].dims else x.args[0]
        return node("expand", inner, over=left) if left else inner
    last = x.op == "cumsum" and x.text("dim") == dim and at == (0 if x.number("reverse") else rows - 1)
    if last and not x.number("exclusive") and not x.number("block"):
        return total(x.args[0], (dim,))
    return take(x, dim, -1 if at == rows - 1 and rows > 1 else at)


def _truth(c: Node, dim: str, at: int, rows: int) -> bool | None:
    """The truth of `index(dim) == constant` at a row; None for any other condition."""
    if c.op != "eq":
        return None
    sides = [_row_number(x, dim, at, rows) for x in c.args]
    return None if None in sides else sides[0] == sides[1]


def _row_number(x: Node, dim: str, at: int, rows: int) -> float | None:
    match x.op:
        case "index" if x.text("dim") == dim:
            return float(at)
        case "const":
            return float(x.attr("value"))  # type: ignore[arg-type]
        case "size" if x.text("dim") == dim:
            return float(rows)
        case "add" | "sub":
            a, b = (_row_number(y, dim, at, rows) for y in x.args)
            return None if a is None or b is None else a + b if x.op == "add" else a - b
    return None
