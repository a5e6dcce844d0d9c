"""`Module.prune`, `regrow` and `sparsity`: which elements stay, against torch's own pruning and against sorting by hand; masks
through training, `state_dict`, `deepcopy` and `torch.compile`; a pruned GRU against torch.nn.GRU's numbers."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import prune

import seqc

CELL = """spec cell
dim I, D, H = 2
input x[I]
param W[D, I], R[H, D, D], N[D, D], S[D, D]
state h[H, D] = 0
h = tanh(W @ x + R @ h[t-1] + N @ h[t-1] + S @ h[t-1])
output h
sparse W by mask
sparse R by magnitude keep 25% block 4
sparse N keep 2 of 4
sparse S by magnitude keep 50%
sparse S by band 3
"""
GRU = """spec pruned_gru
dim I, D
input x[I]
param W_r[D, I], W_z[D, I], W_n[D, I], R_r[D, D], R_z[D, D], R_n[D, D]
param b_r[D], b_z[D], b_n[D], c_r[D], c_z[D], c_n[D]
state h[D] = 0
r = sigmoid(W_r @ x + b_r + R_r @ h[t-1] + c_r)
z = sigmoid(W_z @ x + b_z + R_z @ h[t-1] + c_z)
n = tanh(W_n @ x + b_n + r * (R_n @ h[t-1] + c_n))
output h = n + z * (h[t-1] - n)
sparse W_r, W_z, W_n, R_r, R_z, R_n by magnitude keep 20%
"""


def _module(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return seqc.compile(CELL, backend="torch").Module(I=3, D=8)


def test_what_stays() -> None:
    module = _module()
    R, N, S = (getattr(module, name).detach() for name in ("R", "N", "S"))
    assert module.sparsity() == {"W": 0, "R": 0, "N": 0, "S": 20 / 64}
    left = module.prune()
    assert left == {"W": 0, "R": 0.75, "N": 0.5, "S": 1 - 22 / 64}
    for head in range(2):  # one of four squares stays in each head
        norms = {(i, j): float(R[head, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].square().sum()) for i in (0, 1) for j in (0, 1)}
        i, j = max(norms, key=lambda at: norms[at])
        want = torch.zeros(8, 8, dtype=torch.bool)
        want[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = True
        assert torch.equal(module.R_mask[head], want)
    for row, mask in zip(N, module.N_mask, strict=True):
        for four in (slice(0, 4), slice(4, 8)):
            assert set(mask[four].nonzero().flatten().tolist()) == set(row[four].abs().argsort()[2:].tolist())
    band = {(i, j): float(abs(S[i, j])) for i in range(8) for j in range(8) if abs(i - j) <= 3}
    largest = sorted(band, key=lambda at: band[at])[-22:]
    assert {(i, j) for i, j in module.S_mask.nonzero().tolist()} == set(largest)


def test_thresholds_against_torch() -> None:
    module = seqc.compile(GRU, backend="torch").Module(I=5, D=12)
    alone = copy.deepcopy(module)
    alone.prune(0.3)
    names = [name for name, _ in module.named_buffers()]
    for name in names:
        linear = torch.nn.Linear(1, 1, bias=False)
        linear.weight = torch.nn.Parameter(getattr(module, name.removesuffix("_mask")).detach().clone())
        prune.l1_unstructured(linear, "weight", amount=linear.weight.numel() - round(0.3 * linear.weight.numel()))
        assert torch.equal(getattr(alone, name), linear.weight_mask.bool()), name
    module.prune(0.3, scope="all")
    every = torch.cat([getattr(module, name.removesuffix("_mask")).detach().abs().flatten() for name in names])
    threshold = every.sort().values[-round(0.3 * every.numel())]
    for name in names:
        assert torch.equal(getattr(module, name), getattr(module, name.removesuffix("_mask")).abs() >= threshold), name


def test_pruning_goes_on_from_what_is_left() -> None:
    module = _module()
    module.prune(0.5, block=1)
    before = module.R_mask.clone()
    with torch.no_grad():
        module.R.copy_(torch.where(module.R_mask, module.R, 100.0))  # left out: whatever they hold, they stay out
    module.prune(0.25, block=1)
    assert (module.R_mask & ~before).sum() == 0
    assert module.sparsity()["R"] == 0.75
    module.prune(0.0, block=1)
    assert module.sparsity()["R"] == 1
    assert torch.isfinite(module(torch.randn(2, 3, 3)).h).all()
    with pytest.raises(ValueError, match="between 0 and 1"):
        module.prune(2)
    with pytest.raises(ValueError, match="how much of W"):
        module.prune(names=["W"])
    assert module.prune(0.25, names=["W"], by="random")["W"] == 0.75


def test_regrowth_takes_the_largest_gradients() -> None:
    module = _module(1)
    module.prune(0.5, block=1)
    x = torch.randn(2, 6, 3)
    sparse = module(x).h
    with module.dense_gradients():
        assert torch.equal(module(x).h, sparse)
        module(x).h.square().sum().backward()
    old, counts, weights = module.R_mask.clone(), module.R_mask.sum((-1, -2)), module.R.detach().clone()
    module.regrow(0.25, block=1)
    assert torch.equal(module.R_mask.sum((-1, -2)), counts)
    for head in range(2):
        kept = weights[head].abs().masked_fill(~old[head], -1).flatten()
        stays = set(kept.sort(descending=True).indices[: int(counts[head]) - round(0.25 * int(counts[head]))].tolist())
        grown = module.R.grad[head].abs().flatten()
        others = sorted((i for i in range(64) if i not in stays), key=lambda i: float(grown[i]))
        want = stays | set(others[len(stays) - int(counts[head]) :])
        assert set(module.R_mask[head].flatten().nonzero().flatten().tolist()) == want
    new = module.R_mask & ~old
    assert new.any()
    assert (module.R[new] == 0).all()


def test_neighbours_of_odd_sizes_and_beside_rules() -> None:
    """Of `keep 2 of 4` the last neighbours may be fewer; what a rule leaves out is not counted; regrowth keeps the pattern."""
    text = CELL.replace("sparse N keep 2 of 4", "sparse N keep 2 of 4\nsparse N zero diagonal")
    module = seqc.compile(text, backend="torch").Module(I=3, D=7)
    with torch.no_grad():
        module.N.normal_().fill_diagonal_(9)
        assert module.prune(names=["N"])["N"] == pytest.approx(1 - 28 / 49)

    def by_hand(scores: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(7, 7, dtype=torch.bool)
        for row in range(7):
            for group in ((0, 1, 2, 3), (4, 5, 6)):
                best = sorted((at for at in group if at != row), key=lambda at: -float(scores[row, at]))[:2]
                found[row, best] = True
        return found

    assert torch.equal(module.N_mask, by_hand(module.N.detach().abs()))
    before, coming = module.N_mask.clone(), torch.rand(7, 7)
    module.regrow(1.0, by={"N": coming, "R": module.R, "S": module.S})
    assert torch.equal(module.N_mask, by_hand(coming)) and not torch.equal(module.N_mask, before)


def test_masks_survive_training_and_copies() -> None:
    module = _module()
    module.prune()
    masks = {name: mask.clone() for name, mask in module.named_buffers()}
    x = torch.randn(2, 5, 3)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(x).h.square().sum().backward()
        assert (module.R.grad[~masks["R_mask"]] == 0).all()
        optimizer.step()
    other = _module(5)
    other.load_state_dict(module.state_dict())
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for copied in (copy.deepcopy(module), other, compiled):
        assert all(torch.equal(mask, masks[name.removeprefix("_orig_mod.")]) for name, mask in copied.named_buffers())
        torch.testing.assert_close(copied(x).h, module(x).h)
    module.prune(0.0, block=1, names=["R"])
    torch.testing.assert_close(compiled(x).h, module(x).h)  # a mask is read at every call


def test_the_cubic_schedule() -> None:
    keep_at = type(_module()).keep_at
    assert [keep_at(step, 10, 0.1) for step in (0, 10, 20)] == [1.0, 0.1, 0.1]
    assert keep_at(5, 10, 0.0) == pytest.approx(0.125)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_a_pruned_gru_of_torch(backend: str) -> None:
    path = Path(__file__).parent / "cases" / "gru_pruned_magnitude.npz"
    case = {name: torch.tensor(np.asarray(x)) for name, x in np.load(path).items()}
    leaves = {name: case[f"in.{name}"].clone().requires_grad_() for name in ("x", "h0", "w_hh", "w_ih", "b_ih", "b_hh")}
    given = {"x": leaves["x"], "h_0": leaves["h0"]}
    for i, gate in enumerate("rzn"):
        part = slice(16 * i, 16 * i + 16)
        given |= {f"W_{gate}": leaves["w_ih"][part], f"R_{gate}": leaves["w_hh"][part], f"b_{gate}": leaves["b_ih"][part],
                  f"c_{gate}": leaves["b_hh"][part], f"W_{gate}_mask": case["in.mask_ih"][part],
                  f"R_{gate}_mask": case["in.mask_hh"][part]}
    h = seqc.compile(GRU, backend=backend)(**given).h
    torch.testing.assert_close(h, case["out.h"], rtol=0, atol=1e-12)
    h.backward(case["cot.h"])
    for name, x in leaves.items():
        torch.testing.assert_close(x.grad, case[f"grad.{name}"], rtol=0, atol=1e-10)
