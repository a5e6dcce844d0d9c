"""A linear time-invariant recurrence as a convolution over the whole sequence.

    y = K * u + R h_0,    h_T = sum_t S_{T-1-t} u_t + P h_0

In: a compiled spec whose program `seqc.analysis.time_invariant` finds to be such a system, and tensors. Out: what a call
gives. The kernels K (of outputs) and S (of states) are the recurrence's own answers to impulses, from its own compiled
form, so that they need no formula of a family: diagonal, low rank, dense and companion transitions alike. One run answers
an impulse for all places of the dims that the recurrence never mixes. The convolution is a product of real FFTs of at
least 2 T - 1 steps. Everything is differentiated by torch: the FFTs by its own rules, the responses by the recurrence's
derived gradient. Where the batch is large beside the number of impulses this does less; `explain` tells the operations of
both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from seqc.analysis.cost import cost
from seqc.analysis.time_invariant import not_invariant
from seqc.diagnostics import Diagnostic, Unsupported
from seqc.emit.names import safe_name
from seqc.ir.arguments import Argument, argument_table
from seqc.ir.block import free_dims
from seqc.ir.graph import BATCH
from seqc.ir.program import Program

if TYPE_CHECKING:
    from seqc.driver.compile import Compiled

LETTERS = "acdefghijklmnopqrsuvwxyzACDEFGHIJKLMNOPQRSUVWXYZ"  # all but those of the batch and of time


def responding(program: Program) -> Program:
    """The program whose outputs are its own and, called `NAME.after`, the states after each step. Raises Unsupported."""
    why = not_invariant(program)
    if not why and any(p.per_batch for p in program.params.values()):
        why = "a parameter differs from sequence to sequence"
    if why:
        cause = f"a convolution needs a step that is linear in inputs and states, with fixed coefficients: {why}"
        message = f"{program.name} is not a linear time-invariant system"
        raise Unsupported(Diagnostic("not-time-invariant", message, cause=cause, help="call it", kind="unsupported"))
    after = {f"{name}.after": replace(d, name=f"{name}.after", kind="output", init=None) for name, d in program.states.items()}
    values = {f"{name}.after": program.updates[name] for name in program.states}
    return replace(
        program, output_decls={**program.output_decls, **after}, outputs={**program.outputs, **values}, claims=(), warnings=(),
    )  # fmt: skip


@dataclass(frozen=True)
class Source:
    """An input, or an initial state: the dims that the recurrence mixes, and those that it does not."""

    argument: Argument
    mixed: tuple[str, ...]

    def impulses(self, sizes: Mapping[str, int]) -> int:
        """How many runs answer it."""
        return math.prod(sizes[d.rstrip("'")] for d in self.mixed)


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
    taken = [math.prod(sizes[d.rstrip("'")] for d in a.dims) for a in argument_table(program) if a.timed]
    given = [math.prod(sizes[d.rstrip("'")] for d in y.dims) for y in program.output_decls.values()]
    kept = [math.prod(sizes[d.rstrip("'")] for d in s.dims) for s in program.states.values()]
    fft = 5 * long * (sum(taken) + sum(given)) + 8 * runs * sum(given) + 2 * runs * sum(kept)
    return one, fft + runs * (one + 5 * long * sum(given)) / batch


def convolved(program: Program, compiled: Compiled, module: Any, result: Any, given: Mapping[str, Any]) -> Any:
    """What a call gives, by convolution. compiled, module: of `responding(program)`; given: arguments by emitted names."""
    import torch

    table = argument_table(program)
    params = {name: given[name] for a in table if a.kind == "param" and (name := safe_name(a.name)) in given}
    rows = [(s, given[name]) for s in sources(program) if (name := safe_name(s.argument.name)) in given]
    sizes = {d.name: d.default for d in program.dims.values() if d.default is not None}
    arrays = [(s.argument.axes, x) for s, x in rows] + [(_axes(table, name), x) for name, x in params.items()]
    sizes |= {d.rstrip("'"): n for axes, x in arrays for d, n in zip(axes, x.shape, strict=True)}
    like = rows[0][1]
    carry = torch.float64 if like.dtype == torch.float64 else torch.float32
    struck = _struck([s for s, _ in rows], table, sizes, carry, like.device)
    answers = getattr(module, compiled.signature.spec)(**struck, **params)
    letters = dict(zip(dict.fromkeys(d for s, _ in rows for d in s.argument.dims), LETTERS, strict=False))
    found: dict[str, Any] = {}
    for name, decl in compiled.program.output_decls.items():
        last = name not in program.outputs
        shape = (sizes[BATCH], *([] if last else [sizes["T"]]), *(sizes[d.rstrip("'")] for d in decl.dims))
        total = torch.zeros(shape, dtype=carry, device=like.device)
        kernels = getattr(answers, safe_name(name)).split([s.impulses(sizes) for s, _ in rows])
        for (s, x), kernel in zip(rows, kernels, strict=True):
            kernel = kernel.reshape(*(sizes[d.rstrip("'")] for d in s.mixed), *kernel.shape[1:])
            total = total + _part(s, x.to(carry), kernel, decl.dims, letters, last)
        key = f"{safe_name(name.removesuffix('.after'))}_T" if last else safe_name(name)
        found[key] = total if last else total.to(like.dtype)
    return result(**{name: found[name] for name in result._fields})


def _axes(table: Iterable[Argument], name: str) -> tuple[str, ...]:
    return next(a.axes for a in table if safe_name(a.name) == name)


def _struck(
    rows: Iterable[Source], table: Iterable[Argument], sizes: Mapping[str, int], carry: Any, device: Any
) -> dict[str, Any]:
    """The arguments of one run that answers all impulses: each is a sequence of the batch."""
    import torch

    total, at, out = sum(s.impulses(sizes) for s in rows), 0, {}
    for a in table:
        if a.kind != "param":
            shape = [total, *([sizes["T"]] if a.timed else []), *(sizes[d.rstrip("'")] for d in a.dims)]
            out[safe_name(a.name)] = torch.zeros(shape, dtype=carry, device=device)
    for s in rows:
        count = s.impulses(sizes)
        name = safe_name(s.argument.name)
        places = [sizes[d.rstrip("'")] for d in s.mixed]
        free = [d for d in s.argument.dims if d not in s.mixed]
        ones = torch.eye(count, dtype=carry, device=device).reshape(count, *places, *[1] * len(free))
        ones = ones.expand(count, *places, *(sizes[d.rstrip("'")] for d in free))
        order = [*s.mixed, *free]
        ones = ones.permute(0, *(1 + order.index(d) for d in s.argument.dims))
        target = out[name][at : at + count]
        (target[:, 0] if s.argument.timed else target).copy_(ones)
        at += count
    return out


def _part(s: Source, x: Any, kernel: Any, dims: tuple[str, ...], letters: Mapping[str, str], last: bool) -> Any:
    """What one source adds to an output [B, T, dims], or (last) to a state after all steps, [B, dims].

    kernel: [mixed dims, T, dims]. A mixed dim of the source and a dim of the result may have one name: they are different axes.
    """
    import torch

    own = {d: letters[d] for d in s.argument.dims}
    rest = iter(letter for letter in LETTERS if letter not in letters.values())
    made = {d: own[d] if d in own and d not in s.mixed else next(rest) for d in dims}
    left = "".join(own[d] for d in s.mixed)
    of_source, of_result = "".join(own[d] for d in s.argument.dims), "".join(made[d] for d in dims)
    free = [d for d in s.argument.dims if d not in s.mixed and d not in dims]
    if free:  # the result does not depend on it
        return torch.zeros((), dtype=x.dtype, device=x.device)
    if not s.argument.timed:
        kernel, time = (kernel.select(len(s.mixed), -1), "") if last else (kernel, "t")
        return torch.einsum(f"{left}{time}{of_result},b{of_source}->b{time}{of_result}", kernel, x)
    if last:
        return torch.einsum(f"{left}t{of_result},bt{of_source}->b{of_result}", kernel.flip(len(s.mixed)), x)
    steps = x.shape[1]
    length = 1 << (2 * steps - 1).bit_length()
    spectra = torch.fft.rfft(kernel, length, dim=len(s.mixed)), torch.fft.rfft(x, length, dim=1)
    return torch.fft.irfft(torch.einsum(f"{left}t{of_result},bt{of_source}->bt{of_result}", *spectra), length, dim=1)[:, :steps]


__all__ = ["convolved", "operations", "responding", "sources"]
