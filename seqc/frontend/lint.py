"""Warnings: what a spec may say, and probably does not mean.

In: the tree, the scope and the program of a spec without mistakes. Out: diagnostics of the kind "warning", each with its place
and what to write instead. Names count as used where the text reads them on the way to an output or a state; derivatives are
judged on the step graph. `# seqc: allow CODE, CODE` on a line of its own silences codes in the whole file, behind a statement
in that statement; `unused` stands for every code that begins so. Nothing here changes what a spec means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from seqc.diagnostics import Diagnostic, Label, Span, near_miss
from seqc.frontend import syntax
from seqc.frontend.lint_params import idle_params
from seqc.frontend.scope import Scope
from seqc.frontend.syntax import Decl, Expr
from seqc.frontend.trees import walk
from seqc.frontend.values import part_names
from seqc.ir.dims import unprimed
from seqc.ir.graph import leaves
from seqc.ir.program import Program
from seqc.ir.traverse import reached

CODES = (
    "unused-input", "unused-param", "unused-const", "unused-definition", "unused-dim", "no-output", "unchanged-state",
    "unread-state", "no-gradient", "stuck-param", "useless-range", "output-order", "unknown-code",
)
_ALLOW = re.compile(r"#\s*seqc:\s*allow\s+(.*)")


def warnings(spec: syntax.Spec, scope: Scope, program: Program) -> tuple[Diagnostic, ...]:
    """Every warning that the spec does not silence, in source order."""
    found = [d for d in scope.found if d.kind == "warning"]
    found += [*_unused(spec, scope), *_dims(spec, scope), *_states(scope, program), *_ranges(scope)]
    found += _params(scope, program)
    if not scope.outputs and program.states:
        name = next(iter(scope.states))
        help = f"add `output {name}`, or what is read of it"
        found.append(_warning("no-output", "the spec has no output: only final states come back", None, help=help))
    allowed, unknown = _allowed(spec)
    return tuple(sorted((d for d in [*found, *unknown] if not _silenced(d, allowed)), key=Diagnostic.order))


def _warning(code: str, message: str, label: Label | None, *others: Label, cause: str = "", help: str = "") -> Diagnostic:
    return Diagnostic(code, message, (label, *others) if label else (), cause, help, kind="warning")


# ---- what silences


def _allowed(spec: syntax.Spec) -> tuple[list[tuple[str, Span | None]], list[Diagnostic]]:
    """(code or its beginning, the statement that it is allowed in, None: everywhere), and the words that are no code."""
    allowed: list[tuple[str, Span | None]] = []
    unknown: list[Diagnostic] = []
    for comment in spec.comments:
        match = _ALLOW.match(comment.text)
        if not match:
            continue
        line = comment.span.line
        inside = [s.span for s in spec.statements if s.span.line <= line <= s.span.source.place(s.span.end)[0]]
        where = None if comment.own_line or not inside else inside[0]
        for word in re.findall(r"[\w-]+", match.group(1)):
            if any(code == word or code.startswith(f"{word}-") for code in CODES):
                allowed.append((word, where))
            else:
                help = near_miss(word, CODES) or "the codes stand in brackets in front of the messages"
                unknown.append(_warning("unknown-code", f"`{word}` is no code of a warning", Label(comment.span), help=help))
    return allowed, unknown


def _silenced(d: Diagnostic, allowed: Iterable[tuple[str, Span | None]]) -> bool:
    place = d.labels[0].span.start if d.labels else -1
    return any(
        (d.code == word or d.code.startswith(f"{word}-")) and (where is None or where.start <= place < where.end)
        for word, where in allowed
    )


# ---- names


def _reads(e: Expr) -> Iterator[str]:
    """Every name in an expression, dims of calls and brackets included."""
    for part in walk(e):
        match part:
            case syntax.Name(id=word):
                yield word
            case syntax.Subscript(name=name):
                yield name.id
            case syntax.Call(name=name, dims=dims):
                yield name.id
                yield from (dim.id for dim in dims or ())
            case syntax.Renaming(old=old, new=new):
                yield from (old.id, new.id)
            case syntax.Position(dim=dim):
                yield dim.id
            case _:
                pass


def _used(spec: syntax.Spec, scope: Scope) -> set[str]:
    """The names that outputs and states are made of, directly or through others."""
    exprs: dict[str, list[Expr | None]] = {name: [define.expr] for name, define in scope.defines.items()}
    for name, define in scope.defines.items():  # `M[w] = ..` reads w
        exprs[name] += [place for place in define.dims or () if place.id not in scope.dims]
    for decl in (*scope.states.values(), *scope.params.values(), *scope.consts.values()):
        exprs.setdefault(decl.name.id, []).append(decl.value)
    for statement in spec.statements:
        if isinstance(statement, syntax.Every | syntax.Before):
            exprs.setdefault(statement.body.name.id, []).append(statement.body.expr)
        if isinstance(statement, syntax.Feedback):
            exprs.setdefault(statement.name.id, []).append(statement.expr)
    def read(name: str) -> list[str]:
        return [read for e in exprs.get(name, ()) if e is not None for read in _reads(e)]

    return set(reached([*scope.outputs, *scope.states], read))


def _unused(spec: syntax.Spec, scope: Scope) -> Iterator[Diagnostic]:
    """Declarations and definitions that reach no output and no state; what only unused definitions read is theirs to tell."""
    used = _used(spec, scope)
    idle = {name: define for name, define in scope.defines.items() if name not in used}
    behind = {read for define in idle.values() if define.expr is not None for read in _reads(define.expr)}
    for name, define in idle.items():
        beside = define.expr.targets if isinstance(define.expr, syntax.Taken) else ()
        if name not in behind and all(target.name.id in idle for target in beside):  # else its place must have a name
            help = _meant(name, scope) or f"write `output {name}`, read it, or leave it out"
            message = f"`{name}` is defined, and nothing reads it"
            yield _warning("unused-definition", message, Label(define.name.span), help=help)
    tables = {"input": scope.inputs, "param": scope.params, "const": scope.consts}
    for kind, table in tables.items():
        for name, decl in table.items():
            if name not in used and name not in behind:
                help = _meant(name, scope) or "leave it out, or read it"
                label = Label(decl.name.span, "its gradient is 0" if decl.role in ("input", "param") else "")
                yield _warning(f"unused-{kind}", f"nothing reads the {decl.role} `{name}`", label, help=help)


def _meant(name: str, scope: Scope) -> str:
    """The state or output whose name is this one but for case or a letter."""
    others = [other for other in (*scope.states, *scope.outputs) if other != name and abs(len(other) - len(name)) <= 1]
    alike = [other for other in others if other.lower() == name.lower() or _one_apart(other, name)]
    return f"did you mean `{alike[0]}`?" if alike else ""


def _one_apart(a: str, b: str) -> bool:
    """Whether one letter is changed, added or left out, in names of more than two."""
    if min(len(a), len(b)) < 3:
        return False
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[at + (len(a) >= len(b)) :] == b[at + (len(b) >= len(a)) :]


def unused_dims(spec: syntax.Spec, scope: Scope) -> Iterator[str]:
    """Dims that nothing has and nothing reads."""
    used: set[str] = set()
    for statement in spec.statements:
        match statement:
            case syntax.Declare(items=items):
                for item in items:
                    used |= {dim.id for dim in (*item.dims, *(item.unit or ()), *filter(None, (item.places,)))}
                    used |= set(_reads(item.value)) if item.value is not None else set()
            case syntax.Define() | syntax.Output():
                used |= {dim.id for dim in statement.dims or ()}
                used |= set(_reads(statement.expr)) if statement.expr is not None else set()
            case syntax.Every(body=body) | syntax.Before(body=body) | syntax.Down(body=body):
                used |= set(_reads(body.expr))
            case syntax.Feedback(expr=expr):
                used |= set(_reads(expr))
            case _:
                pass
    bare = {unprimed(name) for name in used}
    for name in scope.dims:
        if name not in bare and name in scope.places and name != scope.across:  # else a dim of the compiler's own
            yield name


def _dims(spec: syntax.Spec, scope: Scope) -> Iterator[Diagnostic]:
    """What is said of dims that are not used."""
    for name in unused_dims(spec, scope):
        yield _warning("unused-dim", f"nothing has the dim `{name}`", Label(scope.places[name]), help="leave it out")


# ---- states


def _states(scope: Scope, program: Program) -> Iterator[Diagnostic]:
    """States that never change, and states whose past nothing reads."""
    read = {n.text("name") for n in leaves([*program.graph.values()], "state")}
    for name, decl in scope.states.items():
        parts = part_names(name, decl.is_complex)
        define = scope.defines[name]
        if all(program.updates[part] is program.states[part].leaf() for part in parts):
            label = Label(define.span, f"`{name}` stays what it was")
            help = f"make it a param or a const, or write what changes it: `{name} = {name}[{scope.axis}-1] + ...`"
            yield _warning("unchanged-state", f"the state `{name}` never changes", label, help=help)
        elif not any(word.split(".")[0] in parts for word in read):
            axis = scope.axis
            label, there = Label(define.span, f"reads no past of `{name}`"), Label(decl.span, "declared as a state")
            help = f"read `{name}[{axis}-1]`, or leave the declaration out: without it, `{name}` is a definition"
            message = f"nothing reads `{name}[{axis}-1]`: what the state carries is lost"
            yield _warning("unread-state", message, label, there, help=help)


def _ranges(scope: Scope) -> Iterator[Diagnostic]:
    """Ranges that every number lies in."""
    decls: Iterable[Decl] = (*scope.inputs.values(), *scope.params.values(), *scope.states.values())
    for decl in decls:
        if decl.interval is not None and re.sub(r"\s|\+", "", decl.interval.span.text) == "in[-inf,inf]":
            label = Label(decl.interval.span, "every number lies in it")
            yield _warning("useless-range", f"the range of `{decl.name.id}` says nothing", label, help="leave it out")


# ---- params


def _params(scope: Scope, program: Program) -> Iterator[Diagnostic]:
    """Params whose gradient is 0, always or for as long as others are 0 with them."""
    places: Mapping[str, Decl] = {part: d for d in scope.params.values() for part in part_names(d.name.id, d.is_complex)}
    without, stuck = idle_params(program)
    for name in without:
        label = Label(places[name].name.span)
        cause = "comparisons, `floor`, `sign`, `stopgrad` and the like have derivative 0"
        help = "declare it an input or a const, or give the comparison a slope: `withgrad(a > b, slope)`"
        yield _warning("no-gradient", f"the gradient of the param `{name}` is 0", label, cause=cause, help=help)
    if stuck:
        first, *others = (Label(places[name].span, "starts at 0") for name in stuck)
        cause = "each is multiplied by another that is 0, so that no gradient reaches any of them"
        help = "start one of them elsewhere, or leave its `init` out"
        word = f"the param `{stuck[0]}` starts at 0 and stays" if len(stuck) == 1 else "params start at 0 and stay there"
        yield _warning("stuck-param", f"{word}: the gradient is 0", first, *others, cause=cause, help=help)
