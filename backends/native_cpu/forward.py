"""The forward kernel. In: a `Plan`. Out: its arrays, and its C++ text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from seqc.backends.native_cpu.arrays import SEGMENTS, Array
from seqc.backends.native_cpu.assemble import entry, first_only, opened, panel_lines, pointer, sequence_lines, struct, zeros
from seqc.backends.native_cpu.blocks import joins
from seqc.backends.native_cpu.code import MEMORY, Code, Text, declared, indented, lines_of
from seqc.backends.native_cpu.kernel import KernelWriter
from seqc.backends.native_cpu.lanes import Lanes, lanes_of
from seqc.backends.native_cpu.lanes_text import lanes_text
from seqc.backends.native_cpu.outlined import outlined
from seqc.backends.native_cpu.places import Place, ident, product
from seqc.backends.native_cpu.plan import Plan
from seqc.backends.native_cpu.schedule import Item, maker
from seqc.backends.native_cpu.sparse import packing
from seqc.backends.native_cpu.together import may_be_together, together
from seqc.ir.arguments import argument_table
from seqc.ir.graph import BATCH, Node, leaf, leaves
from seqc.ir.keys import next_key

Guards = dict[str, tuple[str, ...]]  # target -> the indices that are 0 where it is written, and `save`
TIME = "const i64 t = t_0 + way * step;"  # the step's place in the sequence
LARGE = 1 << 20  # bytes of results from which on they are streamed past the caches
TWICE = 270  # lines of a kernel of rows up to which it is compiled twice: to save what backward needs, and not to
STEPS = 2  # computed at each reading of a matrix state, where that takes no further pass over it
AHEAD = 6  # steps ahead of which the inputs of a matrix state are fetched


def call_arrays(plan: Plan, step: bool = False) -> tuple[Array, ...]:
    """The arrays of a call, over a sequence or of one step: inputs, params, initial states, outputs, final states."""
    p = plan.program
    return (
        *(Array(x.name, x.at_step() if step else x.axes) for x in argument_table(p)),
        *(Array(x.name, (BATCH, *["T"] * (not step), *x.dims), written=True) for x in p.output_decls.values()),
        *(Array(f"{x.name}_T", x.axes, written=True) for x in p.states.values()),
    )


def forward_arrays(plan: Plan) -> tuple[Array, ...]:
    """The forward kernel's arrays: those of the call, and what is saved."""
    return (*call_arrays(plan), *saved_arrays(plan, written=True))


def saved_arrays(plan: Plan, written: bool) -> tuple[Array, ...]:
    """What forward keeps for backward: reductions of each step, states before each step or each segment."""
    kept = [
        Array(name, (BATCH, "T", *(d for d in plan.roles.order if d in n.dims and d != BATCH)), written=written, saved=True)
        for name, n in plan.kept.items()
    ]
    time = "T" if plan.every == 1 else SEGMENTS
    states = [plan.program.states[s] for s in plan.saved_states]
    return (*kept, *(Array(f"{s.name}_kept", (BATCH, time, *s.dims), written=written, saved=True) for s in states))


def input_pointers(writer: KernelWriter, arrays: dict[str, Array], roots: list[Node], indent: int) -> list[Code]:
    """Point at this step's rows of every input that a region reads, and note where they lie."""
    lines: list[Code] = []
    for n in leaves(roots, "input"):
        offset = n.number("offset")
        array = arrays[n.text("name")]
        if not offset:
            more, place = pointer(writer, array)
        else:
            name = f"{array.name}_{'p' if offset > 0 else 'm'}{abs(offset)}"
            at = f"t - way * {offset}" if offset > 0 else f"t + way * {-offset}"
            more, place = pointer(writer, array, at, f"({at} >= 0 && {at} < T)", name=name)
        lines += more
        writer.given[n] = place
    return indented(lines, indent)


def fetched(plan: Plan, arrays: Mapping[str, Array], roots: Iterable[Node], steps: int) -> list[Code]:
    """Lines that fetch a program's part of each input so many steps ahead, where states are matrices: one head's rows lie
    apart, and every few of them begin a page, at which the processor's own fetching stops."""
    lines: list[Code] = []
    for name in dict.fromkeys(n.text("name") for n in leaves(roots, "input")) if plan.every > 1 else ():
        array = arrays[name]
        own = [d for d in array.axes if d not in (BATCH, "T", *plan.roles.grid)]
        count = product([f"w_{ident(d)}" if d == plan.roles.panel else f"n_{ident(d)}" for d in own])
        place = f"a.g_{ident(name)} + {array.offset(plan.roles, f't + way * {steps}')}"
        lines.append(f"for (i64 e = 0; e < {count}; e += 64 / size) __builtin_prefetch({place} + e);")
    return indented(lines, 2)


