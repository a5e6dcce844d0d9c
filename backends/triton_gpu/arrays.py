"""Where the values of a recurrence lie in memory: the arrays that its kernels read and write.

In: a `Block` and the roles of its dims. Out: `Arrays`: an `Array` for each input, state, cotangent and gradient, and which
states are saved how often. It writes no addresses; those are `address`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from seqc.backends.triton_gpu.kernel import BLOCKS, PIECES, SCRATCH, SPANS, STEPS, Array, Let
from seqc.backends.triton_gpu.roles import ALL, Roles
from seqc.backends.triton_gpu.saved_products import products_of_past
from seqc.backends.triton_gpu.uses import Uses
from seqc.diagnostics import SeqcBug
from seqc.ir.block import BATCH, COL, ROW, Block
from seqc.ir.dims import base, is_time, unpieced
from seqc.ir.graph import Node, leaves, topological
from seqc.ir.keys import next_key, prev_key, result_of, slope_of
from seqc.ir.traverse import reached

EVERY = 32  # steps between saved states of a matrix state in form "step", unless the spec says `checkpoint N`


def keepable(n: Node) -> bool:
    """Whether every block of a sequence can have its own of a value."""
    return BATCH in n.dims and all(d in (ROW, COL) for d in n.dims if is_time(d))


def steps_between_saved(block: Block, roles: Roles) -> int:
    """Steps from one saved state to the next in form "step"; 1 in other forms. States that are matrices are saved now and then,
    and formed again between, but not where a parameter's matrix multiplies the whole of one: backward, which needs the matrix
    transposed, would then hold it both ways."""
    if block.form != "step":
        return 1
    widest = max((roles.axes(d.dims) for d in block.program.states.values()), key=len, default=())
    products = (roles.axes(n.dims) for n in products_of_past(block.forward.values(), block.forward.values(), roles))
    short = len(widest) < 2 or any({*widest} <= {*axes} for axes in products)
    return block.program.wishes.checkpoint or (1 if short else EVERY)


class Arrays:
    """See the file's docstring. every: steps between two saved states; saved: the names of those that are kept, each in
    array NAME_in."""

    def __init__(
        self, block: Block, roles: Roles, forward: Mapping[str, Node], backward: Mapping[str, Node]
    ) -> None:
        self.program, self.roles, self.forward, self.backward = block.program, roles, forward, backward
        self.step = block.form == "step"
        self.narrow = self._narrow() if block.form == "chunkwise" else frozenset()
        self.every = steps_between_saved(block, roles)
        self.saved = self._saved()

    def _saved(self) -> tuple[str, ...]:
        """States that the gradient reads; with recomputation also those that these depend on."""
        read = {n.text("name") for n in leaves(self.backward.values(), "state")}
        while self.every > 1:
            more = {n.text("name") for s in read for n in leaves([self.forward[next_key(s)]], "state")} - read
            if not more:
                break
            read |= more
        return tuple(s for s in self.program.states if s in read)

    def _narrow(self) -> frozenset[str]:
        """States that are matrices, of which each program has its own piece, and that outputs only multiply: kernels hand them
        and their cotangents on in bf16, where the inputs are that."""
        uses = Uses(map(Let, topological(self.forward[k] for k in self.program.outputs)), self.roles)

        def multiplied(n: Node) -> bool:
            return all(multiplied(u) if u.op == "rename" else u in uses.only_summed for u in uses.by_nodes.get(n, ()))

        states = self.program.states.items()
        matrices = (s for s, d in states if len(self.roles.axes(d.dims)) > 1 and not self.missing(d.axes))
        return frozenset(unpieced(s) for s in matrices if multiplied(self.program.states[s].leaf()))

    def state_axes(self, name: str) -> tuple[str, ...]:
        """Batch, then the declared dims."""
        return self.program.states[name].axes

    def kept_type(self, state: str) -> str:
        """The type in which a state and its cotangent are kept for every block."""
        return "state" if unpieced(state) in self.narrow else "carry"

    def saved_state(self, name: str) -> Array:
        batch, *dims = self.state_axes(name)
        return Array(f"{name}_in", (batch, BLOCKS, *dims), "saved", name, self.kept_type(name))

    def span_state(self, name: str) -> Array:
        """The state as each span begins, which forward keeps for backward."""
        batch, *dims = self.state_axes(name)
        return Array(f"{name}_every", (batch, SPANS, *dims), "saved", name)

    def saved_value(self, n: Node) -> Array:
        """A value of every step that forward leaves for backward, in the type of the inputs: [B, T, dims]."""
        name = n.text("name")
        return Array(name, (BATCH, STEPS, *self.factor_dims(n)), "saved", name, "io")

    def missing(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Dims that programs share out and an array with these axes lacks."""
        return tuple(d for d in self.roles.split if d not in axes)

    def once(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Dims of whose pieces the first alone takes a cotangent with these axes, so that it counts once."""
        return tuple(d for d in self.missing(axes) if d not in self.roles.mixed)

    def given(self, n: Node) -> Array:
        kind, name = n.text("kind"), n.text("name")
        if kind == "param":
            return Array(name, _as_held(self.program.params[name].axes, n), "param", name, "io")
        return Array(name, (BATCH, STEPS, *_as_held(self.program.inputs[name].dims, n)), "input", name, "io")

    def cotangent(self, key: str, whole: bool = False) -> Array:
        """Of an output: [B, T, ..]; of a carried state at a block's end: as phase one stores it; whole: added up."""
        if key in self.program.output_decls:
            return Array(f"d_{key}", (BATCH, STEPS, *self.program.output_decls[key].dims), "cot", key, "io")
        name = result_of(key)
        batch, *dims = self.state_axes(name)
        pieces = () if whole else tuple(PIECES + d for d in self.missing((batch, *dims)))
        return Array(f"d_{name}_out", (*pieces, batch, BLOCKS, *dims), "scratch", key, self.kept_type(name))

    def gradient(self, key: str, by_block: bool, alike: Iterable[str] = ()) -> Array:
        """by_block: of a parameter every block leaves a part. alike: dims that it lacks and whose pieces all have the same."""
        name = slope_of(key).word()
        base = slope_of(key).name
        decl = self.program.params.get(base)
        axes = decl.axes if decl else (BATCH, STEPS, *self.program.inputs[base].dims)
        axes = (*(PIECES + d for d in self.missing(axes) if d not in alike), *axes)
        if decl and by_block:
            batch = [a for a in axes if a.strip(PIECES) == BATCH]
            axes = (*batch, BLOCKS, *(a for a in axes if a not in batch))
        array = Array(f"d_{name}", axes, "grad", key)
        return array if array.partial or BLOCKS in axes else replace(array, dtype="io")

    def factor(self, name: str, root: Node) -> Array:
        """[B, T, dims] of a factor of an outer product, and before them the dims along which programs have parts of it."""
        pieces = (PIECES + d for d in self.missing((BATCH, *self.factor_dims(root))) if d in self._dims_behind(root))
        return Array(name, (*pieces, BATCH, STEPS, *self.factor_dims(root)), "factor", name)

    def held_once(self, array: Array, root: Node) -> tuple[str, ...]:
        """Dims that a factor lacks and of whose programs the first alone has it: no cotangent behind it has them."""
        if not leaves([root], "cot"):
            return ()
        return tuple(d for d in self.missing(array.axes) if d not in array.partial)

    def _dims_behind(self, root: Node) -> set[str]:
        """The dims of all cotangents that a value is made of, at this step or a later one."""

        def before(n: Node) -> list[Node]:
            state = result_of(n.text("name"))
            return leaves([self.backward[prev_key(state)]], "cot") if state in self.program.states else []

        return {d for n in reached(leaves([root], "cot"), before) for d in n.dims}

    def factor_dims(self, n: Node) -> tuple[str, ...]:
        """The dims of a factor's array."""
        return tuple(d for d in (*self.roles.grid, *self.roles.order) if d in n.dims and d != BATCH)

    def kept(self, n: Node, name: str, narrow: bool) -> Array:
        """A value of all blocks, one after the other: [B, NT, ..], with all rows of a block, outside the sequence or not.

        narrow: only matrix products take it, so that it is stored in the type of their operands; else in fp32.
        """
        if self.step or not keepable(n):
            raise SeqcBug("the Triton schedule", f"a value of the dims {', '.join(n.dims)} is kept for all blocks")
        return Array(name, (BATCH, BLOCKS, *self.factor_dims(n)), "kept", name, "io" if narrow else "carry")

    def scratch(self, name: str) -> Array:
        batch, *dims = self.state_axes(name)
        return Array(f"{name}_again", (batch, SCRATCH, *dims), "scratch", name)


def _as_held(axes: tuple[str, ...], n: Node) -> tuple[str, ...]:
    """The axes of a leaf's array by the names that the leaf has them by, where a program of a team holds all units of one."""
    shape = n.names("shape")
    if not any(d.endswith(ALL) for d in shape):
        return axes
    held = tuple(d for d in shape if d != BATCH or BATCH in axes)
    assert [base(d).removesuffix(ALL) for d in held] == [base(d) for d in axes], (axes, shape)
    return held
