"""Blocks -> the signature of the emitted file: names, layouts, gates, initial values, documentation.

In: a program, its blocks, and the kernels that the backends made of them. Out: a `Signature`. Which inputs are gates is
read from the graph: what has a declared range, and what reaches the transition of a state through an exponential, a
sigmoid or a logarithm, loses too much in half precision. Initial values become torch expressions.
"""

from __future__ import annotations

import textwrap
from collections.abc import Container, Mapping
from dataclasses import replace

from seqc.analysis.noise import CLOCK, HIGH, LOW
from seqc.analysis.units import units
from seqc.analysis.unread import read_later
from seqc.diagnostics import Unsupported
from seqc.driver.compose.plain_step import plain_reads, without_plain
from seqc.driver.explain.phrases import wrapped
from seqc.emit import Dim, Input, Kernels, Output, Param, Signature, State, safe_name
from seqc.emit.edges import EDGE_PLACES
from seqc.emit.expressions import ATOM, Text, aligned, filled, number
from seqc.emit.names import TIME, dim_name, module_name
from seqc.emit.numbers import number_spelling
from seqc.emit.signature import Closed
from seqc.ir.block import Block
from seqc.ir.both_ways import one_run, twin
from seqc.ir.dims import TWICE
from seqc.ir.graph import Node, leaves, topological
from seqc.ir.intervals import ANY
from seqc.ir.ops import TABLE, holds
from seqc.ir.plan import Plan
from seqc.ir.program import Loop, Program, TensorDecl
from seqc.ir.support import Units
from seqc.ir.two_axes import lowered
from seqc.passes.classify import classify

WIDTH = 112
NOISE = {LOW: "the noise's key, a word of 24 bits", HIGH: "the noise's key, another word", CLOCK: "steps that have drawn noise"}
TITLES = {"torch": "plain torch", "cpu": "native code for CPUs", "triton": "Triton"}


def signature(
    program: Program, plan: Plan, blocks: Mapping[str, Block], kernels: Mapping[str, Kernels], header: str
) -> Signature:
    """The signature of a file. plan: what leaves the recurrence. blocks, kernels: by suffix: "torch" always, "triton" and "cpu"
    where they are served."""
    gates = gate_inputs(program, plan.cores[0].program)
    return Signature(
        spec=safe_name(program.name),
        class_name=module_name(program),
        doc=tuple(documentation(program, plan, blocks)),
        dims=tuple(Dim(safe_name(d.name), d.default, d.choices) for d in program.dims.values()),
        inputs=tuple(_input(d, gates) for d in program.inputs.values()),
        params=tuple(map(_param, program.params.values())),
        states=tuple(State(safe_name(d.name), _dims(d), initial(d) or "0", d.plays) for d in program.states.values()),
        outputs=tuple(Output(safe_name(d.name), _dims(d)) for d in program.output_decls.values()),
        torch=kernels["torch"],
        triton=kernels.get("triton"),
        cpu=kernels.get("cpu"),
        header=header,
        renamed=renamed(program),
        notes=notes(program),
        backwards=program.direction == "backward",
        no_step=program.no_step,
        no_plain=no_plain(program),
        reads=plain_reads(program),
        unread=unread(program),
        keys=keys(program),
        units=_units(program) if any(d.support and d.support.pruning for d in program.params.values()) else {},
    )


def _units(program: Program) -> dict[str, Units]:
    """What a layer may shrink by, in emitted names; the second run of two has parameters of its own."""
    runs = (str, twin) if program.direction == "both" and not program.shared else (str,)
    if program.plane is not None:
        return {}
    return {dim: replace(one, reads=tuple((safe_name(of(name)), axis) for name, axis in one.reads for of in runs))
            for dim, one in units(one_run(program)).items()}


def _input(d: TensorDecl, gates: Container[str]) -> Input:
    return Input(safe_name(d.name), _dims(d), d.name in gates, d.plays, d.places, initial(d) if d.default else None)


def _param(d: TensorDecl) -> Param:
    names = dict(zip(d.dims, _dims(d), strict=True))
    support = d.support and replace(
        d.support, mask=safe_name(d.support.mask),
        rules=tuple(replace(rule, at=(names[rule.at[0]], names[rule.at[1]])) for rule in d.support.rules),
    )  # fmt: skip
    filled = filling(d)
    return Param(safe_name(d.name), _dims(d), initial(d), d.per_batch, support, d.hidden, d.plays, d.default, *filled)


def closed_loop(loop: Loop, sig: Signature) -> Closed:
    """A closed loop as an emitted file has it. sig: of its program."""
    return Closed(sig, safe_name(loop.given), {safe_name(x): safe_name(name) for x, name in loop.fed.items()})


