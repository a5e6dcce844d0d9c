"""A compiled recurrence that is fed a sequence in portions, and answers as soon as it can.

In: a compiled spec, params, portions of inputs [B, n, dims], n of any size. Out: the outputs of the steps for which all that
they read has arrived, equal to those of one call over the whole sequence. A spec that reads inputs of other steps is compiled
with each such read as an input of its own (`seqc.analysis.pieces`); the stream keeps the rows that are still to be read, and
passes the states on. Steps run in groups whose size is fixed by the latency, so that portions decide nothing about numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from seqc.analysis.pieces import lags_of, without_lags
from seqc.analysis.reach import endless, reach
from seqc.diagnostics import Unsupported
from seqc.driver.compile import compile_program
from seqc.driver.faces import arguments
from seqc.driver.load_emitted import load_emitted
from seqc.emit.names import safe_name
from seqc.ir.arguments import argument_table
from seqc.ir.graph import topological
from seqc.ir.inside import INSIDE, exposed

if TYPE_CHECKING:
    from seqc.driver.compile import Compiled
    from seqc.ir.block import Block

Tensor = torch.Tensor


@dataclass(frozen=True)
class Streamed:
    """A recurrence without reads at other steps. function: of its emitted file; reads: input of it -> (input of the spec, steps
    back), by emitted names; ahead: how many steps the spec looks ahead; compiled: the spec itself."""

    compiled: Compiled
    function: Any
    reads: Mapping[str, tuple[str, int | range]]
    ahead: int

    @property
    def inputs(self) -> list[str]:
        """What a portion has, by emitted names."""
        return [name for name in dict.fromkeys(source for source, _ in self.reads.values()) if name != safe_name(INSIDE)]

    def back(self, name: str) -> int:
        """How many earlier steps of an input are read."""
        found = (back for source, back in self.reads.values() if source == name)
        return max([0, *(max(lags_of(back)) for back in found)])

    def block(self, device: torch.device) -> Block:
        """Of the part that runs on a device."""
        blocks = self.compiled.blocks
        wanted = ("triton", "torch") if device.type == "cuda" else ("cpu", "torch")
        return next(blocks[part] for part in wanted if part in blocks)

    def exact(self, device: torch.device) -> bool:
        """Whether a step's bits are the same in calls of any length: step by step, in one piece, without products over all
        steps at once, whose sums a BLAS may order by their number."""
        block = self.block(device)
        if block.rows > 1 or any(reason.subject in ("pieces", "lanes") for reason in block.reasons):
            return False
        if "cpu" in self.compiled.blocks and device.type == "cpu":
            return all(stage.walk not in ("all", "rows") for stage in self.compiled.plan.every())
        return not any(n.op in ("sum", "solve") for n in topological(self.compiled.program.graph.values()))


def streamed(compiled: Compiled) -> Streamed:
    """What a stream runs. Raises Unsupported where the first output needs the last input."""
    program = compiled.program
    if (why := endless(program)) != "":
        raise Unsupported.of("no-stream", f"{program.name} has no stream", cause=why, help=f"call {program.name}")
    alone, shifts = without_lags(exposed(program))
    made = compile_program(replace(alone, loop=None), compiled.options) if shifts else compiled
    function = getattr(load_emitted(made.text, made.signature.spec), made.signature.spec)
    timed = [a.of for a in argument_table(alone) if a.timed]
    reads = {safe_name(x): (safe_name(source), back) for x in timed for source, back in [shifts.get(x, (x, 0))]}
    return Streamed(compiled, function, reads, reach(program).lookahead)


class Stream:
    """A sequence that arrives in portions: `push` each of them, then `flush`. `copy.copy` of a stream goes on by itself.

    latency: an output is there as soon as the input so many steps later is, or sooner; lookahead: how many of these steps the
    recurrence reads; group: the steps that run together, latency - lookahead + 1; buffer: the most steps of each input that are
    kept between portions; exact: whether outputs are those of one call to the bit whatever the latency; else they are up to the
    order of sums in blocks and products, and always the same for all portions.
    """

    def __init__(self, own: Streamed, latency: int | None, given: Mapping[str, Any]) -> None:
        """given: params, initial states and a seed by emitted names."""
        self._own = own
        self._name = own.compiled.signature.spec
        signature = own.compiled.signature
        params = [a.name for a in signature.table if a.kind == "param"]
        self._params = {x: given[x] for x in params if given.get(x) is not None}
        self._states = {x: given[x] for x in (*signature.initial, "seed") if x in given}
        device = next((x.device for x in given.values() if isinstance(x, Tensor)), torch.device("cpu"))
        self.exact = own.exact(device)
        self.lookahead = own.ahead
        self.latency = own.ahead + own.block(device).rows - 1 if latency is None else self._checked(latency)
        self.group = self.latency - self.lookahead + 1
        self.buffer = {x: own.back(x) + self.latency for x in own.inputs}
        self._received = self._next = 0
        self._kept: dict[str, Tensor] = {}
        self._ended = False

    def _checked(self, latency: Any) -> int:
        if isinstance(latency, bool) or not isinstance(latency, int):
            raise TypeError(f"{self._name}: latency is a whole number of steps, not {latency!r}")
        if latency < self.lookahead:
            message, help = f"{self._name} cannot answer {latency} steps after an input", f"latency={self.lookahead} or more"
            cause = reach(self._own.compiled.program).reason
            raise Unsupported.of("latency", message, cause=cause, help=help)
        return latency

    def push(self, *inputs: Tensor, **named: Tensor) -> Any:
        """The next portion of every input, [B, n, dims]. A result as of a call: the outputs of the steps that can be told now,
        [B, m, dims], and the states after them. Raises ValueError for portions that do not fit."""
        if self._ended:
            raise ValueError(f"{self._name}: the stream has ended: make another one")
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        head = inspect.Signature([inspect.Parameter(x, kind) for x in self._own.inputs])
        given = arguments(f"{self._name}.push", head, inputs, named)
        self._take(given)
        ready = max(0, self._received - self._own.ahead - self._next) // self.group * self.group
        return self._ran([ready] if self.exact else [self.group] * (ready // self.group))

    def flush(self) -> Any:
        """The end of the sequence and of the stream: the outputs that are left, [B, m, dims], and the states after the last
        step."""
        if not self._kept:
            raise ValueError(f"{self._name}: nothing was pushed")
        self._ended = True
        left = self._received - self._next
        groups = [left] if self.exact else [self.group] * (left // self.group) + [left % self.group]
        return self._ran(groups)

    def _take(self, given: Mapping[str, Tensor]) -> None:
        """Keeps a portion behind the rows that are there."""
        first = next(iter(given.values()))
        steps = tuple(first.shape[:2])
        if any(tuple(x.shape[:2]) != steps for x in given.values()):
            shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in given.items())
            raise ValueError(f"{self._name}: a portion has one batch and one number of steps: {shapes}")
        real = next((x.dtype for x in given.values() if x.is_floating_point()), torch.float32)
        rows = {**given, safe_name(INSIDE): first.new_ones(steps, dtype=real)}
        wanted = dict.fromkeys(source for source, _ in self._own.reads.values())
        kept = self._kept or {x: rows[x].new_zeros(steps[0], self._own.back(x), *rows[x].shape[2:]) for x in wanted}
        for x in wanted:
            if kept[x].shape[0] != steps[0] or kept[x].shape[2:] != rows[x].shape[2:]:
                fit = [kept[x].shape[0], "n", *kept[x].shape[2:]]
                raise ValueError(f"{self._name}: {x} has shape {list(rows[x].shape)}, and came as {fit} before")
        self._kept = {x: torch.cat([kept[x], rows[x]], 1) if steps[1] else kept[x] for x in wanted}
        self._received += steps[1]

    def _ran(self, groups: Sequence[int]) -> Any:
        """The results of the next groups of steps in one."""
        results = [self._run(n) for n in groups if n] or [self._run(0)]
        count = len(self._own.compiled.signature.outputs)
        rows = [torch.cat(parts, 1) for parts in zip(*(r[:count] for r in results), strict=True)]
        return type(results[-1])(*rows, *results[-1][count:])

    def _run(self, steps: int) -> Any:
        """The next steps; what no later step reads is kept no longer."""
        inputs = {}
        for name, (source, back) in self._own.reads.items():
            kept = self._kept[source]
            rows = [_from(kept, self._own.back(source) - lag, steps) for lag in lags_of(back)]
            inputs[name] = rows[0] if isinstance(back, int) else torch.stack(rows, 2)
        result = self._own.function(**inputs, **self._params, **self._states)
        self._states = {x: getattr(result, f"{x[:-2]}_T") for x in self._own.compiled.signature.initial}
        self._next += steps
        self._kept = {x: rows[:, steps:] for x, rows in self._kept.items()}
        return result


def _from(rows: Tensor, start: int, steps: int) -> Tensor:
    """So many steps from one on, zeros behind the end."""
    found = rows[:, start : start + steps]
    missing = steps - found.shape[1]
    return torch.cat([found, found.new_zeros(found.shape[0], missing, *found.shape[2:])], 1) if missing else found
