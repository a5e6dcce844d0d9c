"""The second phase of the backward: the gradients of all blocks at once, in as many kernels as take pieces of different dims.

In: a block's graphs. Out: `Shared`, the parts of the gradients with the bodies and the name of the kernel of each, and the
items of such a kernel. Why there are several: `docs/decisions/gradient-kernels.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from seqc.backends.triton_gpu.bodies import Bodies, moving
from seqc.backends.triton_gpu.kernel import STEPS, Add, Array, Item, Let, Load, Loop, Note, Store, StoreSum, Zero, in_three
from seqc.backends.triton_gpu.parting import KNOWN, counted_once, held
from seqc.backends.triton_gpu.roles import Roles
from seqc.backends.triton_gpu.shared_products import reordered
from seqc.backends.triton_gpu.sharing import Part
from seqc.backends.triton_gpu.uses import Uses
from seqc.emit.names import safe_name
from seqc.ir.block import BATCH
from seqc.ir.dims import unpieced
from seqc.ir.graph import Node, leaf, leaves, topological
from seqc.ir.keys import is_next, next_key, prev_key, slope_of

GRADIENTS = "gradients"


class Gradients(Bodies):
    """Bodies whose gradients are known. part: those of its kernel, None where one kernel computes all; pairs, operands: values
    that an earlier kernel keeps; kept: values that this one keeps for others."""

    part: Part | None = None
    pairs: Mapping[Node, Array]
    operands: Mapping[Node, Array] = MappingProxyType({})

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kept: dict[Node, Array] = {}

    def take(self, part: Part) -> None:
        """Make these gradients the ones of the kernel."""
        self.part = part
        if part.dim is not None:
            roots = {key: n for key, n in self.backward.items() if unpieced(key) in part.keys}
            roots, _ = reordered(roots, alone=True)
            self.backward = {**self.backward, **counted_once(roots, part.dim, self.pairs)}
            self.moving |= moving(self.backward.values())

    def gradient_roots(self) -> dict[str, Node]:
        """The gradients that kernels compute: all but the zero ones and those that are summed up afterwards."""
        return {
            key: root
            for key, root in self.backward.items()
            if not slope_of(key).carried and root.op != "const" and slope_of(key).name not in self.outer
        }

    def ends_of_forward(self) -> tuple[list[Item], list[Item]]:
        """Loads of the states before the first step, and stores of those after the last."""
        first, final = list[Item](), list[Item]()
        for s, decl in self.program.states.items():
            axes = self.arrays.state_axes(s)
            first.append(Load(decl.leaf(), Array(f"{s}_0", axes, "state", s)))
            final.append(Store(decl.leaf(), Array(f"{s}_T", axes, "final", s), self.arrays.missing(axes)))
        return first, final

    def outputs(self, roots: Mapping[str, Node], known: set[Node]) -> list[Item]:
        """Computes and stores the outputs."""
        out: list[Item] = []
        for key, root in roots.items():
            out += self.compute([root], known, inside=True)
            axes = (BATCH, STEPS, *self.program.output_decls[key].dims)
            out.append(Store(root, Array(key, axes, "output", key, "io"), self.arrays.missing(axes)))
        return out

    def carried_cotangents(self) -> dict[Node, Node]:
        """The leaf of the cotangent that each state carries, and that of the step before."""
        axes = {s: self.arrays.state_axes(s) for s in self.program.states}
        return {leaf("cot", next_key(s), axes[s]): self.backward[prev_key(s)] for s in self.program.states}

    def stored_factors(self) -> dict[str, Node]:
        """The factors of outer products that have arrays of their own."""
        return {f.array: f.node for terms in self.outer.values() for t in terms for f in t.factors if f.stored}

    def add_gradients(
        self, grads: Mapping[str, Node], known: set[Node], first: list[Item], final: list[Item]
    ) -> list[Item]:
        """Computes and stores the gradients of a step; those of params are added up, from zeros that are the last of the items
        `first`, and stored by items of `final`."""
        body: list[Item] = []
        for key, root in grads.items():
            body.append(gradient_note(key))
            array, alike = self.gradient_array(key)
            param = slope_of(key).name in self.program.params
            total, still, sign = self.added_up(root) if param else (root, (), 1)
            body += self.compute([total], known, inside=True)
            if param:
                first.append(Zero(array.name, total))
                body.append(Add(array.name, total))
                final.append(StoreSum(array.name, total, array, alike, still, sign))
            else:
                body.append(Store(root, array, alike))
        return body

    def gradient_array(self, key: str) -> tuple[Array, tuple[str, ...]]:
        """Where a gradient is stored, and the dims of whose pieces the first alone does it."""
        return self.arrays.gradient(key, False), ()

    def added_up(self, root: Node) -> tuple[Node, tuple[Node, ...], int]:
        """(what is added up over the steps, factors of params alone, a sign) of a param's gradient: these wait for the sum."""
        n, sign, factors = root, 1, list[Node]()
        while n.op in ("neg", "mul") and self.block.form != "chunkwise":
            still = [a for a in n.args if all(x.text("kind") == "param" for x in leaves([a]))] if n.op == "mul" else []
            if n.op == "mul" and len(still) != 1:
                break
            factors, sign = factors + still, -sign if n.op == "neg" else sign
            n = next(a for a in n.args if a not in still)
        same = self.roles.axes(n.dims) == self.roles.axes(root.dims)
        return (n, tuple(factors), sign) if factors and same else (root, (), 1)

    def gradient_items(self, whole: bool) -> tuple[Item, ...]:
        """The body of the kernel of the second phase. whole: the states' cotangents have been added up."""
        part = self.part
        roots = {k: n for k, n in self.gradient_roots().items() if part is None or unpieced(k) in part.keys}
        alike = self.alike(roots, part.dim) if part is not None and part.dim is not None else {}
        known: set[Node] = set()
        needed = [*roots.values(), *self.kept]
        body = self.loads_kept({**self.pairs, **self.usable(needed)}, needed, known)
        setup = self.setup(needed, known)
        for n in leaves(needed, "state", known):
            body.append(Load(n, self.arrays.saved_state(n.text("name"))))
            known.add(n)
        for n in leaves(needed, "cot", known):
            if is_next(n.text("name")):
                array = self.arrays.cotangent(n.text("name"), whole)
                body.append(Load(n, array, first_only=self.arrays.once(array.axes) if whole else ()))
                known.add(n)
        body += self.loads(needed, known)
        for n, array in self.kept.items():
            body += self.compute([n], known, inside=True)
            body += self.stores({n: array})
        for key, root in roots.items():
            body.append(gradient_note(key))
            body += self.compute([root], known, inside=True)
            same = alike.get(key, ())
            body.append(Store(root, self.arrays.gradient(key, True, same), same))
        return (*setup, *body)

    def usable(self, roots: Iterable[Node]) -> dict[Node, Array]:
        """The operands that a kernel of these roots may load: in the type of products only where these alone take them."""
        uses = Uses([Let(n) for n in topological(roots, {*self.pairs, *self.operands})], self.roles)
        return {n: a for n, a in self.operands.items() if a.dtype == "carry" or uses.is_operand_under_any_name(n)}

    def alike(self, roots: Mapping[str, Node], dim: str) -> dict[str, tuple[str, ...]]:
        """Gradients that all pieces of the dim have the same of, and the dim."""
        kinds = held(roots.values(), dim, self.pairs)
        arrays = {key: self.arrays.gradient(key, True) for key in roots}
        return {key: (dim,) for key, n in roots.items() if kinds[n] == KNOWN and dim in arrays[key].partial}

    def gradients_doc(self) -> str:
        """What the kernel of the second phase does."""
        if self.part is None:
            return "Second phase: the gradients of all blocks at once."
        keys = [key for key in dict.fromkeys(map(unpieced, self.gradient_roots())) if key in self.part.keys]
        names = [slope_of(key).word(" at lag ", " at lag -") for key in keys]
        dim = self.part.dim or self.roles.blocked[0]
        listed = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
        what = [f"the gradients of {listed}" if names else "", "what other gradients need of it" if self.kept else ""]
        return f"Second phase: {', and '.join(filter(None, what))} in all blocks at once, each program a piece of {dim}."


