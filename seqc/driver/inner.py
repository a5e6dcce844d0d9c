"""What every composition of kernels does: the functions that a backend made are set behind a name of their own.

In: kernels, an argument table. Out: text, and expressions of it. `compose` and its siblings then write functions of the usual
names, which call those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from seqc.emit import Kernels
from seqc.emit.beside import beside
from seqc.emit.names import emitted_name
from seqc.emit.text import docstring, lay, unpack
from seqc.ir.arguments import Argument
from seqc.ir.dims import unprimed
from seqc.ir.program import Program


def behind(kernels: Kernels, suffix: str, name: str, several: bool = False) -> str:
    """The text of kernels with `_forward_SUFFIX` called `_NAME_forward_SUFFIX`, and its siblings likewise. Triton's part asks
    for sizes alone whether it is ready, whatever surrounds it. several: whether others stand beside it."""
    functions = "forward|infer|backward|step|write" + ("|ready" if suffix == "cpu" or several else "")
    return re.sub(rf"\b_({functions})_{suffix}\b", rf"_{name}_\1_{suffix}", kernels.text).strip()


def together(texts: Sequence[str], names: Sequence[str]) -> str:
    """Several parts as one text: what is alike stands once, and what only has one name gets others."""
    whole = texts[0]
    for text, name in zip(texts[1:], names[1:], strict=True):
        whole = f"{whole}\n\n\n{beside(whole, text, f'_{name}')}"
    return whole


def assigned(results: Sequence[str], call: str, arguments: Sequence[str], end: str = ")") -> list[str]:
    """The lines of `results = call(arguments)`."""
    lines, left = list[str](), unpack(results)
    if len(left) > 80:
        *lines, left = lay("(", results, ")", 4).split("\n")
    return [*lines, *lay(f"{left.strip()} = {call}(", arguments, end, 4).split("\n")]


def switches(names: Sequence[str]) -> list[str]:
    """The lines that unpack `needs`, the answers whether a gradient is asked for."""
    left = unpack(names)
    return [f"    {left} = needs"] if len(left) <= 100 else lay("(", names, ") = needs", 4).split("\n")


def header(function: str, arguments: Sequence[str], doc: str, packs: bool = False, more: Sequence[str] = ()) -> list[str]:
    """`def function(arguments, *, keywords):` and its docstring. packs: whether it takes those of packs; more: others."""
    keywords = [*(["cu_seqlens=None", "reverse=False"] if packs else []), *more]
    taken = [*arguments, *(["*", *keywords] if keywords else [])]
    return [lay(f"def {function}(", taken, "):"), docstring([doc], 4)]


def handed_on(program: Program, arguments: Sequence[str], step: str) -> str:
    """The decoding step of plain torch, which the function `step` takes; where the recurrence has none, it says why."""
    lines = header("_step_torch", arguments, "One step: outputs and new states.")
    refusal = f'    raise NotImplementedError("{program.no_step}")'
    return "\n".join([*lines, refusal if program.no_step else lay(f"return {step}(", arguments, ")", 4)])


def extent_of(dim: str, table: Iterable[Argument], program: Program) -> str:
    """The extent of a dim, read from the first argument that has it, or the number that the spec gives."""
    plain = unprimed(dim)
    for a in table:
        own = [unprimed(d) for d in a.dims]
        if plain in own:
            return f"{emitted_name(a)}.shape[{own.index(plain) - len(own)}]"
    return str(program.dims[plain].default)
