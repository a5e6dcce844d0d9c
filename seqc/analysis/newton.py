"""program -> what runs a nonlinear recurrence in parallel by Newton's method: a step at all places at once, and linear scans.

Of states x[t] = f(x[t-1], inputs[t]) at all steps, an iteration (Lim et al. 2024, arXiv:2309.12252) moves a guess by

    move[t] = J[t] move[t-1] + (f(x[t-1]) - x[t]),   move[0] = 0,   J[t] the Jacobian of f at x[t-1]

and what backward hands to the states is one linear scan in the other direction, over the transposed J. Here: programs.
`each` is the step with the states before it as inputs; `slopes` gives f and J; `moves` and `back` are the scans; `ahead` is
what `slopes` reads of products that see no state. All but the scans carry no state, and all go through every pass as any
other program.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from seqc.analysis.affine import nonlinear
from seqc.analysis.jacobian import OWN, NoSlope, Slope, jacobian
from seqc.analysis.pieces import why_uncut
from seqc.analysis.ranges import infer, interval_of
from seqc.analysis.semirings import semiring_of
from seqc.ir.dims import unprimed
from seqc.ir.formula import spell
from seqc.ir.graph import BATCH, Node, combined, const, depends, leaves, renamed, substitute, topological, total
from seqc.ir.intervals import ANY
from seqc.ir.ops.structure import expanded
from seqc.ir.program import Program, TensorDecl, Wishes
from seqc.ir.views import bare

MOST = 32  # rows of a step's Jacobian in one place: a scan multiplies matrices of so many rows


@dataclass(frozen=True)
class Newton:
    """See the file's docstring. whole: the program; slopes of states are inputs of the scans by the names in `links`, but
    for those that are the same at every step. mixed: state -> its dims along which a step's Jacobian is no diagonal. exact:
    whether the slopes are the derivatives; what `stopgrad` holds is left out of them, and iterations then need not square
    an error."""

    whole: Program
    ahead: Program | None
    each: Program
    slopes: Program
    moves: Program
    back: Program
    links: tuple[str, ...]
    mixed: Mapping[str, tuple[str, ...]]
    gain: float
    exact: bool

    @property
    def contraction(self) -> str:
        """What the declared ranges tell of how an error of a state goes from step to step."""
        if self.gain < 1:
            return f"an error of the states shrinks to at most {self.gain:.3g} of itself in a step, by the declared ranges"
        bound = "unbounded" if math.isinf(self.gain) else f"up to {self.gain:.3g} times as large"
        return f"by the declared ranges an error of the states may be {bound} after a step: no contraction is known"


def before(state: str) -> str:
    """The input that holds a state before each step."""
    return f"{state}.before"


def newton_of(program: Program) -> Newton | str:
    """The programs, or the reason why there are none."""
    if (why := _unfit(program)) != "":
        return why
    try:
        found = jacobian(program)
    except NoSlope as stop:
        own = stop.at.op in OWN
        why = "has a derivative of the spec's own" if own else "is not followed by a tangent"
        return f"`{spell(stop.at, program.definitions)}`, between a state and the next, {why}"
    mixed = {name: _mixed(name, found) for name in program.states}
    rows = [math.prod(_size(program, d) for d in dims) for dims in mixed.values() if dims]
    if sum(rows) > MOST:
        return f"the Jacobian of a step has {sum(rows)} rows in one place: more than {MOST}"
    return _Parts(program, found, mixed).newton()


def _unfit(program: Program) -> str:
    if not program.states:
        return "it has no state"
    if program.direction == "both" or program.plane is not None or any(d.role == "edge" for d in program.inputs.values()):
        return "it runs over two axes, or in two directions"
    if why := why_uncut(program):
        return why
    starts = [d.leaf() for d in program.states.values()]
    if all(nonlinear(update, starts) is None for update in program.updates.values()):
        return "it is linear in its states: scans, blocks or pieces of time take it"
    if semiring_of(program.updates.values(), starts) is not None:
        return "it is linear over log-sum-exp or a maximum: pieces of time take it"
    return ""


def _mixed(state: str, found: Mapping[tuple[str, str], Slope]) -> tuple[str, ...]:
    rows = [x.rows for (i, _), x in found.items() if i == state]
    rows += [tuple(d for d, _ in x.columns) for (_, j), x in found.items() if j == state]
    return tuple(dict.fromkeys(d for dims in rows for d in dims))


def _size(program: Program, dim: str) -> int:
    """The extent of a dim, or 1 where a call tells it."""
    decl = program.dims[unprimed(dim)]
    return decl.choices[0] if len(decl.choices) == 1 else 1


class _Parts:
    """Makes the programs."""

    def __init__(self, program: Program, found: Mapping[tuple[str, str], Slope], mixed: Mapping[str, tuple[str, ...]]) -> None:
        self.program, self.found, self.mixed = program, found, mixed
        self.bare = replace(
            program, states={}, updates={}, outputs={}, output_decls={}, claims=(), wishes=Wishes(), loop=None, doc="",
            direction="forward", definitions={}, spans={},
        )  # fmt: skip
        decls = program.states.values()
        self.before = {d.name: replace(d, name=before(d.name), kind="input", role="", init=None, hidden=True) for d in decls}
        self.table = {d.leaf(): self.before[d.name].leaf() for d in decls}
        self.fixed = {key for key, x in found.items() if not leaves([x.value], "input") and not leaves([x.value], "state")}
        self.decls = {key: self._decl(*key) for key in found if key not in self.fixed}

    def _decl(self, i: str, j: str) -> TensorDecl:
        slope = self.found[i, j]
        return TensorDecl(f"{i}.of.{j}", "input", tuple(d for d in slope.dims if d in slope.value.dims), hidden=True)

    def newton(self) -> Newton:
        """All of them."""
        ahead, slopes = self._slopes()
        links = tuple(d.name for d in self.decls.values())
        scans = (self._scan({key: key for key in self.found}, False), self._scan({(j, i): (i, j) for i, j in self.found}, True))
        active = depends(self.program.updates.values(), self.table)
        exact = all(x.op != "stopgrad" for x in active)
        return Newton(self.program, ahead, self._each(), slopes, *scans, links, self.mixed, self._gain(), exact)

    def _each(self) -> Program:
        program = self.program
        after = {f"{name}.after": update for name, update in program.updates.items()}
        roots = substitute({**program.outputs, **after}, self.table)
        given = {d.name: d for d in self.before.values()}
        decls = {x: TensorDecl(x, "output", program.states[name].dims) for x, name in zip(after, program.states, strict=True)}
        called = substitute({str(i): n for i, n in enumerate(program.definitions)}, self.table)
        names = dict(zip(called.values(), program.definitions.values(), strict=True))
        return replace(
            self.bare, inputs={**program.inputs, **given}, outputs=roots,
            output_decls={**program.output_decls, **decls}, definitions=names,
        )  # fmt: skip

    def _slopes(self) -> tuple[Program | None, Program]:
        """(what sees no state, f and J)."""
        program = self.program
        roots = {f"{name}.after": update for name, update in program.updates.items()}
        roots |= {d.name: self.found[key].value for key, d in self.decls.items()}
        decls = {x: TensorDecl(x, "output", program.states[name].dims) for x, name in zip(roots, program.states, strict=False)}
        decls |= {d.name: replace(d, kind="output") for d in self.decls.values()}
        late = depends(roots.values(), self.table)
        early = [a for n in topological(roots.values()) if n in late for a in n.args if a not in late]
        products = [a for a in dict.fromkeys(map(bare, early)) if _product(a)]
        made = {n: TensorDecl(f"ahead.{k}", "output", tuple(d for d in n.dims if d != BATCH)) for k, n in enumerate(products)}
        ahead = None
        if made:
            outputs = {d.name: n for n, d in made.items()}
            ahead = self._reading(outputs, {d.name: d for d in made.values()}, program.inputs.values())
        given = {n: replace(d, kind="input") for n, d in made.items()}
        roots = substitute(roots, self.table | {n: d.leaf() for n, d in given.items()})
        inputs = [*program.inputs.values(), *given.values(), *self.before.values()]
        return ahead, self._reading(roots, decls, inputs)

    def _reading(self, roots: Mapping[str, Node], decls: Mapping[str, TensorDecl], inputs: Iterable[TensorDecl]) -> Program:
        """The program of some roots, with those of the inputs, and of the program's params, that they read."""
        read = {(n.text("kind"), n.text("name")) for n in leaves(roots.values())}
        taken = {d.name: d for d in inputs if ("input", d.name) in read or d in self.before.values()}
        params = {x: d for x, d in self.program.params.items() if ("param", x) in read}
        return replace(self.bare, inputs=taken, params=params, outputs=roots, output_decls=decls)

    def _scan(self, links: Mapping[tuple[str, str], tuple[str, str]], back: bool) -> Program:
        """x_i = the sum over j of slope(i, j) x_j[t-1], and what is added to it at each step. links: (i, j) -> key of the
        slope, which is transposed where back."""
        decls = self.program.states.items()
        states = {n: replace(d, name=f"{n}.move", init=const(0.0), range=ANY, hidden=True) for n, d in decls}
        added = {n: TensorDecl(f"{n}.error", "input", d.dims, hidden=True) for n, d in states.items()}
        updates, outputs, given = {}, {}, {}
        for i, d in states.items():
            terms = [self._term(states[j].leaf(), key, back) for (one, j), key in links.items() if one == i]
            x = expanded(combined("add", [*terms, added[i].leaf()]), d.axes)
            updates[d.name], outputs[f"{i}.moved"] = x, x
            given[f"{i}.moved"] = TensorDecl(f"{i}.moved", "output", d.dims)
        scan = self._reading(outputs, given, (*self.decls.values(), *added.values()))
        return replace(scan, states={d.name: d for d in states.values()}, updates=updates)

    def _term(self, x: Node, key: tuple[str, str], back: bool) -> Node:
        slope = self.found[key]
        value = slope.value if key in self.fixed else self.decls[key].leaf()
        if not back:
            for d, column in slope.columns:
                x = renamed(x, d, column)
            return total(value * x, [column for _, column in slope.columns])
        x = total(expanded(value * x, slope.rows), slope.rows)
        for d, column in slope.columns:
            x = renamed(expanded(x, (column,)), column, d)
        return x

    def _gain(self) -> float:
        """A bound of the Jacobian's largest sum over a row, from the declared ranges."""
        program = self.program
        ranges = interval_of(program)
        states = {name: ranges.get(d.leaf(), d.range) for name, d in program.states.items()}
        found = infer(program, [x.value for x in self.found.values()], states)
        sums = dict.fromkeys(program.states, 0.0)
        for (i, _), x in self.found.items():
            size = found[x.value].magnitude
            for d, _ in x.columns:
                known = len(program.dims[unprimed(d)].choices) == 1
                size = size * _size(program, d) if known or size == 0 else math.inf
            sums[i] += size
        return max(sums.values())


def _product(n: Node) -> bool:
    """Whether n is made of inputs, with a sum over a dim in it."""
    order = topological([n])
    return n.op != "leaf" and n.dtype == "real" and bool(leaves(order, "input")) and any(x.op == "sum" for x in order)


__all__ = ["MOST", "Newton", "before", "newton_of"]
