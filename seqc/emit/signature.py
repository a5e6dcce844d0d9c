"""What an emitted file is about, as plain data: the contract between whoever lowers a spec and `seqc.emit`.

In: names (already safe: see `seqc.emit.names`), dims in declared order, and the text of the kernels. Out: frozen values
that `seqc.emit.emit` turns into a file. Nothing here knows a graph, and nothing imports torch.

Layouts: an input or output is [B, T, dims...], a state [B, dims...], a parameter [dims...] ([B, dims...] per batch).
A call with `cu_seqlens` is a pack: inputs and outputs are [1, T, dims...], one sequence after the other; B is then the
number of sequences in what has no time axis.
Dtypes: "io" is the dtype of the inputs; "carry" is float64 for float64 inputs, else float32. States are "carry", and
so is everything that the torch and cpu functions get or give. The Triton functions get tensors in the dtypes that they
are stored in; what they give is cast by the boundary where it has another dtype. All arguments are contiguous.

The functions of a `Kernels`, SUFFIX "torch", "triton" or "cpu"; names in the order of the signature, all positional:

Params are followed by buffers, which have no gradient: `Signature.table` has the order.

    _forward_SUFFIX(inputs..., params..., NAME_0...) -> (outputs..., NAME_T..., saved...)
    _backward_SUFFIX(inputs..., params..., NAME_0..., saved..., d_outputs..., d_NAME_T...)
                                                    -> (d_inputs..., d_params..., d_NAME_0...)   of what has a gradient
                                                    takes the keyword `needs`: for each of these whether it is asked for; what
                                                    is not may be anything, None too
    _infer_SUFFIX(inputs..., params..., NAME_0...) -> (outputs..., NAME_T...)    optional: a forward that saves nothing
    _step_SUFFIX(inputs..., params..., NAME_0...) -> (outputs..., NAME_T...)     one step: no time axis
    _ready_cpu(inputs..., params..., NAME_0..., kernels) -> bool    whether these native kernels, of "forward", "backward" and
                                                    "step", can run on these, with or without a time axis; asked at every
                                                    call and in tracing, so it remembers
    _ready_triton(x, dims...) -> bool               whether the kernels can run at these sizes of the dims `limited`, on
                                                    inputs such as x; asked likewise. It warns where they cannot

Where `Kernels.packs`, the first three also take the keywords `cu_seqlens` (None, or bounds [B + 1]; a sequence may have no
steps) and `reverse` (every sequence from its last step to its first). Where not, the boundary flips, and runs the
sequences of a pack one by one.

They run below autograd with autocast off, on one device, with B > 0 and T > 0, and every cotangent dense (never None).
They return fresh tensors: no result is an argument, and no two results share memory. `_step_torch` is the exception:
second derivatives and forward mode are taken of it, so it is made of ordinary torch operators, holds what the spec says of
derivatives (`stopgrad`, `withgrad`), and may return views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from seqc.ir.arguments import Argument, argument, ordered
from seqc.ir.support import Support, Units

Dtype = Literal["io", "carry", "_state_type(io)"]


@dataclass(frozen=True)
class Dim:
    """A named dim. `choices`: the only sizes that the kernels serve (any if empty). `default`: the Module's size."""

    name: str
    default: int | None = None
    choices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Input:
    """An input [B, T, dims...]. A gate is float32 under autocast, and may be so beside inputs of lower precision. places: the
    dim whose positions an index tells. init: what it is where a call leaves it out, as of a state; None where no call may."""

    name: str
    dims: tuple[str, ...]
    gate: bool = False
    role: str = "input"
    places: str = ""
    init: str | None = None


@dataclass(frozen=True)
class Param:
    """A parameter or a buffer [dims...]; `D'` stands for D again (a square parameter is ("D", "D'"), row first).

    init: a torch expression over the dims' names that broadcasts to [dims...], e.g. "torch.log(1 + torch.arange(N))";
    None draws from a normal distribution of variance 1 / (last dim), or zeros where there is one dim or none, and for
    buffers. support: what is kept of a sparse one, with the name of the mask as it is emitted. hidden: a mask that rules alone
    say, and that no caller gives. role: "mask" is the mask of a sparse one, of any dtype. default: a buffer that a call may
    leave out: its init is then also made in the function, on `device`. fill: instead of init, a function of `torch.nn.init`
    without its `_`, and its arguments as expressions over the dims' names. then: what becomes of what is drawn, `drawn`.
    """

    name: str
    dims: tuple[str, ...]
    init: str | None = None
    per_batch: bool = False
    support: Support | None = None
    hidden: bool = False
    role: str = "param"
    default: bool = False
    fill: tuple[str, ...] = ()
    then: str = ""

    @property
    def mask(self) -> bool:
        """Whether it is the mask of a sparse parameter."""
        return self.role == "mask"


