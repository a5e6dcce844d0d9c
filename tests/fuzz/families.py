"""The kinds of recurrences that random specs have: each adds states to a spec, and says what may be read of them.

In: a `Writer`. Out: its lines and states, and readouts: values that outputs may have. The coefficients are bounded, so that no
state grows; everything else is random.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.fuzz.writer import Expr, Writer, bracketed, shown

MASKS = ("in [0, 1]",)


def dims_of(w: Writer, least: int, most: int) -> tuple[str, ...]:
    """Some dims: those that there are, or new ones."""
    count = least + w.below(most - least + 1)
    found: list[str] = []
    for _ in range(count):
        old = [d for d in w.sizes if d not in found and d not in w.given]
        found.append(w.pick(old) if old and w.chance(60) else w.dim())
    return tuple(found)


def state(w: Writer, stem: str, dims: Sequence[str], init: bool = True, marks: str = "") -> str:
    """A declared state."""
    name = w.fresh(stem)
    w.states[name] = tuple(dims)
    start = ""
    if init and w.chance(30):
        start = " = " + (of_sizes(w, dims) if w.wide and w.chance(40) else w.pick(("0", "0.5", "-1", w.param(w.subset(dims)))))
    w.lines.append(f"state {name}{shown(dims)}{' ' if marks else ''}{marks}{start}")
    w.carried[name] = tuple(dims)
    return name


def of_sizes(w: Writer, dims: Sequence[str]) -> str:
    """A start that is made of sizes, places or params."""
    d = w.pick(list(w.sizes)) if w.sizes else "2"
    return w.pick((f"1 / {d}", f"where({d} > 2, 1, 0.5)", f"0.2 * index[{dims[0]}]" if dims else f"sqrt({d})",
                   f"0.3 * {w.param(w.subset(dims))} - 1"))


def past(w: Writer, name: str) -> str:
    """A state one step ago, sometimes cleared by a mask."""
    if w.plane:
        return beside(w, name)
    if not w.chance(10):
        return f"{name}[t-1]"
    w.features.add("reset")
    m = w.input(w.subset(w.states[name], 30), MASKS[0])
    return f"where({m} > {w.pick(('0.6', '0.5'))}, {w.pick(('0', '0', '1'))}, {name}[t-1])"


def beside(w: Writer, name: str) -> str:
    """Of two axes, a state at neighbours."""
    both = f"{name}[t-1, u-1]"
    w.features.add("neighbours on two axes")
    return w.pick((f"{name}[t-1]", f"{name}[u-1]", f"(0.5 * {name}[t-1] + 0.4 * {name}[u-1])", both,
                   f"(0.4 * {name}[t-1] + 0.4 * {name}[u-1] - 0.3 * {both})", f"max({name}[t-1], {name}[u-1])"))


def update(w: Writer, name: str, e: str) -> None:
    """The state's new value, sometimes kept at masked steps."""
    if w.chance(12):
        w.features.add("mask")
        m = w.input(w.subset(w.states[name], 20), MASKS[0])
        e = f"where({m} > 0.3, {e}, {name}[t-1])" if w.chance(70) else f"where({m} <= 0.3, {name}[t-1], {e})"
    w.lines.append(f"{name} = {e}")
    if w.chance(8) and not w.plane:
        w.features.add("every")
        value = w.pick((f"0.5 * {name}", "0", f"{name} * {w.param(())}", f"{name} / (1 + {name}^2)"))
        w.lines.append(f"every {w.pick((1, 2, 3, 5, 16, 20))}: {name} = {full(w, name, value)}")


def full(w: Writer, name: str, e: str) -> str:
    """A value with all dims of a state."""
    return e if name in e else f"{e} * {name}"


def diagonal(w: Writer) -> list[Expr]:
    """Each element by itself."""
    dims = dims_of(w, 0, 2)
    h = state(w, "h", dims)
    a, b = w.coefficient(dims), w.covered(w.expr(dims), dims)
    kind = w.below(5)
    if kind == 0:
        update(w, h, f"{bracketed(a[0])} * {past(w, h)} + {b[0]}")
    elif kind == 1:
        update(w, h, f"{past(w, h)} + {bracketed(w.gate(dims)[0])} * ({b[0]} - {h}[t-1])")
    elif kind == 2:
        g = w.define(w.gate(dims))[0]
        update(w, h, f"{g} * {past(w, h)} + (1 - {g}) * ({b[0]})")
    elif kind == 3:
        update(w, h, f"{bracketed(a[0])} * {past(w, h)} / (1 + {w.input((), 'in [0, 1]')}) - {b[0]}")
    else:
        m = w.input(w.subset(dims), "in [0, 1]")
        update(w, h, f"where({m} > 0.5, {bracketed(a[0])} * {h}[t-1] + {b[0]}, {bracketed(w.gate(dims)[0])} * {h}[t-1])")
    w.features.add("diagonal")
    return [(h, frozenset(dims))]


