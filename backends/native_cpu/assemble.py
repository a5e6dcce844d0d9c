"""What forward and backward kernels have in common: pointers, sizes, and the loop over programs.

In: a `Plan` and a `KernelWriter`. Out: lines of C++.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from seqc.backends.native_cpu.arrays import PANELS, SEGMENTS, Array
from seqc.backends.native_cpu.blocks import BUILT, WIDE, joins
from seqc.backends.native_cpu.code import OBJECT, POINTER, VALUE, Code, Declared, declared
from seqc.backends.native_cpu.kernel import KernelWriter
from seqc.backends.native_cpu.places import Place, filled, ident, product
from seqc.backends.native_cpu.plan import Plan
from seqc.backends.native_cpu.roles import Roles
from seqc.backends.native_cpu.tiles import tiles_text
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH

ALWAYS = ["constexpr bool serves(i64) { return true; }"]
NOT_BUILT = 2  # what a kernel answers for a batch that its library is not for
PARALLEL = "#pragma omp parallel for num_threads(int(threads)) schedule(dynamic) reduction(| : failed)"


def sizes_text(plan: Plan) -> list[str]:
    """The extents of all dims, from the macros SEQC_DIM_NAME that the build defines."""
    roles = plan.roles
    lines = []
    for d in roles.order[1:]:
        i = ident(d)
        macro = f"SEQC_DIM_{ident(unprimed(d))}"
        lines.append(f"constexpr i64 n_{i} = {macro};")
        if d not in roles.grid and d != roles.panel:
            lines.append(f"constexpr i64 w_{i} = n_{i}, m_{i} = n_{i}, z_{i} = padded(n_{i});")
        if d not in roles.grid and d != roles.panel:
            lines.append(f"constexpr bool e_{i} = n_{i} % W == 0;")
    lines += [f"constexpr i64 n_{ident(d)} = SEQC_DIM_{ident(unprimed(d))};" for d in roles.sized]
    lines += tiles_text(plan)
    lines += BUILT if roles.blocked else ALWAYS
    lines += WIDE if joins(plan, "forward") or joins(plan, "backward") else []
    panel = roles.panel
    if panel is None:
        return [*lines, "constexpr i64 panels = 1;"]
    i = ident(panel)
    return [
        *lines,
        f"constexpr i64 w_{i} = W * quotient(chunks(n_{i}), chosen_panels), z_{i} = w_{i};",
        f"constexpr i64 panels = quotient(n_{i}, w_{i});",
        f"constexpr bool e_{i} = n_{i} % w_{i} == 0;  // every panel is full",
    ]


def struct(name: str, arrays: Sequence[Array]) -> list[str]:
    """The struct of a kernel's arrays, in the order in which the caller passes them."""
    lines = [f"struct {name} {{"]
    for written, own in groupby(arrays, lambda a: a.written):
        lines += filled("real" if written else "const real", (f"*g_{ident(a.name)}" for a in own))
    return [*lines, "};"]


def lead(roles: Roles, dims: Iterable[str], batched: bool) -> tuple[str, ...]:
    """Leading axes of an array of contributions: the programs' dims that its tensor lacks."""
    have = set(dims)
    out = [d for d in roles.grid if d not in have and d != BATCH]
    if not batched:
        out.append(BATCH)
    if roles.panel is not None and roles.panel not in have:
        out.append(PANELS)
    return tuple(out)


def first_only(roles: Roles, dims: Iterable[str]) -> tuple[str, ...]:
    """The indices that are 0 in the first program of those that share a tensor; none if none share it."""
    have = set(dims)
    shared = roles.panel is not None and roles.panel not in have
    return (*(f"i_{ident(d)}" for d in roles.grid if d != BATCH and d not in have), *(["panel"] if shared else []))


