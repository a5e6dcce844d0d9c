"""What values are called: the lines of the spec that define them, the names of results, and those of what lies between.

In: a `Block`, its two graphs. Out: node -> text. Names in a kernel, which are unique there, are `names`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from seqc.backends.triton_gpu.kernel import Let
from seqc.backends.triton_gpu.uses import Uses
from seqc.emit.names import safe_name
from seqc.ir.block import Block
from seqc.ir.graph import Node
from seqc.ir.keys import is_next, next_key, result_of, slope_of


def spec_lines(block: Block) -> dict[Node, str]:
    """The line of the spec that defines a node, for those that have one."""
    program = block.program
    step = {**program.outputs, **{next_key(s): n for s, n in program.updates.items()}}
    found = {}
    for n in (*program.definitions, *step.values()):
        if n in program.spans:
            span = program.spans[n]
            found[n] = span.source.line(span.line).partition("#")[0].strip()
    for key, n in step.items():  # in a block of rows the same line stands for another node
        if n in found:
            found.setdefault(block.forward[key], found[n])
    return found


def labels(forward: Mapping[str, Node], backward: Mapping[str, Node]) -> dict[Node, str]:
    """What the results of the two graphs are called where they are computed."""
    found = {n: f"{safe_name(result_of(key))}_next" for key, n in forward.items() if is_next(key)}
    for key, n in forward.items():
        found.setdefault(n, safe_name(key))
    for key, n in backward.items():
        found.setdefault(n, "d" + safe_name(slope_of(key).name))
    return found


class Labels:
    """What a kernel's values are called. labels, names: of results, and of values of the spec; bare: the bare name of a value
    that has a variable. toward: by partial sum and by term, what the whole sum is called."""

    def __init__(
        self, labels: Mapping[Node, str], names: Mapping[Node, str], bare: Callable[[Node], str | None], uses: Uses
    ) -> None:
        self.labels, self.names, self.bare = labels, names, bare
        self.toward: dict[Node, str] = {}
        self.level = 0  # in a function of levels, the one that its values are of
        for item in reversed(uses.items):
            if isinstance(item, Let):
                self.follow(item.node)

    def own(self, n: Node) -> str | None:
        """What the spec or the result calls n."""
        label, known = self.labels.get(n), self.names.get(n)
        if label and (label.endswith("_next") or (not known and n.op != "leaf")):
            return label
        return safe_name(known) if known else None

    def follow(self, n: Node) -> None:
        """Pass the name of a sum on to what it is made of."""
        name = self.own(n) or self.toward.get(n)
        if not name:
            return
        if n.op in ("add", "sub"):
            self.toward[n] = name
        kept = n.op == "where" and n.args[0].op == "leaf"
        if kept or n.op in ("add", "sub", "neg", "rename", "expand"):
            for a in n.args[1 if kept else 0 :]:
                if a.args and not self.own(a):
                    self.toward.setdefault(a, name)

    def __call__(self, n: Node) -> str:
        """What a value's variable is called."""
        own = self.own(n)
        if own:
            return own.removesuffix(f"_{self.level}")
        if n.op == "leaf":
            name = n.text("name")
            if n.text("kind") == "cot":
                return f"d{safe_name(result_of(name))}"
            return safe_name(name) + (f"_{n.number('offset')}".replace("-", "m") if n.number("offset") else "")
        if n.op in ("add", "sub") and n in self.toward:
            return self.toward[n]
        return self.made_of(n)

    def made_of(self, n: Node) -> str:
        """A name that says how n is made."""
        if n.op == "sum" and n.args[0].op == "mul":
            parts = [self.bare(a) for a in n.args[0].args]
            if all(p and len(p) <= 3 for p in parts):
                return "".join(p for p in parts if p)
        if n.op == "mul" and all(p and len(p) <= 3 for p in map(self.bare, n.args)):
            return "".join(self.bare(a) or "" for a in n.args)
        under = self.bare(n.args[1 if n.op == "where" else 0]) if n.args else None
        match n.op:
            case "where" if under and n.args[0].op == "leaf":
                return f"{under}_in"
            case "where":
                return f"{under or 'x'}_low"
            case "cumsum":
                block = "" if n.number("block") in (0, self.level) else n.number("block")
                return f"{under or 'x'}_sum{block}{'_rest' if n.number('reverse') else ''}"
            case "tri_inv":
                return "inverse"
            case "sum":
                return "sum"
        return f"{n.op}_{under}" if len(n.args) == 1 and under and len(under) <= 20 else "x"
