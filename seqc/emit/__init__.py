"""Emission: from a plain description of one compiled recurrence to the text of a standalone Python file.

In: a frozen `Signature` (names, dims, dtypes; no graph) and the bodies of its kernels as text, written by the backends.
Out: the source of one file that imports torch and nothing of seqc. This package never imports torch itself.
"""