def passed_through(items: Iterable[Item], roles: Roles) -> tuple[Item, ...]:
    """The same items; what has a dim that a program passes through, in a loop over its pieces, behind what it takes."""
    listed = list(items)
    made = {item.node: item for item in listed if isinstance(item, Let | Load)}
    inside = {n for n in made if roles.is_passed(n.dims)}
    sums = tuple(n for n in made if n not in inside and any(a in inside for a in n.args))
    if not inside:
        return tuple(listed)
    before = set(topological([*inside, *sums])) - inside - set(sums)

    def place(item: Item) -> int:
        n = item.node if isinstance(item, Let | Load) else None
        return 1 if n in inside or n in sums else 0 if n in before else 2

    first, passed, last = in_three(listed, place)
    (dim,) = roles.passed
    return (*first, Loop(dim, False, passed, sums), *last)


def gradient_note(key: str) -> Note:
    """The line above a gradient's store."""
    return Note(f"gradient of {slope_of(key).word(' at lag ', ' at lag -')}", result=True)


def kernel_name(part: Part, own: str | None, parts: int) -> str:
    """`gradients`, or `gradients_K` where there are several. own: the dim that the block's kernels take pieces of."""
    dim = part.dim or own
    return GRADIENTS if parts == 1 or dim is None else f"{GRADIENTS}_{safe_name(dim)}"
