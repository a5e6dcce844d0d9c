"""More kinds of recurrences that random specs have: tables, sparse matrices, systems of equations, noise, gradients that are
cut, closed loops, histories, micro-steps with several values.

In: a `Writer`. Out: its lines and states, and readouts. What is solved is diagonally dominant, so that no answer is large.
"""

from __future__ import annotations

from tests.fuzz.families import dims_of, past, state, update
from tests.fuzz.writer import Expr, Writer, bracketed


def table(w: Writer) -> list[Expr]:
    """A state whose rows an index replaces."""
    dims = dims_of(w, 1, 2)
    of = w.dim()
    m = state(w, "M", (of, *dims), init=w.chance(40))
    del w.states[m]  # no family but this one reads rows
    place = w.index(w.subset(dims, 70) if w.chance(20) else (), of)
    row = f"{m}[t-1, {place}]"
    x = w.covered(w.expr(tuple(dims), 1), dims)[0]
    kind = w.below(5)
    if kind == 0:
        e = f"{bracketed(w.gate(dims)[0])} * {row} + {x}"
    elif kind == 1:
        e = f"tanh({w.param(w.subset(dims))} * {row} + {x})"
    elif kind == 2:
        e = x
    elif kind == 3:
        e = f"{row} + {bracketed(w.gate(dims)[0])} * ({x} - {row})"
    else:
        h = state(w, "h", dims)
        update(w, h, f"0.5 * {past(w, h)} + {row}")
        e = f"0.5 * {row} + {h}[t-1]"
    w.lines.append(f"{m}[{place}] = {e}")
    w.features.add("table")
    other = w.index((), of)
    found: list[Expr] = [(row, frozenset(dims)), (f"{m}[t-1, {other}]", frozenset(dims))]
    if w.chance(25):
        found = [(f"sum[{of}]({m})", frozenset(dims)), (f"{m}[{other}]", frozenset(dims))]
    return found


def written_rows(w: Writer) -> list[Expr]:
    """Several rows in a step: of two for one place the last stays."""
    dims = dims_of(w, 0, 1)
    of, count = w.dim(), w.dim(w.pick((2, 3)))
    m = state(w, "M", (of, *dims))
    del w.states[m]
    place = w.index((count,), of)
    x = w.input((count, *dims))
    row = f"{m}[t-1, {place}]"
    w.lines.append(f"{m}[{place}] = {w.pick((x, f'0.5 * {row} + {x}'))}")
    w.features.add("table")
    return [(f"sum[{count}]({row} * {w.input((count,))})", frozenset(dims)), (f"{m}[t-1, {w.index((), of)}]", frozenset(dims))]


def sparse(w: Writer) -> list[Expr]:
    """Matrices of which a part is kept."""
    d = w.dim(w.pick((2, 3, 4, 6))) if w.chance(30) else w.dim()
    dims = (d,) if w.chance(70) else (w.dim(), d)
    h = state(w, "h", dims)
    r = w.param(dims, square=True)
    x = w.covered(w.expr(dims, 1), dims)[0]
    gate = ""
    if w.chance(30):
        second = w.param(dims, square=True)
        w.lines.append(f"sparse {second} {rule(w)}")
        gate = f"sigmoid({second} @ {h}[t-1]) * "
    update(w, h, w.pick((f"tanh({gate}({r} @ {h}[t-1]) + {x})", f"{gate}(0.4 * {r} @ {h}[t-1]) + {x}",
                         f"0.5 * {past(w, h)} + {gate}tanh({r} @ {h}[t-1] + {x})")))
    w.lines.append(f"sparse {r} {rule(w)}")
    if w.chance(15):
        w.lines.append(f"sparse {r} {w.pick(('zero diagonal', 'by lower', 'by band 2'))}")
    w.features.add("sparse")
    return [(h, frozenset(dims))]


def rule(w: Writer) -> str:
    """What is kept."""
    return w.pick(("by band 1", "by blocks 2", "by lower", "zero diagonal", "by mask", "by band 2 zero diagonal", "by band 0",
                   "by lower zero diagonal", "by blocks 3", "by magnitude keep 50%"))


