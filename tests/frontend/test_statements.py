"""Lines of several outputs, `fold` with several running values, `history`: what they mean, and how they are printed."""

from __future__ import annotations

import pytest

from seqc.diagnostics import SpecError
from seqc.frontend import written_out
from seqc.frontend.elaborate import load
from seqc.frontend.format import format_text

HEAD = "spec s\ndim D, J = 2\ninput x[D], k[J, D]\nstate h[D] = 0\n"


def test_a_line_of_outputs_is_one_output_each() -> None:
    apart = load(HEAD + "h = h[t-1] + x\noutput h\noutput y[D] = 2 * x\noutput z = h - x\n")
    at_once = load(HEAD + "h = h[t-1] + x\noutput h, y[D] = 2 * x, z = h - x  # results\n")
    assert at_once.outputs == apart.outputs
    assert list(at_once.output_decls) == ["h", "y", "z"]


def test_the_names_of_first_values_may_be_left_out() -> None:
    named = load(HEAD + "h = fold[J](a = h[t-1], r = x, a, r -> a + r * k, r / 2)\noutput h\n")
    plain = load(HEAD + "h = fold[J](h[t-1], x, a, r -> a + r * k, r / 2)\noutput h\n")
    assert named.updates == plain.updates


def test_a_step_of_a_fold_has_values_of_its_own() -> None:
    named = "h = fold[J](a = h[t-1], r = x, a, r -> e = k * r, f = e * e, a + f, e - f)\noutput h\n"
    plain = load(HEAD + "h = fold[J](h[t-1], x, a, r -> a + (k * r) * (k * r), k * r - (k * r) * (k * r))\noutput h\n")
    assert load(HEAD + named).updates == plain.updates
    assert format_text(HEAD + named) == HEAD + named


BOTH = "state r[D] = 0\nh, r[D] = fold[J](a = h[t-1], b = r[t-1], a, b -> e = k * b, a + e, b / 2 + x)\noutput h\n"


def test_a_fold_gives_each_name_what_a_fold_of_its_own_gives() -> None:
    first = "h = fold[J](a = h[t-1], b = r[t-1], a, b -> a + k * b, b / 2 + x)\n"
    second = "r = fold[J](b = r[t-1], a = h[t-1], b, a -> b / 2 + x, a + k * b)\n"
    apart = load(HEAD + f"state r[D] = 0\n{first}{second}output h\n")
    assert load(HEAD + BOTH).updates == apart.updates
    scans = "u, v = scan[J](a = h[t-1], b = x, a, b -> a + k * b, b / 2 + x)\nh = h[t-1]\noutput u, v\n"
    apart = load(HEAD + "u = scan[J](a = h[t-1], b = x, a, b -> a + k * b, b / 2 + x)\nh = h[t-1]\noutput u\n"
                 "output v = scan[J](b = x, a = h[t-1], b, a -> b / 2 + x, a + k * b)\n")
    assert load(HEAD + scans).outputs == apart.outputs


def test_a_running_value_may_be_called_as_its_state() -> None:
    same = BOTH.replace("a = h[t-1], b = r[t-1], a, b ->", "h = h[t-1], r = r[t-1], h, r ->")
    same = same.replace("e = k * b, a + e, b / 2 + x", "e = k * r, h + e, r / 2 + x")
    assert load(HEAD + same).updates == load(HEAD + BOTH).updates


def test_a_fold_of_several_names_is_written_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, stepped = [], written_out._stepped
    monkeypatch.setattr(written_out, "_stepped", lambda *args: made.append(1) or stepped(*args))
    load(HEAD + BOTH)
    assert len(made) == 2, "J = 2 steps for two names"


def test_derivatives_see_a_fold_of_several_names() -> None:
    lines = "state r[D] = 0\nr = r[t-1] + u\n{}h = h[t-1] + grad(sum[D](u * v), r[t-1]) * u\noutput h\n"
    program = load(HEAD + lines.format("u, v = fold[J](a = x, b = r[t-1], a, b -> a + 2 * b, 3 * b)\n"))
    first = "u = fold[J](a = x, b = r[t-1], a, b -> a + 2 * b, 3 * b)\n"
    second = "v = fold[J](b = r[t-1], a = x, b, a -> 3 * b, a + 2 * b)\n"
    assert program.updates == load(HEAD + lines.format(first + second)).updates


def test_names_of_one_fold_share_its_draws() -> None:
    drawn = "u, v = fold[J](a = x, b = x, a, b -> e = normal[D](), a + e, b + e)\nh = h[t-1]\noutput h\n"
    program = load(HEAD + drawn + "output u, v\n")
    assert program.outputs["u"] is program.outputs["v"]
    named = load(HEAD + drawn.replace("u, v =", "u, a_name =") + "output u\n")
    assert named.outputs["u"] is program.outputs["u"], "the first name tells which draw it is"


@pytest.mark.parametrize(("line", "codes"), [
    ("u, v = fold[J](a = x, b = x, a, b -> a + v, b)", ["instant-cycle"]),
    ("u, v = fold[J](a = x, b = x, a, b -> a + nought, b)", ["unknown-name"]),
    ("u, v = fold[J](a = v[t-1], b = x, a, b -> a, b)", ["not-a-state"]),
    ("u, v = fold[J](a = x, b = x, a, b -> a)", ["misuse"]),
    ("u, v[J] = fold[J](a = x, b = x, a, b -> a, b)", ["dim-mismatch"]),
    ("u[t], v = fold[J](a = x, b = x, a, b -> a, b)", ["time-on-the-left"]),
    ("u = (x\nv, w = fold[J](a = x, b = x, a, b -> a, b)", ["unmatched-bracket"]),
    ("u, u = fold[J](a = x, b = x, a, b -> a, b)", ["duplicate-name"]),
])
def test_a_mistake_in_a_fold_of_several_names_is_told_once(line: str, codes: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        load(HEAD + f"h = h[t-1] + x\n{line}\noutput h\n")
    assert [d.code for d in caught.value.diagnostics] == codes


def test_several_names_are_printed_on_their_line() -> None:
    text = HEAD + BOTH.replace("output", "\n# what is read\noutput")
    assert format_text(text) == text
    assert format_text(text.replace("h, r[D] =", "h ,r[ D]=").replace("r[t-1], a", "r[t-1],  # starts\n  a")) == text.replace(
        "h, r", "# starts\nh, r")
    long = HEAD + BOTH.replace("a + e", ", ".join(f"e{i} = e * {i}" for i in range(12)) + ", a + e11 - e")
    once = format_text(long)
    assert max(map(len, once.splitlines())) <= 120 and format_text(once) == once
    assert load(once).updates == load(long).updates


@pytest.mark.parametrize(("reads", "kept"), [("x[t-1]", 2), ("x[t-2] + x[t+1]", 2), ("x", 0)])
def test_a_history_makes_states_of_all_of_its_steps_where_it_is_read(reads: str, kept: int) -> None:
    program = load(HEAD + f"history x 2\nh = h[t-1] + {reads}\noutput h\n")
    assert [s for s in program.states if s != "h"] == ["x.lag1", "x.lag2"][:kept]
    assert bool(program.no_step) == ("t+1" in reads)


def test_what_they_say_is_printed_back() -> None:
    text = HEAD + "history x 2\nh = fold[J](a = h[t-1], r = x[t-2], a, r -> a + r * k, r / 2)\n"
    text += "output h  # the sum\noutput y = h\n"
    assert format_text(text) == text
    assert format_text(text.replace("  # the sum\noutput y", ", y")) == text.replace("  # the sum", "")
