"""The way of a spec through the compiler, one function per stretch: fix dims, check, lower.

In: a program and wishes. Out: facts about it, or its block. The stages are those of `seqc.passes.PIPELINE`; the
verifier runs after each. Emission, the last stretch, is `seqc.driver.compile`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from seqc.diagnostics import Refusal, SeqcBug, Unsupported, near_miss
from seqc.ir.block import Block, Reason
from seqc.ir.graph import Node
from seqc.ir.inside import exposed
from seqc.ir.once import found_once
from seqc.ir.program import Program
from seqc.ir.two_axes import lowered
from seqc.ir.verify import verify, verify_block, verify_program
from seqc.passes import CHECKS, PIPELINE, Stage
from seqc.passes.blocks.choose import GPU, Candidate, Machine, Offers, fewer_rows, same_form
from seqc.passes.claims import transitions
from seqc.passes.simplify.simplify import folded

FORMS = ("step", "scan", "chunkwise")
Watch = Callable[[str, object], None]  # called with the name of a stage and what it gave


def lower(
    program: Program,
    form: str | None = None,
    rows: int | None = None,
    machine: Machine = GPU,
    watch: Watch | None = None,
) -> Block:
    """The program's block with its gradient.

    form: "step" | "scan" | "chunkwise", rows: steps per block (a power of two); None leaves the choice to the spec's
    `schedule` and then to the cost model, which counts as on `machine`. watch: sees what each stage gives. Raises
    SpecError for a claim that does not hold, Unsupported when the recurrence cannot take a wished form.
    """
    given = {"program": program, "form": _form(form), "rows": _rows(rows), "machine": machine}
    block = run(PIPELINE, given, watch)["block"]
    assert isinstance(block, Block)
    return block


def lowerings(program: Program, form: str | None = None, rows: int | None = None) -> tuple[Block, ...]:
    """The blocks of the form that `lower` chooses for a GPU, one for each number of rows that may be chosen later."""
    until = [stage.name for stage in PIPELINE].index("choose_form") + 1
    given = {"program": program, "form": _form(form), "rows": _rows(rows), "machine": GPU}
    known = run(PIPELINE[:until], given)
    offers, chosen = known["offers"], known["chosen"]
    assert isinstance(offers, Offers) and isinstance(chosen, Candidate)
    candidates = same_form(chosen, offers)
    if rows is None:
        candidates += fewer_rows(known["program"], known["components"], known["ranges"], chosen, offers)  # type: ignore[arg-type]
    found = [run(PIPELINE[until:], {**known, "chosen": one})["block"] for one in candidates]
    return tuple(block for block in found if isinstance(block, Block))


def _form(form: str | None) -> str | None:
    if form is not None and form not in FORMS:
        raise _refused("form", f"there is no form `{form}`", near_miss(form, (*FORMS, "newton"), "one of"))
    return form


def _rows(rows: int | None) -> int | None:
    if rows is not None and (rows < 1 or rows & (rows - 1)):
        raise _refused("rows", f"{rows} rows a block: the number is a power of two", "such as 64")
    return rows


def check(program: Program, watch: Watch | None = None) -> dict[str, object]:
    """What the stages before any lowering find: components, ranges, claims. Raises SpecError."""
    return run([stage for stage in PIPELINE if stage.name in CHECKS], {"program": program}, watch)


def told_transitions(program: Program) -> tuple[Reason, ...]:
    """What is known of the transition of each state of a program."""
    found = check(program)
    return transitions(found["program"], found["components"])  # type: ignore[arg-type]


def run(stages: Iterable[Stage], given: Mapping[str, object], watch: Watch | None = None) -> dict[str, object]:
    """Every value by its name, after running the stages on those given. Raises SeqcBug where one gives a bad graph."""
    known = dict(given)
    program = known["program"]
    assert isinstance(program, Program)
    known["program"] = program = _run_by_steps(program)
    if watch:
        watch("spec", program)
    for stage in stages:
        value = _made(program, stage, *(known[need] for need in stage.needs))
        known[stage.gives] = value
        if watch:
            watch(stage.name, value)
    return known


@found_once
def _run_by_steps(program: Program) -> Program:
    program = folded(exposed(lowered(program)))
    verify_program(program, "the front end")
    return program


@found_once
def _made(program: Program, stage: Stage, *given: object) -> object:
    """What a stage gives, verified: once for all machines and backends that ask for the same."""
    with blamed(stage.name):
        value = stage.run(*given)
    _verify(stage.name, value)
    return value


@contextmanager
def blamed(where: str) -> Iterator[None]:
    """Whatever fails inside, other than by a refusal, is a bug of the compiler: it is told with the place."""
    try:
        yield
    except (Refusal, SeqcBug):
        raise
    except Exception as problem:
        raise SeqcBug.of(where, problem) from problem


def _verify(stage: str, value: object) -> None:
    match value:
        case Program():
            verify_program(value, stage)
        case Candidate():
            verify(value.forward, stage)
        case Block():
            verify_block(value, stage)
        case Mapping() if all(isinstance(n, Node) for n in value.values()):
            verify({str(key): n for key, n in value.items()}, stage)


def fix_dims(program: Program, sizes: Mapping[str, int]) -> Program:
    """The program with the extents of some dims fixed: it then serves these only. Raises Unsupported."""
    dims = dict(program.dims)
    for name, size in sizes.items():
        decl = dims.get(name)
        if decl is None:
            raise _refused("dim", f"`{program.name}` has no dim `{name}`", near_miss(name, dims, "the dims are"))
        if size < 1 or (decl.choices and size not in decl.choices):
            allowed = ", ".join(map(str, decl.choices)) or "positive"
            raise _refused("dim", f"`{name}` cannot be {size}", f"its sizes are {allowed}")
        dims[name] = replace(decl, default=size, choices=(size,))
    return replace(program, dims=dims)


def _refused(code: str, message: str, help: str) -> Unsupported:
    return Unsupported.of(f"no-such-{code}", message, help=help)
