"""Kinds of recurrences that follow a derivative of their own, or run at several rates.

In: a `Writer`. Out: its lines and states, and readouts. Programs of numbers from `programs.NEWEST` on have them besides others.
"""

from __future__ import annotations

from tests.fuzz.families import dims_of, past, state, update
from tests.fuzz.writer import Expr, Writer, bracketed, shown


def descent(w: Writer) -> list[Expr]:
    """A state that goes down an energy, with momentum or without."""
    dims = dims_of(w, 0, 2)
    h = state(w, "h", dims)
    w.features.add("slope of a state")
    x = w.covered(w.expr(dims, 1), dims)[0]
    a = w.param(w.subset(dims))
    energy = w.pick((f"log(cosh({h}[t-1] - tanh({x})))", f"0.5 * (tanh({a}) * {h}[t-1] - tanh({x}))^2",
                     f"sin({h}[t-1] * tanh({a})) * tanh({x})", f"softplus(tanh({h}[t-1]) * {a}) + 0.1 * {h}[t-1]^2"))
    if w.chance(40):
        energy = w.define((energy, frozenset(dims)))[0]
    if w.chance(30) and dims:
        energy = f"sum{shown(dims)}({energy})"
    slope = f"grad({energy}, {h}[t-1])"
    if w.chance(25):
        m = state(w, "m", dims)
        w.lines.append(f"{m} = 0.5 * {m}[t-1] - 0.3 * {slope}")
        slope = f"-{m}"
    update(w, h, f"{w.pick(('0.9', bracketed(w.gate(dims)[0])))} * {past(w, h)} - 0.3 * {bracketed(slope)}")
    return [(h, frozenset(dims)), (f"grad(tanh({h}[t-1]) * {w.input(dims)}, {h}[t-1])", frozenset(dims))]


def fast_weights(w: Writer) -> list[Expr]:
    """A matrix that learns to map keys to values while it is read."""
    k, v = w.dim(), w.dim()
    dims = (w.dim(), v, k) if w.chance(30) else (v, k)
    s = state(w, "W", dims)
    w.features.add("slope of a matrix")
    own = dims[:-2]
    key = w.define((f"l2norm[{k}](1 + {w.input((*own, k))}^2)", frozenset((*own, k))))[0]
    target, beta = w.input((*own, v)), w.input((), "in [0, 1]")
    guess = f"sum[{k}]({s}[t-1] * {key})"
    loss = w.pick((f"0.5 * ({guess} - {target})^2", f"log(cosh({guess} - {target}))", f"0.5 * (tanh({guess}) - {target})^2"))
    loss = w.define((f"sum[{v}]({loss})", frozenset(own)))[0]
    keep = w.pick(("", "0.9 * ", f"{bracketed(w.gate(own)[0])} * "))
    update(w, s, f"{keep}{s}[t-1] - {beta} * grad({loss}, {s}[t-1])")
    return [(f"sum[{k}]({s} * {w.input((*own, k))})", frozenset((*own, v))), (loss, frozenset(own))]


def slopes(w: Writer) -> list[Expr]:
    """Derivatives by definitions, inputs, params and running values, and derivatives of these."""
    dims = dims_of(w, 0, 2)
    h = state(w, "h", dims)
    w.features.add("slope of another value")
    x, p = w.input(dims, again=0), w.param(w.subset(dims), again=False)
    kind = w.below(6)
    y = w.covered(w.expr(dims, 1), dims)[0]
    if kind == 0:
        d = w.define((f"sin({x}) + 0.5 * {h}[t-1]", frozenset(dims)))[0]
        e = w.define((f"{d} * tanh({d} + {y})", frozenset(dims)))[0]
        update(w, h, f"0.5 * {past(w, h)} + 0.3 * tanh(grad({e}, {d}))")
    elif kind == 1:
        update(w, h, f"0.6 * {past(w, h)} + tanh(grad(sin({x}) * tanh({h}[t-1] + {p} * {x}), {x}))")
    elif kind == 2:
        update(w, h, f"0.6 * {past(w, h)} + tanh(grad(tanh({p} * ({x} + {h}[t-1])) * cos({p}), {p})) + tanh({y})")
    elif kind == 3:
        update(w, h, f"0.6 * {past(w, h)} + tanh(grad(grad(sin({x} * tanh({h}[t-1])) + {x}^2, {x}) * tanh({y}), {x}))")
    elif kind == 4:
        j = w.dim(w.pick((2, 3)))
        u = w.input((*dims, j))
        update(w, h, f"fold[{j}]({past(w, h)}, R -> 0.8 * R - 0.3 * grad(log(cosh(R - tanh({u}))), R) + 0.1 * {y})")
    else:
        update(w, h, f"0.6 * {past(w, h)} + tanh(grad(sin({x}[t-1]) * ({y}) + {x}[t-1] * tanh({h}[t-1]), {x}[t-1]))")
    return [(h, frozenset(dims)), (f"grad(exp(-{x}^2) * tanh({h}), {x})", frozenset(dims))]


