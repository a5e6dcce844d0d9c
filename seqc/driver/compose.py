"""plan -> the functions of one part of a file: `Kernels` of the whole program, from those of its recurrences.

In: a plan, the kernels that a backend made of each recurrence, and what stages in plain torch save. Out: `Kernels`. A stage
that walks around an inner plan is written by `compose_runs`, `compose_tables`, `compose_waves` or `compose_newton`; here
stages follow one another. `_NAME` and `_NAME_backward` of stages that torch serves stand in the plain torch part of the
file, once for all backends; `_once` and `_once_backward` likewise. Forward saves what stages hand to one another, so that
no product runs twice; values of parameters alone are computed again, which costs as much as they did, once a call, in fp32
at least whatever the params are stored in. In Triton's part torch's stages run in the dtype of storage, as torch's linear
layers do: sums in fp32, results rounded; what a recurrence hands to another is not rounded. Packs and `reverse` concern
recurrences, and stages that read inputs of other steps; stages in torch that carry a state or take a parameter that belongs
to a sequence know whole batches only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from seqc.driver.compose_groups import Slow, clock_lines
from seqc.driver.compose_newton import NewtonWalk
from seqc.driver.compose_runs import Runs
from seqc.driver.compose_tables import Events
from seqc.driver.compose_waves import Waves
from seqc.driver.inner import Around, Composition, assigned, behind, extent_of, header, refusal, switches, together
from seqc.driver.signature_of import gate_inputs
from seqc.emit import Kernels, Saved, safe_name
from seqc.emit.expressions import Names
from seqc.emit.names import dim_name, emitted_name
from seqc.emit.signature import Dtype
from seqc.emit.text import group, lay, returned, unpack
from seqc.ir.arguments import Argument, argument_table
from seqc.ir.graph import leaves
from seqc.ir.plan import Plan, Stage
from seqc.ir.program import HANDED, Program, TensorDecl

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

WIDE = '''
def _wide(*tensors):
    """Tensors in fp32 at least."""
    return [x if x.dtype in (torch.float32, torch.float64) else x.float() for x in tensors]
'''

SHAPED = """
class _Shaped(NamedTuple):
    \"\"\"A tensor that is not made yet: its dtype, and its shape without time.\"\"\"

    dtype: torch.dtype
    shape: tuple[int, ...]
"""


@dataclass(frozen=True)
class Made:
    """What backends made of a plan. kernels: of the recurrences that the part's own backend serves, by stage; saved: what the
    functions in plain torch of the other stages save."""

    kernels: Mapping[str, Kernels]
    saved: Mapping[str, Sequence[Saved]]
    suffix: str


AROUND: dict[str, type[Around]] = {"both": Runs, "diagonals": Waves, "groups": Slow, "rows": Events, "newton": NewtonWalk}


def compose(plan: Plan, made: Made) -> Kernels:
    """The kernels of the plan's program."""
    first = plan.stages[0]
    if first.inner is not None and len(plan.stages) == 1:
        return _around(first, first.inner, made)
    if len(plan.stages) == 1 and first.name in made.kernels:
        return made.kernels[first.name]
    return _Chain(plan, made).kernels()


def _around(stage: Stage, inner: Plan, made: Made) -> Kernels:
    return AROUND[stage.walk](stage, compose(inner, made), made.suffix).kernels()


def _ends(program: Program) -> list[str]:
    return [f"{safe_name(s)}_T" for s in program.states]


