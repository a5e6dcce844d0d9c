"""seqc: write the recurrence, get the kernel.

`seqc.compile(spec)` gives a callable with `.step`, `.Module`, `.source` and `.explain()`; `seqc.oracle(spec, ...)` is
the truth in float64; `seqc.explain(spec)` says what is decided and why; `seqc.nn` has layers around specs, `seqc.onnx` writes
models for other runtimes. Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqc import nn as nn
    from seqc import onnx as onnx
    from seqc.api import Recurrence, compile, explain, oracle
    from seqc.diagnostics import SeqcBug, SpecError, Unsupported

__version__ = "0.1.0"

_OWNERS = {
    **dict.fromkeys(("Recurrence", "compile", "explain", "oracle"), "seqc.api"),
    **dict.fromkeys(("SeqcBug", "SpecError", "Unsupported"), "seqc.diagnostics"),
}
_MODULES = ("nn", "onnx")  # loaded when they are first named

__all__ = ["Recurrence", "SeqcBug", "SpecError", "Unsupported", "compile", "explain", "oracle", "__version__"]


def __getattr__(name: str) -> Any:
    """Load a public name."""
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"seqc.{name}")
    if name not in _OWNERS:
        raise AttributeError(f"module 'seqc' has no attribute {name!r}")
    return getattr(import_module(_OWNERS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
