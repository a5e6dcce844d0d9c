"""products `(a[D] * b[N]) * c[D]` -> `(a * c)[D] * b[N]`, and signs onto the smallest factor, when factors differ in dims.

Needs: outputs, and which dims a program works on element by element. Gives: the same outputs up to rounding, with fewer
multiplications per element of a matrix: factors of equal dims meet first, those of few dims before those of many. A factor that
others use too is not taken apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from seqc.ir.graph import Node, combined, node, rebuild, topological
from seqc.ir.verify import verify

Local: TypeAlias = "Callable[[Iterable[str]], tuple[str, ...]]"


def regroup(outputs: Mapping[str, Node], local: Local) -> tuple[dict[str, Node], dict[Node, Node]]:
    """(outputs, what has become of every node below them). local: those of some dims that a program works on."""
    order = topological(outputs.values())
    uses = Counter(a for n in order for a in n.args) + Counter(outputs.values())
    inner = {a for n in order if n.op in ("mul", "neg") for a in n.args if a.op in ("mul", "neg") and uses[a] == 1}
    image: dict[Node, Node] = {}
    for n in order:
        plain = rebuild(n, tuple(image[a] for a in n.args))
        if n.op in ("mul", "neg") and n not in inner:
            factors, sign = _factors(n, inner)
            done = _product([image[f] for f in factors], sign, local)
            image[n] = plain if done is None else done
        else:
            image[n] = plain
    found = {name: image[n] for name, n in outputs.items()}
    verify(found, "regroup")
    return found, image


def _factors(n: Node, inner: set[Node]) -> tuple[list[Node], int]:
    found: list[Node] = []
    sign = 1
    stack = [(n, True)]
    while stack:
        x, top = stack.pop()
        if x.op == "neg" and (top or x in inner):
            sign = -sign
            stack.append((x.args[0], False))
        elif x.op == "mul" and (top or x in inner):
            stack += [(a, False) for a in reversed(x.args)]
        else:
            found.append(x)
    return found, sign


def _product(factors: list[Node], sign: int, local: Local) -> Node | None:
    """The product in its new order; None where the old one is as good."""
    groups: dict[tuple[str, ...], list[Node]] = {}
    for f in factors:
        groups.setdefault(local(f.dims), []).append(f)
    if len(groups) < 2 or (sign > 0 and len(factors) < 3):
        return None
    parts = [combined("mul", groups[dims]) for dims in sorted(groups, key=lambda d: (len(d), d))]
    if sign < 0:
        parts[0] = node("neg", parts[0])
    return combined("mul", parts)
