"""The value of a name, now or some steps ago: declared leaves, definitions on demand, and states for longer lags.

In: a scope. Out: `Value`s, cached by name; cycles inside one step are reported. Every state leaf that is made stands
for one step ago: `y[t-3]` becomes the states `y.lag2` and `y.lag3`, and `a[t-1]` of a definition becomes the state
`a.lag1`, zero before the first step. A name that is read many steps back has all of these values in one state,
`y.lags`, the oldest first (`seqc.frontend.delay_lines`). Expressions are elaborated by the class that derives from this one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from seqc.diagnostics import Label, Span, listing
from seqc.frontend.ahead import not_ahead, read_ahead
from seqc.frontend.declared import axes, checked, fits, misplaced, written_dims
from seqc.frontend.delay_lines import line
from seqc.frontend.functions import FUNCTIONS
from seqc.frontend.indexing import told_positions
from seqc.frontend.planes import named_leaf
from seqc.frontend.put_rows import put_rows
from seqc.frontend.rates import held
from seqc.frontend.scope import MAX_HISTORY, Scope, written_indices
from seqc.frontend.syntax import Decl, Define, Expr, Name
from seqc.frontend.values import Orders, Value, part_names, real, within
from seqc.ir.graph import BATCH, Node, const, leaf, leaves
from seqc.ir.intervals import ANY
from seqc.ir.ops.indexing import as_real
from seqc.ir.program import TensorDecl

MAX_STATES = 256  # steps back at which a state may be read
MAX_LAG = 1 << 20  # steps back or ahead at which an input may be read


def _of(nodes: Sequence[Node], order: tuple[str, ...], written: Orders) -> Value:
    return Value(nodes[0], order, nodes[1] if len(nodes) > 1 else None, written)


class Names(ABC):
    """Values of names. Subclasses say how an expression is elaborated."""

    def __init__(self, scope: Scope, lines: Mapping[str, int]) -> None:
        """lines: of each name whose lags are one state, the longest."""
        self.scope = scope
        self.lines = {word: line(scope, word, deepest) for word, deepest in lines.items()}
        self.spans: dict[Node, Span] = {}
        self.definitions: dict[Node, str] = {}
        self.deepest: dict[str, int] = {}  # name -> the longest lag that is read through extra states
        self.replaced: dict[str, Node] = {}  # state -> what is carried, where boundaries change it
        self.sites: Mapping[int, int] = {}  # of draws, by the ids of their calls
        self.once: list[bool] = []  # of each draw, whether it is drawn once a sequence
        self._done: dict[str, Value | None] = {}
        self.active: dict[str, Span] = {}
        self._behind: dict[str, Expr] = {}  # definitions that are elaborated for an earlier value -> where it is read
        self._loops: set[frozenset[str]] = set()
        self._held: dict[str, Value] = {}  # what names stand for while a derivative by them is taken
        self.stand_ins = 0  # how many there have been
        self.folds: dict[int, tuple[Value, ...] | None] = {}  # by the ids of their calls, those that give several names a value
        self.given: dict[int, Value] = {}  # values of parts of the tree, by their ids: draws that fill a param

    @abstractmethod
    def top(self, e: Expr, place: str) -> Value | None:
        """The value of a whole right-hand side that stands in a "step", an "init" or a "const"."""

    def read(self, name: Name, lag: int, place: str, e: Expr) -> Value | None:
        """The value of a name `lag` steps ago, as read by the expression `e`; None after a report."""
        scope, word = self.scope, name.id
        if word in scope.refused:
            return None
        if lag == 0 and word in self._held:
            return self._held[word]
        if word in scope.consts or word in scope.params or word in scope.dims:
            if e is not name:
                what = "constant" if word in scope.consts else "dim" if word in scope.dims else scope.params[word].role
                message = f"the {what} `{word}` does not change over time"
                scope.report("bad-lag", message, Label(e.span), help=f"write `{word}`")
                return None
            if word in scope.consts:
                return self.constant(word)
            if place != "const":
                return self._leaf("param", scope.params[word], 0)
            misplaced(scope, name, place)
            return None
        known = word in scope.inputs or word in scope.states or word in scope.defines
        if known and place != "step":
            misplaced(scope, name, place)
            return None
        if word in scope.inputs and abs(lag) > MAX_LAG:
            scope.refuse(
                "too-large", f"`{word}` is read {abs(lag)} steps away", e.span, f"at most {MAX_LAG} are served"
            )
            return None
        if word in scope.inputs:
            told = lag > 0 and word in scope.history
            return self._past(name, lag, e) if told else self._leaf("input", scope.inputs[word], lag)
        if not known:
            if word in FUNCTIONS or word in ("normal", "uniform", "bernoulli", "sample"):
                label = Label(name.span, "not called")
                scope.report("not-called", f"`{word}` is a function", label, help=f"write `{word}(...)`")
            else:
                scope.unknown("name", name, scope.names())
            return None
        if lag == 0:
            return self.current(word, e.span)
        return self._future(name, lag, e) if lag < 0 else self._past(name, lag, e)

    @property
    def holds(self) -> bool:
        """Whether names stand for something else now: a derivative by them is taken."""
        return bool(self._held)

    def _leaf(self, kind: str, decl: Decl, offset: int) -> Value:
        batch: tuple[str, ...] = (BATCH,) if kind != "param" or decl.per_batch else ()
        batch += self.scope.beside if kind != "param" else ()
        names = part_names(decl.name.id, decl.is_complex)
        dims = axes(decl)
        if decl.places is not None and kind == "input":  # read as a number, but for where it stands in brackets
            found = [as_real(leaf(kind, decl.name.id, (*batch, *dims), offset, "int"))]
        else:
            found = [leaf(kind, name, (*batch, *dims), offset) for name in names]
        return replace(_of(found, dims, within([dims], dims)), places=decl.places.id if decl.places else "")

    def on_plane(self, name: Name, back: int, beside: int, place: str, e: Expr) -> Value | None:
        """The value of a name so many places ago on each of two axes; None after a report."""
        word, scope = name.id, self.scope
        if place != "step" or not (word in scope.inputs or word in scope.states or word in scope.defines):
            return self.read(name, back or beside, place, e)  # which says what is wrong
        if not back and not beside:
            return self.current(word, e.span) if word not in scope.inputs else self._leaf("input", scope.inputs[word], 0)
        marks = scope.axis, scope.second, scope.across
        if word in scope.inputs:
            if max(abs(back), abs(beside)) > MAX_LAG:
                scope.refuse("too-large", f"`{word}` is read too far away", e.span, f"at most {MAX_LAG} places are served")
                return None
            return named_leaf("input", scope.inputs[word], back, beside, marks)
        if word in scope.states and back in (0, 1) and beside in (0, 1):
            return named_leaf("state", scope.states[word], back, beside, marks)
        if word in scope.states and min(back, beside) < 0:
            not_ahead(scope, word, "", e, ", on each axis", back > 0)
            return None
        what = f"`{scope.axis}-1`, `{scope.second}-1` and both"
        cause = f"of two axes, states are read at {what}; a definition is read where it is"
        carried = f"{word}[{scope.axis}-1]" if word in scope.states else word
        help = f"declare a state that carries it, `past = {carried}`, and read `past[{scope.axis}-1]`"
        scope.refuse("too-large", f"`{word}` is read at another place", e.span, cause, help)
        return None

    # ---- now

    def fed(self, span: Span) -> dict[str, Value]:
        """What inputs are that a closed loop feeds: to a derivative they are data, as in a call that is given them."""
        found = {word: self.current(word, span) for word in self.scope.fed if word not in self.active}
        return {word: x for word, x in found.items() if x is not None and not x.places}

    def holding(self, values: Mapping[str, Value], make: Callable[[], Value | None]) -> Value | None:
        """What `make` makes where names have other values; definitions are elaborated again for it."""
        kept = self._done, self._held, self.folds
        self._done = {name: x for name, x in self._done.items() if name in self.scope.consts}
        self._held, self.folds = {**self._held, **values}, {}
        made = make()
        self._done, self._held, self.folds = kept
        return made

    def current(self, word: str, span: Span) -> Value | None:
        """The value of a definition or state in this step."""
        if word in self._done:
            return self._done[word]
        if word in self.active:
            return self._loop(word, span)
        if word in self.scope.refused:
            return None
        define = self.scope.defines.get(word)
        if define is None or define.expr is None:
            return None  # a state without a new value: told when the program is put together
        self.active[word] = span
        value = self.top(define.expr, "step")
        del self.active[word]
        if value is not None:
            carried = word in self.scope.states or word in self.scope.outputs
            value = self._declared(word, real(value) if carried else value, define.expr)
        if value is not None and word in self.scope.rates:
            value = held(self.scope, word, value, self._leaf("state", self.scope.states[word], 0))
        if value is not None:
            value = told_positions(self.scope, word, value, define.expr)
        if value is not None:
            for name, found in zip(part_names(word, value.imag is not None), value.parts, strict=True):
                if found.op not in ("leaf", "const"):
                    self.definitions.setdefault(found, name)
        self._done[word] = value
        return value

    def replacement(self, define: Define) -> Value | None:
        """What a boundary makes of a state."""
        value = self.top(define.expr, "step")
        written = define.dims
        if value is not None and written is not None and not self.scope.known_dims(written):
            return None
        state = self.scope.states[define.name.id]
        if value is None or not fits(self.scope, state, value, define.expr):
            return None
        return checked(self.scope, define.name.id, axes(state), real(value), define.expr, exact=False)

    def constant(self, word: str) -> Value | None:
        """The value of a constant, as an expression of numbers, dims and indices."""
        if word in self._done:
            return self._done[word]
        decl = self.scope.consts[word]
        if word in self.active:
            return self._loop(word, decl.name.span)
        assert decl.value is not None
        self.active[word] = decl.name.span
        value = self.top(decl.value, "const")
        del self.active[word]
        if value is not None:
            value = checked(self.scope, word, axes(decl), real(value), decl.value, exact=False)
        self._done[word] = value
        return value

    def _declared(self, word: str, value: Value, e: Expr) -> Value | None:
        """The value with its dims checked against the definition's own and the state's or output's."""
        scope = self.scope
        state = scope.states.get(word)
        if state is not None and not fits(self.scope, state, value, e):
            return None
        define = scope.defines.get(word)
        indices = written_indices(scope, define.dims) if define is not None else []
        if indices and state is not None:
            told = [(index, self.read(index, 0, "step", index)) for index in indices]
            places = [(index, place) for index, place in told if place is not None]
            old = self._leaf("state", state, 0)
            return put_rows(scope, state, places, value, e, old) if len(places) == len(told) else None
        for source in (define, scope.outputs.get(word), state):
            written = source.dims if source is not None else None
            if written is not None:
                if not self.scope.known_dims(written):
                    return None
                dims = written_dims(self.scope, word, written)
                fitting = None if dims is None else checked(self.scope, word, dims, value, e)
                if fitting is None:
                    return None
                value = fitting
        return value

    def _loop(self, word: str, span: Span) -> Value | None:
        chain = [*self.active]
        chain = chain[chain.index(word) :]
        for name in chain[1:]:
            if name in self._behind:  # what closes the chain is an earlier value
                return self._needs_state(name, self._behind[name])
        if frozenset(chain) in self._loops:
            return None
        self._loops.add(frozenset(chain))
        labels = [Label(span, f"needs `{word}` in the same step")]
        labels += [Label(self.active[name], f"needs `{name}`") for name in chain[1:]]
        if len(chain) == 1:
            message = f"`{word}` is defined by itself in the same step"
        else:
            message = f"{listing(chain)} define each other in the same step"
        axis = self.scope.axis
        help = f"read the value of one step ago: `{word}[{axis}-1]`"
        if word not in self.scope.states:
            help += f", and declare it: `state {word} = 0`"
        self.scope.report("instant-cycle", message, *labels, help=help)
        return None

    # ---- the past and the future

    def _past(self, name: Name, lag: int, e: Expr) -> Value | None:
        word = name.id
        most = MAX_STATES if word in self.scope.states else MAX_HISTORY
        if lag > most:
            cause = f"every value in between is kept; at most {most} are (inputs may go further back)"
            self.scope.refuse("too-large", f"`{word}` is read {lag} steps back", e.span, cause)
            return None
        state, now = self.scope.states.get(word), None
        if state is not None:
            if state.lag is not None and lag > state.lag:
                self.scope.report(
                    "lag-not-kept",
                    f"`{word}` is read {lag} steps back and keeps {state.lag}",
                    Label(e.span),
                    Label(state.span, f"declared with `lag {state.lag}`"),
                    help=f"declare it with `lag {lag}`",
                )
                return None
            if lag == 1:
                return self._leaf("state", state, 0)
            order, written = axes(state), within([axes(state)], axes(state))
            told = state.places.id if state.places else ""
        else:
            if word in self.active:
                return self._needs_state(word, e)
            now = self._told(word, lag, e) if word in self.scope.inputs else self._earlier(word, e)
            if now is None:
                return None
            order, written, told = now.order, now.written, now.places
        self.deepest[word] = max(lag, self.deepest.get(word, 0))
        is_complex = now is not None and now.imag is not None if state is None else state.is_complex
        names = part_names(word, is_complex)
        if word in self.lines:
            past = [self.lines[word].at(name, order, lag) for name in names]
        else:
            past = [leaf("state", f"{name}.lag{lag}", (BATCH, *order)) for name in names]
        return replace(_of(past, order, written), places=told)

    def _earlier(self, word: str, e: Expr) -> Value | None:
        """The value now of a definition whose past is read."""
        self._behind[word] = e
        value = self.current(word, e.span)
        del self._behind[word]
        return value

    def _told(self, word: str, lag: int, e: Expr) -> Value | None:
        """An input whose earlier values are states; reports a lag that its history does not reach."""
        told = self.scope.history[word]
        if lag > told.steps:
            labels = Label(e.span), Label(told.span, f"keeps {told.steps}")
            message = f"`{word}` is read {lag} steps back and has a history of {told.steps}"
            self.scope.report("lag-not-kept", message, *labels, help=f"write `history {word} {lag}`")
            return None
        self.deepest[word] = told.steps
        return self._leaf("input", self.scope.inputs[word], 0)

    def _needs_state(self, word: str, e: Expr) -> Value | None:
        if word in self.scope.lost or frozenset([word]) in self._loops:
            return None
        self._loops.add(frozenset([word]))
        where = self.scope.places[word]
        message = f"`{word}` is read in the past and depends on its own past, but it is not a state"
        labels = (Label(e.span, "its value before the first step is not given"), Label(where, "defined here"))
        self.scope.report("not-a-state", message, *labels, help=f"declare it with its dims: `state {word} = 0`")
        return None

    def _future(self, name: Name, lag: int, e: Expr) -> Value | None:
        word, steps = name.id, "1 step" if lag == -1 else f"{-lag} steps"
        if word in self.scope.states and word not in self.scope.fed:
            not_ahead(self.scope, word, f"{steps} ", e)
            return None
        return read_ahead(self, word, -lag, steps, e)

    def new_states(self) -> set[Node]:
        """What states that are known so far have become, where that depends on a state; but for what is fed back."""
        words = self.scope.states.keys() - {*self.scope.fed}
        known = (value for word, value in self._done.items() if word in words and value is not None)
        return {x for value in known for x in value.parts if leaves([x], "state")}

    def hidden(self, word: str, states: Mapping[str, TensorDecl]) -> list[tuple[TensorDecl, Node]]:
        """The extra states of a name that is read further back, each with its new value."""
        state = self.scope.states.get(word)
        first = 2 if state is not None else 1
        kind, declared = ("state", state) if state is not None else ("input", self.scope.inputs.get(word))
        now = self._done[word] if declared is None else self._leaf(kind, declared, 0)
        assert now is not None
        out: list[tuple[TensorDecl, Node]] = []
        for name, newest in zip(part_names(word, now.imag is not None), real(now).parts, strict=True):
            init = states[name].init if state is not None else const(0.0)
            if word in self.lines:
                out.append(self.lines[word].state(name, now.order, newest, init))
                continue
            for lag in range(first, self.deepest[word] + 1):
                decl = TensorDecl(f"{name}.lag{lag}", "state", now.order, range=ANY, init=init, hidden=True)
                out.append((decl, newest))
                newest = decl.leaf()
        return out