def keys(program: Program) -> tuple[tuple[str, str], ...]:
    """The emitted names of the states that hold the keys of noise, of each run."""
    pairs = ((LOW, HIGH), (twin(LOW), twin(HIGH)))
    return tuple((safe_name(low), safe_name(high)) for low, high in pairs if low in program.states)


def no_plain(program: Program) -> str:
    """Why second derivatives and forward mode are refused, told to the caller; "" where they are served."""
    name = safe_name(program.name)
    if without_plain(program):
        return f"{name}: second derivatives and forward mode are taken of single steps, which {name} has not"
    if any(n.op == "gradclip" for n in topological(program.graph.values())):
        return f"{name}: there are no second derivatives and none in forward mode, for `gradclip` cuts gradients"
    return ""


def unread(program: Program) -> tuple[str, ...]:
    """The emitted names of the states that no output depends on, however many steps later, and of those whose new value no
    output of the same step depends on: after the last step such a value is its caller's alone."""
    one = lowered(program)
    read = read_later(one)
    same = set(topological(one.outputs.values()))
    late = {s for s, update in one.updates.items() if update not in same and update.op != "leaf"}  # a leaf is moved, no more
    lost = [s for s in one.states if s in program.states and (s not in read or s in late)]
    return tuple(safe_name(x) for s in lost for x in ((s, twin(s)) if program.direction == "both" else (s,)))


def renamed(program: Program) -> dict[str, str]:
    """Emitted name -> the spec's, of the arguments and results that could not keep theirs."""
    decls = [*program.inputs.values(), *program.params.values(), *program.output_decls.values()]
    names = {safe_name(d.name): d.name for d in decls}
    for s in program.states:
        names |= {f"{safe_name(s)}{mark}": f"{s}{mark}" for mark in ("_0", "_T")}
    return {emitted: own for emitted, own in names.items() if emitted != own and "." not in own}


def notes(program: Program) -> dict[str, str]:
    """Emitted name -> what a reader must know of it: the spec's own name, or what a state of the compiler's own holds."""
    found = {emitted: f"`{own}` in the spec" for emitted, own in renamed(program).items()}
    if program.direction == "both":
        one = one_run(program)
        runs = "of both runs, added" if program.added else "of the run forward, then of the run back"
        found |= {safe_name(x): runs for x in program.outputs}
        found |= {safe_name(twin(x)): "of the run back" for x in one.params if not program.shared}
        found |= {f"{safe_name(twin(s))}{mark}": "of the run back" for s in one.states for mark in ("_0", "_T")}
        program = one
    for d in program.params.values():
        if d.support is not None and d.support.pruning is not None:
            found[safe_name(d.support.mask)] = f"0 where {safe_name(d.name)} is left out; any dtype"
    for s in program.states:
        if s in NOISE:
            found |= {f"{safe_name(s)}{mark}": NOISE[s] for mark in ("_0", "_T")}
            continue
        base, lagged, lag = s.partition(".lag")
        if lag == "s":
            longest, shortest = _line(program, s)
            found[f"{safe_name(s)}_0"] = f"`{base}[t-{longest}]` to `{base}[t-{shortest}]` at the first step, the oldest first"
            found[f"{safe_name(s)}_T"] = f"`{base}[t-{longest}]` to `{base}[t-{shortest}]` at the step after the last"
        elif lagged:
            found[f"{safe_name(s)}_0"] = f"`{base}[t-{lag}]` at the first step"
            found[f"{safe_name(s)}_T"] = f"`{base}[t-{lag}]` at the step after the last"
    return found


def _line(program: Program, state: str) -> tuple[int, int]:
    """The longest and the shortest lag that a delay line holds."""
    length = program.dims[program.states[state].dims[0]].choices[0]
    shortest = 2 if state.removesuffix(".lags") in program.states else 1
    return length + shortest - 1, shortest


def _dims(decl: TensorDecl) -> tuple[str, ...]:
    return tuple(map(_dim, decl.dims))


def _dim(dim: str) -> str:
    if dim.startswith(TWICE):
        return f"{TWICE} * {_dim(dim[1:])}" if dim != TWICE else TWICE
    return dim_name(dim) + "'" * dim.count("'")


def gate_inputs(program: Program, core: Program) -> set[str]:
    """Inputs that stay in fp32 when the others are stored in half precision. core: the program without the products that
    leave the recurrence: an input that reaches a transition through one of these is rounded there anyhow."""
    found = {name for name, d in program.inputs.items() if d.range != ANY and d.leaf_type == "real"}
    for form in (form for component in classify(core) for form in component.forms.values()):
        factors = [f for term in form.terms for f in (*term.outer, *term.inner)]
        curved = [n for n in topological(factors) if holds(n, "curved")]
        found |= {name for n in leaves(curved, "input") if (name := _read_of(program, n)) in program.inputs}
    return found


