"""The `sparse` statements: what is kept of which params.

In: statements, a scope, the params as the program keeps them, and the step graph. Out: the params with their supports, and
beside them one mask for each sparse param; mistakes are noted in the scope. No value is masked here: see `seqc.ir.support`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from seqc.diagnostics import Label, near_miss
from seqc.frontend import syntax
from seqc.frontend.graphs import KINDS, edges
from seqc.frontend.scope import Scope
from seqc.frontend.statements import bound
from seqc.frontend.values import part_names
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH, Node, topological
from seqc.ir.program import TensorDecl
from seqc.ir.support import Pruning, Rule, Support, square

SIZED = {"band": "band", "blocks": "blocks"}  # rules with a number behind them
FACTORS = ("mul", "div", "neg", "rename", "expand", "take", "stopgrad")  # through which a factor is one of the whole
WORDS = ("graph", *SIZED, "lower", "mask", "magnitude")


@dataclass
class _Found:
    """What the statements say of one param."""

    rules: list[Rule] = field(default_factory=list)
    pruning: Pruning | None = None
    words: list[str] = field(default_factory=list)
    place: syntax.Sparse | None = None


def sparse_params(
    scope: Scope, spec: syntax.Spec, params: Mapping[str, TensorDecl], roots: Iterable[Node]
) -> dict[str, TensorDecl]:
    """The params with their supports, and their masks behind them."""
    contracted = _contracted(roots)
    found: dict[str, _Found] = {}
    for statement in spec.statements:
        if isinstance(statement, syntax.Sparse):
            for name in statement.names:
                if _may_be_sparse(scope, name, params, contracted):
                    _read(scope, statement, name, params, found.setdefault(name.id, _Found()))
    out = dict(params)
    for param, said in found.items():
        mask = f"{param}_mask"
        if mask in scope.places:
            label = Label(scope.places[mask], "this name is taken")
            there = Label(scope.places[param], f"`{mask}` is the mask of `{param}`")
            message = f"`{mask}` cannot be declared beside the sparse `{param}`"
            scope.report("reserved-name", message, label, there, help="rename one of the two")
        parts = _parts(scope, param)
        support = Support(mask, tuple(said.rules), said.pruning, "; ".join(said.words))
        out |= {part: replace(params[part], support=support) for part in parts}
        out[mask] = TensorDecl(mask, "param", params[parts[0]].dims, hidden=said.pruning is None, role="mask")
    return out


def _contracted(roots: Iterable[Node]) -> set[str]:
    """The params that are factors of what a sum runs over, in a dim of the sum: as they are, or as a function of params alone.

    A sum over taps is written out: what is read position by position stands in one.
    """
    found: set[str] = set()
    for n in topological(roots):
        if n.op == "take" and n.args[0].op == "leaf" and n.args[0].text("kind") == "param":
            found.add(n.args[0].text("name"))
        todo = [(n.args[0], frozenset(n.names("over")))] if n.op == "sum" else []
        while todo:
            x, over = todo.pop()
            if x.op == "rename" and x.text("new") in over:
                over = over - {x.text("new")} | {x.text("old")}
            if x.op == "leaf" and x.text("kind") == "param" and over & set(x.dims):
                found.add(x.text("name"))
            if x.op in FACTORS or BATCH not in x.dims:
                todo += [(a, over) for a in x.args]
            elif x.op in ("add", "sub"):  # of complex numbers the parts of a product are sums of products
                todo += [(a, over) for a in x.args if a.op in ("mul", "neg", "add", "sub")]
    return found


def _parts(scope: Scope, name: str) -> tuple[str, ...]:
    return part_names(name, scope.params[name].is_complex)


def _may_be_sparse(scope: Scope, name: syntax.Name, params: Mapping[str, TensorDecl], contracted: set[str]) -> bool:
    only = "only a param may be sparse"
    if not scope.is_declared("param", name, f"`{name.id}` is no param", "not a param", help=only):
        return False
    if not set(_parts(scope, name.id)) <= params.keys():
        return False  # its declaration is wrong, and has been told
    if not contracted & set(_parts(scope, name.id)):
        cause = "sparsity saves the work of a product, and what it leaves out counts as 0 there"
        help = f"read it in one, as `{name.id} @ h`, or drop the statement"
        label = Label(name.span, "in no product")
        scope.report("not-contracted", f"no product sums over `{name.id}`", label, cause=cause, help=help)
        return False
    return True


def _read(
    scope: Scope, statement: syntax.Sparse, name: syntax.Name, params: Mapping[str, TensorDecl], found: _Found
) -> None:
    """Add what one statement says of one param."""
    decl = params[_parts(scope, name.id)[0]]
    word = statement.method.id if statement.method else ""
    marks = {mark.kind: mark for mark in statement.marks}
    if len(marks) < len(statement.marks):
        scope.report("said-twice", "a mark of `sparse` is given twice", Label(statement.span))
    if not _fits_together(scope, statement, word, marks):
        return
    if word in ("mask", "magnitude") or marks.keys() & {"keep", "of", "block"}:
        if found.pruning is not None and found.place is not None:
            there = Label(found.place.span, "first here")
            scope.report("said-twice", f"how `{name.id}` is pruned is said twice", Label(statement.span), there)
        found.pruning, found.place = _pruning(scope, word or "magnitude", marks), statement
        found.words.append(_words(statement, ("keep", "of", "block"), word or "magnitude"))
    if word in ("graph", "lower", *SIZED):
        found.rules += _rule(scope, statement, word, name, decl)
        found.words.append(_words(statement, (), word))
    if "diagonal" in marks:
        at = _matrix(scope, name, decl)
        found.rules += [Rule("off diagonal", at, words="zero diagonal")] if at else []
        found.words.append("zero diagonal")
    if len({rule.at for rule in found.rules}) > 1:
        cause = "each rule compares one row with one column"
        message = f"rules of `{name.id}` are about different rows and columns"
        scope.report("said-twice", message, Label(statement.span), cause=cause)


def _fits_together(scope: Scope, statement: syntax.Sparse, word: str, marks: Mapping[str, syntax.SparseMark]) -> bool:
    """Whether the words of a statement make sense together."""
    if statement.method is not None and word not in WORDS:
        help = near_miss(word, WORDS, "write one of")
        scope.report("unknown-word", f"`{word}` is no kind of sparsity", Label(statement.method.span), help=help)
        return False
    if not word and not marks:
        help = f"say what is kept, as in `sparse {statement.names[0].id} by band 8` or `.. by magnitude keep 10%`"
        scope.report("syntax", "the statement says nothing of what is kept", Label(statement.span), help=help)
        return False
    pruned = [mark for kind, mark in marks.items() if kind != "diagonal"]
    if pruned and word not in ("", "magnitude"):
        cause = f"`by {word}` says already what is kept"
        message = "`keep` and `block` go with `by magnitude`"
        scope.report("sparse-words", message, Label(pruned[0].span), cause=cause, help="drop one of the two")
        return False
    if (statement.size is not None) != (word in SIZED) or (statement.graph is not None) != (word == "graph"):
        shown = {"graph": "graph watts_strogatz(k=8, p=0.1)", "band": "band 8", "blocks": "blocks 16"}.get(word, word)
        assert statement.method is not None
        label = Label(statement.method.span)
        scope.report("sparse-words", f"`by {word}` is not written so", label, help=f"write `by {shown}`")
        return False
    return True


def _words(statement: syntax.Sparse, kinds: tuple[str, ...], word: str) -> str:
    """A statement's words without the params."""
    from seqc.frontend.format import sparse_words

    return sparse_words(statement, kinds, word)


