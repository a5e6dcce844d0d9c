"""What the native backend does not take, as an error that says so. In: a code, a message, what to do. Out: `Unsupported`."""

from __future__ import annotations

from seqc.diagnostics import Unsupported


def refused(code: str, message: str, help: str = "use the torch backend for this spec") -> Unsupported:
    """The error to raise."""
    return Unsupported.of(code, message, help=help)
