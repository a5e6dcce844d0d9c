"""Edges that begin with the number of their place: the edit distance, with a price, against a loop of its own.

In a pack each sequence counts for itself, and a run from the last step back, or over the second axis back, from there.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.frontend.elaborate import load
from seqc.semantics import reference
from tests.fuzz.trial import Subject, Wish

EDIT = '''spec edit
"""The price of turning one string into another: a place that differs costs 1, and one more or less costs `price`."""
axis t, u
WAYS
input same in [0, 1]
param price
state d = 0
before t: d = price * (index[u] + 1)
before u: d = price * (index[t] + 1)
d = min(d[t-1] + price, d[u-1] + price, d[t-1, u-1] + 1 - same)
output d
'''

WAYS = (("", ()), ("scan t backward", (0,)), ("scan t backward\nscan u backward", (0, 1)))


def edited(same: torch.Tensor, price: torch.Tensor) -> torch.Tensor:
    """d [T, U] of one pair of strings."""
    above = [price * u for u in range(same.shape[1] + 1)]
    rows = []
    for t, line in enumerate(same):
        row = [price * (t + 1)]
        for u, equal in enumerate(line):
            row.append(torch.stack([above[u + 1] + price, row[u] + price, above[u] + 1 - equal]).min())
        rows.append(torch.stack(row[1:]))
        above = row
    return torch.stack(rows) if rows else same


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(("ways", "turned"), WAYS)
def test_the_edit_distance(ways: str, turned: tuple[int, ...], backend: str) -> None:
    """Forwards and reversed, of a batch and of a pack, with the gradient of what the edges are made of; and the oracle."""
    if backend == "cpu" and len(turned) == 1:
        pytest.skip("one build is of both directions")
    one = seqc.compile(EDIT.replace("WAYS", ways), backend)
    bounds, made = [0, 4, 4, 7], torch.Generator().manual_seed(0)
    row = torch.rand(1, 7, 3, generator=made, dtype=torch.float64)
    price, weights = torch.tensor(0.4, dtype=torch.float64, requires_grad=True), torch.rand(1, 7, 3, generator=made).double()
    for reverse in (False, True):
        axes = [a for a in (0, 1) if (a in turned) != (reverse and a == 0)]
        want = torch.cat([edited(row[0, a:b].flip(axes), price).flip(axes) for a, b in pairwise(bounds)])[None]
        got = one(row, price, cu_seqlens=torch.tensor(bounds), reverse=reverse).d
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
        alone = one(row[:, :4], price, reverse=reverse).d
        torch.testing.assert_close(alone, want[:, :4], rtol=0, atol=1e-12)
        slopes = [torch.autograd.grad((x * weights).sum(), price, retain_graph=True)[0] for x in (got, want)]
        torch.testing.assert_close(*slopes, rtol=0, atol=1e-12)
        found, found_slopes = oracle(ways, row[:, :4], price, weights[:, :4], reverse)
        torch.testing.assert_close(torch.tensor(found["d"].copy()), alone.detach(), rtol=0, atol=1e-12)
        mine = torch.autograd.grad((alone * weights[:, :4]).sum(), price)[0]
        torch.testing.assert_close(torch.tensor(float(found_slopes["price"]), dtype=torch.float64), mine, rtol=0, atol=1e-12)


def oracle(ways: str, row: torch.Tensor, price: torch.Tensor, weights: torch.Tensor, reverse: bool) -> Any:
    arrays = {"same": row.numpy(), "price": price.detach().numpy()}
    return reference.gradients(load(EDIT.replace("WAYS", ways)), arrays, {"d": weights.numpy()}, reverse=reverse)


def test_a_part_of_a_run_does_not_know_where_it_is() -> None:
    """A step and pieces are passed the edge that counts steps; with it they are the run."""
    one, price = seqc.compile(EDIT.replace("WAYS", ""), "torch"), torch.tensor(0.4, dtype=torch.float64)
    same = torch.rand(1, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for call in (lambda: one.step(same[:, 0], price), lambda: one(same, price, states_every=2)):
        with pytest.raises(ValueError, match="d_u_0 is what the spec says of a whole run"):
            call()
    edge = price * torch.arange(1, 5, dtype=torch.float64)[None]
    whole = one(same, price)
    torch.testing.assert_close(one(same, price, d_u_0=edge, states_every=2).d, whole.d, rtol=0, atol=0)
    torch.testing.assert_close(one.step(same[:, 0], price, d_u_0=edge[:, 0]).d, whole.d[:, 0], rtol=0, atol=0)


GOTOH = '''spec gotoh
"""A soft alignment with affine gaps (Gotoh 1982): a match, and a gap on either axis, over log-sum-exp."""
axis t, u
input s
param begin, more
state M = -inf, X = -inf, Y = -inf
before t, u: M = 0
before t: Y = -begin - more * index[u]
before u: X = -begin - more * index[t]
M = s + logaddexp(M[t-1, u-1], logaddexp(X[t-1, u-1], Y[t-1, u-1]))
X = logaddexp(M[t-1] - begin, X[t-1] - more)
Y = logaddexp(M[u-1] - begin, Y[u-1] - more)
output score = logaddexp(M, logaddexp(X, Y))
'''


def aligned(s: torch.Tensor, begin: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """The scores [T, U] of one pair, by a table of sums over alignments; what no alignment reaches is missing from it."""
    table: dict[tuple[str, int, int], torch.Tensor] = {("M", -1, -1): torch.zeros((), dtype=s.dtype)}
    table |= {("X", t, -1): -begin - more * t for t in range(s.shape[0])}
    table |= {("Y", -1, u): -begin - more * u for u in range(s.shape[1])}
    for t in range(s.shape[0]):
        for u in range(s.shape[1]):
            ways = {
                "M": [(("M", t - 1, u - 1), s[t, u]), (("X", t - 1, u - 1), s[t, u]), (("Y", t - 1, u - 1), s[t, u])],
                "X": [(("M", t - 1, u), -begin), (("X", t - 1, u), -more)],
                "Y": [(("M", t, u - 1), -begin), (("Y", t, u - 1), -more)],
            }
            for name, reads in ways.items():
                if found := [table[key] + price for key, price in reads if key in table]:
                    table[name, t, u] = torch.stack(found).logsumexp(0)
    rows = [[torch.stack([table[n, t, u] for n in "MXY" if (n, t, u) in table]).logsumexp(0) for u in range(s.shape[1])]
            for t in range(s.shape[0])]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("backend", ["torch", "cpu", "triton"])
def test_edges_that_the_diagonal_alone_reads(backend: str) -> None:
    """Y[t-1] and X[u-1] stand nowhere by themselves: their edges are read as Y[t-1, u-1] and X[t-1, u-1]."""
    dtype, tolerance = (torch.float32, 1e-5) if backend == "triton" else (torch.float64, 1e-12)
    f = Subject(GOTOH, Wish("triton")).function if backend == "triton" else seqc.compile(GOTOH, backend)
    made = torch.Generator().manual_seed(0)
    given = [torch.randn(2, 4, 5, generator=made, dtype=torch.float64), *torch.tensor([2.0, 0.5], dtype=torch.float64)]
    weights, found = torch.randn(2, 4, 5, generator=made, dtype=torch.float64), []
    calls = ((lambda s, *p: torch.stack([aligned(x, *p) for x in s]), torch.float64), (lambda *a: f(*a).score, dtype))
    for call, kind in calls:
        own = [x.to(dtype).to(kind).requires_grad_() for x in given]
        with np.errstate(invalid="ignore"):  # the interpreter subtracts -inf from -inf where neither is chosen
            score = call(*own)
            found.append([score, *torch.autograd.grad((score * weights.to(kind)).sum(), own)])
    for want, got in zip(*found, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)
