"""The judge against loops that are written by hand: it must be right before it judges."""

from __future__ import annotations

from zlib import crc32

import torch

from tests.fuzz.judge import How, judge
from tests.fuzz.threefry import threefry
from tests.fuzz.values import rounding


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


def test_each_name_of_a_fold_and_of_a_scan() -> None:
    text = ("spec f\ndim J = 2\ninput x[J]\nstate h = 0, r = 1\n"
            "h, r = fold[J](h[t-1], r[t-1], a, b -> e = a * b, e + x, b - e)\n"
            "u, v = scan[J](h, r, a, b -> a + b, a * x)\noutput u\noutput w = v\n")
    given = _tensors(x=(1, 2, 2))
    found, _ = judge(text, given, {"B": 1, "T": 2, "J": 2})
    h, r = torch.tensor(0.0).double(), torch.tensor(1.0).double()
    for t, x in enumerate(given["x"][0]):
        for j in range(2):
            h, r = h * r + x[j], r - h * r
        a, b = h, r
        for j in range(2):
            a, b = a + b, a * x[j]
            assert torch.allclose(found["u"][0, t, j], a) and torch.allclose(found["w"][0, t, j], b)
    assert torch.allclose(found["h_T"][0], h) and torch.allclose(found["r_T"][0], r)


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


def test_noise_is_threefry_of_the_key_the_step_the_draw_and_the_place() -> None:
    """Known answers of the Random123 distribution; a draw by hand from the layout in docs/decisions/noise.md."""
    known = (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    )
    for key, counter, want in known:
        found = threefry([torch.tensor(x) for x in key], [torch.tensor(x) for x in counter])
        assert tuple(int(x) for x in found) == want
    text = ("spec f\ndim D\ninput x[D]\nstate h[D]\nh = h[t-1] + x * uniform[D]()\n"
            "output o[D] = bernoulli[D](0.5, once) + 0 * h\n")
    counts = {"low": 7.0, "high": 9.0, "clock": 3.0}
    given = _tensors(x=(1, 3, 2)) | {f"noise_{n}_0": torch.tensor([v]) for n, v in counts.items()}
    found, _ = judge(text, given, {"B": 1, "T": 3, "D": 2})
    h, sites = torch.zeros(2).double(), [crc32(name) % 65536 for name in (b"h.0", b"o.0")]

    def word(site: int, step: int, place: int) -> float:
        key = (7 | (site & 255) << 24, 9 | (site >> 8) << 24)
        return (int(threefry([torch.tensor(x) for x in key], [torch.tensor(step), torch.tensor(place)])[0]) >> 8) / 2**24

    for t in range(3):
        h = h + given["x"][0, t] * torch.tensor([word(sites[0], 3 + t, i) for i in (0, 1)]).double()
    assert torch.allclose(found["h_T"][0], h, atol=1e-14) and int(found["noise_clock_T"][0]) == 6
    assert found["o"][0, 2].tolist() == [float(word(sites[1], 1 << 24, i) < 0.5) for i in (0, 1)]


def test_rows_of_tables_and_systems_of_equations() -> None:
    text = ("spec f\ndim N, D, K\ninput w[K] index N, x[K, D], k[D]\nparam E[N, D]\nstate M[N, D]\nM[w] = 0.5 * M[t-1, w] + x\n"
            "output o[D] = solve(2 * eye[D] + k * k[D -> D'], sum[K](M[t-1, w] + E[w]))\n"
            "output f = logdet(2 * eye[D] + k * k[D -> D'])\n")
    given = _tensors(x=(1, 3, 2, 2), k=(1, 3, 2), E=(3, 2), M_0=(1, 3, 2)) | {"w": torch.tensor([[[0, 2], [1, 1], [2, 0]]])}
    found, slopes = judge(text, given, {"B": 1, "T": 3, "N": 3, "D": 2, "K": 2}, {"o": torch.ones(1, 3, 2).double()})
    table, rows = given["M_0"][0].clone(), given["E"].clone().requires_grad_()
    total = torch.zeros(()).double()
    for t in range(3):
        w, k = given["w"][0, t].tolist(), given["k"][0, t]
        m = 2 * torch.eye(2).double() + torch.outer(k, k)
        o = torch.linalg.solve(m, sum(table[i] + rows[i] for i in w))
        total = total + o.sum()
        assert torch.allclose(found["o"][0, t], o.detach(), atol=1e-14)
        assert torch.allclose(found["f"][0, t], torch.linalg.det(m).log(), atol=1e-14)
        old = table.clone()
        for j, i in enumerate(w):
            table[i] = 0.5 * old[i] + given["x"][0, t, j]
    assert torch.allclose(found["M_T"][0], table, atol=1e-14)
    (want,) = torch.autograd.grad(total, rows)
    assert torch.allclose(slopes["E"], want, atol=1e-14)


