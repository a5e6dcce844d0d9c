"""Emitted functions against the float64 reference: results, every gradient, split runs, steps, causality.

In: a program, and `_forward`, `_backward`, `_step` functions with the signatures of `seqc.emit.signature`. Out: nothing, or
an AssertionError that names the tensor, the length and the error. Cotangents are random on every output and every final
state: a loss that is linear in all results, so that no gradient can hide behind a normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from seqc.check.sampling import definite
from seqc.ir.arguments import argument_table
from seqc.ir.graph import leaves
from seqc.ir.inside import INSIDE, exposed
from seqc.ir.program import Program, TensorDecl
from seqc.ir.support import mask
from seqc.semantics import reference

Call = Callable[..., Any]
SIZES = {"B": 2, "H": 2, "K": 5, "V": 3, "D": 4, "N": 3, "J": 3, "M": 4, "P": 3}
EXTREMES = (0.0, -1e-8, -5.0, -20.0, -1000.0, -np.inf)  # of a log decay


@dataclass(frozen=True)
class Case:
    """One call in numpy: arrays (inputs, params, NAME_0) and cotangents (outputs, NAME_T); of a pack, its bounds."""

    program: Program
    arrays: dict[str, Any]
    cotangents: dict[str, Any]
    bounds: tuple[int, ...] | None = None
    reverse: bool = False

    @property
    def arguments(self) -> list[str]:
        """Every argument, in the order of the signature."""
        return [a.name for a in argument_table(self.program)]

    @property
    def moved(self) -> list[str]:
        """Those that have a gradient."""
        return [a.name for a in argument_table(self.program) if a.gradient]

    @cached_property
    def truths(self) -> dict[torch.dtype, tuple[dict[str, Any], dict[str, Any]]]:
        """What `truth` has found so far."""
        return {}

    def truth(self, dtype: torch.dtype = torch.float64) -> tuple[dict[str, Any], dict[str, Any]]:
        """The reference's results and gradients, of arrays and cotangents as the dtype holds them; computed once."""
        if dtype not in self.truths:
            arrays, weights = (
                {name: tensor(given[name], dtype) for name in names}
                for given, names in ((self.arrays, self.arguments), (self.cotangents, self.results))
            )
            arrays, weights = ({n: (x.double() if x.is_floating_point() else x).numpy() for n, x in part.items()}
                               for part in (arrays, weights))
            with np.errstate(all="ignore"):
                self.truths[dtype] = reference.gradients(self.program, arrays, weights, self.bounds, self.reverse)
        return self.truths[dtype]

    def kept(self, argument: str, gradient: torch.Tensor) -> torch.Tensor:
        """A gradient, 0 where nothing is kept of a sparse param: what the call does around the functions of a backend."""
        decl = self.program.params.get(argument)
        support = decl.support if decl is not None else None
        return gradient if support is None else gradient * torch.tensor(self.arrays[support.mask], dtype=gradient.dtype)

    @property
    def results(self) -> list[str]:
        """Every result, in the order of the signature."""
        p = self.program
        return [*p.output_decls, *(f"{s}_T" for s in p.states)]


def usual_sizes(program: Program) -> dict[str, int]:
    """The extents of tests: small ones, or those that the spec gives. Native libraries are built for them once."""
    return {**SIZES, **{d.name: d.default or d.choices[0] for d in program.dims.values() if d.default or d.choices}}


