"""The gate's cells: every operator of the table, in every place of a program where it can stand.

Places:
- "step": on inputs, one step at a time;
- "loop": on a value that a nonlinear recurrence makes, one step at a time;
- "block": on a value that a linear recurrence makes, in blocks of ROWS rows;
- "time": along the rows of a block: the operators that act along one dim, as chunk and scan forms use them.
An operator that acts along a dim acts along the dim N of the spec in the first three places.

In: nothing. Out: `NODES`, operator -> its nodes in a place, and `program`, the program whose outputs are some of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from seqc.ir.block import Block
from seqc.ir.dims import rank_dim
from seqc.ir.graph import BATCH, COL, ROW, Node, const, index, leaf, leaves, node, renamed, size, substitute, topological, total
from seqc.ir.ops import TABLE
from seqc.ir.ops.dense import SYSTEMS, solve
from seqc.ir.ops.elementwise import where
from seqc.ir.ops.indexing import as_place, as_real, gather, put, scatter
from seqc.ir.ops.structure import affine_scan, cumsum, expanded, max_scan, shift, take, tri_inv
from seqc.ir.program import DimDecl, Program, TensorDecl
from seqc.passes.derive_backward import derive_backward
from tests.core.test_ops import DOMAIN

PLACES = ("step", "loop", "block", "time")
ROWS = 16
SIZES = {"K": 3, "N": 4, "M": 4}
SHAPES = (("K", "N"), ("N",), ("K",))
ALONG_ROWS = ["cumsum", "shift", "take", "affine_scan", "max_scan", "tri_inv", "amax", "sum", "index", "block_index", "expand",
              "gather", "scatter", "put", "as_real", "as_place"]


def _input(i: int, dims: tuple[str, ...], time: bool) -> Node:
    return leaf("input", f"x{i}", (BATCH, *((ROW,) if time else ()), *dims))


def elementwise(name: str) -> list[Node]:
    """An elementwise operator on inputs of several dims."""
    args = [_input(i, SHAPES[i], False) for i in range(min(TABLE[name].arity, 3))]
    if name == "draw":  # in the places of its hash; site and word are constants
        return [node(name, *args, index("N"), const(300.0), const(word)) for word in (0.0, 1.0)]
    if name == "where":
        args[0] = node("gt", args[0], const(0.0))
    if name in ("and", "or", "not"):
        args = [node("gt", a, const(0.0)) for a in args]
    return [node(name, *args)]


def along(dim: str, time: bool) -> dict[str, list[Node]]:
    """The operators that are not elementwise, along a dim: N, or the rows of a block."""
    own = () if time else (dim,)
    x, a = _input(0, ("K", *own), time), _input(1, own, time)
    h = leaf("param", "p2", ("K",)) if time else leaf("input", "x2", (BATCH, "K"))
    b = node("rename", a, old=dim, new=COL if time else "M")
    row, col, square = (dim, COL, a * b) if time else ("N", "M", leaf("input", "x3", (BATCH, "N", "M")))
    full = square + where(node("eq", index(row), index(col)), 5.0, 0.0)
    inverse = tri_inv(square, (row,), (col,))
    first, second = rank_dim(2), rank_dim(2) + "'"  # two rows a step
    joint = tri_inv(square * (index(first) + 0.5) * (0.7 - index(second)), (row, first), (col, second))
    rows = renamed(x, dim, col) * (index(second) + 1.0)
    flags = [(reverse, exclusive) for reverse in (False, True) for exclusive in (False, True)]
    return {
        "sum": [node("sum", x, over=(dim,)), node("sum", x, over=("K", dim) if not time else ("K",))],
        "amax": [node("amax", x, over=(dim,))],
        "expand": [expanded(a, ("K", *a.dims))],
        "rename": [node("sum", x * node("rename", x, old="K", new="K'"), over=("K'",))],
        "take": [take(x, dim, -1), take(x, dim, 2)],
        "cumsum": [cumsum(x, dim, block, *f) for block in (0, 2) for f in flags],
        "shift": [shift(x, dim, by) for by in (1, -2, 9)],
        "affine_scan": [affine_scan(a, x, h, dim), affine_scan(a, x, const(0.5), dim, reverse=True)],
        "max_scan": [max_scan(a, x, h, dim)],
        "tri_inv": [total(inverse * b, (col,)), total(total(joint * rows, (col, second)), (first,))] if time else [inverse],
        "solve": [solve(full, a, row, col), solve(full, x, row, col)],
        "logdet": [x * node("logdet", full, row=row, col=col)],
        "expm": [node("expm", full * 0.2, row=row, col=col, phi=phi) for phi in (0, 1)],
        "expm_slope": [],
        **indexed(dim, time),
        "index": [x * index(dim)],
        "block_index": [x * node("block_index", dim=dim, block=2)],
        "size": [x * size("N")],
        "leaf": [x],
        "const": [x * 2.5],
    }


def indexed(dim: str, time: bool) -> dict[str, list[Node]]:
    """The operators that read and write at positions which an index tells: of a value for each sequence, and of a param."""
    rows = (ROW,) if time else ()
    x, table = leaf("input", "x10" if time else "x0", (BATCH, *rows, "K", "N")), leaf("param", "p4", ("K", "N"))
    one, each = (leaf("input", name, (BATCH, *rows, *own), dtype="int") for name, own in (("w5", ()), ("w6", ("K",))))
    here, beside = leaf("input", "x7", (BATCH, *rows, "K")), leaf("input", "x8", (BATCH, *rows, "M"))
    many = leaf("input", "w9", (BATCH, *rows, "M"), dtype="int")
    return {
        "gather": [gather(x, one, "N"), gather(x, each, "N"), gather(table, one, "N"), gather(table, each, "N")],
        "scatter": [scatter(here, one, "N", ()), scatter(here, each, "N", ("K",)), scatter(here, each, "N", ())],
        "put": [put(x, here, one, "N"), put(x, here, each, "N"), put(x, here * beside, many, "N")],
        "as_real": [as_real(one) * here],
        "as_place": [gather(x, as_place(as_real(one)), "N"), gather(table, as_place(as_real(each)), "N")],
    }


def nodes(place: str) -> dict[str, list[Node]]:
    """Every operator that can stand in a place."""
    if place == "time":
        return {name: made for name, made in along(ROW, True).items() if name in ALONG_ROWS}
    found = {name: elementwise(name) for name, row in TABLE.items() if row.elementwise}
    return found | {name: made for name, made in along("N", False).items() if made}


NODES = {place: nodes(place) for place in PLACES}


def program(place: str, wanted: Mapping[str, Node]) -> Program:
    """The program whose outputs are some nodes (by the outputs' names) in a place; truth values are stored as 1 or 0."""
    outputs = {name: where(n, 1.0, 0.0) if n.dtype == "bool" else n for name, n in wanted.items()}
    found = leaves(outputs.values())
    fixed = any(n.op in SYSTEMS for n in topological(outputs.values()))  # its equations are counted when it is compiled
    inputs = {n.text("name"): n for n in found if n.text("kind") == "input"}
    params = {n.text("name"): TensorDecl(n.text("name"), "param", n.names("shape")) for n in found if n.text("kind") == "param"}
    states: dict[str, TensorDecl] = {}
    updates: dict[str, Node] = {}
    if place in ("loop", "block") and "x0" in inputs:
        x = inputs["x0"]
        states["h"] = TensorDecl("h", "state", _own(x), init=const(0.0))
        old = states["h"].leaf()
        updates["h"] = node("tanh", old) * 0.5 + x if place == "loop" else old * 0.5 + x
        outputs = substitute(outputs, {x: x + updates["h"] * 0.1})
    decls = {name: TensorDecl(name, "output", tuple(d for d in n.dims if d not in (BATCH, ROW))) for name, n in outputs.items()}
    return Program(
        name="gate", doc="", dims={d: DimDecl(d, n, (n,) if fixed else ()) for d, n in SIZES.items()},
        inputs={name: _declared(name, n) for name, n in inputs.items()}, params=params, states=states,
        output_decls=decls, updates=updates, outputs=outputs,
    )  # fmt: skip


def _declared(name: str, n: Node) -> TensorDecl:
    whole = n.dtype == "int"
    return TensorDecl(name, "input", _own(n), role="index" if whole else "", places="N" if whole else "")


def _own(n: Node) -> tuple[str, ...]:
    return tuple(d for d in n.names("shape") if d not in (BATCH, ROW))


def block_along_time(made: Program) -> tuple[Program, Block]:
    """The block whose forward graph is the outputs of a program of the place "time", whose own step computes nothing."""
    forward = dict(made.outputs)
    shown = replace(made, outputs=dict.fromkeys(forward, const(0.0)))
    return shown, Block(shown, "scan", ROWS, forward, derive_backward(shown, "scan", forward))


def arrays(made: Program, steps: int, operator: str = "") -> dict[str, Any]:
    """Arguments within the domain on which an operator is smooth; [0.3, 2] where the program has several operators."""
    rng = np.random.default_rng(0)
    sizes = {**SIZES, BATCH: 2, "T": steps}

    def draw(name: str, axes: tuple[str, ...]) -> Any:
        domain = DOMAIN.get(operator, [])
        at = int(name[1:])
        low, high = (domain[at] if at < len(domain) else (-2.0, 2.0)) if operator else (0.3, 2.0)
        return rng.uniform(low, high, [sizes[a.rstrip("'")] for a in axes])

    found = {name: draw(name, (BATCH, "T", *d.dims)) for name, d in made.inputs.items() if not d.places}
    found |= {name: rng.integers(0, sizes[d.places], [2, steps, *(sizes[x] for x in d.dims)])
              for name, d in made.inputs.items() if d.places}
    found |= {name: draw(name, d.dims) for name, d in made.params.items()}
    return found | {f"{name}_0": rng.uniform(0.3, 1.0, [2, *(sizes[x] for x in d.dims)]) for name, d in made.states.items()}
