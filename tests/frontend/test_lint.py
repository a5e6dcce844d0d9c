"""Warnings: none for what is published, and their corners; the pages in tests/errors show the texts."""

from pathlib import Path

import pytest

from seqc.frontend.elaborate import load

SPECS = sorted((Path(__file__).parents[2] / "specs").rglob("*.seq"))
HEAD = "spec a\ndim D\ninput x[D]\nparam p[D] init 0, q[D] init 0\nstate h[D] = 0\n"


def codes(text: str) -> list[str]:
    return [d.code for d in load(text).warnings]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_what_is_published_has_no_warning(path: Path) -> None:
    assert load(path).warnings == ()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("h = h[t-1] * p * q + x\noutput h", ["stuck-param"]),
        ("h = h[t-1] * p * q + x * q\noutput h", []),  # q moves, and then p
        ("h = h[t-1] * tanh(p * sum[D](q)) + x\noutput h", ["stuck-param"]),
        ("h = h[t-1] * (p + 1) * q + x\noutput h", []),
        ("h = h[t-1] * exp(p) + x * exp(q)\noutput h", []),
        ("h = h[t-1] + stopgrad(p * q) * x\noutput h", ["no-gradient", "no-gradient"]),
        ("h = h[t-1] + withgrad(x > p, 1) * (x > q)\noutput h", ["no-gradient"]),
        ("state M[D] = 0\nat = argmax[D](x)\nh = p * h[t-1] + q\nM[at] = 1\noutput h, M", []),
        ("h = 0.5 * h[t-1] + p + q\nspare = x\noutput h", ["unused-definition"]),
        ("h = 0.5 * h[t-1] + p + q + fold[D](0, s -> s + x)\noutput h", []),
        ("a, b = fold[D](r = 0, s = 0, r, s -> r + s, s + x)\nh = 0.5 * h[t-1] + p + q + b\noutput h", []),
        ("h = 0.5 * x + p + q\noutput o = h[t-2]", []),
        ("h = x * p + q\nevery 4: h = 0\noutput o = h", ["unread-state"]),
        ("h = h[t-1]\nevery 4: h = x * p + q\noutput o = h", []),
        ("h = p * h[t-1] + x + q  # seqc: allow no-output", ["no-output"]),
        ("h = p * h[t-1] + x + q\n# seqc: allow no-output", []),
    ],
)
def test_corners(lines: str, expected: list[str]) -> None:
    text = HEAD.replace("dim D", "dim D = 4") + lines + "\n"
    assert codes(text) == expected


def test_names_alike() -> None:
    text = "spec a\ninput gate, gat, gates, date, x, xx\nstate gaze = 0, X = 1\noutput gaze\n"
    text += "gaze = gaze[t-1] + X[t-1]\nX = x * X[t-1]\n"
    helps = {d.message.split("`")[1]: d.help for d in load(text).warnings}
    suspected = {name: "gaze" in help for name, help in helps.items()}
    assert suspected == {"gate": True, "gat": False, "gates": False, "date": False, "xx": False}
