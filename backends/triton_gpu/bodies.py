"""Parts of the loop trees of kernels: what is loaded, what is computed, and in which order.

In: a block's graphs and the roles of its dims. Out: items of a kernel's body; `schedule` makes kernels of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain, count
from types import MappingProxyType

from seqc.backends.triton_gpu.arrays import Arrays
from seqc.backends.triton_gpu.kernel import Array, Item, Let, Load, Loop, Note, Store
from seqc.backends.triton_gpu.labels import labels
from seqc.backends.triton_gpu.order import order, tile_bytes
from seqc.backends.triton_gpu.outer import Factor, Outer, outer_terms
from seqc.backends.triton_gpu.roles import Roles
from seqc.backends.triton_gpu.uses import Uses
from seqc.emit.names import safe_name
from seqc.ir.block import COL, ROW, Block
from seqc.ir.dims import MARK
from seqc.ir.graph import Node, depends, leaf, leaves, topological
from seqc.ir.keys import slope_key


def moving(roots: Iterable[Node]) -> set[Node]:
    """The values that change from block to block."""
    roots = list(roots)
    return depends(roots, (n for n in leaves(roots) if n.text("kind") != "param"))


class Bodies:
    """Makes the items of one block's kernels. values: what forward saves of every step for backward, by its leaf's name."""

    def __init__(
        self,
        block: Block,
        roles: Roles,
        forward: Mapping[str, Node],
        backward: Mapping[str, Node],
        names: Mapping[Node, str],
        lines: Mapping[Node, str],
        values: Mapping[str, Node] = MappingProxyType({}),
    ) -> None:
        self.block, self.roles, self.names, self.lines = block, roles, dict(names), lines
        self.labels = labels(forward, backward)
        self.forward, self.backward, self.values = forward, backward, values
        self.program = block.program
        self.step = block.form == "step"
        self.arrays = Arrays(block, roles, forward, backward)
        self.outer: dict[str, tuple[Outer, ...]] = {}
        if self.step:
            for name, decl in self.program.params.items():
                root = backward.get(slope_key(name))
                # what belongs to a sequence is summed up in its own program: sequences may differ in length
                terms = outer_terms(root, decl.axes, roles) if root is not None and not decl.per_batch else ()
                if terms:
                    self.outer[name] = tuple(
                        Outer(sign, (self.factor(a, f"{name}_{i}_left"), self.factor(b, f"{name}_{i}_right")))
                        for i, (sign, a, b) in enumerate(terms)
                    )
        factors = [f.node for terms in self.outer.values() for t in terms for f in t.factors]
        self.moving = moving([*forward.values(), *backward.values(), *factors])

    def factor(self, n: Node, name: str) -> Factor:
        """Where a factor of an outer product is found: a parameter, a saved state, an input's gradient, or its own array."""
        core, called = n, {d: d for d in n.dims}
        while core.op == "rename":
            old, new = core.text("old"), core.text("new")
            called = {(old if d == new else d): name for d, name in called.items()}
            core = core.args[0]
        if core.op == "leaf" and core.text("kind") == "param" and not self.program.params[core.text("name")].per_batch:
            name = core.text("name")
            return Factor(core, name, tuple(called[d] for d in self.program.params[name].dims), False, constant=True)
        state = core.text("name") if core.op == "leaf" and core.text("kind") == "state" else None
        if state is not None and state in self.arrays.saved and self.arrays.every == 1:
            dims = self.program.states[state].dims
            return Factor(core, self.arrays.saved_state(state).name, tuple(called[d] for d in dims), False)
        for x, decl in self.program.inputs.items():
            if self.backward.get(slope_key(x)) is core and not self.arrays.gradient(slope_key(x), False).partial:
                return Factor(core, f"d_{x}", tuple(called[d] for d in decl.dims), False)
        return Factor(n, name, self.arrays.factor_dims(n), True, pieces=self.arrays.factor(name, n).partial)

    # ---- pieces of a body ----

    def compute(self, roots: Iterable[Node], known: set[Node], inside: bool) -> list[Item]:
        """Lets for everything below the roots that is not known yet (and, in a loop, does depend on the loop)."""
        roots = list(roots)
        out: list[Item] = []
        for stop in (*(n for n in topological(roots) if n in self.lines), *roots):
            new = [n for n in topological([stop], known) if n.op != "leaf"]
            new = [n for n in new if not inside or self.varies(n)]
            if new and stop in self.lines:
                out.append(Note(self.lines[stop]))
            out += [Let(n) for n in new]
            known.update(new)
        return out

    def varies(self, n: Node) -> bool:
        """Whether the value changes from block to block."""
        return n in self.moving

    # ---- values that one kernel stores for others ----

    def keep(self, nodes: Iterable[Node], readers: Iterable[Node], beside: Iterable[Array] = ()) -> dict[Node, Array]:
        """Arrays for values of every block. readers: the roots of the kernels that load them; beside: arrays that there are.

        `stores` writes them in the kernel that computes them; `loads_kept` reads in another what its roots need of them,
        and makes it known, so that `compute`, `loads` and `setup` leave out what lies below. Launchers allocate them.
        """
        kept, readers = dict.fromkeys(nodes), set(readers)
        uses = Uses([Let(n) for n in topological(readers, kept)], self.roles)
        program = self.program
        taken = {a.name for a in beside}
        taken |= {*program.inputs, *program.params, *program.outputs, *(f"d_{x}" for x in (*program.inputs, *program.params))}
        arrays = {}
        for n in kept:
            shape = "inverse" if n.op == "tri_inv" else "pairs" if {ROW, COL} <= set(n.dims) else _factor(n)
            label = self.names.get(n) or self.labels.get(n) or shape
            wanted = f"{safe_name(label.replace(MARK, ''))}_kept"
            name = next(x for x in chain([wanted], (f"{wanted}_{i}" for i in count(1))) if x not in taken)
            taken.add(name)
            arrays[n] = self.arrays.kept(n, name, n not in readers and uses.is_operand_under_any_name(n))
        return arrays

    def stores(self, kept: Mapping[Node, Array], split: tuple[str, ...] | None = None) -> list[Store]:
        """Stores of values that are known; one program does it where several hold the same. split: the dims that the kernel's
        programs share out."""
        split = self.roles.split if split is None else split
        return [Store(n, array, tuple(d for d in split if d not in array.axes)) for n, array in kept.items()]

    def loads_kept(self, kept: Mapping[Node, Array], roots: Iterable[Node], known: set[Node]) -> list[Item]:
        """Loads of those that the roots need, with nothing of them known but `known`."""
        roots = list(roots)
        inside = topological(roots, known | set(kept))
        needed = {*roots, *(a for n in inside for a in n.args)} - known
        known.update(n for n in kept if n in needed)
        return [Load(n, array) for n, array in kept.items() if n in needed]

    def saved_values(self) -> dict[Array, Node]:
        """What forward keeps of every step for backward, and where."""
        return {self.arrays.saved_value(leaf("value", name, n.dims)): n for name, n in self.values.items()}

    def stores_of_values(self) -> list[Item]:
        """Stores of these, where a gradient follows."""
        return [Store(n, array, self.arrays.missing(array.axes), saves=True) for array, n in self.saved_values().items()]

    # ---- what is loaded, and what is computed once ----

    def loads(self, roots: Iterable[Node], known: set[Node]) -> list[Item]:
        """Loads of the inputs and of the outputs' cotangents below the roots, but for what only known values need."""
        out: list[Item] = []
        for n in leaves(roots, known=known):
            if n.text("kind") == "input":
                out.append(Load(n, self.arrays.given(n), n.number("offset")))
                known.add(n)
            elif n.text("kind") == "value":
                out.append(Load(n, self.arrays.saved_value(n)))
                known.add(n)
            elif n.text("kind") == "cot" and n.text("name") in self.program.output_decls:
                array = self.arrays.cotangent(n.text("name"))
                out.append(Load(n, array, first_only=self.arrays.once(array.axes)))
                known.add(n)
        return sorted(out, key=lambda item: isinstance(item, Load) and item.array.role == "cot")

    def setup(self, roots: Iterable[Node], given: Iterable[Node] = ()) -> list[Item]:
        """Parameters, and what depends on parameters alone, but for what only `given` values need."""
        roots, given = list(roots), set(given)
        items: list[Item] = [Load(n, self.arrays.given(n)) for n in leaves(roots, "param", given)]
        known: set[Node] = set()
        for n in topological(roots, given):
            if n.args and n not in known and not self.varies(n):
                items += self.compute([n], known, inside=False)
        return items

    # ---- the order within a loop ----

    def sparing(self, body: Iterable[Item], innermost: bool, apart: bool = True) -> list[Item]:
        """The same items; those of a chunk in an order that keeps few tiles alive. In a step or a scan few are alive anyway,
        and loads stay first, so that they are on their way while the rest is computed."""
        body = list(body)
        if self.block.form != "chunkwise":
            return body
        if not innermost:
            return [self.inside(i) if isinstance(i, Loop) else i for i in body]
        size = tile_bytes(body, self.roles, self.block.rows, apart)
        items, became = order(body, size, lambda n: n in self.names or n in self.lines)
        for known in (self.names, self.labels):
            known.update({new: known[old] for old, new in became.items() if old in known})
        return list(items)

    def inside(self, loop: Loop) -> Loop:
        """The same loop, its innermost body in that order."""
        return replace(loop, body=tuple(self.sparing(loop.body, not any(isinstance(i, Loop) for i in loop.body), False)))


def _factor(n: Node) -> str:
    """What a value of every block is called after: the input that decays multiply, the decay of a whole block, or its rows."""
    if ROW not in n.dims and COL not in n.dims:
        return "decay" if n.op == "exp" else "block"
    while n.args and n.op != "sum":
        n = next((a for a in n.args if a.op != "exp"), n.args[0]) if n.op == "mul" else n.args[1 if n.op == "where" else 0]
    return n.text("name") if n.op == "leaf" and n.text("kind") == "input" else "rows"
