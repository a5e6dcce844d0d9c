"""Is an emitted file right? It is loaded, run and compared with the oracle, with finite differences and with itself.

In: a compiled spec. Out: `Finding`s, one per comparison: values and gradients at the lengths where blocks begin and end,
in float64 and float32, with ordinary and with extreme inputs, forwards and reversed, and for packs; Triton's kernels also in
phases; each sequence of a pack against a call of its own; a directional derivative; a split run, a loop of steps, and
causality, which must hold to the bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import accumulate, chain, pairwise
from typing import Any, TypeAlias

import numpy as np

from seqc.check.emitted_case import Case, Finding, emitted_name, nudged, phases, relative, rounded, tolerance, whole
from seqc.check.sampling import counted, domains, matrix_axes, sample, sample_sizes
from seqc.diagnostics import Unsupported
from seqc.driver.compile import Compiled
from seqc.driver.load_emitted import load_emitted
from seqc.ir.arguments import argument_table
from seqc.ir.graph import leaves, topological
from seqc.ir.program import Program
from seqc.ir.windows import lags
from seqc.semantics.packed_arrays import part

INTERPRETER = "interpreter"  # where to run: Triton's own, on the CPU
DIFFERENCE = {"float64": 2.0**-20, "float32": 2.0**-9}  # step of a central difference
DIFFERENCE_ERROR = {"float64": 1e-6, "float32": 3e-3}  # relative: roundoff over the step
DIFFERENCE_MOST = {"float64": 1e-4, "float32": 5e-2}  # with what the difference itself shows of third derivatives
Bounds: TypeAlias = "tuple[int, ...] | None"
Arrays: TypeAlias = Mapping[str, Any]

__all__ = ["Case", "Finding", "against_oracle", "against_separate_calls", "causality", "check", "count", "emitted_name", "gpus",
           "in_phases", "lengths", "pack", "parts_and_steps", "relative", "tolerance"]


def gpus() -> int:
    """How many GPUs torch can use here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def lengths(rows: int) -> tuple[int, ...]:
    """Where blocks of `rows` steps begin and end; for single steps, a few lengths."""
    c = rows if rows > 1 else 4
    return tuple(sorted({0, 1, c - 1, c, c + 1, 2 * c + 1}))


def pack(rows: int) -> tuple[int, ...]:
    """The bounds of sequences of those lengths, out of order, and an empty one at the end."""
    own = lengths(rows)
    return tuple(accumulate((*own[::2], *own[1::2], 0), initial=0))


def count(compiled: Compiled, device: str = "cpu") -> int:
    """How many findings there will be, for a progress bar."""
    own = sum(2 if how in (against_oracle, in_phases, parts_and_steps) else 1 for how, *_ in _plan(compiled, device))
    return own + (count(compiled.loop, device) if compiled.loop else 0)


def check(compiled: Compiled, given: Mapping[str, int] | None = None, device: str = "cpu") -> Iterator[Finding]:
    """The findings, one by one. given: extents of dims; the others are small and odd.

    device: torch's name of it, or `INTERPRETER`: Triton's kernels on the CPU, in float32, in Triton's interpreter, which
    must be chosen before Triton is imported.
    """
    if device == INTERPRETER:
        if not compiled.signature.triton:
            help = "compile for the backend `auto` or `triton`"
            raise Unsupported.of("no-kernels", "the file has no Triton kernels", help=help)
        os.environ["TRITON_INTERPRET"] = "1"
    module = load_emitted(compiled.text, compiled.signature.spec)
    if device == INTERPRETER:
        vars(module)["_form"] = lambda *tensors, **asked: module._TRITON
    sizes = sample_sizes(compiled.program, given=given)
    place = "cpu" if device == INTERPRETER else device
    case = None
    for how, steps, dtype, hard, bounds, reverse in _plan(compiled, device):
        new = Case(compiled.program, module, sizes, steps, dtype, hard, place, bounds, reverse)
        case = case if case == new else new  # a run that two comparisons look at is one
        with np.errstate(all="ignore" if device == INTERPRETER else None):  # a kernel's own infinities, told by numpy
            found = list(how(case))
        yield from found
    if compiled.loop:
        for finding in check(compiled.loop, given, device):
            yield replace(finding, what=f"the closed loop: {finding.what}")


# ---- the comparisons ----


def _plan(compiled: Compiled, device: str) -> Iterator[tuple[Any, int, str, bool, Bounds, bool]]:
    """(comparison, steps, dtype, whether inputs are extreme, bounds, whether reversed)."""
    planned = chain(_everywhere(compiled), _in_phases(compiled) if device != "cpu" else ())
    if device == INTERPRETER:  # its kernels compute in float32: what a dtype tells apart is one case there
        single = ((how, steps, "float32", *rest) for how, steps, _, *rest in planned)
        return iter(dict.fromkeys(single))
    return planned


