"""A spec after the front end: declarations, and the step graph of one time step.

The step graph's leaves are `input` (with an offset: positive is the past), `param` and `state` (the value at t-1). Inputs
and states carry the batch dim "B"; parameters do not, unless declared `per batch`. Every state is read at lag 1: longer
lags have become extra states. A parameter that repeats a dim (`R[D, D]`) has dims ("D", "D'"), row first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from seqc.diagnostics import Diagnostic, Span
from seqc.ir.arguments import ROLES
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH, Node, leaf, leaves
from seqc.ir.intervals import ANY, Interval
from seqc.ir.keys import next_key
from seqc.ir.support import Support
from seqc.ir.windows import lags


@dataclass(frozen=True)
class DimDecl:
    """A named dim. `default` is None when only a call knows its size; `choices` are the sizes one kernel family serves."""

    name: str
    default: int | None = None
    choices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fill:
    """Random initial values of a param, as `torch.nn.init` draws them: the function's name, without `_`, and its numbers.

    then: what becomes of the values drawn, which are the leaf `FILLED`; None: these are the initial values.
    """

    name: str
    args: tuple[Node, ...] = ()
    then: Node | None = None


FILLED = "drawn"


@dataclass(frozen=True)
class TensorDecl:
    """An input, parameter, state or output.

    dims: declared order, without the batch and time axes. `range`, `unit` (dims over which the 2-norm is 1) and `definite` (a
    symmetric, positive definite matrix in the dims X and X') are what the user promises. `init`: a parameter's initial value or
    a state's value before the first step (a graph over params, constants and indices). `hidden`: made by the compiler:
    `y.lag2` holds y[t-2]. A caller passes and gets it as any other, so that a run can be cut anywhere. `role`: its role among
    the arguments of a call (a row of `seqc.ir.arguments.ROLES`), where that is not named like the kind. `support`: what is kept
    of a sparse parameter; the role "mask" is the mask of one: not 0 where an element is kept. `places`: the dim whose positions
    an index tells. `whole`: a state that holds whole numbers, and has no gradient. `fill`: of a parameter, instead of `init`.
    """

    name: str
    kind: str  # "input" | "param" | "state" | "output"
    dims: tuple[str, ...]
    range: Interval = ANY
    unit: tuple[str, ...] = ()
    definite: bool = False
    init: Node | None = None
    per_batch: bool = False
    hidden: bool = False
    support: Support | None = None
    role: str = ""
    places: str = ""
    whole: bool = False
    fill: Fill | None = None

    @property
    def leaf_type(self) -> str:
        """The dtype of its leaf: "real" or "int"."""
        return ROLES[self.plays].type

    @property
    def mask(self) -> bool:
        """Whether it is the mask of a sparse parameter."""
        return self.role == "mask"

    @property
    def plays(self) -> str:
        """Its role among the arguments of a call."""
        return self.role or self.kind

    @property
    def gradient(self) -> bool:
        """Whether it has a gradient."""
        return ROLES[self.plays].gradient

    @property
    def default(self) -> bool:
        """Whether a call may leave it out, for its initial value."""
        return ROLES[self.plays].default and self.init is not None

    @property
    def batched(self) -> bool:
        """Whether the array has a batch axis."""
        return self.kind != "param" or self.per_batch

    @property
    def axes(self) -> tuple[str, ...]:
        """The leaf's dims: the batch axis first, then the declared order."""
        return ((BATCH,) if self.batched else ()) + self.dims

    def leaf(self, offset: int = 0) -> Node:
        """The leaf node of this declaration."""
        assert self.kind != "output"
        return leaf(self.kind, self.name, self.axes, offset, self.leaf_type)


HANDED = "handed"  # the role of an output that another recurrence reads: kernels round it to no smaller dtype
INSIDE = "steps.inside"  # see `seqc.ir.inside`
INSIDE_DECL = TensorDecl(INSIDE, "input", (), Interval(0.0, 1.0), hidden=True, role="inside")


@dataclass(frozen=True)
class Claim:
    """`eigenvalues S in [lo, hi]`: what the user says of the transition of a state."""

    state: str
    range: Interval
    span: Span | None = None


@dataclass(frozen=True)
class Plane:
    """`axis t, u`: the names of both axes, and the dim that the second one is in arrays. backward: from its last place on."""

    first: str
    second: str
    dim: str
    backward: bool = False


@dataclass(frozen=True)
class Wishes:
    """The `schedule`, `tile` and `checkpoint` statements; None or empty where the spec leaves the choice. convolution: whether
    a call may run by FFT where that is cheaper; newton: whether nonlinear recurrences run in parallel by Newton's method."""

    form: str | None = None  # "step" | "scan" | "chunkwise"
    chunks: tuple[int, ...] = ()
    tiles: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    checkpoint: int | None = None
    span: Span | None = None
    convolution: bool = False
    newton: bool = False


@dataclass(frozen=True)
class Loop:
    """The program of the closed loop of a spec with `feedback`: its inputs have other names, and one tells which are given.

    given: the input without dims that is above 0 at the steps where a caller gives the others; fed: input of the spec -> what
    it is called here, where the spec's name is that of the value which is used.
    """

    program: Program
    given: str
    fed: Mapping[str, str]


@dataclass(frozen=True)
class Program:
    """One spec: see the file's docstring. Mappings keep the order of the source.

    updates: state name -> its new value; outputs: name -> value (declarations in `output_decls`).
    spans: node -> where it was written first; definitions: node -> the name that the spec gives it (for readable output).
    """

    name: str
    doc: str
    dims: Mapping[str, DimDecl]
    inputs: Mapping[str, TensorDecl]
    params: Mapping[str, TensorDecl]
    states: Mapping[str, TensorDecl]
    output_decls: Mapping[str, TensorDecl]
    updates: Mapping[str, Node]
    outputs: Mapping[str, Node]
    claims: tuple[Claim, ...] = ()
    wishes: Wishes = Wishes()
    direction: str = "forward"  # "forward" | "backward" | "both": see `seqc.ir.both_ways`
    half: bool = False  # one of the two runs of `scan both`
    added: bool = False  # the outputs of both runs are added, not side by side
    shared: bool = False  # both runs have the same params
    plane: Plane | None = None  # two axes: see `seqc.ir.two_axes`
    spans: Mapping[Node, Span] = field(default_factory=dict)
    definitions: Mapping[Node, str] = field(default_factory=dict)
    source: str = ""
    path: str = "<spec>"
    loop: Loop | None = None
    warnings: tuple[Diagnostic, ...] = ()  # what the spec may say and probably does not mean

    def declared(self, leaf_node: Node) -> TensorDecl:
        """The declaration behind an input, param or state leaf."""
        table = {"input": self.inputs, "param": self.params, "state": self.states}[leaf_node.text("kind")]
        name = leaf_node.text("name")
        return INSIDE_DECL if name == INSIDE else table[name]

    def with_gradient(self, roots: Iterable[Node]) -> list[Node]:
        """The leaves of inputs and params below the roots that have a gradient."""
        return [n for n in leaves(roots) if n.text("kind") in ("input", "param") and self.declared(n).gradient]

    @property
    def told(self) -> frozenset[str]:
        """The dims whose sizes a call tells: those of what it must give. Others may be left to their initial values."""
        given = (x for x in (*self.inputs.values(), *self.params.values()) if not x.default)
        return frozenset(unprimed(d) for x in given for d in x.dims)

    @property
    def no_step(self) -> str:
        """Why one step alone says too little to be computed, told to the caller; "" where it says enough."""
        if self.half or self.direction == "both":
            return f"{self.name} has no step, for one of its runs begins at the last: call {self.name} on the sequence"
        read = sorted({n.text("name") for n in leaves(self.graph.values(), "input") if any(lags(n))})
        if not read:
            return ""
        of = f" of {', '.join(x for x in read if x != INSIDE)}" if read != [INSIDE] else ""
        back = all(min(lags(n)) >= 0 and n.dtype == "real" for n in leaves(self.graph.values(), "input"))
        help = " (or give them to a step as states: `history NAME STEPS` in the spec)" if of and back else ""
        return f"one step of {self.name} reads other steps{of}: call {self.name} on the sequence{help}"

    @property
    def graph(self) -> dict[str, Node]:
        """All roots of the step graph: "NAME" for outputs, "NAME.next" for states."""
        return {**self.outputs, **{next_key(name): n for name, n in self.updates.items()}}

    @property
    def carried(self) -> dict[Node, str]:
        """The leaf of each state -> the key of its value after the step."""
        return {decl.leaf(): next_key(name) for name, decl in self.states.items()}
