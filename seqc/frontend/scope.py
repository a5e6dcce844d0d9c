"""What a spec declares: dims, axes, inputs, parameters, constants, states, definitions and outputs, by name.

In: the statements of a tree. Out: a `Scope`, with diagnostics for names that are declared twice, reserved or misused.
It evaluates no expression and makes no node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from seqc.diagnostics import Diagnostic, Label, Span, listing, near_miss
from seqc.frontend import syntax
from seqc.frontend.idioms import name_advice
from seqc.frontend.rates import declared as slowed
from seqc.frontend.syntax import Decl, Define, Output
from seqc.frontend.values import part_names
from seqc.ir.arguments import ROLES
from seqc.ir.dims import is_primed, unprimed
from seqc.ir.graph import RESERVED, Node
from seqc.ir.program import DimDecl

CONSTANTS = ("pi", "inf")
BUILTIN = (*CONSTANTS, "index", "eye")
SAID = ("batch", "batch_size", "bsz", "time", "seq", "seq_len", "seqlen", "length", "steps", "timesteps")  # as dims
MAX_DIM_CHOICES = 4096
MAX_HISTORY = 1024  # steps of an input or a definition that are arguments


@dataclass
class Scope:
    """All names of a spec. `defines` holds definitions and outputs: what gives a name its value in a step."""

    axis: str = "t"
    second: str = ""  # the second axis, of two
    indexed: dict[str, str] = field(default_factory=dict)  # axis whose places an expression may count -> its extent
    dims: dict[str, DimDecl] = field(default_factory=dict)
    inputs: dict[str, Decl] = field(default_factory=dict)
    params: dict[str, Decl] = field(default_factory=dict)
    consts: dict[str, Decl] = field(default_factory=dict)
    states: dict[str, Decl] = field(default_factory=dict)
    defines: dict[str, Define | Output] = field(default_factory=dict)
    outputs: dict[str, Output] = field(default_factory=dict)
    rates: dict[str, tuple[int, int]] = field(default_factory=dict)  # slow state -> steps of its groups, and of the first
    history: dict[str, syntax.History] = field(default_factory=dict)
    places: dict[str, Span] = field(default_factory=dict)
    positions: Mapping[str, str] = field(default_factory=dict)  # name -> the dim whose positions its value must tell
    fed: tuple[str, ...] = ()  # the inputs of a closed loop that are definitions in it
    taken: dict[tuple[Node, str], set[int]] = field(default_factory=dict)  # node, dim -> the positions that are read
    whole: frozenset[tuple[Node, str]] = frozenset()  # of these, which are computed at all positions at once
    assigned: frozenset[str] = frozenset()  # the names that stand on left sides
    lost: frozenset[str] = frozenset()  # words of lines that could not be read: nothing is said about them
    found: list[Diagnostic] = field(default_factory=list)
    told: set[tuple[str, str]] = field(default_factory=set)  # what is unknown is told once
    refused: set[str] = field(default_factory=set)  # declared with dims that cannot be: what reads these has no value

    @property
    def across(self) -> str:
        """The dim that the second axis is in arrays, or "" where there is one axis."""
        return self.second.upper()

    @property
    def beside(self) -> tuple[str, ...]:
        """The unwritten dims of a value beside its batch: the one that the second axis is in arrays."""
        return (self.across,) if self.second else ()

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes, and the names of their extents."""
        return (self.axis, "T", *((self.second, self.across) if self.second else ()))

    def names(self) -> list[str]:
        """Every name that may stand in an expression."""
        tables = (self.inputs, self.params, self.consts, self.states, self.defines, self.dims)
        return [name for table in tables for name in table] + list(CONSTANTS)

    def report(self, code: str, message: str, *labels: Label, cause: str = "", help: str = "") -> None:
        """Note a mistake of the spec."""
        self.found.append(Diagnostic(code, message, labels, cause, help))

    def warn(self, code: str, message: str, *labels: Label, cause: str = "", help: str = "") -> None:
        """Note something that is right and probably not meant so."""
        self.found.append(Diagnostic(code, message, labels, cause, help, kind="warning"))

    def refuse(self, code: str, message: str, span: Span, cause: str, help: str = "") -> None:
        """Note something that is right but not served yet."""
        self.found.append(Diagnostic(code, message, (Label(span),), cause, help, kind="unsupported"))

    def unknown(self, what: str, name: syntax.Name, known: list[str], help: str = "") -> None:
        """Note a name that nothing declares, unless the line that should have declared it could not be read."""
        if name.id not in self.lost and (what, name.id) not in self.told:
            self.told.add((what, name.id))
            told = name_advice(name.id, known, self.axis) if what == "name" and known else ""
            advice = told or near_miss(name.id, known) or help
            self.report(f"unknown-{what}", f"unknown {what} `{name.id}`", Label(name.span, "not declared"), help=advice)

    def is_declared(
        self, kind: str, name: syntax.Name, message: str, label: str = "", *, cause: str = "", help: str = ""
    ) -> bool:
        """Whether a name is an "input", a "param" or a "state"; reports another kind with the message, or an unknown name."""
        known = {"input": self.inputs, "param": self.params, "state": self.states}[kind]
        if name.id in known:
            return True
        if name.id in self.names():
            code = "not-an-input" if kind == "input" else f"not-a-{kind}"
            self.report(code, message, Label(name.span, label), cause=cause, help=help)
        else:
            self.unknown(kind, name, list(known))
        return False

    def known_dims(self, names: tuple[syntax.Name, ...]) -> bool:
        """Whether every name is a dim, or one with primes; reports the others."""
        for name in names:
            if name.id in (*self.axes, "B") and name.id not in self.dims:
                self._not_a_dim(name)
            elif unprimed(name.id) not in self.dims:
                said = "leave it out: inputs and outputs have a batch and steps without saying so"
                declared = said if name.id.lower() in SAID else f"declare it: `dim {unprimed(name.id)}`"
                self.unknown("dim", name, list(self.dims), declared)
        return all(unprimed(name.id) in self.dims for name in names)

    def _not_a_dim(self, name: syntax.Name) -> None:
        """Note the batch or the time where a dim should stand."""
        if name.id in self.lost or ("dim", name.id) in self.told:
            return
        self.told.add(("dim", name.id))
        kind = "the batch" if name.id == "B" else "the time"
        cause = "inputs and outputs have a batch and steps without saying so, and a spec says one step"
        axis = self.axis
        help = "leave it out" if name.id == "B" else (
            f"leave it out; over time a state accumulates: `n = n[{axis}-1] + 1`, `m = max(m[{axis}-1], x)`")
        self.report("time-as-dim", f"`{name.id}` is no dim", Label(name.span, kind), cause=cause, help=help)

    def fix_size(self, dim: str) -> int | None:
        """The one size of a dim that the spec fixes; from now on no other size is served. None where it is open."""
        dim = unprimed(dim)
        decl = self.dims[dim]
        size = decl.choices[0] if len(decl.choices) == 1 else decl.default
        if size is not None:
            self.dims[dim] = DimDecl(dim, size, (size,))
        return size