def rates(w: Writer) -> list[Expr]:
    """A slow memory of several steps at once, which is read at each step, or spread over the steps of the next group."""
    n = w.pick((2, 3, 4))
    p, dims = w.dim(n), dims_of(w, 0, 1)
    w.features.add("several rates")
    first = f" first {1 + w.below(n)}" if w.chance(25) else ""
    h, g = state(w, "h", dims), state(w, "g", dims)
    x, a = w.covered(w.expr(dims, 1), dims)[0], w.param((p, *w.subset(dims)))
    update(w, h, f"{bracketed(w.gate(dims)[0])} * {past(w, h)} + {x}")
    fast = w.pick((h, w.input(dims), w.define((f"sin({h}) + {w.input(dims)}", frozenset(dims)))[0]))
    taken = w.pick((f"sum[{p}]({a} * down[{p}]({fast}))", fast, f"mean[{p}](down[{p}]({fast}))"))
    w.lines.append(f"down {n}{first}: {g} = " + w.pick((
        f"{bracketed(w.gate(dims)[0])} * {g}[t-1] + {taken}", f"tanh({w.param(w.subset(dims))} * {g}[t-1] + {taken})")))
    read: list[Expr] = [(g, frozenset(dims)), (f"{h} * {g}[t-1]", frozenset(dims))]
    if w.chance(50):
        u = state(w, "u", (p, *dims))
        w.lines.append(f"down {n}{first}: {u} = {w.param((p,))} * tanh({g}) + {w.pick(('0', f'0.5 * {u}[t-1]'))}")
        read += [(f"up[{p}]({u}[t-1])", frozenset(dims)), (f"up[{p}]({u}) + {h}", frozenset(dims))]
        w.features.add("up")
        if w.chance(50):
            f = state(w, "f", dims)
            update(w, f, f"0.7 * {f}[t-1] + up[{p}]({u}[t-1]) * {w.input((), 'in [0, 1]')}")
            read.append((f, frozenset(dims)))
    if w.chance(30) and not first:
        q = w.dim(2)
        s = state(w, "s", dims)
        w.lines.append(f"down {2 * n}: {s} = 0.5 * {s}[t-1] + sum[{q}]({w.param((q,))} * down[{q}]({g}))")
        read.append((f"{s} + {h}", frozenset(dims)))
        w.features.add("three rates")
    return read


def mutual(w: Writer) -> list[Expr]:
    """A slow context that a fast cell reads while it feeds it."""
    dims, n = dims_of(w, 0, 1), w.pick((2, 3, 5))
    h, g = state(w, "h", dims), state(w, "g", dims)
    w.features.add("mutual rates")
    x = w.covered(w.expr(dims, 1), dims)[0]
    update(w, h, f"tanh({x} + {w.param(w.subset(dims))} * {g}[t-1] + 0.5 * {h}[t-1])")
    w.lines.append(f"down {n}: {g} = {bracketed(w.gate(dims)[0])} * {g}[t-1] + {w.pick((h, f'sin({h})', f'{h}[t-1]'))}")
    return [(h, frozenset(dims)), (g, frozenset(dims))]


NEW = (descent, fast_weights, slopes, rates, mutual)

__all__ = ["NEW"]
