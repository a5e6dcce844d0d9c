"""`grad(E, x)`: what x may be, that equal values are told apart, and the forms that follow. Numbers: `tests/literature`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqc
from seqc.diagnostics import SpecError
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.ir.program import Program
from seqc.semantics.reference import run
from tests.frontend.test_idioms import helps

HEAD = "spec a\ndim K, J = 2\ninput x[K], y[K]\nstate h[K] = 0, S[K, K'] = 0\n"


def graph(lines: str) -> Program:
    return load(HEAD + lines + "output o = h\n")


def same(one: str, other: str) -> None:
    """Two texts give the same numbers."""
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal((2, 3, 4)) for name in "xy"}
    a, b = (run(graph(lines), given) for lines in (one, other))
    for name, x in a.items():
        np.testing.assert_allclose(x, b[name], rtol=1e-12, atol=1e-12)


def test_a_loss_is_its_rule() -> None:
    said = "S = S[t-1] - grad(sum[K](0.5 * (S[t-1] @ x - y)^2), S[t-1])\nh = S @ y\n"
    same(said, "S = S[t-1] - (S[t-1] @ x - y) * x[K -> K']\nh = S @ y\n")


def test_a_quadratic_loss_takes_blocks() -> None:
    text = "spec ttt\ndim K, V\ninput k[K], v[V]\nstate W[K, V] = 0\noutput o = sum[K](W * k)\n"
    loss = "W = W[t-1] - grad(0.5 * sum[V]((sum[K](W[t-1] * k) - v)^2), W[t-1])\n"
    assert lower(load(text + loss)).form == "chunkwise"


def test_equal_values_are_told_apart() -> None:
    same("h = fold[J](x, m -> m - grad(sum[K](m * x), m))\nS = S[t-1]\n", "h = -x\nS = S[t-1]\n")
    same("a = 2 * x\nb = 2 * x\nh = grad(sum[K](a * b), a)\nS = S[t-1]\n", "h = 2 * x\nS = S[t-1]\n")


def test_what_reads_x_counts_through_values_of_a_step() -> None:
    own = "h = fold[J](x, m -> e = y * m, f = e * m, m - grad(sum[K](f), m) - grad(sum[K](f), e))\nS = S[t-1]\n"
    same(own, "h = fold[J](x, m -> m - 2 * y * m - m)\nS = S[t-1]\n")
    same("h = fold[J](x, m -> e = y * m, g = grad(sum[K](e), m), m + g)\nS = S[t-1]\n", "h = x + 2 * y\nS = S[t-1]\n")
    same("h = fold[J](x, m -> e = y * m, m + grad(sum[K](e), y))\nS = S[t-1]\n", "h = fold[J](x, m -> m + m)\nS = S[t-1]\n")


def test_a_step_has_several_derivatives_by_its_running_value() -> None:
    names = [f"g{i}" for i in range(6)]
    own = ", ".join(f"{name} = grad(sum[K](e^{i % 3 + 1}), m)" for i, name in enumerate(names))
    same(f"h = fold[J](x, m -> e = y * m, {own}, {' + '.join(names)})\nS = S[t-1]\n",
         "h = fold[J](x, m -> e = y * m, y * (2 + 4 * e + 6 * e^2))\nS = S[t-1]\n")


def test_what_reads_a_definition_counts() -> None:
    same("a = 2 * x\nb = a * y\nh = grad(sum[K](b * y), a)\nS = S[t-1]\n", "h = y * y\nS = S[t-1]\n")


@pytest.mark.parametrize(("lines", "words"), [
    ("h = grad(sum[K](h[t-1]), 2 * x)", "`grad` is by no value of the step"),
    ("h = grad(sum[K](x), h[t-1])", "does not read what it is by"),
    ("h = grad(exp(1i * x), x)", "`grad` is of a real value"),
    ("h = grad(x)", "`grad` takes 2 arguments, not 1"),
    ("h = grad[K](x, x)", "`grad` works on every element"),
    ("h = x - grad(sum[K](h * h), h)", "`h` is defined by itself"),
])
def test_what_it_refuses(lines: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        graph(f"{lines}\nS = S[t-1]\n")
    assert [words in d.message for d in caught.value.diagnostics] == [True]


def test_other_words_lead_to_it() -> None:
    assert "`grad(E, W[t-1])`" in helps("z = jacobian(x, y)")[0]


def test_a_closed_loop_is_a_call_that_is_given_what_it_feeds() -> None:
    text = HEAD + "E = sum[K](h[t-1] * x * x)\nh = 0.5 * h[t-1] + 0.1 * grad(E, h[t-1]) - 0.1 * grad(E, x) + 0.1\nS = S[t-1]\n"
    f = seqc.compile(text.replace(", y[K]", "") + "output h\nfeedback x = h[t-1]\n", "torch")
    start = torch.rand(2, 1, 3, dtype=torch.float64)
    told = f.generate(start, steps=5).h
    again = f(torch.cat((start, told[:, :-1]), 1)).h
    torch.testing.assert_close(told, again, rtol=0, atol=1e-14)
