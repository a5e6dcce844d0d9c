"""The parts of a split program as one: functions for the whole recurrence, made of those for all steps at once and the core's.

In: a `Split`, and the kernels that a backend made of its core. Out: `Kernels` for the whole program. `_before_core` and
`_after_core`, with `_before_core_backward` and `_after_core_backward`, stand in the plain torch part of the file, once for all
backends. Forward saves what the core and `_after_core` read, so that no product between them runs twice.
In Triton's part both run in the dtype of storage, as torch's linear layers do: sums in fp32, results rounded.
Packs and `reverse` concern the core, and parts that read inputs of other steps; parts that carry a state or take a parameter
that belongs to a sequence know whole batches only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from seqc.driver.inner import behind, extent_of
from seqc.driver.signature_of import gate_inputs
from seqc.emit import Kernels, Saved, safe_name
from seqc.emit.expressions import Names
from seqc.emit.names import dim_name, emitted_name
from seqc.emit.signature import Dtype
from seqc.emit.text import docstring, group, lay, returned, unpack
from seqc.ir.arguments import argument_table
from seqc.ir.graph import leaves
from seqc.ir.program import Program
from seqc.passes.plan.products_outside import Split

BEFORE, CORE, AFTER = "_before_core", "_core", "_after_core"

OWN = '''
def _own(cu_seqlens, *tensors):
    """Tensors with zeros at the steps that are behind the last sequence of a pack: products over all steps take them too."""
    if cu_seqlens is None:
        return tensors
    steps = torch.arange(tensors[0].shape[1], device=tensors[0].device) < cu_seqlens[-1]
    return [torch.where(steps.view(1, -1, *[1] * (x.dim() - 2)), x, 0.0) for x in tensors]
'''

STORED = '''
def _stored(io, *tensors):
    """Tensors in the dtype of storage."""
    return [x.to(io) for x in tensors]
'''

LEAVING = "x if x.dtype == torch.int64 else "  # an index stays as it is

SHAPED = """
class _Shaped(NamedTuple):
    \"\"\"A tensor that is not made yet: its dtype, and its shape without batch and time.\"\"\"

    dtype: torch.dtype
    shape: tuple[int, ...]
"""


def compose(program: Program, split: Split, core: Kernels, kept: Sequence[Saved], suffix: str) -> Kernels:
    """The kernels of `program`, whose core's are given. kept: what `_before_core` saves beside its results."""
    return _Composer(program, split, core, kept, suffix).kernels()


def _ends(program: Program) -> list[str]:
    return [f"{safe_name(s)}_T" for s in program.states]


