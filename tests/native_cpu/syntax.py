"""The emitted C++ of many programs through one call of the compiler, which only parses and types it.

In: specs, as text or as `Program`s. Out: for each, what the compiler says of its native kernels: "" where they are well-formed.
The runtime is compiled once a process as a header; the programs follow in one translation unit, each in a namespace of its own.
Nothing is optimised, linked or run: a program takes about 50 milliseconds. Random programs are judged so by the thousand.
"""

from __future__ import annotations

import atexit
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from seqc.analysis.matrices import counted
from seqc.backends.native_cpu import NativeSource, loader, native_source
from seqc.backends.native_cpu.needed import ALL, runtime_of
from seqc.backends.native_cpu.needed import KERNELS as CHOICE
from seqc.backends.native_cpu.places import ident
from seqc.diagnostics import Diagnostic, Unsupported
from seqc.driver.backends import KERNELS
from seqc.driver.options import Options
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.ir.program import Program

REFUSED = "refused: "  # what an answer begins with where the native backend does not take the program
BATCH = 64  # programs a translation unit
EXTENTS = (5, 3, 19, 8, 2, 7, 1)  # of dims that have no size of their own, in the order of their names


def check(program: str | Program, real: str = "float") -> str:
    """What the compiler says of the native kernels of a spec (a path, a text, or a program): "" where they are well-formed.

    An answer that begins with `REFUSED` holds the reason why the native backend does not take the program; another one
    holds the compiler's first errors, and the lines of C++ that they are about. Errors of seqc itself are raised.
    """
    return check_many([program], real)[0]


def check_many(programs: Iterable[str | Program], real: str = "float") -> list[str]:
    """The same for many programs, `BATCH` of them in a call of the compiler. real: "float" or "double"."""
    found: list[tuple[NativeSource, ...] | str] = []
    for given in programs:
        try:
            found.append(sources_of(given))
        except Unsupported as refusal:
            found.append(REFUSED + "; ".join(d.message for d in refusal.diagnostics))
    sources = [source for x in found if not isinstance(x, str) for source in x]
    answers = [words for i in range(0, len(sources), BATCH) for words in compiled(sources[i : i + BATCH], real)]
    rest = iter(answers)
    return [x if isinstance(x, str) else "\n".join(filter(None, [next(rest) for _ in x])) for x in found]


def sources_of(program: str | Program) -> tuple[NativeSource, ...]:
    """The native text of each recurrence of a spec that native code serves. Raises Unsupported where it serves none."""
    made, native, options = load(program) if isinstance(program, str) else program, KERNELS["cpu"], Options("cpu")
    found: list[NativeSource] = []
    refused: list[Diagnostic] = []
    for stage in native.plan(counted(made), options).cores:
        try:
            problem = native.refuses(stage, options)
            if problem is None:
                found.append(native_source(lower(stage.program, "step")))
            refused += [problem] if problem else []
        except Unsupported as refusal:
            refused += refusal.diagnostics
    if not found:
        raise Unsupported(*refused)
    return tuple(found)


def sizes_of(source: NativeSource) -> Mapping[str, int]:
    """An extent for each dim of a program: its own size, or one of `EXTENTS`."""
    own = source.plan.program.dims
    return {d: own[d].default or EXTENTS[i % len(EXTENTS)] for i, d in enumerate(sorted(source.dims))}


def compiled(sources: Sequence[NativeSource], real: str) -> list[str]:
    """The compiler's words for each of some sources, which it gets as one translation unit."""
    folder = _header(real)
    texts = [in_namespace(source, i) for i, source in enumerate(sources)]
    unit = folder / "programs.cpp"
    unit.write_text("\n".join(['#include "runtime.hpp"', *texts, ""]))
    done = _call("-fmax-errors=0", "-include", str(folder / "runtime.hpp"), str(unit))
    if not done.returncode:
        return ["" for _ in sources]
    words = _words(done.stderr, texts)
    if not any(words):
        raise RuntimeError(f"the compiler failed outside of the programs:\n{done.stderr[:4000]}")
    return words


def in_namespace(source: NativeSource, number: int, outside: str = "") -> str:
    """One program in a namespace of its own, its dims defined before it. outside: what stands for `extern "C"`."""
    body = f"{CHOICE}{source.own}"
    body = body.replace('extern "C"', outside).lstrip("\n")
    sizes = {f"SEQC_DIM_{ident(d)}": n for d, n in sizes_of(source).items()}
    head = [f"#define {name} {n}" for name, n in sizes.items()]
    tail = [f"#undef {name}" for name in (*sizes, "SEQC_L1")]
    return "\n".join([*head, f"namespace program_{number} {{", f'#line 1 "program_{number}"', body, "}", *tail])


def runtime(real: str) -> str:
    """What stands before all programs."""
    whole = runtime_of({part.text for part in ALL})
    return f"#define SEQC_REAL {real}\n{whole.removesuffix(CHOICE)}\n"


def _words(said: str, texts: Sequence[str]) -> list[str]:
    """The errors of each program, the first three, and the lines that they are about.

    An error in the runtime belongs to the program that was named last: there the function was called.
    """
    bodies = [text.partition(f'#line 1 "program_{i}"\n')[2].splitlines() for i, text in enumerate(texts)]
    found: list[list[str]] = [[] for _ in texts]
    number = at = -1
    for line in said.splitlines():
        place = re.match(r"program_(\d+):(\d+):", line)
        if place:
            number, at = int(place[1]), int(place[2])
        error = re.search(r"(?:fatal )?error: (.*)$", line)
        if error and number >= 0:
            about = bodies[number][at - 1].strip() if 0 < at <= len(bodies[number]) else ""
            found[number].append(f"{error[1]}\n    {about}")
    return ["\n".join(words[:3]) for words in found]


@cache
def _header(real: str) -> Path:
    """A folder with the runtime as a compiled header."""
    folder = Path(tempfile.mkdtemp(prefix="seqc-syntax-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    header = folder / "runtime.hpp"
    header.write_text(f"#pragma once\n{runtime(real)}")
    done = _call("-x", "c++-header", str(header), "-o", f"{header}.gch", parse=False)
    if done.returncode:
        raise RuntimeError(f"the runtime does not compile:\n{done.stderr[:4000]}")
    return folder


def _call(*words: str, parse: bool = True) -> subprocess.CompletedProcess[str]:
    compiler = loader._native_compiler()
    assert compiler is not None, "no C++ compiler"
    kept = [f for f in loader._native_flags()[0] if not f.startswith(("-O", "-DSEQC_L1"))]
    command = [*compiler[0], *kept, *(["-fsyntax-only"] if parse else []), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)
