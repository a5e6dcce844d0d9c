"""Kinds of recurrences whose elements see their neighbours, choose positions, or turn as complex vectors.

In: a `Writer`. Out: its lines and states, and readouts. Programs of numbers from `programs.ALONG` on have them besides others.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.fuzz.families import dims_of, past, state, update
from tests.fuzz.writer import Expr, Writer, bracketed

LINE = (3, 2, 5, 6, 7, 9, 1)  # lengths: most fill no tile and no vector


def line(w: Writer) -> str:
    """A dim along which elements see each other."""
    return w.dim(w.pick(LINE)) if w.chance(70) else w.dim()


def moved(w: Writer, e: str, d: str) -> str:
    """A value as its neighbours have it."""
    by = w.pick((1, -1, 2, -2))
    if w.chance(20):
        return f"roll[{d}]({e}, {w.pick((1, -1))})"
    around = f", {e}[{d} = {w.pick(('-1', '0'))}]" if e.isidentifier() else ""
    return f"shift[{d}]({e}, {by}{w.pick(('', ', 0.5', f', {w.input(())}', around))})"


def somewhere(w: Writer, d: str) -> str:
    """A condition on positions."""
    return w.pick((f"index[{d}] < {w.pick((1, 2, 4))}", f"index[{d}] == {d} - 1", f"mod(index[{d}], 2) == 0",
                   f"index[{d}] > 0 and index[{d}] < 3", f"not index[{d}] == 1", f"mod({2 + w.below(5)}, 2^index[{d}]) == 0"))


def neighbours(w: Writer) -> list[Expr]:
    """Elements that see each other along a dim."""
    d = line(w)
    dims = (d,) if w.chance(60) else (w.dim(), d)
    h = state(w, "h", dims)
    w.features.add("neighbours")
    x = w.covered(w.expr(dims, 1), dims)[0]
    old = past(w, h)
    seen = w.define((old, frozenset(dims)))[0] if w.chance(50) else old
    near, far = moved(w, seen, d), moved(w, seen, d)
    kind = w.below(6)
    if kind == 0:
        update(w, h, f"tanh({x} + {near} - 0.5 * {far})")
    elif kind == 1:
        update(w, h, f"0.3 * {near} + 0.3 * {far} + {bracketed(w.gate(())[0])} * ({x})")
    elif kind == 2:
        update(w, h, f"where({somewhere(w, d)}, {x}, 0.5 * {near} + tanh({far}))")
    elif kind == 3:
        update(w, h, f"tanh(0.5 * cumsum[{d}]({seen}) + {x}) - 0.2 * {near}")
    elif kind == 4:
        other = d + "'"
        before = f"where(index[{other}] <= index[{d}], {w.param((d,), square=True)}, 0)"
        update(w, h, f"tanh(sum[{other}]({before} * {old}[{d} -> {other}]) + {near} + {x})" if "where" not in old
               else f"tanh({near} + {x})")
    else:
        update(w, h, f"where({somewhere(w, d)}, {near}, {seen}) * 0.7 + {x} * ({somewhere(w, d)})")
    return [(h, frozenset(dims)), (f"shift[{d}]({h}, {w.pick((1, -1))})", frozenset(dims))]


def products(w: Writer) -> list[Expr]:
    """Cascades and products along a dim."""
    j = w.dim(w.pick((2, 3, 5)))
    dims = w.pick(((j,), (w.dim(), j)))
    h = state(w, "h", dims)
    w.features.add("scan along a dim")
    a, x = w.input(w.subset((j,)), "in [-1, 1]"), w.covered(w.expr(dims, 1), dims)[0]
    start = w.pick(("0.5", w.input(())))
    kind = w.below(3)
    if kind == 0:
        update(w, h, f"0.5 * scan[{j}](y = {start}, y -> {a} * y + tanh({h}[t-1]) + 0.2 * {w.input(dims)})")
    elif kind == 1:
        update(w, h, f"0.5 * {past(w, h)} + cumprod[{j}](tanh({x}))")
    else:
        update(w, h, f"tanh(scan[{j}](y = {start}, r = 0, y, r -> {h}[t-1] - 0.5 * r, {a} * y) + {x})")
    return [(h, frozenset(dims)), (f"prod[{j}](tanh({h}))", frozenset(dims) - {j})]


def choosing(w: Writer) -> list[Expr]:
    """A step that chooses a position, and reads there, now or later."""
    dims = dims_of(w, 0, 1)
    v = line(w)
    h = state(w, "h", dims)
    w.features.add("choice")
    table = w.param((v, *dims)) if w.chance(70) else w.input((v, *dims))
    score = w.input((v,)) if w.chance(60) else f"{w.input((v,))} + sin({table_of(w, v, dims, h)})"
    chosen = f"{w.pick(('argmax', 'argmin'))}[{v}]({score})"
    computed = f"position[{v}](2 * {w.input(())} + 1.7)"
    at = w.define((w.pick((chosen, chosen, computed)), frozenset()))[0]
    del w.definitions[at]
    read = w.pick((f"{table}[{at}]", f"{table}[{at}[t-1]]", f"{table}[argmax[{v}]({w.input((v,))})]"))
    x = w.covered(w.expr(dims, 1), dims)[0]
    update(w, h, w.pick((f"tanh({h}[t-1] + {read} + {x})", f"{bracketed(w.gate(dims)[0])} * {past(w, h)} + {read} * ({x})")))
    here = f"sum[{v}](where(index[{v}] == {at}, {w.input((v,))}, 0))"
    return [(h, frozenset(dims)), (here, frozenset()), (f"{read} + {h}", frozenset(dims))]


def table_of(w: Writer, v: str, dims: Sequence[str], h: str) -> str:
    """A score that the state decides."""
    return f"{w.param((v, *dims), again=False)} * {h}[t-1]" if not dims else f"{w.param((v, *dims), again=False)} @ {h}[t-1]"


def turned(w: Writer) -> list[Expr]:
    """A complex vector that matrices turn."""
    d = line(w)
    z, a, p = w.fresh("z"), w.fresh("A"), w.param((d,))
    w.features.add("complex matrix")
    w.lines += [f"state {z}[{d}] complex", f"param {a}[{d}, {d}] complex"]
    b = w.covered(w.expr((d,), 1), (d,))[0]
    gain = w.pick((f"exp(-softplus({p}) + 1i * {w.input((d,))})", "0.3", "0.3i", f"0.2 * ({p} + 1i * {p})"))
    turn = w.pick((f"0.2 * {a} @ {z}[t-1]", f"0.2 * {a}[{d} -> {d}', {d}' -> {d}] @ {z}[t-1]",
                   f"0.2 * {a} @ conj({z}[t-1])", f"{gain} * {z}[t-1]"))
    w.lines.append(f"{z} = {turn} + {b} * {w.pick(('(0.5 + 0.5i)', '1', '1i'))}")
    c = w.pick((f"re({a} @ {z})", f"im({z})", f"abs({z} * {gain})", f"re({z} * conj({z}))"))
    return [(c, frozenset((d,))), (f"re(sum[{d}]({z} * {gain}))", frozenset())]


BESIDE = (neighbours, products, choosing, turned)

__all__ = ["BESIDE"]