class _Composer:
    """Writes the functions of one part; names of values are those of the programs, and no two alike."""

    def __init__(self, program: Program, split: Split, core: Kernels, kept: Sequence[Saved], suffix: str) -> None:
        self.program, self.before, self.core, self.after = program, split.before, split.core, split.after
        self.kernel, self.kept, self.suffix = core, kept, suffix
        self.table = argument_table(program)
        self.arguments = [emitted_name(a) for a in self.table]
        self.values = list(split.before.output_decls) if split.before else []
        given = split.core.output_decls
        self.read = [x for x in given if split.after is not None and x in split.after.inputs]
        self.stored = suffix == "triton"
        apart = all(_apart(part) for part in (split.before, split.after) if part)
        self.packs = core.packs and apart
        self.keywords = ["cu_seqlens=cu_seqlens", "reverse=reverse"] if self.packs else []
        gates = gate_inputs(program, split.core)
        real = [a for a in self.table if not a.whole]
        plain = [a for a in real if a.kind == "input" and a.of not in gates]
        self.main = emitted_name([*plain, *real][0])
        names = Names((*self.arguments, *_ends(program), "B", "T", "io", "x", "cu_seqlens", "reverse"))
        self.called = {x: safe_name(x) for x in program.inputs}
        self.called |= {x: names.fresh(x) for x in dict.fromkeys((*program.outputs, *self.values, *given))}
        parts = [part for part in (self.before, self.core, self.after) if part]
        self.parts = Counter(x for part in parts for x in self._moved(part))  # the parts that give a gradient of each
        self.parts.update(self.called[x] for x in given if x in program.outputs)
        self.own = [names.fresh(x.name) for x in kept]
        self.inner = [names.fresh(x.name) for x in core.saved]
        self.places = {x: self.called[place] for x in self.values if self.stored and (place := _place(split.before, x))}

    def kernels(self) -> Kernels:
        """All functions of the part, and what they save."""
        core = behind(self.kernel, self.suffix, "core")
        made = [self._forward("forward"), self._forward("infer"), self._step(), self._backward()]
        if self.suffix == "cpu":
            made = [SHAPED.strip(), *made, self._ready()]
        if self.stored:
            own, stored = OWN.strip(), STORED.strip()
            if any(a.whole for a in self.table):
                own = own.replace("x, 0.0)", "x, 0 if x.dtype == torch.int64 else 0.0)")
                stored = stored.replace("[x.to(io)", f"[{LEAVING}x.to(io)")
            made[:0] = [stored, *([own] if self.packs else [])]
        dtype: Dtype = "io" if self.stored else "carry"
        kept = {x: self._shape(x) for x in self.values}
        saved = [Saved(self.called[x], kept[x], "carry" if x in self.places else dtype, self._shape(x, "1")) for x in kept]
        saved += [Saved(name, x.shape, dtype) for name, x in zip(self.own, self.kept, strict=True)]
        saved += [Saved(self.called[x], self._shape(x), dtype, self._shape(x, "1")) for x in self.read]
        saved += [replace(x, name=name) for name, x in zip(self.inner, self.kernel.saved, strict=True)]
        return replace(self.kernel, text="\n\n\n".join([core, *made]) + "\n", saved=tuple(saved), packs=self.packs)

    def _shape(self, name: str, rows: str = "B") -> tuple[str, ...]:
        decl = self.before.output_decls[name] if self.before and name in self.values else self.core.output_decls[name]
        return (rows, "T", *map(dim_name, decl.dims))

    # ---- lines ----

    def _call(
        self, results: Sequence[str], function: str, arguments: Sequence[str], cast: bool = False, shifts: bool = False
    ) -> list[str]:
        """`results = function(arguments)`; cast: the arguments in the dtype of storage, where the part has one; shifts:
        whether it must know the sequences."""
        more = self.keywords if shifts else []
        left = unpack(results)
        lines = []
        if len(left) > 80:
            *lines, left = lay("(", results, ")", 4).split("\n")
            left = left.strip()
        if cast and self.stored:
            end = f"){''.join(f', {x}' for x in more)})"
            return [*lines, *lay(f"{left} = {function}(*_stored(", ["io", *arguments], end, 4).split("\n")]
        return [*lines, *lay(f"{left} = {function}(", [*arguments, *more], ")", 4).split("\n")]

    def _given(self, part: Program, whole: str = "{}", value: str = "{}") -> list[str]:
        """The arguments of a part. whole, value: how an input of the program, and a value between parts, is written."""
        forms = {x: whole if x in self.program.inputs else value for x in part.inputs}
        return [forms[a.of].format(self.called[a.of]) if a.kind == "input" else emitted_name(a) for a in argument_table(part)]

    def _moved(self, part: Program) -> list[str]:
        """Those of a part's arguments that have a gradient."""
        return [self.called[a.of] if a.kind == "input" else emitted_name(a) for a in argument_table(part) if a.gradient]

    def _exact(self, form: str) -> list[str]:
        """The lines that make numbers of indices: half precision would round them."""
        return [f"    {self.called[x]} = {form.format(w)}.to(torch.float32).contiguous()" for x, w in self.places.items()]

    def _head(self, name: str, arguments: Sequence[str], doc: str) -> list[str]:
        taken = [*arguments, *(["*", "cu_seqlens=None", "reverse=False"] if self.packs else [])]
        lines = [lay(f"def _{name}_{self.suffix}(", taken, "):"), docstring([doc], 4)]
        return [*lines, f"    io = {self.main}.dtype"] if self.stored else lines

    def _cleared(self, names: Sequence[str]) -> list[str]:
        """Zeros behind the last sequence of a pack. Native code is called without these steps."""
        names = list(names) if self.stored and self.packs else []
        return lay(f"{unpack(names)} = _own(", ["cu_seqlens", *names], ")", 4).split("\n") if names else []

    def _results(self) -> list[str]:
        return [self.called[x] for x in self.program.outputs] + _ends(self.program)

    def _forward(self, name: str) -> str:
        save = name == "forward"
        doc = "Results, and what backward needs." if save else "Results only."
        lines = self._head(name, self.arguments, f"{doc} Products over all steps, and the recurrence between them.")
        lines += self._cleared([self.called[x] for x in self.program.inputs])
        if self.before:
            made = [self.called[x] for x in self.values]
            results = [*made, *_ends(self.before), *self.own]
            lines += self._call(results, BEFORE, self._given(self.before), cast=True, shifts=_shifts(self.before))
            lines.append(f"    {unpack(made)} = (x.contiguous() for x in {group(made)})")
            lines += self._exact("{}")
        made = [*(self.called[x] for x in self.core.outputs), *_ends(self.core), *(self.inner if save else ())]
        lines += self._call(made, f"_core_{name}_{self.suffix}", [*self._given(self.core), *self.keywords])
        if self.after:
            if self.stored:
                lines += [f"    {self.called[x]} = {self.called[x]}.to(io)" for x in self.read]
            results = [self.called[x] for x in self.after.outputs]
            lines += self._call(results, AFTER, self._given(self.after), cast=True, shifts=_shifts(self.after))
            lines += self._cleared(results)
        saved = [*(self.called[x] for x in self.values), *self.own]
        saved += [f"{self.called[x]}.clone()" if x in self.program.outputs else self.called[x] for x in self.read]
        return "\n".join([*lines, returned([*self._results(), *(saved if save else ()), *(self.inner if save else ())], 4)])

    def _step(self) -> str:
        lines = [lay(f"def _step_{self.suffix}(", self.arguments, "):"), docstring(["One step: a sequence of one."], 4)]
        if self.program.no_step:
            return "\n".join([*lines, lay("return _step_torch(", self.arguments, ")", 4)])
        if self.stored:
            lines.append(f"    io = {self.main}.dtype")
        if self.before:
            made = [self.called[x] for x in self.values] + _ends(self.before) + ["_"] * len(self.own)
            lines += self._call(made, BEFORE, self._given(self.before, "{}[:, None]"), cast=True)
            lines += self._exact("{}[:, None]")
        made = [self.called[x] for x in self.core.outputs] + _ends(self.core)
        lines += self._call(made, f"_core_step_{self.suffix}", self._given(self.core, value="{}[:, 0].contiguous()"))
        results = dict.fromkeys(self.program.outputs, "{}")
        if self.after:
            lines += [f"    {self.called[x]} = {self.called[x]}[:, None]" for x in self.read if x not in self.program.outputs]
            taken = self._given(self.after, "{}[:, None]")
            at = {self.called[x]: f"{self.called[x]}[:, None]" for x in self.read if x in self.program.outputs}
            made = [self.called[x] for x in self.after.outputs]
            lines += self._call(made, AFTER, [at.get(x, x) for x in taken], cast=True)
            results |= dict.fromkeys(self.after.outputs, "{}[:, 0]")
        outputs = [form.format(self.called[x]) for x, form in results.items()]
        return "\n".join([*lines, returned([*outputs, *_ends(self.program)], 4)])

    def _ready(self) -> str:
        """The question whether the core can run, of tensors that are there and shapes of those that are not."""
        given = self._given(self.core)
        for i, a in enumerate(argument_table(self.core)):
            if a.kind == "input" and a.of not in self.program.inputs:
                given[i] = f"_Shaped({self.main}.dtype, {group([extent_of(d, self.table, self.program) for d in a.dims])})"
        lines = [lay("def _ready_cpu(", self.arguments, "):"), docstring(["Whether native code can run on these."], 4)]
        return "\n".join([*lines, lay("return _core_ready_cpu(", given, ")", 4)])

    def _backward(self) -> str:
        program = self.program
        saved = [*(self.called[x] for x in self.values), *self.own, *(self.called[x] for x in self.read), *self.inner]
        ends = [f"d_{x}" for x in self._results()]
        lines = self._head("backward", [*self.arguments, *saved, *ends], "Gradients: the parts of forward, the last one first.")
        lines += self._cleared([*(self.called[x] for x in program.inputs), *(f"d_{self.called[x]}" for x in program.outputs)])
        terms: dict[str, list[str]] = {x: [] for x in self.arguments}
        terms |= {self.called[x]: [] for x in (*self.values, *self.core.outputs)}
        for x in self.core.outputs:
            if x in program.outputs:
                terms[self.called[x]].append(f"d_{self.called[x]}")
        if self.after:
            cotangents = [f"d_{self.called[x]}" for x in self.after.outputs]
            lines += self._part(self.after, AFTER, self._given(self.after), [], cotangents, terms)
        cotangents = [_sum(terms[self.called[x]]) for x in self.core.outputs]
        given = [f"({x}).contiguous()" if " " in x else f"{x}.contiguous()" for x in cotangents]
        given += [f"d_{x}" for x in _ends(self.core)]
        lines += self._part(self.core, CORE, self._given(self.core), self.inner, given, terms)
        if self.before:
            given = [_sum(terms[self.called[x]]) for x in self.values] + [f"d_{x}" for x in _ends(self.before)]
            lines += self._part(self.before, BEFORE, self._given(self.before), self.own, given, terms)
        moved = [emitted_name(a) for a in self.table if a.gradient]
        answers = [_sum(terms[x]) or f"torch.zeros_like({x})" for x in moved]
        return "\n".join([*lines, returned(answers, 4)])

    def _part(
        self, part: Program, name: str, arguments: list[str], saved: Sequence[str], cotangents: Iterable[str],
        terms: dict[str, list[str]],
    ) -> list[str]:
        """The gradient of one part; its results are entered in `terms`: argument or value -> contributions."""
        made = []
        place = name.strip("_").partition("_")[0]
        for x in self._moved(part):
            made.append(f"d_{x}" if self.parts[x] == 1 else f"d_{x}_{place}")
            terms[x].append(made[-1])
        function = f"{name}_backward" + (f"_{self.suffix}" if part is self.core else "")
        shifts = part is self.core or _shifts(part)
        return self._call(made, function, [*arguments, *saved, *cotangents], cast=part is not self.core, shifts=shifts)


def _place(before: Program | None, value: str) -> str:
    """The index that a value of the front is as a number; "" of any other."""
    n = before.outputs[value] if before is not None else None
    told = n is not None and n.op == "as_real" and n.args[0].op == "leaf" and not n.args[0].number("offset")
    return n.args[0].text("name") if n is not None and told else ""


def _apart(part: Program) -> bool:
    """Whether a part needs to know of a sequence no more than which steps are its own."""
    return not part.states and not any(d.per_batch for d in part.params.values())


def _shifts(part: Program) -> bool:
    """Whether a part reads inputs of other steps."""
    return any(n.number("offset") for n in leaves(part.graph.values(), "input"))


def _sum(terms: Sequence[str]) -> str:
    return " + ".join(terms)


__all__ = ["compose"]
