"""Graphs as SVG that needs no program to be drawn. In: outputs (key -> node) and names. Out: an `<svg>` element, the same every
time. The boxes are those of `seqc.ir.dot`; their places those of `seqc.ir.layered`.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from itertools import pairwise

from seqc.ir.dot import COLOURS, label
from seqc.ir.graph import Node, topological
from seqc.ir.layered import Key, drawn

LINE, LETTER, PAD, MARGIN = 14.0, 6.6, 8.0, 12.0  # pixels: height of a line, width of a letter, inside a box, around the page
OUTPUT = "#fff3b0"


def picture(outputs: Mapping[str, Node], names: Mapping[Node, str] | None = None) -> str:
    """The graph below `outputs`. Arguments stand above their users; constants are written into them."""
    order: list[Key] = [n for n in topological(outputs.values()) if n.op != "const"]
    texts: dict[Key, str] = {n: label(n, (names or {}).get(n, "")) for n in order if isinstance(n, Node)}
    colours: dict[Key, str] = {
        n: COLOURS.get(n.text("kind"), "white") if n.op == "leaf" else "white" for n in order if isinstance(n, Node)
    }
    edges: list[tuple[Key, Key]] = [
        (a, n) for n in order if isinstance(n, Node) for a in n.args if a.op != "const"
    ]
    for key, n in outputs.items():
        end: Key = ("output", key)
        texts[end] = key if n.op != "const" else f"{key} = {n.attr('value')}"
        colours[end] = OUTPUT
        edges += [(n, end)] if n.op != "const" else []
    sizes = {one: _size(text) for one, text in texts.items()}
    places = drawn(sizes, edges)
    lines = []
    for (a, b), bends in places.bends.items():
        lines.append(_edge([places.centres[a], *bends, places.centres[b]], sizes[a][1], sizes[b][1]))
    for one, text in texts.items():
        lines.append(_box(text, places.centres[one], sizes[one], colours[one]))
    width, height = places.size[0] + 2 * MARGIN, places.size[1] + 2 * MARGIN
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-MARGIN:.0f} {-MARGIN:.0f} {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="11">',
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#667"/></marker></defs>',
        *lines,
        "</svg>",
    ])


def _size(text: str) -> tuple[float, float]:
    lines = text.split("\n")
    return max(map(len, lines)) * LETTER + 2 * PAD, len(lines) * LINE + PAD


def _edge(points: list[tuple[float, float]], out: float, into: float) -> str:
    """A smooth line through the points, from the lower side of its first box to the upper side of its last."""
    (x, y), (u, v) = points[0], points[-1]
    points = [(x, y + out / 2), *points[1:-1], (u, v - into / 2)]
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (u, v) in pairwise(points):
        half = (v - y) / 2
        path += f"C{x:.1f} {y + half:.1f} {u:.1f} {v - half:.1f} {u:.1f} {v:.1f}"
    return f'<path d="{path}" fill="none" stroke="#667" stroke-width="1" marker-end="url(#end)"/>'


def _box(text: str, centre: tuple[float, float], size: tuple[float, float], colour: str) -> str:
    (x, y), (width, height) = centre, size
    lines = text.split("\n")
    top = y - (len(lines) - 1) * LINE / 2 + 4
    words = "".join(f'<tspan x="{x:.1f}" y="{top + i * LINE:.1f}">{escape(line)}</tspan>' for i, line in enumerate(lines))
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" '
        f'fill="{colour}" stroke="#889"/><text text-anchor="middle" fill="#223">{words}</text>'
    )