def _pruning(scope: Scope, by: str, marks: Mapping[str, syntax.SparseMark]) -> Pruning:
    keep: float | None = None
    block, pattern = 1, None
    if mark := marks.get("keep"):
        keep = mark.numbers[0].value / (100 if mark.percent else 1)
        if not 0 <= keep <= 1:
            text = f"{mark.numbers[0].text}{'%' if mark.percent else ''}"
            help = "write a share of all elements, such as `keep 10%` or `keep 0.1`"
            scope.report("bad-share", f"`{text}` is no share", Label(mark.span, "between 0% and 100%"), help=help)
    if mark := marks.get("block"):
        block = int(mark.numbers[0].value)
        if block < 1:
            scope.report("bad-size", "a block has at least 1 row and column", Label(mark.span))
    if mark := marks.get("of"):
        n, m = (int(number.value) for number in mark.numbers)
        pattern = (n, m)
        if not 0 < n <= m:
            scope.report("bad-share", f"`{n} of {m}` is no share", Label(mark.span), help="such as `keep 2 of 4`")
        for other in ("keep", "block"):
            if other in marks:
                message = f"`keep {n} of {m}` takes no `{other}`"
                scope.report("sparse-words", message, Label(marks[other].span), help="drop one of the two")
    return Pruning(by, keep, block, pattern)


