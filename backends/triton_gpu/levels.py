"""Levels of decayed products: what each of them adds to sums becomes one device function that is called once a level.

Pairs of steps (t, s) are split by levels (`passes.blocks.decay`): at level b the rows of the upper half of a segment of 2 b
rows meet those of the lower half. What a kernel does of a level, forward or backward, has the shape of what it does of others.

In: the items of one scope. Out: the same items with `Levels` in place of what several levels have alike. The same operators
take the same values; sums that have a part of every level are added up in another order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import groupby, pairwise
from typing import TypeAlias

from seqc.backends.triton_gpu.chains import Chains
from seqc.backends.triton_gpu.kernel import Function, Item, Let, Levels, Loop, Note, Outputs, Plus
from seqc.backends.triton_gpu.uses import consumed, taken, uses_here
from seqc.ir.graph import Node, topological
from seqc.ir.levels import level_mask, levels
from seqc.ir.traverse import reached

BARE = ("const", "size", "index", "block_index")  # written where they are used
Key: TypeAlias = "Node | int"
Part: TypeAlias = "tuple[int, list[Node]]"  # a level, and what is computed of it


def level_masks(rows: int) -> dict[Node, int]:
    """The masks of all levels of a block of so many rows, and the half of a segment of each."""
    return {level_mask(block, rows): block for block in levels(rows)}


def by_level(
    items: Iterable[Item], masks: Mapping[Node, int], elsewhere: Collection[Node], fixed: Callable[[Node], bool],
    called: Callable[[Node], str],
) -> list[Item]:
    """See the file's docstring. elsewhere: values that other scopes take; fixed: those that are no partial sums; called: what
    sums are called. What stands before a scope of its own, and what stands behind it, share no function."""
    listed = list(items)
    out: list[Item] = []
    for apart, group in groupby(listed, key=lambda item: isinstance(item, Loop | Outputs)):
        here = list(group)
        if not apart and masks:
            others = uses_here(listed)
            others.subtract(uses_here(here))
            found = _Levels(here, masks, {*elsewhere, *+others}, Chains(here, fixed), called)
            here = found.replaced() if found.made else here
        out += here
    return out


class _Levels:
    """The level and the stage of each value: how many sums over levels stand below it. made: the functions, each with what it
    replaces."""

    def __init__(
        self, items: list[Item], masks: Mapping[Node, int], elsewhere: Collection[Node], chains: Chains,
        called: Callable[[Node], str],
    ) -> None:
        self.items, self.masks, self.elsewhere, self.chains, self.called = items, masks, elsewhere, chains, called
        self.lets = [i.node for i in items if isinstance(i, Let)]
        self.place: dict[Node, tuple[int, int]] = {}  # level (0: none) and stage
        self.keys: dict[Node, int] = {}
        self.known: dict[tuple[object, ...], int] = {}
        for n in self.lets:
            if n not in masks:
                self.enter(n)
        self.sum_of = {term: (total, sign) for total, terms in chains.of.items() for term, sign in terms}
        groups, count = self.alike(), -1
        while len(groups) != count:
            inside, count = {n for group in groups for _, part in group for n in part}, len(groups)
            groups = [group for group in groups if self.fits(group, inside)]
        self.made = [(self.of_group(group), {n for _, part in group for n in part}) for group in groups]

    def of(self, n: Node) -> tuple[int, int]:
        return (self.masks[n], 0) if n in self.masks else self.place.get(n, (0, 0))

    def enter(self, n: Node) -> None:
        """Where n belongs. A sum of one level and of anything else belongs to no level."""
        block = n.number("block") if n.op == "cumsum" else 0
        found = [self.of(a) for a in n.args]
        levels = {level for level, _ in found if level} | ({block} if block else set())
        stage = max((stage for _, stage in found), default=0)
        if len(levels) == 1 and not (n.op in ("add", "sub") and any(level == 0 for level, _ in found)):
            self.place[n] = next(iter(levels)), stage
            attrs = tuple((k, "its own" if k == "block" and v else v) for k, v in n.attrs)
            self.keys[n] = self.known.setdefault((n.op, attrs, *map(self.key, n.args)), len(self.known))
        else:
            self.place[n] = 0, stage + bool(levels)

    def key(self, n: Node) -> Key:
        """The same for values of two levels that are made alike of the same values."""
        return -1 if n in self.masks else self.keys.get(n, n)

    def alike(self) -> list[list[Part]]:
        """The parts of several levels that are made alike."""
        parts: dict[tuple[int, int], list[Node]] = {}
        for n in self.lets:
            if self.of(n)[0] and n not in self.masks:
                parts.setdefault((self.of(n)[1], self.of(n)[0]), []).append(n)
        found: dict[tuple[object, ...], list[Part]] = {}
        for (stage, level), part in parts.items():
            sums = frozenset((self.key(n), *self.sum_of.get(n, ())) for n in self.results(part))
            found.setdefault((stage, frozenset(map(self.key, part)), sums), []).append((level, part))
        return [sorted(group, key=lambda x: -x[0]) for group in found.values() if len(group) > 1]

    def results(self, part: list[Node]) -> list[Node]:
        """What of a part is taken that is of no level."""
        inside = set(part)
        taken = {a for n in self.lets if n not in self.keys for a in n.args if a in inside}
        taken |= {n for item in self.items for n in consumed(item) if n in inside}
        return [n for n in part if n in taken or n in self.elsewhere]

    def fits(self, group: list[Part], inside: Collection[Node]) -> bool:
        """Whether others take nothing of parts but what these add to sums. inside: what functions compute, each for itself."""
        blocks = [level for level, _ in group]
        for _, part in group:
            for n in self.results(part):
                if n not in self.sum_of or len(self.chains.users[n]) != 1:
                    return False
            if any(u in self.keys and u not in inside for n in part for u in self.chains.users.get(n, ())):
                return False
        regular = all(a == 2 * b for a, b in pairwise(blocks))
        return regular and not any(self.of(a)[0] for a in self.given(self.whole(group[0][1])))

    def whole(self, part: list[Node]) -> list[Node]:
        """A part and what it takes of its level that belongs to an earlier stage."""
        found = reached(part, lambda n: [a for a in n.args if a in self.keys])
        return [n for n in self.lets if n in found]

    def given(self, part: list[Node]) -> list[Node]:
        """What a part is made of."""
        inside = {*part, *self.masks}
        return list(dict.fromkeys(a for n in part for a in n.args if a not in inside and a.op not in BARE))

    def of_group(self, group: list[Part]) -> Levels:
        """The function of parts that are alike, as the first is: sum by sum, so that kernels that add up the same have one."""
        level, part = group[0]
        results = set(self.results(part))
        totals = list(dict.fromkeys(self.sum_of[n][0] for n in self.results(part)))
        totals.sort(key=lambda total: self.called(total))
        whole = set(self.whole(part))
        items: list[Let | Plus] = []
        known: set[Node] = set()
        for total in totals:
            for n, sign in self.chains.of[total]:
                if n in results:
                    new = [x for x in topological([n], known) if x in whole]
                    items += [*map(Let, new), Plus(total, n, sign)]
                    known.update(new)
        given = self.given([item.node for item in items if isinstance(item, Let)])
        return Levels(Function(level, tuple(totals), tuple(given), tuple(items)), tuple(level for level, _ in group))

    def replaced(self) -> list[Item]:
        """The items, each behind what it takes: a function where the last value of its first part stood, a term where it is
        computed. What only functions of later stages take is computed by these, and by no function of its own."""
        whose = {n: levels for levels, every in self.made for n in every}
        last = {[n for n in self.lets if n in every][-1] for levels, every in self.made if levels.function.totals}
        totals = {total for levels, _ in self.made for total in levels.function.totals}
        links = {n for total in totals for n in (total, *self.chains.linked(total))}
        terms = [Plus(total, n, sign) for total in totals for n, sign in self.chains.of[total] if n not in whose]
        new: list[Item] = [term for term in terms if term.node not in self.lets]
        notes: dict[int, list[Note]] = {}
        above: list[Note] = []
        for item in self.items:
            n = item.node if isinstance(item, Let) else None
            if isinstance(item, Note):
                above.append(item)
                continue
            if n in links or n in self.masks or (n in whose and n not in last):
                continue
            one = whose.get(n, item) if n is not None else item
            notes[id(one)], above = above, []
            new += [one, *(term for term in terms if term.node is n)]
        return [x for item in _in_order(new, totals) for x in (*notes.get(id(item), ()), item)]


def _in_order(items: list[Item], totals: Collection[Node]) -> list[Item]:
    """Each item behind what it takes: a sum is there once all terms have been added; its levels come after a first term."""
    left = Counter(total for item in items for total in _adds_to(item))
    begins = {item.total for item in items if isinstance(item, Plus)}  # not begun yet, and will be with a term
    late = {i.node for i in items if isinstance(i, Let)} | set(totals)
    waiting: list[Item] = []
    out: list[Item] = []

    def ready(item: Item) -> bool:
        if isinstance(item, Levels) and begins.intersection(item.function.totals):
            return False
        return not late.intersection(taken(item))

    for item in items:
        waiting.append(item)
        while one := next((x for x in waiting if ready(x)), None):
            waiting.remove(one)
            out.append(one)
            late.difference_update([one.node] if isinstance(one, Let) else ())
            for total in _adds_to(one):
                begins.discard(total)
                left[total] -= 1
                if not left[total]:
                    late.discard(total)
    assert not waiting, waiting
    return out


def _adds_to(item: Item) -> tuple[Node, ...]:
    """The sums that an item adds to."""
    return item.function.totals if isinstance(item, Levels) else (item.total,) if isinstance(item, Plus) else ()


def first_terms(items: Iterable[Item]) -> dict[Node, Node]:
    """By value that only begins a sum, the sum: its variable is the sum's."""
    listed = list(items)
    count = uses_here(listed)
    lets = {i.node for i in listed if isinstance(i, Let)}
    first: dict[Node, Plus] = {}
    for item in listed:
        if isinstance(item, Plus):
            first.setdefault(item.total, item)
    return {one.node: total for total, one in first.items() if one.sign > 0 and one.node in lets and count[one.node] == 1}
