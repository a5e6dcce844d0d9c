"""`param R[D, D] init orthogonal`: random values that a param is filled with, as the functions of `torch.nn.init` fill it.

In: the declaration of a param. Out: a `Fill`; mistakes are noted in the scope. A Module draws the values in
`reset_parameters`, from torch's generator; `init log(uniform(1, 9))` changes what is drawn. What needs a matrix works on the
last two dims, row and column: every matrix of `R[H, D, D]` is orthogonal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqc.diagnostics import Label
from seqc.frontend import syntax
from seqc.frontend.declared import axes, checked, fits
from seqc.frontend.expressions import Elaborator
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Decl
from seqc.frontend.trees import walk
from seqc.frontend.values import Value, real
from seqc.ir.graph import leaf
from seqc.ir.program import FILLED, Fill


@dataclass(frozen=True)
class Row:
    """How many arguments a fill takes (one of these counts), what they are, and whether it needs a matrix."""

    counts: tuple[int, ...]
    shown: str
    matrix: bool = True


FILLS = {
    "normal": Row((0, 2), "mean, std", matrix=False),
    "uniform": Row((0, 2), "low, high", matrix=False),
    "trunc_normal": Row((0, 2, 4), "mean, std, low, high", matrix=False),
    "orthogonal": Row((0, 1), "gain"),
    "xavier_uniform": Row((0, 1), "gain"),
    "xavier_normal": Row((0, 1), "gain"),
    "kaiming_uniform": Row((0, 1), "slope"),
    "kaiming_normal": Row((0, 1), "slope"),
}


def fills(scope: Scope, decl: Decl) -> bool:
    """Whether the `init` of a declaration draws random values."""
    return bool(_draws(scope, decl))


def _draws(scope: Scope, decl: Decl) -> list[syntax.Expr]:
    """The parts of an `init` that are fills."""
    parts = walk(decl.value) if decl.value is not None else ()
    return [e for e in parts if _name(e) in FILLS and _name(e) not in scope.names()]


def _name(e: syntax.Expr) -> str:
    return e.id if isinstance(e, syntax.Name) else e.name.id if isinstance(e, syntax.Call) else ""


def fill(work: Elaborator, decl: Decl) -> Fill | None:
    """What a param is filled with, where its `init` draws from one of `FILLS`; None after a report."""
    assert decl.value is not None
    first, *others = _draws(work.scope, decl)
    if others:
        help = "draw once, and change what is drawn: `init log(uniform(1, 9))`"
        labels = Label(others[0].span, "drawn again"), Label(first.span, "drawn here")
        work.scope.report("misuse", "an initial value is made of one draw", *labels, help=help)
        return None
    drawn = _drawn(work, decl, first)
    if drawn is None or first is decl.value:
        return drawn
    own = axes(decl)
    work.given[id(first)] = Value(leaf("param", FILLED, own), own)
    made = work.top(decl.value, "const")
    if made is None or not fits(work.scope, replace(decl, is_complex=False), made, decl.value):
        return None
    made = checked(work.scope, decl.name.id, own, made, decl.value, exact=False)
    return None if made is None else replace(drawn, then=real(made).node)


def _drawn(work: Elaborator, decl: Decl, e: syntax.Expr) -> Fill | None:
    """The fill that one part of an `init` names."""
    name = _name(e)
    row, given = FILLS[name], e.args if isinstance(e, syntax.Call) else ()
    if isinstance(e, syntax.Call) and e.dims is not None:
        work.scope.report("misuse", f"`{name}` fills the whole param", Label(e.span, "its dims are the param's"),
                          help=f"write `init {name}({row.shown})`")
        return None
    if len(given) not in row.counts:
        counts = " or ".join(map(str, row.counts))
        help = f"write `init {name}({row.shown})`"
        work.scope.report("argument-count", f"`{name}` takes {counts} arguments, not {len(given)}", Label(e.span), help=help)
        return None
    if row.matrix and len(decl.dims) < 2:
        cause = "it fills matrices, of the last two dims"
        help = "write `init normal(mean, std)`"
        work.scope.report("misuse", f"`{name}` needs a param of two dims", Label(e.span), cause=cause, help=help)
        return None
    args = []
    for arg in given:
        value = work.top(arg, "const")
        if value is None:
            return None
        if value.order or value.imag is not None:
            work.scope.report("misuse", f"`{name}` takes numbers", Label(arg.span, f"has the dims {value.shown()}"))
            return None
        args.append(real(value).node)
    return Fill(name, tuple(args))