def shifted_zeros(plan: Plan) -> list[str]:
    """Zeros for every input that is read at another step, forward or backward."""
    out, arrays = [], {a.name: a for a in forward_arrays(plan)}
    roots = [x for part in (plan.forward, plan.backward, plan.updates, plan.kept, plan.factors) for x in part.values()]
    for n in leaves(roots, "input"):
        offset = n.number("offset")
        if offset:
            name = f"{n.text('name')}_{'p' if offset > 0 else 'm'}{abs(offset)}"
            out.append(zeros(Array(name, arrays[n.text("name")].axes)))
    return list(dict.fromkeys(out))


def param_pointers(writer: KernelWriter, arrays: dict[str, Array], roots: list[Node]) -> list[Code]:
    """Point at the parameters that any region reads, and note where they lie."""
    lines: list[Code] = []
    for n in leaves(roots, "param"):
        more, writer.given[n] = pointer(writer, arrays[n.text("name")])
        lines += more
    return indented(lines, 1)


def lists(writer: KernelWriter, arrays: dict[str, Array]) -> list[Code]:
    """The lines that pack sparse matrices, by their masks."""
    lines: dict[str, list[Code]] = {}
    masks: dict[str, str] = {}
    for x in writer.listed():
        name = x.matrix.text("name")
        support = writer.plan.program.params[name].support
        assert support is not None
        lines[support.mask], place = pointer(writer, arrays[support.mask])
        masks[name] = place.base
    pack = packing(writer.listed(), writer.given, masks, writer.team)
    return indented([*(line for more in lines.values() for line in more), *pack], 1)


def onward(plan: Plan, way: str, indent: int) -> list[Code]:
    """The direction of a loop over steps, where a step fetches what the next one reads."""
    return indented([declared(f"const i64 onward = {way};", "onward")] if plan.streams else [], indent)


def open_program(plan: Plan, name: str, sequence: bool = True) -> list[Code]:
    """The first lines of a program function's body. sequence: whether there is one to find, or one step."""
    struct_name = f"{name.capitalize()}Scratch"
    lines: list[Code] = [f"  {struct_name}* const memory = scratch<{struct_name}>();"]
    if plan.teams and sequence:
        lines = [f"  if (team.first()) team.common->memory = scratch<{struct_name}>();", "  team.meet();",
                 f"  {struct_name}* const memory = static_cast<{struct_name}*>(team.common->memory);"]
    lines += ["  if (!memory) return 1;", declared(f"  {struct_name}& w = *memory;", "w", takes=MEMORY)]
    joined = joins(plan, name)
    lines += ["  constexpr i64 w_B = wide, z_B = padded(wide);"] * joined
    rows = "block" if joined else "only ? only : block"
    lines += [declared(f"  const i64 m_B = {rows};", "m_B")] if plan.roles.blocked else []
    where = sequence_lines(plan.roles, plan.every) if sequence else []
    if plan.streams and sequence:
        widest = max((x.dims for x in (plan.program.states or plan.program.output_decls).values()), key=len)
        size = product([*(f"n_{ident(d)}" for d in widest), "i64(sizeof(real))"])
        where.append(declared(f"const bool large = rows * {size} > {LARGE};", "large"))
    return lines + indented([*where, *panel_lines(plan.roles)], 1)


@dataclass
class _Ends:
    """What happens to states before the first step, after the last one, and as they are kept: lines and items of each, and
    where a state lies meanwhile."""

    start: list[Code] = field(default_factory=list)
    end: list[Code] = field(default_factory=list)
    keep: list[Code] = field(default_factory=list)
    begin_items: list[Item] = field(default_factory=list)
    end_items: list[Item] = field(default_factory=list)
    keep_items: list[Item] = field(default_factory=list)
    carried: dict[Node, str] = field(default_factory=dict)


