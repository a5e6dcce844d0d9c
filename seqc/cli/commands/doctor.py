"""`seqc doctor`: what this machine offers seqc, and what is missing. In: nothing. Out: a line for each thing; or JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from seqc.cli.commands.options import add_json

PACKAGES = ("torch", "numpy", "lark", "networkx", "sympy", "tqdm", "z3-solver")
Line = tuple[str, bool, str]
"""What it is, whether it is as it should be, and what is to be said of it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Look, and tell; 1 where nothing that seqc emits could run."""
    lines = [*installation(), *backends()]
    good = all(ok for what, ok, _ in lines if what in (*PACKAGES, "backend torch"))
    if args.json:
        print(json.dumps({"ok": good, "lines": [{"what": a, "ok": b, "words": c} for a, b, c in lines]}, indent=2))
        return 0 if good else 1
    width = max(len(what) for what, *_ in lines)
    for what, ok, words in lines:
        print(f"{'ok' if ok else '--'}  {what.ljust(width)}  {words}")
    return 0 if good else 1


def installation() -> Iterator[Line]:
    """seqc itself, Python, packages and programs."""
    import seqc

    yield "seqc", True, f"{seqc.__version__} in {Path(seqc.__file__).parent}"
    yield "command", (found := shutil.which("seqc")) is not None, found or "not on PATH: `python -m seqc` does the same"
    yield "python", sys.version_info >= (3, 11), f"{platform.python_version()} at {sys.executable}"
    for name in PACKAGES:
        yield name, (told := _version(name)) is not None, told or f"missing: pip install {name}"
    yield "graphviz", (dot := shutil.which("dot")) is not None, dot or "not installed: seqc draws graphs itself, more plainly"
    yield "cache", *_cache()


def backends() -> Iterator[Line]:
    """What each backend can do here."""
    if find_spec("torch") is None:
        yield "backend torch", False, "torch is missing: emitted files cannot run"
        return
    import torch

    from seqc.check.verify_emitted import gpus

    count = gpus()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
    yield "gpu", bool(count), names or "none that torch can use"
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' * (count != 1)} on {os.cpu_count()} cores"
    yield "backend torch", True, f"runs everywhere, on CPUs with {threads}"
    yield "backend cpu", *_native()
    yield "backend triton", *_triton(count)


def _native() -> tuple[bool, str]:
    """Whether a native kernel could be built."""
    from seqc.backends.native_cpu import loader

    found = loader._native_compiler()
    if found is None:
        return False, f"{loader._native_search()[2]}; until then CPU tensors take the plain torch form"
    called = shlex.join(found[0])
    first = (found[1].splitlines() or ["a compiler that says nothing of itself"])[0]
    try:
        with tempfile.TemporaryDirectory(prefix="seqc-") as folder:
            source = Path(folder, "empty.cpp")
            source.write_text("#include <cmath>\n")
            words = [*found[0], *loader._native_flags()[0], "-fsyntax-only", str(source)]
            status, _, err = loader._native_command(words, loader.NATIVE_ANSWER)
    except (OSError, RuntimeError) as error:
        return False, f"{called}: {error}"
    if status:
        return False, f"{called} ({first}) fails: {(err.strip().splitlines() or ['without a word'])[0]}"
    return True, f"builds with {called} ({first})"


def _triton(gpus: int) -> tuple[bool, str]:
    """Whether kernels run on a GPU, or at least in the interpreter."""
    told = _version("triton")
    if told is None:
        return False, "triton is missing: pip install triton; kernels are written all the same"
    if not gpus:
        return False, f"triton {told}: kernels are written and compiled (`seqc report`), and run in the interpreter only"
    return True, f"triton {told}: kernels run on the GPU"


def _cache() -> tuple[bool, str]:
    """The folder of built libraries."""
    from seqc.backends.native_cpu import loader
    from seqc.cache import _native_distrust

    folder = loader._native_cache()
    if folder is None:
        return False, "no home folder: libraries are built for each process anew"
    if not folder.is_dir():
        above = next(path for path in folder.absolute().parents if path.exists())
        if not (above.is_dir() and os.access(above, os.W_OK)):
            return False, f"{folder} cannot be made in {above}: libraries are built for each process anew"
        return True, f"{folder} (made by the first native kernel)"
    if problem := _native_distrust(folder, folder=True):
        return False, f"{folder} is not used, for {problem}: libraries are built for each process anew"
    built = [path.stat().st_size for path in folder.rglob("*.so")]
    built += [path.stat().st_size for path in folder.rglob("compiled/*.json")]
    return True, f"{folder}: {len(built)} libraries and specs, {sum(built) / 1e6:.0f} MB; it may be deleted at any time"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
