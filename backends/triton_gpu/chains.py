"""Sums of three and more terms, taken apart.

In: the items of one scope. Out: `Chains`: the terms of each such sum, in their order, and the partial sums between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from seqc.analysis.normal_forms import terms
from seqc.backends.triton_gpu.kernel import Item, Let
from seqc.backends.triton_gpu.uses import consumed
from seqc.ir.graph import Node
from seqc.ir.traverse import reached


class Chains:
    """of: by the whole sum, its (term, sign)s. users: by value, the values made of it; stored: what stores and the like take.

    fixed: values that are no partial sums, since they have a name.
    """

    def __init__(self, items: Iterable[Item], fixed: Callable[[Node], bool]) -> None:
        items = list(items)
        lets = dict.fromkeys(i.node for i in items if isinstance(i, Let))
        self.stored = {n for i in items for n in consumed(i)}
        self.users: dict[Node, list[Node]] = {}
        for n in lets:
            for a in dict.fromkeys(n.args):
                self.users.setdefault(a, []).append(n)
        self.links = {n for n in lets if not fixed(n) and self.is_link(n)}
        chains = {n: self.terms(n) for n in lets if n.op in ("add", "sub") and n not in self.links}
        self.of = {n: terms for n, terms in chains.items() if len(terms) > 2}

    def is_link(self, n: Node) -> bool:
        """Whether n is a partial sum that only a further sum of the same dims takes."""
        by = self.users.get(n, [])
        if n.op not in ("add", "sub") or n in self.stored or len(by) != 1:
            return False
        (user,) = by
        return user.op in ("add", "sub") and user.args.count(n) == 1 and user.dims == n.dims

    def linked(self, root: Node) -> Iterable[Node]:
        """The partial sums of a sum."""
        return [n for n in reached([root], lambda n: [a for a in n.args if a in self.links]) if n is not root]

    def terms(self, root: Node) -> list[tuple[Node, int]]:
        """(term, sign) of a sum, in the given order."""
        return [(n, sign) for sign, n in terms(root, lambda n: n is root or n in self.links)]
