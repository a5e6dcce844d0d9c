"""Lines of several outputs, `fold` with several running values, `history`: what they mean, and how they are printed."""

from __future__ import annotations

import pytest

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
