"""What an editor is told of a spec: mistakes with places, meanings, completion, renaming, outline."""

import pytest

from seqc.diagnostics import Source
from seqc.editor.document import Document
from seqc.editor.words import CONSTANT_HELP, FUNCTION_HELP, MARK_HELP, STATEMENT_HELP
from seqc.frontend.functions import FUNCTIONS
from seqc.frontend.logical_lines import MARKS, STATEMENTS
from seqc.frontend.scope import BUILTIN
from seqc.frontend.sources import read, shipped

CELL = """spec cell
dim D, J = 3
input x[D]
param R[D, D], a[J]
state h[D] = 0
u = fold[J](x, u -> u + a * x)
h = tanh(R @ h[t-1] + u)
y[D'] = h[D -> D'] * 2
output h, y
"""


def document(text: str) -> Document:
    return Document(Source("cell.seq", text))


def place(text: str, words: str, ahead: int = 0) -> int:
    return text.index(words) + ahead


def test_every_word_of_the_language_is_explained() -> None:
    assert set(STATEMENT_HELP) == set(STATEMENTS)
    assert set(MARK_HELP) == set(MARKS)
    assert set(FUNCTION_HELP) >= set(FUNCTIONS)
    assert set(CONSTANT_HELP) | {"index"} == set(BUILTIN)


def test_mistakes_and_warnings_have_places() -> None:
    wrong = document(CELL.replace("tanh(R", "tanhh(R").replace("output h", "output q, h"))
    assert {(d.code, d.labels[0].span.text) for d in wrong.diagnostics} >= {("unknown-name", "q")}
    assert any("tanh" in d.help for d in wrong.diagnostics)
    assert [d.kind for d in document(CELL + "z = x\n").diagnostics] == ["warning"]
    assert document("dim D\n").diagnostics[0].labels, "what has no place is told at the beginning"
    assert not document(CELL).diagnostics


def test_a_false_claim_is_a_mistake() -> None:
    text = read("gla").text.replace("eigenvalues S in [0, 1]", "eigenvalues S in [0, 0.5]")
    assert [d.labels[0].span.text for d in document(text).diagnostics] == ["eigenvalues S in [0, 0.5]"]


@pytest.mark.parametrize("words, ahead, told", [
    ("R @", 0, "param R[D, D]"),
    ("h[t-1]", 0, "class: nonlinear"),
    ("h[t-1]", 0, "values in [-1, 1]"),
    ("tanh", 2, "hyperbolic tangent"),
    ("state h", 1, "carried value"),
    ("u -> u", 0, "running value"),
    ("D']", 0, "dim D"),
    ("cell", 0, "operations at D = 64, J = 3"),
])
def test_hover(words: str, ahead: int, told: str) -> None:
    found = document(CELL).hover(place(CELL, words, ahead))
    assert found is not None and told in found[1]


def test_hover_on_text_that_is_wrong() -> None:
    text = CELL + "oops = (\n"
    found = document(text).hover(place(text, "R @"))
    assert found is not None and "param R[D, D]" in found[1]


def test_rename_keeps_primes_and_leaves_what_a_fold_binds() -> None:
    spans = document(CELL).renamed(place(CELL, "D, J"), "N")
    assert len(spans) == CELL.count("D") and {s.text for s in spans} == {"D"}
    assert len(document(CELL).renamed(place(CELL, "u = fold"), "drive")) == 2, "the definition and its use"
    inside = document(CELL).renamed(place(CELL, "u -> u"), "r")
    assert [s.start for s in inside] == [place(CELL, "u -> u"), place(CELL, "u + a")]


def test_each_name_of_a_fold_is_known_where_it_stands() -> None:
    text = CELL.replace("u = fold[J](x, u -> u + a * x)", "u, w = fold[J](u = x, v = x, u, v -> u + a * v, v / 2)\ny2 = w")
    doc = document(text)
    assert {"u", "w", "y2"} <= {one.name for one, _ in doc.symbols()}
    assert [s.start for s in doc.renamed(place(text, "w = fold"), "q")] == [place(text, "w = fold"), place(text, "w\nh")]
    assert len(doc.renamed(place(text, "u, w"), "q")) == 2, "the definition and its use, not the running value"
    found = doc.hover(place(text, "w\nh"))
    assert found is not None and "u, w = fold[J](u = x" in found[1]
    assert "w" in {s.word for s in doc.suggestions(place(text, "tanh"))}


@pytest.mark.parametrize("new, why", [
    ("h", "already"), ("2a", "no name"), ("pi", "cannot be declared"), ("h_0", "beside the state"),
])
def test_rename_refuses_what_would_change_the_meaning(new: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        document(CELL).renamed(place(CELL, "x[D]"), new)


def test_a_renamed_spec_is_the_same_recurrence() -> None:
    for name in ("gla", "lstm", "mamba"):
        text = read(name).text
        doc = document(text)
        for one, _ in doc.symbols():
            new = text
            for span in reversed(doc.renamed(one.span.start, "other_name")):
                new = new[: span.start] + "other_name" + new[span.end :]
            program = document(new).program
            assert doc.program is not None and program is not None
            assert len(program.graph) == len(doc.program.graph)
            assert [n.op for n in program.updates.values()] == [n.op for n in doc.program.updates.values()]


def test_completion_knows_where_it_is() -> None:
    doc = document(CELL)
    first = {s.word for s in doc.suggestions(len(CELL))}
    assert "output" in first and "h" in first and "tanh" not in first
    value = {s.word for s in doc.suggestions(place(CELL, "tanh"))}
    assert {"R", "x", "tanh", "pi"} <= value and "output" not in value
    assert [s.word for s in doc.suggestions(place(CELL, "[J]", 1))][:2] == ["D", "J"]
    assert "complex" in {s.word for s in doc.suggestions(place(CELL, "x[D]\nparam", 4))}


def test_outline_and_references() -> None:
    doc = document(CELL)
    assert {one.name: line.split("\n")[0] for one, line in doc.symbols()}["R"] == "param R[D, D]"
    assert doc.definition(place(CELL, "h[t-1]")) == doc.symbols()[[o.name for o, _ in doc.symbols()].index("h")][0].span
    assert len(doc.references(place(CELL, "a * x"))) == 2


def test_layout() -> None:
    assert document("spec   a\ninput x\noutput   o=x*2\n").formatted() == "spec a\ninput x\noutput o = x * 2\n"
    assert document("spec a\noutput o = (\n").formatted() is None


def test_every_shipped_spec_answers_at_every_name() -> None:
    for name in shipped():
        doc = document(read(name).text)
        assert not [d for d in doc.diagnostics if d.kind != "warning"]
        for one in doc.occurrences:
            assert one.span.text == one.name
            assert doc.hover(one.span.start) is not None or one.name in ("t", "u"), (name, one)
