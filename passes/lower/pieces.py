"""A block with a dim too long for a tile -> the same block, the dim in pieces that one program holds side by side.

Before: `sum[K](q * S)`, K = 300 and no program holds a tile of 512. After: `sum[K~0](q~0 * S~0) + sum[K~1](q~1 * S~1) + ..`,
each piece a dim of its own of PIECE elements (the last one masked), each tensor with the dim a tensor a piece. Whatever walks
the graph then sees tiles that fit; arrays keep their names (`unpieced`) and are addressed from where a piece begins.

Only dims whose extent is fixed when the file is written are cut, and of these only what a program would hold whole.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product

from seqc.ir.block import Block
from seqc.ir.dims import LONGEST, PIECE, base, piece_of
from seqc.ir.graph import Node, along, combined, leaf, node, topological
from seqc.ir.keys import is_next, next_key, prev_key, result_of, slope_key, slope_of
from seqc.ir.ops import TABLE
from seqc.ir.program import Program, TensorDecl
from seqc.ir.verify import verify_block

At = Mapping[str, int]
"""Which piece of each dim that is cut."""


class _Whole(Exception):
    """An operator works along a dim in a way that pieces cannot."""


def pieces(block: Block, counts: Mapping[str, int]) -> Block:
    """The block, its long dims in pieces; the same block where an operator needs one whole. counts: pieces of each such dim."""
    if not counts:
        return block
    try:
        found = _Cutter(block, counts).run()
    except _Whole:
        return block
    verify_block(found, "pieces")
    return found


def long_dims(block: Block, whole: Container[str] | None = None) -> dict[str, int]:
    """How many pieces each long dim has that a chunk's program holds whole: all of its dims, or those of `whole`."""
    return {
        name: -(-dim.choices[0] // PIECE) for name, dim in block.program.dims.items()
        if block.form == "chunkwise" and (whole is None or name in whole) and len(dim.choices) == 1 and dim.choices[0] > LONGEST
    }


class _Cutter:
    def __init__(self, block: Block, counts: Mapping[str, int]) -> None:
        self.block, self.counts = block, counts
        self.done: dict[tuple[Node, tuple[int, ...]], Node] = {}

    def run(self) -> Block:
        block, program = self.block, self.cut_program()
        for n in topological([*block.forward.values(), *block.backward.values()]):
            for at in self.places(n.dims):
                self.done[n, tuple(at.values())] = self.piece(n, at)
        names = {self.done[n, tuple(at.values())]: name for n, name in block.names.items() for at in self.known(n)}
        return replace(
            block, program=program, forward=self.roots(block.forward), backward=self.roots(block.backward), names=names
        )

    def known(self, n: Node) -> Iterator[At]:
        return (at for at in self.places(n.dims) if (n, tuple(at.values())) in self.done)

    # ---- places ----

    def places(self, dims: Iterable[str]) -> Iterator[dict[str, int]]:
        """Every combination of pieces of the cut dims among these."""
        mine = [d for d in dims if base(d) in self.counts]
        for at in product(*(range(self.counts[base(d)]) for d in mine)):
            yield dict(zip(mine, at, strict=True))

    def dim(self, d: str, at: At) -> str:
        """`K'` at piece 2: `K~2'`."""
        return piece_of(base(d), [at[d]], d[len(base(d)) :]) if d in at else d

    def tensor(self, name: str, axes: Iterable[str], at: At) -> str:
        """The name of a tensor's piece."""
        return piece_of(name, [at[d] for d in axes if d in at])

    def given(self, n: Node, at: At) -> Node:
        """An argument at a place, of which it may lack dims."""
        return self.done[n, tuple(at[d] for d in n.dims if base(d) in self.counts)]

    # ---- nodes ----

    def piece(self, n: Node, at: At) -> Node:
        match n.op:
            case "leaf":
                return self.leaf(n, at)
            case "const" | "size":
                return n
            case "index" | "block_index":
                return node(n.op, **{**dict(n.attrs), "dim": self.dim(n.text("dim"), at)})
            case "sum" | "amax":
                over = n.names("over")
                parts = []
                for inner in self.places([d for d in n.args[0].dims if d in over]):
                    here = {**at, **inner}
                    dims = tuple(self.dim(d, here) for d in over)
                    x = self.given(n.args[0], here)
                    parts.append(node(n.op, x, over=tuple(sorted(dims))))
                return combined("add" if n.op == "sum" else "max", parts)
            case "rename":
                old, new = n.text("old"), n.text("new")
                inner = {(old if d == new else d): i for d, i in at.items()}
                return node("rename", self.given(n.args[0], inner), old=self.dim(old, inner), new=self.dim(new, at))
            case "expand":
                return node("expand", self.given(n.args[0], at), over=tuple(sorted(self.dim(d, at) for d in n.names("over"))))
        if not TABLE[n.op].elementwise and any(base(d) in self.counts for d in along(n)):
            raise _Whole
        return node(n.op, *(self.given(a, at) for a in n.args), **dict(n.attrs))

    def leaf(self, n: Node, at: At) -> Node:
        kind, name = n.text("kind"), n.text("name")
        axes = n.names("shape")
        carried = kind == "cot" and name not in self.block.program.output_decls
        key = result_of(name) if carried else name
        called = self.tensor(key, self.declared(kind, key, carried), at)
        called = next_key(called) if carried else called
        return leaf(kind, called, [self.dim(d, at) for d in axes], n.number("offset"), n.dtype)

    def declared(self, kind: str, name: str, carried: bool) -> tuple[str, ...]:
        """The axes of a tensor, whose order its pieces are named by."""
        program = self.block.program
        if kind == "cot":
            return (program.states[name] if carried else program.output_decls[name]).dims
        tables: dict[str, Mapping[str, TensorDecl]] = {
            "input": program.inputs, "param": program.params, "state": program.states,
        }
        return tables[kind][name].dims if kind in tables else ()

    # ---- roots and declarations ----

    def roots(self, graph: Mapping[str, Node]) -> dict[str, Node]:
        """Every root, a piece after the other."""
        program, out = self.block.program, {}
        for key, n in graph.items():
            slope = slope_of(key)
            written: Callable[[str], str] = str
            if key in program.output_decls:
                name, dims = key, program.output_decls[key].dims
            elif is_next(key):
                name, written = result_of(key), next_key
                dims = program.states[name].dims
            else:
                name, written = slope.name, prev_key if slope.carried else partial(slope_key, offset=slope.offset)
                dims = {**program.inputs, **program.params, **program.states}[name].dims
            for at in self.places(dims):
                out[written(self.tensor(name, dims, at))] = self.given(n, at)
        return out

    def cut_program(self) -> Program:
        """The program with a declaration for each piece."""
        program = self.block.program

        def apart(table: Mapping[str, TensorDecl]) -> dict[str, TensorDecl]:
            found = {}
            for name, decl in table.items():
                for at in self.places(decl.dims):
                    called = self.tensor(name, decl.dims, at)
                    found[called] = replace(decl, name=called, dims=tuple(self.dim(d, at) for d in decl.dims))
            return found

        def values(table: Mapping[str, Node], decls: Mapping[str, TensorDecl]) -> dict[str, Node]:
            return {self.tensor(x, decls[x].dims, at): n for x, n in table.items() for at in self.places(decls[x].dims)}

        dims = {}
        for name, dim in program.dims.items():
            for at in self.places([name]):
                dims[self.dim(name, at)] = dim
        return replace(
            program, dims=dims, inputs=apart(program.inputs), params=apart(program.params), states=apart(program.states),
            output_decls=apart(program.output_decls), updates=values(program.updates, program.states),
            outputs=values(program.outputs, program.output_decls),
        )