def test_a_closed_loop_a_history_and_a_gradient_that_is_cut() -> None:
    text = ("spec f\ndim D\ninput x[D], u\nparam R[D, D]\nstate h[D]\nhistory u 2\ng = gradclip(h[t-1], 0.5)\n"
            "h = R @ g + x + u[t-2]\noutput h\nfeedback x = 0.5 * h[t-1]\nsparse R by lower zero diagonal\n")
    given = _tensors(x=(1, 3, 2), u=(1, 3), R=(2, 2), h_0=(1, 2), u_lag1_0=(1,), u_lag2_0=(1,))
    mask = torch.tensor([[True, False, False]])
    found, slopes = judge(text, given, {"B": 1, "T": 3, "D": 2}, {"h": torch.full((1, 3, 2), 10.0).double()}, How(prompts=mask))
    h, below = given["h_0"][0], given["R"][1, 0]
    drives = [given["u_lag2_0"][0], given["u_lag1_0"][0], given["u"][0, 0]]
    for t in range(3):
        x = given["x"][0, 0] if t == 0 else 0.5 * h
        h = torch.stack([torch.zeros(()).double(), below * h[0]]) + x + drives[t]
        assert torch.allclose(found["h"][0, t], h, atol=1e-14)
    assert torch.equal(found["u_lag1_T"], given["u"][:, 2]) and torch.equal(found["u_lag2_T"], given["u"][:, 1])
    # the first step's h_0 is read through `g` alone: what comes back is cut
    assert float(slopes["h_0"].abs().max()) <= 0.5 and float(slopes["R"][0].abs().max()) == 0.0


def test_what_rounding_does_is_measured_backwards_too() -> None:
    """The slope of l2norm cancels what the slope of layernorm, up to 1e-5^-0.5 a norm, amplifies; whole numbers are exact."""
    text = "spec f\ndim V\ninput x[V]\nstate h[V]\nh = l2norm[V](layernorm[V](1 + x * x))\noutput h, n = 2 * index[V] + 1\n"
    text = text.replace("output h, n", "output h\noutput n[V]")
    given, sizes = {"x": torch.tensor([[[0.01, 0.02]]]).double()}, {"B": 1, "T": 1, "V": 2}
    cotangents = {"h": torch.tensor([[[1.0, 2.0]]]).double()}
    plain, slopes = judge(text, given, sizes, cotangents)
    with rounding(1e-9, 1):
        found, other = judge(text, given, sizes, cotangents)
    assert 0 < float((found["h"] - plain["h"]).abs().max()) < 1e-6 and torch.equal(found["n"], plain["n"])
    assert float((slopes["x"] - other["x"]).abs().max()) > 1e-9


