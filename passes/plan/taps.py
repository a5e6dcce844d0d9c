"""program -> sums over many lags of an input as convolutions along time, and what reads them.

    h = tanh(R @ h[t-1] + sum[L](w * x[t - index[L]]))        taps    w_x = sum[L](w * x[t - index[L]])
                                                        ->    rest    h = tanh(R @ h[t-1] + w_x),   w_x an input

for the sums of a read at many lags (`seqc.passes.plan.lag_reads`) times values of params alone; other factors stand before the
sum. What weights are made of is computed once a call (`tap_weights`). A sum that is none of these is written out lag by lag. A
delay line leaves with the sums over it, where no state makes what it keeps, and nothing else reads it but at single lags: its
newest value is then an input of the stage, made for all steps at once where it is no input of the program.

Needs: the step graph. Gives: a plan, or None where there is no such read. There are many lags, so a convolution saves the
traffic of all but one at least, whatever the recurrence: no cost decides. Kernels and loops see an input without lags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from seqc.analysis.cost import volume
from seqc.analysis.ranges import interval_of
from seqc.analysis.workload import nominal_sizes
from seqc.ir.block import Reason
from seqc.ir.formula import spell
from seqc.ir.graph import BATCH, Node, combined, const, leaves, node, rebuild, topological, total
from seqc.ir.once import found_once
from seqc.ir.ops.structure import expanded
from seqc.ir.plan import Plan, Stage
from seqc.ir.program import Program, TensorDecl, Wishes
from seqc.passes.plan.cutting import axes_of, fresh, image, names_of, part_of, plain, sized, told
from seqc.passes.plan.lag_reads import LagRead, Line, lag_reads, lines_of, over_lags
from seqc.passes.plan.outside_of_time import dense, made_once
from seqc.passes.plan.written_out import written_out

Reads = Mapping[Node, LagRead]


@dataclass(frozen=True)
class Tapped:
    """A sum over the lags of a read: of weights, made of params alone, times what is read, some of whose dims have other names.

    base: what is read, by its own dims; names: dim -> what it is called here.
    """

    read: LagRead
    base: Node
    factor: Node
    weights: Node
    over: tuple[str, ...]
    names: Mapping[str, str]

    @property
    def node(self) -> Node:
        """The sum."""
        return node("sum", self.weights * self.factor, over=self.over)


def taps(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """See the file's docstring."""
    if not lag_reads(stage.program):
        return None
    cut = _Cut(replace(stage, program=apart(stage.program)), taken)
    cut.inputs()
    while any(cut.line(name, line) for name, line in lines_of(cut.rest).items()):  # one that was cut may have fed another
        pass
    return cut.plan()


