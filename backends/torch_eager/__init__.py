"""The torch backend: a block of any form as plain torch source, for every device and dtype.

In: a `Block`. Out: `Kernels` with the text of `_forward_torch`, `_backward_torch` and `_step_torch`, and their helpers.
Three phases: what needs no state, for all blocks at once; a loop over blocks; the rest, for all blocks at once.
No autograd inside, nothing of seqc at run time.
"""

from __future__ import annotations

from seqc.backends.torch_eager.functions import backward, forward, saved_states, step
from seqc.backends.torch_eager.runtime import helper_texts
from seqc.block import Block
from seqc.emit.names import safe_name
from seqc.emit.signature import Kernels, Saved
from seqc.emit.text import join


def emit(block: Block) -> Kernels:
    """The torch part of an emitted file."""
    functions = [forward(block), backward(block), step(block)]
    helpers = helper_texts(name for fn in functions for name in fn.helpers)
    count = "T + 1" if block.form == "step" else f"(T + {block.rows - 1}) // {block.rows} + 1"
    saved = tuple(
        Saved(f"{safe_name(d.name)}_all", (count, "B", *(safe_name(x.rstrip("'")) for x in d.dims)))
        for d in saved_states(block)
    )
    return Kernels(join(*helpers, *(fn.text() for fn in functions)), saved, float64=True)


__all__ = ["emit"]