def outer(w: Writer) -> list[Expr]:
    """A matrix with a decay and an outer product."""
    dims = dims_of(w, 2, 3)
    *rest, k_dim, v_dim = dims
    s = state(w, "S", dims)
    decay = w.coefficient(w.pick((dims, (*rest, k_dim), (*rest, v_dim), tuple(rest), ())))
    k, v = w.covered(w.expr((*rest, k_dim), 1), (k_dim,)), w.covered(w.expr((*rest, v_dim), 1), (v_dim, *rest))
    update(w, s, f"{bracketed(decay[0])} * {past(w, s)} + {bracketed(k[0])} * {bracketed(v[0])}")
    w.features.add("matrix state")
    return readouts(w, s, dims)


def readouts(w: Writer, s: str, dims: Sequence[str]) -> list[Expr]:
    """A matrix read through keys, or whole."""
    *rest, k_dim, v_dim = dims
    found: list[Expr] = []
    for _ in range(1 + w.below(2)):
        over = w.pick((k_dim, v_dim, k_dim))
        q = w.covered(w.expr((*rest, over), 1), (over,))
        which = w.pick((s, s, f"{s}[t-1]"))
        found.append((f"sum[{over}]({bracketed(q[0])} * {which})", frozenset(dims) - {over}))
    if w.chance(15):
        found.append((s, frozenset(dims)))
    return found


def low_rank(w: Writer) -> list[Expr]:
    """A matrix whose transition is a decay and a product of keys."""
    dims = dims_of(w, 2, 3)
    *rest, k_dim, v_dim = dims
    s = state(w, "S", dims)
    unit = f"unit[{k_dim}]"
    k = w.input((*rest, k_dim), unit)
    v = w.covered(w.expr((*rest, v_dim), 1), (v_dim, *rest))[0]
    beta = w.gate(tuple(rest))[0]
    g = w.gate(w.pick((tuple(rest), (*rest, k_dim), ())))[0]
    prev = past(w, s)
    kind = w.below(6)
    if kind == 0:
        e = f"{prev} + {bracketed(beta)} * {k} * ({v} - sum[{k_dim}]({k} * {s}[t-1]))"
    elif kind == 1:
        d = w.define((f"{bracketed(g)} * {prev}", frozenset(dims)))[0]
        e = f"{d} + {bracketed(beta)} * {k} * ({v} - sum[{k_dim}]({k} * {d}))"
    elif kind == 2:
        a, b = w.input((*rest, k_dim), unit), w.input((*rest, k_dim), "in [-1, 1]")
        e = f"{bracketed(g)} * {prev} + {a} * sum[{k_dim}](0.5 * {b} * {s}[t-1]) + {k} * {bracketed(v)}"
    elif kind == 3:
        a = w.input((*rest, k_dim), unit)
        e = (f"{bracketed(g)} * ({prev} - {bracketed(beta)} * {k} * sum[{k_dim}]({k} * {s}[t-1])"
             f" - {a} * sum[{k_dim}]({a} * {s}[t-1])) + {k} * {bracketed(v)}")
    elif kind == 4:
        p = state(w, "P", dims)
        inner = f"{k} * ({v} - sum[{k_dim}]({k} * {s}[t-1]))"
        update(w, p, f"{bracketed(w.gate(tuple(rest))[0])} * {past(w, p)} + {bracketed(beta)} * {inner}")
        e = f"0.9 * {prev} + 0.3 * {p}"
    else:
        j = w.dim(w.pick((2, 3)))
        kj, vj, bj = w.input((*rest, j, k_dim), unit), w.input((*rest, j, v_dim)), w.input((*rest, j), "in [0, 2]")
        w.features.add("fold")
        e = f"fold[{j}]({bracketed(g)} * {prev}, R -> R + {bj} * {kj} * ({vj} - sum[{k_dim}]({kj} * R)))"
    update(w, s, e)
    w.features.add("low rank")
    return readouts(w, s, dims)