def tap_weights(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """The weights of taps, as params that are made once a call where they are no params yet."""
    program = apart(stage.program)
    reads = lag_reads(program)
    found = [one.weights for n in topological(program.graph.values()) if (one := tapped(reads, n))]
    made = [w for w in dict.fromkeys(found) if w.op != "leaf"]
    return made_once(replace(stage, program=program), taken, dict.fromkeys([*made, *dense(program)])) if made else None


@found_once
def apart(program: Program) -> Program:
    """The program in which sums over lags stand alone: `sum[L](a * x[t - index[L]] - b)` is a difference of two sums."""
    reads = lag_reads(program)
    if not reads:
        return program
    done, known = dict[Node, Node](), dict(reads)
    for n in topological(program.graph.values()):
        new = rebuild(n, tuple(done[a] for a in n.args))
        if n in reads:
            known[new] = reads[n]
        if n.op == "sum" and over_lags(reads, n.args) & set(n.names("over")):
            new = _summed(known, new.args[0], n.names("over"))
        done[n] = new
    return image(program, done)


def tapped(reads: Reads, n: Node) -> Tapped | None:
    """A node as a sum of taps; None where it is none."""
    if n.op != "sum" or not plain(n):
        return None
    found = _factors(reads, n.args[0])
    read = [f for f in found if _base(f) in reads]
    fixed = [f for f in found if _base(f) not in reads]
    if len(read) != 1 or any(map(_varies, fixed)):
        return None
    (factor,), one = read, reads[_base(read[0])]
    if one.dim not in n.names("over") or one.dim not in factor.dims:
        return None
    weights = expanded(combined("mul", fixed, 1.0), (one.dim,))
    return Tapped(one, _base(factor), factor, weights, n.names("over"), _names(factor))


def _base(f: Node) -> Node:
    """A value by its own dims."""
    while f.op == "rename":
        f = f.args[0]
    return f


def _names(f: Node) -> dict[str, str]:
    """What the dims of `_base` are called."""
    if f.op != "rename":
        return {d: d for d in f.dims}
    return {d: f.text("new") if x == f.text("old") else x for d, x in _names(f.args[0]).items()}


def _summed(reads: Reads, x: Node, over: tuple[str, ...]) -> Node:
    """A sum over lags, as sums of products with one read each, whose weights are one value."""
    if x.op in ("add", "sub") and over_lags(reads, [x]):
        return rebuild(x, tuple(_summed(reads, a, over) for a in x.args))
    if x.op == "neg":
        return -_summed(reads, x.args[0], over)
    if x.op == "sum" and over_lags(reads, [x]) & set(over):
        return _summed(reads, x.args[0], (*x.names("over"), *over))
    found = _factors(reads, x)
    difference = next((f for f in found if f.op in ("add", "sub") and over_lags(reads, [f])), None)
    if difference is not None and len(found) > 1:
        others = list(found)
        others.remove(difference)  # once: a square has it twice
        return rebuild(difference, tuple(_summed(reads, combined("mul", [a, *others]), over) for a in difference.args))
    outside = [f for f in found if _varies(f) and _base(f) not in reads and not set(f.dims) & set(over)]
    inside = [f for f in found if f not in outside]
    alone = total(combined("mul", inside) if inside else x, over)
    one = tapped(reads, alone)
    if one is None:
        return total(x, over)
    return combined("mul", [one.node, *outside])


def _factors(reads: Reads, x: Node) -> list[Node]:
    """The factors of a product; those that params alone make are one where a quotient or a sign stands before them."""
    found, todo = list[Node](), [x]
    while todo:
        f = todo.pop()
        if f in reads or not _varies(f):
            found.append(f)
        elif f.op == "mul":
            todo += reversed(f.args)
        elif f.op == "neg":
            todo += [f.args[0], const(-1.0)]
        elif f.op == "div" and not _varies(f.args[1]):
            todo += [node("div", const(1.0), f.args[1]), f.args[0]]
        else:
            found.append(f)
    return found


def _varies(x: Node) -> bool:
    """Whether a value is made of more than params that all sequences share."""
    return any(n.text("kind") != "param" or BATCH in n.dims for n in leaves([x]))


class _Cut:
    """The stages that were cut off so far, and what is left."""

    def __init__(self, stage: Stage, taken: frozenset[str]) -> None:
        self.stage, self.rest = stage, stage.program
        self.own = {*names_of(stage.program), *taken}
        self.stages, self.reasons = list[Stage](), list[Reason]()

    def plan(self) -> Plan:
        """All stages; what reads many lags otherwise is written out."""
        program = self.stage.program
        for read in lag_reads(self.rest).values():
            text = f"{len(read.lags)} lags, read one by one: no sum of products with params alone, or a state makes the value"
            self.reasons.append(Reason("taps", read.name.partition(".")[0], text))
        rest = told(written_out(replace(self.rest, claims=program.claims)), program)
        return Plan(program, (*self.stages, replace(self.stage, program=rest)), tuple(self.reasons))

    def inputs(self) -> None:
        """Cut off the sums over lags of inputs, each by itself."""
        table, given = dict[Node, Node](), list[TensorDecl]()
        for n, one in self._sums().items():
            if one.base.op == "leaf":
                decl = self._decl(n, one)
                part = self._part(decl.name, {decl.name: n}, {decl.name: decl})
                if sized(part):
                    given.append(replace(decl, kind="input"))
                    table[n] = given[-1].leaf()
                    self.stages.append(Stage(f"taps_{decl.name}", "taps", part))
                    self._tell(n, one)
        if table:  # else a program with all of its arguments is left, read or not
            self.rest = part_of(self.rest, self.rest.outputs, self.rest.updates, table, given, self.rest.output_decls)

    def line(self, name: str, line: Line) -> bool:
        """Cut off a delay line with the sums over it; whether it could be."""
        rest = self.rest
        sums = {n: one for n, one in self._sums().items() if one.read.name == name and one.base.op != "leaf"}
        if not sums or leaves([line.newest], "state"):
            return False
        order = topological(rest.graph.values())
        values = {n: self._decl(n, one) for n, one in sums.items()}
        values |= {n: TensorDecl(fresh(f"{name}_read", self.own), "output", axes_of(rest, n), interval_of(rest)[n])
                   for n in order if n.op == "take" and n.args[0] is line.state}
        newest, table = self._newest(name, line)
        table |= {n: replace(decl, kind="input").leaf() for n, decl in values.items()}
        given = [*(replace(decl, kind="input") for decl in values.values()), newest]
        updates = {x: n for x, n in rest.updates.items() if x != name}
        left = part_of(rest, rest.outputs, updates, table, given, rest.output_decls)
        outputs, decls = {d.name: n for n, d in values.items()}, {d.name: d for d in values.values()}
        part = self._part(name, outputs, decls, {name: rest.updates[name]}, {line.newest: newest.leaf()}, newest)
        if line.state in leaves(left.graph.values()) or not sized(part):
            return False
        if newest.name not in rest.inputs:
            own = replace(newest, kind="output")
            made = written_out(self._part(newest.name, {newest.name: line.newest}, {newest.name: own}))
            made = told(made, self.stage.program)
            self.stages.append(Stage(f"before_{newest.name}", "all", made))
        self.stages.append(Stage(f"taps_{name.replace('.', '_')}", "taps", part))
        for n, one in sums.items():
            self._tell(n, one)
        self.rest = left
        return True

    def _sums(self) -> dict[Node, Tapped]:
        reads, order = lag_reads(self.rest), topological(self.rest.graph.values())
        found = {n: one for n in order if (one := tapped(reads, n))}
        return {n: one for n, one in found.items() if one.weights.op == "leaf"}

    def _newest(self, name: str, line: Line) -> tuple[TensorDecl, dict[Node, Node]]:
        """The newest value of a line as an input, and what becomes of it where it is made for that."""
        n, rest = line.newest, self.rest
        if n.op == "leaf" and n.text("kind") == "input" and not n.number("offset") and n.dtype == "real":
            return rest.inputs[n.text("name")], {}
        wish = rest.definitions.get(n, name.partition(".")[0])
        decl = TensorDecl(fresh(wish, self.own), "input", rest.states[name].dims[1:], interval_of(rest)[n])
        return decl, {n: decl.leaf()}

    def _decl(self, n: Node, one: Tapped) -> TensorDecl:
        """A sum as an output of its stage."""
        words = [one.weights.text("name"), one.read.name.partition(".")[0]]
        wish = self.rest.definitions.get(n) or "_".join(words)
        return TensorDecl(fresh(wish, self.own), "output", axes_of(self.rest, n), interval_of(self.rest)[n])

    def _part(
        self, name: str, outputs: Mapping[str, Node], decls: Mapping[str, TensorDecl], updates: Mapping[str, Node] = {},
        table: Mapping[Node, Node] = {}, newest: TensorDecl | None = None,
    ) -> Program:
        part = part_of(self.rest, outputs, updates, table, [newest] if newest else [], decls, masks=False)
        wishes = Wishes(convolution=self.rest.wishes.convolution)
        return replace(part, name=f"{self.rest.name}_{name.replace('.', '_')}", wishes=wishes)

    def _tell(self, n: Node, one: Tapped) -> None:
        """What a convolution costs a token."""
        program = self.stage.program
        sizes, span = {**nominal_sizes(self.rest), BATCH: 1}, program.spans.get(n)
        operations = 2 * volume({*one.weights.dims, *one.factor.dims}, sizes)
        moved = 4 * (volume(set(one.factor.dims) - {one.read.dim}, sizes) + 2 * volume(one.node.dims, sizes))
        way = "by FFT where a call's sizes make that cheaper" if program.wishes.convolution else "product by product"
        text = f"{len(one.read.lags)} lags, {way}: {operations:.0f} operations and {moved:.0f} bytes moved, a token"
        self.reasons.append(Reason("taps", " ".join(span.text.split()) if span else spell(n), text))


__all__ = ["Tapped", "apart", "tap_weights", "tapped", "taps"]
