"""Noise drawn in the step: the numbers, that every backend and every way to run draws the same, and gradients beside it.

The numbers are judged by the known answers of Threefry and by their moments; values and gradients that multiply them by plain
loops in torch, which take the draws as data from the spec's own outputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.ir.ops.random import threefry
from tests.hard.noise_cases import CELL, CHUNK, FORMS, SCAN, VARIATIONAL
from tests.triton import processes

ROOT = Path(__file__).parents[2]
DRAWS = '''spec draws
"""What is drawn, as outputs."""
dim D = 50
input x
output n[D] = normal[D]() + 0 * x
output u[D] = uniform[D]() + 0 * x
output b[D] = where(bernoulli[D](0.3), 1, 0) + 0 * x
output kept[D] = normal[D](once) + 0 * x
'''
B, T = 3, 23


def given(text: str, steps: int = T) -> dict[str, torch.Tensor]:
    """Random arguments of one of the specs, in float64."""
    made = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=made, dtype=torch.float64)

    if text is CELL:
        return {"x": normal(B, steps, 2), "W": normal(3, 2), "R": normal(3, 3), "size": normal(3)}
    if text is SCAN:
        return {"x": normal(B, steps, 3), "a": torch.sigmoid(normal(B, steps, 3))}
    return {"q": normal(B, steps, 3), "k": normal(B, steps, 3), "v": normal(B, steps, 2), "g": -normal(B, steps, 3).abs()}


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    """Form -> the recurrence, with native code beside plain torch."""
    return {form: seqc.compile(text, "cpu") for form, (text, _) in FORMS.items()}


@pytest.fixture(scope="module")
def drawn() -> Any:
    """Draws of a batch of 40 sequences and 50 steps."""
    return seqc.compile(DRAWS, "torch")(torch.zeros(40, 50), seed=5)


def carried(result: Any) -> dict[str, torch.Tensor]:
    """The states after a call, for the next one."""
    return {f"{name[:-2]}_0": x for name, x in result._asdict().items() if name.endswith("_T")}


def test_threefry_gives_the_known_answers() -> None:
    """Of the Random123 distribution, as JAX's tests have them too."""
    known = (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    )
    for key, counter, want in known:
        words = [tuple(np.array([x], np.uint32) for x in pair) for pair in (key, counter)]
        assert tuple(int(x[0]) for x in threefry(words[0], words[1])) == want


def test_moments(drawn: Any) -> None:
    """Within six standard errors of 100,000 draws."""
    n, u, b = (x.double() for x in (drawn.n, drawn.u, drawn.b))
    count = n.numel() ** 0.5
    for power, want, spread in ((1, 0.0, 1.0), (2, 1.0, 2**0.5), (3, 0.0, 15**0.5), (4, 3.0, 96**0.5)):
        assert abs(float((n**power).mean()) - want) < 6 * spread / count, power
    assert abs(float(u.mean()) - 0.5) < 6 * 12**-0.5 / count and float(u.min()) >= 0 and float(u.max()) < 1
    assert abs(float(u.var()) - 1 / 12) < 6 * 180**-0.5 / count
    assert abs(float(b.mean()) - 0.3) < 6 * 0.21**0.5 / count and set(b.unique().tolist()) == {0.0, 1.0}


def test_independence(drawn: Any) -> None:
    """Between places, steps, sequences and draws: correlations within six standard errors; no number twice in a row."""
    n, u = drawn.n.double(), drawn.u.double() - 0.5
    pairs = [(n[1:], n[:-1]), (n[:, 1:], n[:, :-1]), (n[..., 1:], n[..., :-1]), (n, u), (n[:, 1:] ** 2 - 1, n[:, :-1] ** 2 - 1)]
    for a, b in pairs:
        assert abs(float((a * b).mean()) / float(a.std() * b.std())) < 6 / a.numel() ** 0.5
    assert len(drawn.u.unique()) > drawn.u.numel() * 0.99


def test_once_a_sequence(drawn: Any) -> None:
    assert torch.equal(drawn.kept, drawn.kept[:, :1].expand_as(drawn.kept))
    assert len(drawn.kept[:, 0].unique()) == 40 * 50


def test_sites_are_names_and_not_places_in_the_text() -> None:
    other = DRAWS.replace("output u[D] = uniform[D]() + 0 * x\n", "").replace("dim D = 50", "dim D = 50\nu = uniform[D] ( )")
    other += "\n# moved, with another draw before it\noutput v[D] = uniform[D]() + 0 * x\noutput u\n"
    first, second = (seqc.compile(text, "torch")(torch.zeros(2, 3), seed=9) for text in (DRAWS, other))
    assert torch.equal(first.u, second.u) and torch.equal(first.n, second.n)
    assert not torch.equal(second.u, second.v)


