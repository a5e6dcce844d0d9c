"""Laws that need no judge: what must not change the numbers of a call, or must not reach them.

In: a compiled program and a call. Out: `Problem`s. A batch is its rows; a pack is its sequences; names and the order of
statements mean nothing; what is NaN in another row of the batch, or in later steps, stays there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from seqc.ir.graph import leaves
from seqc.ir.windows import lags
from seqc.semantics.packed_arrays import part
from tests.fuzz.reading import read
from tests.fuzz.trial import ROUNDINGS, UNIT, Arrays, Call, Problem, Subject, error

WORDS = frozenset((
    "dim", "axis", "scan", "input", "param", "const", "state", "output", "every", "eigenvalues", "schedule", "in", "unit",
    "init", "complex", "lag", "per", "batch", "and", "or", "not", "buffer", "index", "sparse", "by", "band", "blocks", "lower",
    "mask", "zero", "diagonal", "keep", "of", "over", "feedback", "history", "checkpoint", "once", "shared", "sum", "both",
    "down", "first", "up", "grad",
))
LOOSE = 1e3  # sums over other axes, in another order


def batch_is_its_rows(subject: Subject, call: Call) -> Iterator[Problem]:
    """Results and gradients of a batch, from calls of one row each; gradients of what rows share are sums."""
    call = replace(call, bounds=None)
    arrays, cotangents = subject.arguments(call)
    bounds = [(i, i + 1) for i in range(call.sizes["B"])]
    pieces = [({k: _row(subject, k, x, i) for k, x in arrays.items()}, {k: x[i : i + 1] for k, x in cotangents.items()})
              for i, _ in bounds]
    alone = replace(call, sizes={**call.sizes, "B": 1})
    yield from _together(subject, call, subject.answer(call, arrays, cotangents),
                         [subject.answer(alone, *piece) for piece in pieces], 0, "a batch is its rows")


def pack_is_its_sequences(subject: Subject, call: Call) -> Iterator[Problem]:
    """Results and gradients of a pack, from calls of one sequence each."""
    if call.bounds is None:
        return
    arrays, cotangents = subject.arguments(call)
    found = subject.answer(call, arrays, cotangents)
    pieces = []
    for i, (start, end) in enumerate(pairwise(call.bounds)):
        own = [part(subject.program, x, call.bounds, i) for x in (arrays, cotangents)]
        alone = replace(call, bounds=None, sizes={**call.sizes, "B": 1, "T": end - start})
        pieces.append(subject.answer(alone, *own))
    yield from _together(subject, call, found, pieces, 1, "a pack is its sequences")


def _row(subject: Subject, name: str, x: torch.Tensor, i: int) -> torch.Tensor:
    decl = subject.program.params.get(name)
    return x if decl is not None and not decl.per_batch else x[i : i + 1]


def _together(
    subject: Subject, call: Call, whole: tuple[Arrays, Arrays], pieces: list[tuple[Arrays, Arrays]], axis: int, law: str
) -> Iterator[Problem]:
    timed = {n.replace(".", "_") for n in (*subject.program.inputs, *subject.program.output_decls)}
    shared = {n for n, d in subject.program.params.items() if not d.per_batch}
    for which, kind in enumerate(("values", "gradients")):
        for name, x in whole[which].items():
            own = [p[which][name] for p in pieces]
            joined = torch.stack(own).sum(0) if name in shared else torch.cat(own, axis if name in timed else 0)
            yield from _differ(subject, call, f"{law}: {kind}", name, x, joined.double())


def _differ(subject: Subject, call: Call, law: str, name: str, x: torch.Tensor, want: torch.Tensor) -> Iterator[Problem]:
    off = error(x, want)
    if not off <= UNIT[call.dtype] * ROUNDINGS * (call.sizes["T"] + 8) * LOOSE:
        yield Problem("law", subject.part, law, f"{call.words()}: {name}: {off:.3g}", off)


def names_mean_nothing(subject: Subject, call: Call) -> Iterator[Problem]:
    """The same program with other names, which sort the other way, and its statements in another order."""
    spec = read(subject.text)
    names = [*spec.dims, *spec.inputs, *spec.params, *spec.consts, *spec.states, *spec.defined, *spec.outputs]
    if any(d.is_complex for kind in (spec.inputs, spec.params, spec.states) for d in kind.values()):
        return  # parts of complex values have names of their own
    if spec.sites() or spec.sparse:
        return  # a draw is told by the name that it stands under, and masks by that of their param
    table = {name: f"n{999 - i}" for i, name in enumerate(dict.fromkeys(names))}
    head, *lines = subject.text.strip().splitlines()
    lines = [re.sub(r"(?<![\w'])[^\W\d]\w*", lambda m: table.get(m[0], m[0]), line) for line in lines]
    if any(name in WORDS for name in names):
        return
    order = np.random.default_rng(call.seed).permutation(len(lines))
    text = "\n".join((head, *(lines[i] for i in order), ""))
    other = Subject(text, replace(subject.wish, dims={}))
    arrays, cotangents = subject.arguments(call)

    def renamed(given: Arrays) -> Arrays:
        return {_called(k, table): x for k, x in given.items()}

    first = subject.answer(call, arrays, cotangents)
    second = other.answer(call, renamed(arrays), renamed(cotangents))
    for which, kind in enumerate(("values", "gradients")):
        for name, x in first[which].items():
            want = second[which][_called(name, table)].double()
            yield from _differ(subject, call, f"names mean nothing: {kind}", name, x, want)


def _called(name: str, table: dict[str, str]) -> str:
    """A name of a call, such as `h_0` or `h.lag2_T`, after renaming."""
    stem = next((s for s in sorted(table, key=len, reverse=True) if name == s or re.match(rf"{re.escape(s)}[._]", name)), None)
    return name if stem is None else table[stem] + name[len(stem) :]


def nan_stays(subject: Subject, call: Call) -> Iterator[Problem]:
    """NaN in the inputs of the batch's last row, or in later steps, reaches no result of other rows, or of earlier steps."""
    sizes = {**call.sizes, "B": max(call.sizes["B"], 2), "T": max(call.sizes["T"], 3)}
    call = replace(call, bounds=None, reverse=False, sizes=sizes)
    arrays, cotangents = subject.arguments(call)
    inputs = set(subject.program.inputs)
    inputs = {k for k in inputs if arrays[k].is_floating_point()}
    rows = {k: torch.where(_last(x), torch.nan, x) if k in inputs else x for k, x in arrays.items()}
    first, second = (subject.answer(call, given, cotangents)[0] for given in (arrays, rows))
    for name, x in first.items():
        yield from _differ(subject, call, "NaN stays in its row", name, x[:-1], second[name][:-1].double())
    ahead = max((-min(lags(n)) for n in leaves(subject.program.graph.values(), "input")), default=0)
    if subject.program.direction != "forward" or ahead > 0 or subject.program.wishes.convolution:
        return
    cut = call.sizes["T"] // 2
    later = {k: x.clone() for k, x in arrays.items()}
    for name in inputs:
        later[name][:, cut:] = torch.nan
    third = subject.answer(call, later, cotangents)[0]
    for name, x in first.items():
        if not name.endswith("_T"):
            yield from _differ(subject, call, "NaN stays in later steps", name, x[:, :cut], third[name][:, :cut].double())


def _last(x: torch.Tensor) -> torch.Tensor:
    row = torch.arange(x.shape[0]) == x.shape[0] - 1
    return row.view(-1, *[1] * (x.dim() - 1)).expand_as(x)


LAWS = (batch_is_its_rows, pack_is_its_sequences, names_mean_nothing, nan_stays)

__all__ = ["LAWS", "batch_is_its_rows", "names_mean_nothing", "nan_stays", "pack_is_its_sequences"]
