"""Whether a value is what was declared: real where it has to be, with the dims that are written, in their order.

In: a scope, declarations, values. Out: the value as it is declared, or None after a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from seqc.diagnostics import Label, listing
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Decl, Expr, Name
from seqc.frontend.values import Value, shown, within
from seqc.ir.dims import is_primed, unprimed
from seqc.ir.graph import leaves
from seqc.ir.ops.structure import expanded

_WHY = {
    "const": "a constant is computed when the spec is compiled, from numbers, dims and other constants",
    "init": "an initial value is computed before the first step, from params and constants",
}


def axes(decl: Decl) -> tuple[str, ...]:
    """The declared dims; the second of two equal ones is primed."""
    return square(decl.dims)


def square(dims: Sequence[Name]) -> tuple[str, ...]:
    """Dims as they are written; the second of two equal ones is primed."""
    out: list[str] = []
    for dim in dims:
        out.append(dim.id if dim.id not in out else f"{dim.id}'")
    return tuple(out)


def written_dims(scope: Scope, word: str, dims: Sequence[Name]) -> tuple[str, ...] | None:
    """The dims of a left side; reports one that is written once too often."""
    found = square(dims)
    if len(set(found)) == len(found):
        return found
    twice = next(dim for i, dim in enumerate(dims) if found[i] in found[:i])
    message = f"`{word}` repeats the dim `{twice.id}`"
    cause = f"a square value has the dims {twice.id} and {twice.id}', written `[{twice.id}, {twice.id}]`, and no third"
    help = f"a further dim of the same size is written `{twice.id}''`"
    scope.report("repeated-dim", message, Label(twice.span, "once too often"), cause=cause, help=help)
    return None


def fits(scope: Scope, decl: Decl, value: Value, e: Expr) -> bool:
    """Whether the value is real where the declaration is; reports it."""
    if value.imag is None or decl.is_complex:
        return True
    label, there = Label(e.span, "is complex"), Label(decl.span, "declared real")
    help = f"declare `{decl.name.id}` complex, or take `re`, `im` or `abs` of the value"
    scope.report("complex-value", f"the value of `{decl.name.id}` is complex", label, there, help=help)
    return False


def checked(
    scope: Scope, word: str, dims: tuple[str, ...], value: Value, e: Expr, exact: bool = True
) -> Value | None:
    """The value in the order of the declared dims; reports dims that are missing or too many."""
    extra = [dim for dim in value.order if dim not in dims]
    missing = [dim for dim in dims if dim not in value.order] if exact else []
    if missing and not extra and not leaves(value.parts):  # a constant is the same along every dim
        value, missing = value.of(expanded(part, (*part.dims, *dims)) for part in value.parts), []
    if not extra and not missing:
        return replace(value, order=dims, written=within([dims], dims))
    if missing and sorted(map(unprimed, extra)) == sorted(missing):
        changes = ", ".join(f"{dim} -> {unprimed(dim)}" for dim in extra)
        help = f"call the column as the row is: `(...)[{changes}]`"
    elif any(is_primed(dim) for dim in extra):
        help = "a square param keeps its column dim unless it is multiplied with `@`"
    elif extra:
        help = (
            f"contract what is too much, as in `sum[{', '.join(extra)}](...)`, or declare `{word}{value.shown()}`"
        )
    else:
        help = f"declare `{word}{value.shown()}`" if value.order else f"declare `{word}` without dims"
    there = Label(scope.places.get(word, e.span), f"`{word}` has the dims {shown(dims)}")
    wrong = f"the value of `{word}` " + ("has too many dims" if extra else f"lacks {listing(missing)}")
    scope.report("dim-mismatch", wrong, Label(e.span, f"has the dims {value.shown()}"), there, help=help)
    return None


def misplaced(scope: Scope, name: Name, place: str) -> None:
    """Report a name that is known in a step only, in an "init" or a "const"."""
    kept = "an initial value" if place == "init" else "a constant"
    message = f"{kept} cannot depend on `{name.id}`"
    there = Label(scope.places[name.id], "declared here")
    scope.report("not-constant", message, Label(name.span, "known only in a step"), there, cause=_WHY[place])
