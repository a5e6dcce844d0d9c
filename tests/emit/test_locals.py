"""Names of a spec that locals of emitted functions are called by, beside the names that these are made of.

In: specs of each walk in plain names, and names for them. Out: the same results and gradients to rounding, under the
names that the spec has.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqc.diagnostics import Unsupported
from seqc.frontend.elaborate import load
from seqc.ir.apart import apart
from seqc.ir.arguments import argument_table
from tests.fuzz.trial import Subject, Wish
from tests.harness import draw

STEP = """spec named
dim D
input pa[D], pb[D] in [0, 1]
param pc in [0.1, 1], pd[D, D]
state sa[D] = 0, sb[D] = 0
sa = tanh(pb * (pd @ sa[t-1]) + pc * pa)
sb = pb * sb[t-1] + sa
output oa = sb
output ob = sum[D](sa)
"""
GROUPS = """spec named
dim D, P = 3
input pa[D], pb[D] in [0, 1]
param pc in [0.1, 1], pd[D, P, D]
state sa[D] = 0, sb[D] = 0
sa = pb * sa[t-1] + pa + pc * sb[t-1]
down 3: sb = tanh(pc * sb[t-1] + sum[P](pd @ down[P](pa)))
output oa = sa
output ob = sum[D](sb)
"""
PLANE = """spec named
axis t, u
dim D
input pa[D], pb[D] in [0, 1]
param pc in [0.1, 1], pd[D, D]
state sa[D] = 0
before u: sa = 1
oa = tanh(pb * sa[t-1] + pc * sa[u-1] + pd @ sa[t-1, u-1] + pa)
sa = oa
output oa
output ob = sum[D](sa)
"""
BLOCKS = STEP.replace("tanh(pb * (pd @ sa[t-1]) + pc * pa)", "pb * (pd @ sa[t-1]) + pc * pa")
CASES = {
    "a call": (STEP, "pa d_oa, pc d_sa, pd sa_all, oa need_pb, sb d_pb"),
    "launchers": (STEP, "pa STEP, pb empty, pc DOT, pd PRECISION"),
    "both runs": (STEP.replace("dim D", "dim D\nscan both"), "pa d_oa, pc d_pb, pd sa_all, sb d_sa"),
    "Newton's method": (STEP.replace("dim D", "dim D\nschedule newton"), "pa d_oa, pc sa_before, pd d_sa, sa own_sa"),
    "pieces of time": (BLOCKS, "pa d_pb, pc d_sa, pd sb_all, pb sa_of_sb"),
    "groups": (GROUPS, "pa d_oa, pc first, pd length, sb d_sa, oa pb_1, ob whole"),
    "diagonals": (PLANE, "pa steps, pc width, pd d_oa, pb sa_all"),
}
ELSEWHERE = [("cpu", "groups"), ("triton", "groups"), ("triton", "launchers")]


def called(text: str, names: str) -> str:
    """The spec with other names."""
    for pair in names.split(", "):
        text = re.sub(rf"\b{pair.split()[0]}\b", pair.split()[1], text)
    return text


def answers(text: str, backend: str) -> tuple[list[str], list[torch.Tensor]]:
    """The names of the results, and all results and gradients of random arguments, in order."""
    subject = Subject(text, Wish(backend))
    case = draw(subject.program, 5)
    dtype = torch.float32 if backend == "triton" else torch.float64
    given = [torch.tensor(case.arrays[a.name], dtype=dtype, requires_grad=a.gradient) for a in argument_table(subject.program)
             if not a.name.startswith("down")]
    arguments = [a.name.replace(".", "_") for a in argument_table(subject.program) if not a.name.startswith("down")]
    with np.errstate(all="ignore"):
        made: Any = subject.function(**dict(zip(arguments, given, strict=True)))
        found = {n: x for n, x in made._asdict().items() if not n.startswith("down")}
        loss = torch.stack([(x * torch.linspace(-1, 1, x.numel(), dtype=dtype).reshape(x.shape)).sum() for x in found.values()])
        slopes = torch.autograd.grad(loss.sum(), [x for x in given if x.requires_grad])
    return list(found), [*found.values(), *slopes]


@pytest.mark.parametrize(("backend", "walk"), [*(("torch", walk) for walk in CASES), *ELSEWHERE])
def test_names_mean_nothing(backend: str, walk: str) -> None:
    text, names = CASES[walk]
    (plain, want), (results, got) = answers(text, backend), answers(called(text, names), backend)
    table = dict(pair.split() for pair in names.split(", "))
    ends = {f"{old}{end}": f"{new}{end}" for old, new in table.items() for end in ("_T", "_reverse_T")}
    assert results == [(table | ends).get(n, n) for n in plain]
    least = 1e-5 if backend == "triton" else 1e-10
    for x, y in zip(want, got, strict=True):
        torch.testing.assert_close(y, x, rtol=10 * least, atol=least)


def test_other_names_stay() -> None:
    program = load(STEP)
    assert apart(program) is program
    path = Path(__file__).parents[2] / "specs" / "crf.seq"  # `first` and `steps` are locals of other walks
    assert apart(load(path)) == load(path)


def test_a_result_that_is_called_as_an_argument_is_refused() -> None:
    with pytest.raises(Unsupported, match="two things of the emitted file would be called `sa_reverse_T`"):
        Subject(called(CASES["both runs"][0], "pc sa_reverse_T"), Wish("torch"))


def test_a_sparse_param_keeps_its_mask_under_another_name() -> None:
    named = STEP.replace("pd", "d_pa").replace("[D, D]\n", "[D, D]\nsparse d_pa zero diagonal\n")
    params = apart(load(named)).params
    support = params["own_d_pa"].support
    assert support is not None and params[support.mask].mask
