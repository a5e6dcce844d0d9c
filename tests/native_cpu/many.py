"""The native kernels of many small programs in one library: one build without optimisation instead of one for each.

In: programs. Out: for each the module of its emitted native part, whose kernels are those of the library. Extents are fixed
(`syntax.sizes_of`), numbers are float64. What is compared so is the text's meaning, not what the optimiser makes of it.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

from seqc.backends import native_cpu
from seqc.backends.native_cpu import loader
from seqc.driver.pipeline import lower
from seqc.ir.block import Block
from seqc.ir.program import Program
from tests.native_cpu import syntax
from tests.parts import loaded

FUNCTIONS = ("seqc_forward", "seqc_backward", "seqc_step", "seqc_panels", "seqc_large_pages", "seqc_direct_begin",
             "seqc_direct")


def modules(programs: Sequence[Program], folder: Path) -> list[ModuleType]:
    """The native parts of some programs, in order. folder: for the library."""
    blocks = [lower(program, "step") for program in programs]
    sources = [native_cpu.native_source(block) for block in blocks]
    words = loader._native_compiler()
    assert words is not None
    unit, library = folder / "many.cpp", folder / "many.so"
    texts = [syntax.in_namespace(source, i, f'extern "C" NAME_{i}') for i, source in enumerate(sources)]
    for i, text in enumerate(texts):
        texts[i] = re.sub(rf"NAME_{i} (int|void|Object\*) ({'|'.join(FUNCTIONS)})\b", rf"\1 \2_{i}", text)
    unit.write_text("\n".join([syntax.runtime("double"), *texts, ""]))
    flags = [f for f in loader._native_flags()[0] if not f.startswith(("-O", "-DSEQC_L1"))]
    command = [*words[0], *flags, "-O0", "-shared", str(unit), "-o", str(library)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not built.returncode, built.stderr[:4000]
    opened = ctypes.CDLL(str(library))
    return [_module(block, opened, i) for i, block in enumerate(blocks)]


def _module(block: Block, opened: ctypes.CDLL, number: int) -> ModuleType:
    made = loaded(native_cpu.emit(block).alone, block.program, f"many_{number}")
    own = SimpleNamespace(**{f: getattr(opened, f"{f}_{number}") for f in FUNCTIONS if hasattr(opened, f"{f}_{number}")})
    whole, pointer = ctypes.c_int64, ctypes.c_void_p
    for name in FUNCTIONS[:3]:
        if hasattr(own, name):
            getattr(own, name).argtypes = [whole, whole, whole, pointer, whole, whole, pointer]
    own.seqc_large_pages.argtypes, own.seqc_large_pages.restype = [pointer, whole], None
    setattr(made, "_native_kernel", lambda *_: (own, own.seqc_panels()))  # noqa: B010
    return made
