"""The stages of a plan that follow one another: names of their values, and lines that call what was made of them.

In: a plan, what backends made of it. Out: names, lines of text. `chain` writes the functions of forward and of a step with
these, `gradients` those of backward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from seqc.driver.compose.around import Composition, assigned
from seqc.driver.compose.groups import clock_lines
from seqc.driver.signature_of import gate_inputs
from seqc.emit import Kernels, Saved, safe_name
from seqc.emit.expressions import Names
from seqc.emit.names import dim_name, emitted_name
from seqc.emit.signature import Dtype
from seqc.emit.text import group, lay, unpack
from seqc.ir.arguments import Argument, argument_table
from seqc.ir.graph import leaves
from seqc.ir.plan import Plan, Stage
from seqc.ir.program import HANDED, Program, TensorDecl


@dataclass(frozen=True)
class Made:
    """What backends made of a plan. kernels: of the recurrences that the part's own backend serves, by stage; saved: what the
    functions in plain torch of the other stages save; whole: of a recurrence that is all of the plan, for single steps."""

    kernels: Mapping[str, Kernels]
    saved: Mapping[str, Sequence[Saved]]
    suffix: str
    whole: Kernels | None = None


class Stages(Composition):
    """Stages that follow one another; names of values are those of the programs, and no two alike. around: the kernels of the
    stages that walk around an inner plan."""

    def __init__(self, plan: Plan, made: Made, around: Mapping[str, Kernels]) -> None:
        self.kernel = {stage.name: made.kernels[stage.name] for stage in plan.stages if stage.name in made.kernels}
        self.kernel |= around
        self.cores = [stage for stage in plan.stages if stage.name in self.kernel]
        self.torch = [s for s in plan.stages if s.walk in ("all", "taps", "steps") and s.name not in self.kernel]
        alone = [s for s in self.torch if s.walk != "taps"]
        whole = any(s.program.states or any(d.per_batch for d in s.program.params.values()) for s in alone)
        self.whole, self.lone = made.whole, lone(plan)
        kernels = [*self.kernel.values()]
        every = [*kernels, *([made.whole] if made.whole else [])]
        first = kernels[0] if kernels else Kernels("")  # none where torch serves all, inside of a stage beside others
        super().__init__(plan.program, replace(
            first, direct=made.whole is not None and made.whole.direct, packs=all(k.packs for k in kernels) and not whole,
            infer=any(k.infer for k in kernels),
            writes=any(k.writes for k in kernels), float64=all(k.float64 for k in kernels),
            limited=tuple(dict.fromkeys(d for k in every for d in k.limited)),
            optional=tuple(safe_name(x) for s in plan.stages if s.name in self.lone for x in s.program.states),
            libraries=tuple(x for k in every for x in k.libraries),
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
        self.places = {x: self.called[place] for x, part in torch.items() if (place := place_of(part, x))}
        self.names, self.switch = names, {x: names.fresh(f"need_{x}") for x in map(emitted_name, self.moved)}
        self.behind, self.asked, self.absent, self.wanted = dict[str, set[str]](), dict[str, str](), set[str](), ""
        self.parts = Counter(x for stage in plan.stages for x in self._moved(stage.program))  # stages that give its gradient
        self.parts.update(self.called[x] for stage in plan.stages for x in stage.program.outputs if x in plan.program.outputs)

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
                given, wanted = part.inputs[place_of(part, x)].dims, part.output_decls[x].dims
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

    def _run(self, stage: Stage, keeps: bool, rounded: set[str]) -> list[str]:
        """The lines that run a stage forward. keeps: whether what its gradient needs is kept; rounded: values in the dtype of
        storage, where new ones are entered."""
        part, made = stage.program, [self.called[x] for x in stage.program.outputs]
        if stage.name in self.kernel:
            own = self.own[stage.name] if keeps else []
            infer = self.kernel[stage.name].infer
            results, name = [*made, *ends_of(part), *own], "infer" if infer and not keeps else "forward"
            lines = self._call(results, f"_{stage.name}_{name}_{self.suffix}", [*self._taken(part), *self.keywords])
            lines[-1] += "" if keeps or infer else f"[:{len(results)}]"  # without what its only forward saves
            return lines
        if stage.name not in self.own:
            return self._fixed(stage)
        fresh = [x for x in part.inputs if self.stored and x not in rounded and self._rounds(x)]
        lines = [f"    {self.called[x]} = {self.called[x]}.to(io)" for x in fresh]
        rounded |= {*fresh, *part.outputs}
        own = self.own[stage.name]
        function, results = f"_{stage.name}", [*made, *ends_of(part), *own]
        lines += self._call(results, function, self._taken(part), stored(stage), shifts(stage))
        read = [self.called[x] for x in self.given[stage.name]]
        lines += [f"    {unpack(read)} = (x.contiguous() for x in {group(read)})"] if read else []
        lines += self._exact(part, "{}")
        return lines + self._cleared([self.called[x] for x in part.outputs if x in self.program.outputs])

    def _rounds(self, x: str) -> bool:
        """Whether a value of a recurrence is kept in the dtype of storage."""
        return x in self.decls and self.decls[x].role != HANDED and any(x in stage.program.outputs for stage in self.cores)

    def _saved(self) -> Iterable[Saved]:
        for stage in (s for s in self.stages if s.name in self.own and s.name not in self.lone):
            for x in self.given[stage.name]:
                dims = ("T", *map(dim_name, self.decls[x].dims))
                exact = not self.stored or self.decls[x].role == HANDED or x in self.places
                dtype: Dtype = "carry" if exact else "io"
                yield Saved(self.called[x], ("B", *dims), dtype, ("1", *dims))
            for name, kept in zip(self.own[stage.name], self.kept[stage.name], strict=True):
                stored = self.stored and stage.name not in self.kernel
                yield replace(kept, name=name, dtype="io" if stored else kept.dtype)


def ends_of(program: Program) -> list[str]:
    return [f"{safe_name(s)}_T" for s in program.states]


def place_of(part: Program, value: str) -> str:
    """The index that a value is as a number; "" of any other."""
    n = part.outputs[value]
    told = n.op == "as_real" and n.args[0].op == "leaf" and not n.args[0].number("offset")
    return n.args[0].text("name") if told else ""


def stored(stage: Stage) -> bool:
    """Whether a stage in torch takes its arguments in the dtype of storage: a delay line is not rounded."""
    return stage.walk != "taps" or not stage.program.states


def shifts(stage: Stage) -> bool:
    """Whether a stage reads inputs of other steps."""
    return stage.walk == "taps" or any(n.number("offset") for n in leaves(stage.program.graph.values(), "input"))


def lone(plan: Plan) -> frozenset[str]:
    """The stages that make no output: what they write is read among themselves alone, or is the last value of a state."""
    found: set[str] = set()
    for stage in reversed(plan.stages if plan.program.outputs else ()):
        made = set(stage.program.outputs)
        readers = {one.name for one in plan.stages if made & {*one.reads}}
        if stage.walk not in ("once", "ones", "clocks") and not made & {*plan.program.outputs} and readers <= found:
            found.add(stage.name)
    return frozenset(found)
