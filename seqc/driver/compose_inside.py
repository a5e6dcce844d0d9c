"""Kernels that need to be told nothing of where a sequence ends, made of kernels that take a 1 for each of its steps.

In: a program, and the kernels that a backend made of it with `INSIDE` among its inputs (see `seqc.ir.inside`). Out: `Kernels`
that make the ones themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from seqc.driver.inner import behind
from seqc.emit import Kernels, safe_name
from seqc.emit.names import emitted_name
from seqc.emit.text import docstring, lay, returned, unpack
from seqc.ir.arguments import argument_table
from seqc.ir.inside import INSIDE, exposed
from seqc.ir.program import Program


def compose_inside(program: Program, kernels: Kernels, suffix: str) -> Kernels:
    """The kernels of `program`, from those of the exposed program."""
    table, inner = argument_table(program), argument_table(exposed(program))
    given, taken, ones = [emitted_name(a) for a in table], [emitted_name(a) for a in inner], safe_name(INSIDE)
    results = [safe_name(x) for x in program.outputs] + [f"{safe_name(s)}_T" for s in program.states]
    packed, keywords = ["*", "cu_seqlens=None", "reverse=False"], ["cu_seqlens=cu_seqlens", "reverse=reverse"]
    packed, keywords = (packed, keywords) if kernels.packs else ([], [])

    def function(name: str, arguments: Sequence[str], doc: str, lines: Sequence[str]) -> str:
        return "\n".join([lay(f"def _{name}_{suffix}(", arguments, "):"), docstring([doc], 4), *lines])

    def run(name: str) -> str:
        call = lay(f"return _told_{name}_{suffix}(", [*taken, *keywords], ")", 4)
        return function(name, [*given, *packed], "Results; every step of the sequence is one.", [made, call])

    made = f"    {ones} = {given[0]}.new_ones({given[0]}.shape[:2])"
    text = behind(kernels, suffix, "told")
    parts = [text, run("forward"), *([run("infer")] if kernels.infer else [])]
    parts.append(function("step", given, "Refused.", [f'    raise NotImplementedError("{program.no_step}")']))
    saved, ends = [x.name for x in kernels.saved], [f"d_{x}" for x in results]
    left = unpack([f"d_{emitted_name(a)}" for a in table if a.gradient])
    call = lay(f"{left} = _told_backward_{suffix}(", [*taken, *saved, *ends, *keywords], ")", 4)
    back = returned([f"d_{emitted_name(a)}" for a in table if a.gradient], 4)
    doc = "Gradients; the ones have none."
    parts.append(function("backward", [*given, *saved, *ends, *packed], doc, [made, call, back]))
    if suffix == "cpu":
        alike = [given[0] if x == ones else x for x in taken]  # ready depends on dtypes and dims
        doc = "Whether native code can run on these."
        parts.append(function("ready", given, doc, [lay("return _told_ready_cpu(", alike, ")", 4)]))
    return replace(kernels, text="\n\n\n".join(parts) + "\n")


__all__ = ["compose_inside"]