def _ends(plan: Plan, writer: KernelWriter, arrays: Mapping[str, Array], guards: Guards) -> _Ends:
    """The states as they come and go. guards: what decides who writes a result; theirs are added."""
    roles, found = plan.roles, _Ends()
    for s in plan.program.states.values():
        local = roles.local(s.axes)
        own = s.leaf()
        writer.buffers[f"s_{ident(s.name)}"] = local
        found.carried[own] = f"w.s_{ident(s.name)}"
        given = leaf("value", f"{s.name}_0", s.axes)
        lines, writer.given[given] = pointer(writer, arrays[f"{s.name}_0"])
        found.start += lines
        found.begin_items.append(Item("out", given, local, f"w.s_{ident(s.name)}"))
        lines, place = pointer(writer, arrays[f"{s.name}_T"])
        found.end += lines
        writer.targets[f"{s.name}_T"] = place
        found.end_items.append(Item("out", own, local, f"{s.name}_T"))
        guards[f"{s.name}_T"] = first_only(roles, s.dims)
    return found


def forward_text(plan: Plan) -> Text:
    """The forward kernel in C++."""
    program, roles = plan.program, plan.roles
    arrays = {a.name: a for a in forward_arrays(plan)}
    writer = KernelWriter(plan, "forward")
    roots = [*plan.forward.values()]
    params = param_pointers(writer, arrays, roots)
    token = [*input_pointers(writer, arrays, roots, 2), *fetched(plan, arrays, roots, AHEAD)]
    guards: Guards = {}
    ends = _ends(plan, writer, arrays, guards)
    results = {**{name: plan.forward[name] for name in program.output_decls}, **plan.kept}
    token += indented(_targets(writer, arrays, results, 0), 2)
    items = _stores(plan, results, 0, guards)
    for name in plan.saved_states:
        s = program.states[name]
        lines, writer.targets[f"{name}_kept"] = pointer(writer, arrays[f"{name}_kept"])
        item = Item("out", s.leaf(), roles.local(s.axes), f"{name}_kept")
        if plan.every == 1:
            token += indented(lines, 2)
            items.append(item)
            guards[f"{name}_kept"] = (*first_only(roles, s.dims), "save")
        else:
            ends.keep += lines
            ends.keep_items.append(item)
    for s in program.states.values():
        items.append(Item("state", plan.forward[next_key(s.name)], roles.local(s.axes), f"w.s_{ident(s.name)}"))

    fixed = writer.invariants(roots)
    writer.add("fixed", [maker(roles, n) for n in fixed])
    writer.given |= {own: writer.place_of(name[2:]) for own, name in ends.carried.items()}
    writer.add("begin", ends.begin_items)
    writer.add("keep", ends.keep_items)
    passes = writer.add("token", items, ends.carried, fixed).passes
    steps, several = _several(writer, arrays, ends.carried, fixed, guards, passes)
    writer.add("end", ends.end_items)
    for stretch in writer.stretches.values():
        stretch.guards = guards
    settle(writer, ends.carried, ("token", "several") if steps > 1 else ("token",))

    body: list[Code] = [
        *open_program(plan, "forward"), *params, *indented(ends.start, 1),
        *writer.region("pack", 1), *lists(writer, arrays), *writer.region("fixed", 1), *writer.region("begin", 1),
        declared("  i64 step = 0;", "step"), *_loops(plan, writer, ends, token, steps, several),
        *indented(ends.end, 1), *writer.region("end", 1), "  return 0;", "}", "",
    ]
    saves = "called" if roles.blocked and len(lines_of(body)) > TWICE else "compiled"
    text = [
        *struct("Forward", tuple(arrays.values())), "", *writer.scratch("ForwardScratch"), "",
        *(["template <bool save>"] if saves == "compiled" else []),
        *outlined([opened(roles, "forward", plan.teams, saves == "called"), *body]),
    ]
    lanes = lanes_of(plan)
    text += in_lanes(writer, lanes)
    text += entry(writer, "forward", tuple(arrays.values()), saves, lanes.instead if lanes else None)
    return Text("\n".join(text), frozenset(writer.mentions))


def in_lanes(writer: KernelWriter, lanes: Lanes | None) -> list[str]:
    """The C++ of what runs in lanes, if anything does."""
    if lanes is None:
        return []
    found = lanes_text(lanes)
    writer.mentions |= found.names
    return [found.text]