def coupled(w: Writer) -> list[Expr]:
    """Linear states that read each other, or a matrix of params."""
    dims = dims_of(w, 0, 1)
    kind = w.below(6)
    w.features.add("coupled")
    if kind == 0 and dims:
        h = state(w, "h", dims)
        r = w.param(dims, square=True)
        update(w, h, f"{w.pick(('0.5 * ', ''))}({r} @ {h}[t-1]) + {w.covered(w.expr(dims), dims)[0]}")
        return [(h, frozenset(dims))]
    if kind == 1:
        c, s = w.fresh("c"), w.fresh("s")
        angle = w.input(w.subset(dims))
        a, b = state(w, "a", dims), state(w, "b", dims)
        w.lines += [f"{c} = cos({angle})", f"{s} = sin({angle})"]
        update(w, a, f"0.9 * ({c} * {a}[t-1] - {s} * {b}[t-1]) + {w.input(dims)}")
        update(w, b, f"0.9 * ({s} * {a}[t-1] + {c} * {b}[t-1]) + {w.input(dims)}")
    elif kind == 2:
        a, b = state(w, "a", dims), state(w, "b", dims)
        update(w, a, f"{bracketed(w.gate(dims)[0])} * {past(w, a)} + {w.covered(w.expr(dims), dims)[0]}")
        update(w, b, f"{bracketed(w.coefficient(dims)[0])} * {past(w, b)} + {bracketed(w.gate(dims)[0])} * {a}"
                     f"{w.pick(('', '[t-1]'))}")
    elif kind == 3:
        count = 3
        names = [state(w, "s", dims) for _ in range(count)]
        for i, name in enumerate(names):
            other = names[(i + 1) % count]
            update(w, name, f"0.5 * {past(w, name)} + {w.pick(('0.3', '0.4'))} * {other}[t-1] + {w.input(dims)}")
        return [(name, frozenset(dims)) for name in names]
    elif kind == 4:
        two = dims_of(w, 2, 2)
        s = state(w, "S", two)
        z = state(w, "z", two[1:])
        k, q = w.input(two[:1]), w.input(two[:1], "in [-1, 1]")
        update(w, s, f"{bracketed(w.gate(two[:1])[0])} * {past(w, s)} + {k} * {w.input(two[1:])}")
        update(w, z, f"{bracketed(w.gate(two[1:])[0])} * {past(w, z)} + sum[{two[0]}]({q} * {s})")
        return [(z, frozenset(two[1:])), *readouts(w, s, two)]
    else:
        a, b = state(w, "a", dims), state(w, "b", dims)
        x = w.covered(w.expr(dims), dims)[0]
        update(w, a, f"0.4 * {a}[t-1] + 0.3 * {b}[t-1] + {x}")
        update(w, b, f"0.5 * {b}[t-1] - 0.3 * {a}{w.pick(('[t-1]', ''))} + {w.input(dims)}")
    return [(a, frozenset(dims)), (b, frozenset(dims))]


def maxima(w: Writer) -> list[Expr]:
    """Running maxima, and sums of exponentials beside them."""
    dims = dims_of(w, 0, 2)
    w.features.add("maximum")
    kind = w.below(5)
    k = w.covered(w.expr(dims, 1), dims)[0]
    if kind == 0:
        m = state(w, "m", dims, init=False, marks=w.pick(("= -inf", "= 0", "")))
        g = w.pick(("", f" + {w.input(w.subset(dims), 'in [-inf, 0]')}", " - 0.3"))
        update(w, m, f"{w.pick(('max', 'max', 'min') if not g else ('max',))}({past(w, m)}{g}, {k})")
        return [(f"exp(-{m}^2)", frozenset(dims)), (f"max({m}, -30)", frozenset(dims))]
    if kind == 1:
        z = state(w, "z", dims, init=False, marks=w.pick(("= -inf", "= 0")))
        g = w.pick(("", f" + {w.input(w.subset(dims), 'in [-inf, 0]')}"))
        update(w, z, f"logaddexp({past(w, z)}{g}, {k})")
        return [(z, frozenset(dims))]
    m = state(w, "m", dims, init=False, marks=w.pick(("= -inf", "= -inf", "= -1e30")))
    c = state(w, "c", dims, init=False)
    key, g = w.fresh("key"), w.pick(("", f" + {w.input(w.subset(dims), 'in [-inf, 0]')}"))
    w.lines += [f"{key} = {k}", f"{m} = max({m}[t-1]{g}, {key})",
                f"{c} = exp({m}[t-1]{g} - {m}) * {c}[t-1] + exp({key} - {m})"]
    found: list[Expr] = [(f"{c} * exp({m} - 1)", frozenset(dims)), (f"{m} + log({c})", frozenset(dims))]
    if kind > 3:
        v_dim = w.pick([d for d in w.sizes if d not in dims] or [w.dim()])
        s = state(w, "S", (*dims, v_dim), init=False)
        w.lines.append(f"{s} = exp({m}[t-1]{g} - {m}) * {s}[t-1] + exp({key} - {m}) * {w.input((v_dim,))}")
        found.append((f"{s} / {c}", frozenset((*dims, v_dim))))
    return found


