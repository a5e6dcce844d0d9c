"""forward block -> the same block with its gradient, always.

Needs: a forward block in any form. Gives: `backward`, the vector-Jacobian product of (states in, inputs) -> (states out,
outputs), under the keys of `seqc.block`.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.block import ROW, gradient_key
from seqc.differentiate import vjp
from seqc.graph import BATCH, Node, leaf, leaves
from seqc.program import Program


def cotangent_leaves(program: Program, form: str) -> dict[str, Node]:
    """The leaves that carry the cotangents of a block's results, by the block's keys."""
    time = () if form == "step" else (ROW,)
    given = {name: leaf("cot", name, (BATCH, *time, *d.dims)) for name, d in program.output_decls.items()}
    for name, d in program.states.items():
        given[f"{name}.next"] = leaf("cot", f"{name}.next", d.axes)
    return given


def derive_backward(program: Program, form: str, forward: Mapping[str, Node]) -> dict[str, Node]:
    """The backward graph of a block; see `seqc.block` for its keys."""
    given = cotangent_leaves(program, form)
    wrt = [n for n in leaves(forward.values()) if n.text("kind") in ("input", "param")]
    wrt += [d.leaf() for d in program.states.values()]
    return {gradient_key(n): d for n, d in vjp(forward, given, wrt).items()}
