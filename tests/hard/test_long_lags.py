"""Values that are read many steps back: one state for each name, whose values stand in the order of time.

Each recurrence is written by hand as a loop in torch with autograd: results, and gradients of everything, the values before the
first step too, in float64, to 1e-12. A run in two parts, in reverse, step by step and as a pack is what one run gives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import seqc
from seqc.frontend import elaborate
from tests.triton.test_kernels import interpret

B, T, D, LAG, FAR = 2, 41, 3, 12, 36
Found = dict[str, Tensor]
STATE = f"""spec season
dim D
input x[D]
param w[D]
state h[D] = 0.5
h = tanh(0.5 * w * h[t-1] + 0.3 * h[t-{LAG}] * h[t-2] + x)
output h
"""
DEFINITION = f"""spec echo
dim D
input x[D]
param w[D]
e = tanh(w * x)
output y = e + e[t-{FAR}] * e[t-3]
"""
COMPLEX = f"""spec comb
dim D
input x[D] complex
param a[D]
state z[D] complex = 0
z = 0.3 * a * z[t-1] + (0.2 + 0.4i) * z[t-{LAG}] + x
output y = re(z)
"""
TAPS = f"""spec tail
dim D, L = {FAR}
input x[D]
param w[L, D]
e = tanh(x)
output y = sum[L](w * e[t - index[L]])
"""


def season(x: Tensor, w: Tensor, h_0: Tensor, h_lags_0: Tensor) -> Found:
    past = [*h_lags_0.unbind(1), h_0]
    for now in x.unbind(1):
        past.append(torch.tanh(0.5 * w * past[-1] + 0.3 * past[-LAG] * past[-2] + now))
    return {"h": torch.stack(past[LAG:], 1), "h_T": past[-1], "h_lags_T": torch.stack(past[-LAG:-1], 1)}


def echo(x: Tensor, w: Tensor, e_lags_0: Tensor) -> Found:
    past, rows = list(e_lags_0.unbind(1)), []
    for now in x.unbind(1):
        e = torch.tanh(w * now)
        rows.append(e + past[-FAR] * past[-3])
        past.append(e)
    return {"y": torch.stack(rows, 1), "e_lags_T": torch.stack(past[-FAR:], 1)}


def comb(
    x_re: Tensor, x_im: Tensor, a: Tensor, z_re_0: Tensor, z_im_0: Tensor, z_re_lags_0: Tensor, z_im_lags_0: Tensor
) -> Found:
    past = [*torch.complex(z_re_lags_0, z_im_lags_0).unbind(1), torch.complex(z_re_0, z_im_0)]
    for now in torch.complex(x_re, x_im).unbind(1):
        past.append(0.3 * a * past[-1] + (0.2 + 0.4j) * past[-LAG] + now)
    lags = torch.stack(past[-LAG:-1], 1)
    return {"y": torch.stack(past[LAG:], 1).real, "z_re_T": past[-1].real, "z_im_T": past[-1].imag,
            "z_re_lags_T": lags.real, "z_im_lags_T": lags.imag}


def tail(x: Tensor, w: Tensor, e_lags_0: Tensor) -> Found:
    past, rows = list(e_lags_0.unbind(1)), []
    for now in x.unbind(1):
        past.append(torch.tanh(now))
        rows.append(sum((w[i] * past[-1 - i] for i in range(FAR)), torch.zeros_like(now)))
    return {"y": torch.stack(rows, 1), "e_lags_T": torch.stack(past[1 - FAR:], 1)}


CASES: dict[str, tuple[str, Callable[..., Found]]] = {
    "state": (STATE, season), "definition": (DEFINITION, echo), "complex": (COMPLEX, comb), "taps": (TAPS, tail),
}
RUNS = [*((name, "torch") for name in CASES), ("state", "cpu"), ("taps", "cpu")]


def arguments(text: str) -> Found:
    """Of every argument of a call, random values."""
    program = elaborate.load(text)
    sizes = {"D": D, "L": FAR} | {d.name: d.choices[0] for d in program.dims.values() if d.choices}
    draw = torch.Generator().manual_seed(3)

    def normal(*axes: int) -> Tensor:
        return torch.randn(axes, dtype=torch.float64, generator=draw)

    found = {n: normal(B, T, *(sizes[x] for x in d.dims)) for n, d in program.inputs.items()}
    found |= {n: 0.4 * normal(*(sizes[x] for x in d.dims)) for n, d in program.params.items()}
    return found | {f"{n.replace('.', '_')}_0": 0.4 * normal(B, *(sizes[x] for x in d.dims)) for n, d in program.states.items()}


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_values_and_gradients(name: str, backend: str) -> None:
    text, hand = CASES[name]
    given = {n: x.requires_grad_() for n, x in arguments(text).items()}
    want, got = hand(**given), seqc.compile(text, backend=backend)(**given)._asdict()
    assert got.keys() == want.keys()
    draw = torch.Generator().manual_seed(4)
    weights = {n: torch.randn(x.shape, dtype=x.dtype, generator=draw) for n, x in want.items()}
    slopes = [torch.autograd.grad([x[n] for n in want], [*given.values()], [*weights.values()]) for x in (want, got)]
    for n in want:
        torch.testing.assert_close(got[n], want[n], rtol=0, atol=1e-12, msg=n)
    for n, x, y in zip(given, *slopes, strict=True):
        torch.testing.assert_close(y, x, rtol=0, atol=1e-12, msg=f"d.{n}")


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_runs_in_parts(name: str, backend: str) -> None:
    text = CASES[name][0]
    made, given = seqc.compile(text, backend=backend), arguments(text)
    inputs = {n: x for n, x in given.items() if x.dim() == 3 and x.shape[1] == T}
    starts = {n: x for n, x in given.items() if n.endswith("_0")}
    params = {n: x for n, x in given.items() if n not in inputs and n not in starts}
    whole = made(**given)._asdict()
    outputs = [n for n in whole if not n.endswith("_T")]

    def onward(found: Found) -> Found:
        return {f"{n[:-2]}_0": x for n, x in found.items() if n.endswith("_T")}

    first = made(**{n: x[:, :5] for n, x in inputs.items()}, **params, **starts)._asdict()
    second = made(**{n: x[:, 5:] for n, x in inputs.items()}, **params, **onward(first))._asdict()
    back = made(**{n: x.flip(1) for n, x in inputs.items()}, **params, **starts, reverse=True)._asdict()
    carried, rows = starts, []
    for t in range(T):
        one = made.step(**{n: x[:, t] for n, x in inputs.items()}, **params, **carried)._asdict()
        rows.append(one)
        carried = onward(one)
    bounds = torch.tensor([0, 7, T])
    pack = made(**{n: x[:1] for n, x in inputs.items()}, **params, **starts, cu_seqlens=bounds)._asdict()
    for n in outputs:
        torch.testing.assert_close(torch.cat([first[n], second[n]], 1), whole[n], rtol=0, atol=1e-12)
        torch.testing.assert_close(back[n].flip(1), whole[n], rtol=0, atol=1e-12)
        torch.testing.assert_close(torch.stack([x[n] for x in rows], 1), whole[n], rtol=0, atol=1e-12)
    for i, (begin, end) in enumerate([(0, 7), (7, T)]):
        own = {n: x[i : i + 1] for n, x in starts.items()}
        alone = made(**{n: x[:1, begin:end] for n, x in inputs.items()}, **params, **own)._asdict()
        for n, x in alone.items():
            got = pack[n][:, begin:end] if n in outputs else pack[n][i : i + 1]
            torch.testing.assert_close(got, x, rtol=0, atol=1e-12)
    for n, x in whole.items():
        if n not in outputs:
            for y in (second[n], back[n], rows[-1][n]):
                torch.testing.assert_close(y, x, rtol=0, atol=1e-12)


def test_what_is_not_passed_is_the_initial_value() -> None:
    given = arguments(STATE)
    inputs = {n: given[n] for n in ("x", "w")}
    want = season(**inputs, h_0=torch.full((B, D), 0.5).double(), h_lags_0=torch.full((B, LAG - 1, D), 0.5).double())
    torch.testing.assert_close(seqc.compile(STATE, backend="torch")(**inputs).h, want["h"], rtol=0, atol=1e-12)


def test_a_lag_of_256_is_one_state() -> None:
    program = elaborate.load("spec far\ndim D\ninput x[D]\nstate h[D] = 0\nh = 0.5 * h[t-1] + 0.1 * h[t-256] + x\noutput h\n")
    assert {name: d.dims for name, d in program.states.items()} == {"h": ("D",), "h.lags": ("h_lags", "D")}
    assert program.dims["h_lags"].choices == (255,)


def test_which_lags_are_one_state() -> None:
    def states(*lags: tuple[str, int]) -> list[str]:
        reads = " + ".join(f"{name}[t-{lag}]" for name, lag in lags)
        names = dict.fromkeys(name for name, _ in lags if name != "h")
        text = "spec some\ninput x\nstate h = 0\n" + "".join(f"{n} = tanh({i + 2} * x)\n" for i, n in enumerate(names))
        return [*elaborate.load(f"{text}h = tanh(h[t-1] + x + {reads})\noutput h\n").states][1:]

    assert states(("h", 3), ("a", 2)) == ["h.lag2", "h.lag3", "a.lag1", "a.lag2"]
    assert states(("h", 9)) == ["h.lags"]
    assert states(("a", 20)) == [f"a.lag{i}" for i in range(1, 21)]
    assert states(("a", 33), ("b", 1)) == ["a.lags", "b.lag1"]
    assert states(("a", 20), ("b", 21)) == ["a.lags", "b.lags"]


def test_one_position_of_a_dim_of_a_state() -> None:
    """`fold` reads the old value of a state position by position, inside the loop over steps."""
    text = """spec folded
dim D, J = 3
input x[D]
state c[J, D] = 0
c = tanh(c[t-1] + x)
output y = fold[J](x, p -> tanh(p + index[J] * c[t-1]))
"""
    x, c = torch.randn(B, T, D, dtype=torch.float64), torch.zeros(B, 3, D, dtype=torch.float64)
    rows = []
    for now in x.unbind(1):
        p = now
        for j in range(3):
            p = torch.tanh(p + j * c[:, j])
        rows.append(p)
        c = torch.tanh(c + now[:, None])
    torch.testing.assert_close(seqc.compile(text, backend="torch")(x).y, torch.stack(rows, 1), rtol=0, atol=1e-12)


def test_triton(tmp_path: Path) -> None:
    (tmp_path / "state.seq").write_text(STATE)
    interpret([(str(tmp_path / "state.seq"), "step")], [(LAG + 1, False, {"D": D})], steps=2)