@dataclass(frozen=True)
class State:
    """A state [B, dims...]. init: a number ("0", "-inf"), or a torch expression over parameters and dims' names that
    broadcasts to [B, dims...]; autograd differentiates it."""

    name: str
    dims: tuple[str, ...]
    init: str = "0"
    role: str = "state"


@dataclass(frozen=True)
class Output:
    """An output [B, T, dims...], in the dtype of the inputs."""

    name: str
    dims: tuple[str, ...]


@dataclass(frozen=True)
class Saved:
    """A tensor that forward keeps for backward. shape: Python expressions over B, T, dims and `packed` (whether the call
    is of a pack): "(T + 63) // 64".

    packed: its shape for a pack, where that differs; T is then the number of all steps, B that of the sequences.
    """

    name: str
    shape: tuple[str, ...]
    dtype: Dtype = "carry"
    packed: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Library:
    """The C++ text of a native library; that of its kernels alone until the part of the file is put together. macros: of each
    dim, the macro that tells its size; more: others, with their values, of the library that serves every batch."""

    text: str
    macros: tuple[tuple[str, str], ...]
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Kernels:
    """One backend's part of a file.

    text: complete top-level definitions, the functions above among them; it may use `torch` and `math`. In the Triton
    part kernels are written `@triton.jit` and use `triton` and `tl`; emission puts the import off until a CUDA tensor
    arrives. infer: whether the text defines `_infer_SUFFIX`. float64: whether float64 inputs are served (by the torch
    part always); where not, the torch part takes them. packs: whether the functions take `cu_seqlens` and `reverse`.
    limited: dims that `_ready_triton` must be asked about. direct: whether the text fills `_NATIVE_STEPS` with functions that
    run a step (inputs, params, NAME_0, whether in place, an earlier result or None), and answer None to other calls. writes:
    whether the text defines `_write_SUFFIX`, a step that writes rows of the tables that it is given, and returns these.
    imports: lines that both texts need besides torch and math. runtime: definitions that the text needs when it is called, the
    same whatever the recurrence is: they stand at the end of the file. optional: states that no output is made of: the backward
    function takes None for the cotangents of all of their last values, and runs nothing of them then. libraries: what native
    code builds.
    """

    text: str
    saved: tuple[Saved, ...] = ()
    infer: bool = False
    float64: bool = False
    packs: bool = False
    limited: tuple[str, ...] = ()
    direct: bool = False
    writes: bool = False
    imports: tuple[str, ...] = ()
    runtime: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    libraries: tuple[Library, ...] = ()

    @property
    def alone(self) -> str:
        """All that the functions need, as one text."""
        return "\n\n\n".join(["\n".join(self.imports), self.text.strip("\n"), *self.runtime]).strip("\n") + "\n"


@dataclass(frozen=True)
class Closed:
    """A closed loop. sig: of the recurrence whose input `given` tells which steps of the others are given; fed: name of an
    input that is fed back -> what it is called there."""

    sig: Signature
    given: str
    fed: Mapping[str, str]


@dataclass(frozen=True)
class System:
    """A linear time-invariant system, for emission.

    lag: how many steps back inputs are read. struck, moved, read: axes (behind the batch) of each input, of each state as steps
    mix them, and of each state as outputs mix them, whose places have impulses of their own. steps, reads, heard, left: how
    each source adds to each result, as `einsum` says it, "" where it does not: the kernel [places, dims of the result] and
    the source [..., dims] (steps, reads), or with the batch `b` and time `t`. calls, work: of a step, operators that see
    a state, and elements that they handle for each element of the states. wanted: whether the spec asks for this form.
    beside: for each state the axes that all share and those that steps mix, where states are laid side by side as one; then
    moved, read, steps, reads and left tell of that one, with the shared axes first. back: for each output and each state j,
    how what the output reads of each state k makes what it reads of j a step before, as `einsum` says it.
    """

    lag: int
    struck: tuple[tuple[int, ...], ...]
    moved: tuple[tuple[int, ...], ...]
    read: tuple[tuple[int, ...], ...]
    steps: tuple[tuple[str, ...], ...]
    reads: tuple[tuple[str, ...], ...]
    heard: tuple[tuple[str, ...], ...]
    left: tuple[tuple[str, ...], ...]
    calls: int
    work: float
    wanted: bool = False
    beside: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    back: tuple[tuple[tuple[str, ...], ...], ...] = ()


