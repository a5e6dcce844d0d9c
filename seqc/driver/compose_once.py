"""Kernels of a whole program, made of those of its rest: values of parameters alone are computed in front of every call.

In: a program, its `Outside`, and the kernels that a backend made of the rest. Out: `Kernels` for the whole program. `_once` and
`_once_backward`, in the plain torch part of the file, give the values and the params' gradients. Backward computes the values
again: that costs as much as they did, once a call. They are computed in fp32 at least, whatever the params are stored in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from seqc.driver.inner import behind, extent_of
from seqc.emit import Kernels, safe_name
from seqc.emit.expressions import Names
from seqc.emit.names import emitted_name
from seqc.emit.text import docstring, group, lay, returned, unpack
from seqc.ir.arguments import argument_table
from seqc.ir.outside import Outside
from seqc.ir.program import Program

ONCE = "_once"

WIDE = '''
def _wide(*tensors):
    """Tensors in fp32 at least."""
    return [x if x.dtype in (torch.float32, torch.float64) else x.float() for x in tensors]
'''

SHAPED = '''
class _Made(NamedTuple):
    """A tensor that is not made yet."""

    dtype: torch.dtype
    shape: tuple[int, ...]
'''


def compose_once(program: Program, outside: Outside, kernels: Kernels, suffix: str) -> Kernels:
    """The kernels of `program`, from those of the rest."""
    return _Once(program, outside, kernels, suffix).kernels()


class _Once:
    """Writes the functions of one part of the file."""

    def __init__(self, program: Program, outside: Outside, kernels: Kernels, suffix: str) -> None:
        self.program, self.outside, self.kernel, self.suffix = program, outside, kernels, suffix
        self.table = argument_table(program)
        self.arguments = [emitted_name(a) for a in self.table]
        self.results = [safe_name(x) for x in program.outputs] + [f"{safe_name(s)}_T" for s in program.states]
        names = Names((*self.arguments, *self.results, *(f"d_{x}" for x in (*self.arguments, *self.results)), "B", "T", "x",
                       "cu_seqlens", "reverse", *(x.name for x in kernels.saved)))
        self.values = {name: names.fresh(safe_name(name)) for name in outside.values}
        rest = argument_table(outside.rest)
        self.inner = [self.values.get(a.of) or emitted_name(a) for a in rest]
        self.moved = [self.values.get(a.of) or emitted_name(a) for a in rest if a.gradient]
        self.like = next((emitted_name(a) for a in self.table if not a.whole), self.arguments[0])
        self.given = [safe_name(x) for x in outside.params] or [f"{self.like}[:0]"]
        self.keywords = ["cu_seqlens=cu_seqlens", "reverse=reverse"] if kernels.packs else []
        self.saved = [x.name for x in kernels.saved]

    def kernels(self) -> Kernels:
        """All functions of the part, and what they save."""
        text = behind(self.kernel, self.suffix, "rest")
        made = [text, WIDE.strip(), self._forward("forward"), *([self._forward("infer")] if self.kernel.infer else [])]
        made += [self._step(), self._backward()]
        if self.suffix == "cpu":
            made += [SHAPED.strip(), self._ready()]
        return replace(self.kernel, text="\n\n\n".join(made) + "\n")

    # ---- lines ----

    def _head(self, name: str, arguments: Sequence[str], doc: str) -> list[str]:
        packed = self.kernel.packs and name != "step"
        taken = [*arguments, *(["*", "cu_seqlens=None", "reverse=False"] if packed else [])]
        return [lay(f"def _{name}_{self.suffix}(", taken, "):"), docstring([doc], 4)]

    def _values(self) -> list[str]:
        values = list(self.values.values())
        call = lay(f"{unpack(values)} = {ONCE}(*_wide(", self.given, "))", 4)
        return [*call.split("\n"), f"    {unpack(values)} = (x.contiguous() for x in ({', '.join(values)},))"]

    def _call(self, results: Sequence[str], function: str, arguments: Sequence[str], keywords: Sequence[str]) -> list[str]:
        return lay(f"{unpack(results)} = _rest_{function}_{self.suffix}(", [*arguments, *keywords], ")", 4).split("\n")

    def _forward(self, name: str) -> str:
        lines = self._head(name, self.arguments, "Results; what is made of parameters alone first.") + self._values()
        return "\n".join([*lines, lay(f"return _rest_{name}_{self.suffix}(", [*self.inner, *self.keywords], ")", 4)])

    def _step(self) -> str:
        lines = self._head("step", self.arguments, "One step.") + self._values()
        return "\n".join([*lines, lay(f"return _rest_step_{self.suffix}(", self.inner, ")", 4)])

    def _backward(self) -> str:
        ends = [f"d_{x}" for x in self.results]
        lines = self._head("backward", [*self.arguments, *self.saved, *ends], "Gradients, back to what the values are made of.")
        lines += self._values()
        lines += self._call([f"d_{x}" for x in self.moved], "backward", [*self.inner, *self.saved, *ends], self.keywords)
        made = [safe_name(x) for x in self.outside.gradient]
        if made:
            cotangents = [f"d_{x}" for x in self.values.values()]
            left = unpack([f"once_{x}" for x in made])
            lines += lay(f"{left} = {ONCE}_backward(*_wide(", [*self.given, *cotangents], "))", 4).split("\n")
        answers = []
        for x in (emitted_name(a) for a in self.table if a.gradient):
            parts = [f"d_{x}"] if x in self.moved else []
            parts += [f"once_{x}"] if x in made else []
            answers.append(" + ".join(parts) or f"torch.zeros_like({x})")
        return "\n".join([*lines, returned(answers, 4)])

    def _ready(self) -> str:
        lines = [lay("def _ready_cpu(", self.arguments, "):"), docstring(["Whether native code can run on these."], 4)]
        of = {called: self.outside.decls[name] for name, called in self.values.items()}
        given = []
        for x in self.inner:
            if x not in of:
                given.append(x)
                continue
            sizes = ["1"] * (len(of[x].axes) - len(of[x].dims)) + [extent_of(d, self.table, self.program) for d in of[x].dims]
            given.append(f"_Made({self.like}.dtype, {group(sizes)})")
        return "\n".join([*lines, lay("return _rest_ready_cpu(", given, ")", 4)])


__all__ = ["compose_once"]
