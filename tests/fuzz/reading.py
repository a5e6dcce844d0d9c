"""What a text declares, sorted: the judge's own reading of the syntax tree. In: the text of a valid spec. Out: a `Spec`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from zlib import crc32

from seqc.frontend import syntax
from seqc.frontend.parse import parse
from seqc.frontend.trees import walk

DRAWS = ("normal", "uniform", "bernoulli")


@dataclass
class Spec:
    """The statements of a text, sorted by what they declare."""

    dims: dict[str, syntax.DimItem] = field(default_factory=dict)
    inputs: dict[str, syntax.Decl] = field(default_factory=dict)
    params: dict[str, syntax.Decl] = field(default_factory=dict)
    consts: dict[str, syntax.Decl] = field(default_factory=dict)
    states: dict[str, syntax.Decl] = field(default_factory=dict)
    defined: dict[str, syntax.Define] = field(default_factory=dict)
    outputs: dict[str, syntax.Output] = field(default_factory=dict)
    every: dict[str, syntax.Every] = field(default_factory=dict)
    down: dict[str, syntax.Down] = field(default_factory=dict)  # of slow states
    sparse: dict[str, list[syntax.Sparse]] = field(default_factory=dict)  # what is said of each param
    feedback: dict[str, syntax.Expr] = field(default_factory=dict)
    history: dict[str, int] = field(default_factory=dict)
    axis: str = "t"
    second: str = ""  # the other axis of two
    scan: str = "forward"
    second_scan: str = "forward"
    before: dict[str, dict[tuple[str, ...], syntax.Expr]] = field(default_factory=dict)  # what is first, of a state, by axes
    joined: tuple[str, ...] = ()  # words behind `scan both`
    name: str = "spec"

    def fixed(self) -> dict[str, int]:
        """The sizes that the text gives."""
        return {n: d.default if d.default is not None else (d.sizes or (d.lo,))[0]  # type: ignore[misc]
                for n, d in self.dims.items() if d.default is not None or d.sizes or d.lo is not None}

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of time: one, or two."""
        return (self.axis, self.second) if self.second else (self.axis,)

    def every_expression(self) -> list[syntax.Expr]:
        """All that is computed in a step."""
        found = [d.expr for d in self.defined.values()] + [o.expr for o in self.outputs.values() if o.expr is not None]
        return found + [e.body.expr for e in self.every.values()]

    def rate(self, name: str) -> int:
        """At every how many steps a value changes."""
        return self.down[name].steps if name in self.down else 1

    def index(self, item: syntax.Expr) -> str | None:
        """The index input that an item of brackets reads: `w`, or `w[t-1]`; None for anything else."""
        name = item.id if isinstance(item, syntax.Name) else item.name.id if isinstance(item, syntax.Subscript) else ""
        return name if name in self.inputs and self.inputs[name].places is not None else None

    def choice(self, item: syntax.Expr) -> str | None:
        """The dim whose positions an item of brackets chooses: `argmax[V](..)`, or a definition of that, now or earlier."""
        if isinstance(item, syntax.Call):
            return item.dims[0].id if item.name.id in ("argmax", "argmin", "position") and item.dims else None
        name = item.id if isinstance(item, syntax.Name) else item.name.id if isinstance(item, syntax.Subscript) else ""
        e = self.defined[name].expr if name in self.defined else None
        return self.choice(e) if isinstance(e, syntax.Call) else None

    def written_rows(self, name: str) -> tuple[str, ...]:
        """The indices of `M[w] = ..`, or of `Q[s, a] = ..`, for a state; none of any other definition."""
        dims = self.defined[name].dims or () if name in self.states and name in self.defined else ()
        indices = tuple(d.id for d in dims if self.index(syntax.Name(d.span, d.id)))
        return indices if len(indices) == len(dims) else ()

    def sites(self) -> dict[int, int]:
        """The site of each draw by the id of its call: the CRC-32 of "NAME.I" below 2^16, or the next one that is free."""
        named = {n: d.expr for n, d in self.defined.items() if not isinstance(d.expr, syntax.Taken) or d.expr.place == 0}
        named |= {n: o.expr for n, o in self.outputs.items() if o.expr is not None}
        named |= {f"every {n}": e.body.expr for n, e in self.every.items()}
        calls = {(n, i): call for n, e in named.items()
                 for i, call in enumerate(x for x in walk(e) if isinstance(x, syntax.Call) and x.name.id in DRAWS)}
        taken: dict[int, int] = {}
        for name, i in sorted(calls):
            site = crc32(f"{name}.{i}".encode()) % 65536
            while site in taken.values():
                site = (site + 1) % 65536
            taken[id(calls[name, i])] = site
        return taken


