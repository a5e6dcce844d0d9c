"""One function over a whole sequence: before the loop, the loop, and after it.

In: the roots of a block (or of its gradient), what is carried from block to block, and texts of what is given. Out: the
statements, and the text of every root. Forward and backward are the same to this file; backward runs the loop from the
last block to the first and carries the cotangents of the states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from seqc.analysis.phases import BLOCK, Stage, over_blocks, split, stages
from seqc.backends.torch_eager.function import Function
from seqc.backends.torch_eager.layout import Layout
from seqc.backends.torch_eager.loop import LoopPrinter
from seqc.backends.torch_eager.printer import Printer
from seqc.backends.torch_eager.values import FREE
from seqc.emit.expressions import Text
from seqc.emit.names import safe_name
from seqc.emit.text import WIDTH
from seqc.ir.graph import BATCH, Node, leaf, topological
from seqc.ir.keys import result_of
from seqc.passes.lower.hoist import hoist


def all_blocks(n: Node, which: str) -> Node:
    """The leaf of a carried value over all blocks: "in" as blocks begin, "out" as they end."""
    return leaf("value", f"{n.text('name')}.{which}", (BLOCK, *n.names("shape")))


class Sequence:
    """See the file's docstring.

    carried: leaf -> key of its next value; starts: carried leaf -> the code of its first value; known: node -> (leaf over
    all blocks, text) of what is given besides; load: text of a leaf over all blocks; result: what a root becomes when it
    is computed for all blocks; kept: carried leaves whose values over all blocks are wanted in any case.
    """

    def __init__(
        self, fn: Function, layout: Layout, rows: int, roots: Mapping[str, Node], carried: Mapping[Node, str],
        starts: Mapping[Node, str], known: Mapping[Node, tuple[Node, Text]], load: Callable[[Node], Text],
        result: Callable[[str, Node], Node], names: Mapping[Node, str], quotes: Mapping[Node, str], reverse: bool,
        kept: Iterable[Node] = (),
    ) -> None:
        self.fn, self.layout, self.reverse = fn, layout, reverse
        self.carried, self.starts = carried, starts
        self.finals: dict[Node, Text] = {}  # carried leaf -> its last value
        self.wholes: dict[Node, Text] = {}  # carried leaf -> its values over all blocks, [NT + 1, ...]
        self.stages = stages(roots, carried)
        for stage in self.stages:
            if not stage.stream:
                roots, moved = hoist(roots, {n: carried[n] for n in stage.carried}, rows)
                names, quotes = ({moved.get(n, n): x for n, x in table.items()} for table in (names, quotes))
        self.roots, self.names, self.quotes = roots, names, quotes
        self._inside = {s: self._loop_nodes(s) for s in self.stages}
        leaves = {n: x for n, (x, _) in known.items()} | self._carried_over_blocks()
        lifted, self.image = over_blocks(self.roots, leaves)
        self.results = {k: result(k, n) for k, n in lifted.items() if k not in carried.values()}
        self._needed = {s: self._needs(s) for s in self.stages}
        ahead = [self.image[n] for s in self.stages for n in self._needed[s]]
        below = topological([*ahead, *self.results.values()])
        self.kept = {n for n in carried if n in set(kept) or any(all_blocks(n, w) in below for w in ("in", "out"))}
        texts = dict(known.values())
        texts |= {all_blocks(n, w): Text("?", (BLOCK, *n.names("shape"))) for n in carried for w in ("in", "out")}
        loaded = [n for n in below if n.op == "leaf" and n not in texts]
        place = {name: i for i, name in enumerate(fn.arguments)}
        for n in sorted(loaded, key=lambda n: (n.number("offset") == 0, place.get(safe_name(n.text("name")), len(place)))):
            texts[n] = load(n)
        self.printer = Printer(
            fn, [*ahead, *self.results.values()], texts, self._over_blocks(names), layout.order, layout.extent,
            self._over_blocks(quotes),
        )
        for stage in self.stages:
            if stage.stream:
                self._stream(stage.carried[0])
            else:
                self._loop(stage)

    def _over_blocks(self, table: Mapping[Node, str]) -> dict[Node, str]:
        out: dict[Node, str] = {}
        for n, x in table.items():
            if n in self.image and self.image[n].op not in ("leaf", "const", "size", "index"):
                out.setdefault(self.image[n], x)
        return out

    def _carried_over_blocks(self) -> dict[Node, Node]:
        """Carried leaves, and next values that a loop computes, with their leaves over all blocks."""
        out: dict[Node, Node] = {n: all_blocks(n, "in") for n in self.carried}
        for stage in self.stages:
            for n in stage.carried:
                end = self.roots[self.carried[n]]
                if end in self._inside[stage] and set(end.dims) == set(n.dims):
                    out.setdefault(end, all_blocks(n, "out"))
        return out

    def _ends(self, stage: Stage) -> list[Node]:
        return [self.roots[self.carried[n]] for n in stage.carried]

    def _loop_nodes(self, stage: Stage) -> set[Node]:
        """What the loop of a stage computes: all that depends on what it carries, and outer products it alone reads.

        Those could be formed before the loop, but are bigger than their factors.
        """
        if stage.stream:
            return set()
        ends = {str(i): n for i, n in enumerate(self._ends(stage))}
        phases = split(ends, {n: str(i) for i, n in enumerate(stage.carried)})
        inside = set(phases.loop)
        users: dict[Node, set[Node]] = {}
        for n in topological(self.roots.values()):
            for a in n.args:
                users.setdefault(a, set()).add(n)
        roots = set(self.roots.values())
        return inside | {
            n for n in phases.before
            if n.op == "mul" and BATCH in n.dims and all(set(a.dims) < set(n.dims) for a in n.args)
            and n not in roots and users[n] <= inside
        }

    def _needs(self, stage: Stage) -> list[Node]:
        """What a stage reads of all that is known before it, in order."""
        ends = self._ends(stage)
        if stage.stream:
            return ends
        inside = self._inside[stage]
        stay = {*inside, *stage.carried}
        reads = [a for n in topological(ends) if n in inside for a in n.args]
        return [a for a in dict.fromkeys([*reads, *ends]) if a not in stay and a.op not in ("const", "size")]

    # ---- what is carried ----

    def carried_name(self, n: Node) -> str:
        """What a carried value is called in the text."""
        name = n.text("name")
        return safe_name(name) if n.text("kind") == "state" else f"d_{safe_name(result_of(name))}"

    def _settle(self, n: Node, whole: Text) -> None:
        """The texts of a carried value over all blocks: as they begin and as they end, in the order of the recurrence."""
        cuts = [self.layout.cut(rows) for rows in (("1:", ":-1") if self.reverse else (":-1", "1:"))]
        for which, cut in zip(("in", "out"), cuts, strict=True):
            self.printer.texts[all_blocks(n, which)] = Text(f"{whole.code}{cut}", whole.axes)
        self.wholes[n] = whole

    def _stream(self, n: Node) -> None:
        """A carried value that needs no loop: the next values, moved by one block."""
        at, inner = self.layout.at, n.names("shape")
        axes = (*inner[:at], BLOCK, *inner[at:])
        moved = self.printer.exactly(self.printer.value(self.image[self.roots[self.carried[n]]]), axes)
        start = f"{self.starts[n]}{self.layout.cut('None')}"
        parts = f"{moved.code}, {start}" if self.reverse else f"{start}, {moved.code}"
        joined = f"torch.cat([{parts}]{f', {at}' if at else ''})"
        self._settle(n, self.fn.assign(f"{self.carried_name(n)}_all", Text(joined, axes)))
        self.finals[n] = Text(f"{self.wholes[n].code}{self.layout.cut('0' if self.reverse else '-1')}.clone()", inner)

    def _loop(self, stage: Stage) -> None:
        fn, looped = self.fn, stage.carried
        ends = self._ends(stage)
        outer = {n: self.printer.named(self.image[n]) for n in self._needed[stage]}
        fn.blank("the recurrence itself: one step or block after the other")
        texts, lists = {}, {}
        for n in looped:
            name = fn.names.fresh(self.carried_name(n))
            texts[n] = Text(name, n.names("shape"))
            fn.say(f"{name} = {self.starts[n]}")
            if n in self.kept:
                lists[n] = fn.names.fresh(f"{self.carried_name(n)}_all")
                fn.say(f"{lists[n]} = [{name}]")
        with fn.together():
            self._body(stage, texts, lists, outer)
        fn.blank()
        for n, end in zip(looped, ends, strict=True):
            own = end.op not in (*FREE, "leaf", "take", "surrogate") and ends.count(end) == 1 and set(end.dims) == set(n.dims)
            self.finals[n] = texts[n] if own else Text(f"{texts[n].code}.clone()", texts[n].axes)
            if n in lists:
                fn.say(f"{lists[n]} = torch.stack({lists[n]}{'[::-1]' if self.reverse else ''})")
                self._settle(n, Text(lists[n], (BLOCK, *texts[n].axes)))

    def _body(self, stage: Stage, texts: dict[Node, Text], lists: dict[Node, str], outer: dict[Node, Text]) -> None:
        """The loop's own lines. texts: of what is carried; lists: where its values are kept; outer: what is known before."""
        fn, looped, ends = self.fn, stage.carried, self._ends(stage)
        begin = len(fn.lines)
        names = self._names_inside(stage)
        fn.indent += 4
        loop = LoopPrinter(fn, ends, texts, names, self.layout.order, self.layout.extent,
                           self.quotes, outer)
        values = [loop.exactly(x, n.names("shape")) for n, x in zip(looped, loop.values(ends), strict=True)]
        left = [texts[n].code for n, x in zip(looped, values, strict=True) if texts[n].code != x.code]
        right = [x.code for n, x in zip(looped, values, strict=True) if texts[n].code != x.code]
        if left:
            for end in ends:
                if end not in names:
                    fn.comment(self.quotes.get(end, ""))
            if fn.indent + sum(len(x) + 2 for x in (*left, *right)) > WIDTH:
                right = [x if x.isidentifier() else fn.assign(f"{n}_next", Text(x)).code
                         for n, x in zip(left, right, strict=True)]
            fn.say(f"{', '.join(left)} = {', '.join(right)}")
        for n in lists:
            fn.say(f"{lists[n]}.append({texts[n].code})")
        fn.indent -= 4
        if fn.lines[begin:]:  # else no state changes
            before, head = loop.opening(fn.lines[begin:], self.reverse)
            fn.lines[begin:begin] = [" " * fn.indent + line for line in (*before, *head)]

    def _names_inside(self, stage: Stage) -> dict[Node, str]:
        """Wishes inside the loop: the name of a state is taken by its old value, and a new one is stored at once."""
        taken = {self.carried_name(n) for n in self.carried}
        inside = self._inside[stage]
        reads = Counter(a for n in inside for a in n.args)
        ends = self._ends(stage)
        stored = {n for n in ends if not reads[n] and ends.count(n) == 1}
        return {
            n: f"{w}_next" if w in taken else w for n, w in self.names.items() if n.op != "leaf" and n not in stored
        }
