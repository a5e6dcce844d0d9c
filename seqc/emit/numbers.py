"""How Python computes an operator of numbers: of constants and sizes alone.

In: a node below which there is no leaf. Out: a format string over its arguments' texts. Python's own functions raise where
IEEE has an answer (`math.log(0)`, `1 / 0`), and leave out others: there torch computes the number, in float64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from seqc.ir.dims import unprimed
from seqc.ir.graph import Node, constant, topological
from seqc.ir.intervals import ANY, POSITIVE, Interval
from seqc.ir.ops import TABLE

LARGE = 700.0  # exp of more overflows


def number_spelling(n: Node) -> str:
    """The format string of an operator of numbers; see the file's docstring."""
    plain, python = TABLE[n.op].spell["torch"], TABLE[n.op].spell.get("python", "")
    if python or "torch." not in plain:
        ranges = _ranges(n)
        if _safe(n, ranges) and (n.op not in ("min", "max") or all(_safe(x, ranges) for x in ranges)):
            return python or plain
    made = re.sub(r"(\{\d\})", r"torch.tensor(\1, dtype=torch.float64)", plain)
    return f"{made}.item()" if made.startswith("torch.") and n.op not in ("add", "sub", "mul", "div") else f"({made}).item()"


def number_at(n: Node, sizes: Mapping[str, int]) -> float:
    """The number, where the dims have these sizes."""
    import numpy as np

    found: dict[Node, np.float64] = {}
    with np.errstate(all="ignore"):
        for x in topological([n]):
            if x.op == "size":
                found[x] = np.float64(sizes[unprimed(x.text("dim"))])
            else:
                found[x] = np.float64(TABLE[x.op].ref(*(found[a] for a in x.args)) if x.args else constant(x))
    return float(found[n])


def _ranges(n: Node) -> dict[Node, Interval]:
    """The interval of every number below n; sizes may be 0."""
    found: dict[Node, Interval] = {}
    for x in topological([n]):
        if x.op == "const":
            value = constant(x)
            found[x] = ANY if math.isnan(value) else Interval(value, value)
        elif x.op == "size":
            found[x] = POSITIVE
        else:
            sure = x.dtype == "real" and _safe(x, found)
            found[x] = TABLE[x.op].interval(x, tuple(found[a] for a in x.args)) if sure else ANY
    return found


def _safe(n: Node, ranges: dict[Node, Interval]) -> bool:
    """Whether Python's own operator gives what IEEE says for all arguments in these ranges."""
    a = [ranges[x] for x in n.args]
    match n.op:
        case "const":
            return not math.isnan(constant(n))
        case "sqrt":
            return a[0].lo >= 0
        case "log":
            return a[0].lo > 0
        case "log1p":
            return a[0].lo > -1
        case "exp" | "expm1":
            return a[0].hi < LARGE
        case "sin" | "cos":
            return a[0].magnitude < math.inf
        case "div":
            return a[1].lo > 0 or a[1].hi < 0
        case "pow":
            whole = n.args[1].op == "const" and constant(n.args[1]) in range(9)
            return whole or (a[0].lo > 0 and a[1].magnitude <= 8)
    return True
