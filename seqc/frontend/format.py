"""The formatter: a spec printed in one canonical way, comments kept, stable under a second run.

In: a spec's text. Out: text. What is printed comes from the syntax tree alone, so redundant brackets and spaces go, and
the meaning cannot change; comments and single empty lines stay where they were. A comment inside a continued line moves
in front of its statement. Text with syntax mistakes is refused (SpecError), never half formatted.
"""

from __future__ import annotations

from seqc.diagnostics import Source
from seqc.frontend import syntax
from seqc.frontend.parse import parse
from seqc.frontend.syntax import Comment, Expr, Spec, Statement

WIDTH = 120
_COMPARE = 4
_LEVEL = {"or": 1, "and": 2, **dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), _COMPARE)}
_LEVEL |= {"+": 5, "-": 5, "*": 6, "/": 6, "@": 6, "^": 8}
_NOT = 3
_UNARY = 7
_ATOM = 9


def format_text(source: Source | str) -> str:
    """The canonical text of a spec. Raises SpecError on syntax mistakes."""
    return format_spec(parse(source))


def format_spec(spec: Spec) -> str:
    """The canonical text of a tree, with the comments and empty lines of its source."""
    place = spec.source.place
    lines: list[str] = []
    tails: list[tuple[int, int, str]] = []  # which of `lines` ends with which comment, and the column that it had
    last = 0
    comments = list(spec.comments)

    def own_line(comment: Comment, start: int) -> None:
        nonlocal last
        if lines and start > last + 1:
            lines.append("")
        lines.append(comment.text)
        last = start

    for statement in spec.statements:
        if isinstance(statement, syntax.Define) and isinstance(statement.expr, syntax.Taken) and statement.expr.place:
            continue  # its line was printed with the first name
        first, end = place(statement.span.start)[0], place(statement.span.end - 1)[0]
        while comments and comments[0].span.start < statement.span.start:
            comment = comments.pop(0)
            own_line(comment, comment.span.line)
        inside = [comment for comment in comments if comment.span.start < statement.span.end]
        for comment in inside:
            comments.remove(comment)
            own_line(comment, first if comment is inside[0] else last)
            last = first - 1
        if lines and first > last + 1:
            lines.append("")
        lines += show(statement).split("\n")
        last = end
        if comments and not comments[0].own_line and comments[0].span.line == end:
            tail = comments.pop(0)
            tails.append((len(lines) - 1, place(tail.span.start)[1] - 1, tail.text))
    for comment in comments:
        own_line(comment, comment.span.line)
    _append(lines, tails)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _append(lines: list[str], tails: list[tuple[int, int, str]]) -> None:
    """Put comments behind their lines, aligned where the lines follow each other: in the column that they had, where they had
    one in common and it is free, else two spaces behind the longest line."""
    run: list[tuple[int, int, str]] = []
    for i, (at, column, text) in enumerate(tails):
        run.append((at, column, text))
        if i + 1 == len(tails) or tails[i + 1][0] != at + 1:
            free = max(len(lines[k]) for k, _, _ in run) + 2
            had = {column for _, column, _ in run}
            column = had.pop() if len(had) == 1 and min(had) >= free else free
            for k, _, words in run:
                lines[k] = lines[k].ljust(column) + words
            run = []


# ---------------------------------------------------------------------------------------------------- statements


def show(statement: Statement) -> str:
    """A statement as text, on several lines where one would be too long."""
    match statement:
        case syntax.SpecName(name=name, doc=doc):
            return f"spec {name.id}" + ("" if doc is None else f"\n{_documentation(doc)}")
        case syntax.Dims():
            return _list("dim", [_dim(item) for item in statement.items])
        case syntax.Axes(names=names):
            return f"axis {_comma(names)}"
        case syntax.Scan(direction=word, joined=joined):
            return " ".join(["scan", word.id, *(name.id for name in joined)])
        case syntax.Declare():
            return _list(statement.kind, [_decl(statement.kind, item) for item in statement.items])
        case syntax.Define(expr=syntax.Taken(whole=whole, targets=targets)):
            return _definition(", ".join(x.name.id + _bracketed(x.dims) for x in targets), whole)
        case syntax.Define(name=name, dims=dims, expr=expr):
            return _definition(f"{name.id}{_bracketed(dims)}", expr)
        case syntax.Output(name=name, dims=dims, expr=expr):
            return _definition(f"output {name.id}{_bracketed(dims)}", expr)
        case syntax.Claim(name=name, interval=interval):
            return f"eigenvalues {name.id} {_interval(interval)}"
        case syntax.Sparse():
            return _sparse(statement)
        case syntax.Schedule(form=form, sizes=sizes):
            return f"schedule {form.id}" + (f" {_sizes(sizes)}" if sizes is not None else "")
        case syntax.Tile(dim=dim, sizes=sizes):
            return f"tile {dim.id} {_sizes(sizes)}"
        case syntax.Checkpoint(steps=steps):
            return f"checkpoint {steps}"
        case syntax.History(name=name, steps=steps):
            return f"history {name.id} {steps}"
        case syntax.Before(axes=names, body=body):
            return f"before {_comma(names)}: {show(body)}"
        case syntax.Every(steps=steps, body=body):
            return f"every {steps}: {show(body)}"
        case syntax.Down(steps=steps, first=first, body=body):
            return f"down {steps}{f' first {first}' if first is not None else ''}: {show(body)}"
        case syntax.Feedback(name=name, expr=expr):
            return _definition(f"feedback {name.id}", expr)
        case _:
            raise AssertionError(statement)


