"""A node as the formula that a reader of the spec would write, on one line.

In: a node, and names for some nodes (what the spec calls them). Out: text such as `1 - beta * sum[K](k * k)`. For
messages and `explain` only: it is never parsed, and brackets are as few as the operators' precedence allows. A part of more
than LONGEST characters is `..`: what is used twice is written twice, so that a few hundred operators may spell millions.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.ir.graph import Node
from seqc.ir.ops import TABLE
from seqc.ir.traverse import postorder
from seqc.ir.windows import lags, window_of

NEGATION = 6
ATOM = 9
LONGEST = 240


def spell(n: Node, names: Mapping[Node, str] | None = None) -> str:
    """The formula of n; a node with a name is spelled by it, unless it is n itself."""
    done: dict[Node, tuple[str, int]] = {}

    def named(x: Node) -> bool:
        return names is not None and x in names and x is not n

    for x in postorder([n], lambda x: () if named(x) else x.args):
        args = [] if named(x) else [done[a] if len(done[a][0]) <= LONGEST else ("..", ATOM) for a in x.args]
        done[x] = (names[x], ATOM) if names and named(x) else _spelled(x, args)
    return done[n][0]


def _wrapped(text: str, level: int, needed: int) -> str:
    return text if level >= needed else f"({text})"


def _spelled(n: Node, args: list[tuple[str, int]]) -> tuple[str, int]:
    if n.op == "leaf":
        offset = n.number("offset")
        kind = n.text("kind")
        time = "[t-1]" if kind == "state" else f"[t{-offset:+d}]" if offset else ""
        time = f"[t{-offset:+d}..{-lags(n)[-1]:+d}]" if window_of(n) else time
        return n.text("name") + time, ATOM
    if n.op == "const":
        value = n.attr("value") or 0.0  # -0 is 0 to a reader
        return f"{value:g}", NEGATION if float(f"{value}") < 0 else ATOM
    if n.op in ("size", "index"):
        return (n.text("dim") if n.op == "size" else f"index[{n.text('dim')}]"), ATOM
    if n.op in ("expand", "rename", "stopgrad"):
        return args[0] if n.op != "stopgrad" else (f"stopgrad({args[0][0]})", ATOM)
    row = TABLE[n.op]
    if row.infix:
        symbol, level = row.infix
        (a, la), (b, lb) = args
        right = level + (level > 3 and "associative" not in row.laws)
        return f"{_wrapped(a, la, level)} {symbol} {_wrapped(b, lb, right)}", level
    if n.op == "neg":
        return f"-{_wrapped(args[0][0], args[0][1], NEGATION)}", NEGATION
    over = f"[{', '.join(n.names('over'))}]" if n.op in ("sum", "amax") else ""
    return f"{row.word or n.op}{over}({', '.join(text for text, _ in args)})", ATOM