@lru_cache(maxsize=8)
def read(text: str) -> Spec:
    """The spec of a text."""
    spec = Spec()
    kinds = {"input": spec.inputs, "param": spec.params, "buffer": spec.params, "const": spec.consts, "state": spec.states}
    statements = parse(text).statements
    for s in sorted(statements, key=lambda s: not isinstance(s, syntax.Axes)):  # what a direction is of
        match s:
            case syntax.SpecName():
                spec.name = s.name.id
            case syntax.Dims():
                spec.dims |= {d.name.id: d for d in s.items}
            case syntax.Axes():
                spec.axis, spec.second = (*(name.id for name in s.names), "")[:2]
            case syntax.Scan() if spec.second and s.direction.id == spec.second:
                spec.second_scan = s.joined[0].id
            case syntax.Scan():
                words = [s.direction.id, *(word.id for word in s.joined)]
                words = words[1:] if spec.second and words[0] == spec.axis else words
                spec.scan, spec.joined = words[0], tuple(words[1:])
            case syntax.Before():
                spec.before.setdefault(s.body.name.id, {})[tuple(axis.id for axis in s.axes)] = s.body.expr
            case syntax.Declare():
                kinds[s.kind].update({d.name.id: d for d in s.items})
            case syntax.Define():
                spec.defined[s.name.id] = s
            case syntax.Output():
                spec.outputs[s.name.id] = s
            case syntax.Every():
                spec.every[s.body.name.id] = s
            case syntax.Down():
                spec.down[s.body.name.id], spec.defined[s.body.name.id] = s, s.body
            case syntax.Sparse():
                for name in s.names:
                    spec.sparse.setdefault(name.id, []).append(s)
            case syntax.Feedback():
                spec.feedback[s.name.id] = s.expr
            case syntax.History():
                spec.history[s.name.id] = s.steps
            case syntax.Claim() | syntax.Schedule() | syntax.Tile() | syntax.Checkpoint():
                pass  # claims and wishes change no number
            case _:
                raise NotImplementedError(type(s).__name__)
    return spec


def own_dims(decl: syntax.Decl) -> tuple[str, ...]:
    """The dims of a declaration."""
    return squared(decl.dims)


def squared(dims: tuple[syntax.Name, ...]) -> tuple[str, ...]:
    """Dims as they are written; one that is repeated is the column of a square."""
    seen: list[str] = []
    for d in dims:
        name = d.id
        while name in seen:
            name += "'"
        seen.append(name)
    return tuple(seen)


def deepest(spec: Spec, sizes: Mapping[str, int], more: Iterable[syntax.Expr] = ()) -> dict[str, int]:
    """The longest lag of each state and definition that is read at one. more: what is computed in a step besides."""
    found: dict[str, int] = {}
    for whole in (*spec.every_expression(), *more):
        for e in walk(whole):
            if isinstance(e, syntax.Call) and e.name.id == "down" and e.dims and isinstance(e.args[0], syntax.Name):
                name = e.args[0].id
                if name in (*spec.states, *spec.defined):
                    found[name] = max(spec.rate(name) * (sizes[e.dims[0].id] - 1), found.get(name, 0))
            if isinstance(e, syntax.Subscript) and e.name.id in (*spec.states, *spec.defined):
                for item in e.items:
                    if not isinstance(item, syntax.Renaming | syntax.Position) and not spec.index(item) and (
                            not spec.choice(item) and mentions(item, spec.axis)):
                        long = max(_lags(item, spec.axis, sizes))
                        found[e.name.id] = max(long, found.get(e.name.id, 0))
    return found


def mentions(e: syntax.Expr, name: str) -> bool:
    return any(isinstance(part, syntax.Name) and part.id == name for part in walk(e))


@dataclass(frozen=True)
class Folded:
    """`fold[J](a0, r0, a, r -> e = E, A, R)`: first values (also as `a = a0`), names, values of a step's own, new values."""

    starts: list[syntax.Expr]
    names: list[str]
    own: list[syntax.Started]
    bodies: list[syntax.Expr]


def folded(e: syntax.Call) -> Folded:
    """The parts of a fold."""
    place = next(i for i, x in enumerate(e.args) if isinstance(x, syntax.Bound))
    arrow, count = e.args[place], (place + 1) // 2
    assert isinstance(arrow, syntax.Bound)
    starts = [x.start if isinstance(x, syntax.Started) else x for x in e.args[:count]]
    names = [x.id for x in e.args[count:place] if isinstance(x, syntax.Name)] + [arrow.name.id]
    behind = [arrow.body, *e.args[place + 1 :]]
    return Folded(starts, names, [x for x in behind if isinstance(x, syntax.Started)], behind[-count:])


def _lags(e: syntax.Expr, axis: str, sizes: Mapping[str, int]) -> list[int]:
    """Every lag that `t - index[L]` stands for."""
    dims = indexed(e)
    ends = [dict.fromkeys(dims, 0), {d: sizes[d] - 1 for d in dims}]
    return [-whole(e, {**sizes, axis: 0}, at) for at in ends]


def indexed(e: syntax.Expr) -> list[str]:
    """The dims L of every `index[L]` in an expression."""
    places = [p for p in walk(e) if isinstance(p, syntax.Subscript)]
    return [i.id for p in places for i in p.items if isinstance(i, syntax.Name)]


def whole(e: syntax.Expr, names: Mapping[str, int], at: Mapping[str, int]) -> int:
    match e:
        case syntax.Number(text=text):
            return int(text)
        case syntax.Name(id=name):
            return names[name]
        case syntax.Unary(x=x):
            return -whole(x, names, at)
        case syntax.Subscript(items=(syntax.Name(id=dim),)):
            return at[dim]
        case syntax.Binary(op=op, left=left, right=right):
            a, b = whole(left, names, at), whole(right, names, at)
            return {"+": a + b, "-": a - b, "*": a * b, "^": a**b if op == "^" else 0}[op]
    raise NotImplementedError(e)


__all__ = ["DRAWS", "Spec", "deepest", "folded", "indexed", "mentions", "own_dims", "read", "squared", "whole"]
