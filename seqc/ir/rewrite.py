"""A small rewrite engine: rules, applied bottom-up until none fires.

In: outputs and rules. Out: outputs in which no rule matches, and what each old node has become. A rule is a law
between two patterns, `mul(x, 1) -> x`, written with ordinary nodes over pattern variables; or a function for what a
pattern cannot say (attributes). The engine keeps the dims of every node: a replacement that lacks dims is wrapped in
`expand`, which a rule may move or remove later. It never evaluates and knows no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from seqc.diagnostics import SeqcBug
from seqc.ir.graph import Node, leaf, node, rebuild, topological
from seqc.ir.ops import TABLE

Bindings = Mapping[Node, Node]
PASSES = 50  # a set of rules that needs more sweeps than this runs in circles
AT_ONCE = 50  # and so does one that fires more often than this at one node


def var(name: str) -> Node:
    """A pattern variable: it stands for any node, and for the same one wherever it occurs."""
    return leaf("var", name, ())


@dataclass(frozen=True)
class Rule:
    """`law` says before -> after in words; `ops` are the operators it can start at; `apply` answers None where it does
    not hold."""

    law: str
    ops: tuple[str, ...]
    apply: Callable[[Node], Node | None]


def law(before: Node, after: Node, when: Callable[[Bindings], bool] | None = None, note: str = "") -> Rule:
    """The rule that replaces what matches `before` by `after`, where `when` holds of the variables."""

    def apply(n: Node) -> Node | None:
        for bound in matches(before, n, {}):
            if when is None or when(bound):
                return instantiate(after, bound)
        return None

    return Rule(f"{show(before)} -> {show(after)}" + (f", {note}" if note else ""), (before.op,), apply)


def is_var(n: Node) -> bool:
    """Whether a node is a pattern variable."""
    return n.op == "leaf" and n.text("kind") == "var"


def matches(pattern: Node, n: Node, bound: Bindings) -> list[Bindings]:
    """All ways to bind the pattern's variables so that it is n; commutative operators match in both orders."""
    if is_var(pattern):
        known = bound.get(pattern)
        return [bound] if known is n else [{**bound, pattern: n}] if known is None else []
    if pattern is n:
        return [bound]
    if pattern.op != n.op or pattern.attrs != n.attrs or not n.args:
        return []
    orders = [n.args]
    if "commutative" in TABLE[n.op].laws and n.args[0] is not n.args[1]:
        orders.append(n.args[::-1])
    found: list[Bindings] = []
    for args in orders:
        ways: list[Bindings] = [bound]
        for p, a in zip(pattern.args, args, strict=True):
            ways = [more for way in ways for more in matches(p, a, way)]
        found += ways
    return found


def instantiate(template: Node, bound: Bindings) -> Node:
    """The template with its variables replaced."""
    if is_var(template):
        return bound[template]
    return rebuild(template, tuple(instantiate(a, bound) for a in template.args))


def show(n: Node) -> str:
    """A pattern as text."""
    if n.op == "leaf":
        return n.text("name")
    if n.op == "const":
        return f"{n.attr('value'):g}"
    return f"{n.op}({', '.join(show(a) for a in n.args)})"


def rewrite(outputs: Mapping[str, Node], rules: Iterable[Rule]) -> tuple[dict[str, Node], dict[Node, Node]]:
    """(new outputs, image): image maps every node of the old graph to its replacement."""
    starting: dict[str, list[Rule]] = {}
    for rule in rules:
        for op in rule.ops:
            starting.setdefault(op, []).append(rule)
    now = dict(outputs)
    image = {n: n for n in topological(outputs.values())}
    settled: set[Node] = set()
    for _ in range(PASSES):
        done: dict[Node, Node] = {}
        for n in topological(now.values()):
            fresh = rebuild(n, tuple(done[a] for a in n.args))
            done[n] = fresh if fresh in settled else _at(fresh, starting, settled)
        if all(new is old for old, new in done.items()):
            return now, image
        now = {name: done[n] for name, n in now.items()}
        image = {old: done.get(new, new) for old, new in image.items()}  # what is no longer used stays as it is
    raise SeqcBug("rewrite", f"the rules do not come to rest after {PASSES} sweeps")


def _at(n: Node, starting: Mapping[str, list[Rule]], settled: set[Node]) -> Node:
    """n after every rule that fires at it; `settled` collects nodes at which none does."""
    dims = n.dims
    for _ in range(AT_ONCE):
        for rule in starting.get(n.op, ()):
            new = rule.apply(n)
            if new is None or new is n:
                continue
            extra = [d for d in new.dims if d not in dims]
            if extra or new.dtype != n.dtype:
                raise SeqcBug("rewrite", f"rule `{rule.law}` turned {n!r} into {new!r}")
            missing = tuple(d for d in n.dims if d not in new.dims)
            n = node("expand", new, over=missing) if missing else new
            break
        else:
            settled.add(n)
            return n
    raise SeqcBug("rewrite", f"the rules do not come to rest at {n!r}")
