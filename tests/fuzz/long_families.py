"""Kinds of recurrences that look far back, or have few channels: taps beyond 32 lags, linear filters.

In: a `Writer`. Out: its lines and states, and readouts. Programs of numbers from `programs.LONG` on have them besides others.
"""

from __future__ import annotations

from tests.fuzz.families import dims_of, past, state, update
from tests.fuzz.writer import Expr, Writer, bracketed

FAR = 32  # lags up to here are read one by one


def taps(w: Writer) -> list[Expr]:
    """A value at many lags: sums, products and choices of them, before a recurrence or without one."""
    lag, dims = w.dim(w.pick((33, 40, 37, 50))), dims_of(w, 0, 1)
    w.features.add("many taps")
    first, own = _sum(w, lag, dims)
    kind = w.below(6)
    if kind == 0:
        first = f"{first} - {_sum(w, lag, dims)[0]}"
    elif kind == 1:
        first = f"{first} * {w.input(w.subset(dims))}"
    elif kind == 2:
        first = f"tanh({first})"
    made = w.define((first, frozenset(dims))) if w.chance(50) else (first, frozenset(dims))
    if w.chance(40):
        return [made, (own, frozenset(dims))]
    h, x = state(w, "h", dims), bracketed(made[0])
    kind = w.below(4)
    if kind == 0:
        update(w, h, f"{bracketed(w.coefficient(dims)[0])} * {past(w, h)} + {x}")
    elif kind == 1:
        update(w, h, f"tanh({x} + {w.param(w.subset(dims))} * {past(w, h)})")
    elif kind == 2:
        weight = f"{w.param((lag, *w.subset(dims)), again=False)} * 0.05"
        update(w, h, f"tanh(sum[{lag}]({weight} * {h}[t - 1 - index[{lag}]]) + {x})")
        w.features.add("many taps of a state")
    else:
        update(w, h, f"where({w.input((), 'in [0, 1]')} > 0.4, {past(w, h)} * 0.5 + {x}, {h}[t-1])")
    return [(h, frozenset(dims)), (f"{h} * {x}", frozenset(dims))]


def _sum(w: Writer, lag: str, dims: tuple[str, ...]) -> tuple[str, str]:
    """(a sum over lags, what is read at them)."""
    inner = (w.dim(2),) if w.chance(15) else ()
    read, later = _read(w, (*dims, *inner))
    far = w.pick((f"t - index[{lag}]", f"t - index[{lag}]", f"t - 2*index[{lag}]", f"t - 1 - index[{lag}]",
                  f"t - {w.sizes[lag]} + index[{lag}]", *([f"t + 3 - index[{lag}]"] if later else ())))
    own = (lag, *w.subset(dims), *inner)
    p = w.param(own)
    over = ", ".join((lag, *inner))
    kind = w.below(9)
    here = f"{read}[{far}]"
    if kind < 3:
        return f"sum[{over}](0.2 * {p} * {here})", _now(read, inner)
    if kind == 3:
        return f"sum[{over}](exp(-0.1 * index[{lag}]) * tanh({p}) * {here})", _now(read, inner)
    if kind == 4:
        return f"sum[{over}](where(index[{lag}] > 2, {p} * {here}, 0)) * 0.2", _now(read, inner)
    if kind == 5:
        return f"sum[{over}](0.2 * {w.input(own)} * {here})", _now(read, inner)
    if kind == 6:
        return f"sum[{over}](softmax[{lag}]({p} * {here}) * {here})", _now(read, inner)
    if kind == 7:
        return f"max[{over}]({p} + {here})", _now(read, inner)
    return f"sum[{over}](({p} - {here}) * {p} * 0.1)", _now(read, inner)


def _now(read: str, inner: tuple[str, ...]) -> str:
    return f"sum[{inner[0]}]({read})" if inner else read


def _read(w: Writer, dims: tuple[str, ...]) -> tuple[str, bool]:
    """What is read at many lags: an input, a definition, or an input with a history; whether it may be read ahead."""
    kind = w.below(5)
    if kind == 0:
        e = w.covered(w.expr(dims, 1), dims)
        later = w.further and w.ahead and not w.noisy and not any(name in e[0] for name in w.definitions)  # one may be fed back
        return w.define(e)[0], later
    if kind == 1:
        x = w.input(dims, again=0)
        w.inputs.pop(x)  # nobody else reads it further back, or ahead
        w.lines.append(f"history {x} 110")
        return x, False
    return w.input(dims), w.ahead


def filters(w: Writer) -> list[Expr]:
    """Linear states of a few channels that steps do not mix, and nothing else."""
    dims = (w.dim(w.pick((1, 2, 3, 5))),) if w.chance(80) else ()
    w.alone = True
    w.features.add("filters")
    x, y = w.input(dims), state(w, "y", dims)
    drive = w.pick((x, f"{x} + {w.param(())} * {x}[t-1]", f"{w.param(w.subset(dims))} * {x} - {x}[t-2]"))
    if w.chance(40):
        c = w.dim(w.pick((2, 3, 5)))
        drive = f"sum[{c}]({w.param((c, *w.subset(dims)))} * {x}[t - index[{c}]])"
    gate = w.pick(("0.6", f"tanh({w.param(w.subset(dims))}) * 0.7", f"sigmoid({w.input(dims)})", w.input(dims, "in [0, 1]"),
                   f"exp({w.input(dims, 'in [-inf, 0]')})"))
    second = w.pick(("", f" - 0.25 * {y}[t-2]", f" + 0.2 * tanh({w.param(w.subset(dims))}) * {y}[t-2]", f" + 0.2 * {y}[t-3]"))
    w.lines.append(f"{y} = {gate} * {y}[t-1]{second} + {drive}")
    read = [(y, frozenset(dims)), (f"{y} - {y}[t-1]", frozenset(dims)), (f"{y} * {w.input(dims)}", frozenset(dims))]
    if w.chance(50):
        z = state(w, "z", dims)
        a = w.pick(("0.5", f"sigmoid({w.param(w.subset(dims))})", f"sigmoid({w.input(dims)})"))
        w.lines.append(f"{z} = {a} * {z}[t-1] + {w.param(w.subset(dims))} * {w.pick((y, f'{y}[t-1]', f'{y}[t-2]'))}")
        read += [(z, frozenset(dims)), (f"{z} + {w.param(w.subset(dims))} * {y}", frozenset(dims))]
    return read


FAR_BACK = (taps, filters)

__all__ = ["FAR_BACK"]