def pointer(
    writer: KernelWriter, array: Array, time: str = "t", when: str = "", alone: bool = True, name: str = ""
) -> tuple[list[Code], Place]:
    """Lines that point `p_NAME` at a program's part, and the place there. when: where false, zeros are read instead; alone:
    whether no other array can lie in the same memory; name: that of the pointer, where it is not the array's."""
    roles = writer.roles
    kind = "real*" if array.written else "const real*"
    offset = array.offset(roles, time)
    base = f"p_{ident(name or array.name)}"
    address = f"a.g_{ident(array.name)}" + ("" if offset == "0" else f" + {offset}")
    place = array.place(roles, base)
    if "T" in array.axes and writer.streams:
        step = product([array.extent(i) for i in range(array.axes.index("T") + 1, len(array.axes))])
        place = replace(place, ahead=f"onward * ({step})")
    if not when:
        line = f"{kind}{' __restrict' if alone else ''} const {base} = {address};"
        return [declared(line, base, takes=POINTER if alone else VALUE)], place
    zeros = f"zeros_{ident(name or array.name)}"
    lines: list[Code] = [declared(f"{kind} __restrict const {base} = {when} ? {address} : {zeros};", base, takes=POINTER)]
    if BATCH in place.strides:
        row = f"row_{ident(name or array.name)}"
        lines.append(declared(f"const i64 {row} = {when} ? {product(list(place.strides[BATCH]))} : 0;", row))
        place = replace(place, strides={**place.strides, BATCH: (row,)})
    return lines, place


def zeros(array: Array) -> str:
    """The zeros that stand for an array outside of the sequence, or of the first program."""
    dims = [f"n_{ident(d)}" for d in array.axes if d not in (BATCH, "T", SEGMENTS, PANELS)]
    return f"alignas(64) const real zeros_{ident(array.name)}[{product(dims)}] = {{}};"


def opened(roles: Roles, title: str, team: bool = False, save: bool = False) -> Declared:
    """The head of a program function: its parameters say which program it is; of a team's, and who runs it with us; and
    whether to save, where that is not compiled in."""
    place = [*(["o_B", "block"] if roles.blocked else ["i_B"]), *(f"i_{ident(d)}" for d in roles.grid if d != BATCH), "panel"]
    objects = {"a": title.capitalize(), "call": "Call", **({"team": "Team"} if team else {})}
    a, call, *rest = (f"const {kind}& {name}" for name, kind in objects.items())
    given = ", ".join([a, call, *(f"i64 {name}" for name in place), *rest, *(["bool save"] if save else [])])
    takes = {**dict.fromkeys(objects, OBJECT), **dict.fromkeys(place, VALUE), **({"save": VALUE} if save else {})}
    return Declared(f"int {title}_program({given}) {{", takes)


def sequence_lines(roles: Roles, every: int) -> list[Code]:
    """Where the program's sequence lies; t of a step is its place in the sequence."""
    i = "o_B" if roles.blocked else "i_B"
    return [
        declared(f"const i64 B = call.B, T = call.steps({i}), rows = call.rows(), way = call.way;", "B", "T", "rows", "way"),
        f"const i64 row = call.row({i}), segment_0 = call.segment({i}, {every}), t_0 = way > 0 ? 0 : T - 1;",
    ]


def panel_lines(roles: Roles) -> list[Code]:
    """Where the program's panel begins and how much of it lies inside."""
    if roles.panel is None:
        return []
    i = ident(roles.panel)
    return [declared(f"const i64 o_{i} = panel * w_{i}, m_{i} = std::min(w_{i}, n_{i} - o_{i});", f"o_{i}", f"m_{i}")]


def _work(plan: Plan) -> str:
    """Elements of states and matrices that a row's step touches."""
    used = set(plan.roles.order)
    matrices = [p for p in plan.program.params.values() if plan.roles.blocked and len(p.dims) > 1 and set(p.dims) <= used]
    found = Counter(product([f"n_{ident(d)}" for d in x.dims]) for x in (*plan.program.states.values(), *matrices))
    terms = [term if many == 1 else f"{many} * {term}" for term, many in found.items()]
    return " + ".join(terms) or product([f"n_{ident(d)}" for d in plan.roles.order[1:] if "'" not in d])