class _Chain(Composition):
    """Writes the functions of stages that follow one another; names of values are those of the programs, and no two alike."""

    def __init__(self, plan: Plan, made: Made) -> None:
        self.kernel = {stage.name: made.kernels[stage.name] for stage in plan.stages if stage.name in made.kernels}
        self.kernel |= {s.name: _around(s, s.inner, made) for s in plan.stages if s.inner}
        self.cores = [stage for stage in plan.stages if stage.name in self.kernel]
        self.torch = [s for s in plan.stages if s.walk in ("all", "taps", "steps") and s.name not in self.kernel]
        alone = [s for s in self.torch if s.walk != "taps"]
        whole = any(s.program.states or any(d.per_batch for d in s.program.params.values()) for s in alone)
        kernels = [*self.kernel.values()]
        first = kernels[0] if kernels else Kernels("")  # none where torch serves all, inside of a stage beside others
        super().__init__(plan.program, replace(
            first, direct=False, packs=all(k.packs for k in kernels) and not whole, infer=any(k.infer for k in kernels),
            writes=any(k.writes for k in kernels), float64=all(k.float64 for k in kernels),
            limited=tuple(dict.fromkeys(d for k in kernels for d in k.limited)),
        ), made.suffix)  # fmt: skip
        self.stages, self.stored = plan.stages, made.suffix == "triton"
        self.keywords = ["cu_seqlens=cu_seqlens", "reverse=reverse"] if self.run.packs else []
        gates = {x for stage in self.cores for x in gate_inputs(plan.program, stage.program)}
        real = [a for a in self.table if not a.whole]
        plain = [a for a in real if a.kind == "input" and a.of not in gates]
        self.main = emitted_name([*plain, *real][0])
        self.timed = emitted_name([*plain, *(a for a in self.table if a.kind == "input"), *real][0])  # has steps
        names = Names((*self.arguments, *self.ends, "B", "T", "io", "x", "cu_seqlens", "reverse", "needs"))
        self.decls: dict[str, TensorDecl] = {x: d for stage in plan.stages for x, d in stage.program.output_decls.items()}
        self.called = {x: safe_name(x) for x in plan.program.inputs}
        self.called |= {x: names.fresh(x) for x in dict.fromkeys((*plan.program.outputs, *self.decls))}
        self.outputs = [self.called[x] for x in plan.program.outputs]
        self.once = {x: self.called[x] for stage in plan.stages if stage.walk == "once" for x in stage.program.output_decls}
        read = {x for stage in plan.stages for x in stage.program.inputs}
        self.given = {s.name: [x for x in s.program.output_decls if x in read] for s in (*self.torch, *self.cores)}
        self.own = {s.name: [names.fresh(x.name) for x in made.saved.get(s.name, ())] for s in self.torch}
        self.own |= {s.name: [names.fresh(x.name) for x in self.kernel[s.name].saved] for s in self.cores}
        self.kept = {x: [*made.saved.get(x, ()), *(self.kernel[x].saved if x in self.kernel else ())] for x in self.own}
        torch = {x: s.program for s in self.torch for x in s.program.outputs} if self.stored else {}
        self.places = {x: self.called[place] for x, part in torch.items() if (place := _place(part, x))}
        self.names, self.switch = names, {x: names.fresh(f"need_{x}") for x in map(emitted_name, self.moved)}
        self.behind, self.asked = dict[str, set[str]](), dict[str, str]()
        self.parts = Counter(x for stage in plan.stages for x in self._moved(stage.program))  # stages that give its gradient
        self.parts.update(self.called[x] for stage in plan.stages for x in stage.program.outputs if x in plan.program.outputs)

    def kernels(self) -> Kernels:
        """All functions of the part, and what they save."""
        runtime = [*self._common(), *(x for k in self.kernel.values() for x in k.runtime)]
        return replace(super().kernels(), saved=tuple(self._saved()), runtime=tuple(dict.fromkeys(runtime)))

    def _functions(self) -> list[str]:
        made = [self._inner_text(), self._forward("forward"), *([self._forward("infer")] if self.run.infer else [])]
        made += [self._step(), self._backward(), *([self._step("write")] if self.run.writes else [])]
        made += [self._ready()] if self.suffix == "cpu" else []
        return [*made, self._room()] if len(self.kernel) > 1 and self.run.limited else made

    def _inner_text(self) -> str:
        several = len(self.kernel) > 1
        texts = [behind(kernels, self.suffix, name, several) for name, kernels in self.kernel.items()]
        return together(texts, [*self.kernel]) if texts else ""

    def _common(self) -> list[str]:
        """The helpers of the functions."""
        common = [SHAPED] if self.suffix == "cpu" else []
        if self.stored:
            own, stored = OWN, STORED
            if any(a.whole for a in self.table):
                own = own.replace("x, 0.0)", "x, 0 if x.dtype == torch.int64 else 0.0)")
                stored = stored.replace("[x.to(io)", f"[{LEAVING}x.to(io)")
            common += [stored, *([own] if self.run.packs else [])]
        return [text.strip() for text in (*common, *([WIDE] if self.once else []))]

    def _saved(self) -> Iterable[Saved]:
        for stage in (s for s in self.stages if s.name in self.own):
            for x in self.given[stage.name]:
                dims = ("T", *map(dim_name, self.decls[x].dims))
                exact = not self.stored or self.decls[x].role == HANDED or x in self.places
                dtype: Dtype = "carry" if exact else "io"
                yield Saved(self.called[x], ("B", *dims), dtype, ("1", *dims))
            for name, kept in zip(self.own[stage.name], self.kept[stage.name], strict=True):
                stored = self.stored and stage.name not in self.kernel
                yield replace(kept, name=name, dtype="io" if stored else kept.dtype)

    # ---- lines ----

    def _call(
        self, results: Sequence[str], function: str, arguments: Sequence[str], cast: bool = False, shifts: bool = False,
        needs: Sequence[str] = (),
    ) -> list[str]:
        """`results = function(arguments)`; cast: the arguments in the dtype of storage, where the part has one; shifts:
        whether it must know the sequences; needs: of a gradient, which of the results are asked for."""
        more = [*(self.keywords if shifts else []), *([f"needs={group(needs)}"] if needs else [])]
        if cast and self.stored:
            return assigned(results, f"{function}(*_stored", ["io", *arguments], f"){''.join(f', {x}' for x in more)})")
        return assigned(results, function, [*arguments, *more])

    def _name(self, a: Argument) -> str:
        """An argument of a stage, by the name of its value."""
        return self.called[a.of] if a.kind == "input" else self.once.get(a.of) or emitted_name(a)

    def _taken(self, part: Program, forms: Mapping[str, str] | None = None) -> list[str]:
        """The arguments of a stage. forms: how an input is written, where that is not by its name."""
        table = argument_table(part)
        return [(forms or {}).get(a.of, "{}").format(self._name(a)) if a.kind == "input" else self._name(a) for a in table]

    def _moved(self, part: Program) -> list[str]:
        """Those of a stage's arguments that have a gradient."""
        return [self._name(a) for a in argument_table(part) if a.gradient]

    def _exact(self, part: Program, form: str) -> list[str]:
        """The lines that make numbers of indices: half precision would round them."""
        lines = []
        for x in part.outputs:
            if x in self.places:
                given, wanted = part.inputs[_place(part, x)].dims, part.output_decls[x].dims
                order = "" if given == wanted else f".permute{group(['0', '1', *(str(2 + given.index(d)) for d in wanted)])}"
                number = f"{form.format(self.places[x])}{order}.to(torch.float32).contiguous()"
                lines.append(f"    {self.called[x]} = {number}")
        return lines

    def _io(self) -> list[str]:
        """The line that tells the dtype of storage."""
        return [f"    io = {self.main}.dtype"] if self.stored else []

    def _cleared(self, names: Sequence[str]) -> list[str]:
        """Zeros behind the last sequence of a pack. Native code is called without these steps."""
        names = list(names) if self.stored and self.run.packs else []
        return lay(f"{unpack(names)} = _own(", ["cu_seqlens", *names], ")", 4).split("\n") if names else []

    def _fixed(self, stage: Stage, step: bool = False) -> list[str]:
        """The values of a stage that needs no step of the sequence."""
        made = [self.called[x] for x in stage.program.outputs]
        if stage.walk == "clocks":
            return clock_lines(stage.program, self.called, "" if step else self.timed)
        if stage.walk == "ones":
            return [f"    {made[0]} = {self.main}.new_ones({self.timed}.shape[:2])"]
        lines = self._call(made, "_once", [f"*_wide({', '.join(self._params(stage))})"])
        return [*lines, f"    {unpack(made)} = (x.contiguous() for x in {group(made)})"]

    def _params(self, stage: Stage) -> list[str]:
        """What `_once` takes: of no params, what tells the dtype."""
        return self._taken(stage.program) or [f"{self.main}[:0]"]

    def _forward(self, name: str) -> str:
        save = name == "forward"
        doc = "Results, and what backward needs." if save else "Results only."
        what = "Products over all steps, and the recurrence between them." if self.torch else "One stage after the other."
        lines = [*self._head(name, f"{doc} {what}", self.run.packs), *self._io()]
        lines += self._cleared([self.called[x] for x in self.program.inputs])
        saved, rounded = list[str](), set[str]()
        for stage in self.stages:
            part, made = stage.program, [self.called[x] for x in stage.program.outputs]
            if stage.name in self.kernel:
                own = self.own[stage.name] if save else []
                results, lone = [*made, *_ends(part), *own], save or self.kernel[stage.name].infer
                function = f"_{stage.name}_{name if lone else 'forward'}_{self.suffix}"
                lines += self._call(results, function, [*self._taken(part), *self.keywords])
                lines[-1] += "" if lone else f"[:{len(results)}]"  # without what its only forward saves
            elif stage.name in self.own:
                fresh = [x for x in part.inputs if self.stored and x not in rounded and self._rounds(x)]
                lines += [f"    {self.called[x]} = {self.called[x]}.to(io)" for x in fresh]
                rounded |= {*fresh, *part.outputs}
                own = self.own[stage.name]
                function, results = f"_{stage.name}", [*made, *_ends(part), *own]
                lines += self._call(results, function, self._taken(part), _cast(stage), _shifts(stage))
                read = [self.called[x] for x in self.given[stage.name]]
                lines += [f"    {unpack(read)} = (x.contiguous() for x in {group(read)})"] if read else []
                lines += self._exact(part, "{}")
                lines += self._cleared([self.called[x] for x in part.outputs if x in self.program.outputs])
            else:
                lines += self._fixed(stage)
                continue
            values = self.given[stage.name]
            saved += [f"{self.called[x]}.clone()" if x in self.program.outputs else self.called[x] for x in values]
            saved += own
        return "\n".join([*lines, returned([*self.outputs, *self.ends, *(saved if save else ())], 4)])

    def _rounds(self, x: str) -> bool:
        """Whether a value of a recurrence is kept in the dtype of storage."""
        return x in self.decls and self.decls[x].role != HANDED and any(x in stage.program.outputs for stage in self.cores)

    def _step(self, name: str = "step") -> str:
        """name: "write" of the step in place, where a stage has one."""
        lines = self._head(name, "One step: a sequence of one.")
        if self.program.no_step:
            return "\n".join([*lines, refusal(self.program)])
        lines += self._io()
        long: set[str] = set()  # values with an axis of the one step
        for stage in self.stages:
            part, made = stage.program, [self.called[x] for x in stage.program.outputs]
            if stage.name in self.kernel:
                forms = {x: "{}[:, 0].contiguous()" for x in part.inputs if x in long}
                own = name if self.kernel[stage.name].writes else "step"
                lines += self._call([*made, *_ends(part)], f"_{stage.name}_{own}_{self.suffix}", self._taken(part, forms))
            elif stage.name in self.own:
                forms = {x: "{}[:, None]" for x in part.inputs if x not in long}
                results = [*made, *_ends(part), *["_"] * len(self.own[stage.name])]
                lines += self._call(results, f"_{stage.name}", self._taken(part, forms), _cast(stage))
                lines += self._exact(part, "{}[:, None]")
                long |= set(part.outputs)
            else:
                lines += self._fixed(stage, True)
        outputs = [f"{self.called[x]}[:, 0]" if x in long else self.called[x] for x in self.program.outputs]
        return "\n".join([*lines, returned([*outputs, *self.ends], 4)])

    def _ready(self) -> str:
        """The question whether the cores can run, of tensors that are there and shapes of those that are not."""
        lines = header("_ready_cpu", [*self.arguments, "_kernels"], "Whether these native kernels can run on these arguments.")
        asked = []
        for stage in self.cores:
            given = self._taken(stage.program)
            for i, a in enumerate(argument_table(stage.program)):
                if a.of in self.decls and a.kind != "state":
                    sizes = [extent_of(d, self.table, self.program) for d in a.dims]
                    batch = [f"{self.timed}.shape[0]"] * (a.kind == "input") or ["1"] * (a.kind == "param" and a.batched)
                    given[i] = f"_Shaped({self.main}.dtype, {group([*batch, *sizes])})"
            asked.append((f"_{stage.name}_ready_cpu(", [*given, "_kernels"]))
        if len(asked) == 1:
            return "\n".join([*lines, lay(f"return {asked[0][0]}", asked[0][1], ")", 4)])
        lines += [line for head, given in asked for line in (lay(f"if not {head}", given, "):", 4), "        return False")]
        return "\n".join([*lines, "    return True"])

    def _room(self) -> str:
        """The question whether all kernels fit at these sizes."""
        lines = header("_ready_triton", ["x", *self.run.limited, "alone=False"], "Whether all kernels fit.")
        calls = [lay(f"_{x}_ready_triton(", ["x", *k.limited, "alone"], ")") for x, k in self.kernel.items() if k.limited]
        return "\n".join([*lines, f"    return {' and '.join(calls)}"])

    def _backward(self) -> str:
        program = self.program
        moved = [emitted_name(a) for a in self.moved]
        doc, saved = "Gradients: the parts of forward, the last one first.", [x.name for x in self._saved()]
        lines = [*self._head_of_backward(doc, saved, self.run.packs), *self._io()]
        lines += switches([self.switch[x] for x in moved])
        for stage in self.stages:
            lines += self._asking(stage, len(moved))
        lines += self._cleared([*(self.called[x] for x in program.inputs), *(f"d_{self.called[x]}" for x in program.outputs)])
        lines += [line for stage in self.stages if stage.walk in ("once", "ones", "clocks") for line in self._fixed(stage)]
        terms: dict[str, list[str]] = {x: [] for x in self.arguments}
        terms |= {self.called[x]: [f"d_{self.called[x]}"] * (x in program.outputs) for x in self.decls}
        for stage in reversed(self.stages):
            cotangents = [_total(terms, self.called[x]) for x in stage.program.outputs]
            if stage.name in self.kernel:
                cotangents = [f"({x}).contiguous()" if " " in x else f"{x}.contiguous()" for x in cotangents]
            if stage.walk not in ("ones", "clocks"):
                lines += self._part(stage, cotangents, terms)
        answers = [f"{_total(terms, x)} if {self.switch[x]} else None" for x in moved]
        return "\n".join([*lines, returned(answers, 4)])

    def _asking(self, stage: Stage, every: int) -> list[str]:
        """The line that tells whether a stage's gradient is asked for: where one of an argument is that it reads, or one behind
        a value that it reads. every: how many arguments have a gradient; where all are behind it, one is."""
        moved = self._moved(stage.program)
        self.behind[stage.name] = {y for x in moved for y in self.behind.get(x, {x})}
        whole = len(self.behind[stage.name]) == every
        name = "True" if whole else self.names.fresh(f"need_{stage.name}")
        self.asked[stage.name] = name
        self.behind |= {self.called[x]: self.behind[stage.name] for x in stage.program.outputs}
        self.switch |= {self.called[x]: name for x in stage.program.outputs}
        asked = [self.switch[x] for x in moved]
        made = f"    {name} = {' or '.join(asked) or 'False'}"
        return [] if whole else [made] if len(made) <= 120 else lay(f"{name} = any((", asked, "))", 4).split("\n")

    def _part(self, stage: Stage, cotangents: Sequence[str], terms: dict[str, list[str]]) -> list[str]:
        """The gradient of one stage, where it is asked for; its results are entered in `terms`."""
        lines = self._gradient(stage, cotangents, terms)
        asked = self.asked[stage.name]
        return lines if asked == "True" or not lines else [f"    if {asked}:", *(f"    {line}" for line in lines)]

    def _gradient(self, stage: Stage, cotangents: Sequence[str], terms: dict[str, list[str]]) -> list[str]:
        """The gradient of one stage; its results are entered in `terms`: argument or value -> contributions."""
        made, part = [], stage.program
        for x in self._moved(part):
            made.append(f"d_{x}" if self.parts[x] == 1 else f"d_{x}_{stage.name.removesuffix('_core')}")
            terms[x].append(made[-1])
        if stage.walk == "once":
            wide = f"*_wide({', '.join([*self._params(stage), *cotangents])})"
            return self._call(made, "_once_backward", [wide]) if made else []
        given = [*self._taken(part), *self.own[stage.name], *cotangents, *(f"d_{x}" for x in _ends(part))]
        needs = [self.switch[x] for x in self._moved(part)]
        if stage.name in self.kernel:
            return self._call(made, f"_{stage.name}_backward_{self.suffix}", given, shifts=True, needs=needs)
        return self._call(made, f"_{stage.name}_backward", given, _cast(stage), shifts=_shifts(stage), needs=needs)


def _place(part: Program, value: str) -> str:
    """The index that a value is as a number; "" of any other."""
    n = part.outputs[value]
    told = n.op == "as_real" and n.args[0].op == "leaf" and not n.args[0].number("offset")
    return n.args[0].text("name") if told else ""


def _cast(stage: Stage) -> bool:
    """Whether a stage in torch takes its arguments in the dtype of storage: a delay line is not rounded."""
    return stage.walk != "taps" or not stage.program.states


def _shifts(stage: Stage) -> bool:
    """Whether a stage reads inputs of other steps."""
    return stage.walk == "taps" or any(n.number("offset") for n in leaves(stage.program.graph.values(), "input"))


def _total(terms: Mapping[str, Sequence[str]], name: str) -> str:
    return " + ".join(terms[name]) or f"torch.zeros_like({name})"  # of a count there is none
