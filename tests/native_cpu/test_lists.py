"""Native products with sparse matrices: lists of panels and of rows, empty rows, whole matrices, matrices that are not square,
threads that share a sequence; against plain torch in float64, with every gradient, and to the bit against parts of a batch."""

import math

import pytest
import torch

import seqc
from seqc.api import Recurrence

# more rows than a vector has lanes, and no multiple of them
H, D, E, STEPS = 2, 21, 13, 5
SPEC = """spec lists
dim H, D, E
input x[H, D], y[H, E]
param R[H, D, D], P[H, D, D], Q[H, D, E], U[H, E, D]
state h[H, D] = 0, g[H, E] = 0
u = R @ h[t-1] - P @ (h[t-1] * x) + Q @ g[t-1] + R @ cos(h[t-1])  # one matrix twice
h = tanh(x + u)
g = tanh(y + U @ h[t-1])
output h, g
sparse R, P, Q, U by mask
"""


@pytest.fixture(scope="module")
def both() -> tuple[Recurrence, Recurrence]:
    return seqc.compile(SPEC, backend="cpu"), seqc.compile(SPEC, backend="torch")


def _given(kind: str, batch: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    shapes = {"R": (H, D, D), "P": (H, D, D), "Q": (H, D, E), "U": (H, E, D)}
    x = {"x": torch.randn(batch, STEPS, H, D), "y": torch.randn(batch, STEPS, H, E)}
    x |= {name: torch.randn(shape) / math.sqrt(shape[-1]) for name, shape in shapes.items()}
    made = {name: value.double().requires_grad_() for name, value in x.items()}
    return made | {f"{name}_mask": _mask(kind, shape) for name, shape in shapes.items()}


def _mask(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    if kind.endswith("panels"):  # of one vector of float64, or of two
        block, share = (4, 0.1) if kind == "short panels" else (8, 0.3)
        kept = torch.rand(*shape[:1], *(-(-n // block) for n in shape[1:])) < share
        return kept.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, : shape[1], : shape[2]]
    share = {"rows": 0.06, "nothing": 0.0, "everything": 1.0, "one row": 0.0, "some": 0.2}[kind]
    kept = torch.rand(shape) < share
    if kind == "one row":
        kept[0, -1] = True
    return kept


def _all(recurrence: Recurrence, given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    torch.manual_seed(6)
    results = recurrence(**given)
    loss = torch.stack([(torch.randn_like(y) * y).sum() for y in results]).sum()
    return [*results, *torch.autograd.grad(loss, [x for x in given.values() if x.requires_grad])]


@pytest.mark.parametrize("kind", ["panels", "short panels", "rows", "some", "nothing", "one row", "everything"])
def test_lists(both: tuple[Recurrence, Recurrence], kind: str) -> None:
    given = _given(kind, 7)
    got, want = (_all(one, given) for one in both)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    assert got[0].abs().max() > 0.1


@pytest.mark.parametrize("kind", ["panels", "short panels", "rows"])
def test_a_batch_is_its_rows_to_the_bit(both: tuple[Recurrence, Recurrence], kind: str) -> None:
    given = _given(kind, 7)  # blocks of 4, 2 and 1 rows
    with torch.no_grad():
        whole = both[0](**given)
        for row in range(7):
            one = both[0](**{**given, "x": given["x"][row : row + 1], "y": given["y"][row : row + 1]})
            assert all(torch.equal(a[row : row + 1], b) for a, b in zip(whole, one, strict=True))


def test_the_text_walks_lists_and_that_of_a_dense_spec_does_not(both: tuple[Recurrence, Recurrence]) -> None:
    text = both[0].source
    assert text.count("template multiply<r_B>(") == 9  # five forward; turned, the two of R are one
    assert text.count("_native_kept(library, \"") == 5
    dense = seqc.compile(SPEC.replace("sparse R, P, Q, U by mask\n", ""), backend="cpu").source
    assert "Sparse" not in dense
    assert "_native_kept" not in dense