def test_a_slope_within_a_step_and_its_gradient() -> None:
    """Of a loss through a definition, by a state one step ago, by a param of which each sequence has its own, and twice."""
    text = ("spec f\ndim K\ninput k[K], v\nparam a\nstate W[K] = 0\nmiss = sum[K](W[t-1] * k) - a * v\nloss = miss^4\n"
            "W = W[t-1] - 0.1 * grad(loss, W[t-1])\noutput o = grad(loss, a)\noutput p[K] = grad(grad(loss, v) * v, k)\n")
    given = _tensors(k=(2, 3, 2), v=(2, 3), a=(), W_0=(2, 2))
    cotangents = _tensors(o=(2, 3), p=(2, 3, 2), W_T=(2, 2))
    found, slopes = judge(text, given, {"B": 2, "T": 3, "K": 2}, cotangents)
    own = {n: x.clone().requires_grad_() for n, x in given.items()}
    W, a, o, p = own["W_0"], own["a"], [], []
    for t in range(3):
        k, v = own["k"][:, t], own["v"][:, t]
        miss = (W * k).sum(-1) - a * v
        o.append(-4 * miss**3 * v)
        p.append((-12 * a * v * miss**2)[:, None] * W)
        W = W - 0.4 * (miss**3)[:, None] * k
    results = {"o": torch.stack(o, 1), "p": torch.stack(p, 1), "W_T": W}
    want = torch.autograd.grad(sum((x * cotangents[n]).sum() for n, x in results.items()), list(own.values()))
    for n, x in results.items():
        assert torch.allclose(found[n], x, rtol=1e-12, atol=1e-12)
    for n, x in zip(own, want, strict=True):
        assert torch.allclose(slopes[n], x, rtol=1e-12, atol=1e-12), n


def test_a_slope_by_a_running_value_counts_one_micro_step() -> None:
    text = ("spec f\ndim J = 2\ninput x[J]\nstate h = 0\nh = fold[J](h[t-1], R -> R - 0.5 * grad(R^2 * x + h[t-1] * R, R))\n"
            "output h\n")
    given = _tensors(x=(1, 3, 2), h_0=(1,))
    found, _ = judge(text, given, {"B": 1, "T": 3, "J": 2})
    h = float(given["h_0"])
    for t in range(3):
        start = h
        for j in range(2):
            h -= 0.5 * (2 * h * float(given["x"][0, t, j]) + start)
        assert abs(float(found["h"][0, t]) - h) < 1e-12


def test_several_rates_from_the_last_step_back() -> None:
    """Groups of four of which the first has one step, what they have seen, and what they give to the steps after them."""
    text = ("spec f\ndim P = 4, Q = 2\ninput x\nstate g = 0, u[P] = 0.5, s = 0\ndown 4 first 1: g = 0.5 * g[t-1] + "
            "sum[P](index[P] * down[P](x))\ndown 4 first 1: u = g + index[P]\ndown 8: s = sum[Q]((1 + index[Q]) * down[Q](g))\n"
            "output g, s\noutput y = up[P](u[t-1])\noutput z = up[P](u)\n")
    given = _tensors(x=(1, 11))
    found, _ = judge(text, given, {"B": 1, "T": 11, "P": 4, "Q": 2}, how=How(reverse=True))
    x = given["x"][0].flip(0).tolist()
    g, s, u, past = 0.0, 0.0, [0.5] * 4, [0.0] * 4
    for t in range(11):
        before = u
        if t % 4 == 0:
            g = 0.5 * g + sum(j * x[t - 3 + j] for j in range(4) if t - 3 + j >= 0)
            u = [g + j for j in range(4)]
        past.append(g)
        if t == 7:
            s = past[-5] + 2 * past[-1]
        row = [g, s, before[(t + 3) % 4], u[(t + 3) % 4]]
        for name, want in zip("gsyz", row, strict=True):
            assert abs(float(found[name][0, 10 - t]) - want) < 1e-12, (name, t)
    assert float(found["down_4_1_T"]) == 2.0 and float(found["down_8_T"]) == 3.0