def _loops(
    plan: Plan, writer: KernelWriter, ends: _Ends, token: Sequence[Code], steps: int, several: Sequence[Code]
) -> list[Code]:
    """The loop over single steps, and before it the one over `steps` of them at each reading of the state."""
    every, kept, lines = plan.every, list[Code](), list[Code]()
    if ends.keep_items:
        kept = [
            f"    if (save && step % {every} == 0) {{",
            declared(f"      const i64 segment = step / {every}, segments = (T + {every - 1}) / {every};", "segments"),
            *indented(ends.keep, 3), *writer.region("keep", 3), "    }",
        ]
    if steps > 1:
        lines = [
            f"  for (; step + {steps} <= T; step += {steps}) {{  // {steps} steps at each reading of the state",
            f"    {TIME}", *token, *several, *kept,
            *writer.region("several", 2, ("fixed",)), "  }",
        ]
    return [*lines, *onward(plan, "way", 1), "  for (; step < T; ++step) {", f"    {TIME}", *token, *kept,
            *writer.region("token", 2, ("fixed",)), "  }"]


def _later(name: str, step: int) -> str:
    """The name of an array's part at a later step of those that are computed together."""
    return f"{name}_at_{step}" if step else name


def _targets(writer: KernelWriter, arrays: dict[str, Array], results: Iterable[str], step: int) -> list[Code]:
    """Pointers to where a step's results go."""
    found: list[Code] = []
    for name in results:
        lines, writer.targets[_later(name, step)] = _pointer_at(writer, arrays[name], step)
        found += lines
    return found


def _pointer_at(writer: KernelWriter, array: Array, step: int) -> tuple[list[Code], Place]:
    """Lines that point at an array's part at a later step."""
    return pointer(writer, array, f"t + way * {step}" if step else "t", name=_later(array.name, step))


def _stores(plan: Plan, results: Mapping[str, Node], step: int, guards: Guards) -> list[Item]:
    """The items that store a step's results: outputs, and what backward needs."""
    items = []
    for name, n in results.items():
        output = plan.program.output_decls.get(name)
        guards[_later(name, step)] = first_only(plan.roles, output.dims) if output else ("save",)
        items.append(Item("out", n, plan.roles.local(output.axes if output else n.dims), _later(name, step)))
    return items


def _several(
    writer: KernelWriter, arrays: dict[str, Array], carried: dict[Node, str], fixed: list[Node], guards: Guards,
    passes: int,
) -> tuple[int, list[Code]]:
    """Schedule a region of several steps, if it takes as many passes over the states as one step does.

    Answers how many steps (1: no such region), and the pointers that it needs besides those of its first step.
    """
    plan, roles = writer.plan, writer.roles
    if not may_be_together(plan, STEPS):
        return 1, []
    made = together(plan, STEPS)
    pointers: list[Code] = []
    items: list[Item] = []
    seen = [n for r in made.results for n in r.values()]
    for n in leaves([*seen, *made.updates.values()], "input"):
        if n.number("offset"):
            lines, writer.given[n] = _pointer_at(writer, arrays[n.text("name")], -n.number("offset"))
            pointers += lines
    for step, results in enumerate(made.results):
        if step:
            pointers += _targets(writer, arrays, results, step)
        items += _stores(plan, results, step, guards)
    items += [Item("state", made.updates[s.name], roles.local(s.axes), f"w.s_{ident(s.name)}")
              for s in plan.program.states.values()]
    if writer.add("several", items, carried, fixed).passes > passes:
        del writer.stretches["several"]
        return 1, []
    writer.names |= made.names
    writer.lines |= made.lines
    return STEPS, [*indented(pointers, 2), *fetched(plan, arrays, list(plan.forward.values()), AHEAD + 1)]


def first_member(plan: Plan, code: list[Code]) -> list[Code]:
    """What one thread of a team runs."""
    return ["if (team.first()) {", *indented(code, 1), "}", "team.meet();"] if code and plan.teams else code


def settle(writer: KernelWriter, carried: dict[Node, str], token: tuple[str, ...]) -> None:
    """Choose vectors and layouts, then lay out buffers, packed parameters and carried states accordingly.

    carried: state or cotangent leaf -> "w.BUFFER".
    """
    writer.choose(token)
    for name, axes in list(writer.buffers.items()):
        if writer.lane in axes and name not in writer.packed.values():  # those lie as their readers want it
            writer.buffers[name] = (*(d for d in axes if d != writer.lane), str(writer.lane))
    for n, name in carried.items():
        writer.given[n] = writer.place_of(name[2:])
    for name in writer.buffers:
        writer.targets.setdefault(f"w.{name}", writer.place_of(name))
        writer.targets[f"w.{name}"] = writer.place_of(name)
    writer.packing()
