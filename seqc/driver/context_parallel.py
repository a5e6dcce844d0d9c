"""One sequence over several processes: each holds a stretch of the steps, and the states pass as affine maps.

In: a compiled spec whose program `seqc.analysis.pieces` can cut, and a process group. Out: a function that is called as the
spec is, with this process's steps. Forward: each process has the end of its own stretch run from zero and its spans, from
their own compiled forms; one exchange tells these to all; the states before its stretch follow, and the stretch runs.
Backward: the gradient of the states before the stretch, with nothing behind it; one exchange; the transposed spans join
them, and the stretch runs back with the whole cotangent. A sequence of a pack that has no steps in a process passes by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from seqc.analysis.pieces import CLOCK, Link, Pieces, lags_of, pieces_of
from seqc.diagnostics import Unsupported
from seqc.driver.compile import compile_program
from seqc.driver.load_emitted import load_emitted
from seqc.emit.names import safe_name
from seqc.ir.arguments import argument_table
from seqc.ir.inside import INSIDE, exposed

if TYPE_CHECKING:
    from seqc.driver.compile import Compiled
    from seqc.ir.program import Program

Tensor = torch.Tensor
Tensors = Sequence[Tensor]


@dataclass(frozen=True)
class Stretches:
    """The recurrence cut: its pieces, and functions of the emitted files of the whole, the ends and the spans."""

    program: Program
    cut: Pieces
    whole: Any
    ends: Any
    spans: Any

    @property
    def links(self) -> list[tuple[tuple[str, str], Link]]:
        """(state, state that it comes from), link."""
        return list(self.cut.links.items())


def stretches(compiled: Compiled) -> Stretches:
    """What runs a stretch. Raises Unsupported where the recurrence is not linear in its states."""
    program = compiled.program
    cut = "it runs both ways" if program.direction == "both" else pieces_of(exposed(replace(program, direction="forward")))
    if isinstance(cut, Pieces) and cut.algebra != "sum":
        cut = "it is linear over another semiring"
    if isinstance(cut, str):
        cause = f"the states after a stretch of steps are then no affine map of those before it: {cut}"
        message = f"the steps of {program.name} cannot be spread over processes"
        raise Unsupported.of("not-affine", message, cause=cause, help="spread the batch instead")

    def function(one: Program) -> Any:
        made = compile_program(replace(one, direction=program.direction, loop=None), compiled.options)
        return getattr(load_emitted(made.text, made.signature.spec), made.signature.spec)

    return Stretches(program, cut, function(cut.whole), function(cut.ends), function(cut.spans))


@dataclass(frozen=True)
class Place:
    """Where a process stands. order: the processes in the order of the recurrence; sizes: the steps of each, in that of the
    group; bounds: of the sequences of a pack within this stretch, else None."""

    group: Any
    rank: int
    order: tuple[int, ...]
    sizes: tuple[int, ...]
    bounds: Tensor | None
    reverse: bool

    @property
    def before(self) -> tuple[int, ...]:
        """The processes whose steps come before, in the order of the recurrence."""
        return self.order[: self.order.index(self.rank)]

    @property
    def after(self) -> tuple[int, ...]:
        """Those whose steps come behind, the last one first."""
        return self.order[: self.order.index(self.rank) : -1]


def run(own: Stretches, result: Any, given: Mapping[str, Any], group: Any) -> Any:
    """The call of this process. given: arguments by their emitted names, `cu_seqlens` and `reverse` too."""
    named = dict(given)
    bounds, reverse = named.pop("cu_seqlens", None), bool(named.pop("reverse", False))
    table = argument_table(own.program)
    clock = named[next(safe_name(a.name) for a in table if a.timed and not a.default)]
    inside = next((x for x in own.cut.whole.inputs if x == INSIDE), None)
    if inside is not None:
        named[safe_name(INSIDE)] = clock.new_ones(clock.shape[:2])
    backwards = (own.program.direction == "backward") is not reverse
    place = _place(group, clock, bounds, backwards, reverse)
    local = {} if place.bounds is None else {"cu_seqlens": place.bounds}
    timed = [safe_name(x) for x in own.cut.whole.inputs]
    if own.cut.shifts:
        named |= _moved(own.cut, named, place, bounds, backwards)
    starts = [f"{safe_name(x)}_0" for x in own.program.states]
    if any(named.get(x) is None for x in starts):  # what no caller gave: the states of a run without steps
        empty = {n: x[:, :0] if n in timed else x for n, x in named.items() if x is not None}
        none = {n: x * 0 for n, x in local.items()}
        found = own.whole(**empty, **none)
        named |= {x: getattr(found, f"{x[:-2]}_T") for x in starts if named.get(x) is None}
    names = [n for n, x in named.items() if x is not None and n not in starts] + starts
    stretch: Any = _Stretch.apply
    values = stretch(own, place, tuple(names), *(named[n] for n in names))
    return result(*values)


class _Stretch(torch.autograd.Function):
    """Results of this process's steps; the states before the stretch are those of the first process's, moved along."""

    @staticmethod
    def forward(ctx: Any, own: Stretches, place: Place, names: tuple[str, ...], *tensors: Tensor) -> Any:
        """Runs the ends and the spans, exchanges them, then runs the stretch."""
        given = dict(zip(names, tensors, strict=True))
        count = len(own.program.states)
        maps = [list(_unpacked(own, flat, given)) for flat in _gathered(_summary(own, place, given), place.group)]
        states = list(tensors[-count:])
        states = [x.to(maps[0][0].dtype) for x in states]
        for other in place.before:
            states = _passed(own, maps[other], states)
        leaves = [x.detach().requires_grad_(need and x.is_floating_point())
                  for x, need in zip(tensors[:-count], ctx.needs_input_grad[3:], strict=False)]
        leaves += [x.detach().requires_grad_() for x in states]
        recorded = any(ctx.needs_input_grad)
        with torch.set_grad_enabled(recorded):
            found = own.whole(**dict(zip(names, leaves, strict=True)), **_how(place))
        ctx.kept = own, place, [m[count:] for m in maps], leaves, tuple(found), [x.dtype for x in tensors[-count:]]
        return tuple(x.detach() for x in found)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Runs back with nothing behind, exchanges the gradients of the states before, then runs back whole."""
        own, place, spans, leaves, found, dtypes = ctx.kept
        count = len(own.program.states)
        given = torch.autograd.grad(found, leaves[-count:], cotangents, retain_graph=True, materialize_grads=True)
        parts = _gathered(torch.cat([x.flatten() for x in given]), place.group)
        shapes = [x.shape for x in given]
        behind = [torch.zeros_like(x) for x in given]
        for other in place.after:
            behind = [x + y for x, y in zip(_cut(parts[other], shapes), _returned(own, spans[other], behind), strict=True)]
        ends = [*cotangents[:-count], *(d + b for d, b in zip(cotangents[-count:], behind, strict=True))]
        wanted = [x for x in leaves if x.requires_grad]
        slopes = iter(torch.autograd.grad(found, wanted, ends, retain_graph=True, materialize_grads=True))
        answers = [next(slopes) if x.requires_grad else None for x in leaves]
        first = not place.before
        states = [x.to(dtype) if first and x is not None else None for x, dtype in zip(answers[-count:], dtypes, strict=True)]
        return (None, None, None, *answers[:-count], *states)