def test_two_axes_with_their_edges() -> None:
    """From the last u to the first: neighbours, an input beside, edges that are passed and edges that the spec says."""
    text = ("spec f\naxis t, u\nscan u backward\ndim D\ninput x[D]\nparam a\nstate h[D] = 0.5, g = -1\n"
            "before u: g = a * index[t]\nbefore t, u: h = 2\nh = 0.3 * h[t-1] - a * h[u-1] + 0.2 * h[t-1, u-1] + x[t-1, u+1]\n"
            "g = 0.5 * g[u-1] + sum[D](h)\noutput o = h\noutput p = g - g[t-1]\n")
    given = _tensors(x=(2, 3, 4, 2), a=(), h_0=(2, 4, 2))
    cotangents = _tensors(o=(2, 3, 4, 2), p=(2, 3, 4), h_T=(2, 4, 2), h_u_T=(2, 3, 2))
    found, slopes = judge(text, given, {"B": 2, "T": 3, "U": 4, "D": 2}, cotangents)
    x, a, h_0 = (given[n].clone().requires_grad_() for n in ("x", "a", "h_0"))
    two, half, one = torch.full((2, 2), 2.0).double(), torch.full((2, 2), 0.5).double(), torch.full((2,), -1.0).double()
    h, g = {}, {}
    for t in range(3):
        for n, u in enumerate((3, 2, 1, 0)):  # the n-th cell of a row; x[u+1] is the cell before it
            up = h[t - 1, u] if t else h_0[:, u]
            side = h[t, u + 1] if n else half
            both = h[t - 1, u + 1] if t and n else h_0[:, u + 1] if n else half if t else two
            drive = x[:, t - 1, u - 1] if t and u else torch.zeros(2, 2).double()
            h[t, u] = 0.3 * up - a * side + 0.2 * both + drive
            g[t, u] = 0.5 * (g[t, u + 1] if n else a * t) + h[t, u].sum(-1)
    rows = {"o": [[h[t, u] for u in range(4)] for t in range(3)],
            "p": [[g[t, u] - (g[t - 1, u] if t else one) for u in range(4)] for t in range(3)]}
    want = {n: torch.stack([torch.stack(row, 1) for row in table], 1) for n, table in rows.items()}
    want |= {"h_T": torch.stack([h[2, u] for u in range(4)], 1), "h_u_T": torch.stack([h[t, 0] for t in range(3)], 1)}
    for n, y in want.items():
        assert torch.allclose(found[n], y, atol=1e-13), n
    assert torch.equal(found["h_t_u_T"], half)
    true = torch.autograd.grad(sum((y * cotangents[n]).sum() for n, y in want.items()), (x, a, h_0))
    for n, slope in zip(("x", "a", "h_0"), true, strict=True):
        assert torch.allclose(slopes[n], slope, atol=1e-13), n


def test_one_place_of_a_table_and_another_order() -> None:
    text = ("spec f\ndim A, V, K\ninput s index A, w index V, r, order[V] index V\nbuffer near[V, K]\nstate Q[A, V], h[V]\n"
            "Q[s, w] = 0.5 * Q[t-1, s, w] + r\nh = h[t-1][position[V](near[K = 0])] + Q[s][order]\noutput o = h\n")
    given = _tensors(r=(1, 4), Q_0=(1, 2, 3), h_0=(1, 3)) | {"near": torch.tensor([[1.7, 0], [9.0, 0], [-3.0, 0]]).double()}
    given |= {"s": torch.tensor([[0, 1, 1, 0]]), "w": torch.tensor([[2, 0, 0, 1]])}
    given |= {"order": torch.tensor([[[2, 1, 0], [0, 0, 1], [1, 2, 2], [0, 1, 2]]])}
    found, _ = judge(text, given, {"B": 1, "T": 4, "A": 2, "V": 3, "K": 2})
    q, h = given["Q_0"][0].clone(), given["h_0"][0]
    for t in range(4):
        s, w = int(given["s"][0, t]), int(given["w"][0, t])
        q[s, w] = 0.5 * q[s, w] + given["r"][0, t]
        h = h[[1, 2, 0]] + q[s][given["order"][0, t]]
        assert torch.allclose(found["o"][0, t], h, atol=1e-14), t
    assert torch.equal(found["Q_T"][0], q)
