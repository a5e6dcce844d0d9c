"""What compiling costs as a spec grows: near linear in states, lags, taps, micro-steps, definitions, layers, params and so on.

Counted are calls of functions of the compiler, the same on every machine and on every run: from 8 to 32 of a thing they may
become 8 times as many. Linear growth makes them 4 times as many, a square 16 times; what a sum of more than two dozen terms
costs a term is reached in between. Nothing recurses over chains of operators: a low limit on the depth of calls is enough.
"""

from __future__ import annotations

import cProfile
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from seqc.driver.compile import Options, compile_program, compile_spec
from seqc.frontend.elaborate import load
from seqc.frontend.format import format_text

HEAD = "dim D\ninput x[D], g[D] in [-inf, 0]\nstate S[D] = 0\nS = exp(g) * S[t-1] + x\n"
SPECS: dict[str, Callable[[int], str]] = {
    "linear states": lambda n: "dim D\ninput x[D], g[D] in [-inf, 0]\n"
    + "".join(f"state S{i}[D] = 0\nS{i} = exp(g) * S{i}[t-1] + x\n" for i in range(n))
    + "output o = " + " + ".join(f"S{i}" for i in range(n)),
    "cells": lambda n: "dim D\ninput x[D]\n"
    + "".join(f"state S{i}[D] = 0\nS{i} = tanh(S{i}[t-1] + x)\n" for i in range(n))
    + "output o = " + " + ".join(f"S{i}" for i in range(n)),
    "lag of a state": lambda n: f"dim D\ninput x[D]\nstate h[D] = 0\nh = tanh(h[t-1] + h[t-{n}] + x)\noutput h",
    "lag of a definition": lambda n: f"dim D\ninput x[D]\ne = tanh(x)\noutput y = e + e[t-{n}]",
    "taps": lambda n: f"dim D, L = {n}\ninput x[D]\nparam a[L, D]\noutput o = sum[L](a * x[t - index[L]])",
    "taps of a history": lambda n: f"dim D, L = {n}\ninput x[D]\nhistory x {n}\nparam a[L, D]\n"
    "output o = sum[L](a * x[t - index[L]])",
    "taps of a definition": lambda n: f"dim D, L = {n}\ninput x[D]\nparam a[L, D]\ne = tanh(x)\n"
    "output o = sum[L](a * e[t - index[L]])",
    "micro-steps": lambda n: f"dim H, K, V, J = {n}\n"
    "input q[H, K], k[H, J, K] unit[K], v[H, J, V], b[H, J] in [0, 2]\nstate S[H, K, V] = 0\n"
    "S = fold[J](S[t-1], P -> P + b * k * (v - sum[K](k * P)))\noutput o = sum[K](q * S)",
    "definitions": lambda n: HEAD + "d0 = S\n" + "".join(f"d{i} = tanh(d{i - 1} + {i})\n" for i in range(1, n))
    + f"output o = d{n - 1}",
    "outputs": lambda n: HEAD + "".join(f"output o{i} = {i + 1} * S + x\n" for i in range(n)),
    "params": lambda n: HEAD + "".join(f"param w{i}[D]\n" for i in range(n))
    + "output o = S * (" + " + ".join(f"w{i}" for i in range(n)) + ")",
    "inputs": lambda n: "dim D\ninput g[D] in [-inf, 0], " + ", ".join(f"x{i}[D]" for i in range(n))
    + "\nstate S[D] = 0\nS = exp(g) * S[t-1] + " + " + ".join(f"x{i}" for i in range(n)) + "\noutput o = S",
    "layers": lambda n: HEAD + "y0 = S\n"
    + "".join(f"param A{i}[D, D], C{i}[D, D]\ny{i + 1} = y{i} + C{i} @ relu(A{i} @ rmsnorm[D](y{i}))\n" for i in range(n))
    + f"output y{n}",
    "nesting": lambda n: HEAD + "output o = " + "tanh(" * n + "S" + ")" * n,
}


def calls(text: str, backend: str) -> int:
    """Calls of functions while a spec is compiled."""
    work = cProfile.Profile(subcalls=False, builtins=False)
    work.enable()
    try:
        compile_spec(text, Options(backend=backend))
    finally:
        work.disable()
    return sum(entry.callcount for entry in work.getstats())


@pytest.mark.parametrize("name", [name for name in SPECS if name != "micro-steps"])
def test_growth(name: str) -> None:
    backend = "torch" if name in ("linear states", "cells", "layers") else "cpu"
    compile_spec(f"spec first\n{SPECS['inputs'](1)}", Options(backend=backend))  # what is imported late is imported now
    few, many = (calls(f"spec grown\n{SPECS[name](n)}", backend) for n in (8, 32))
    assert many <= 8 * few


def test_growth_of_micro_steps() -> None:
    """In blocks up to a dozen, step by step beyond: no more than a fixed number of products is ever written out."""
    few, many = (calls(f"spec grown\n{SPECS['micro-steps'](n)}", "torch") for n in (3, 24))
    assert many <= 16 * few


@pytest.mark.parametrize("backend", ["torch", "cpu", "triton"])
def test_growth_of_a_thousand_taps(backend: str) -> None:
    """A convolution, however many there are: only the lags of the spec are read one by one."""
    compile_spec(f"spec first\n{SPECS['inputs'](1)}", Options(backend=backend))
    few, many = (calls(f"spec grown\n{SPECS['taps'](n)}", backend) for n in (64, 1024))
    assert many <= few + 40 * (1024 - 64)


@pytest.mark.parametrize("name", ["taps", "taps of a history", "taps of a definition"])
def test_text_of_a_thousand_taps(name: str) -> None:
    """As long as that of 64."""
    few, many = (len(compile_spec(f"spec grown\n{SPECS[name](n)}", Options(backend="auto")).text) for n in (64, 1024))
    assert many < 1.01 * few


@contextmanager
def shallow(depth: int) -> Iterator[None]:
    """Calls may go this much deeper than here."""
    frame, here = sys._getframe(), 0
    while frame.f_back is not None:
        frame, here = frame.f_back, here + 1
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(here + depth)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("name", ["definitions", "outputs", "params", "taps"])
def test_no_recursion_over_chains(name: str) -> None:
    text = f"spec chain\n{SPECS[name](100)}\n"
    with shallow(100):
        assert format_text(format_text(text)) == format_text(text)
        program = load(text)
        compile_program(program, Options(backend="cpu"))