@pytest.mark.parametrize("form", FORMS)
def test_every_backend_and_dtype_draws_the_same(form: str, compiled: dict[str, Any]) -> None:
    (text, rows), made = FORMS[form], compiled[form]
    arguments = given(text)
    name = made._compiled.signature.outputs[0].name
    want = seqc.oracle(text, seed=2**62 + 11, **arguments)[name]
    plain = seqc.compile(text, "torch", form=form, rows=rows)
    for one in (plain, made):
        for dtype, allowed in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
            got = one(**{k: x.to(dtype) for k, x in arguments.items()}, seed=2**62 + 11)
            assert np.abs(got[0].double().numpy() - want).max() <= allowed * np.abs(want).max()
            assert torch.equal(got.noise_clock_T, torch.full((B,), float(T), dtype=dtype))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_any_split_draws_the_same(form: str, backend: str, compiled: dict[str, Any]) -> None:
    """Runs in parts, single steps, packs, the other direction, and a batch in parts."""
    text, rows = FORMS[form]
    one = compiled[form] if backend == "cpu" else seqc.compile(text, "torch", form=form, rows=rows)
    arguments = given(text)
    inputs = {k: x for k, x in arguments.items() if x.dim() == 3}
    params = {k: x for k, x in arguments.items() if x.dim() < 3}
    whole = one(**arguments, seed=3)
    states: dict[str, Any] = {"seed": 3}
    for start, end in ((0, 1), (1, 18), (18, T)):
        part = one(**{k: x[:, start:end] for k, x in inputs.items()}, **params, **states)
        torch.testing.assert_close(part[0], whole[0][:, start:end], rtol=0, atol=1e-12)
        states = carried(part)
    step = one.step(**{k: x[:, 0] for k, x in inputs.items()}, **params, seed=3)
    for t in range(1, 4):
        step = one.step(**{k: x[:, t] for k, x in inputs.items()}, **params, **carried(step))
    torch.testing.assert_close(step[0], whole[0][:, 3], rtol=0, atol=1e-12)
    row = {k: x.reshape(1, B * T, -1) for k, x in inputs.items()}
    pack = one(**row, **params, seed=3, cu_seqlens=torch.arange(B + 1) * T)
    torch.testing.assert_close(pack[0].view_as(whole[0]), whole[0], rtol=0, atol=1e-12)
    back = one(**{k: x.flip(1) for k, x in inputs.items()}, **params, seed=3, reverse=True)
    torch.testing.assert_close(back[0].flip(1), whole[0], rtol=0, atol=1e-12)
    seeds = torch.tensor([7, 8, 7])
    several = one(**arguments, seed=seeds)
    for i in range(B):
        own = one(**{k: x[i : i + 1] for k, x in inputs.items()}, **params, seed=seeds[i : i + 1])
        torch.testing.assert_close(own[0][0], several[0][i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_gradients_through_what_multiplies_noise(backend: str) -> None:
    """Against a loop that takes the draws as data: dropout on inputs, dropout once a sequence, noise of a learnt size."""
    text = CELL + "output seen\noutput kept\noutput eps[D]\neps = normal[D]()\n"
    text = text.replace("size * normal[D]()", "size * eps")
    one = seqc.compile(text, backend)
    arguments = {k: x.requires_grad_() for k, x in given(CELL, 6).items()}
    got = one(**arguments, seed=1)
    weights = torch.randn(got.h.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    names = list(arguments)
    found = torch.autograd.grad((got.h * weights).sum(), list(arguments.values()))
    seen, kept, eps = (x.detach() for x in (got.seen, got.kept, got.eps))
    x, W, R, size = arguments.values()
    h = torch.zeros(B, 3, dtype=torch.float64)
    rows = []
    for t in range(6):
        h = torch.tanh((kept[:, t] * h) @ R.T + (seen[:, t] * x[:, t]) @ W.T + size * eps[:, t])
        rows.append(h)
    torch.testing.assert_close(torch.stack(rows, 1), got.h, rtol=0, atol=1e-12)
    want = torch.autograd.grad((torch.stack(rows, 1) * weights).sum(), list(arguments.values()))
    for name, a, b in zip(names, found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11, msg=name)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_variational_dropout_of_a_gru(backend: str) -> None:
    """With masks in the place of draws, the numbers of torch.nn.GRU under masks; with draws, what their masks give."""
    with np.load(ROOT / "tests" / "hard" / "numbers" / "variational_dropout_gru.npz") as found:
        every = {key: torch.tensor(found[key]) for key in found.files}
    arrays = {key[3:]: x.clone().requires_grad_() for key, x in every.items() if key.startswith("in.")}
    weights = {f"{kind}_{gate}": part for kind, name in (("W", "W_ih"), ("R", "W_hh"), ("b", "b_ih"), ("c", "b_hh"))
               for gate, part in zip("rzn", arrays[name].chunk(3), strict=True)}
    named = {"x": arrays["x"], **weights, "h_0": arrays["h0"]}
    masked = "".join(line for line in VARIATIONAL.splitlines(True) if "bernoulli" not in line)
    masked = masked.replace("input x[I]", "input x[I], seen[I]\nparam kept[D] per batch")
    one = seqc.compile(masked, backend)
    got = one(**named, seen=arrays["m_x"], kept=arrays["m_h"]).h
    torch.testing.assert_close(got, every["out.h"], rtol=0, atol=1e-9)
    names = [name for name in arrays if f"grad.{name}" in every]
    slopes = torch.autograd.grad((got * every["cot.h"]).sum(), [arrays[name] for name in names])
    for name, x in zip(names, slopes, strict=True):
        torch.testing.assert_close(x, every[f"grad.{name}"], rtol=0, atol=1e-9, msg=name)
    drawn = seqc.compile(VARIATIONAL + "output seen\noutput kept\n", backend)(**named, seed=8)
    again = one(**named, seen=drawn.seen.detach(), kept=drawn.kept[:, 0].detach())
    torch.testing.assert_close(drawn.h, again.h, rtol=0, atol=1e-12)
    assert set(drawn.seen.detach().unique().tolist()) == {0.0, 4 / 3}


def test_triton_draws_the_same() -> None:
    """Values, gradients and packs of every form, in Triton's interpreter, against the reference."""
    answers = processes.run(["-m", "tests.hard.noise_in_triton"])
    assert answers.returncode == 0, answers.stderr
    assert [line.strip() for line in answers.stdout.splitlines()] == [""] * len(FORMS), answers.stdout


def test_without_a_seed_torch_gives_one() -> None:
    one = seqc.compile(DRAWS, "torch")
    x = torch.zeros(2, 3)
    torch.manual_seed(0)
    first, second = one(x).n, one(x).n
    torch.manual_seed(0)
    assert torch.equal(one(x).n, first) and not torch.equal(first, second)
    with pytest.raises(ValueError, match="by a seed, or as two states"):
        one(x, seed=1, **carried(one(x)))
    with pytest.raises(ValueError, match="one a sequence"):
        one(x, seed=torch.tensor([1, 2, 3]))


def test_both_directions_draw_different_noise() -> None:
    one = seqc.compile(CHUNK.replace("input q", "scan both\ninput q"), "torch")
    arguments = {k: torch.ones_like(x) * (0.0 if k == "g" else 1.0) for k, x in given(CHUNK).items()}
    forward, back = one(**arguments, seed=4).o.chunk(2, -1)
    assert not torch.allclose(forward, back.flip(1))


def test_the_clock_begins_again_after_its_last_number() -> None:
    one = seqc.compile(SCAN, "torch")
    arguments = given(SCAN)
    start = {"noise_low_0": torch.full((B,), 5.0), "noise_high_0": torch.full((B,), 6.0)}
    late = one(**arguments, **start, noise_clock_0=torch.full((B,), 2.0**24 - 4))
    assert torch.equal(late.noise_clock_T, torch.full((B,), float(T - 4), dtype=torch.float64))
    rest = {k: x[:, 4:] for k, x in arguments.items()}
    again = one(**rest, **start, noise_clock_0=torch.zeros(B), h_0=late.h[:, 3])
    torch.testing.assert_close(again.h, late.h[:, 4:], rtol=0, atol=1e-12)


def test_random_initial_values_of_params() -> None:
    text = '''spec filled
"""Params that begin with random values."""
dim D, M, H = 2
input x[M]
param W[D, M] init uniform(-1 / sqrt(M), 1 / sqrt(M)), R[H, D, D] init orthogonal(2), b[D] init normal(1, 0.02)
param f[D] init log(uniform(1, 9)), Q[H, D, D] init 0.5 * orthogonal + where(index[D] == index[D'], 1, 0)
param U[D, M] init xavier_normal, N[D, M] init kaiming_uniform
state h[H, D] = 0
h = tanh((R + Q) @ h[t-1] + (W + U + N) @ x + b * f)
output h
'''
    made = seqc.compile(text, "torch").Module(D=100, M=50).requires_grad_(False)
    assert 0.9 * 50**-0.5 < float(made.W.abs().max()) <= 50**-0.5
    torch.testing.assert_close(made.R @ made.R.mT, 4 * torch.eye(100).expand(2, -1, -1), rtol=0, atol=1e-5)
    assert abs(float(made.b.mean()) - 1) < 0.02 and 0.01 < float(made.b.std()) < 0.03
    assert 0 < float(made.f.min()) < 0.2 and 2.15 < float(made.f.max()) < float(np.log(9))
    turned = 2 * (made.Q - torch.eye(100))
    torch.testing.assert_close(turned @ turned.mT, torch.eye(100).expand(2, -1, -1), rtol=0, atol=1e-5)
    assert abs(float(made.U.std()) / (2 / 150) ** 0.5 - 1) < 0.1
    assert 0.9 * (6 / 50) ** 0.5 < float(made.N.abs().max()) <= (6 / 50) ** 0.5
