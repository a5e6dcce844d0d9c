"""`a, b = fold[J](..)` and `scan[J](..)` on every backend: results and all gradients against a loop of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqc.frontend.elaborate import load
from tests.fuzz.trial import Subject, Wish
from tests.harness import draw
from tests.literature.memories import Given, Made
from tests.literature.test_literature import agree, looped

SPEC = """spec substeps
dim D = 3, J = 3
input x[D], g[J, D]
param w[J], c[D]
state V[D] = 0, m[D] = 0.5, y[D] = 0
V, m[D] = fold[J](V = V[t-1], m = m[t-1], V, m -> e = tanh(V + x), 0.9 * V + w * m * e, m + 0.1 * g * (e - c * m))
u, v = scan[J](a = V, b = y[t-1], a, b -> 0.5 * a + g * b, sigmoid(b - a))
y = 0.5 * y[t-1] + sum[J](w * v)
output V
output z[J, D] = u * v
"""


def step(x: Given, p: Given, s: Given) -> Made:
    V, m, rows = s["V"], s["m"], []
    for j in range(3):
        e = torch.tanh(V + x["x"])
        V, m = 0.9 * V + p["w"][j] * m * e, m + 0.1 * x["g"][:, j] * (e - p["c"] * m)
    a, b, y = V, s["y"], 0.5 * s["y"]
    for j in range(3):
        a, b = 0.5 * a + x["g"][:, j] * b, torch.sigmoid(b - a)
        rows.append(a * b)
        y = y + p["w"][j] * b
    return {"V": V, "z": torch.stack(rows, 1)}, {"V": V, "m": m, "y": y}


@pytest.mark.parametrize("backend", ["torch", "cpu", "triton"])
def test_a_fold_of_several_names(backend: str) -> None:
    program = load(SPEC)
    given = {n: torch.as_tensor(x) for n, x in draw(program, 4, seed=1).arrays.items()}
    call, dtype = Subject(SPEC, Wish(backend)).function, torch.float64 if backend == "torch" else torch.float32
    with np.errstate(all="ignore"):  # the interpreter divides 0 by 0 beyond the ends of tiles
        agree(lambda x: looped(program, step, x), lambda x: call(**x)._asdict(), given, dtype)
