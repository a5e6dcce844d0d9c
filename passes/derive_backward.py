"""forward block -> the same block with its gradient, always.

Needs: a forward block in any form. Gives: `backward`, the vector-Jacobian product of (states in, inputs) -> (states out,
outputs), under the keys of `seqc.ir.block`.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.analysis.derivative import vjp
from seqc.ir.block import cotangent_leaves, gradient_key
from seqc.ir.graph import Node
from seqc.ir.once import found_once
from seqc.ir.program import Program


@found_once
def derive_backward(program: Program, form: str, forward: Mapping[str, Node]) -> Mapping[str, Node]:
    """The backward graph of a block; see `seqc.ir.block` for its keys."""
    given = cotangent_leaves(program, form)
    wrt = [*program.with_gradient(forward.values()), *(d.leaf() for d in program.states.values())]
    return {gradient_key(n): d for n, d in vjp(forward, given, wrt).items()}