def gather(spec: syntax.Spec, lost: frozenset[str]) -> Scope:
    """The scope of a tree."""
    scope = Scope(lost=lost)
    for statement in spec.statements:
        match statement:
            case syntax.Axes(names=names):
                _axes(scope, names)
            case syntax.Dims():
                for item in statement.items:
                    _dim(scope, item)
            case _:
                pass
    for statement in spec.statements:
        if isinstance(statement, syntax.Declare):
            for decl in statement.items:
                _declare(scope, statement.kind, decl)
    left = (s.name.id for s in spec.statements if isinstance(s, syntax.Define | syntax.Output))
    scope.assigned = frozenset(left) - scope.dims.keys()
    for statement in spec.statements:
        if isinstance(statement, syntax.Define | syntax.Output):
            _define(scope, statement.name, statement)
    for statement in spec.statements:
        if isinstance(statement, syntax.Down) and slowed(scope, statement):
            _define(scope, statement.body.name, statement.body)
        if isinstance(statement, syntax.History):
            _history(scope, statement)
    _result_names(scope)
    return scope


def _axes(scope: Scope, names: tuple[syntax.Name, ...]) -> None:
    scope.axis = names[0].id
    if len(names) > 2:
        span = names[0].span.to(names[-1].span)
        help = "run two axes inside, and carry what the third hands on as an input, in a loop of the caller"
        cause = "diagonals are lowered for two axes"
        scope.refuse("several-axes", f"{len(names)} recurrence axes are not lowered", span, cause, help)
        scope.lost |= {name.id for name in names[1:]}
    elif len(names) == 2 and names[1].id.upper() in (names[0].id, "T", "B", names[0].id.upper()):
        message = f"the second axis cannot be called `{names[1].id}`"
        label = Label(names[1].span, f"its extent would be `{names[1].id.upper()}`")
        scope.report("reserved-name", message, label, help=f"such as `axis {names[0].id}, u`")
    elif len(names) == 2:
        scope.second = names[1].id
        scope.places[scope.second] = scope.places[scope.across] = names[1].span