def _how(place: Place) -> dict[str, Any]:
    return {"reverse": place.reverse} | ({} if place.bounds is None else {"cu_seqlens": place.bounds})


def _summary(own: Stretches, place: Place, given: Mapping[str, Tensor]) -> Tensor:
    """The ends of this stretch and its spans, in one row of numbers."""
    starts = [given[f"{safe_name(x)}_0"] for x in own.program.states]
    like = next(given[safe_name(x)] for x in own.cut.whole.inputs)
    clock = like.new_zeros(like.shape[:2])

    def taken(program: Program) -> dict[str, Tensor]:
        rows = [a for a in argument_table(program) if a.kind != "state"]
        told = {**given, safe_name(CLOCK.name): clock}
        return {safe_name(a.of): told[safe_name(a.of)] for a in rows if safe_name(a.of) in told}

    zeros = {f"{safe_name(x)}_0": torch.zeros_like(s) for x, s in zip(own.program.states, starts, strict=True)}
    ends = own.ends(**taken(own.cut.ends), **zeros, **_how(place))
    units = {f"{safe_name(link.name)}_0": _unit(own, key, link, starts) for key, link in own.links}
    spans = own.spans(**taken(own.cut.spans), **units, **_how(place))
    return torch.cat([x.flatten() for x in (*ends, *spans)])


