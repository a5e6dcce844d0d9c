"""The native CPU backend: a block of form "step" as C++17 loops over raw pointers, built by the system compiler on first use.

In: a `Block`. Out: `Kernels`: the C++ text as a constant, the loader, and `_forward_cpu`, `_infer_cpu`, `_backward_cpu`,
`_step_cpu` and `_ready_cpu`. The emitted text needs torch and the standard library. float32 and float64.
"""

from __future__ import annotations

import inspect

from seqc.backends.native_cpu import loader
from seqc.backends.native_cpu.launch import launch_text, saved
from seqc.backends.native_cpu.source import NativeSource, native_source
from seqc.block import Block
from seqc.emit.signature import Kernels

_RULE = "# ---- copied into emitted files from here on ----\n"


def emit(block: Block) -> Kernels:
    """The CPU part of an emitted file. Raises Unsupported where the block has no loop form."""
    source = native_source(block)
    build = inspect.getsource(loader).split(_RULE, 1)[1].strip("\n")
    constant = f'_NATIVE_SOURCE = r"""\n{source.text}"""'
    text = "\n\n\n".join([build, constant, launch_text(source)]) + "\n"
    return Kernels(text, saved(source), infer=True, float64=True)


__all__ = ["NativeSource", "emit", "native_source"]
