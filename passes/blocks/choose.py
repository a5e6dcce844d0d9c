"""program -> its forward block: the form and number of rows with the least modelled time, and why no other was taken.

Needs: classify, ranges. Gives: `Offers`, then the `Candidate` chosen among them. For every number of rows that the spec's
`schedule` allows, each linear component takes the form (chunkwise, scan) that costs least; what cannot be lowered says
why; what can is priced by `seqc.analysis.cost` at nominal extents. Step form is always possible, and the only one where a
component is nonlinear, dense or coupled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf

from seqc.analysis.component import Component
from seqc.analysis.cost import cost
from seqc.analysis.workload import lane, nominal_sizes
from seqc.diagnostics import Label, Unsupported
from seqc.ir.block import COL, ROW, Reason, free_dims
from seqc.ir.dims import LONGEST, PIECE, is_rank
from seqc.ir.graph import BATCH, Node, topological
from seqc.ir.intervals import Interval
from seqc.ir.once import found_once
from seqc.ir.program import Program
from seqc.passes.blocks.alone import FORMS, LINEAR, prices
from seqc.passes.blocks.form import BlockForm
from seqc.passes.blocks.joined import joined
from seqc.passes.blocks.lift import NotBlock
from seqc.passes.blocks.selecting import settled
from seqc.passes.simplify.simplify import simplify_named

LANES = 64  # indices of the lane that a program holds at most
CHUNKS = (16, 32, 64)  # 128 rows spill on every target asked; a spec may still wish for them
SCAN_ROWS = 64
FEWER_ROWS = (32, 16)  # of a scan, where tiles of 64 may be too large: its form is chosen by what 64 rows cost


@dataclass(frozen=True)
class Machine:
    """What a sequential block costs beside its operations, in elementwise operations that fit in its latency.

    step_latency: of one time step in step form; block_latency: of one block of a scan or chunk form. programs: whether
    the indices of dims that nothing mixes run as programs of their own, so that the time is that of one of them.
    largest: elements of the largest value that a program can hold.
    """

    name: str
    step_latency: float
    block_latency: float
    programs: bool
    largest: float


GPU = Machine("gpu", 3.0e4, 1.5e5, programs=True, largest=2.0**14)  # one multiprocessor: registers hold the tiles
EAGER = Machine("eager torch", 1.0e6, 1.0e5, programs=False, largest=inf)  # tens of calls a step, a few a block


@dataclass(frozen=True)
class Candidate:
    """One way to run the program: modelled time per token, and the lowered forward graph."""

    form: str
    rows: int
    forms: Mapping[str, str]
    forward: Mapping[str, Node]
    reasons: tuple[Reason, ...]
    time: float
    names: Mapping[Node, str]


@dataclass(frozen=True)
class Offers:
    """The step form, the block forms that the recurrence can take, and why it cannot take others.

    unasked: why step form was asked for, where the spec does not and a component has no block form.
    """

    step: Candidate
    blocks: tuple[Candidate, ...]
    refused: tuple[NotBlock, ...]
    unasked: str = ""


def block_forms(
    program: Program, components: tuple[Component, ...], ranges: Mapping[Node, Interval],
    form: str | None = None, rows: int | None = None, machine: Machine = GPU,
) -> Offers:
    """Every form that the recurrence can take, priced. form, rows: wishes of the caller; else those of the spec.

    Raises Unsupported when a wished form is impossible, with the term that stands in its way.
    """
    wanted = form or program.wishes.form
    refused: list[NotBlock] = []
    found = list(_blocks(program, components, ranges, rows, machine, refused)) if wanted != "step" else []
    if wanted not in (None, "step"):
        found = [c for c in found if c.form == wanted]
        if not found:
            raise _impossible(program, components, wanted, refused, asked_here=form is None)
    graph, names = _step(program)
    step = Candidate("step", 1, {}, graph, (), _time(program, graph, 1, machine), names)
    closed = (f"{', '.join(c.states)}: {c.kind}: {c.why}" for c in components if c.kind in ("nonlinear", "dense"))
    unasked = next(closed, "") if wanted == "step" and program.wishes.form is None else ""
    return Offers(step, tuple(found), tuple(refused), unasked)


def _impossible(
    program: Program, components: tuple[Component, ...], wanted: str, refused: list[NotBlock], asked_here: bool
) -> Unsupported:
    """Why a wished form cannot be had: the wish, where the spec has it, and the line that stands in its way."""
    labels = []
    if asked_here and program.wishes.span is not None:
        labels.append(Label(program.wishes.span, "asked for here"))
    why = f"no component of the program takes it as {wanted}"
    if refused:
        why = str(refused[0])
        at = next((c.at for c in components if refused[0].state in c.states and c.at in program.spans), None)
        term = at if at is not None else program.updates.get(refused[0].state)
        if term is not None and term in program.spans:
            labels.append(Label(program.spans[term], "this stands in the way"))
    message = f"the recurrence cannot run as {wanted}: {why}"
    return Unsupported.of("no-such-form", message, tuple(labels), help="leave the form to the compiler")


def choose_form(program: Program, offers: Offers, form: str | None = None) -> Candidate:
    """The offer with the least modelled time, of the wished form where there is a wish; its reasons say why."""
    return _explained(_best(program, offers, form), offers)


def same_form(chosen: Candidate, offers: Offers) -> tuple[Candidate, ...]:
    """Every offer of the chosen form that a program can hold, whatever its number of rows: the chosen one first."""
    others = [c for c in offers.blocks if c.forms == chosen.forms and c.rows != chosen.rows and c.time < inf]
    return (chosen, *(_explained(c, offers) for c in others if chosen.form != "step"))


def fewer_rows(
    program: Program, components: tuple[Component, ...], ranges: Mapping[Node, Interval], chosen: Candidate, offers: Offers
) -> tuple[Candidate, ...]:
    """A chosen scan in blocks of fewer rows."""
    if chosen.form != "scan" or chosen.rows != SCAN_ROWS:
        return ()
    found = (c for rows in FEWER_ROWS for c in block_forms(program, components, ranges, "scan", rows).blocks)
    return tuple(_explained(c, offers) for c in found if c.forms == chosen.forms and c.time < inf)


def _best(program: Program, offers: Offers, form: str | None) -> Candidate:
    wanted = form or program.wishes.form
    best = min(offers.blocks, key=lambda c: c.time, default=offers.step)
    if best.time == inf and best.form == "chunkwise" and wanted != "scan" and program.wishes.chunks:
        asked = "{" + ", ".join(map(str, program.wishes.chunks)) + "}"
        message = f"`schedule chunk {asked}` asks for blocks whose values a program cannot hold"
        labels = () if program.wishes.span is None else (Label(program.wishes.span, "asked for here"),)
        raise Unsupported.of("no-tiles", message, labels, help="fewer rows, such as 64")
    return offers.step if wanted is None and offers.step.time < best.time else best


def _explained(candidate: Candidate, offers: Offers) -> Candidate:
    return replace(candidate, reasons=(_why(candidate, offers), *candidate.reasons))


def _blocks(
    program: Program, components: tuple[Component, ...], ranges: Mapping[Node, Interval], rows: int | None,
    machine: Machine, refused: list[NotBlock],
) -> Iterable[Candidate]:
    yield from _assigned(program, components, ranges, rows, machine, refused)
    if (together := joined(program, components)) is not None:
        yield from _assigned(program, together, ranges, rows, machine, refused)


def _assigned(
    program: Program, components: tuple[Component, ...], ranges: Mapping[Node, Interval], rows: int | None,
    machine: Machine, refused: list[NotBlock],
) -> Iterable[Candidate]:
    """Blocks of every number of rows, with the forms that suit the components best at one of them.

    Where a state cannot be a chunk beside the chunks of others, it is tried as a scan.
    """
    other = [c for c in components if c.kind not in (*LINEAR, "taps", "maximum", "counter", "constant")]
    if other:
        refused.append(NotBlock(other[0].states[0], other[0].why))
        return
    first = {name: c.states[0] for c in components for name in c.states}
    choices = _choices(program, components, ranges, rows, machine, refused)
    for forms in choices:
        for count in _counts(program, forms, rows):
            try:
                forward, names, reasons = _lowered(program, components, ranges, count, tuple(forms.items()))
            except NotBlock as stop:
                refused.append(stop)
                changed = {**forms, first[stop.state]: "scan"}
                if forms.get(first[stop.state]) == "chunkwise" and changed not in choices:
                    choices.append(changed)
                break
            time = _time(program, forward, count, machine)
            yield Candidate(_kind(forms), count, forms, forward, reasons, time, names)


@found_once
def _lowered(
    program: Program, components: tuple[Component, ...], ranges: Mapping[Node, Interval], rows: int,
    forms: tuple[tuple[str, str], ...],
) -> tuple[Mapping[str, Node], Mapping[Node, str], tuple[Reason, ...]]:
    """A block, simplified, with the names of its values and its reasons, for any machine. Raises NotBlock."""
    made = BlockForm(program, components, ranges, rows, dict(forms))
    return *simplify_named(made.forward, made.names), tuple(made.reasons)


@found_once
def _step(program: Program) -> tuple[Mapping[str, Node], Mapping[Node, str]]:
    """One step, simplified, with the names of its values."""
    return simplify_named(program.graph, program.definitions)


def _kind(forms: Mapping[str, str]) -> str:
    return "chunkwise" if "chunkwise" in forms.values() else "scan"


def _counts(program: Program, forms: Mapping[str, str], rows: int | None) -> tuple[int, ...]:
    return (rows,) if rows else (program.wishes.chunks or CHUNKS) if _kind(forms) == "chunkwise" else (SCAN_ROWS,)


def _choices(
    program: Program, components: tuple[Component, ...], ranges: Mapping[Node, Interval], rows: int | None,
    machine: Machine, refused: list[NotBlock],
) -> list[dict[str, str]]:
    """The forms that are worth a lowering: with a chunk, the cheapest at each number of rows; and nothing but scans."""
    linear = [c.states[0] for c in components if c.kind in LINEAR]
    if len(linear) < 2:
        return [dict.fromkeys(linear, form) for form in (FORMS if linear else FORMS[1:])]
    found: list[dict[str, str]] = []
    scans = False
    for count in _counts(program, dict.fromkeys(linear, "chunkwise"), rows):

        def price(forward: Mapping[str, Node], count: int = count) -> float:
            return _time(program, forward, count, machine)

        alone = prices(program, components, ranges, count, price, refused)
        if not all(alone.values()):
            break  # more rows would be refused too
        scans = all("scan" in x for x in alone.values())
        loss = {name: x["chunkwise"] - x.get("scan", inf) for name, x in alone.items() if "chunkwise" in x}
        if loss:
            least = min(loss, key=lambda name: loss[name])
            forms = {n: "chunkwise" if n in loss and (n == least or not loss[n] > 0) else "scan" for n in linear}
            found += [forms] if forms not in found else []
    return [*found, *([dict.fromkeys(linear, "scan")] if scans else [])]


def _time(program: Program, forward: Mapping[str, Node], rows: int, machine: Machine) -> float:
    """Modelled time per step; infinite where a value would not fit, and where a program would invert several matrices."""
    sizes = {**nominal_sizes(program), ROW: rows, COL: rows}
    apart = [d for d in free_dims(program.graph) if d != lane(program)] if machine.programs else []
    sizes |= dict.fromkeys(apart, 1)
    if machine.programs and lane(program):
        sizes[lane(program)] = min(sizes[lane(program)], LANES)
    forward, _ = settled(forward, {})
    spent = cost(forward.values(), sizes)
    if rows > 1 and cost(forward.values(), _in_pieces(program, sizes)).largest > machine.largest:
        return inf
    if machine.programs:
        inverses = [set(n.dims) for n in topological(forward.values()) if n.op == "tri_inv"]
        if any(d not in (ROW, COL, BATCH, *apart) and not is_rank(d) for dims in inverses for d in dims):
            return inf
    return (spent.weighted + (machine.block_latency if rows > 1 else machine.step_latency)) / rows


def _in_pieces(program: Program, sizes: Mapping[str, int]) -> dict[str, int]:
    """The extents of tiles: a program of a GPU holds a long dim, where its extent is known, in pieces."""
    return {d: PIECE if n > LONGEST and d in program.dims and program.dims[d].choices == (n,) else n for d, n in sizes.items()}


def _why(best: Candidate, offers: Offers) -> Reason:
    step, others = offers.step, offers.blocks
    if best.form == "step" and offers.refused and not others:
        return Reason("form", "step", f"no block form: {offers.refused[0]}")
    if not others:
        more = f"no block form: {offers.unasked}" if offers.unasked else ""
        return Reason("form", "step", "one step at a time; no other form was asked for", more)
    beaten = {c.form: min(x.time for x in others if x.form == c.form) for c in others if c.form != best.form}
    times = {f: _relative(t, step.time) for f, t in sorted(beaten.items())}
    if best.form == "step":
        others_take = ", ".join(f"{f} {time}" for f, time in times.items())
        return Reason("form", "step", f"the least modelled time, of which others take {others_take}")
    scale = f"at {_relative(best.time, step.time)} of the modelled time of the step form"
    least = min((c for c in others if c.form == best.form), key=lambda c: c.time, default=best)
    if least.time < best.time:
        scale += f" ({_relative(least.time, step.time)} with {least.rows} rows; rows are chosen with the tiles)"
    text = "".join(f"; the {f} form {'takes ' * time[0].isdigit()}{time}" for f, time in times.items())
    text += f"; no other form: {offers.refused[0]}" if offers.refused and not times else ""
    return Reason("form", best.form, f"{best.rows} rows a block, {scale}{text}")


def _relative(time: float, step: float) -> str:
    digits = 2 if time > 0.01 * step else 4
    return f"{time / step:.{digits}f}" if time < inf else "does not fit (a program could not hold its values)"
