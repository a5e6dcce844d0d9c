"""From syntax tree to program: the step graph of one time step, with everything that the spec declares.

In: a path, a text or a tree. Out: a `Program`, or `SpecError` with every mistake in source order (`Unsupported` where
the spec is right but asks for what no later stage serves). This module puts the parts together; names, expressions and
statements are read by the `build_*` modules. It proves nothing and chooses nothing.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path

from seqc.analysis import noise
from seqc.diagnostics import Diagnostic, Label, Source, raise_if_any
from seqc.frontend import syntax
from seqc.frontend.boundaries import hooks
from seqc.frontend.closed_loops import closed
from seqc.frontend.declared import axes, checked, fits
from seqc.frontend.delay_lines import long
from seqc.frontend.expressions import Elaborator
from seqc.frontend.fills import fill, fills
from seqc.frontend.indexing import declared_index, index_range
from seqc.frontend.lint import unused_dims, warnings
from seqc.frontend.noise import sites, states_read
from seqc.frontend.parse import parse_with_errors
from seqc.frontend.planes import on_plane
from seqc.frontend.positions import read_whole
from seqc.frontend.rates import counting as slow_counts
from seqc.frontend.scope import Scope, gather
from seqc.frontend.sources import read
from seqc.frontend.sparsity import sparse_params
from seqc.frontend.square_matrices import identity_of
from seqc.frontend.statements import claims, direction, interval, wishes
from seqc.frontend.syntax import Decl
from seqc.frontend.trees import walk
from seqc.frontend.values import Value, part_names, shown
from seqc.ir.arguments import ROLES
from seqc.ir.both_ways import both_runs
from seqc.ir.dims import unprimed
from seqc.ir.graph import Node, const
from seqc.ir.intervals import ANY
from seqc.ir.program import Loop, Program, TensorDecl
from seqc.ir.traverse import postorder


def load(path_or_text: str | Path, sizes: Mapping[str, int] = {}) -> Program:
    """The program of a `.seq` file, of a shipped spec by its name, or of a text. Raises SpecError or Unsupported.

    sizes: of dims that the text leaves open.
    """
    return built(read(path_or_text), sizes)


def built(source: Source, sizes: Mapping[str, int] = {}) -> Program:
    """The program of a text that was read, as if it gave these sizes to its open dims. Raises SpecError or Unsupported."""
    parsed = parse_with_errors(source)
    told = (_with_sizes(s, sizes) if isinstance(s, syntax.Dims) else s for s in parsed.spec.statements)
    return build(replace(parsed.spec, statements=tuple(told)), parsed.found, parsed.lost)


def _with_sizes(statement: syntax.Dims, sizes: Mapping[str, int]) -> syntax.Dims:
    """The line with sizes for the dims that it leaves open."""
    def told(item: syntax.DimItem) -> syntax.DimItem:
        opened = item.default is None and item.sizes is None and item.lo is None and sizes.get(item.name.id, 0) > 0
        return replace(item, default=sizes[item.name.id]) if opened else item

    return replace(statement, items=tuple(map(told, statement.items)))


def build(
    spec: syntax.Spec, found: tuple[Diagnostic, ...] = (), lost: frozenset[str] = frozenset(),
    lines: Mapping[str, int] | None = None, positions: Mapping[str, str] = {}, fed: tuple[str, ...] = (),
    whole: frozenset[tuple[Node, str]] = frozenset(),
) -> Program:
    """The program of a tree. `found`: mistakes that parsing has left; `lost`: words of the lines that it gave up.

    lines: names whose lags are one state, with the longest; None where that must be found first. positions: names whose values
    must tell positions, with the dim. fed: inputs that a closed loop has made definitions. whole: nodes that are computed at
    all positions of a dim at once.
    """
    scope = gather(spec, lost)
    scope.found.extend(found)
    scope.positions, scope.fed, scope.whole = positions, fed, whole
    title = _title(scope, spec)
    work = Elaborator(scope, lines or {})
    work.sites = sites(scope, spec)
    for name in scope.consts:
        work.constant(name)
    for name in _ordered(scope):
        work.current(name, scope.defines[name].span)
    declared = {"input": scope.inputs, "param": scope.params, "state": scope.states}
    inputs, params, states = (_tensors(work, kind, decls) for kind, decls in declared.items())
    updates = {part: node for name in scope.states for part, node in _update(work, name).items()}
    counting = hooks(work, spec)
    updates |= work.replaced
    output_decls, outputs = _outputs(work)
    _has_ends(scope, bool(inputs), bool(outputs or states))
    said = claims(scope, spec), wishes(scope, spec)
    way, joined = direction(scope, spec)
    params = sparse_params(scope, spec, params, [*outputs.values(), *updates.values()])
    raise_if_any(scope.found)
    if lines is None and (deep := long(scope, work.deepest)):
        return build(spec, found, lost, deep, positions, fed)
    if not whole and (wholes := read_whole(scope)):
        return build(spec, found, lost, lines, positions, fed, wholes)
    for decl, newest in _hidden(work, states, counting):
        states[decl.name], updates[decl.name] = decl, newest
    one = Program(
        name=title.name.id if title else "",
        doc=(title.doc or "") if title else "",
        dims=scope.dims,
        inputs=inputs, params=params, states=states, output_decls=output_decls,
        updates=updates,
        outputs=outputs,
        claims=said[0],
        wishes=said[1],
        direction="forward" if way == "both" else way,
        spans=work.spans,
        definitions=work.definitions,
        source=spec.source.text,
        path=spec.source.name,
    )
    _sized(scope, one.told, frozenset(unused_dims(spec, scope)))
    _keywords(scope, spec, bool(work.once))
    one = on_plane(work, spec, one) if scope.second else one
    raise_if_any(scope.found)
    one = replace(one, loop=_closed_loop(work, spec, lost), warnings=warnings(spec, scope, one))
    return both_runs(one, "sum" in joined, "shared" in joined) if way == "both" else one


def _hidden(
    work: Elaborator, states: Mapping[str, TensorDecl], counting: Mapping[str, tuple[TensorDecl, Node]]
) -> list[tuple[TensorDecl, Node]]:
    """The states that no line declares, with their new values: longer lags, counts of boundaries and of rates, and of noise."""
    lagged = [one for name in work.deepest for one in work.hidden(name, states)]
    drawn = noise.hidden(states_read(work.once), work.scope.beside)
    return [*lagged, *counting.values(), *slow_counts(work.scope).values(), *drawn.values()]


def _has_ends(scope: Scope, inputs: bool, results: bool) -> None:
    """Report a spec that gives nothing, or takes nothing; of one with other mistakes nothing is told."""
    wrong = any(diagnostic.kind != "warning" for diagnostic in scope.found)
    if not results and not wrong:
        scope.report("nothing-to-do", "the spec has no output and no state", help="add `output NAME = ...`")
    if not inputs and not wrong:
        scope.report("no-input", "the spec has no input: nothing says how many steps there are", help="add `input NAME`")


def _closed_loop(work: Elaborator, spec: syntax.Spec, lost: frozenset[str]) -> Loop | None:
    """The program of what the spec says by `feedback`; None where it says nothing."""
    found = closed(work, spec)
    raise_if_any(work.scope.found)
    if found is None:
        return None
    program = build(found.spec, (), lost, positions=found.positions, fed=tuple(found.fed))
    pairs = ((part_names(x, (two := work.scope.inputs[x].is_complex)), part_names(name, two)) for x, name in found.fed.items())
    fed = {x: name for own, names in pairs for x, name in zip(own, names, strict=True)}
    return Loop(replace(program, name=f"{program.name}_loop", warnings=()), found.given, fed)


def _sized(scope: Scope, told: Container[str], unused: Container[str]) -> None:
    """Report the open dims whose size no call tells."""
    for name, decl in scope.dims.items():
        if name not in told and decl.default is None:
            message = f"nothing tells the size of the dim `{name}`"
            cause = "a call reads sizes from inputs and params, and none has this dim"
            label, help = Label(scope.places[name], "open"), f"write `dim {name} = 64`, or compile with `dims`"
            if name in unused:
                message, cause, help = f"nothing has the dim `{name}`", "", "leave it out"
            scope.report("unsized-dim", message, label, cause=cause, help=help)


def _keywords(scope: Scope, spec: syntax.Spec, noisy: bool) -> None:
    """Report arguments that are called like one which noise or a closed loop adds to a call."""
    added = {"seed": "noise: a call takes its `seed`"} if noisy else {}
    if any(isinstance(statement, syntax.Feedback) for statement in spec.statements):
        words = "a feedback: `generate` takes `steps`, `given` and `cu_prompts`"
        added |= dict.fromkeys(("steps", "given", "cu_prompts"), words)
    for name in (*scope.inputs, *scope.params):
        if name in added:
            label = Label(scope.places[name], "this name is taken")
            message = f"`{name}` cannot be declared beside {added[name]}"
            scope.report("reserved-name", message, label, help="rename it")


def _ordered(scope: Scope) -> list[str]:
    """The definitions, each after those that it reads as far as there are no cycles: elaboration stays shallow."""

    def reads(name: str) -> list[str]:
        expr = scope.defines[name].expr
        names = [part.id for part in walk(expr) if isinstance(part, syntax.Name)] if expr else []
        return [read for read in names if read in scope.defines]

    return postorder(scope.defines, reads)


def _title(scope: Scope, spec: syntax.Spec) -> syntax.SpecName | None:
    titles = [statement for statement in spec.statements if isinstance(statement, syntax.SpecName)]
    if not titles and "spec" not in scope.lost:
        scope.report("no-name", "the spec has no name", help='begin with `spec NAME`, and its mathematics in `"""`')
    if len(titles) > 1:
        first = Label(titles[0].name.span, "first named here")
        scope.report("said-twice", "a file holds one spec", Label(titles[1].name.span, "named again"), first)
    return titles[0] if titles else None


def _tensors(work: Elaborator, kind: str, decls: Mapping[str, Decl]) -> dict[str, TensorDecl]:
    """The declarations as the program keeps them: a complex one is two."""
    return {found.name: found for decl in decls.values() for found in _tensor(work, kind, decl)}


def _tensor(work: Elaborator, kind: str, decl: Decl) -> list[TensorDecl]:
    """A declaration with its range and its initial value."""
    bounds = interval(work.scope, decl.interval) if decl.interval is not None else None
    inits: tuple[Node | None, ...] = (const(0.0),) * 2 if kind == "state" else (None, None)
    random = kind == "param" and fills(work.scope, decl)
    filled = fill(work, decl) if random else None
    if decl.value is not None and not random:
        value = work.top(decl.value, "init" if ROLES[decl.role].gradient else "const")
        if value is not None and fits(work.scope, decl, value, decl.value):
            value = checked(work.scope, decl.name.id, axes(decl), value, decl.value, exact=False)
        inits = value.pair if value is not None else (None, None)
    if decl.definite and decl.value is None and ROLES[decl.role].leaf == "param":
        inits = (identity_of(axes(decl)),)
    unit = tuple(dim.id for dim in decl.unit or ())
    declared_index(work.scope, decl)
    if kind == "input":
        bounds = bounds or index_range(work.scope, decl)
    allowed, places = bounds or ANY, decl.places.id if decl.places and kind == "input" else ""
    return [
        TensorDecl(
            name, kind, axes(decl), allowed, unit, decl.definite, init, decl.per_batch, role=decl.role, places=places,
            fill=filled)
        for name, init in zip(part_names(decl.name.id, decl.is_complex), inits, strict=False)
    ]


def _update(work: Elaborator, name: str) -> dict[str, Node]:
    """The new value of a state, part by part; reports a state that gets none."""
    scope, decl = work.scope, work.scope.states[name]
    if name not in scope.defines:
        if name not in scope.lost:
            label = Label(decl.span, "declared here")
            alike = (name.lower(), *(f"{name.lower()}_{word}" for word in ("t", "new", "next")))
            meant = [define for define in scope.defines if define.lower() in alike]
            there = f"`{meant[0]}` is defined: write `{name} = ...`" if meant else ""
            help = there or f"add its new value: `{name} = ...`"
            scope.report("no-update", f"the state `{name}` is never given a new value", label, help=help)
        return {}
    value = work.current(name, decl.span)
    return {} if value is None else dict(zip(part_names(name, decl.is_complex), value.pair, strict=False))


def _outputs(work: Elaborator) -> tuple[dict[str, TensorDecl], dict[str, Node]]:
    """Outputs in source order: dims as declared, as the state of that name has them, or in the order of the value."""
    scope = work.scope
    decls: dict[str, TensorDecl] = {}
    nodes: dict[str, Node] = {}
    for name, output in scope.outputs.items():
        if name not in scope.defines:
            if name in scope.inputs or name in scope.params or name in scope.consts:
                label = Label(output.name.span, "not computed in the step")
                scope.report("not-an-output", f"`{name}` is declared, not defined", label, help="output a definition")
            elif name not in scope.states:
                scope.unknown("name", output.name, [*scope.defines, *scope.states])
            continue
        value = work.current(name, output.span)
        if value is None:
            continue
        order = _order(scope, output, value)
        for part, node in zip(part_names(name, value.imag is not None), value.parts, strict=True):
            if part != name and (part in decls or part in scope.outputs):
                label = Label(output.name.span, f"has the parts {name}_re and {name}_im")
                scope.report("reserved-name", f"two results would be called `{part}`", label, help="rename one of the two")
            decls[part] = TensorDecl(part, "output", order)
            nodes[part] = node
    return decls, nodes


def _order(scope: Scope, output: syntax.Output, value: Value) -> tuple[str, ...]:
    """The order of an output's dims: as written, as its value has them, else, with a warning, that of the `dim` statements."""
    declared = value.declared_order()
    if declared is not None:
        return declared
    places = {dim: i for i, dim in enumerate(scope.dims)}
    order = tuple(sorted(value.order, key=lambda dim: (places[unprimed(dim)], dim)))
    if order != value.order:
        message = f"`{output.name.id}` has its dims in the order of the `dim` statements: {shown(order)}"
        cause = f"no declaration says how these dims follow each other; read from left to right they are {value.shown()}"
        label = Label(output.name.span, "no order is written")
        help = f"write it: `output {output.name.id}{shown(order)}`"
        scope.warn("output-order", message, label, cause=cause, help=help)
    return order
