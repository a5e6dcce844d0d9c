"""plan -> the functions of one part of a file: `Kernels` of the whole program, from those of its recurrences.

In: a plan, the kernels that a backend made of each recurrence, and what stages in plain torch save. Out: `Kernels`. A stage
that walks around an inner plan is written by `both_runs`, `rows`, `diagonals`, `groups` or `newton`; here
stages follow one another. `_NAME` and `_NAME_backward` of stages that torch serves stand in the plain torch part of the
file, once for all backends; `_once` and `_once_backward` likewise. Forward saves what stages hand to one another, so that
no product runs twice; values of parameters alone are computed again, which costs as much as they did, once a call, in fp32
at least whatever the params are stored in. In Triton's part torch's stages run in the dtype of storage, as torch's linear
layers do: sums in fp32, results rounded; what a recurrence hands to another is not rounded. Packs and `reverse` concern
recurrences, and stages that read inputs of other steps; stages in torch that carry a state or take a parameter that belongs
to a sequence know whole batches only.
"""

from __future__ import annotations

from dataclasses import replace

from seqc.driver.compose.around import Around, behind, extent_of, header, refusal, together
from seqc.driver.compose.both_runs import Runs
from seqc.driver.compose.diagonals import Waves
from seqc.driver.compose.gradients import Gradients
from seqc.driver.compose.groups import Slow
from seqc.driver.compose.newton import NewtonWalk
from seqc.driver.compose.rows import Events
from seqc.driver.compose.stages import Made, ends_of, stored
from seqc.emit import Kernels
from seqc.emit.beside import renamed
from seqc.emit.ends import PLUS
from seqc.emit.text import group, lay, returned
from seqc.ir.arguments import argument_table
from seqc.ir.plan import Plan, Stage

OWN = '''
def _own(cu_seqlens, *tensors):
    """Tensors with zeros at the steps that are behind the last sequence of a pack: products over all steps take them too."""
    if cu_seqlens is None:
        return tensors
    steps = torch.arange(tensors[0].shape[1], device=tensors[0].device) < cu_seqlens[-1]
    return [torch.where(steps.view(1, -1, *[1] * (x.dim() - 2)), x, {zero}) for x in tensors]
'''

STORED = '''
def _stored(io, *tensors):
    """Tensors in the dtype of storage."""
    return [{leaving}x.to(io) for x in tensors]
'''

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


AROUND: dict[str, type[Around]] = {"both": Runs, "diagonals": Waves, "groups": Slow, "rows": Events, "newton": NewtonWalk}


def compose(plan: Plan, made: Made) -> Kernels:
    """The kernels of the plan's program."""
    first = plan.stages[0]
    if first.inner is not None and len(plan.stages) == 1:
        return _around(first, first.inner, made)
    if len(plan.stages) == 1 and first.name in made.kernels:
        return made.kernels[first.name]
    return _Chain(plan, made, {s.name: _around(s, s.inner, made) for s in plan.stages if s.inner}).kernels()


def _around(stage: Stage, inner: Plan, made: Made) -> Kernels:
    return AROUND[stage.walk](stage, compose(inner, made), made.suffix).kernels()


class _Chain(Gradients):
    """Writes the functions of stages that follow one another."""

    def kernels(self) -> Kernels:
        """All functions of the part, and what they save."""
        runtime = [*self._common(), *(x for k in self._every().values() for x in k.runtime)]
        return replace(super().kernels(), saved=tuple(self._saved()), runtime=tuple(dict.fromkeys(runtime)))

    def _functions(self) -> list[str]:
        made = [self._inner_text(), self._forward("forward"), *([self._forward("infer")] if self.run.infer else [])]
        made += [*([] if self.whole else [self._step()]), self._backward(), *([self._step("write")] if self.run.writes else [])]
        made += [self._ready()] if self.suffix == "cpu" else []
        return [*made, self._room()] if len(self.kernel) > 1 and self.run.limited else made

    def _inner_text(self) -> str:
        several = len(self.kernel) > 1
        texts = [behind(kernels, self.suffix, name, several) for name, kernels in self.kernel.items()]
        if self.whole:  # its `_step` is that of the part
            apart = {f"_{x}_{self.suffix}": f"_whole_{x}_{self.suffix}" for x in ("ready", "infer")}
            texts.append(renamed(self.whole.text, apart).strip())
        return together(texts, [*self._every()]) if texts else ""

    def _every(self) -> dict[str, Kernels]:
        """All kernels that stand in the part."""
        return self.kernel | ({"whole": self.whole} if self.whole else {})

    def _common(self) -> list[str]:
        """The helpers of the functions."""
        common = [SHAPED] if self.suffix == "cpu" else []
        if self.stored:
            places = any(a.whole for a in self.table)  # an index stays as it is
            common.append(STORED.format(leaving="x if x.dtype == torch.int64 else " if places else ""))
            common += [OWN.format(zero="0 if x.dtype == torch.int64 else 0.0" if places else "0.0")] * self.run.packs
        return [text.strip() for text in (*common, *([WIDE] if self.once else []), *([PLUS] if self.lone else []))]

    def _forward(self, name: str) -> str:
        save = name == "forward"
        doc = "Results, and what backward needs." if save else "Results only."
        what = "Products over all steps, and the recurrence between them." if self.torch else "One stage after the other."
        lines = [*self._head(name, f"{doc} {what}", self.run.packs), *self._io()]
        lines += self._cleared([self.called[x] for x in self.program.inputs])
        saved, rounded = list[str](), set[str]()
        for stage in self.stages:
            keeps = save and stage.name not in self.lone
            lines += self._run(stage, keeps, rounded)
            if keeps and stage.name in self.own:
                values = self.given[stage.name]
                saved += [f"{self.called[x]}.clone()" if x in self.program.outputs else self.called[x] for x in values]
                saved += self.own[stage.name]
        return "\n".join([*lines, returned([*self.outputs, *self.ends, *saved], 4)])

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
                lines += self._call([*made, *ends_of(part)], f"_{stage.name}_{own}_{self.suffix}", self._taken(part, forms))
            elif stage.name in self.own:
                forms = {x: "{}[:, None]" for x in part.inputs if x not in long}
                results = [*made, *ends_of(part), *["_"] * len(self.own[stage.name])]
                lines += self._call(results, f"_{stage.name}", self._taken(part, forms), stored(stage))
                lines += self._exact(part, "{}[:, None]")
                long |= set(part.outputs)
            else:
                lines += self._fixed(stage, True)
        outputs = [f"{self.called[x]}[:, 0]" if x in long else self.called[x] for x in self.program.outputs]
        return "\n".join([*lines, returned([*outputs, *self.ends], 4)])

    def _ready(self) -> str:
        """The question whether the cores can run, of tensors that are there and shapes of those that are not."""
        lines = header("_ready_cpu", [*self.arguments, "_kernels"], "Whether these native kernels can run on these arguments.")
        if self.whole:
            ready = lay("return _whole_ready_cpu(", [*self.arguments, "_kernels"], ")", 8)
            lines += ['    if "step" in _kernels:', ready]
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
        calls = [lay(f"_{x}_ready_triton(", ["x", *k.limited, "alone"], ")") for x, k in self._every().items() if k.limited]
        return "\n".join([*lines, f"    return {' and '.join(calls)}"])
