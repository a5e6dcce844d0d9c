"""More parts of the language that random specs have: complex arguments, positions that turn around, places of tables, folds in
folds, kept elements, inputs that are read in both directions, cells of many units; and what may be wished of a program.

In: a `Writer`. Out: its lines and states, and readouts. Programs of numbers from `programs.LATEST` on have them besides others.
"""

from __future__ import annotations

import re

from tests.fuzz.along_families import neighbours, products
from tests.fuzz.families import cell, coupled, diagonal, dims_of, folded, free, low_rank, outer, past, plain, state, update
from tests.fuzz.newer_families import descent, slopes
from tests.fuzz.wider_families import clipped, equations, fed_back, several
from tests.fuzz.writer import Expr, Writer, bracketed, shown

UNITS = (17, 35, 20, 33)  # of a cell that several programs share out


def complex_arguments(w: Writer) -> list[Expr]:
    """Complex inputs, params and starts, and what is defined of complex values."""
    dims = dims_of(w, 0, 2)
    w.features.add("complex arguments")
    u, z, c = w.fresh("u"), w.fresh("z"), w.fresh("C")
    own = w.subset(dims)
    w.lines += [f"input {u}{shown(dims)} complex", f"param {c}{shown(own)} complex{w.pick(('', ' per batch'))}",
                f"state {z}{shown(dims)} complex{w.pick(('', ' = 0.5 - 1i', f' = {c}'))}"]
    d = dims[-1] if dims else ""
    drive = w.pick((u, f"{u} * {c}", f"conj({u}) + {c}", f"{u}[t-1]", f"{u} / (2 + re({c})^2 + 1i)",
                    f"({u})^2 / (1 + abs({u}))", f"{u} / (1 + abs({u})^2)", f"where({w.input(())} > 0, {u}, {c})",
                    f"expm1(-0.2 * {u} * conj({u}) + 0.1i)",
                    *((f"0.5 * cumsum[{d}]({u})", f"flip[{d}]({u})", f"shift[{d}]({u}, 1)", f"l2norm[{d}]({u})",
                       f"mean[{d}]({u}) * {u}", f"sum[{d}]({u} * {c}) + {u}") if d else ())))
    gate = w.pick(("0.5i", f"exp(-softplus(re({c})) + 1i * im({c}))", f"0.6 * exp(1i * im({u}))", f"{c} / (1 + abs({c}))",
                   f"zoh(-1 + 1i * im({c}), 0.3)", f"bilinear(-1 + 1i * re({c}), {w.input((), 'in [0, 1]')})"))
    w.lines.append(f"{z} = {gate} * {z}[t-1] + {w.pick(('', '0.3 * '))}{bracketed(drive)}")
    if w.chance(30):
        then = w.pick((f"0.5i * {z}", f"stopgrad({z})", f"{z} / (1 + abs({z})^2)"))
        w.lines.append(f"every {w.pick((1, 2, 3, 16))}: {z} = {then}")
    if w.chance(30):
        w.lines.append(f"output {w.fresh('Z')}{shown(dims)} = {w.pick((z, f'{z} * {c}', f'{z}[t-1]', f'conj({z}) + {u}'))}")
    found: list[Expr] = [(f"re({z})", frozenset(dims)), (f"im({z} * {c})", frozenset(dims)),
                         (f"re({z} * conj({u}))", frozenset(dims))]
    return [*found, (f"norm[{d}]({z})", frozenset(dims) - {d})] if d else found


def turned_around(w: Writer) -> list[Expr]:
    """Elements in another order, which an index or a buffer tells; neighbours on a graph."""
    n = w.dim(w.pick((2, 3, 5)))
    dims = (n,) if w.chance(60) else (w.dim(), n)
    h = state(w, "h", dims)
    w.features.add("another order")
    x = w.covered(w.expr(dims, 1), dims)[0]
    kind = w.below(4)
    if kind == 0:
        order = w.index((n,), n)
        turned = w.pick((f"{w.input(dims)}[{order}]", f"{w.param(dims)}[{order}]"))
        update(w, h, f"{bracketed(w.gate(dims)[0])} * {past(w, h)} + {turned} * ({x})")
    elif kind == 1:
        k = w.dim(w.pick((2, 3)))
        near = w.fresh("near")
        start = w.pick((f"mod(index[{n}] + index[{k}], {n})", f"index[{k}] * 2 - 1"))
        w.lines.append(f"buffer {near}{shown((n, k))} init {start}")
        seen = f"{w.pick(('mean', 'sum', 'max'))}[{k}]({h}[t-1][position[{n}]({near})])"
        update(w, h, f"tanh({x} + 0.5 * {seen}) - 0.2 * {h}[t-1]")
    elif kind == 2:
        order = w.index((n,), n)
        update(w, h, f"0.5 * {h}[t-1, {order}] + {x}")
    else:
        at = w.fresh("at")
        w.lines += [f"state {at} = {w.pick(('0', '1', '7'))}", f"{at} = position[{n}](mod({at}[t-1] + 1, {n}))"]
        update(w, h, f"where(index[{n}] == {at}, {x}, 0.9 * {h}[t-1])")
        left = frozenset(dims) - {n}
        return [(h, frozenset(dims)), (f"{h}[position[{n}]({at}[t-1])]", left), (f"{h}[{at}]", left)]
    return [(h, frozenset(dims))]


