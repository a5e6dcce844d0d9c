"""Emission: from a plain description of one compiled recurrence to the text of a standalone Python file.

    signature                   the description
    file                        the file, part by part
    call, dtypes, misfits,      what a person calls: functions, and the Module
      numbers, module, states_every, generate, pruning, shrinking, elastic, supports
    boundary, step, sizes,      the torch operators beneath: shapes, packs, derivatives, batching, registration
      packs, places, edges, ends, moved, derivatives, transforms, register
    convolution,                a linear time-invariant recurrence by FFT
      convolution_texts
    late_import                 Triton's part, which loads Triton late
    layer, layer_*              a layer around a recurrence, as a file of its own
    product                     a product over all steps at once, which plain torch and native code call
    text, expressions, names    Python text: lines, expressions with named axes, safe names; `beside` puts two texts together
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