def _read_of(program: Program, n: Node) -> str:
    """The input of the caller behind a leaf: of two axes, one input is read at several places."""
    name = n.text("name")
    return name if name in program.inputs or program.plane is None else name.partition(".")[0]


# ---- initial values ----


def initial(decl: TensorDecl) -> str | None:
    """A declaration's initial value as a number, or as a torch expression that broadcasts to its axes."""
    if decl.init is None:
        return None
    if decl.init.op == "const" and decl.kind != "param":
        return f"{decl.init.attr('value')}"
    axes = (decl.axes[0], "T", *decl.axes[1:]) if decl.kind == "input" else decl.axes
    made = aligned(_text(decl.init, decl), axes)
    if made.scalar and decl.init.op != "const" and (decl.kind != "param" or decl.default):
        return f"torch.tensor({made.code}, dtype=torch.float64)"  # of sizes: no tensor yet
    return made.code


def filling(decl: TensorDecl) -> tuple[tuple[str, ...], str]:
    """The random values of a param: the name of a function and its arguments, and what becomes of what it draws."""
    fill = decl.fill
    if fill is None:
        return (), ""
    then = "" if fill.then is None else aligned(_text(fill.then, decl), decl.axes).code
    return (fill.name, *(_text(arg, decl).code for arg in fill.args)), then


def _text(root: Node, decl: TensorDecl) -> Text:
    device = ", device=device" if decl.default else ""
    texts: dict[Node, Text] = {}
    for n in topological([root]):
        texts[n] = _initial(n, [texts[a] for a in n.args], device, decl)
    return texts[root]


def _initial(n: Node, args: list[Text], device: str, decl: TensorDecl) -> Text:
    match n.op:
        case "const":
            return number(float(f"{n.attr('value')}"))
        case "size":
            return Text(dim_name(n.text("dim")), scalar=True)
        case "index" if n.text("dim") == TIME:  # along an edge, in the order of the run
            return Text(EDGE_PLACES, n.dims)
        case "index":
            size = dim_name(n.text("dim"))
            return Text(f"torch.arange({size}, dtype=torch.float64{device})", n.dims)
        case "leaf":
            return Text(safe_name(n.text("name")), n.names("shape"))
        case "rename":
            old, new = n.text("old"), n.text("new")
            return Text(args[0].code, tuple(new if d == old else d for d in args[0].axes), args[0].level)
        case "expand":
            return args[0]
    if n.op == "stopgrad":
        return args[0] if args[0].scalar else Text(f"{args[0].at(ATOM)}.detach()", args[0].axes)
    if TABLE[n.op].elementwise and n.op != "surrogate":
        spelling = TABLE[n.op].spell["torch"]
        if all(x.scalar for x in args):
            return filled(number_spelling(n), args)
        made = filled(spelling, [aligned(x, n.dims) for x in args])
        return Text(made.code, n.dims, made.level)
    message = f"the initial value of `{decl.name}` has `{n.op}`, which an emitted file does not compute"
    raise Unsupported.of("initial-value", message, help="give it from outside")


# ---- documentation ----


def documentation(program: Program, plan: Plan, blocks: Mapping[str, Block]) -> list[str]:
    """The lines of the file's docstring: what the spec says of itself, the spec, and the plan of each part."""
    said = textwrap.dedent(program.doc).strip().splitlines() or [program.name]
    lines = [f"{program.name}: {said[0]}", *said[1:], "", "The spec:", ""]
    lines += [f"    {line}".rstrip() for line in statements(program)]
    lines += ["", "How it is computed:", ""]
    if program.direction == "both":
        lines += wrapped("both runs, from the first step on and from the last step back, alike: this is of each", 4, WIDTH)
    for reason in blocks["torch"].reasons:
        if reason.topic in ("class", "eigenvalues"):
            lines += wrapped(f"{reason.subject}: {reason.text}", 4, WIDTH)
    moved = [r for r in plan.told if r.topic == "parallel" and not r.text.startswith("inside")]
    if moved:
        lines.append("    for all steps at once, in plain torch:")
        lines += [line for r in moved for line in wrapped(f"{r.subject}: {r.text}", 8, WIDTH)]
    for part, block in blocks.items():
        planned = [f"{r.subject}: {r.text}" for r in block.reasons if r.topic in ("form", "numerics")]
        lines += [f"    in {TITLES[part]}:", *(line for text in planned for line in wrapped(text, 8, WIDTH))]
    layout = "Inputs and outputs are [B, T, dims], states [B, dims], parameters [dims]; each function says its own."
    return [*lines, "", layout]


def statements(program: Program) -> list[str]:
    """The lines of the spec below its name and documentation."""
    source = program.source
    if program.doc:
        start = source.index(program.doc) + len(program.doc)
        return source[source.index('"""', start) + 3 :].strip("\n").splitlines()
    return [line for line in source.strip("\n").splitlines() if line.split()[:1] != ["spec"]]