def _documentation(doc: str) -> str:
    return f'"""{doc}\n"""' if "\n" in doc else f'"""{doc}"""'


def _comma(names: tuple[syntax.Name, ...]) -> str:
    return ", ".join(name.id for name in names)


def _sizes(sizes: tuple[int, ...]) -> str:
    return "{" + ", ".join(map(str, sizes)) + "}"


def _bracketed(dims: tuple[syntax.Name, ...] | None) -> str:
    return f"[{_comma(dims)}]" if dims else ""


def _interval(interval: syntax.Interval) -> str:
    return f"in [{text(interval.lo)}, {text(interval.hi)}]"


def _list(word: str, items: list[str]) -> str:
    """`word a, b, c`, broken after commas, continued under the first item."""
    lines = [word]
    for i, item in enumerate(items):
        comma = "," if i + 1 < len(items) else ""
        if i and len(lines[-1]) + len(item) + 2 > WIDTH:
            lines.append(" " * len(word))
        lines[-1:] = _broken(f"{lines[-1]} {item}{comma}")
    return "\n".join(lines)


def _dim(item: syntax.DimItem) -> str:
    if item.default is not None:
        return f"{item.name.id} = {item.default}"
    if item.sizes is not None:
        return f"{item.name.id} {_sizes(item.sizes)}"
    return item.name.id if item.lo is None else f"{item.name.id} in {item.lo}..{item.hi}"


def _decl(kind: str, decl: syntax.Decl) -> str:
    parts = [decl.name.id + _bracketed(decl.dims)]
    if decl.lag is not None:
        parts.append(f"lag {decl.lag}")
    if decl.is_complex:
        parts.append("complex")
    if decl.places is not None:
        parts.append(f"index {decl.places.id}")
    if decl.value is not None:
        parts.append(f"{'=' if kind in ('const', 'state') else 'init'} {text(decl.value)}")
    if decl.interval is not None:
        parts.append(_interval(decl.interval))
    if decl.unit is not None:
        parts.append(f"unit[{_comma(decl.unit)}]")
    if decl.definite:
        parts.append("definite")
    if decl.per_batch:
        parts.append("per batch")
    return " ".join(parts)


def _definition(head: str, expr: Expr | None) -> str:
    """`head = expr`, or the head alone."""
    if expr is None:
        return head
    line = f"{head} = {text(expr)}"
    if len(line) <= WIDTH:
        return line
    lines = [f"{head} ="]
    for sign, term in _terms(expr):
        if len(lines) > 1 or len(lines[-1]) > len(head) + 2:
            lines.append(f"    {sign} {term}")
        else:
            lines[-1] += f" {term}"
    return "\n".join(part for line in lines for part in _broken(line))


def _broken(line: str) -> list[str]:
    """A line that is too long, cut behind the arrow of a `fold` or behind commas, of outer brackets first."""
    parts = [line]
    while len(parts[-1]) > WIDTH:
        depth, cuts = 0, list[tuple[int, int]]()  # (how deep a comma stands, or an arrow's fold, the place counted down)
        for at, char in enumerate(parts[-1]):
            depth += (char in "([") - (char in ")]")
            before = parts[-1][:at]
            arrow = char == ">" and before.endswith(" -") and before.count("[") == before.count("]")  # no renaming
            if (char == "," or arrow) and at > WIDTH // 3 and (at < WIDTH or not cuts):
                cuts.append((depth - arrow, -at))
        if not cuts:
            break
        cut = 1 - min(cuts)[1]
        parts[-1:] = [parts[-1][:cut], f"    {parts[-1][cut:].lstrip()}"]
    return parts


def _terms(expr: Expr) -> list[tuple[str, str]]:
    """The terms of a sum, each with the sign in front of it."""
    terms: list[tuple[str, str]] = []
    while isinstance(expr, syntax.Binary) and expr.op in ("+", "-"):
        terms.append((expr.op, _in(expr.right, _LEVEL[expr.op] + 1)))
        expr = expr.left
    level = _LEVEL["+"] if terms else 1
    return [("", _in(expr, level)), *reversed(terms)]