def _everywhere(compiled: Compiled) -> Iterator[tuple[Any, int, str, bool, Bounds, bool]]:
    rows = max(block.rows for block in compiled.blocks.values())
    for steps in lengths(rows):
        yield against_oracle, steps, "float64", False, None, False
    longest, bounds = lengths(rows)[-1], pack(rows)
    yield against_oracle, longest, "float64", True, None, False
    yield against_oracle, longest, "float32", False, None, False
    yield against_oracle, longest, "float32", True, None, False
    yield against_oracle, longest, "float64", False, None, True
    yield against_oracle, longest, "float32", True, None, True
    for dtype, hard in (("float64", False), ("float32", True)):
        for reverse in (False, True):
            yield against_oracle, bounds[-1], dtype, hard, bounds, reverse
            if compiled.plan.whole:  # else products over all steps, which a BLAS may sum in another order at another length
                yield against_separate_calls, bounds[-1], dtype, hard, bounds, reverse
    if not any(n.op in ("surrogate", "stopgrad", "gradclip") for n in topological(compiled.program.graph.values())):
        yield against_differences, lengths(rows)[-2], "float64", False, None, False
    if not compiled.program.no_step:
        yield parts_and_steps, longest, "float64", False, None, False
    if compiled.program.direction == "forward":
        yield causality, longest, "float32", False, None, False


def _in_phases(compiled: Compiled) -> Iterator[tuple[Any, int, str, bool, Bounds, bool]]:
    """Where Triton's kernels have other ways to work: a batch, and packs whose mean length is more than a block."""
    if "def _way(" in compiled.text:
        rows = max(block.rows for block in compiled.blocks.values())
        bounds = tuple(accumulate((1, 0, rows, 3 * rows + 1), initial=0))
        yield in_phases, lengths(rows)[-1], "float32", True, None, False
        yield in_phases, bounds[-1], "float32", False, bounds, False
        yield in_phases, bounds[-1], "float32", False, bounds, True


def against_oracle(case: Case) -> Iterator[Finding]:
    """Every result and every gradient; gradients together are one finding."""
    arrays, cotangents = case.sample()
    want, want_gradients = case.truth(arrays, cotangents)
    moved, moved_gradients = case.truth(nudged(arrays, domains(case.program), counted(case.program)), cotangents)
    found, slopes = case.ran
    yield case.finding("results", {k: (found[k], want[k]) for k in want}, moved)
    yield case.finding("gradients", {k: (slopes[k], want_gradients[k]) for k in slopes}, moved_gradients)


def in_phases(case: Case) -> Iterator[Finding]:
    """The same, of calls that take several kernels wherever they may: the states first, then all blocks at once."""
    with phases(case.module, 1):
        found = list(against_oracle(replace(case)))
    yield from (replace(one, what=f"{one.what}, in phases") for one in found)


def against_separate_calls(case: Case) -> Iterator[Finding]:
    """Each sequence of a pack, to the bit, against a call of its own: results, and gradients of what is its own. All calls
    take one kernel for all work: how many programs there are decides on phases, which may round in another order."""
    import torch

    assert case.bounds is not None
    arrays, cotangents = case.sample()
    failed = set()
    with phases(case.module, 0):
        found, slopes = (case if case.device == "cpu" else replace(case)).ran
        for i, (start, end) in enumerate(pairwise(case.bounds)):
            alone = replace(case, bounds=None, steps=end - start)
            own = [part(case.program, x, case.bounds, i) for x in (arrays, cotangents)]
            pairs = zip(alone.with_gradients(*own), (found, slopes), strict=True)
            for mine, whole in pairs:
                theirs = {k: x for k, x in whole.items() if k not in _shared(case.program)}
                theirs = part(case.program, theirs, case.bounds, i)
                failed |= {k for k in theirs if not torch.equal(theirs[k], mine[k])}
    words = f"sequences that differ from a call of their own (to the bit), {case.dtype}, a pack"
    words += (", reversed" if case.reverse else "") + (", extreme inputs" if case.hard else "")
    yield Finding(f"{words}{': ' if failed else ''}{', '.join(sorted(failed))}", case.steps, float(len(failed)), 0.0)


def _shared(program: Program) -> set[str]:
    """Parameters whose gradient is a sum over the sequences."""
    return {name for name, p in program.params.items() if not p.per_batch}


def against_differences(case: Case) -> Iterator[Finding]:
    """The derivative in a random direction: central difference of the emitted function against its own gradients.

    Both ends lie inside the domains of the arguments: an element that would leave its range stays, and what has norm 1 moves
    along the sphere. The difference of twice the step tells how much of the error is the difference's own.
    """
    arrays, cotangents = case.sample()
    step = DIFFERENCE[case.dtype]
    direction = _direction(case.program, arrays, 2 * step)

    def slope_over(size: float) -> float:
        ends = ({k: x if whole(x) else x + sign * size * direction[k] for k, x in arrays.items()} for sign in (1.0, -1.0))
        above, below = (float(case.weighed(end, cotangents)) for end in ends)
        return (above - below) / (2 * size)

    tensors = case.tensors(arrays)
    for a in argument_table(case.program):
        if a.gradient:
            tensors[a.name].requires_grad_()
    case.weighed(tensors, cotangents).backward()
    slope = sum(float((x.grad.cpu().double().numpy() * direction[k]).sum()) for k, x in tensors.items() if x.grad is not None)
    coarse, fine = slope_over(2 * step), slope_over(step)
    size = np.sqrt(sum(float((x.grad.double() ** 2).sum()) for x in tensors.values() if x.grad is not None))
    error = abs(slope - fine) / max(size, 1.0)
    allowed = max(DIFFERENCE_ERROR[case.dtype], min(2 * abs(coarse - fine) / max(size, 1.0), DIFFERENCE_MOST[case.dtype]))
    yield Finding(f"directional derivative, {case.dtype}", case.steps, error if error == error else float("inf"), allowed)