def equations(w: Writer) -> list[Expr]:
    """Small systems of equations, of params, inputs or states."""
    size = w.pick((2, 3, 1, 4))
    x = w.dim(size)
    row, col = x, x + "'"
    w.features.add("system of equations")
    kind = w.below(6)
    k = w.input((x,), "in [-1, 1]")
    h = state(w, "h", (x,))
    b = w.covered(w.expr((x,), 1), (x,))[0]
    if kind == 0:
        m = f"2.5 * eye[{x}] + 0.3 * {k} * {k}[{row} -> {col}]"
        update(w, h, f"0.5 * {past(w, h)} + solve({m}, {b})")
    elif kind == 1:
        r = w.param((x,), square=True)
        answer = w.pick((f"solve(4 * eye[{x}] + tanh({r}), {b})", f"inv(4 * eye[{x}] + tanh({r})) @ {k}"))
        update(w, h, f"{bracketed(w.gate((x,))[0])} * {past(w, h)} + {answer}")
    elif kind == 2:
        update(w, h, f"tanh(solve(3 * eye[{x}] + 0.4 * tanh({h}[t-1]) * tanh({h}[t-1, {row} -> {col}]), {h}[t-1] + {b}))")
    elif kind == 3:
        a = w.param((x,), square=True)
        step = w.pick(("0.5", w.input((), "in [0, 1]")))
        of = f"tanh({a}) - 2 * eye[{x}]"
        turn = w.pick((f"zoh({of}, {step})", f"bilinear({of}, {step})", f"expm(0.3 * tanh({a}) - eye[{x}])"))
        update(w, h, f"{turn} @ {h}[t-1] + {b}")
    elif kind == 4:
        p = w.fresh("P")
        w.lines += [f"state {p}[{row}, {col}] = eye[{x}]",
                    f"{p} = inv(eye[{x}] + 0.3 * {k} * {k}[{row} -> {col}] + 0.2 * {p}[t-1])"]
        update(w, h, f"0.5 * {past(w, h)} + {p} @ {w.input((x,))}")
        return [(h, frozenset((x,))), (f"logdet(eye[{x}] + {p})", frozenset())]
    else:
        update(w, h, f"0.6 * {past(w, h)} + {b}")
        return [(f"solve(2 * eye[{x}] + 0.3 * {k} * {k}[{row} -> {col}], {h})", frozenset((x,))), (h, frozenset((x,)))]
    return [(h, frozenset((x,)))]


def noisy(w: Writer) -> list[Expr]:
    """Noise on states, on what they read, and kept for a sequence."""
    dims = dims_of(w, 0, 2)
    h = state(w, "h", dims)
    x = w.covered(w.expr(dims, 1), dims)[0]
    kind = w.below(4)
    own = w.subset(dims)
    n = w.define((w.draw(own), frozenset(own)))[0]
    if kind == 0:
        update(w, h, f"{bracketed(w.coefficient(dims)[0])} * {past(w, h)} + {x} * {n}")
    elif kind == 1:
        update(w, h, f"tanh({w.param(w.subset(dims))} * ({n} * {h}[t-1]) + {x}) + 0.1 * {w.draw(dims)}")
    elif kind == 2:
        update(w, h, f"where({w.draw(w.subset(dims))} > 0.4, {bracketed(w.gate(dims)[0])} * {h}[t-1] + {x}, {h}[t-1])")
    else:
        j = w.dim(w.pick((2, 3)))
        update(w, h, f"fold[{j}]({past(w, h)}, R -> 0.5 * R + {w.input((*dims, j))} * {w.draw((*dims, j))}) + {n}")
    return [(h, frozenset(dims)), (f"{h} + {n}", frozenset(dims))]


def clipped(w: Writer) -> list[Expr]:
    """A gradient that is cut on its way."""
    dims = dims_of(w, 0, 2)
    h = state(w, "h", dims)
    w.features.add("gradclip")
    of = w.pick((f"{h}[t-1]", w.input(dims), f"0.5 * {h}[t-1] + {w.input(dims)}"))
    g = w.define((f"gradclip({of}, {w.pick(('0.5', '1', '2'))})", frozenset(dims)))[0]
    x = w.covered(w.expr(dims, 1), dims)[0]
    update(w, h, w.pick((f"tanh({g} + {x}) + 0.3 * {g}", f"{bracketed(w.gate(dims)[0])} * {g} + {x}",
                         f"0.5 * {past(w, h)} + sin({g}) * {w.param(w.subset(dims))}")))
    return [(h, frozenset(dims)), (f"{h} * {g}", frozenset(dims))]