@dataclass(frozen=True)
class Signature:
    """One emitted file.

    spec: the public function's name; class_name: the Module's. doc: the lines of the file's docstring (the recurrence,
    the numerical plan). header: words of the one comment line above it (target, tiles), or "". torch: the plain form,
    which serves every device and dtype; triton: the CUDA form, or None; cpu: the native form, or None. A longer lag is
    one more state: list it, so that a run can be continued from what a call returned. renamed: emitted name -> the
    spec's, of the arguments and results whose name could not stand; notes: name -> words for its line in docstrings.
    backwards: the recurrence begins at the last step. no_step: why there is no single step, or "". no_plain: why second
    derivatives and forward mode are refused, or "". reads: where the plain form has a step of its own, (place among
    the inputs, steps back) of each input of it. unread: states whose value after the last step may be
    without any cotangent: no output depends on the state, or none on its value in the same step. keys: of each run, the two
    states that hold the keys of its noise; where there are some, a call takes a `seed`, and the torch part defines `_draw`.
    loop: the closed loop that stands in the file too, with a function and a method `generate`. system: of a recurrence
    that is linear and time-invariant, what its convolution needs. units: of each dim, whether
    positions of it may go.
    """

    spec: str
    class_name: str
    doc: tuple[str, ...]
    dims: tuple[Dim, ...]
    inputs: tuple[Input, ...]
    params: tuple[Param, ...]
    states: tuple[State, ...]
    outputs: tuple[Output, ...]
    torch: Kernels
    triton: Kernels | None = None
    cpu: Kernels | None = None
    header: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    backwards: bool = False
    no_step: str = ""
    no_plain: str = ""
    reads: tuple[tuple[int, int | range], ...] = ()
    unread: tuple[str, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    loop: Closed | None = None
    units: Mapping[str, Units] = field(default_factory=dict)
    system: System | None = None

    @cached_property
    def table(self) -> tuple[Argument, ...]:
        """Every argument of the kernels, in order: inputs, params, then NAME_0 of each state."""
        rows = [argument(x.name, x.role, x.dims, default=x.init is not None) for x in self.inputs]
        rows += [argument(p.name, p.role, p.dims, p.per_batch, p.default) for p in self.params]
        return ordered([*rows, *(argument(s.name, s.role, s.dims) for s in self.states)])

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments, in order."""
        return tuple(a.name for a in self.table)

    @property
    def required(self) -> tuple[Input, ...]:
        """The inputs that a call must give."""
        return tuple(x for x in self.inputs if x.init is None)

    @property
    def stateless(self) -> int:
        """How many arguments stand before the initial states."""
        return sum(a.kind != "state" for a in self.table)

    @property
    def all_gradients(self) -> bool:
        """Whether every argument has a gradient."""
        return all(a.gradient for a in self.table)

    @property
    def initial(self) -> tuple[str, ...]:
        """NAME_0 of each state."""
        return tuple(a.name for a in self.table if a.kind == "state")

    @property
    def results(self) -> tuple[str, ...]:
        """What a call returns, in order: outputs, then NAME_T of each state."""
        return tuple(o.name for o in self.outputs) + tuple(f"{s.name}_T" for s in self.states)

    @property
    def optional(self) -> tuple[str, ...]:
        """The states whose last values may come back without a cotangent, whatever form runs."""
        return tuple(s.name for s in self.states if all(s.name in kernels.optional for kernels in self.backends.values()))

    @property
    def writes(self) -> bool:
        """Whether a step in place writes rows of tables, instead of tables."""
        return not self.no_step and all(kernels.writes for kernels in self.backends.values())

    @property
    def backends(self) -> dict[str, Kernels]:
        """Suffix -> kernels, of the parts that the file has."""
        optional = {"triton": self.triton, "cpu": self.cpu}
        return {"torch": self.torch} | {suffix: kernels for suffix, kernels in optional.items() if kernels}
