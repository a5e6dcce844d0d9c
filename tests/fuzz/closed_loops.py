"""Closed loops of random programs against the judge: `generate` over a prompt, or over steps that are given here and there.

In: a program that is compiled, a call. Out: problems.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch

from seqc.ir.arguments import argument_table
from tests.fuzz.judge import How, judge
from tests.fuzz.trial import COUNTS, Arrays, Call, Problem, Subject, cast, compared, differentiated, name_of


@dataclass(frozen=True)
class Loop:
    """One call of `generate`. whole: arrays with all steps, for the judge; given: what is passed; ways: how; which: [B, T], or
    [1, T] of a pack; rows: of a prompt, the steps of the row that it has, None where arrays have all steps."""

    whole: Arrays
    given: Arrays
    ways: dict[str, Any]
    which: torch.Tensor
    rows: list[int] | None


def drawn(subject: Subject, call: Call, rng: np.random.Generator) -> Loop:
    """A call of prompts of any length, or of steps that are given here and there, with NaN at the others."""
    program, loop = subject.program, subject.compiled.loop
    assert program.loop is not None and loop is not None
    arrays, _ = subject.arguments(call)
    batch, steps = 1 if call.bounds else call.sizes["B"], call.sizes["T"]
    places = (batch, steps) if program.plane is None else (batch, steps, call.sizes[program.plane.dim])
    own = {argument.name for argument in argument_table(loop.program)}
    arrays = {k: x for k, x in arrays.items() if k in own or not k.endswith("_0")}
    ways: dict[str, Any] = {"steps": steps, "reverse": call.reverse}
    ways |= {"cu_seqlens": torch.tensor(call.bounds)} if call.bounds else {}
    if rng.random() < 0.5:
        which = torch.as_tensor(rng.random(places) < 0.5)
        blank = {k: torch.where(which.view(*places, *[1] * (arrays[k].ndim - len(places))), arrays[k], torch.nan)
                 for k in program.loop.fed}
        return Loop(arrays, {**arrays, **blank}, ways | {"given": which}, which, None)
    back = (program.direction == "backward") != call.reverse
    rows, lengths = [], []
    for start, end in pairwise(call.bounds or (0, steps)):
        lengths.append(int(rng.integers(0, end - start + 1)))
        rows += range(end - lengths[-1], end) if back else range(start, start + lengths[-1])
    ways |= {"cu_prompts": torch.tensor([0, *accumulate(lengths)])} if call.bounds else {}
    which = torch.zeros(places, dtype=torch.bool)
    which[:, rows] = True
    return Loop(arrays, {**arrays, **{k: arrays[k][:, rows] for k in program.loop.fed}}, ways, which, rows)


def closed_loop(subject: Subject, call: Call) -> Iterator[Problem]:
    """A closed loop with all its gradients: of a batch, or of a pack of short sequences."""
    program = subject.program
    if program.loop is None:
        return
    call = replace(call, bounds=None, defaults=False)
    rng = np.random.default_rng(call.seed)
    if rng.random() < 0.4:
        bounds = tuple(accumulate(map(int, rng.integers(0, 5, 3)), initial=0))
        call = replace(call, bounds=bounds, sizes={**call.sizes, "B": 3, "T": bounds[-1]}) if bounds[-1] else call
    made = drawn(subject, call, rng)
    axes = {f"{n.replace('.', '_')}_0": d.dims for n, d in program.states.items() if ".lag" in n}
    how = How(call.bounds, call.reverse, axes=axes, prompts=made.which)
    plain = {k.replace(".", "_"): x for k, x in made.whole.items()}
    shapes, _ = judge(subject.text, plain, call.sizes, None, how)
    wanted = [*program.output_decls, *(f"{s}_T" for s in program.states if f"{s}_0" in made.whole)]
    cotangents = {k: torch.as_tensor(rng.standard_normal(shapes[name].shape))
                  for k in wanted if (name := k.replace(".", "_")) in shapes}
    cotangents = {k: torch.zeros_like(x) if k.startswith(COUNTS) else x for k, x in cotangents.items()}
    weights = {k.replace(".", "_"): x for k, x in cotangents.items()}

    def truth(arguments: Arrays) -> tuple[Arrays, Arrays]:
        assert program.loop is not None
        want, slopes = judge(subject.text, arguments, call.sizes, weights, how)
        return want, slopes if made.rows is None else slopes | {k: slopes[k][:, made.rows] for k in program.loop.fed}

    passed = {k: cast(x, getattr(torch, call.dtype)).requires_grad_(k in subject.moved) for k, x in made.given.items()}
    generate = getattr(subject.module, subject.compiled.signature.spec + "_generate")
    with np.errstate(all="ignore"):
        results = generate(**{name_of(k): x for k, x in passed.items()}, **made.ways)
        found, slopes = differentiated({k: getattr(results, name_of(k)) for k in cotangents}, cotangents, passed)
    got = ({k.replace(".", "_"): x.detach() for k, x in found.items()}, {k.replace(".", "_"): x for k, x in slopes.items()})
    way = "closed loop, given here and there" if made.rows is None else "closed loop"
    yield from compared(subject, call, got, truth, plain, way)


__all__ = ["closed_loop"]