def cell(w: Writer) -> list[Expr]:
    """Nonlinear cells: gates and candidates of everything."""
    dims = dims_of(w, 1, 2)
    h = state(w, "h", dims)
    w.features.add("cell")

    def around() -> str:
        r = w.pick((f"{w.param(dims, square=True)} @ {h}[t-1]", f"{w.param(w.subset(dims))} * {h}[t-1]", f"{h}[t-1]"))
        return f"{w.covered(w.expr(dims, 1), dims)[0]} + {r}"

    kind = w.below(5)
    if kind == 0:
        update(w, h, f"{w.pick(('tanh', 'sigmoid', 'sin', 'erf'))}({around()})")
    elif kind == 1:
        z = w.define((f"sigmoid({around()})", frozenset(dims)))[0]
        update(w, h, f"{z} * {past(w, h)} + (1 - {z}) * tanh({around()})")
    elif kind == 2:
        c = state(w, "c", dims)
        gates = [w.define((f"sigmoid({around()})", frozenset(dims)))[0] for _ in range(3)]
        update(w, c, f"{gates[0]} * {past(w, c)} + {gates[1]} * tanh({around()})")
        w.lines.append(f"{h} = {gates[2]} * {w.pick(('tanh', 'softplus', 'relu'))}({c})")
        return [(h, frozenset(dims)), (c, frozenset(dims))]
    elif kind == 3:
        w.features.add("surrogate")
        slope = w.pick(("1", "0.5", "1 / (1 + 0.5)"))
        s = w.fresh("spike")
        w.lines.append(f"{s} = withgrad({h}[t-1] {w.pick(('>', '>=', '<'))} {w.pick(('0.5', w.param(())))}, {slope})")
        update(w, h, f"0.8 * {h}[t-1] * (1 - {w.pick((s, f'stopgrad({s})'))}) + {w.covered(w.expr(dims, 1), dims)[0]}")
        return [(h, frozenset(dims)), (s, frozenset(dims))]
    else:
        update(w, h, f"{w.pick(('layernorm', 'l2norm', 'softmax', 'rmsnorm'))}[{dims[-1]}]({around()})")
    return [(h, frozenset(dims))]


def lags(w: Writer) -> list[Expr]:
    """States and definitions read several steps back."""
    dims = dims_of(w, 0, 1)
    w.features.add("lag of a state")
    y = state(w, "y", dims)
    deep = w.pick((2, 2, 3, 5))
    e = w.covered(w.expr(dims, 1), dims)[0]
    if w.chance(40):
        d = w.define(w.covered(w.expr(dims, 1), dims))[0]
        w.features.add("lag of a definition")
        e = f"{e} + 0.5 * {d}[t-{w.pick((1, 2, 3))}]"
    if w.chance(25):
        taps = w.dim(3)
        e = f"{e} + sum[{taps}]({w.param((taps,))} * 0.2 * {y}[t - 1 - index[{taps}]])"
    if w.chance(30):
        update(w, y, f"tanh(0.4 * {y}[t-1] + 0.4 * {y}[t-{deep}]) + {e}")
    else:
        update(w, y, f"0.4 * {y}[t-1] - {w.pick(('0.3', bracketed(w.gate(dims)[0]) + ' * 0.4'))} * {y}[t-{deep}] + {e}")
    return [(y, frozenset(dims)), (f"{y} - {y}[t-{deep}]", frozenset(dims))]


