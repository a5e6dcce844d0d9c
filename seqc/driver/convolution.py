"""A linear time-invariant recurrence as a convolution: what an emitted file must know for it, and what it costs.

In: a program that `seqc.analysis.time_invariant` finds to be such a system. Out: the `System` of its signature; operations. An
impulse for each place of a dim that the recurrence mixes is a run of its own; dims that nothing mixes share one. Where the
batch is large beside the number of impulses, the convolution does less than the recurrence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seqc.analysis.cost import cost
from seqc.analysis.pieces import load
from seqc.analysis.time_invariant import not_invariant
from seqc.analysis.workload import nominal_sizes
from seqc.diagnostics import Unsupported
from seqc.emit.signature import System
from seqc.ir.arguments import Argument, argument_table
from seqc.ir.block import free_dims
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH, leaves
from seqc.ir.program import Program
from seqc.ir.windows import lags, windows

LETTERS = "acdefghijklmnopqrsuvwxyzACDEFHIJKLMNOPQRSUVWXYZ"  # all but those of the batch and of time

SIDE = "|"  # the dim of states side by side


def why_none(program: Program) -> str:
    """Why a program has no convolution; "" where it has one."""
    if (why := not_invariant(program)) != "":
        return why
    if windows(program.graph.values()):
        return "it sums many lags of an input, which is a convolution of its own"
    return "a parameter differs from sequence to sequence" if any(p.per_batch for p in program.params.values()) else ""


def refused(program: Program) -> Unsupported:
    """What to tell of a program that has none."""
    cause = f"a convolution needs a step that is linear in inputs and states, with fixed coefficients: {why_none(program)}"
    message = f"{program.name} is not a linear time-invariant system"
    return Unsupported.of("not-time-invariant", message, cause=cause, help="call it")


def system(program: Program) -> System | None:
    """What the emitted file of a program needs; None where it has no convolution. Raises Unsupported where the spec asks for
    one all the same, and sums no taps, which take FFTs then."""
    if why_none(program):
        if program.wishes.convolution and not windows(program.graph.values()):
            raise refused(program)
        return None
    states = [(d.name, d.dims) for d in program.states.values()]
    inputs = [(a.of, a.dims) for a in argument_table(program) if a.timed]
    outputs = [d.dims for d in program.output_decls.values()]
    updates = {name: n for name, n in program.graph.items() if name not in program.outputs}
    stepping, whole = free_dims(updates), free_dims(program.graph)
    sizes = nominal_sizes(program)
    count = sum(math.prod(sizes[unprimed(d)] for d in dims) for _, dims in states)
    beside = _beside([dims for _, dims in states], stepping)
    if beside:
        first = states[0][1]
        states = [("", (*(first[i] for i in beside[0][0]), SIDE))]
    kept = [dims for _, dims in states]
    lag = max([0, *(max(lags(n)) for n in leaves(program.graph.values(), "input"))])
    one = load(program)

    def table(
        targets: Sequence[tuple[str, ...]],
        sources: Sequence[tuple[str, tuple[str, ...]]],
        free: Sequence[str],
        ahead: tuple[str, str, str],
    ) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(_sum(dims, target, free, ahead) for _, dims in sources) for target in targets)

    def mixed(arrays: Sequence[tuple[str, tuple[str, ...]]], free: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(i for i, d in enumerate(dims) if d not in free) for _, dims in arrays)

    passing = ("", "...", "...")
    return System(
        lag, mixed(inputs, whole), mixed(states, stepping), mixed(states, whole),
        table(kept, states, stepping, passing), table(outputs, states, whole, passing),
        table(outputs, inputs, whole, ("t", "bt", "bt")), table(kept, inputs, whole, ("t", "bt", "b")),
        max(one.calls, 1), round(one.size(sizes) / max(count, 1), 2), program.wishes.convolution, beside,
        tuple(tuple(tuple(_back(j, k, y, stepping, whole) for k in kept) for j in kept) for y in outputs),
    )  # fmt: skip


def _beside(states: Sequence[tuple[str, ...]], free: Sequence[str]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """How states lie side by side as one: of each the axes that all share, and those that steps mix. () where that is no gain:
    one state alone, states that steps mix along no dim, and states that differ in what steps do not mix.

    One product of matrices serves all pairs of them: two states of N places make a matrix of 2 N.
    """
    shared = [d for d in states[0] if d in free]
    if len(states) == 1 or any({d for d in dims if d in free} != set(shared) for dims in states):
        return ()
    rows = tuple((tuple(map(dims.index, shared)), tuple(i for i, d in enumerate(dims) if d not in free)) for dims in states)
    return rows if any(mixed for _, mixed in rows) else ()


def _sum(source: tuple[str, ...], result: tuple[str, ...], free: Sequence[str], ahead: tuple[str, str, str]) -> str:
    """How a kernel [places of the source's mixed dims, dims of the result] and the source make the result, for `einsum`; ""
    where the result does not depend on the source. ahead: letters before the dims of the kernel, the source, the result.

    A mixed dim of the source and a dim of the result may have one name: they are different axes.
    """
    if any(d in free and d not in result for d in source):
        return ""
    own = dict(zip(source, LETTERS, strict=False))
    rest = iter(LETTERS[len(source) :])
    made = "".join(own[d] if d in own and d in free else next(rest) for d in result)
    left = "".join(own[d] for d in source if d not in free)
    return f"{left}{ahead[0]}{made},{ahead[1]}{''.join(own.values())}->{ahead[2]}{made}"


def _back(
    before: tuple[str, ...], state: tuple[str, ...], output: tuple[str, ...], stepping: Sequence[str], whole: Sequence[str]
) -> str:
    """How what an output reads of a state [blocks `G`, dims of the output, places], and a map of a step [places of another
    state, dims of the first], make what it reads of the other a step before; "" where it reads nothing this way.
    """
    if any(d in stepping and d not in state for d in before) or any(d in whole and d not in output for d in state):
        return ""
    letters = iter(LETTERS)
    made = {d: next(letters) for d in output}
    own = {d: made[d] if d in whole else next(letters) for d in state}
    one = {d: own[d] if d in stepping else next(letters) for d in before}
    result = "".join(made.values())
    step = "".join(one[d] for d in before if d not in stepping) + "".join(own.values())
    read = "".join(own[d] for d in state if d not in whole)
    return f"G{result}{read},{step}->G{result}{''.join(one[d] for d in before if d not in whole)}"


@dataclass(frozen=True)
class Source:
    """An input, or an initial state: the dims that the recurrence mixes, and those that it does not."""

    argument: Argument
    mixed: tuple[str, ...]

    def impulses(self, sizes: Mapping[str, int]) -> int:
        """How many runs answer it."""
        return math.prod(sizes[unprimed(d)] for d in self.mixed)


def sources(program: Program) -> tuple[Source, ...]:
    """The inputs and initial states."""
    free = free_dims(program.graph)
    moving = [a for a in argument_table(program) if a.kind != "param"]
    return tuple(Source(a, tuple(d for d in a.dims if d not in free)) for a in moving)


def operations(program: Program, sizes: Mapping[str, int], steps: int, batch: int) -> tuple[float, float]:
    """(of the recurrence, of the convolution) for each step of each sequence; from no initial state."""
    one = cost(program.graph.values(), {**sizes, BATCH: 1}).flops
    runs = sum(s.impulses(sizes) for s in sources(program) if s.argument.timed)
    long = math.log2(max(2 * steps, 2))
    taken = [math.prod(sizes[unprimed(d)] for d in a.dims) for a in argument_table(program) if a.timed]
    given = [math.prod(sizes[unprimed(d)] for d in y.dims) for y in program.output_decls.values()]
    kept = [math.prod(sizes[unprimed(d)] for d in s.dims) for s in program.states.values()]
    fft = 5 * long * (sum(taken) + sum(given)) + 8 * runs * sum(given) + 2 * runs * sum(kept)
    return one, fft + runs * (one + 5 * long * sum(given)) / batch
