"""`seqc bench`: times of compiled specs, by the benchmarks of the repository. In: specs and the benchmarks' own options.
Out: what they write. They are not part of an installation, and are refused where they are missing."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments: those of `python -m benchmarks`."""
    benchmarks().configure(parser)


def run(args: argparse.Namespace) -> int:
    """Hand over."""
    return int(benchmarks().run(args))


def benchmarks() -> ModuleType:
    """The benchmarks' command line, beside the sources of this package. Raises Unsupported where there is none."""
    from seqc.diagnostics import Diagnostic, Unsupported

    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / "__main__.py").exists():
        message = "the benchmarks are not part of an installation"
        raise Unsupported(Diagnostic("no-benchmarks", message, help="run them from a checkout", kind="unsupported"))
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return import_module("benchmarks.__main__")