def places(w: Writer) -> list[Expr]:
    """A table of which one place is replaced, by two indices or more."""
    a, b = w.dim(w.pick((2, 3))), w.dim(w.pick((2, 4)))
    dims = (w.dim(),) if w.chance(40) else ()
    q = state(w, "Q", (a, b, *dims), init=w.chance(30))
    del w.states[q]
    first, second = w.index((), a), w.index((), b)
    w.features.add("place of a table")
    here = f"{q}[t-1, {first}, {second}]"
    x = w.covered(w.expr(dims, 1), dims)[0]
    w.lines.append(f"{q}[{first}, {second}] = " + w.pick((
        f"{here} + {bracketed(w.gate(dims)[0])} * ({x} - {here})", f"0.5 * {here} + {x}", x,
        f"0.9 * {here} + 0.1 * max[{b}]({q}[t-1, {first}]) + {x}", f"tanh({here}) + {x}")))
    return [(here, frozenset(dims)), (f"{q}[{w.index((), a)}, {second}]" if w.chance(50) else here, frozenset(dims)),
            (f"max[{b}]({q}[t-1, {first}])", frozenset(dims))]


def folds_in_folds(w: Writer) -> list[Expr]:
    """Micro-steps within micro-steps, and reads of all of a dim within one."""
    dims = dims_of(w, 0, 1)
    i, j = w.dim(2), w.dim(w.pick((2, 3)))
    w.features.add("fold in a fold")
    h = state(w, "h", dims)
    x, a = w.input((*dims, j)), w.input((*dims, i), "in [0, 1]")
    kind = w.below(4)
    if kind == 0:
        update(w, h, f"fold[{j}]({past(w, h)}, R -> fold[{i}](R, Q -> {a} * Q + 0.3 * {x}))")
    elif kind == 1:
        update(w, h, f"0.5 * {h}[t-1] + 0.2 * fold[{j}](0, R -> R + {x} * softmax[{j}]({x}) + sum[{j}]({x}) * 0.1)")
    elif kind == 2:
        update(w, h, f"fold[{j}](A = {past(w, h)}, e = 0, A, e -> g = sigmoid({x} + e), g * A + (1 - g) * {x}, 0.5 * e + g)")
    else:
        y = w.fresh("y")
        w.lines.append(f"{y} = scan[{j}](y = 0.5 * {h}[t-1], y -> 0.6 * y + {x})")
        update(w, h, f"0.3 * sum[{j}]({y} * {x}) + fold[{i}]({h}[t-1], R -> 0.5 * R + {a} * mean[{j}]({y}))")
        return [(h, frozenset(dims)), (y, frozenset((*dims, j)))]
    return [(h, frozenset(dims))]


def kept(w: Writer) -> list[Expr]:
    """Several params of which a part is kept, said in one statement."""
    d = w.dim(w.pick((4, 5, 8)))
    dims = (d,) if w.chance(70) else (w.dim(), d)
    h = state(w, "h", dims)
    w.features.add("sparse together")
    r, s = w.param(dims, square=True), w.param(dims, square=True)
    x = w.covered(w.expr(dims, 1), dims)[0]
    update(w, h, f"sigmoid({r} @ {h}[t-1]) * {past(w, h)} + tanh({s} @ {h}[t-1] + {x})")
    w.lines.append(f"sparse {r}, {s} " + w.pick((
        "by band 1", "keep 2 of 4", "by magnitude keep 50% block 2", "by mask zero diagonal", "by blocks 2",
        "by lower zero diagonal")))
    return [(h, frozenset(dims))]