def _rule(scope: Scope, statement: syntax.Sparse, word: str, name: syntax.Name, decl: TensorDecl) -> list[Rule]:
    at = _layers(scope, statement, name, decl) if statement.layers else _matrix(scope, name, decl)
    if at is None:
        return []
    words = _words(statement, (), word)
    if word == "lower":
        return [Rule("lower", at, words=words)]
    if statement.size is not None:
        size = int(statement.size.value)
        if size < (word == "blocks"):
            scope.report("bad-size", "a block has at least 1 row and column", Label(statement.size.span))
            return []
        return [Rule(SIZED[word], at, size, words=words)]
    graph = statement.graph
    assert graph is not None
    if graph.id not in KINDS:
        help = near_miss(graph.id, KINDS, "write one of")
        scope.report("unknown-word", f"`{graph.id}` is no kind of graph", Label(graph.span), help=help)
        return []
    layers = [dim.id for dim in statement.layers] or [unprimed(at[0])]
    sizes = {dim: scope.fix_size(dim) for dim in layers}
    given = _options(scope, statement)
    for dim in (dim for dim, size in sizes.items() if size is None):
        cause = "the edges of a graph are drawn when the spec is compiled, and fix the sizes of its matrices"
        label = Label(scope.places[dim], "open")
        scope.report("unsized-dim", f"a graph needs the size of `{dim}`", label, cause=cause, help=f"write `dim {dim} = 64`")
    numbers = [size for size in sizes.values() if size is not None]
    if given is None or len(numbers) < len(layers):
        return []
    target, source = (layers.index(unprimed(dim)) for dim in at)
    try:
        found = edges(graph.id, numbers, target, source, given)
    except ValueError as wrong:
        label = Label(graph.span.to(statement.graph_args[-1].span) if statement.graph_args else graph.span)
        scope.report("bad-graph", f"there is no such graph of {sum(numbers)} nodes", label, cause=str(wrong))
        return []
    return [Rule("edges", at, edges=found, shape=(numbers[target], numbers[source]), words=words)]


def _layers(scope: Scope, statement: syntax.Sparse, name: syntax.Name, decl: TensorDecl) -> tuple[str, str] | None:
    """The dims of a param's rows and columns, each a layer of the graph; None after a report."""
    layers = [dim.id for dim in statement.layers]
    for dim in statement.layers:
        if dim.id not in scope.dims:
            scope.unknown("dim", dim, list(scope.dims))
            return None
    if len(set(layers)) < len(layers):
        scope.report("said-twice", "a layer is given twice", Label(statement.layers[0].span.to(statement.layers[-1].span)))
        return None
    at = [dim for dim in decl.dims if unprimed(dim) in layers]
    if len(at) != 2:
        cause = f"`{name.id}` has {len(at)} of the dims {', '.join(layers)}, and a matrix joins two layers, or one with itself"
        help = f"declare a matrix of two layers, as `{name.id}[{layers[-1]}, {layers[0]}]`: its rows are those that it leads to"
        scope.report("not-square", f"`{name.id}` is no matrix of the graph", Label(name.span), cause=cause, help=help)
        return None
    return at[0], at[1]


def _options(scope: Scope, statement: syntax.Sparse) -> dict[str, float] | None:
    """The numbers of a graph; None after a report."""
    assert statement.graph is not None
    kind, given = KINDS[statement.graph.id], dict[str, float]()
    before = len(scope.found)
    for option in statement.graph_args:
        word, value = option.name.id, bound(option.value)
        if word not in (*kind.counts, *kind.shares):
            help = near_miss(word, (*kind.counts, *kind.shares)) or f"it takes {', '.join((*kind.needed, 'seed'))}"
            scope.report("unknown-word", f"`{statement.graph.id}` has no `{word}`", Label(option.name.span), help=help)
        elif word in given:
            scope.report("said-twice", f"`{word}` is given twice", Label(option.span))
        elif value is None or (word in kind.counts and (value < 0 or value != int(value))):
            what = "a whole number" if word in kind.counts else "a number"
            scope.report("bad-graph", f"`{word}` is {what}", Label(option.value.span), help=f"such as `{word}=4`")
        elif word in kind.shares and not 0 <= value <= 1:
            scope.report("bad-graph", f"`{word}` is a probability", Label(option.value.span), help="between 0 and 1")
        else:
            given[word] = value
    missing = [word for word in kind.needed if word not in given]
    if len(scope.found) == before and missing:
        shown = ", ".join(f"{word}={'0.1' if word in kind.shares else '4'}" for word in kind.needed)
        help = f"write `{statement.graph.id}({shown})`"
        scope.report("bad-graph", f"`{statement.graph.id}` needs `{missing[0]}`", Label(statement.graph.span), help=help)
    return given if len(scope.found) == before else None


def _matrix(scope: Scope, name: syntax.Name, decl: TensorDecl) -> tuple[str, str] | None:
    """The dims of the rows and the columns of a square matrix; None after a report."""
    place = square(decl.dims)
    if place is None:
        shown = f"{name.id}[{', '.join(d.rstrip(chr(39)) for d in decl.dims)}]" if decl.dims else name.id
        cause = f"the rule compares row and column, and `{shown}` repeats no dim"
        help = "declare a square matrix, as `R[D, D]`, or choose `by magnitude` or `by mask`"
        scope.report("not-square", f"`{name.id}` is no square matrix", Label(name.span), cause=cause, help=help)
        return None
    return decl.dims[place[0]], decl.dims[place[1]]
