"""Reads the parser's tree of one line into the dataclasses of `seqc.frontend.syntax`.

In: the tree (nodes with `data` and `children`, tokens that are strings with `start_pos` and `end_pos`). Out: a
`Statement`, with offsets moved to the whole source; or a `Diagnostic` for the few things that a grammar cannot say.
Nothing here knows the parser generator itself.
"""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

from seqc.diagnostics import Diagnostic, Label, Span
from seqc.frontend import syntax
from seqc.frontend.logical_lines import Line
from seqc.frontend.trees import FOLDS, fold_parts, levels

MAX_DIGITS = 15
MAX_DEPTH = 150  # of an expression; later stages walk it recursively


class _Stop(Exception):
    """Carries a diagnostic out of a nested tree."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(diagnostic.message)


class Reader:
    """Reads the tree of one line."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._depth = 0

    def statements(self, tree: Any) -> tuple[syntax.Statement, ...] | Diagnostic:
        """The statement that the tree spells; of a line with several outputs, histories or names of a `fold`, one each."""
        try:
            several = {"outputs": self._outputs, "history": self._histories, "defines": self._defines}.get(str(tree.data))
            return several(tree) if several else (self._statement(tree),)
        except _Stop as stop:
            return stop.diagnostic

    # ---- places

    def _token_span(self, token: Any) -> Span:
        base = self._line.span.start
        return Span(self._line.span.source, base + token.start_pos, base + token.end_pos)

    def _span(self, tree: Any) -> Span:
        base = self._line.span.start
        return Span(self._line.span.source, base + tree.meta.start_pos, base + tree.meta.end_pos)

    def _name(self, token: Any) -> syntax.Name:
        return syntax.Name(self._token_span(token), str(token))

    def _names(self, tree: Any) -> tuple[syntax.Name, ...]:
        return tuple(self._name(token) for token in tree.children)

    # ---- statements

    def _statement(self, tree: Any) -> syntax.Statement:
        span, parts = self._line.span, tree.children
        match str(tree.data):
            case "spec":
                doc = inspect.cleandoc(str(parts[1])[3:-3]) if len(parts) > 1 else None
                return syntax.SpecName(span, self._name(parts[0]), doc)
            case "dims":
                return syntax.Dims(span, tuple(self._dim(item) for item in parts))
            case "axes":
                return syntax.Axes(span, self._names(tree))
            case "scan":
                direction, *joined = self._names(tree)
                return syntax.Scan(span, direction, tuple(joined))
            case rule if rule.startswith("declare_"):
                kind = rule.removeprefix("declare_")
                return syntax.Declare(span, kind, tuple(self._decl(kind, item) for item in parts))
            case "define":
                return self._define(tree)
            case "every":
                return syntax.Every(span, self._int(parts[0]), self._define(parts[1]))
            case "down":
                first = self._int(parts[1].children[0]) if len(parts) > 2 else None
                return syntax.Down(span, self._int(parts[0]), first, self._define(parts[-1]))
            case "feedback":
                return syntax.Feedback(span, self._name(parts[0]), self._expr(parts[1]))
            case "claim":
                return syntax.Claim(span, self._name(parts[0]), self._interval(parts[1]))
            case "sparse":
                return self._sparse(tree)
            case "schedule":
                return syntax.Schedule(span, self._name(parts[0]), self._sizes(parts[1]) if len(parts) > 1 else None)
            case "tile":
                return syntax.Tile(span, self._name(parts[0]), self._sizes(parts[1]))
            case "checkpoint":
                return syntax.Checkpoint(span, self._int(parts[0]))
            case "before":
                *names, body = parts
                return syntax.Before(span, tuple(self._name(name) for name in names), self._define(body))
            case other:
                raise AssertionError(other)

    def _histories(self, tree: Any) -> tuple[syntax.Statement, ...]:
        return tuple(syntax.History(self._own(tree, item), self._name(item.children[0]), self._int(item.children[1]))
                     for item in tree.children)

    def _outputs(self, tree: Any) -> tuple[syntax.Statement, ...]:
        found = []
        for item in tree.children:
            dims, expr = self._left(item.children[1:])
            found.append(syntax.Output(self._own(tree, item), self._name(item.children[0]), dims, expr))
        return tuple(found)

    def _own(self, tree: Any, item: Any) -> Span:
        """The span of one of a line's statements: the whole line where there is no other."""
        return self._line.span if len(tree.children) == 1 else self._span(item)

    def _define(self, tree: Any) -> syntax.Define:
        dims, expr = self._left(tree.children[1:])
        assert expr is not None
        return syntax.Define(self._span(tree), self._name(tree.children[0]), dims, expr)

    def _defines(self, tree: Any) -> tuple[syntax.Statement, ...]:
        """`a, b = fold[J](..)`: a definition for each name."""
        left = [part for part in tree.children if part.data == "target"]
        targets = tuple(syntax.Target(self._span(x), self._name(x.children[0]), self._left(x.children[1:])[0]) for x in left)
        whole, *others = (self._expr(part) for part in tree.children[len(left) :])
        if others or not isinstance(whole, syntax.Call) or whole.name.id not in FOLDS:
            help = f"write `{targets[0].name.id} = ...`, and a line for each other"
            label = Label((others or [whole])[-1].span.to(whole.span), "not one `fold` or `scan`")
            message = "only a `fold` or a `scan` gives values to several names"
            raise _Stop(Diagnostic("several-names", message, (label,), help=help))
        parts = fold_parts(whole)
        if parts is not None and len(parts.names) != len(targets):
            raise _Stop(self._miscounted(whole, targets, parts.names))
        ends = [whole.span] * len(targets) if parts is None else [body.span for body in parts.bodies]
        return tuple(syntax.Define(self._line.span, target.name, target.dims, syntax.Taken(end, whole, place, targets))
                     for place, (target, end) in enumerate(zip(targets, ends, strict=True)))

    def _miscounted(self, whole: syntax.Call, targets: tuple[syntax.Target, ...], names: tuple[str, ...]) -> Diagnostic:
        """What is said where a `fold` has more running values than names stand before it, or fewer."""
        word = whole.name.id
        count = f"{len(names)} running values" if len(names) > 1 else "1 running value"
        given = [target.name.id for target in targets[: len(names)]]
        help = f"name each, in their order: `{', '.join([*given, *names[len(given) :]])} = {word}[..](..)`"
        labels = (Label(targets[0].span.to(targets[-1].span), f"{len(targets)} names"),
                  Label(whole.name.span, f"its running values: {', '.join(names)}"))
        message = f"the `{word}` has {count}, and {len(targets)} names stand before it"
        return Diagnostic("several-names", message, labels, help=help)

    def _left(self, parts: list[Any]) -> tuple[tuple[syntax.Name, ...] | None, syntax.Expr | None]:
        """The optional dims and the optional expression after a name."""
        dims = expr = None
        for part in parts:
            if part.data == "dim_list":
                dims = self._names(part)
            else:
                expr = self._expr(part)
        return dims, expr

    def _dim(self, tree: Any) -> syntax.DimItem:
        span, name, rest = self._span(tree), self._name(tree.children[0]), tree.children[1:]
        match str(tree.data):
            case "dim_default":
                return syntax.DimItem(span, name, default=self._int(rest[0]))
            case "dim_sizes":
                return syntax.DimItem(span, name, sizes=self._sizes(rest[0]))
            case "dim_range":
                return syntax.DimItem(span, name, lo=self._int(rest[0]), hi=self._int(rest[1]))
            case _:
                return syntax.DimItem(span, name)

    def _sizes(self, tree: Any) -> tuple[int, ...]:
        return tuple(self._int(token) for token in tree.children)

    def _interval(self, tree: Any) -> syntax.Interval:
        lo, hi = tree.children
        return syntax.Interval(self._span(tree), self._short(lo), self._short(hi))

    def _decl(self, kind: str, tree: Any) -> syntax.Decl:
        given: dict[str, Any] = {}
        for part in tree.children[1:]:
            key: str
            value: Any
            match str(part.data):
                case "dim_list":
                    key, value = "dims", self._names(part)
                case "init" | "value":
                    key, value = "value", self._expr(part.children[0])
                case "interval":
                    key, value = "interval", self._interval(part)
                case "places":
                    key, value = "places", self._name(part.children[0])
                case "unit":
                    key, value = "unit", self._names(part)
                case "complex":
                    key, value = "is_complex", True
                case "definite":
                    key, value = "definite", True
                case "per_batch":
                    key, value = "per_batch", True
                case "lag":
                    key, value = "lag", self._int(part.children[0])
                case other:
                    raise AssertionError(other)
            if key in given:
                message = f"two such marks on `{tree.children[0]}`"
                raise _Stop(Diagnostic("said-twice", message, (Label(self._mark_span(part), "the second one"),)))
            given[key] = value
        given["role"] = "index" if "places" in given and kind == "input" else kind
        return syntax.Decl(self._span(tree), self._name(tree.children[0]), **given)

    def _mark_span(self, part: Any) -> Span:
        return self._line.span if part.meta.empty else self._span(part)

    def _sparse(self, tree: Any) -> syntax.Sparse:
        names: list[syntax.Name] = []
        marks: list[syntax.SparseMark] = []
        method: syntax.Name | None = None
        size: syntax.Number | None = None
        graph: syntax.Name | None = None
        options: tuple[syntax.Option, ...] = ()
        layers: tuple[syntax.Name, ...] = ()
        for part in tree.children:
            if not hasattr(part, "data"):
                names.append(self._name(part))
            elif part.data != "support":
                marks.append(self._sparse_mark(part))
            else:
                method = self._name(part.children[0])
                for more in part.children[1:]:
                    if hasattr(more, "data"):
                        graph = self._name(more.children[0])
                        options = tuple(self._option(x) for x in more.children[1:] if x.data == "option")
                        layers = tuple(self._name(x) for y in more.find_data("over") for x in y.children)
                    else:
                        size = syntax.Number(self._token_span(more), str(more))
        return syntax.Sparse(self._line.span, tuple(names), method, size, graph, options, layers, tuple(marks))

    def _option(self, tree: Any) -> syntax.Option:
        word, value = tree.children
        return syntax.Option(self._span(tree), self._name(word), self._expr(value))

    def _sparse_mark(self, tree: Any) -> syntax.SparseMark:
        words = {"keep_percent": "keep", "keep_part": "keep", "keep_of": "of", "zero_diagonal": "diagonal", "block": "block"}
        kind = words[str(tree.data)]
        numbers = tuple(syntax.Number(self._token_span(token), str(token)) for token in tree.children)
        span = self._mark_span(tree)
        return syntax.SparseMark(span, kind, numbers, tree.data == "keep_percent")

    # ---- expressions

    def _expr(self, tree: Any) -> syntax.Expr:
        if self._depth > MAX_DEPTH:
            message = f"the expression is nested more than {MAX_DEPTH} levels deep"
            help = "give parts of it names of their own"
            raise _Stop(Diagnostic("too-deep", message, (Label(self._span(tree)),), help=help))
        self._depth += 1
        expr = self._flat(tree)
        self._depth -= 1
        return expr

    def _chain(self, tree: Any) -> syntax.Expr:
        """`a + b - c`: each operator takes what stands before it; such a chain is no nesting, however long."""
        chain = []
        while str(tree.data) == "binary":
            chain.append(tree)
            tree = tree.children[0]
        expr = self._expr(tree)
        for part in reversed(chain):
            _, sign, right = part.children
            expr = syntax.Binary(self._span(part), str(sign), expr, self._expr(right), self._token_span(sign))
        return expr

    def _flat(self, tree: Any) -> syntax.Expr:
        span, parts = self._span(tree), tree.children
        match str(tree.data):
            case "number":
                return self._number(span, syntax.Number(span, str(parts[0])))
            case "name":
                return self._name(parts[0])
            case "grouped":
                return self._expr(parts[0])
            case "positive":
                return self._expr(parts[1])
            case "negative":
                return syntax.Unary(span, "-", self._expr(parts[1]))
            case "binary":
                return self._chain(tree)
            case "subscript":
                items = tuple(self._short(item) for item in parts[1].children)
                return syntax.Subscript(span, self._name(parts[0]), items)
            case "placed":
                value, items = self._expr(parts[0]), tuple(self._short(item) for item in parts[1].children)
                if isinstance(value, syntax.Name):
                    return syntax.Subscript(span, value, items)
                return syntax.Placed(span, value, items)
            case "position":
                return syntax.Position(span, self._name(parts[0]), self._expr(parts[1]))
            case "denied":
                return syntax.Unary(span, "not", self._expr(parts[1]))
            case "renaming":
                return syntax.Renaming(span, self._name(parts[0]), self._name(parts[1]))
            case "call":
                return syntax.Call(span, self._name(parts[0]), None, self._arguments(parts[1:]))
            case "call_over":
                return syntax.Call(span, self._name(parts[0]), self._over(parts[1]), self._arguments(parts[2:]))
            case "started":
                return syntax.Started(span, self._name(parts[0]), self._expr(parts[1]))
            case "bound":
                return syntax.Bound(span, self._name(parts[0]), self._expr(parts[1]))
            case other:
                raise AssertionError(other)

    def _short(self, tree: Any) -> syntax.Expr:
        """What stands in brackets: a number, a time, a place. Numbers are read from it level by level."""
        expr = self._expr(tree)
        if levels(expr) > MAX_DEPTH:
            message = f"what stands in brackets is nested more than {MAX_DEPTH} levels deep"
            raise _Stop(Diagnostic("too-deep", message, (Label(self._span(tree)),), help="write the number that it means"))
        return expr

    def _number(self, span: Span, number: syntax.Number) -> syntax.Number:
        """The number, if a float64 holds it."""
        if math.isinf(number.value):
            message = f"`{number.text}` is larger than a number of 64 bits can be"
            raise _Stop(Diagnostic("bad-number", message, (Label(span),), help="write `inf` where that is meant"))
        if number.value == 0 and re.search("[1-9]", re.split("[eE]", number.text)[0]):
            message = f"`{number.text}` is smaller than a number of 64 bits can be"
            raise _Stop(Diagnostic("bad-number", message, (Label(span),), help="write `0` where that is meant"))
        return number

    def _int(self, token: Any) -> int:
        """A whole number outside of expressions: a size, a number of steps."""
        if len(token) > MAX_DIGITS:
            message = f"a size or a number of steps has at most {MAX_DIGITS} digits"
            raise _Stop(Diagnostic("bad-number", message, (Label(self._token_span(token)),)))
        return int(token)

    def _arguments(self, parts: list[Any]) -> tuple[syntax.Expr, ...]:
        return tuple(self._expr(arg) for part in parts for arg in part.children)

    def _over(self, tree: Any) -> tuple[syntax.Name, ...]:
        """The dims in the brackets of a call."""
        dims = tuple(self._expr(item) for item in tree.children)
        names = tuple(dim for dim in dims if isinstance(dim, syntax.Name))
        for dim in dims:
            if not isinstance(dim, syntax.Name):
                message = "only names of dims may stand in the brackets of a call"
                raise _Stop(Diagnostic("syntax", message, (Label(dim.span, "not the name of a dim"),)))
        return names