def shared_out(w: Writer) -> list[Expr]:
    """A cell whose matrices are so large that on a GPU several programs share out a head."""
    d = w.dim(w.pick(UNITS))
    dims = w.pick(((d,), (w.dim(w.pick((1, 2))), d)))
    h = state(w, "h", dims)
    w.features.add("shared out")
    w.alone = w.chance(60)
    x = w.input(dims)

    def product(of: str = "") -> str:
        return f"0.2 * {w.param(dims, square=True)} @ {of or f'{h}[t-1]'}"

    gate = w.define((f"sigmoid({w.input(dims)} + {product()})", frozenset(dims)))[0]
    kind = w.below(4)
    if kind == 0:
        update(w, h, f"tanh({x} + {product()})")
    elif kind == 1:
        update(w, h, f"{gate} * {past(w, h)} + (1 - {gate}) * tanh({x} + {product(f'({gate} * {h}[t-1])')})")
    elif kind == 2:
        c = state(w, "c", dims)
        update(w, c, f"{gate} * {past(w, c)} + sigmoid({product()}) * tanh({x} + {product()})")
        w.lines.append(f"{h} = {gate} * tanh({c})")
        return [(h, frozenset(dims)), (c, frozenset(dims)), (f"sum[{d}]({h} * {x})", frozenset(dims) - {d})]
    else:
        n = state(w, "n", dims[:-1])
        w.lines.append(f"{n} = 0.5 * {n}[t-1] + mean[{d}]({h}[t-1] * {x})")
        update(w, h, f"tanh({x} + {product()} - mean[{d}]({gate})) + 0.1 * {n}")
    return [(h, frozenset(dims)), (f"{h} * max[{d}]({gate})", frozenset(dims))]


def spelled(w: Writer) -> list[Expr]:
    """Several statements in one line, truth values as numbers, dims of given sizes, definitions with their dims written."""
    name, other = w.fresh("K"), w.fresh("R")
    w.sizes |= {name: w.pick((3, 2)), other: 2}
    w.given |= {name, other}
    w.lines.append(f"dim {name} {{2, 3}}, {other} in 1..4")
    dims = (name, other)
    w.features.add("several in a line")
    x, y, p, h, g = (w.fresh(n) for n in ("x", "y", "p", "h", "g"))
    w.lines += [f"input {x}[{name}], {y}[{other}] in [-1, 1]", f"param {p}[{other}, {name}] init uniform(-1, 1)",
                f"state {h}[{name}, {other}] = 0.5, {g}[{name}]"]
    d = w.fresh("d")
    w.states |= {h: dims, g: (name,)}
    w.lines += [f"{d}[{other}, {name}] = {x} * {y} + ({x} > 0 and not {y} > {p})",
                f"{h} = {bracketed(w.gate(dims)[0])} * {past(w, h)} + {d}",
                f"{g} = ({x} > {g}[t-1]) * 0.5 + sum[{other}]({h}) / {other} - ({x} != 0 or {x} < 1)"]
    return [(h, frozenset(dims)), (g, frozenset((name,))), (f"{d} - {h}", frozenset(dims)), (f"{p} @ {g}", frozenset((other,)))]


def pointwise_cells(w: Writer) -> list[Expr]:
    """Nonlinear states whose elements see themselves, which may be solved by Newton's method."""
    dims = dims_of(w, 0, 2)
    h = state(w, "h", dims)
    x = w.covered(w.expr(dims, 1), dims)[0]
    update(w, h, w.pick((f"tanh({x} + {w.param(w.subset(dims))} * {h}[t-1])", f"0.5 * {h}[t-1] + 0.4 * sin({h}[t-1]) + {x}",
                         f"sigmoid({w.input(dims)} + 0.3 * {h}[t-1]) * {h}[t-1] + {x}")))
    w.features.add("cell of elements")
    if w.chance(50) and not any(line.startswith("schedule") for line in w.lines):
        w.lines.append("schedule newton")
        w.features.add("newton")
    return [(h, frozenset(dims))]