def _dim(scope: Scope, item: syntax.DimItem) -> None:
    name = item.name.id
    if name in (*RESERVED, *scope.axes):
        taken = (*RESERVED, *filter(None, [scope.across]))
        scope.report(
            "reserved-name",
            f"`{name}` cannot be the name of a dim",
            Label(item.name.span, "reserved"),
            cause=f"{listing(taken)} are the compiler's own names for the batch and for time",
            help="leave batch and steps out, for a spec says one step of one sequence; a dim that is neither has another name",
        )
        scope.lost |= {name}
        return
    if not _new(scope, item.name, "dim"):
        return
    sizes = item.sizes or ()
    if item.lo is not None and item.hi is not None:
        if not 1 <= item.lo <= item.hi or item.hi - item.lo >= MAX_DIM_CHOICES:
            wrong = f"`{item.lo}..{item.hi}` is not a range of sizes"
            scope.report("dim-size", wrong, Label(item.span), help="write `W in 1..8`: both ends belong to the range")
        else:
            sizes = tuple(range(item.lo, item.hi + 1))
    if any(size < 1 for size in (*sizes, item.default or 1)) or item.default == 0:
        scope.report("dim-size", "the size of a dim is at least 1", Label(item.span))
    scope.dims[name] = DimDecl(name, sizes[0] if len(sizes) == 1 else item.default, sizes)


def _new(scope: Scope, name: syntax.Name, kind: str) -> bool:
    """Whether the name is free; claims it."""
    if name.id in scope.places:
        there = Label(scope.places[name.id], "first declared here")
        message = f"`{name.id}` is declared twice"
        scope.report("duplicate-name", message, Label(name.span, "declared again"), there, help="rename one of the two")
        return False
    if is_primed(name.id):
        cause = "a prime marks a further dim of the same size: K' is as long as K, and needs no declaration"
        scope.report("primed-name", f"`{name.id}` cannot be declared", Label(name.span, "has a prime"), cause=cause)
        return False
    if name.id in BUILTIN or (name.id == scope.axis and kind != "dim"):
        meaning = "the time axis" if name.id == scope.axis else "built in"
        label = Label(name.span, f"`{name.id}` is {meaning}")
        scope.report("reserved-name", f"`{name.id}` cannot be declared", label, help="choose another name")
        return False
    scope.places[name.id] = name.span
    return True


def _declare(scope: Scope, kind: str, decl: Decl) -> None:
    for promise in (decl.interval, decl.unit) if decl.is_complex else ():
        if promise is not None:
            cause = "complex numbers have no order, and their two parts are passed apart"
            help = "declare the parts as two real values where a range of them is known"
            label = Label(decl.span, "complex")
            wrong = f"`{decl.name.id}` is complex, and has no range and no unit norm"
            scope.report("complex-range", wrong, label, cause=cause, help=help)
            break
    if not _new(scope, decl.name, kind):
        return
    known = scope.known_dims(decl.dims)
    counts = [dim.id for dim in decl.dims]
    for dim in decl.dims:
        if counts.count(dim.id) > (1 if f"{dim.id}'" in counts else 2):
            cause = f"a matrix has rows and columns: {'an' if kind == 'input' else 'a'} {kind} may repeat one dim once"
            message = f"`{decl.name.id}` repeats the dim `{dim.id}`"
            help = f"a further dim of the same size is written `{dim.id}'`"
            scope.report("repeated-dim", message, Label(decl.span), cause=cause, help=help)
            known = False
            break
    if decl.places is not None:
        known = scope.known_dims((decl.places,)) and known
    if decl.definite and (decl.is_complex or not _has_square(counts)):
        message = f"`{decl.name.id}` cannot be definite: it is no real matrix"
        help = "a matrix has rows and columns of one size: `param Q[N, N] definite`, `state P[N, N'] = eye[N] definite`"
        scope.report("not-square", message, Label(decl.span, f"has the dims [{', '.join(counts)}]"), help=help)
        decl = replace(decl, definite=False)
    if decl.unit is not None:
        for dim in decl.unit:
            if dim.id not in counts:
                label = Label(dim.span, f"`{decl.name.id}` has the dims [{', '.join(counts)}]")
                scope.report("missing-dim", f"`{decl.name.id}` has no dim `{dim.id}` to have unit norm over", label)
    kind = ROLES[kind].leaf if kind in ROLES else kind
    table = {"input": scope.inputs, "param": scope.params, "const": scope.consts, "state": scope.states}[kind]
    table[decl.name.id] = decl if known else _without_dims(decl)
    if not known:
        scope.lost |= {decl.name.id}
        scope.refused.add(decl.name.id)


