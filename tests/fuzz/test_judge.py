"""The judge against loops that are written by hand: it must be right before it judges."""

from __future__ import annotations

import torch

from tests.fuzz.judge import How, judge


def _tensors(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {n: torch.randn(shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}


def test_a_decay_with_a_lag_and_its_gradient() -> None:
    text = ("spec f\ndim D\ninput x[D]\nparam a[D]\nstate h[D] = 0.5\nh = a * h[t-1] + 0.3 * h[t-2] + x[t-1]\n"
            "output o = h[t-1] * x\n")
    given = _tensors(x=(2, 4, 3), a=(3,), h_lag2_0=(2, 3))
    cotangents = _tensors(o=(2, 4, 3), h_T=(2, 3))
    found, slopes = judge(text, given, {"B": 2, "T": 4, "D": 3}, cotangents)
    x, a, older = (given[n].clone().requires_grad_() for n in ("x", "a", "h_lag2_0"))
    before, past, rows = older, torch.full((2, 3), 0.5, dtype=torch.float64), []
    for t in range(4):
        drive = x[:, t - 1] if t else torch.zeros(2, 3)
        rows.append(past * x[:, t])
        before, past = past, a * past + 0.3 * before + drive
    o = torch.stack(rows, 1)
    want = torch.autograd.grad((o * cotangents["o"]).sum() + (past * cotangents["h_T"]).sum(), (x, a, older))
    assert torch.equal(found["o"], o) and torch.equal(found["h_T"], past) and torch.equal(found["h_lag2_T"], before)
    for name, slope in zip(("x", "a", "h_lag2_0"), want, strict=True):
        assert torch.allclose(slopes[name], slope, atol=1e-14)


def test_a_matrix_state_with_boundaries_in_a_reversed_pack() -> None:
    text = ("spec f\ndim K, V\ninput k[K], v[V]\nstate S[K, V] = 0\nS = 0.9 * S[t-1] + k * v\noutput o = sum[K](k * S)\n"
            "every 2: S = 0.1 * S\n")
    given = _tensors(k=(1, 5, 2), v=(1, 5, 3), S_0=(2, 2, 3))
    found, _ = judge(text, given, {"B": 2, "T": 5, "K": 2, "V": 3}, how=How((0, 2, 5), reverse=True))
    for i, steps in enumerate(([1, 0], [4, 3, 2])):
        s = given["S_0"][i]
        for n, t in enumerate(steps):
            k, v = given["k"][0, t], given["v"][0, t]
            s = 0.9 * s + k[:, None] * v
            assert torch.allclose(found["o"][0, t], k @ s, atol=1e-14)
            s = 0.1 * s if n % 2 == 1 else s
        assert torch.allclose(found["S_T"][i], s, atol=1e-14)
        assert found["every_2_T"][i] == len(steps) % 2


def test_both_directions_and_a_fold() -> None:
    text = ("spec f\ndim J = 2\nscan both\ninput x[J]\nparam a\nstate h = 0\nh = fold[J](h[t-1], R -> max(a * R, x))\n"
            "output h\noutput c = sum[J](index[J] * x)\n")
    given = _tensors(x=(1, 3, 2)) | {"a": torch.tensor(0.5).double(), "a_reverse": torch.tensor(-2.0).double()}
    found, _ = judge(text, given, {"B": 1, "T": 3, "J": 2})
    x = given["x"][0]
    for way, (a, steps) in enumerate(((0.5, range(3)), (-2.0, range(2, -1, -1)))):
        h = 0.0
        for t in steps:
            h = max(a * max(a * h, float(x[t, 0])), float(x[t, 1]))
            assert abs(float(found["h"][0, t, way]) - h) < 1e-15 and float(found["c"][0, t, way]) == float(x[t, 1])


def test_a_complex_product_and_a_square() -> None:
    text = ("spec f\ndim D\ninput u complex, k[D]\nparam R[D, D]\nstate z complex = 0, h[D] = 0\nz = 0.5i * z[t-1] + u\n"
            "h = R @ h[t-1] + k\noutput y = re(z)\noutput C[D, D'] = k * k[D -> D']\n")
    given = _tensors(u_re=(1, 3), u_im=(1, 3), k=(1, 3, 2), R=(2, 2), h_0=(1, 2))
    found, _ = judge(text, given, {"B": 1, "T": 3, "D": 2})
    z, h = 0j, given["h_0"][0]
    for t in range(3):
        z = 0.5j * z + complex(given["u_re"][0, t], given["u_im"][0, t])
        h = given["R"] @ h + given["k"][0, t]
        assert abs(float(found["y"][0, t]) - z.real) < 1e-15
        assert torch.equal(found["C"][0, t], torch.outer(given["k"][0, t], given["k"][0, t]))
    assert torch.allclose(found["h_T"][0], h) and abs(float(found["z_im_T"]) - z.imag) < 1e-15


def test_the_branch_that_is_not_taken_has_no_gradient() -> None:
    text = "spec f\ninput x\nstate h = 0\nh = where(x > 0, sqrt(x), 0) + h[t-1]\noutput h\n"
    x = torch.tensor([[1.0, 0.0]]).double()
    _, slopes = judge(text, {"x": x}, {"B": 1, "T": 2}, {"h": torch.ones(1, 2).double()}, How(sheltered=True))
    assert slopes["x"].tolist() == [[1.0, 0.0]]
