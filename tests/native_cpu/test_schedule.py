"""What the loops look like: how often a matrix state is passed over, where vectors run, and that text is deterministic."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from seqc.backends.native_cpu import emit, native_source
from seqc.backends.native_cpu.code import MEMORY, POINTER, VARIABLE, Code, Nested, declared, lines_of, with_rows
from seqc.backends.native_cpu.outlined import LONG, NEST, outlined
from seqc.backends.native_cpu.plan import plan
from seqc.diagnostics import Unsupported
from seqc.driver.pipeline import lower
from seqc.frontend import elaborate
from seqc.ir.block import Block

ROOT = Path(__file__).parents[2]


def step_block(name: str) -> Block:
    return lower(elaborate.load(ROOT / "specs" / f"{name}.seq"), "step")


def step_of(name: str, loop: str = "for (; step < T; ++step)") -> str:
    """The text of one forward step, or of another loop over steps."""
    text = native_source(step_block(name)).text
    start = text.index(loop)
    return text[start : text.index("\n  }\n", start)].split("if (save && step %")[-1].split("\n    }\n", 1)[-1]


@pytest.mark.parametrize(("name", "passes"), [("gla", 1), ("linear_attention", 1), ("retention", 1), ("mamba", 1),
                                              ("delta_rule", 2)])
def test_a_matrix_state_is_read_as_often_as_the_recurrence_asks(name: str, passes: int) -> None:
    state = "w.s_h" if name == "mamba" else "w.s_S"
    step = step_of(name)
    assert step.count(f"load({state} +") == passes
    assert step.count(f"store({state} +") == 1


@pytest.mark.parametrize(("name", "state"), [("gla", "w.s_S"), ("linear_attention", "w.s_S"), ("mamba", "w.s_h")])
def test_two_steps_read_a_matrix_state_once(name: str, state: str) -> None:
    steps = step_of(name, "for (; step + 2 <= T; step += 2)")
    assert steps.count(f"load({state} +") == 1
    assert steps.count(f"store({state} +") == 1
    assert "step + 2 <= T" not in native_source(step_block("delta_rule")).text  # it would read its state a third time


def test_gates_are_computed_once_per_step_not_per_element() -> None:
    body = step_of("gla")
    assert body.index("seqc_exp") < body.index("i_V") if "i_V" in body else "seqc_exp" in body.split("for (i64 i_K")[0]


def test_backward_vectors_run_where_fewest_sums_do() -> None:
    text = native_source(step_block("gla")).text
    backward = text[text.index("int backward_program") :]
    assert "for (i64 i_V" in backward and "load(w.d_S + i_V * z_K + at)" in backward


def test_a_recurrent_weight_s_gradient_is_one_product_after_the_loop() -> None:
    made = plan(step_block("lstm"))
    assert sorted(p.param for p in made.products) == ["R_f", "R_i", "R_o", "R_z"]
    assert made.every == 1 and made.roles.blocked
    assert not [key for key in made.backward if key.startswith("d.R")]


SCALED = """
spec scaled
dim D, G
input x[G, D]
param R[G, D, D]
param a init 1
state h[D] = 0
output h = tanh(sum[G](a * (R @ h[t-1]) + x))
"""


def test_what_every_thread_of_a_team_sums_it_sums_in_variables_of_its_own() -> None:
    text = native_source(lower(elaborate.load(SCALED), "step")).text
    backward = text[text.index("int backward_program") :]
    rows = re.findall(r"= total<false>\(load\((.*?)\)\);", backward)
    assert rows and all(f"alignas(64) real {row}[W];" in backward for row in rows)


def test_text_is_deterministic() -> None:
    assert emit(step_block("mamba")) == emit(step_block("mamba"))


def test_other_forms_are_refused() -> None:
    with pytest.raises(Unsupported, match="loops over steps"):
        emit(lower(elaborate.load(ROOT / "specs/gla.seq"), "chunkwise"))


def test_a_checkpoint_counts_for_vectors_too() -> None:
    path = ROOT / "tests" / "recurrences" / "kept_apart.seq"
    made = plan(lower(elaborate.load(path), "step"))
    assert (made.every, made.recompute) == (3, True)
    assert plan(lower(elaborate.load(path.read_text().replace("checkpoint 3", "")), "step")).every == 1


def test_nests_of_a_long_kernel_are_functions_that_take_what_they_mention() -> None:
    body = [f"      const vec x{i} = load(p_x + i_B * T + at) * s_c0;" for i in range(NEST)]
    nest = ["  {", "    for (int i_B = 0; i_B < m_B; ++i_B) {", *body, "      s_c1 = total(w.g_T);", "    }", "  }"]
    before: list[Code] = [
        declared("int program(const Forward& a, const Call& call, i64 o_B) {", "o_B"),
        declared("  FWScratch& w = *memory;", "w", takes=MEMORY), declared("  const i64 m_B = 3;", "m_B"),
        declared("  const i64 B = call.B, T = call.steps(o_B), rows = call.rows();", "B", "T", "rows"),
        declared("  const real* __restrict const p_x = a.g_x;", "p_x", takes=POINTER),
        declared("  real s_c0;", "s_c0", takes=VARIABLE), declared("  real s_c1;", "s_c1", takes=VARIABLE),
    ]
    mentions = frozenset(("m_B", "p_x", "T", "s_c0", "s_c1", "w", "load", "total"))
    code = [*before, Nested(tuple(nest), mentions, frozenset(("s_c1",)), "block")]
    assert outlined([*code, "}"]) == [*lines_of(before), *nest, "}"]  # short
    long = outlined([*code, *[""] * LONG, "}"])
    takes = "auto& w, auto m_B, auto T, auto* __restrict p_x, const auto s_c0, auto& s_c1"
    assert [x for x in long if x] == [
        *lines_of(before), f"  []({takes}) __attribute__((noinline)) {{", *nest[1:-1], "  }(w, m_B, T, p_x, s_c0, s_c1);", "}",
    ]
    rows = with_rows([Nested(tuple(nest), mentions | {"r_B"}, frozenset(("s_c1",)), "block")])
    first, *_, last = [x for x in outlined([*before, *rows, *[""] * LONG]) if x][len(before) :]
    assert first == f"with_rows(m_B, [](auto rows_of_block, {takes}) __attribute__((noinline)) {{"
    assert last == "}, w, m_B, T, p_x, s_c0, s_c1);"


def test_loops_over_vectors_of_a_long_kernel_are_functions_too() -> None:
    before: list[Code] = [
        "int program(const Step& a, const Call& call, i64 i_B) {", declared("  SWScratch& w = *memory;", "w", takes=MEMORY),
        declared("  const real* __restrict const p_x = a.g_x;", "p_x", takes=POINTER),
        Nested(("  for (i64 at = 0; at < m_D; at += W)", "    transpose(p_x + at, w.s_y);"), frozenset(("p_x", "w"))),
    ]
    nest = ["  EACH_VECTOR(z_D, 2) {", *["    store(w.s_y + at, load(p_x + at));"] * NEST, "  }"]
    long = [x for x in outlined([*before, Nested(tuple(nest), frozenset(("p_x", "w")), kind="loop"), *[""] * LONG, "}"]) if x]
    head = "  [](auto& w, auto* __restrict p_x) __attribute__((noinline)) {"
    assert long == [*lines_of(before), head, *(f"  {x}" for x in nest), "  }(w, p_x);", "}"]