def fed_back(w: Writer) -> list[Expr]:
    """A network that can read what it makes."""
    dims = dims_of(w, 0, 1)
    x = w.input(dims, again=0)
    h = state(w, "h", dims)
    w.features.add("closed loop")
    w.fed = True
    a = w.param(w.subset(dims))
    more = w.pick(("", f" + 0.2 * {x}[t-1]", f" + {w.input(w.subset(dims))}", f" - 0.3 * {x}[t-2]"))
    update(w, h, w.pick((f"tanh({a} * {h}[t-1] + {x}){more}", f"0.5 * {past(w, h)} + 0.4 * {x}{more}")))
    y = w.define((f"0.5 * {h} + {w.input(w.subset(dims))}", frozenset(dims)))[0]
    back = w.pick((f"{h}[t-1]", f"0.5 * {h}[t-1] + 0.1", f"{y}[t-1]", f"tanh({h}[t-1]) * {w.param(w.subset(dims))}"))
    w.lines.append(f"feedback {x} = {back}")
    if w.ahead:
        w.inputs.pop(x)  # what is fed back is not read ahead
    return [(h, frozenset(dims)), (y, frozenset(dims))]


def historic(w: Writer) -> list[Expr]:
    """Inputs whose past before the first step is passed."""
    dims = dims_of(w, 0, 1)
    x = w.input(dims, again=0)
    h = state(w, "h", dims)
    w.features.add("history")
    far = w.pick((1, 2, 3))
    w.inputs.pop(x)  # nobody else reads it further back, or ahead
    w.lines.append(f"history {x} {far}")
    update(w, h, f"{bracketed(w.gate(dims)[0])} * {past(w, h)} + {w.param(w.subset(dims))} * {x}[t-{far}] + {x}")
    return [(h, frozenset(dims)), (f"{h} + {x}[t-1]", frozenset(dims))]


def several(w: Writer) -> list[Expr]:
    """Micro-steps of several running values."""
    dims = dims_of(w, 0, 1)
    j = w.dim(w.pick((2, 3)))
    w.features.add("fold of several values")
    h = state(w, "h", dims)
    a, x = w.input((*dims, j), "in [0, 1]"), w.input((*dims, j))
    if w.chance(40):
        w.features.add("fold of several names")
        r = state(w, "r", dims)
        fold = w.pick((
            f"fold[{j}](A = {past(w, h)}, R = {past(w, r)}, A, R -> e = {a} * R, 0.5 * A + e, tanh(R + {x} - e))",
            f"fold[{j}]({past(w, h)}, {past(w, r)}, A, R -> {a} * A + 0.1 * R, 0.5 * R + {x})",
        ))
        w.lines.append(f"{h}, {r} = {fold}")
        return [(h, frozenset(dims)), (r, frozenset(dims))]
    start = w.pick(("0", f"0.5 * {h}[t-1]", w.input(dims)))
    update(w, h, w.pick((
        f"fold[{j}]({h}[t-1], {start}, A, R -> 0.5 * A + {x} * R, tanh({a} * R + A))",
        f"fold[{j}](A = {past(w, h)}, R = {start}, A, R -> {a} * A + R, 0.5 * R + {x})",
    )))
    return [(h, frozenset(dims))]


def covariance(w: Writer) -> list[Expr]:
    """A filter: what is expected, and its covariance."""
    n = w.dim(w.pick((2, 3)))
    prime = n + "'"
    w.features.add("system of equations")
    turned = f"[{n} -> {prime}]"
    a, p = state(w, "a", (n,), init=False), w.fresh("P")
    f, z, r = w.param((n,), square=True), w.input((n,)), w.fresh("gain")
    x = w.input(())
    ahead = w.fresh("ahead")
    w.lines += [
        f"state {p}[{n}, {prime}] = eye[{n}]",
        f"{ahead}[{n}, {n}] = 0.3 * tanh({f}) @ {p}[t-1] @ tanh({f})[{n} -> {prime}, {prime} -> {n}] + eye[{n}]",
        f"{r}[{n}] = sum[{prime}]({ahead} * {z}{turned}) / (1 + sum[{n}, {prime}]({z} * {z}{turned} * {ahead}))",
        f"{a} = 0.5 * tanh({f}) @ {a}[t-1] + {r} * ({x} - sum[{n}]({z} * {a}[t-1]))",
        f"{p} = solve(2 * eye[{n}] + 0.1 * {ahead}, {ahead})",
    ]
    return [(a, frozenset((n,)))]


WIDER = (table, written_rows, sparse, equations, noisy, clipped, fed_back, historic, several, covariance)

__all__ = ["WIDER", "fed_back"]
