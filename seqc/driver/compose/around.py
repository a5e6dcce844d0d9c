"""What every composition of kernels does: the functions that a backend made are set behind a name of their own.

In: kernels, an argument table. Out: text, and expressions of it. `compose` and its siblings then write functions of the usual
names, which call those; `Composition` is what they all have in common, `Around` what walks around an inner plan have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

from seqc.emit import Kernels, Saved, safe_name
from seqc.emit.beside import beside, renamed
from seqc.emit.names import emitted_name
from seqc.emit.text import docstring, group, lay, unpack
from seqc.ir.arguments import Argument, argument_table
from seqc.ir.dims import unprimed
from seqc.ir.plan import Stage
from seqc.ir.program import Program


class Composition:
    """Writes the functions of a program: they call functions that are made already, under names of their own.

    Each composition is a subclass, which writes `_forward`, `_step`, `_backward`, and for native code `_ready`.
    """

    def __init__(self, program: Program, kernels: Kernels, suffix: str) -> None:
        self.program, self.run, self.suffix = program, kernels, suffix
        self.table = argument_table(program)
        self.arguments = [emitted_name(a) for a in self.table]
        kinds = ("input", "param", "state")
        self.inputs, self.params, self.starts = ([emitted_name(a) for a in self.table if a.kind == kind] for kind in kinds)
        self.moved = [a for a in self.table if a.gradient]
        self.saved = [safe_name(x.name) for x in kernels.saved]
        self.outputs = [safe_name(x) for x in program.outputs]
        self.ends = [f"{safe_name(x)}_T" for x in program.states]

    def kernels(self) -> Kernels:
        """All functions of the part, and what they save."""
        return replace(self.run, text="\n\n\n".join(filter(None, self._functions())) + "\n")

    def _functions(self) -> list[str]:
        made = [self._inner_text(), self._forward("forward"), *([self._forward("infer")] if self.run.infer else [])]
        made += [self._step(), self._backward()]
        return [*made, self._ready()] if self.suffix == "cpu" else made

    def _head(self, name: str, doc: str, packs: bool = False) -> list[str]:
        return header(f"_{name}_{self.suffix}", self.arguments, doc, packs)

    def _head_of_backward(self, doc: str, saved: Sequence[str], packs: bool = False) -> list[str]:
        cotangents = [f"d_{x}" for x in (*self.outputs, *self.ends)]
        asked = [f"needs=(True,) * {len(self.moved)}"]
        return header(f"_backward_{self.suffix}", [*self.arguments, *saved, *cotangents], doc, packs, asked)

    def _inner_text(self) -> str:
        """The functions that are called."""
        raise NotImplementedError

    def _forward(self, name: str) -> str:
        raise NotImplementedError

    def _step(self) -> str:
        raise NotImplementedError

    def _backward(self) -> str:
        raise NotImplementedError

    def _ready(self) -> str:
        """The question whether native code can run."""
        raise NotImplementedError


class Around(Composition):
    """Writes the functions of a stage that walks around an inner plan. Each walk is a subclass."""

    called: ClassVar[str]
    """What names of the inner functions begin with."""

    def __init__(self, stage: Stage, kernels: Kernels, suffix: str) -> None:
        super().__init__(stage.program, replace(kernels, optional=()), suffix)
        assert stage.inner is not None
        self.stage, self.inner = stage, stage.inner.program
        self.own = argument_table(self.inner)

    def _inner_text(self) -> str:
        return behind(self.run, self.suffix, self.called)

    def _asked(self) -> str:
        """`needs` of the inner functions: of params what the caller asks, of all others that they are needed."""
        place = {a.of: i for i, a in enumerate(self.moved) if a.kind == "param"}
        return "needs=" + group([f"needs[{place[a.of]}]" if a.of in place else "True" for a in self.own if a.gradient])

    def _ready(self) -> str:
        lines = header("_ready_cpu", [*self.arguments, "_kernels"], "Whether these native kernels can run on these arguments.")
        return "\n".join([*lines, lay(f"return _{self.called}_ready_cpu(", [*self._shapes(), "_kernels"], ")", 4)])

    def _shapes(self) -> list[str]:
        """What tells native code the sizes of the inner functions' arguments."""
        raise NotImplementedError


def as_long(saved: Iterable[Saved], steps: str) -> tuple[Saved, ...]:
    """What functions over so many steps save; no pack has any."""
    return tuple(replace(x, shape=tuple(re.sub(r"\bT\b", steps, d) for d in x.shape), packed=None) for x in saved)


def behind(kernels: Kernels, suffix: str, name: str, several: bool = False) -> str:
    """The text of kernels with `_forward_SUFFIX` called `_NAME_forward_SUFFIX`, and its siblings likewise. Triton's part asks
    for sizes alone whether it is ready, whatever surrounds it. several: whether others stand beside it."""
    functions = ["forward", "infer", "backward", "step", "write", *(["ready"] if suffix == "cpu" or several else [])]
    return renamed(kernels.text, {f"_{x}_{suffix}": f"_{name}_{x}_{suffix}" for x in functions}).strip()


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
    return "\n".join([*lines, refusal(program) if program.no_step else lay(f"return {step}(", arguments, ")", 4)])


def refusal(program: Program) -> str:
    """The line of a step that says why there is none."""
    return f'    raise NotImplementedError("{program.no_step}")'


def extent_of(dim: str, table: Iterable[Argument], program: Program) -> str:
    """The extent of a dim, read from the first argument that has it, or the number that the spec gives."""
    plain = unprimed(dim)
    for a in table:
        own = [unprimed(d) for d in a.dims]
        if plain in own:
            return f"{emitted_name(a)}.shape[{own.index(plain) - len(own)}]"
    return str(program.dims[plain].default)
