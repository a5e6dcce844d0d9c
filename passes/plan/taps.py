"""program -> sums over many lags of an input as convolutions along time, and what reads them.

    h = tanh(R @ h[t-1] + sum[L](w * x[t - index[L]]))        taps    w_x = sum[L](w * x[t - index[L]])
                                                        ->    rest    h = tanh(R @ h[t-1] + w_x),   w_x an input

for the sums of a window (`seqc.ir.windows`) times values of params alone; other factors stand before the sum. What weights are
made of is computed once a call (`tap_weights`). A sum that is none of these is written out lag by lag.

Needs: the step graph. Gives: a plan, or None where there is no window. Windows sum over many lags, so a convolution saves the
traffic of all but the first at least, whatever the recurrence: no cost decides. Kernels and loops see an input without lags.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqc.analysis.cost import volume
from seqc.analysis.ranges import interval_of
from seqc.analysis.workload import nominal_sizes
from seqc.ir.block import Reason
from seqc.ir.formula import spell
from seqc.ir.graph import BATCH, Node, const, leaves, node, rebuild, topological, total
from seqc.ir.ops.structure import expanded
from seqc.ir.plan import Plan, Stage
from seqc.ir.program import Program, TensorDecl, Wishes
from seqc.ir.windows import lags, window_of, windows
from seqc.passes.plan.cutting import axes_of, fresh, image, names_of, part_of, plain, sized, times, told
from seqc.passes.plan.outside_of_time import dense, made_once
from seqc.passes.plan.written_out import written_out


@dataclass(frozen=True)
class Tapped:
    """A sum over the lags of a window: of weights, made of params alone, times the window."""

    window: Node
    weights: Node
    over: tuple[str, ...]

    @property
    def node(self) -> Node:
        """The sum."""
        return node("sum", self.weights * self.window, over=self.over)


def taps(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """See the file's docstring."""
    program = stage.program
    if not windows(program.graph.values()):
        return None
    program = apart(program)
    found = {n: one for n in topological(program.graph.values()) if (one := tapped(program, n))}
    own, ranges, table = {*names_of(program), *taken}, interval_of(program), dict[Node, Node]()
    stages, given, reasons = list[Stage](), list[TensorDecl](), list[Reason]()
    for n, one in found.items():
        wish = program.definitions.get(n) or "_".join(x.text("name") for x in (one.weights, one.window) if x.op == "leaf")
        decl = TensorDecl(fresh(wish, own), "output", axes_of(program, n), ranges[n])
        part = part_of(program, {decl.name: n}, {}, {}, (), {decl.name: decl}, masks=False)
        part = replace(part, name=f"{program.name}_{decl.name}", wishes=Wishes(convolution=program.wishes.convolution))
        if one.weights.op != "leaf" or not sized(part):
            continue
        given.append(replace(decl, kind="input"))
        table[n] = given[-1].leaf()
        stages.append(Stage(f"taps_{decl.name}", "taps", part))
        reasons.append(Reason("taps", _words(program, n), _text(program, one)))
    rest = part_of(program, program.outputs, program.updates, table, given, program.output_decls)
    for n in windows(rest.graph.values()):
        reasons.append(Reason("taps", spell(n), f"no product with params alone: its {len(lags(n))} lags are read one by one"))
    rest = told(written_out(replace(rest, claims=program.claims)), program)
    return Plan(program, (*stages, replace(stage, program=rest)), tuple(reasons))


def tap_weights(stage: Stage, taken: frozenset[str] = frozenset()) -> Plan | None:
    """The weights of taps, as params that are made once a call where they are no params yet."""
    program = apart(stage.program)
    found = [one.weights for n in topological(program.graph.values()) if (one := tapped(program, n))]
    made = [w for w in dict.fromkeys(found) if w.op != "leaf"]
    return made_once(replace(stage, program=program), taken, dict.fromkeys([*made, *dense(program)])) if made else None


def apart(program: Program) -> Program:
    """The program in which sums over windows stand alone: `sum[L](a * x[t - index[L]] - b)` is a difference of two sums."""
    if not windows(program.graph.values()):
        return program
    done: dict[Node, Node] = {}
    for n in topological(program.graph.values()):
        new = rebuild(n, tuple(done[a] for a in n.args))
        done[n] = _summed(new.args[0], new.names("over")) if new.op == "sum" and _over_lags(new) else new
    program = image(program, done)
    done = {}
    for n in topological(program.graph.values()):
        one = tapped(program, n)
        done[n] = one.node if one else rebuild(n, tuple(done[a] for a in n.args))
    return image(program, done)


def tapped(program: Program, n: Node) -> Tapped | None:
    """A node as a sum of taps; None where it is none."""
    if n.op != "sum" or not plain(n):
        return None
    found = _factors(n.args[0])
    read = [f for f in found if window_of(f)]
    fixed = [f for f in found if not window_of(f)]
    if len(read) != 1 or window_of(read[0]) not in n.names("over") or any(_varies(f) for f in fixed):
        return None
    weights = expanded(times(fixed) if fixed else const(1.0), (window_of(read[0]),))
    return Tapped(read[0], weights, n.names("over"))


def _over_lags(n: Node) -> bool:
    return bool({window_of(w) for w in windows(n.args)} & set(n.names("over")))


def _summed(x: Node, over: tuple[str, ...]) -> Node:
    """A sum over lags, as sums of products with one window each."""
    if x.op in ("add", "sub") and windows([x]):
        return rebuild(x, tuple(_summed(a, over) for a in x.args))
    if x.op == "neg":
        return -_summed(x.args[0], over)
    found = _factors(x)
    read = [f for f in found if window_of(f)]
    outside = [f for f in found if _varies(f) and not window_of(f) and not set(f.dims) & set(over)]
    if len(read) != 1 or not outside:
        return total(x, over)
    return total(times(f for f in found if f not in outside), over) * times(outside)


def _factors(x: Node) -> list[Node]:
    """The factors of a product; those that params alone make are one where a quotient or a sign stands before them."""
    found, todo = list[Node](), [x]
    while todo:
        f = todo.pop()
        if f.op == "mul" and _varies(f):
            todo += reversed(f.args)
        elif f.op == "neg" and _varies(f):
            todo += [f.args[0], node("const", value=-1.0)]
        elif f.op == "div" and _varies(f) and not _varies(f.args[1]):
            todo += [node("div", node("const", value=1.0), f.args[1]), f.args[0]]
        else:
            found.append(f)
    return found


def _varies(x: Node) -> bool:
    """Whether a value is made of more than params that all sequences share."""
    return any(n.text("kind") != "param" or BATCH in n.dims for n in leaves([x]))


def _words(program: Program, n: Node) -> str:
    span = program.spans.get(n)
    return " ".join(span.text.split()) if span else program.definitions.get(n, "taps")


def _text(program: Program, one: Tapped) -> str:
    """What a convolution costs a token."""
    sizes = {**nominal_sizes(program), BATCH: 1}
    operations = 2 * volume({*one.weights.dims, *one.window.dims}, sizes)
    moved = 4 * (volume(set(one.window.dims) - {window_of(one.window)}, sizes) + 2 * volume(one.node.dims, sizes))
    way = "by FFT where a call's sizes make that cheaper" if program.wishes.convolution else "product by product"
    return f"{len(lags(one.window))} lags, {way}: {operations:.0f} operations and {moved:.0f} bytes moved, a token"


__all__ = ["Tapped", "apart", "tap_weights", "tapped", "taps"]