def _direction(program: Program, arrays: Arrays, reach: float) -> dict[str, Any]:
    """A random direction in which all arguments may move by `reach` and stay in their domains."""
    rng = np.random.default_rng(1)
    allowed = domains(program)
    found = {}
    moved = {a.name for a in argument_table(program) if a.gradient}
    for name, x in arrays.items():
        if whole(x):
            found[name] = np.zeros_like(x)
            continue
        d = rng.standard_normal(x.shape)
        decl = program.inputs.get(name)
        if decl is not None and decl.unit:
            axes = tuple(x.ndim - len(decl.dims) + decl.dims.index(u) for u in decl.unit)
            d = d - x * (d * x).sum(axis=axes, keepdims=True)
        if (matrix := definite_of(program, name)) is not None:
            d = d + np.swapaxes(d, *matrix)
        ends = (x + sign * reach * d for sign in (1.0, -1.0))
        inside = np.logical_and.reduce([(e >= allowed[name].lo) & (e <= allowed[name].hi) for e in ends])
        found[name] = np.where(inside & (name in moved and name not in counted(program)), d, 0.0)
    return found


def definite_of(program: Program, argument: str) -> tuple[int, int] | None:
    """The axes of a symmetric matrix that an argument is; None of any other."""
    starts = {f"{name}_0": d for name, d in program.states.items()}
    decl = {**program.inputs, **program.params, **starts}.get(argument)
    return matrix_axes(decl.dims) if decl is not None and decl.definite else None


def parts_and_steps(case: Case) -> Iterator[Finding]:
    """A run split in two, and a loop of single steps, against the whole run: each in the order in which the recurrence goes."""
    import torch

    arrays, _ = case.sample()
    back = -1 if case.program.direction == "backward" else 1
    whole, (moved, _) = case.call(arrays), case.truth(nudged(arrays, domains(case.program), counted(case.program)))
    cut = case.steps // 3 + 1
    first, second = (slice(0, cut), slice(cut, None))[::back]
    parts = [case.call(_cut(case.program, arrays, first))]
    parts.append(case.call(_cut(case.program, arrays, second) | _carried(case, parts[0])))
    now: dict[str, Any] = {k: x for k, x in arrays.items() if k.endswith("_0") and k not in case.program.inputs}
    single = []
    for t in range(case.steps)[::back]:
        given = {k: arrays[k][:, t] for k in case.program.inputs} | {k: arrays[k] for k in case.program.params if k in arrays}
        single.append(case.call(given | now, "_step"))
        now = _carried(case, single[-1])
    for what, pieces, join in (("a split run", parts, torch.cat), ("a loop of steps", single, torch.stack)):
        last = [f"{name}_T" for name in case.program.states]
        ordered = pieces[::back]
        pairs = {k: (join([case.result(p, k) for p in ordered], 1), case.result(whole, k)) for k in case.program.outputs}
        pairs |= {k: (case.result(pieces[-1], k), case.result(whole, k)) for k in last}
        yield case.finding(what, pairs, moved)


def causality(case: Case) -> Iterator[Finding]:
    """Outputs before a step, after every input from it on has changed: equal to the bit."""
    import torch

    arrays, _ = case.sample()
    arrays = {k: rounded(x, case.dtype) for k, x in arrays.items()}
    other, _ = sample(case.program, case.sizes, case.steps, hard=True, seed=case.steps + 1)
    ahead = max((-min(lags(n)) for n in leaves(case.program.graph.values(), "input")), default=0)
    before = case.call(arrays)
    failed = 0
    for t in sorted({1, case.steps // 2, case.steps - 1}):
        changed = dict(arrays)
        for name in case.program.inputs:
            changed[name] = np.concatenate([arrays[name][:, :t], rounded(other[name][:, t:], case.dtype)], axis=1)
        after = case.call(changed)
        until = max(t - max(ahead, 0), 0)
        pairs = [(case.result(before, k)[:, :until], case.result(after, k)[:, :until]) for k in case.program.outputs]
        failed += not all(torch.equal(a, b) for a, b in pairs)
    yield Finding("outputs that see the future (to the bit)", case.steps, float(failed), 0.0)


def _cut(program: Program, arrays: Mapping[str, Any], steps: slice) -> dict[str, Any]:
    return {k: x[:, steps] if k in program.inputs else x for k, x in arrays.items()}


def _carried(case: Case, results: Any) -> dict[str, Any]:
    return {f"{name}_0": case.result(results, f"{name}_T").detach() for name in case.program.states}
