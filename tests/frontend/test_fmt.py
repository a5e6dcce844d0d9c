"""The formatter: the meaning stays, comments stay, and a second run changes nothing."""

from pathlib import Path

import pytest

from seqc.diagnostics import SpecError
from seqc.frontend.format import WIDTH, format_text
from seqc.frontend.parse import parse
from seqc.frontend.sources import read, shipped

SPECS = sorted((Path(__file__).parent / "specs").glob("*.seq"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_round_trip(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    once = format_text(text)
    assert parse(once).statements == parse(text).statements
    assert [c.text for c in parse(once).comments] == [c.text for c in parse(text).comments]
    assert format_text(once) == once


def test_canonical_text() -> None:
    untidy = (
        "spec  a # name\n\n\n\n# head\ndim H,K=64\ninput q[ H,K ]in[0,1]   # short\ninput k[H] # a longer one\n"
        "state S[H,K]=0\nS=(q*((k)))+S[ t - 1 ]*2^( -1 )\n# before\noutput o=sum[ K ]( S )# tail\n\n# end"
    )
    assert format_text(untidy) == (
        "spec a  # name\n\n# head\ndim H, K = 64\ninput q[H, K] in [0, 1]  # short\ninput k[H]"
        "               # a longer one\n"
        "state S[H, K] = 0\nS = q * k + S[t-1] * 2^-1\n# before\noutput o = sum[K](S)  # tail\n\n# end\n"
    )


def test_a_column_of_comments_that_was_aligned_by_hand_stays() -> None:
    kept = "spec a\ndim H      # one\n\ndim K      # two\ninput x    # three\n"
    assert format_text(kept) == kept
    assert format_text("spec a\ndim H    # one\ndim Kay      # two\n") == "spec a\ndim H    # one\ndim Kay  # two\n"
    assert format_text("spec a\ndim  H,K,V # one\n") == "spec a\ndim H, K, V  # one\n"


def test_brackets_around_products_of_matrices_stay() -> None:
    text = "spec a\ny = (W @ x) * (V @ (x * z)) / sum[D]((W @ x) * z)\nz = W @ V @ x + (a * W) @ x\n"
    assert format_text(text) == text
    assert format_text("spec a\ny = ((W @ x) * a) * (b * c)\n") == "spec a\ny = (W @ x) * a * (b * c)\n"
    assert parse(format_text("spec a\ny = W @ x * z\n")).statements == parse("spec a\ny = W @ x * z\n").statements


def test_a_long_value_of_a_declaration_is_broken() -> None:
    value = f"where({', '.join(f'index[N] * {i} + index[N] / {i}' for i in range(3, 9))})"
    text = f"spec a\ndim N\nparam a_long_name[N] init {value}, b[N]\n"
    once = format_text(text)
    assert max(map(len, once.splitlines())) <= WIDTH and format_text(once) == once
    assert parse(once).statements == parse(text).statements


def test_shipped_specs_are_formatted() -> None:
    found = {name: read(path) for name, path in shipped().items()}
    assert [name for name, source in found.items() if format_text(source) != source.text] == []


def test_long_lines_are_broken_and_stay_so() -> None:
    names = [f"a_rather_long_name_{i}" for i in range(12)]
    text = "spec a\ninput " + ", ".join(names) + "\noutput y = " + " + ".join(f"{n} * 2" for n in names) + "\n"
    once = format_text(text)
    assert max(map(len, once.splitlines())) <= WIDTH
    assert format_text(once) == once
    assert parse(once).statements == parse(text).statements


def test_long_calls_are_broken_behind_commas() -> None:
    values = ", ".join(f"v{i} = max(v{i - 1} * 0.5, x[t-{i}])" for i in range(1, 9))
    text = f"spec a\ndim J = 2\ninput x\noutput y = fold[J](0, v0 -> {values}, v8 + x)\n"
    once = format_text(text)
    assert max(map(len, once.splitlines())) <= WIDTH and format_text(once) == once
    assert all("max(" in line for line in once.splitlines()[4:-1])  # no call within the fold is cut
    assert parse(once).statements == parse(text).statements


def test_comments_inside_a_statement_move_in_front_of_it() -> None:
    text = "spec a\n\nx = 1  # one\n  + 2  # two\n  # three\n  + 3  # four\n"
    assert format_text(text) == "spec a\n\n# one\n# two\n# three\nx = 1 + 2 + 3  # four\n"


def test_nothing_is_half_formatted() -> None:
    with pytest.raises(SpecError):
        format_text("spec a\nx = (\n")