def _unit(own: Stretches, key: tuple[str, str], link: Link, starts: Tensors) -> Tensor:
    """What a link is over no step."""
    sizes = _sizes(own, starts)
    shape = (len(starts[0]), *(sizes[d] for d in link.dims))
    like = starts[0]
    if key[0] != key[1]:
        return like.new_zeros(shape)
    mixed = [sizes[d] for d in link.rows]
    one = torch.eye(prod(mixed), dtype=like.dtype, device=like.device).view((*mixed, *mixed))
    return one.expand(shape).contiguous()


def _sizes(own: Stretches, starts: Tensors) -> dict[str, int]:
    """The extents of dims of states and links."""
    pairs = [(decl.dims, x.shape[1:]) for x, decl in zip(starts, own.program.states.values(), strict=True)]
    sizes = {d: n for dims, shape in pairs for d, n in zip(dims, shape, strict=True)}
    return sizes | {fresh: sizes[d] for _, link in own.links for d, fresh in link.columns}


def _unpacked(own: Stretches, flat: Tensor, given: Mapping[str, Tensor]) -> Tensors:
    """The ends, then the spans, of another process's row of numbers."""
    starts = [given[f"{safe_name(x)}_0"] for x in own.program.states]
    sizes, batch = _sizes(own, starts), len(starts[0])
    shapes = [x.shape for x in starts] + [torch.Size((batch, *(sizes[d] for d in link.dims))) for _, link in own.links]
    return _cut(flat, shapes)