def edges(w: Writer) -> None:
    """Of two axes, what states are before the first places that something reads."""
    text = "\n".join(line for line in w.lines if not line.startswith("feedback"))
    for name, own in w.carried.items():
        both = f"{name}[t-1, u-1]" in text
        for axes, other in (("t", "u"), ("u", "t"), ("t, u", "")):
            seen = both or (other and re.search(rf"(?<!\w){re.escape(name)}\[{axes}-1\]", text))
            if seen and w.chance(35):
                counted = (f"0.2 * index[{other}]", f"1 / (1 + index[{other}])") if other else ("-0.4",)
                w.lines.append(f"before {axes}: {name} = " + w.pick(("0.5", f"0.3 * {w.param(w.subset(own))}", *counted)))
                w.features.add("before")


def repeated(w: Writer) -> list[Expr]:
    """Factors that stand several times in a product, on both sides of a choice, in sums and in squares of differences."""
    w.features.add("repeated factors")
    kind = w.below(5)
    if kind == 4 and not w.plane:
        lag, dims = w.dim(w.pick((3, 33, 36))), dims_of(w, 0, 1)
        x, p = w.input(dims), w.param((lag, *w.subset(dims)))
        far = f"{x}[t - {w.pick(('', '2*'))}index[{lag}]]"
        away = w.pick((f"({p} - {far})^2", f"({p} + {far}) * {p} * ({p} + {far})", f"{p} * {p} * {far}^2",
                       f"({far} - {x})^3 * {p}"))
        h = state(w, "h", dims)
        update(w, h, f"tanh(0.5 * {h}[t-1] - 0.05 * sum[{lag}]({away}))")
        return [(h, frozenset(dims)), (f"exp(-0.1 * sum[{lag}](({p} - {far})^2))", frozenset(dims))]
    if kind < 2:
        dims = dims_of(w, 0, 2)
        h, x = state(w, "h", dims), w.input(w.subset(dims))
        g = w.define(w.coefficient(dims))[0]
        m = f"{w.input(w.subset(dims), 'in [0, 1]')} > 0.5"
        one = w.pick((f"where({m}, {g} * {g} * {h}[t-1], {g} * {h}[t-1])",
                      f"{g} * where({m}, {g}^2 * {h}[t-1], {g} * {h}[t-1])",
                      f"where({m}, {g} * {x} * {g} * {h}[t-1] / (1 + {x}^2), 0.5 * {g} * {h}[t-1])",
                      f"({h}[t-1] * {g} - {x} * {g}) * {g}", f"where({m}, -{g} * {h}[t-1], {g} * -{g} * -{g} * {h}[t-1])"))
        update(w, h, w.covered((f"{one} + {x} * {x}", frozenset(dims)), dims)[0])
        return [(h, frozenset(dims)), (f"{g} * {g} * {h} - {h} * {g}", frozenset(dims))]
    (k, v) = dims_of(w, 2, 2)
    s, x, y = state(w, "S", (k, v)), w.input((k,), "in [-1, 1]"), w.input((v,), "in [-1, 1]")
    g = w.define(w.gate((k,)))[0]
    update(w, s, w.pick((f"{g} * {g} * {past(w, s)} + {x} * {x} * {y} * {x}",
                         f"{g} * ({s}[t-1] * {g} + {x} * {y}) + {y} * {x} * {g}",
                         f"{g} * {past(w, s)} - 0.2 * {x} * {x} * sum[{k}]({x} * {x} * {s}[t-1]) / {k} + {x} * {y}")))
    return [(f"sum[{k}]({x} * {x} * {s})", frozenset((v,))), (f"{y} * {y} * sum[{k}]({g} * {x} * {g} * {s})", frozenset((v,)))]


def wishes(w: Writer) -> None:
    """Statements that change no number; and edges."""
    if w.plane:
        edges(w)
    if w.chance(15) and not any(line.startswith("schedule") for line in w.lines):
        wish = w.pick(("chunk {16, 32}", "chunk {64}", "sequential", "convolution"))
        if wish != "convolution" or not w.plane:
            w.lines.append(f"schedule {wish}")
            w.features.add(f"schedule {wish.partition(' ')[0]}")
    if w.chance(15) and w.sizes and not w.plane:
        w.lines.append(f"tile {w.pick(sorted(w.sizes))} {{16, 32}}")


FURTHER = (complex_arguments, turned_around, places, folds_in_folds, kept, shared_out, spelled, pointwise_cells, repeated)
PLANAR = (diagonal, outer, coupled, cell, low_rank, folded, free, plain, neighbours, products, descent, slopes, clipped,
          several, equations, fed_back, folds_in_folds, spelled, kept, repeated)

__all__ = ["FURTHER", "PLANAR", "wishes"]