def draw(
    program: Program, steps: int, sizes: Mapping[str, int] | None = None, hard: bool = False, seed: int = 0,
    lengths: Sequence[int] | None = None, reverse: bool = False,
) -> Case:
    """Random arrays within the declared ranges; hard: also the ends of the ranges, extreme gates, one key for ever.

    lengths: of the sequences of a pack, which has `steps` steps in all.
    """
    program = exposed(program)
    rng = np.random.default_rng(seed)
    open_sizes = {d: n for d, n in (sizes or {}).items() if d not in program.dims or n in (program.dims[d].choices or (n,))}
    every = {**usual_sizes(program), **open_sizes, "T": steps}
    every |= {} if lengths is None else {"B": len(lengths)}
    bounds = None if lengths is None else tuple(accumulate(lengths, initial=0))
    assert bounds is None or bounds[-1] == steps

    def normal(*axes: str) -> Any:
        row = bounds is not None and "T" in axes
        return rng.standard_normal([1 if row and a == "B" else every.get(a.rstrip("'"), 3) for a in axes])

    arrays = {name: _input(d, normal("B", "T", *d.dims), rng, hard) for name, d in program.inputs.items() if not d.places}
    places = {name: d for name, d in program.inputs.items() if d.places}
    arrays |= {name: rng.integers(0, every[d.places], normal("B", "T", *d.dims).shape) for name, d in places.items()}
    arrays |= {INSIDE: np.ones_like(arrays[INSIDE])} if INSIDE in arrays else {}
    for name, d in program.params.items():
        x = _clipped(d, 0.4 * normal(*d.axes))
        arrays[name] = definite(2.5 * x, d.dims) if d.definite else x
    for name, kept in kept_of(program, every, rng).items():  # as a Module has them
        arrays[name] = np.where(kept, arrays[name], 0.0)
        arrays[program.params[name].support.mask] = kept * 1.0
    arrays |= {f"{name}_0": _clipped(d, normal("B", *d.dims)) for name, d in program.states.items()}
    arrays |= {f"{name}_0": definite(arrays[f"{name}_0"], d.dims) for name, d in program.states.items() if d.definite}
    arrays |= {k: rng.integers(0, int(d.range.hi) + 1, np.shape(arrays[k])).astype(float)
               for name, d in program.states.items() for k in [f"{name}_0"] if d.whole}
    cotangents = {name: normal("B", "T", *d.dims) for name, d in program.output_decls.items()}
    cotangents |= {f"{name}_T": normal("B", *d.dims) for name, d in program.states.items()}
    if not steps:  # a count or a flag passes no gradient on, and an empty run hands it back: the boundary tells these apart
        flags = [name for name, d in program.states.items() if d.whole or not leaves([program.updates[name]])]
        cotangents |= {f"{name}_T": np.zeros_like(cotangents[f"{name}_T"]) for name in flags}
    return Case(program, arrays, cotangents, bounds, reverse)


def kept_of(program: Program, sizes: Mapping[str, int], rng: np.random.Generator) -> dict[str, Any]:
    """Where each sparse param is kept: by the spec's rules, and half of the rest where a mask says it."""
    found = {}
    for name, d in program.params.items():
        if d.support is not None:
            kept = mask(d.support, d.dims, sizes)
            shape = [sizes.get(a.rstrip("'"), 3) for a in d.dims]
            found[name] = np.broadcast_to(kept, shape) & ((rng.random(shape) < 0.5) | (d.support.pruning is None))
    return found


def _clipped(d: TensorDecl, x: Any) -> Any:
    return np.clip(x, d.range.lo, d.range.hi) if np.isfinite(d.range.lo) or np.isfinite(d.range.hi) else x


def _input(d: TensorDecl, x: Any, rng: np.random.Generator, hard: bool) -> Any:
    lo, hi = d.range.lo, d.range.hi
    if d.definite:
        return definite(x, d.dims)
    if d.unit:
        axes = tuple(2 + d.dims.index(u) for u in d.unit)
        x = x / np.linalg.norm(x, axis=axes, keepdims=True)
        if hard and x.shape[1]:
            x[:, :] = x[:, :1]
    if np.isfinite(lo) and np.isfinite(hi):
        x = lo + (hi - lo) * rng.random(x.shape)
        return np.where(rng.random(x.shape) < 0.3, rng.choice([lo, hi], x.shape), x) if hard else x
    if hi == 0:
        x = -np.abs(x)
        return np.where(rng.random(x.shape) < 0.5, rng.choice(EXTREMES, x.shape), x) if hard else x
    if np.isfinite(lo):
        return lo + np.abs(x)
    return hi - np.abs(x) if np.isfinite(hi) else x


