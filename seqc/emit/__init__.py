"""Emission: from a plain description of one compiled recurrence to the text of a standalone Python file.

In: a frozen `Signature` (names, dims, dtypes; no graph) and the bodies of its kernels as text, written by the backends.
Out: the source of one file that imports torch and nothing of seqc. This package never imports torch itself.
"""

from seqc.emit.file import emit
from seqc.emit.names import class_name, safe_name
from seqc.emit.signature import Dim, Input, Kernels, Output, Param, Saved, Signature, State

__all__ = [
    "Dim",
    "Input",
    "Kernels",
    "Output",
    "Param",
    "Saved",
    "Signature",
    "State",
    "class_name",
    "emit",
    "safe_name",
]
