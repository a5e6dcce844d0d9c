"""Structured pruning: a smaller layer has the numbers of the one whose units were left out, and says what cannot shrink."""

from __future__ import annotations

import copy

import pytest
import torch

import seqc

LAYER = """spec heads
dim I, H, D, P
input x[I]
param W[H, D, I], R[H, D, D], C[P, H, D], b[H, D] init 0.1
buffer scale[D] init 1 + index[D]
state h[H, D] = 0
h = tanh(W @ x + R @ h[t-1] + b) * scale
output h
output y = sum[H](C @ h)
sparse R, C by magnitude keep 50%
"""
SIZES = {"I": 3, "H": 4, "D": 6, "P": 2}


@pytest.fixture(scope="module")
def heads() -> seqc.Recurrence:
    return seqc.compile(LAYER, "torch")


def layer(one: seqc.Recurrence) -> torch.nn.Module:
    torch.manual_seed(0)
    return one.Module(**SIZES, dtype=torch.float64)


def test_units_that_nothing_reads_go(heads: seqc.Recurrence) -> None:
    """After `prune_units`, with gradients of all that is left; the smaller layer trains on, and shrinks no further."""
    whole = layer(heads)
    told = whole.prune_units("D", 0.5)
    assert told["R"] == 0.75 and told["C"] == 0.5
    small = whole.shrink()
    kept = small.kept_positions["D"]
    assert small.dims == {**SIZES, "D": 3} and type(small) is type(whole) and len(kept) == 3
    assert list(small.kept_positions) == ["D"]
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    a, b = whole(x), small(x)
    torch.testing.assert_close(a.y, b.y, rtol=0, atol=1e-13)
    torch.testing.assert_close(a.h[..., kept], b.h, rtol=0, atol=1e-13)
    a.y.square().sum().backward()
    b.y.square().sum().backward()
    for name, p in small.named_parameters():
        want = getattr(whole, name).grad
        for axis, d in enumerate({"W": "H D I", "R": "H D D", "C": "P H D", "b": "H D"}[name].split()):
            want = want.index_select(axis, kept) if d == "D" else want
        torch.testing.assert_close(p.grad, want, rtol=0, atol=1e-12, msg=name)
    assert small.shrink().dims == small.dims and copy.deepcopy(small).R_mask.all()
    assert small.scale.tolist() == whole.scale[kept].tolist()


def test_heads_and_features_that_are_named(heads: seqc.Recurrence) -> None:
    """The numbers are those of a layer whose parameters that read the others hold 0: of heads C, of features W."""
    whole = layer(heads).eval()
    small = whole.shrink(H=[2, 0], I=torch.tensor([1]))
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    masked = copy.deepcopy(whole)
    with torch.no_grad():
        masked.C[:, [1, 3]] = 0
        masked.W[..., [0, 2]] = 0
    a, b = masked(x), small(x[..., 1:2])
    torch.testing.assert_close(a.y, b.y, rtol=0, atol=1e-13)
    torch.testing.assert_close(a.h[:, :, [2, 0]], b.h, rtol=0, atol=1e-13)
    assert not small.training and small.dims == {**SIZES, "H": 2, "I": 1}


def test_a_pruned_gru_in_native_code() -> None:
    one = seqc.compile("sparse_gru", "cpu")
    whole = one.Module(D=8, dtype=torch.float64)
    whole.prune_units("D", 0.75)
    whole.prune(0.5)
    small = whole.shrink()
    kept = small.kept_positions["D"]
    inputs = [torch.randn(2, 6, 8, dtype=torch.float64) for _ in range(3)]
    got = small(*(x[..., kept] for x in inputs))
    torch.testing.assert_close(whole(*inputs).h[..., kept], got.h, rtol=0, atol=1e-12)
    assert small.sparsity()["R_r"] > 0.1


@pytest.mark.parametrize(
    ("line", "dim", "words"),
    [
        ("output z = softmax[D](R @ h)", "D", r"its positions meet in"),
        ("output z[D] = h * index[D]", "D", r"its positions meet in `index\[D\]`"),
        ("output z = R @ h / D", "D", r"its positions meet in `"),
        ("output z[M] = sum[D](h * k)", "D", r"its positions meet in `sum\[D\]\(h \* k\)`"),
    ],
)
def test_dims_whose_positions_meet_otherwise_stay(line: str, dim: str, words: str) -> None:
    text = f"""spec meet
dim D, M
input x[D], k[M, D]
param Q[M, D]
param R[D, D]
state h[D] = 0
h = tanh(x + R @ h[t-1])
{line}
sparse R by magnitude keep 50%
"""
    one = seqc.compile(text, "torch").Module(D=4, M=2)
    with pytest.raises(ValueError, match=words):
        one.shrink(**{dim: [0, 1]})
    with pytest.raises(ValueError, match="positions of D do not go"):
        one.prune_units("D", 0.5)
    assert one.shrink().dims == one.dims


def test_what_is_wrong_is_said(heads: seqc.Recurrence) -> None:
    whole = layer(heads)
    with pytest.raises(ValueError, match="there is no such dim"):
        whole.shrink(Q=[0])
    for places in (4, None, [0.5], [[0, 1]], [0, 6], [-1], [True, False], torch.tensor(3)):
        with pytest.raises(ValueError, match="say which positions stay, a list of numbers from 0 to 5"):
            whole.shrink(D=places)
    with pytest.raises(ValueError, match="which is no share"):
        whole.prune_units("D", 1.5)
    with torch.no_grad():
        whole.R_mask.zero_()
        whole.C_mask.zero_()
    with pytest.raises(ValueError, match=r"nothing reads any position of [HD]: say which stay"):
        whole.shrink()
