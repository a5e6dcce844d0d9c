"""What a program of a team does with all units of the shared dim: it has them in pieces, one after the other.

In: what a kernel needs, and the bodies that know what varies from step to step. Out: items. What matrices alone make is held
from step to step, of as many pieces as there is room for (`Loop.held`, `Held`); what programs are told is loaded piece by piece
(`Loop.keeps`); sums go through the pieces (`Loop.sums`). A value with all units is never anything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from seqc.backends.triton_gpu.bodies import Bodies
from seqc.backends.triton_gpu.kernel import Array, Four, Held, Item, Let, Load, Loop
from seqc.backends.triton_gpu.roles import ALL
from seqc.backends.triton_gpu.team_graph import TOLD
from seqc.ir.graph import Node, combined, leaves, operands, rebuild, topological

FOUR = 4  # times 16 units: the rows of a product of a warp group
PLACES = ("index", "block_index", "const", "size")  # what an index tells is no tile that anyone holds


class Pieces:
    """The loops of one kernel. every: all that it computes; dim: all units, under their name; fours: whether four products of
    what programs tell are done as one, which a warp group of Hopper takes."""

    def __init__(self, bodies: Bodies, every: Iterable[Node], dim: str, fours: bool) -> None:
        self.bodies, self.dim = bodies, dim
        roots = list(every)
        nodes = topological(roots)
        self.inside = dict.fromkeys(n for n in nodes if dim in n.dims)
        self.sums = [n for n in nodes if n not in self.inside and any(a in self.inside for a in n.args)]
        users = Counter(a for n in nodes for a in n.args) + Counter(roots)
        self.total = dict(term for n in nodes for term in self.terms(n, users))
        self.added: dict[Node, list[Node]] = {}
        for n in self.sums:
            self.added.setdefault(self.total.setdefault(n, n), []).append(n)
        self.fours = self.in_fours(users) if fours else []

    def varies(self, n: Node) -> bool:
        """Whether a value changes from step to step."""
        return self.bodies.varies(n)

    def terms(self, n: Node, users: Mapping[Node, int]) -> list[tuple[Node, Node]]:
        """(sum over the dim, what it is added to) where n is made of such sums alone, and nothing else takes them."""
        if n.op != "add" or not self.varies(n):
            return []
        found = operands(n, lambda x: x.op == "add" and (x is n or users[x] == 1))
        return [(x, n) for x in found] if all(x.op == "sum" and x in self.sums and users[x] == 1 for x in found) else []

    def in_fours(self, users: Mapping[Node, int]) -> list[Four]:
        """Products of matrices and what programs tell, four of each."""
        found: dict[Node, list[tuple[Node, Node]]] = {}
        rows = self.dim.removesuffix(ALL), self.dim
        for n in self.sums:
            factors = n.args[0].args if n.op == "sum" and n.args[0].op == "mul" else ()
            told = [a for a in factors if a.op == "leaf" and a.text("kind") == TOLD]
            matrix = [a for a in factors if not self.varies(a) and a not in told and self.bodies.roles.axes(a.dims) == rows]
            if len(told) == len(matrix) == 1 and self.total[n] is n and users[matrix[0]] == users[n.args[0]] == 1:
                found.setdefault(told[0], []).append((n, matrix[0]))
        each = [both[at : at + FOUR] for both in found.values() for at in range(0, len(both), FOUR)]
        each = [both for both in each if len(both) > FOUR // 2]
        return [Four(tuple(n for n, _ in both), tuple(x for _, x in both)) for both in each]

    def of_four(self, nodes: Iterable[Node]) -> tuple[tuple[Node, ...], tuple[Four, ...]]:
        """(the others of some matrices or sums, the fours that are made of them)."""
        given = list(nodes)
        fours = tuple(one for one in self.fours if one.matrices[0] in given or one.sums[0] in given)
        taken = {x for one in fours for x in (*one.matrices, *one.sums)}
        return tuple(n for n in given if n not in taken), fours

    # ---- before the steps ----

    def setup(self, items: Iterable[Item]) -> list[Item]:
        """The same items: sums over the dim in a loop over the pieces, and last what is held of it."""
        listed = list(items)
        fixed = [n for n in self.sums if not self.varies(n)]
        behind = {n for n in topological(fixed) if n not in self.inside and n not in fixed}
        rest = [i for i in listed if not isinstance(i, Let | Load) or i.node not in (*self.inside, *fixed)]
        first = [i for i in rest if isinstance(i, Load) or (isinstance(i, Let) and i.node in behind)]
        loop: list[Item] = [self.through(fixed, self.made(fixed, ()))] if fixed else []
        held = self.held(n for n in (*self.inside, *self.sums) if self.varies(n))
        rest_of, fours = self.of_four(held)
        body = self.made(held, (), True)
        kept: list[Item] = [Loop(self.dim, False, body, keeps=rest_of, held=True, fours=fours)] if held else []
        return [*first, *loop, *(i for i in rest if i not in first), *kept]

    def held(self, nodes: Iterable[Node]) -> tuple[Node, ...]:
        """What these take of values that no step changes."""
        taken = dict.fromkeys(a for n in nodes for a in n.args if a in self.inside and not self.varies(a))
        order = topological(taken)
        return tuple(n for n in order if n in taken and n.op not in PLACES)

    def made(self, nodes: Iterable[Node], known: Iterable[Node], themselves: bool = False) -> tuple[Load | Let, ...]:
        """Loads and Lets of the values with the dim below these, and of these."""
        order = [n for n in topological(nodes, known) if n in self.inside or (n in self.sums and not themselves)]
        return tuple(
            Let(n) if n.op != "leaf" else Load(n, self.bodies.arrays.given(n), n.number("offset")) for n in order
        )

    # ---- in a step ----

    def loops(self, told: Mapping[Node, Array], known: set[Node], late: list[Item]) -> list[Item]:
        """What can be loaded and summed once these have been told; of several loads one is ahead of the one in use. late: loads
        that nothing has taken yet."""
        ready = [n for n in self.sums if self.varies(n) and n not in known and all(x in told for x in leaves([n], TOLD))]
        if not ready:
            return []
        sources: dict[Node, list[Node]] = {}
        for n in ready:
            for x in (own := [x for x in leaves([n]) if x in self.inside and self.varies(x)]):
                sources.setdefault(x, [])
            sources[max(own, key=list(sources).index)].append(n)
        before = [a for n in topological(ready) if n in self.inside or n in ready for a in n.args if a not in self.inside]
        out = taken(late, ready)
        out += self.bodies.compute([a for a in before if a not in known and self.varies(a) and a.op != "leaf"], known, True)
        loads: list[Item] = [self.load(x, told) for x in sources]
        body: list[Item] = loads[:1]
        for at, group in enumerate(sources.values(), 1):
            body += [*loads[at : at + 1], *([self.summed(group)] if group else [])]
        known.update(ready)
        known.update(total for total, terms in self.added.items() if known.issuperset(terms))
        fours = self.of_four(ready)[1]
        loop = Loop(self.dim, False, tuple(body), tuple(ready), some=True, totals=self.totals(ready), fours=fours)
        return [*out, loop]

    def load(self, n: Node, told: Mapping[Node, Array]) -> Loop:
        """All pieces of what the programs tell, or of an input."""
        array = told[n] if n in told else self.bodies.arrays.given(n)
        return Loop(self.dim, False, (Load(n, array, n.number("offset")),), keeps=(n,))

    def summed(self, group: list[Node]) -> Loop:
        """A loop over the pieces that adds up some sums."""
        moving = [n for n in topological(group) if (n in self.inside or n in group) and self.varies(n) and n.op != "leaf"]
        held = self.held(moving)
        rest, fours = self.of_four(held)
        kept = (Held(rest, self.made(held, (), True), fours),) if held else ()
        return self.through(group, (*kept, *map(Let, moving)))

    def through(self, group: list[Node], body: tuple[Item, ...]) -> Loop:
        """The loop, and what it adds to."""
        return Loop(self.dim, False, body, tuple(group), totals=self.totals(group), fours=self.of_four(group)[1])

    def totals(self, sums: list[Node]) -> tuple[tuple[Node, tuple[Node, ...]], ...]:
        """What these sums are added to, each with all that is."""
        return tuple((x, tuple(self.added[x])) for x in dict.fromkeys(self.total[n] for n in sums))


def taken(late: list[Item], nodes: Iterable[Node]) -> list[Item]:
    """Those of some loads that these nodes are made of: they are late no more."""
    below = set(leaves(nodes))
    found: list[Item] = [item for item in late if isinstance(item, Load) and item.node in below]
    late[:] = [item for item in late if item not in found]
    return found


def sums_together(graph: Mapping[str, Node]) -> dict[str, Node]:
    """Before: `(x + R @ a) + U @ b`. After: `x + (R @ a + U @ b)`, whose sums are added up as one; what others take is left."""
    nodes = topological(graph.values())
    users = Counter(a for n in nodes for a in n.args) + Counter(graph.values())
    done: dict[Node, Node] = {}
    for n in nodes:
        done[n] = rebuild(n, tuple(done[a] for a in n.args))
        if n.op != "add":
            continue
        terms = operands(n, lambda x, n=n: x.op == "add" and (x is n or users[x] == 1))  # type: ignore[misc]
        sums = [x for x in terms if x.op == "sum" and x.args[0].op == "mul" and users[x] == 1 and x.dims == n.dims]
        others = [x for x in terms if x not in sums]
        if len(sums) > 1 and others:
            done[n] = combined("add", [done[x] for x in others]) + combined("add", [done[x] for x in sums])
    return {key: done[n] for key, n in graph.items()}
