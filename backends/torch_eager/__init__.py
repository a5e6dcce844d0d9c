"""The torch backend: a block of any form as plain torch source, for every device and dtype.

In: a `Block`. Out: `Kernels` with the text of `_forward_torch`, `_backward_torch` and `_step_torch`, and their helpers.
Three phases: what needs no state, for all blocks at once; a loop over blocks; the rest, for all blocks at once.
No autograd inside, nothing of seqc at run time.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.backends.torch_eager.functions import backward, forward, saved_states, step
from seqc.backends.torch_eager.layout import layout_of
from seqc.backends.torch_eager.runtime import helper_texts
from seqc.emit.names import dim_name, safe_name
from seqc.emit.signature import Kernels, Saved
from seqc.emit.text import join
from seqc.ir.block import Block


def emit(block: Block, beside: Mapping[str, tuple[Block, str]] | None = None) -> Kernels:
    """The torch part of an emitted file.

    beside: name -> (block, documentation) of parts that other backends leave to torch: `_NAME` and `_NAME_backward` are
    written too.
    """
    functions = [forward(block), backward(block), step(block)]
    for name, (part, doc) in (beside or {}).items():
        functions += [forward(part, f"_{name}", doc), backward(part, f"_{name}_backward")]
    helpers = helper_texts(name for fn in functions for name in fn.helpers)
    return Kernels(join(*helpers, *(fn.text() for fn in functions)), saved(block), float64=True)


def saved(block: Block) -> tuple[Saved, ...]:
    """What forward keeps for backward: states as the blocks begin, and the final ones."""
    count = "T + 1" if block.form == "step" else f"(T + {block.rows - 1}) // {block.rows} + 1"
    lead = ("B", count) if layout_of(block).at else (count, "B")
    return tuple(
        Saved(f"{safe_name(d.name)}_all", (*lead, *map(dim_name, d.dims))) for d in saved_states(block)
    )


__all__ = ["emit", "saved"]
