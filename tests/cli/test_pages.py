"""Graphs drawn without Graphviz, and the page that `explain --html` writes."""

import re
from pathlib import Path
from xml.etree import ElementTree

from seqc.cli.main import main
from seqc.driver.compile import compile_spec
from seqc.driver.explain.page import page
from seqc.driver.options import Options
from seqc.frontend.elaborate import load
from seqc.ir.graph import topological
from seqc.ir.layered import drawn
from seqc.ir.picture import picture
from tests.core.test_plans import CHAINED

SVG = "{http://www.w3.org/2000/svg}"


def test_layers_leave_room_and_point_down() -> None:
    sizes = {name: (40.0 + 10 * i, 20.0) for i, name in enumerate("abcdefgh")}
    edges = [("a", "c"), ("b", "c"), ("a", "d"), ("c", "e"), ("d", "e"), ("a", "f"), ("e", "f"), ("b", "h"), ("f", "g")]
    found = drawn(sizes, edges)
    for a, b in edges:
        assert found.centres[a][1] < found.centres[b][1]
    for a in sizes:
        for b in sizes:
            (x, y), (u, v) = found.centres[a], found.centres[b]
            assert a == b or y != v or abs(x - u) >= (sizes[a][0] + sizes[b][0]) / 2, "two boxes overlap"
    assert len(found.bends["a", "f"]) == 2, "an edge has a place of its own in every layer that it crosses"
    assert all(0 <= x <= found.size[0] and 0 <= y <= found.size[1] for x, y in found.centres.values())


def test_edges_that_need_not_cross_do_not() -> None:
    sizes = dict.fromkeys("abcxyz", (30.0, 20.0))
    found = drawn(sizes, [("a", "z"), ("b", "y"), ("c", "x")])
    tops, ends = sorted("abc", key=lambda n: found.centres[n][0]), sorted("xyz", key=lambda n: found.centres[n][0])
    assert [{"a": "z", "b": "y", "c": "x"}[n] for n in tops] == ends


def test_every_node_has_a_box_inside_the_picture() -> None:
    program = load("slstm")
    root = ElementTree.fromstring(picture(program.graph, program.definitions))
    boxes = root.findall(f"{SVG}rect")
    nodes = [n for n in topological(program.graph.values()) if n.op != "const"]
    assert len(boxes) == len(nodes) + len(program.graph)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    for box in boxes:
        x, y, w, h = (float(box.attrib[k]) for k in ("x", "y", "width", "height"))
        assert left <= x and x + w <= left + width and top <= y and y + h <= top + height
    words = {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}
    assert "c.next" in words and any(word.startswith("state h") for word in words)


def test_a_page_needs_nothing_else(tmp_path: Path) -> None:
    text = page(compile_spec("bidirectional_gru", Options("auto", "sm_90", {}, None, None)))
    assert not re.findall(r'(?:src|href)="', text) and "<script" not in text
    for told in ("two runs", "native code for CPUs", "operations forward", "bidirectional_gru_forward_kernel", "Cho et al"):
        assert told in text, told
    ElementTree.fromstring(text[text.index("<body>") : text.index("</html>")])  # every tag is closed
    out = tmp_path / "page.html"
    assert main(["explain", "gla", "--backend", "torch", "--html", str(out)]) == 0
    assert "eigenvalues in [0, 1]: proved" in out.read_text(encoding="utf-8")


def test_each_recurrence_of_several_has_its_form() -> None:
    text = page(compile_spec(CHAINED, Options("torch", "sm_90", {}, None, None)))
    assert "3 recurrences, one after the other" in text
    assert "<h3>S: chunkwise, 64 steps a block</h3>" in text and "<h3>h: step by step</h3>" in text


def test_texts_of_a_spec_are_shown_as_texts() -> None:
    spec = 'spec odd\n"""a < b & <script>alert(1)</script>"""\ninput x\noutput o = where(x < 1, x, 0)\n'
    text = page(compile_spec(spec, Options("torch", "sm_90", {}, None, None)))
    assert "<script>" not in text and "a &lt; b &amp; &lt;script&gt;" in text


def test_graph_writes_pictures_beside_dot_files(tmp_path: Path) -> None:
    assert main(["graph", "gla", "-o", str(tmp_path)]) == 0
    names = {path.suffix: {p.stem for p in tmp_path.glob(f"*{path.suffix}")} for path in tmp_path.iterdir()}
    assert names[".dot"] == names[".svg"] and "00_spec_step" in names[".svg"]
