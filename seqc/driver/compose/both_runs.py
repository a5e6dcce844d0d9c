"""Kernels of both runs of `scan both`, made of those of one.

In: the program of both runs, and the kernels that a backend made of one. Out: `Kernels` whose functions call those twice:
once as they are, once with the arrays of the other run and in the other direction. Outputs are put side by side in their
last dim and cotangents are cut there, or outputs are added; gradients of inputs and shared params are added.
There is no step: the second run begins at the last one.
Functions that know whole batches and one direction only get arrays whose steps are turned around.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from seqc.driver.compose.around import Around, assigned, header, refusal, switches
from seqc.emit import Kernels, safe_name
from seqc.emit.expressions import Names
from seqc.emit.names import emitted_name
from seqc.emit.text import group, lay, returned
from seqc.ir.arguments import Argument
from seqc.ir.both_ways import twin
from seqc.ir.plan import Stage

RUNS = (False, True)  # from the first step on, and from the last step back


class Runs(Around):
    """The functions of a stage that is its inner plan from both ends."""

    called = "one_run"

    def __init__(self, stage: Stage, kernels: Kernels, suffix: str) -> None:
        super().__init__(stage, kernels, suffix)
        self.ended = kernels.optional
        one, table = self.inner, self.own
        self.shared = self.program.shared
        self.read = [safe_name(a.of) for a in table if a.kind == "input" and a.gradient]
        named = [[self._named(a, back) for a in table] for back in RUNS]
        self.given = [[x for x, a in zip(run, table, strict=True) if a.kind != "input"] for run in named]
        self.slopes = [[x for x, a in zip(run, table, strict=True) if a.kind != "input" and a.gradient] for run in named]
        self.states = [[safe_name(twin(x) if back else x) for x in one.states] for back in RUNS]
        self.alone = [emitted_name(a) for a in self.moved if a.kind != "input"]
        self.ends = [f"{x}_T" for run in self.states for x in run]
        taken = [*self.arguments, *self.ends]
        names = Names((*taken, *(f"d_{x}" for x in taken), "part", "cu_seqlens", "reverse"))
        self.halves = [[names.fresh(twin(x) if back else x) for x in one.outputs] for back in RUNS]
        self.common = self.read + [emitted_name(a) for a in table if self.shared and a.kind == "param" and a.gradient]
        self.again = {x: names.fresh(f"d_{twin(x)}") for x in self.common}
        self.kept = [[names.fresh(twin(x.name) if back else x.name) for x in kernels.saved] for back in RUNS]
        self.needs = {x: names.fresh(f"need_{x}") for x in (*self.read, *self.alone)}
        self.joins = ["sum" if self.program.added else "cat" if d.dims else "stack" for d in one.output_decls.values()]
        self.turned = "{}" if kernels.packs else "{}.flip(1)"  # what has a time axis, on its way in and out of the run back

    def _named(self, a: Argument, back: bool) -> str:
        """The emitted name of an argument in one of the runs."""
        return emitted_name(replace(a, of=twin(a.of)) if back and not (self.shared and a.kind == "param") else a)

    def kernels(self) -> Kernels:
        """All functions of the part, and what they save."""
        kept = [(name, x) for run in self.kept for name, x in zip(run, self.run.saved, strict=True)]
        either = [name for run in self.states for name, x in zip(run, self.states[0], strict=True) if x in self.ended]
        return replace(super().kernels(), saved=tuple(replace(x, name=name) for name, x in kept), optional=tuple(either))

    def _inner_text(self) -> str:
        """Without steps: the second run begins at the last one."""
        step = re.compile(rf"def \w*_step_{self.suffix}\(")
        return "\n\n\n".join(part for part in super()._inner_text().split("\n\n\n") if not step.match(part))

    # ---- lines ----

    def _given(self, back: bool) -> list[str]:
        """The arguments of one run."""
        inputs = [self.turned.format(x) for x in self.inputs] if back else self.inputs
        return [*inputs, *self.given[back]]

    def _call(
        self, results: Sequence[str], function: str, arguments: Sequence[str], back: bool, more: Sequence[str] = ()
    ) -> list[str]:
        """`results = function(arguments)`, of one run."""
        keywords = ["cu_seqlens=cu_seqlens", f"reverse={'not ' if back else ''}reverse"] if self.run.packs else []
        keywords += more
        return assigned(results, f"_one_run_{function}_{self.suffix}", [*arguments, *keywords])

    def _forward(self, name: str) -> str:
        save = name == "forward"
        lines = self._head(name, f"Both runs: results{', and what backward needs' if save else ''}.", self.run.packs)
        for back in RUNS:
            results = [*self.halves[back], *(f"{x}_T" for x in self.states[back]), *(self.kept[back] if save else ())]
            lines += self._call(results, name, self._given(back), back)
        outputs = zip(*self.halves, self.joins, strict=True)
        joined = [
            f"{x} + {self.turned.format(y)}" if join == "sum" else f"torch.{join}(({x}, {self.turned.format(y)}), -1)"
            for x, y, join in outputs
        ]
        return "\n".join([*lines, returned([*joined, *self.ends, *(x for run in self.kept if save for x in run)], 4)])

    def _backward(self) -> str:
        doc = f"Gradients of both runs; those of the inputs {'and params ' if self.shared else ''}are added."
        needs = self.needs
        lines = [*self._head_of_backward(doc, [*self.kept[0], *self.kept[1]], self.run.packs), *switches([*needs.values()])]
        for x, y, join in zip(*self.halves, self.joins, strict=True):
            parts = f"d_{x}.chunk(2, -1)" if join == "cat" else f"d_{x}.unbind(-1)"
            cut = f"    d_{x}, d_{y} = (part.contiguous() for part in {parts})"
            lines.append(f"    d_{y} = d_{x}" if join == "sum" else cut)
        for back in RUNS:
            weights = [f"d_{x}" for x in self.halves[back]]
            weights = [self.turned.format(x) for x in weights] if back else weights
            weights += [f"d_{x}_T" for x in self.states[back]]
            made = [self.again.get(x, f"d_{x}") if back else f"d_{x}" for x in (*self.read, *self.slopes[back])]
            more = f"needs={group([needs[x] for x in (*self.read, *self.slopes[back])])}"
            lines += self._call(made, "backward", [*self._given(back), *self.kept[back], *weights], back, [more])
        sums = [f"d_{x} + {self.turned.format(self.again[x])} if {needs[x]} else None" for x in self.read]
        sums += [f"d_{x} + {self.again[x]} if {needs[x]} else None" if x in self.again else f"d_{x}" for x in self.alone]
        return "\n".join([*lines, returned(sums, 4)])

    def _step(self) -> str:
        return "\n".join([*self._head("step", "Refused."), refusal(self.program)])

    def _ready(self) -> str:
        lines = header("_ready_cpu", [*self.arguments, "_kernels"], "Whether these native kernels can do both runs.")
        calls = [lay("_one_run_ready_cpu(", [*self.inputs, *self.given[back], "_kernels"], ")") for back in RUNS]
        return "\n".join([*lines, f"    return {' and '.join(calls)}"])
