"""The native CPU backend: a block of form "step" as C++17 loops over raw pointers, built by the system compiler on first use.

In: a `Block`. Out: `Kernels`: the C++ text as a constant, the loader, and `_forward_cpu`, `_infer_cpu`, `_backward_cpu`,
`_step_cpu` and `_ready_cpu`. The emitted text needs torch and the standard library. float32 and float64. `prebuild` builds
a library ahead, for the emitted file to find. A block on its way:

    plan                        what the kernels compute, keep and exchange, as graphs and `arrays` (`names_apart`, `roles`,
                                `together`); `refusal` of what they do not take
    forward, backward, step     one kernel each: its regions, by `kernel` and `assemble`
    schedule                    what a region computes -> loop nests
    nest, nest_body, nest_sums  one nest -> C++; `values` in single assignment form, `places` in memory, `copies`; `code` that
                                tells which names it mentions, so that nests of a long kernel may be `outlined`
    sparse, active              products that walk the lists of a mask, or the columns of active neurons
    lanes, lanes_text, narrow,  one channel over a long time: pieces of the sequence in the lanes of a vector
      late_last
    tiles, processors, blocks   panels and rows in a block, chosen by the build, and blocks in a program
    source                      the translation unit; `runtime`, `parts`, `vector_math`, `sparse_runtime`, `lanes_runtime` and
                                `direct` are the C++ that is the same for all, of which `needed` keeps what kernels mention
    launch, launch_texts,       the Python around it
      loader
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from seqc.backends.native_cpu import loader
from seqc.backends.native_cpu.active import products_of_spikes
from seqc.backends.native_cpu.direct import ENTRY
from seqc.backends.native_cpu.lanes import lanes_back, lanes_of
from seqc.backends.native_cpu.launch import launch_text, saved
from seqc.backends.native_cpu.needed import ALL, runtime_of
from seqc.backends.native_cpu.places import ident
from seqc.backends.native_cpu.plan import Plan
from seqc.backends.native_cpu.refusal import refused
from seqc.backends.native_cpu.runtime import RUNTIME
from seqc.backends.native_cpu.source import NativeSource, native_source
from seqc.cache import _native_distrust
from seqc.emit.signature import Kernels, Library
from seqc.ir.block import Block, Reason
from seqc.ir.formula import spell

_RULE = "# ---- copied into emitted files from here on ----\n"


def emit(block: Block, alone: bool = True, whole: bool = True) -> Kernels:
    """The CPU part of an emitted file that has no other kernels. Raises Unsupported where the block has no loop form."""
    return finished(kernels(native_source(block), alone, whole))


def kernels(source: NativeSource, alone: bool = True, whole: bool = True) -> Kernels:
    """The CPU part of an emitted file, of its C++.

    alone: whether the caller has asked for this backend and no other: what cannot be built or loaded is then an error; else
    the file says so once, and takes the plain torch form. whole: whether the block is all of the recurrence: a step then needs
    nothing of torch, and may be called without its dispatcher.
    """
    direct = whole and not source.plan.program.no_step
    build = inspect.getsource(loader).split(_RULE, 1)[1].strip("\n")
    imports, build = build.split("\n\nfrom seqc.cache import _native_distrust\n\n", 1)
    build = build.replace("def _native_trusted(", f"{inspect.getsource(_native_distrust)}\n\ndef _native_trusted(", 1)
    imported = sorted([*imports.split("\n"), "import stat as _stat"], key=lambda line: (line[:4] == "from", line))
    own, common = launch_text(source, alone, direct)
    text = "\n\n\n".join([_constant("KERNELS", source.kernels), own]) + "\n"
    entry = [] if source.plan.program.no_step else [_constant("ENTRY", ENTRY.strip("\n"))]
    runtime = (build, *common, RUNTIME, *source.needs, *entry)
    more = (("SEQC_KERNELS", "ALL"), *([("SEQC_ROWS", "8")] if source.plan.roles.blocked else []))
    library = Library(source.own, tuple((d, f"SEQC_DIM_{ident(d)}") for d in source.dims), more)
    return Kernels(
        text, saved(source), infer=not source.steps, float64=True, packs=True, direct=direct, imports=tuple(imported),
        runtime=runtime, libraries=(library,),
    )  # fmt: skip


def finished(native: Kernels) -> Kernels:
    """The CPU part of an emitted file, with one runtime for all its kernels."""
    parts = {part.text for part in ALL}
    before = runtime_of(parts.intersection(native.runtime))
    runtime = tuple(_constant("RUNTIME", before) if x is RUNTIME else x for x in native.runtime if x not in parts)
    libraries = tuple(replace(one, text=f"\n{before}{one.text}") for one in native.libraries)
    return replace(native, runtime=runtime, libraries=libraries)


def reasons(source: NativeSource) -> tuple[Reason, ...]:
    """What this backend decides for a block that the block does not tell."""
    return (*_activity(source.plan), *_lanes(source.plan))


def _activity(plan: Plan) -> Iterator[Reason]:
    """The products with spikes that skip silent neurons."""
    for product, vector in products_of_spikes(plan):
        text = (
            f"`{spell(vector)}` is 0 but where a neuron spikes: forward takes the columns of active neurons, of a dense matrix "
            "from 128 columns on, at steps where at most a quarter of them is active, of a sparse one where what is kept is "
            "scattered; backward takes all"
        )
        yield Reason("form", spell(product), text)


def _lanes(plan: Plan) -> tuple[Reason, ...]:
    """How a sequence is cut, where its pieces lie in the lanes of a vector."""
    if (lanes := lanes_of(plan)) is None:
        return ()
    kept = "powers of the step's matrix" if lanes.cut.fixed else f"{len(lanes.links)} numbers a piece, run beside the states"
    way = "and its gradient" if lanes_back(plan) else "without gradient"
    text = f"a long sequence {way} in pieces, one in each lane of a vector; what a piece makes of the states: {kept}"
    return (Reason("form", "lanes", text),)


def prebuild(libraries: Iterable[Library], sizes: Mapping[str, int], file: Path) -> list[Path]:
    """Build the float32 libraries of an emitted file for these sizes of its dims, and put them where it will find them.

    Raises Unsupported where a size is missing or there is no compiler.
    """
    dims = dict.fromkeys(d for one in libraries for d, _ in one.macros)
    missing = [d for d in dims if d not in sizes]
    if missing:
        help = f"say `--prebuild {','.join(f'{d}=64' for d in dims)}`, or fix them with --dim"
        message = f"a library is built for certain sizes, and there are none for {', '.join(missing)}"
        raise refused("native-prebuild", message, help)
    folder, asked = file.with_suffix(".native"), _needs_of_this_machine()
    folder.mkdir(exist_ok=True)

    def built(one: Library) -> Path:
        defines = {**{macro: str(sizes[d]) for d, macro in one.macros}, **dict(one.more), "SEQC_REAL": "float"}
        path = loader._native_ahead(folder, one.text, defines)
        loader._native_make(one.text, defines, ["-shared"], path, asked)
        return path

    return loader._native_each([partial(built, one) for one in libraries])


def _needs_of_this_machine() -> dict[str, object]:
    """What a library that is built here asks of a machine that loads it. Raises Unsupported where there is no compiler."""
    compiler = loader._native_compiler()
    if compiler is None:
        raise refused("native-prebuild", loader._native_search()[2], "a library is built ahead by a C++ compiler")
    threads = "" if platform.system() == "Darwin" else loader._native_threads(compiler[1])
    return {"processor": loader._native_processor().splitlines(), "threads": threads}


def _constant(name: str, text: str) -> str:
    return f'_NATIVE_{name} = r"""\n{text}"""'


__all__ = ["NativeSource", "emit", "finished", "kernels", "native_source", "prebuild", "reasons"]
