"""The syntax tree of a spec: what was written, with the place of every part, and nothing derived.

In: nothing (only data is defined here). Out: frozen dataclasses made by `parse`, printed by `format` and read by `elaborate`.
Spans do not take part in comparisons, so two trees are equal when they say the same thing.
A tree never resolves names: `S[t-1]`, `index[N]` and `memory[node]` are all `Subscript` here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from seqc.diagnostics import Source, Span


@dataclass(frozen=True)
class Node:
    """Anything with a place in the source."""

    span: Span = field(compare=False, repr=False)


# ---------------------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True)
class Expr(Node):
    """A value."""


@dataclass(frozen=True)
class Number(Expr):
    """A literal as it was written: `0.5`, `1e-5`, or imaginary with a trailing `i`."""

    text: str

    @property
    def imaginary(self) -> bool:
        """Whether the literal is a multiple of the imaginary unit."""
        return self.text.endswith("i")

    @property
    def value(self) -> float:
        """The real number in front of a possible `i`."""
        return float(self.text.removesuffix("i"))


@dataclass(frozen=True)
class Name(Expr):
    """A bare name: the value now, or a built-in constant (`pi`, `inf`)."""

    id: str


@dataclass(frozen=True)
class Unary(Expr):
    """`-x` or `not c` (a leading `+` is dropped by the parser)."""

    op: str
    x: Expr


@dataclass(frozen=True)
class Binary(Expr):
    """`a op b` with op one of ``+ - * / ^ @ < <= > >= == != and or``."""

    op: str
    left: Expr
    right: Expr
    op_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Renaming(Expr):
    """`K -> K'` in the brackets of a value: its dim K under another name."""

    old: Name
    new: Name


@dataclass(frozen=True)
class Position(Expr):
    """`G = 2` in the brackets of a value: one position of its dim G."""

    dim: Name
    at: Expr


@dataclass(frozen=True)
class Subscript(Expr):
    """`NAME[...]`: a lag, renamed dims, a dim (`index[N]`) or a gather; which of them is for the builder to see."""

    name: Name
    items: tuple[Expr, ...]


@dataclass(frozen=True)
class Placed(Expr):
    """`(EXPR)[...]`: an expression with renamed dims, or at one position of a dim."""

    x: Expr
    items: tuple[Expr, ...]


@dataclass(frozen=True)
class Bound(Expr):
    """`S -> EXPR`: the body of a `fold`, with the name that stands for the running value."""

    name: Name
    body: Expr


@dataclass(frozen=True)
class Started(Expr):
    """`a = EXPR` in a `fold`: a running value and what it begins with, or, behind the arrow, a value of a step's own."""

    name: Name
    start: Expr


@dataclass(frozen=True)
class Call(Expr):
    """`f(a, b)` or `f[K](a)`; `dims` is None when no bracket was written."""

    name: Name
    dims: tuple[Name, ...] | None
    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Target(Node):
    """`NAME` or `NAME[D]` on the left of a `=` with several names; `dims` is None when none were written."""

    name: Name
    dims: tuple[Name, ...] | None


@dataclass(frozen=True)
class Taken(Expr):
    """What one of several names is: of `a, b = fold[J](..)` the running value at `place`. The line is a `Define` for each
    target; all hold the one `whole`."""

    whole: Call
    place: int
    targets: tuple[Target, ...]


# ---------------------------------------------------------------------------------------------------- declarations


@dataclass(frozen=True)
class Interval(Node):
    """`[lo, hi]`, both ends expressions of numbers (`inf` allowed)."""

    lo: Expr
    hi: Expr


@dataclass(frozen=True)
class DimItem(Node):
    """`H`, `K = 64`, `N {16, 32}` or `W in 1..8`."""

    name: Name
    default: int | None = None
    sizes: tuple[int, ...] | None = None
    lo: int | None = None
    hi: int | None = None


@dataclass(frozen=True)
class Decl(Node):
    """One declared value. `value` is a parameter's `init`, a state's or a constant's `=`; `role` the word of the
    statement, or "index"; `places` the dim whose positions an index tells."""

    name: Name
    dims: tuple[Name, ...] = ()
    value: Expr | None = None
    interval: Interval | None = None
    unit: tuple[Name, ...] | None = None
    is_complex: bool = False
    definite: bool = False
    per_batch: bool = False
    lag: int | None = None
    role: str = ""
    places: Name | None = None


