"""Graphs as pictures, in the DOT language of Graphviz. In: outputs (key -> node) and names. Out: text, the same every time.

Arguments stand above their users. Leaves are boxes, a node that the spec names carries the name, constants are written
into their users.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

from seqc.ir.graph import Node, topological
from seqc.ir.ops import TABLE
from seqc.ir.windows import lags, window_of

COLOURS = {"input": "#dbe9f6", "param": "#e5f5e0", "state": "#fde0c5", "cot": "#eadcf4", "mask": "#eeeeee"}


def dot(title: str, outputs: Mapping[str, Node], names: Mapping[Node, str] | None = None) -> str:
    """The graph below `outputs`."""
    order = [n for n in topological(outputs.values()) if n.op != "const"]
    number = {n: f"n{i}" for i, n in enumerate(order)}
    lines = [
        f"digraph {quoted(title)} {{",
        f'  label={quoted(title)}; labelloc="t"; rankdir="TB"; fontname="Helvetica";',
        '  node [shape="box", style="rounded,filled", fillcolor="white", fontname="Helvetica", fontsize="11"];',
        '  edge [fontname="Helvetica", fontsize="9", arrowsize="0.6"];',
    ]
    for n in order:
        colour = f", fillcolor={quoted(COLOURS.get(n.text('kind'), 'white'))}" if n.op == "leaf" else ""
        lines.append(f"  {number[n]} [label={quoted(label(n, (names or {}).get(n, '')))}{colour}];")
        ordered = len(n.args) > 1 and "associative" not in TABLE[n.op].laws
        for i, a in enumerate(n.args):
            if a.op != "const":
                lines.append(f"  {number[a]} -> {number[n]}" + (f' [label="{i + 1}"];' if ordered else ";"))
    for i, (key, n) in enumerate(outputs.items()):
        lines.append(f'  out{i} [label={quoted(key)}, shape="ellipse", fillcolor="#fff3b0"];')
        if n.op == "const":
            lines[-1] = lines[-1].replace(quoted(key), quoted(f"{key} = {n.attr('value')}"))
        else:
            lines.append(f"  {number[n]} -> out{i};")
    return "\n".join([*lines, "}"]) + "\n"


def label(n: Node, name: str) -> str:
    """What stands in a node: its name, the operator with its constants and attributes, and its dims."""
    dims = f"[{', '.join(n.dims)}]"
    if n.op == "leaf":
        offset = f" {-n.number('offset'):+d} steps" if n.number("offset") else ""
        offset = f" {-lags(n)[0]:+d}..{-lags(n)[-1]:+d} steps" if window_of(n) else offset
        return f"{n.text('kind')} {n.text('name')}{offset}\n{dims}"
    constants = [f"{a.attr('value'):g}" if a.op == "const" else "·" for a in n.args]
    shown = n.op if "·" not in constants or set(constants) == {"·"} else f"{n.op}({', '.join(constants)})"
    if (infix := TABLE[n.op].infix) and len(constants) == 2:
        shown = f" {infix[0]} ".join(constants)
    attrs = " ".join(f"{key}={','.join(v) if isinstance(v, tuple) else v}" for key, v in n.attrs)
    first = f"{name} = {shown}" if name else shown
    return "\n".join(line for line in (first, attrs, dims) if line)


def quoted(text: str) -> str:
    """A DOT string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def svg(text: str) -> str | None:
    """The picture of a graph in the DOT language, where Graphviz is installed; None where it is not."""
    program = shutil.which("dot")
    if program is None:
        return None
    return subprocess.run([program, "-Tsvg"], input=text, capture_output=True, text=True, check=True).stdout
