"""The parser: what is read, where it stands, and that no text whatever ends in a traceback."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from seqc.diagnostics import Refusal, SpecError, Unsupported
from seqc.frontend import syntax
from seqc.frontend.elaborate import build, load
from seqc.frontend.parse import parse, parse_with_errors
from seqc.frontend.trees import walk

SPECS = sorted((Path(__file__).parent / "specs").glob("*.seq"))


def expression(text: str) -> syntax.Expr:
    """The tree of a right-hand side."""
    (statement,) = parse(f"x = {text}\n").statements
    assert isinstance(statement, syntax.Define)
    return statement.expr


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_spans_quote_the_source(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    spec = parse(text)
    for statement in spec.statements:
        assert statement.span.text == text[statement.span.start : statement.span.end]
        if isinstance(statement, syntax.Define):
            assert statement.name.span.text == statement.name.id
            for part in walk(statement.expr):
                if isinstance(part, syntax.Name | syntax.Number):
                    assert part.span.text == (part.id if isinstance(part, syntax.Name) else part.text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a - b - c", "(a - b) - c"),
        ("-a^2", "-(a^2)"),
        ("a^b^c", "a^(b^c)"),
        ("2^-x", "2^(-x)"),
        ("a * b @ c / d", "((a * b) @ c) / d"),
        ("-a * b", "(-a) * b"),
        ("a + b < c * d", "(a + b) < (c * d)"),
        ("+a", "a"),
    ],
)
def test_binding(one: str, other: str) -> None:
    assert expression(one) == expression(other)


def test_continuation_lines() -> None:
    spec = parse("input a[H],\n  b[H]\nx = a +\nb\ny = a\n  - b\nparam c[H]\n  init 1 # one\n  in [0,\n 2]\n")
    kinds = [type(statement).__name__ for statement in spec.statements]
    assert kinds == ["Declare", "Define", "Define", "Declare"]


def test_indented_source_and_line_ends() -> None:
    plain = "spec a\ndim D\ninput x[D]\noutput y = x + 1\n"
    assert parse("".join(f"    {line}\n" for line in plain.splitlines())).statements == parse(plain).statements
    assert parse(plain.replace("\n", "\r\n")).statements == parse(plain).statements


def test_numbers() -> None:
    texts = ["1", "1.", ".5", "1e-5", "2.5E+3", "1i", "0.5i"]
    numbers = [expression(text) for text in texts]
    assert all(isinstance(number, syntax.Number) for number in numbers)
    assert [number.imaginary for number in numbers if isinstance(number, syntax.Number)] == [False] * 5 + [True] * 2
    assert parse("dim W in 1..8\n").statements[0] == parse("dim W in 1 .. 8\n").statements[0]


def test_every_mistake_of_a_file_is_told() -> None:
    with pytest.raises(SpecError) as caught:
        load("spec a\ndim D\ninput x[D\noutput y = exp(z)\nw = 1 +\noutput v = tahn(1)\n")
    assert [d.code for d in caught.value.diagnostics] == [
        "unmatched-bracket",
        "unknown-name",
        "syntax",
        "unknown-function",
    ]


def answered(text: str) -> None:
    """The front end takes the text or refuses it; any other exception fails the test."""
    parsed = parse_with_errors(text)
    try:
        build(parsed.spec, parsed.found, parsed.lost)
    except Refusal as refusal:
        assert refusal.render()


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_damaged_specs_are_refused_not_crashed_on(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    rng = random.Random(path.stem)
    tokens = ["(", ")", "[", "]", "t", "=", "-", "1", ",", "\n", "x", "fold", "S", "in", '"""', "#", "@", "^", "{", "K"]
    for _ in range(60):
        damaged = list(text)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(damaged))
            if rng.random() < 0.5:
                del damaged[at : at + rng.randrange(1, 12)]
            else:
                damaged.insert(at, rng.choice(tokens))
        answered("".join(damaged))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "#",
        "\x00",
        "spec",
        "}{",
        "= = =",
        "spec a\noutput y = " + "(" * 5000 + "1" + ")" * 5000,
        "spec a\noutput y = " + "-" * 5000 + "1",
        "spec a\noutput y = " + " + ".join(["1"] * 5000),
        "spec a\noutput y = 1e999 - 1e999 + 0 / 0 + 0^-1 + (-8)^(1/3)",
        "spec a\noutput y = 9^9^9^9",
        "spec a\nparam x in [10^400, 10^401]\noutput y = x",
        "spec a\ndim L = 3\ninput x\noutput y = sum[L](x[t - 9^99*index[L]])",
    ],
    ids=range(14),
)
def test_strange_texts(text: str) -> None:
    answered(text + "\n")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no-file"):
        load(tmp_path / "none.seq")
    (tmp_path / "bytes.seq").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="UTF-8"):
        load(tmp_path / "bytes.seq")


def test_plain_strings_can_be_refusals() -> None:
    assert Unsupported("no such target").render() == "unsupported[refused]: no such target"


def test_the_parser_generator_is_imported_late() -> None:
    code = (
        "import sys; from seqc.frontend.elaborate import load; assert 'lark' not in sys.modules; "
        "load('spec a\\ninput x\\noutput y = x\\n')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("line", ["x[t - 1{}]", "x[K = 1{}]", "(x + x)[K = 1{}]", "x\ninput g in [0, 1{}]"])
def test_long_numbers_in_brackets_are_read_or_refused(line: str) -> None:
    head = "spec a\ndim K = 3\ninput x[K]\noutput y = "
    load(head + line.format(" - 1 + 1" * 20) + "\n")
    with pytest.raises(SpecError, match="too-deep"):
        load(head + line.format(" - 1 + 1" * 5000) + "\n")


def test_deep_nesting_is_refused_where_it_gets_too_deep() -> None:
    with pytest.raises(SpecError, match="too-deep"):
        load("spec a\noutput y = " + "(" * 400 + "1" + ")" * 400 + "\n")


@pytest.mark.parametrize("names", [("in", "x"), ("lag", "per"), ("unit", "init_"), ("not_", "in")])
def test_not_stands_before_names_that_are_words_elsewhere(names: tuple[str, str]) -> None:
    first, second = names
    text = f"spec a\ninput {first}, {second}\noutput y = where(not {first} > 0.5, {second}, 1)\n"
    assert "not" in str(parse(text))
    assert parse("spec a\ninput not in [0, 1]\noutput y = not * 2\n")