def _sparse(statement: syntax.Sparse) -> str:
    names = ", ".join(name.id for name in statement.names)
    marks = tuple(mark.kind for mark in statement.marks)
    return f"sparse {names} {sparse_words(statement, marks, statement.method.id if statement.method else '')}".rstrip()


def sparse_words(statement: syntax.Sparse, kinds: tuple[str, ...], method: str) -> str:
    """What a statement says of what is kept. kinds: the marks to tell."""
    parts = [f"by {method}"] if method else []
    if statement.size is not None:
        parts.append(text(statement.size))
    if statement.graph is not None:
        given = ", ".join(f"{o.name.id}={text(o.value)}" for o in statement.graph_args)
        parts.append(f"{statement.graph.id}({given})")
    if statement.layers:
        parts.append(f"over {', '.join(dim.id for dim in statement.layers)}")
    for mark in statement.marks:
        numbers = " of ".join(text(number) for number in mark.numbers)
        words = {"of": "keep", "diagonal": "zero diagonal"}.get(mark.kind, mark.kind)
        if mark.kind in kinds:
            parts.append(f"{words} {numbers}{'%' if mark.percent else ''}".strip())
    return " ".join(parts)


# --------------------------------------------------------------------------------------------------- expressions


def text(expr: Expr) -> str:
    """An expression with the fewest brackets that keep its tree."""
    return _in(expr, 1)


def _in(expr: Expr, level: int, tight: bool = False) -> str:
    """The expression where at least this level of binding is needed."""
    words, own = _text(expr, tight)
    return words if own >= level else f"({words})"


def _text(expr: Expr, tight: bool) -> tuple[str, int]:
    """The text and its level of binding; `tight`: no spaces around products (inside the brackets of a lag)."""
    match expr:
        case syntax.Number(text=words):
            return words, _ATOM
        case syntax.Name(id=words):
            return words, _ATOM
        case syntax.Unary(op="not", x=x):
            inner = _in(x, _NOT, tight)
            return f"not ({inner})" if inner.startswith("-") else f"not {inner}", _NOT
        case syntax.Unary(x=x):
            return f"-{_in(x, _UNARY, tight)}", _UNARY
        case syntax.Binary(op="^", left=left, right=right):
            return f"{_in(left, _ATOM, tight)}^{_in(right, _UNARY, tight)}", _LEVEL["^"]
        case syntax.Binary():
            return _chain(expr, tight)
        case syntax.Subscript(name=name, items=items):
            return f"{name.id}[{', '.join(_lag(item) for item in items)}]", _ATOM
        case syntax.Call(name=name, dims=dims, args=args):
            inside = ", ".join(text(arg) for arg in args)
            return f"{name.id}{_bracketed(dims)}({inside})", _ATOM
        case syntax.Placed(x=x, items=items):
            inner = _in(x, _ATOM + isinstance(x, syntax.Number))
            return f"{inner}[{', '.join(_lag(item) for item in items)}]", _ATOM
        case syntax.Position(dim=dim, at=at):
            return f"{dim.id} = {_in(at, 1, tight=True)}", _ATOM
        case syntax.Renaming(old=old, new=new):
            return f"{old.id} -> {new.id}", _ATOM
        case syntax.Started(name=name, start=start):
            return f"{name.id} = {text(start)}", _ATOM
        case syntax.Bound(name=name, body=body):
            return f"{name.id} -> {text(body)}", _ATOM
        case _:
            raise AssertionError(expr)


def _chain(expr: Expr, tight: bool) -> tuple[str, int]:
    """`a + b - c`: each operator takes what stands before it, however many there are. A product of matrices among factors keeps
    its brackets: `(W @ x) * y`."""
    chain: list[syntax.Binary] = []
    while isinstance(expr, syntax.Binary) and expr.op != "^":
        chain.append(expr)
        expr = expr.left
    (words, own), before = _text(expr, tight), ""
    for part in reversed(chain):
        level = _LEVEL[part.op]
        sign = part.op if tight and level == _LEVEL["*"] else f" {part.op} "
        mixed = before and "@" in (before, part.op) and before != part.op and level == _LEVEL["@"]
        left = words if own >= level + (level == _COMPARE) and not mixed else f"({words})"
        words, own, before = f"{left}{sign}{_in(part.right, level + 1, tight)}", level, part.op
    return words, own


def _lag(item: Expr) -> str:
    match item:
        case syntax.Binary(op="+" | "-" as op, left=syntax.Name(id=axis), right=syntax.Number(text=steps)):
            return f"{axis}{op}{steps}"
        case _:
            return _in(item, 1, tight=True)