# ------------------------------------------------------------------------------------------------------ statements


@dataclass(frozen=True)
class Statement(Node):
    """A line (or a line with its continuation)."""


@dataclass(frozen=True)
class SpecName(Statement):
    """`spec NAME` with the documentation that follows it, without the quotes."""

    name: Name
    doc: str | None = None


@dataclass(frozen=True)
class Dims(Statement):
    """`dim ...`"""

    items: tuple[DimItem, ...]


@dataclass(frozen=True)
class Axes(Statement):
    """`axis t, u`"""

    names: tuple[Name, ...]


@dataclass(frozen=True)
class Scan(Statement):
    """`scan forward | backward | both`, and of `both` also `sum`, `shared`; of two axes, `scan u backward`"""

    direction: Name
    joined: tuple[Name, ...] = ()


@dataclass(frozen=True)
class Declare(Statement):
    """`input ...`, `param ...`, `buffer ...`, `const ...` or `state ...`; `kind` is that word."""

    kind: str
    items: tuple[Decl, ...]


@dataclass(frozen=True)
class Define(Statement):
    """`NAME = EXPR`; `dims` is None when none were written."""

    name: Name
    dims: tuple[Name, ...] | None
    expr: Expr


@dataclass(frozen=True)
class Output(Statement):
    """`output NAME[...] = EXPR`; without an expression it names something that is defined elsewhere."""

    name: Name
    dims: tuple[Name, ...] | None
    expr: Expr | None


@dataclass(frozen=True)
class History(Statement):
    """`history x 3`: the values of an input before the first step are arguments."""

    name: Name
    steps: int


@dataclass(frozen=True)
class Before(Statement):
    """`before t, u: h = EXPR`: what a state is before the first place of an axis, or of both."""

    axes: tuple[Name, ...]
    body: Define


@dataclass(frozen=True)
class Claim(Statement):
    """`eigenvalues S in [lo, hi]`"""

    name: Name
    interval: Interval


@dataclass(frozen=True)
class Option(Node):
    """A word with what follows it: `k=8` of a graph."""

    name: Name
    value: Expr


@dataclass(frozen=True)
class SparseMark(Node):
    """`keep 10%`, `keep 0.1`, `keep 2 of 4`, `block 16` or `zero diagonal`. kind: "keep", "of", "block" or "diagonal"."""

    kind: str
    numbers: tuple[Number, ...] = ()
    percent: bool = False


@dataclass(frozen=True)
class Sparse(Statement):
    """`sparse R, R_f by METHOD ...`: `size` for `by band 8`; `graph`, its arguments and the dims of its layers for
    `by graph g(k=8) over D, E`."""

    names: tuple[Name, ...]
    method: Name | None
    size: Number | None
    graph: Name | None
    graph_args: tuple[Option, ...]
    layers: tuple[Name, ...]
    marks: tuple[SparseMark, ...]


@dataclass(frozen=True)
class Schedule(Statement):
    """`schedule chunk {32, 64}`, `schedule scan`: a word, and sizes where they were given."""

    form: Name
    sizes: tuple[int, ...] | None


@dataclass(frozen=True)
class Tile(Statement):
    """`tile V {32, 64}`"""

    dim: Name
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint(Statement):
    """`checkpoint 128`: keep a state every so many steps."""

    steps: int


@dataclass(frozen=True)
class Every(Statement):
    """`every 128: S = EXPR`: a state changed at fixed boundaries."""

    steps: int
    body: Define


@dataclass(frozen=True)
class Down(Statement):
    """`down 4: g = EXPR`: the value of a slow state at every so many steps. first: the steps of the first group."""

    steps: int
    first: int | None
    body: Define


@dataclass(frozen=True)
class Feedback(Statement):
    """`feedback x = EXPR`: what the input x is where a caller does not give it."""

    name: Name
    expr: Expr


# ------------------------------------------------------------------------------------------------------------ file


@dataclass(frozen=True)
class Comment(Node):
    """`# text`; `own_line` when nothing stands before it."""

    text: str
    own_line: bool = True


@dataclass(frozen=True)
class Spec:
    """A whole file: statements in the order written, and every comment."""

    source: Source = field(compare=False, repr=False)
    statements: tuple[Statement, ...]
    comments: tuple[Comment, ...]