def entry(
    writer: KernelWriter, name: str, arrays: Sequence[Array], saves: str = "", instead: tuple[str, str] | None = None
) -> list[str]:
    """`seqc_NAME`: the loop over all programs. saves: how the choice to keep what backward needs reaches a program, if there is
    one: "compiled" (there is a program for each) or "called" (it is an argument). instead: a condition, and what then runs in
    the place of a program, with all threads where there is but one."""
    plan, roles = writer.plan, writer.roles
    title = name.capitalize()
    writer.mentions |= {"streamed"} if plan.streams and name != "step" else set()
    dims = [d for d in roles.grid if d != BATCH]
    extent = product(["blocks" if roles.blocked else "B", *(f"n_{ident(d)}" for d in dims), "panels"])
    lines = [
        "}  // namespace", "",
        f'extern "C" int seqc_{name}(',
        "    i64 B, i64 T, i64 way, const i64* bounds, i64 threads, i64 save, void* const* arrays) {",
        "  const Call call{B, T, way, bounds};",
        f"  {title} a;",
        "  std::memcpy(&a, arrays, sizeof a);  // pointers, in this order",
    ]
    joined = f", several ? threads : 1, {product([*(f'n_{ident(d)}' for d in dims), 'panels'])}" if joins(plan, name) else ""
    lines += [f"  const bool several = threads > 1 && call.rows() * ({_work(plan)}) > 1048576;  // else one thread is faster"]
    if roles.blocked:
        lines += [
            f"  const Blocks parts(bounds ? 0 : B{joined});",
            "  const i64 blocks = bounds ? B : parts.all();  // a sequence of a pack is a block of one row",
            f"  if (!serves(bounds ? 1 : B)) return {NOT_BUILT};",
        ]
    lines.append(f"  const i64 programs = {extent};")
    body = [*_where(plan), *_run(plan, name, saves, instead)]
    shared = "several && programs > 1" if instead else "several"
    if not plan.teams or name == "step":
        return [*lines, "  int failed = 0;", f"{PARALLEL} if ({shared})",
                "  for (i64 program = 0; program < programs; ++program) {", *body, "  }", "  return failed;", "}"]
    writer.mentions.add("Team")
    return [
        *lines, "  const auto run = [&](i64 program, const Team& team) __attribute__((noinline)) {",
        "    int failed = 0;", *body, "    return failed;", "  };",
        f"  constexpr bool wide = {_work(plan)} > 131072;  // whether a step is worth several meetings of threads",
        "  return run_programs(programs, several ? threads : 1, wide, run);", "}",
    ]


def _where(plan: Plan) -> list[str]:
    """Which part of the work a program's number stands for."""
    found, below = ["panel = program % panels"], "panels"
    for d in reversed([d for d in plan.roles.grid if d != BATCH]):
        found.append(f"i_{ident(d)} = program / {below} % n_{ident(d)}")
        below = f"({below.strip('()')} * n_{ident(d)})"
    return filled("const i64", [*found, f"rest = program / {below}"], 4)


def _run(plan: Plan, name: str, saves: str, instead: tuple[str, str] | None) -> list[str]:
    """Call the program function for a block of rows, or for one row, or what runs instead."""
    roles = plan.roles
    team = ["team"] if plan.teams and name != "step" else []
    last = ["save"] if saves == "called" else []
    indices = ", ".join([*(f"i_{ident(d)}" for d in roles.grid if d != BATCH), "panel", *team, *last])

    special = f"{instead[0]} ? ({instead[1]}) : " if instead else ""

    start = "parts.first(rest), parts.rows(rest)" if roles.blocked else "rest"
    flags = ("<true>", "<false>") if saves == "compiled" else ("",)
    found = [f"{name}_program{flag}(a, call, {start}, {indices})" for flag in flags]
    lines = [f"    failed |= {special}{f'(save ? {found[0]} : {found[1]})' if len(found) == 2 else found[0]};"]
    return [*lines, "    streamed();"] if plan.streams and name != "step" else lines
