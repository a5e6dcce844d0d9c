"""block -> the same block, where no input, param, state or output has a name that the kernels and their callers use themselves.

    input x[D], d_x[D]   ->   input x[D], own_d_x[D]        (`d_x` is the gradient of x)

when names meet: kernels name arrays, buffers and strides after the tensors of the spec (`d_x`, `h_kept`, `x_m1`), and so do the
Python functions around them. Both are called by position, so no caller sees the difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from seqc.backends.native_cpu.places import ident
from seqc.emit.names import dim_name, safe_name
from seqc.ir.apart import renamed
from seqc.ir.block import Block
from seqc.ir.graph import Node, leaf, leaves, substitute
from seqc.ir.keys import next_key, prev_key, result_of, slope_key, slope_of

BEFORE = re.compile(r"(d|s|seg|grad|out)_.|(kept|factor)_\d+$")
AFTER = re.compile(r"(_0|_T|_kept|_[mp]\d+|_at_m?\d+)_*$")


def names_apart(block: Block) -> Block:
    """The block with names that may stand. The block itself, where all may."""
    program = block.program
    dims = {dim_name(d) for d in program.dims}
    own = _names([*program.inputs, *program.params, *program.states], (), dims)
    results = _names(program.output_decls, [own[x] for x in (*program.inputs, *program.params)], dims)
    if all(old == new for table in (own, results) for old, new in table.items()):
        return block
    roots = {**{f"f {k}": n for k, n in block.forward.items()}, **{f"b {k}": n for k, n in block.backward.items()},
             **{f"n {i}": n for i, n in enumerate(block.names)}}
    new = substitute(roots, {n: _leaf(n, own, results) for n in leaves(roots.values())})
    return replace(
        block, program=renamed(program, lambda name: own.get(name, name), results.__getitem__),
        forward={_key(old, own, results): new[f"f {old}"] for old in block.forward},
        backward={_gradient(old, own): new[f"b {old}"] for old in block.backward},
        names={new[f"n {i}"]: name for i, name in enumerate(block.names.values())},
    )


def _names(given: Iterable[str], taken: Iterable[str], dims: set[str]) -> dict[str, str]:
    """Name -> the name that it has in the kernels: no two alike in C++ or in Python, none of the kernels' own, and none that
    gives an array of the callers the name of a dim."""
    used = {word for x in taken for word in (ident(x), safe_name(x))}
    out: dict[str, str] = {}
    for old in given:
        new = f"own_{old}" if BEFORE.match(old) else old
        new = f"{new}_own" if AFTER.search(new) else new
        while {ident(new), safe_name(new)} & used or dims & _derived(safe_name(new)):
            new += "_own"
        used |= {ident(new), safe_name(new)}
        out[old] = new
    return out


def _derived(name: str) -> set[str]:
    """What the callers name after a tensor."""
    return {f"{before}{name}{after}" for before in ("", "d_", "grad_", "out_") for after in ("", "_0", "_T", "_kept")}


def _key(key: str, own: Mapping[str, str], results: Mapping[str, str]) -> str:
    """A key of `Block.forward`, or the name of a cotangent."""
    return results[key] if key in results else next_key(own[result_of(key)])


def _gradient(key: str, own: Mapping[str, str]) -> str:
    """A key of `Block.backward`."""
    slope = slope_of(key)
    return prev_key(own[slope.name]) if slope.carried else slope_key(own[slope.name], slope.offset)


def _leaf(n: Node, own: Mapping[str, str], results: Mapping[str, str]) -> Node:
    name = n.text("name")
    new = _key(name, own, results) if n.text("kind") == "cot" else own.get(name, name)
    return leaf(n.text("kind"), new, n.names("shape"), n.number("offset"), n.text("type"))