def _has_square(dims: list[str]) -> bool:
    """Whether dims have rows and columns of one size."""
    return any(f"{dim}'" in dims or dims.count(dim) > 1 for dim in dims)


def _without_dims(decl: Decl) -> Decl:
    return Decl(decl.span, decl.name, (), decl.value, decl.interval, role=decl.role, places=decl.places)


def written_indices(scope: Scope, dims: tuple[syntax.Name, ...] | None) -> list[syntax.Name]:
    """The indices among what stands in the brackets of a left side."""
    told = {name for name, decl in scope.inputs.items() if decl.places is not None} | scope.assigned
    return [d for d in dims or () if d.id in told]


def _define(scope: Scope, name: syntax.Name, statement: Define | Output) -> None:
    """Enter `NAME = ...` or `output NAME ...`; both give a state its new value when the name is a state's."""
    if isinstance(statement, Output):
        if name.id in scope.outputs:
            there = Label(scope.outputs[name.id].name.span, "first here")
            scope.report("duplicate-name", f"`{name.id}` is output twice", Label(name.span, "output again"), there)
            return
        scope.outputs[name.id] = statement
        if statement.expr is None:
            return
    if name.id in scope.defines:
        first = scope.defines[name.id].name.span
        scope.report(
            "duplicate-name",
            f"`{name.id}` is defined twice",
            Label(name.span, "defined again"),
            Label(first, "first defined here"),
            cause="a name has one value in a step",
            help="give the intermediate value its own name",
        )
        return
    indices = written_indices(scope, statement.dims)
    alone = name.id in scope.states and len(indices) == len(statement.dims or ()) and not isinstance(statement, Output)
    if indices and not alone:
        index = indices[0]
        cause = "what is written at an index is a row of a state, whose other rows stay"
        help = f"declare a state with its dim, and write `{name.id}[{index.id}] = ...` on a line of its own"
        scope.report("bad-index", f"`{name.id}` cannot be written at an index", Label(index.span), cause=cause, help=help)
        scope.lost |= {name.id}
        return
    if name.id in scope.states or _new(scope, name, "define"):
        scope.defines[name.id] = statement


def _history(scope: Scope, statement: syntax.History) -> None:
    """Enter `history x 3`; reports what is no input, and a number of steps that cannot be."""
    name = statement.name
    only = "only inputs are read as 0 before the first step; states and definitions have arguments for it already"
    if not scope.is_declared("input", name, f"`{name.id}` is not an input", cause=only):
        return
    if scope.inputs[name.id].places is not None:
        cause = "what an index was before the first step is 0, and a history would be a state, which holds numbers"
        message = f"the index `{name.id}` has no history"
        help = f"give it a name, `now = {name.id}`, and read `now[t-1]`: the past of a definition is an argument"
        scope.refuse("index-history", message, statement.span, cause, help)
    elif name.id in scope.history:
        there = Label(scope.history[name.id].span, "first here")
        scope.report("said-twice", f"the history of `{name.id}` is given twice", Label(statement.span), there)
    elif not 1 <= statement.steps <= MAX_HISTORY:
        help = f"from 1 to {MAX_HISTORY}"
        scope.report("bad-size", f"a history of {statement.steps} steps", Label(statement.span), help=help)
    else:
        scope.history[name.id] = statement


def _result_names(scope: Scope) -> None:
    """A call takes `S_0` and returns `S_T` for a state S, and `x_re` and `x_im` of a complex x: nothing else is called so."""
    for decl in (*scope.inputs.values(), *scope.params.values(), *scope.states.values()):
        for name in part_names(decl.name.id, True) if decl.is_complex else ():
            if name in scope.inputs | scope.params | scope.states:
                scope.report(
                    "reserved-name",
                    f"`{name}` cannot be declared beside the complex `{decl.name.id}`",
                    Label(scope.places[name], "this name is taken"),
                    Label(decl.name.span, f"`{name}` is its {'real' if name.endswith('re') else 'imaginary'} part"),
                    help="rename one of the two",
                )
    for state, decl in scope.states.items():
        roles = [(f"{part}_0", "the argument for its initial value") for part in part_names(state, decl.is_complex)]
        roles += [(f"{part}_T", "its final value") for part in part_names(state, decl.is_complex)]
        for name, role in roles:
            used = name in (scope.inputs | scope.params) if name.endswith("_0") else name in scope.outputs
            if used:
                scope.report(
                    "reserved-name",
                    f"`{name}` cannot be declared beside the state `{state}`",
                    Label(scope.places[name], "this name is taken"),
                    Label(scope.places[state], f"`{name}` is {role}"),
                    help="rename one of the two",
                )
