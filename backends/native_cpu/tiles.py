"""Panels, and rows of the batch in a block: what is chosen for a CPU, as a tile problem and as C++ that solves it.

In: a `Plan`. Out: the `Problem` at given extents on a given processor, for the solver, its cross-check and `explain`; and
`tiles_text`, the same problem as `constexpr` C++. Extents are known only when the C++ is built, and so is the processor: the
build tries every value of the one variable, so that the text of a file depends on no machine and suits every one.
Constraints and cost are written once, as expressions; `spelled` prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from seqc.backends.native_cpu.places import ident
from seqc.backends.native_cpu.plan import Plan, plan
from seqc.backends.native_cpu.processors import PROCESSORS, Processor
from seqc.backends.native_cpu.schedule import REDUCTIONS
from seqc.diagnostics import SeqcBug
from seqc.ir.block import Block
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH, Node, leaves, topological
from seqc.solver.expression import CeilDiv, Const, Expr, Most, Name, Product, Sum, ceil_div, most
from seqc.solver.problem import Clash, Constraint, Problem, Variable
from seqc.solver.solve import solve

# panels that a dim may be cut into
COUNTS = (*range(1, 13), 14, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096, 16384, 65536, 1048576)
LANES = 1024  # of a panel at most: its row of a float32 array is a page
ROWS = (4, 2, 1)  # of the batch, that one reading of a matrix may serve
BATCH_ROWS = 8  # of a batch that rows are chosen for
OVERHEAD = 16  # vectors that a panel could have dealt with while its step begins and ends
READ = 2  # a vector of a matrix from the second-level cache, in multiplications and additions of one


@dataclass(frozen=True)
class Wanted:
    """The variable, the constraints and the cost over the facts: extents `n_DIM`, `W` lanes, `size` bytes of a number,
    `l1` bytes of cache, `spare` registers."""

    variable: Variable
    constraints: tuple[Constraint, ...]
    cost: Expr


def wanted(made: Plan) -> Wanted | None:
    """What is to be chosen for a plan; None where its dims leave no choice."""
    if made.roles.blocked:
        return _rows(made)
    return _panels(made) if made.roles.panel is not None else None


def _panels(made: Plan) -> Wanted:
    roles, program = made.roles, made.program
    panel = str(roles.panel)
    width = ceil_div(ceil_div(_extent(panel), Name("W")), Name("panels"))
    widest = max(program.states.values(), key=lambda s: len(s.dims), default=None)
    rest = _volume(d for d in (widest.dims if widest else ()) if d not in roles.grid and d != panel)
    part = rest * width * Name("W") * Name("size")
    tokens = [*program.inputs.values(), *program.output_decls.values()]
    every = [_volume(d for d in x.dims if d not in roles.grid) for x in tokens if panel not in x.dims]
    again = Sum((Const(OVERHEAD), *(ceil_div(x, Name("W")) for x in every)))
    own = rest + sum(panel in x.dims for x in tokens)
    where = f"of {widest.name} " if widest else ""
    return Wanted(
        Variable("panels", COUNTS, f"panels that {panel} is cut into"),
        (
            Constraint(f"a panel's part {where}fills half of the first-level cache at most, or is one vector wide",
                       2 * part, "<=", most(Name("l1"), 2 * rest * Name("W") * Name("size"))),
            Constraint(f"a panel has {LANES} lanes at most", width * Name("W"), "<=", Const(LANES)),
        ),
        Name("panels") * (again + width * own),
    )


def _rows(made: Plan) -> Wanted:
    roles = made.roles
    order = topological(made.forward.values())

    def matrices(below: list[Node]) -> list[Node]:
        return [n for n in leaves(below, "param") if len(roles.local(n.dims)) > 1]

    count = Const(max(sum(n.op in REDUCTIONS and bool(matrices([n])) for n in order), 1))
    shared = [n for n in matrices(list(made.forward.values())) if BATCH not in n.dims]  # not those of one sample each
    volumes = [_volume(roles.local(n.dims)) for n in shared]
    read = Sum((Const(1), *(ceil_div(x, Name("W")) for x in volumes)))
    return Wanted(
        Variable("rows", ROWS, "rows of the batch that one reading of the matrices serves"),
        (Constraint("a sum of every row and matrix has a register", count * Name("rows"), "<=", most(Name("spare"), count)),),
        ceil_div(BATCH_ROWS, Name("rows")) * read * (Name("rows") + READ),
    )


def _extent(dim: str) -> Expr:
    return Name(f"n_{ident(dim)}")


def _volume(dims: Iterable[str]) -> Expr:
    factors = tuple(_extent(d) for d in dims)
    return Product(factors) if len(factors) > 1 else factors[0] if factors else Const(1)


def spare(processor: Processor) -> int:
    """Registers for sums, and for operands that many sums share; the others hold what a step computes in passing."""
    return processor.registers * 3 // 4


def tile_problem(made: Plan, sizes: Mapping[str, int], processor: Processor, size: int = 4) -> Problem | None:
    """The problem at these extents on that processor, for numbers of `size` bytes; facts are variables of one value."""
    found = wanted(made)
    if found is None:
        return None
    facts = {f"n_{ident(d)}": sizes[unprimed(d)] for d in (*made.roles.order[1:], *made.roles.sized)}
    facts |= {"W": processor.vector // size, "size": size, "l1": processor.l1, "spare": spare(processor)}
    given = tuple(Variable(name, (value,)) for name, value in facts.items())
    name = f"native {made.program.name} on {processor.name}"
    return Problem(name, (found.variable, *given), found.constraints, found.cost)


def choices(block: Block, sizes: Mapping[str, int]) -> dict[str, str]:
    """Kind of processor -> what the build chooses there for float32, and what binds it, in words."""
    made, found = plan(block), {}
    for processor in PROCESSORS:
        problem = tile_problem(made, sizes, processor)
        if problem is None:
            continue
        answer = solve(problem)
        if isinstance(answer, Clash):
            raise SeqcBug("the tiles of native code", f"one value always fits, but {answer.sentences}")
        count = answer[problem.variables[0].name]
        if made.roles.blocked:
            words = f"{count} rows of the batch a block"
        else:
            panel, lanes = str(made.roles.panel), processor.vector // 4
            width = ceil(ceil(sizes[panel] / lanes) / count) * lanes
            words = f"{panel} in {count} panels of {width} lanes" if count > 1 else f"{panel} in one panel of {width} lanes"
        limit = f"binds: {answer.binding[0].sentence}" if answer.binding else "no limit binds: of all choices it costs least"
        found[processor.name] = f"{words}; {limit}"
    return found


def tiles_text(made: Plan) -> list[str]:
    """The choice as C++: `chosen_panels` or `chosen_rows`, from the facts as constants of those names."""
    found = wanted(made)
    if found is None:
        return []
    name = found.variable.name
    holds = "\n      && ".join(f"{spelled(c.left)} {c.relation} {spelled(c.right)}" for c in found.constraints)
    lines = [f"// The {found.variable.meaning}: the least cost of those that fit, tried one by one."]
    lines += [f"// - {c.sentence}" for c in found.constraints]
    return [
        *lines,
        f"constexpr bool fits(i64 {name}) {{\n  return {holds};\n}}",
        f"constexpr i64 cost(i64 {name}) {{\n  return {spelled(found.cost)};\n}}",
        "constexpr i64 least() {",
        "  i64 best = 0;",
        f"  constexpr i64 domain[] = {{{', '.join(map(str, found.variable.domain))}}};",
        "  for (i64 x : domain)",
        "    if (fits(x) && (!best || cost(x) < cost(best))) best = x;",
        "  return best;",
        "}",
        f"constexpr i64 chosen_{name} = least();",
        f'static_assert(chosen_{name} > 0, "no choice fits");',
    ]


def processor_text() -> list[str]:
    """The facts of the processor that the C++ is built for."""
    lines = ["// The processor: bytes of its first-level cache, and the vector registers that sums may fill."]
    for i, p in enumerate(PROCESSORS):
        lines.append(f"#{'el' if i else ''}if defined({p.macro})  // {p.name}" if p.macro else f"#else  // {p.name}")
        lines.append(f"constexpr i64 usual_l1 = {p.l1}, spare = {spare(p)};")
    return [*lines, "#endif", "#ifndef SEQC_L1", "#define SEQC_L1 usual_l1", "#endif",
            "constexpr i64 l1 = SEQC_L1, size = sizeof(real);"]


def spelled(expr: Expr) -> str:
    """An expression in C++."""
    match expr:
        case Const(value):
            return str(value)
        case Name(name):
            return name
        case Sum(parts):
            return f"({' + '.join(map(spelled, parts))})"
        case Product(parts):
            return " * ".join(map(spelled, parts))
        case CeilDiv(dividend, divisor):
            return f"quotient({spelled(dividend)}, {spelled(divisor)})"
        case Most(parts):
            return f"std::max<i64>({', '.join(map(spelled, parts))})"
    raise TypeError(f"no C++ for {expr!r}")
