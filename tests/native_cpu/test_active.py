"""Products with spikes in native code: the columns of silent neurons are skipped, dense or sparse, and no number changes."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

import seqc
from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted

D = 131  # no multiple of a vector's lanes
N = 187  # so large that several threads share a sequence
SPEC = f"""spec spikes
dim D = {D}
input x[D]
param R[D, D], Q[D, D], decay
state u[D] = 0, z[D] = 0
u = decay * u[t-1] + R @ z[t-1] + Q @ tanh(u[t-1]) + x
z = withgrad(x + 0.001 * u > 1, max(0, 1 - abs(x)))
output u
output z
"""


@pytest.fixture(scope="module")
def spikes() -> ModuleType:
    return load_emitted(compile_spec(SPEC, Options("cpu")).text, "spikes")


def loop(x: torch.Tensor, R: torch.Tensor, Q: torch.Tensor, decay: torch.Tensor) -> list[torch.Tensor]:
    """By hand, with the slope of the spikes."""
    u = z = torch.zeros_like(x[:, 0])
    rows = []
    for t in range(x.shape[1]):
        u = decay * u + z @ R.T + torch.tanh(u) @ Q.T + x[:, t]
        slope = (1 - x[:, t].abs()).clamp(min=0).detach()
        above = x[:, t] + 0.001 * u
        z = (above > 1).to(x.dtype) + slope * (above - above.detach())
        rows.append((u, z))
    return [torch.stack(column, 1) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.3, 1.0])
def test_every_share_of_spikes(spikes: ModuleType, share: float) -> None:
    """None, a list, a list for some rows of the batch, all columns."""
    torch.manual_seed(0)
    batch, steps = 5, 6
    on = torch.rand(batch, steps, D) < share * torch.tensor([1.0, 1.0, 0.1, 1.0, 0.0])[:, None, None]
    x = torch.where(on, 1.5, 0.4 * torch.randn(batch, steps, D)).double().requires_grad_()
    R, Q = (torch.randn(D, D, dtype=torch.float64).div(D**0.5).requires_grad_() for _ in range(2))
    decay = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    given = [x, R, Q, decay]
    found, wanted = spikes.spikes(*given)[:2], loop(*given)
    weights = [torch.randn_like(y) for y in wanted]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    losses = [sum((w * y).sum() for w, y in zip(weights, ys, strict=True)) for ys in (found, wanted)]
    for one, other in zip(*(torch.autograd.grad(loss, given) for loss in losses), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_run_in_parts_has_the_same_bits(spikes: ModuleType) -> None:
    """The rows of a batch share a list; alone a row has another."""
    torch.manual_seed(1)
    x = torch.where(torch.rand(4, 8, D) < 0.05, 1.5, -1.0)
    R, Q, decay = torch.randn(D, D), torch.randn(D, D) / D, torch.tensor(0.9)
    whole = spikes.spikes(x, R, Q, decay)
    first = spikes.spikes(x[:, :3], R, Q, decay)
    second = spikes.spikes(x[:, 3:], R, Q, decay, u_0=first.u_T, z_0=first.z_T)
    assert torch.equal(torch.cat([first.u, second.u], 1), whole.u)
    again = [spikes.spikes(x[i : i + 1], R, Q, decay).u for i in range(4)]
    torch.testing.assert_close(torch.cat(again), whole.u, rtol=1e-5, atol=1e-5)


def test_lists_are_for_spikes_alone() -> None:
    said = compile_spec(SPEC, Options("cpu")).text
    assert said.count("= active_columns<") == 1  # R @ z, not the product with Q
    other = SPEC.replace("z = withgrad(x + 0.001 * u > 1, max(0, 1 - abs(x)))", "z = relu(x + u)")
    assert "active_columns<" not in compile_spec(other, Options("cpu")).text
    for text, count in ((SPEC, 1), (SPARSE, 1), (other, 0)):
        assert " ".join(seqc.explain(text, "cpu").split()).count("is 0 but where a neuron spikes") == count


SPARSE = SPEC.replace(f"dim D = {D}", f"dim D = {N}").replace("spec spikes", "spec sparse_spikes") + "sparse R, Q by mask\n"


@pytest.fixture(scope="module")
def sparse() -> ModuleType:
    return load_emitted(compile_spec(SPARSE, Options("cpu")).text, "sparse_spikes")


def given(batch: int, kind: str, share: float) -> list[torch.Tensor]:
    """Arguments of the sparse spec, in its order. kind: of the mask of R."""
    torch.manual_seed(2)
    x = torch.where(torch.rand(batch, 6, N) < share, 1.5, 0.4 * torch.randn(batch, 6, N)).double().requires_grad_()
    R, Q = (torch.randn(N, N, dtype=torch.float64).div(N**0.5).requires_grad_() for _ in range(2))
    some = torch.rand(N, N) < {"some": 0.2, "few": 0.01, "nothing": 0.0}.get(kind, 1.0)
    if kind == "blocks":
        some = torch.block_diag(*[torch.ones(16, 16)] * 12)[:N, :N].bool()
    return [x, R, Q, torch.tensor(0.9, dtype=torch.float64, requires_grad=True), some, torch.rand(N, N) < 0.1]


@pytest.mark.parametrize("kind", ["some", "few", "nothing", "blocks", "everything"])
@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_lists_of_kept_weights_skip_silent_neurons(sparse: ModuleType, kind: str, share: float) -> None:
    """Weights by columns where they are scattered, in panels where they are not; one matrix without spikes beside."""
    *arguments, mask, other = given(5, kind, share)
    x, R, Q, decay = arguments
    found, wanted = sparse.sparse_spikes(*arguments, mask, other)[:2], loop(x, R * mask, Q * other, decay)
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    weights = [torch.randn_like(y) for y in wanted]
    losses = [sum((w * y).sum() for w, y in zip(weights, ys, strict=True)) for ys in (found, wanted)]
    for one, two in zip(*(torch.autograd.grad(loss, arguments) for loss in losses), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


def test_lists_of_kept_weights_change_no_bit(sparse: ModuleType) -> None:
    """Whatever rows stand beside one, wherever a run is cut, and however many threads share it."""
    x, R, Q, decay, mask, other = given(5, "some", 0.1)
    before = torch.get_num_threads()
    with torch.no_grad():
        whole = sparse.sparse_spikes(x, R, Q, decay, mask, other)
        for row in range(5):
            one = sparse.sparse_spikes(x[row : row + 1], R, Q, decay, mask, other)
            assert torch.equal(one.u[0], whole.u[row]) and torch.equal(one.z[0], whole.z[row])
        first = sparse.sparse_spikes(x[:, :2], R, Q, decay, mask, other)
        second = sparse.sparse_spikes(x[:, 2:], R, Q, decay, mask, other, u_0=first.u_T, z_0=first.z_T)
        assert torch.equal(torch.cat([first.u, second.u], 1), whole.u)
        try:
            torch.set_num_threads(5)
            assert torch.equal(sparse.sparse_spikes(x, R, Q, decay, mask, other).u, whole.u)
        finally:
            torch.set_num_threads(before)