def tensors(case: Case, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """The arguments as tensors."""
    return [tensor(case.arrays[name], dtype) for name in case.arguments]


def tensor(x: Any, dtype: torch.dtype) -> torch.Tensor:
    """An array as a tensor of a dtype; whole numbers as int64."""
    return torch.tensor(x, dtype=torch.int64 if np.issubdtype(np.asarray(x).dtype, np.integer) else dtype)


def compare(
    case: Case, forward: Call, backward: Call, tolerance: float, dtype: torch.dtype = torch.float64, infer: Call | None = None
) -> None:
    """Results and gradients against the reference; errors are relative to the largest element of a tensor. infer: what gives
    the results alone, compared as well.

    With a dtype below float64 the reference gets the rounded arrays, so that only the computation is judged.
    """
    args = tensors(case, dtype)
    cots = [torch.tensor(case.cotangents[name], dtype=dtype) for name in case.results]
    before = [x.clone() for x in (*args, *cots)]
    how: dict[str, Any] = {"reverse": True} if case.reverse else {}
    how |= {"cu_seqlens": torch.tensor(case.bounds)} if case.bounds else {}
    with torch.no_grad():
        got = forward(*args, **how)
        gradients = backward(*args, *got[len(cots) :], *cots, **how)
        alone = infer(*args, **how) if infer else ()
    for x, y in zip((*args, *cots), before, strict=True):
        assert torch.equal(x, y) or torch.equal(x.isnan(), y.isnan()), "an argument was written to"
    want, want_gradients = case.truth(dtype)
    assert len(gradients) == len(case.moved), (len(gradients), case.moved)
    for name, x in (*zip(case.results, got, strict=False), *zip(case.results, alone, strict=False)):
        close(x, want[name], tolerance, f"{name}, {describe(case)}", dtype)
    for name, x in zip(case.moved, map(case.kept, case.moved, gradients), strict=True):
        close(x, want_gradients[name], tolerance, f"gradient of {name}, {describe(case)}", dtype)


def close(x: torch.Tensor, want: Any, tolerance: float, what: str, dtype: torch.dtype) -> None:
    """x is `want` up to `tolerance` relative to the largest element, in shape, dtype and value."""
    assert x.dtype == dtype, f"{what}: {x.dtype}"
    assert tuple(x.shape) == want.shape, f"{what}: shape {tuple(x.shape)}, expected {want.shape}"
    scale = np.abs(want).max(initial=1.0)
    np.testing.assert_allclose(x.double().numpy(), want, rtol=0, atol=tolerance * scale, err_msg=what)


def describe(case: Case) -> str:
    """The sizes of a case, for messages."""
    return ", ".join(f"{name}{list(np.shape(x))}" for name, x in case.arrays.items())


def compare_split(case: Case, forward: Call, at: int, tolerance: float) -> None:
    """A run in two parts, the second from the first one's final states, equals the whole run."""
    p = case.program
    args = tensors(case)
    inputs, rest = args[: len(p.inputs)], args[len(p.inputs) :]
    params, states = rest[: len(p.params)], rest[len(p.params) :]
    count, steps = len(p.output_decls), inputs[0].shape[1]
    pieces = (slice(0, at), slice(at, steps))
    pieces = pieces if p.direction == "forward" else pieces[::-1]
    whole, parts = forward(*args), {}
    for piece in pieces:
        made = forward(*(x[:, piece] for x in inputs), *params, *states)
        parts[piece.start] = made[:count]
        states = list(made[count : count + len(states)])
    for i, name in enumerate(p.output_decls):
        joined = torch.cat([parts[k][i] for k in sorted(parts)], 1)
        close(joined, whole[i].numpy(), tolerance, f"{name} split at {at}", joined.dtype)
    for name, x, y in zip(p.states, states, whole[count:], strict=False):
        close(x, y.numpy(), tolerance, f"{name}_T split at {at}", x.dtype)


def compare_steps(case: Case, forward: Call, step: Call, tolerance: float, dtype: torch.dtype = torch.float64) -> None:
    """A loop of single steps equals the run."""
    p = case.program
    args = tensors(case, dtype)
    inputs, rest = args[: len(p.inputs)], args[len(p.inputs) :]
    params, states = rest[: len(p.params)], rest[len(p.params) :]
    count, steps = len(p.output_decls), inputs[0].shape[1]
    whole = forward(*args)
    for t in range(steps) if p.direction == "forward" else reversed(range(steps)):
        made = step(*(x[:, t].contiguous() for x in inputs), *params, *states)
        states = list(made[count:])
        for i, name in enumerate(p.output_decls):
            close(made[i], whole[i][:, t].numpy(), tolerance, f"{name} at step {t}", made[i].dtype)
    for name, x, y in zip(p.states, states, whole[count:], strict=False):
        close(x, y.numpy(), tolerance, f"{name}_T after steps", x.dtype)


def check_causality(case: Case, forward: Call, dtype: torch.dtype = torch.float32) -> None:
    """Outputs before t stay the same to the bit when inputs from t on change; the other way round for `scan backward`."""
    p = case.program
    args = tensors(case, dtype)
    steps = args[0].shape[1]
    whole = forward(*args)[: len(p.output_decls)]
    for t in sorted({1, steps // 3, steps // 2, steps - 1}):
        rows = slice(t, steps) if p.direction == "forward" else slice(0, t)
        kept = slice(0, t) if p.direction == "forward" else slice(t, steps)
        changed = []
        for x in args[: len(p.inputs)]:
            y = x.clone()
            y[:, rows] = x[:, rows].flip(1) * 0.5
            changed.append(y)
        other = forward(*changed, *args[len(p.inputs) :])
        for name, x, y in zip(p.output_decls, whole, other, strict=False):
            assert torch.equal(x[:, kept], y[:, kept]), f"{name} saw the future of t={t}"


__all__ = ["Case", "SIZES", "check_causality", "close", "compare", "compare_split", "compare_steps", "draw", "tensors"]