def _cut(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """A row of numbers as tensors of these shapes, one after the other."""
    ends = list(accumulate(map(prod, shapes)))
    return [flat[end - prod(s) : end].view(s) for end, s in zip(ends, shapes, strict=True)]


def _passed(own: Stretches, maps: Tensors, states: Tensors) -> list[Tensor]:
    """The states after a stretch, of those before it."""
    names = list(own.program.states)
    out = list(maps[: len(names)])
    for ((i, j), link), span in zip(own.links, maps[len(names) :], strict=True):
        out[names.index(i)] = out[names.index(i)] + _through(own, link, span, states[names.index(j)], i, j, back=False)
    return out


def _returned(own: Stretches, spans: Tensors, behind: Tensors) -> list[Tensor]:
    """The cotangents of the states before a stretch, of those behind it."""
    names = list(own.program.states)
    out = [torch.zeros_like(x) for x in behind]
    for ((i, j), link), span in zip(own.links, spans, strict=True):
        out[names.index(j)] = out[names.index(j)] + _through(own, link, span, behind[names.index(i)], i, j, back=True)
    return out


def _through(own: Stretches, link: Link, span: Tensor, x: Tensor, i: str, j: str, back: bool) -> Tensor:
    states = own.program.states
    matrix, left, right = link.letters(states[i].dims, states[j].dims)
    taken, given = (left, right) if back else (right, left)
    if own.cut.selects:  # what a step drops leaves no trace: a factor of 0 is none
        span = span[tuple(slice(None) if c in matrix else None for c in given)]
        return torch.where(span == 0, 0.0, span * x)
    return torch.einsum(f"{matrix},{taken}->{given}", span, x)


# ---- the exchange ----


def _gathered(x: Tensor, group: Any) -> list[Tensor]:
    """The same of every process."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x.contiguous(), group=group)
    return parts


class _Shared(torch.autograd.Function):
    """[processes, ...]: what each process has; a gradient goes back to the process that it belongs to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        """Tells all."""
        ctx.group = group
        return torch.stack(_gathered(x, group))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        """Adds up all."""
        slope = slope.contiguous().clone()
        dist.all_reduce(slope, group=ctx.group)
        return slope[dist.get_rank(ctx.group)], None


def _place(group: Any, clock: Tensor, bounds: Tensor | None, backwards: bool, reverse: bool) -> Place:
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    sizes = tuple(int(n) for n in _gathered(torch.tensor([clock.shape[1]], device=clock.device), group))
    order = tuple(reversed(range(world))) if backwards else tuple(range(world))
    if bounds is None:
        return Place(group, rank, order, sizes, None, reverse)
    if bounds[-1] > sum(sizes) or bounds[0] != 0 or (bounds.diff() < 0).any():
        want = f"of the whole row it begins with 0, never decreases, and ends with {sum(sizes)} or less"
        raise ValueError(f"cu_seqlens is {bounds}; {want}")
    return Place(group, rank, order, sizes, (bounds - sum(sizes[:rank])).clamp(0, sizes[rank]), reverse)


def _moved(cut: Pieces, named: Mapping[str, Any], place: Place, bounds: Tensor | None, backwards: bool) -> dict[str, Tensor]:
    """Inputs of other steps, with the rows of other processes."""
    out: dict[str, Tensor] = {}
    shared: Any = _Shared.apply
    starts = [0, *accumulate(place.sizes)]
    for source in dict.fromkeys(source for source, _ in cut.shifts.values()):
        x = named[safe_name(source)]
        found = {name: back for name, (one, back) in cut.shifts.items() if one == source}
        reads = {name: [-lag if backwards else lag for lag in lags_of(back)] for name, back in found.items()}
        long = max(abs(by) for lags in reads.values() for by in lags)
        own = [min(long, n) for n in place.sizes]
        filled = x.new_zeros(x.shape[0], long - own[place.rank], *x.shape[2:])
        edges = [torch.cat([x[:, :long], filled], 1), torch.cat([filled, x[:, x.shape[1] - own[place.rank] :]], 1)]
        heads, tails = shared(torch.stack(edges), place.group).unbind(1)  # each [processes, B, long, dims]
        zero = x.new_zeros(x.shape[0], long, *x.shape[2:])
        before = torch.cat([zero, *(tails[p][:, long - own[p] :] for p in range(place.rank))], 1)[:, -long:]
        after = torch.cat([*(heads[p][:, : own[p]] for p in range(place.rank + 1, len(own))), zero], 1)[:, :long]
        rows = torch.cat([before, x, after], 1)
        here = torch.arange(x.shape[1], device=x.device) + starts[place.rank]
        for name, lags in reads.items():
            each = [_within(rows[:, long - by : long - by + x.shape[1]], here, by, bounds) for by in lags]
            out[safe_name(name)] = torch.stack(each, 2) if isinstance(found[name], range) else each[0].contiguous()
    return out


def _within(moved: Tensor, here: Tensor, by: int, bounds: Tensor | None) -> Tensor:
    """Rows of so many steps before, 0 where these belong to another sequence of a pack."""
    if bounds is None:
        return moved
    same = torch.searchsorted(bounds, here, right=True) == torch.searchsorted(bounds, here - by, right=True)
    return torch.where(same.view(-1, *[1] * (moved.dim() - 2)), moved, 0.0)