def folded(w: Writer) -> list[Expr]:
    """Several micro-steps of an element."""
    dims = dims_of(w, 0, 1)
    j = w.dim(w.pick((2, 3, 4)))
    w.features.add("fold")
    h = state(w, "h", dims)
    a, x = w.input((*dims, j), "in [0, 1]"), w.input((*dims, j))
    body = w.pick((f"{a} * R + {x}", f"tanh({a} * R + {x})", f"R + 0.3 * {a} * ({x} - R)", f"max({a} * R, {x})"))
    update(w, h, f"fold[{j}]({past(w, h)}, R -> {body})")
    return [(h, frozenset(dims))]


def square_state(w: Writer) -> list[Expr]:
    """A state with a dim and its prime: a covariance."""
    (d,) = dims_of(w, 1, 1)
    prime = d + "'"
    w.features.add("primes")
    c = w.fresh("C")
    w.states[c] = (d, prime)
    w.lines.append(f"state {c}[{d}, {prime}]")
    k = w.input((d,))
    w.lines.append(f"{c} = {bracketed(w.gate(w.pick(((d,), ())))[0])} * {c}[t-1] + {k} * {k}[{d} -> {prime}]")
    del w.states[c]  # no family but this one reads primes
    x = w.input((d,))
    return [(f"{c} @ {x}", frozenset((d,))), (f"sum[{d}, {prime}]({c} * {x} * {x}[{d} -> {prime}])", frozenset()),
            (f"({x} @ {c})[{prime} -> {d}]" if w.chance(30) else f"sum[{prime}]({c} * {x}[{d} -> {prime}])", frozenset((d,)))]


def complex_state(w: Writer) -> list[Expr]:
    """A complex diagonal."""
    dims = dims_of(w, 0, 2)
    w.features.add("complex")
    z = w.fresh("z")
    w.lines.append(f"state {z}{shown(dims)} complex")
    own = w.subset(dims)
    turn = w.pick((f"1i * {w.input(own)}", f"1i * {w.param(own)}", "0.5i"))
    rate = w.pick((f"-exp({w.param(own)})", f"-softplus({w.input(own)})", w.input(own, "in [-inf, 0]")))
    b = w.covered(w.expr(dims, 1), dims)[0]
    drive = w.pick((b, f"{bracketed(b)} * (0.5 + 0.5i)", f"{b} + 1i * {w.input(())}"))
    coefficient = w.pick((f"exp({rate} + {turn})", f"0.7 * exp({turn})", f"zoh({rate} + {turn}, {w.input(own, 'in [0, 1]')})",
                          f"bilinear({rate} + {turn}, {w.input(own, 'in [0, 1]')})"))
    if coefficient[:3] in ("zoh", "bil") and "inf" in w.inputs.get(rate, (None, ""))[1]:  # neither is defined at -inf
        coefficient = f"exp({turn}) * 0.9"
    w.lines.append(f"{z} = {coefficient} * {z}[t-1] + {drive}")
    return [(f"re({z})", frozenset(dims)), (f"im({z})", frozenset(dims)), (f"re({z} * conj({z}))", frozenset(dims))]


def plain(w: Writer) -> list[Expr]:
    """States that need no recurrence, or count."""
    dims = dims_of(w, 0, 2)
    h = state(w, "h", dims)
    w.features.add("plain state")
    x = w.covered(w.expr(dims), dims)[0]
    update(w, h, w.pick((x, f"{h}[t-1] + 1", f"{h}[t-1]", x)))
    return [(h, frozenset(dims)), (f"{h}[t-1]", frozenset(dims))]


def free(w: Writer) -> list[Expr]:
    """Any tame expression of every state there is, within bounds."""
    dims = dims_of(w, 0, 2)
    h = state(w, "h", dims)
    w.features.add("free")

    def leaf(over: Sequence[str]) -> Expr:
        fitting = [s for s, own in w.states.items() if set(own) <= set(over)]
        if fitting and w.chance(45):
            s = w.pick(fitting)
            return f"{s}[t-1]" if s == h or w.chance(50) else s, frozenset(w.states[s])
        return w.leaf(over)

    e = w.covered(w.expr(dims, 3, leaf), dims)[0]
    update(w, h, w.pick((f"tanh({e})", f"0.5 * {h}[t-1] + 0.3 * sin({e})", f"sigmoid({e}) * {past(w, h)} + {w.input(dims)}")))
    return [(h, frozenset(dims))]


FAMILIES = (diagonal, outer, low_rank, coupled, maxima, cell, lags, folded, square_state, complex_state, plain, free)

__all__ = ["FAMILIES"]
