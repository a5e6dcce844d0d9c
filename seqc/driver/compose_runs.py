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

from seqc.driver.inner import assigned, behind, header, switches
from seqc.emit import Kernels, safe_name
from seqc.emit.expressions import Names
from seqc.emit.names import emitted_name
from seqc.emit.text import docstring, group, lay, returned
from seqc.ir.arguments import Argument, argument_table
from seqc.ir.both_ways import one_run, twin
from seqc.ir.plan import Stage
from seqc.ir.program import Program

RUNS = (False, True)  # from the first step on, and from the last step back


def compose_runs(stage: Stage, kernels: Kernels, suffix: str) -> Kernels:
    """The kernels of the stage's program, from those of one run."""
    return _Runs(stage.program, kernels, suffix).kernels()


class _Runs:
    """Writes the functions of one part of the file."""

    def __init__(self, program: Program, kernels: Kernels, suffix: str) -> None:
        self.one, self.run, self.suffix, self.why = one_run(program), kernels, suffix, program.no_step
        one = self.one
        table = argument_table(one)
        self.inputs = [safe_name(x) for x in one.inputs]
        self.shared = program.shared
        self.moved = [safe_name(a.of) for a in table if a.kind == "input" and a.gradient]
        named = [[self._named(a, back) for a in table] for back in RUNS]
        self.given = [[x for x, a in zip(run, table, strict=True) if a.kind != "input"] for run in named]
        self.slopes = [[x for x, a in zip(run, table, strict=True) if a.kind != "input" and a.gradient] for run in named]
        self.states = [[safe_name(twin(x) if back else x) for x in one.states] for back in RUNS]
        self.arguments = [emitted_name(a) for a in argument_table(program)]
        self.own = [emitted_name(a) for a in argument_table(program) if a.gradient and a.kind != "input"]
        self.ends = [f"{x}_T" for run in self.states for x in run]
        taken = [*self.arguments, *self.ends]
        names = Names((*taken, *(f"d_{x}" for x in taken), "part", "cu_seqlens", "reverse"))
        self.outputs = [[names.fresh(twin(x) if back else x) for x in one.outputs] for back in RUNS]
        self.common = self.moved + [emitted_name(a) for a in table if self.shared and a.kind == "param" and a.gradient]
        self.again = {x: names.fresh(f"d_{twin(x)}") for x in self.common}
        self.saved = [[names.fresh(twin(x.name) if back else x.name) for x in kernels.saved] for back in RUNS]
        self.needs = [names.fresh(f"need_{x}") for x in (*self.moved, *self.own)]
        self.joins = ["sum" if program.added else "cat" if d.dims else "stack" for d in one.output_decls.values()]
        self.turned = "{}" if kernels.packs else "{}.flip(1)"  # what has a time axis, on its way in and out of the run back

    def _named(self, a: Argument, back: bool) -> str:
        """The emitted name of an argument in one of the runs."""
        return emitted_name(replace(a, of=twin(a.of)) if back and not (self.shared and a.kind == "param") else a)

    def kernels(self) -> Kernels:
        """All functions of the part, and what they save."""
        step = re.compile(rf"def \w*_step_{self.suffix}\(")
        single = "\n\n\n".join(part for part in self.run.text.strip().split("\n\n\n") if not step.match(part))
        text = behind(replace(self.run, text=single), self.suffix, "one_run")
        made = [text, self._forward("forward"), *([self._forward("infer")] if self.run.infer else [])]
        made += [self._step(), self._backward()]
        if self.suffix == "cpu":
            made.append(self._ready())
        kept = [*zip(self.saved[0], self.run.saved, strict=True), *zip(self.saved[1], self.run.saved, strict=True)]
        return replace(self.run, text="\n\n\n".join(made) + "\n", saved=tuple(replace(x, name=name) for name, x in kept))

    # ---- lines ----

    def _head(self, name: str, arguments: Sequence[str], doc: str, more: Sequence[str] = ()) -> list[str]:
        return header(f"_{name}_{self.suffix}", arguments, doc, self.run.packs, more)

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
        lines = self._head(name, self.arguments, f"Both runs: results{', and what backward needs' if save else ''}.")
        for back in RUNS:
            results = [*self.outputs[back], *(f"{x}_T" for x in self.states[back]), *(self.saved[back] if save else ())]
            lines += self._call(results, name, self._given(back), back)
        outputs = zip(*self.outputs, self.joins, strict=True)
        joined = [
            f"{x} + {self.turned.format(y)}" if join == "sum" else f"torch.{join}(({x}, {self.turned.format(y)}), -1)"
            for x, y, join in outputs
        ]
        return "\n".join([*lines, returned([*joined, *self.ends, *(x for run in self.saved if save for x in run)], 4)])

    def _backward(self) -> str:
        cotangents = [f"d_{x}" for x in (*self.outputs[0], *self.ends)]
        doc = f"Gradients of both runs; those of the inputs {'and params ' if self.shared else ''}are added."
        asked = [*self.moved, *self.own]
        taken = [*self.arguments, *self.saved[0], *self.saved[1], *cotangents]
        lines = self._head("backward", taken, doc, [f"needs=(True,) * {len(asked)}"])
        needs = dict(zip(asked, self.needs, strict=True))
        lines += switches(self.needs)
        for x, y, join in zip(*self.outputs, self.joins, strict=True):
            parts = f"d_{x}.chunk(2, -1)" if join == "cat" else f"d_{x}.unbind(-1)"
            cut = f"    d_{x}, d_{y} = (part.contiguous() for part in {parts})"
            lines.append(f"    d_{y} = d_{x}" if join == "sum" else cut)
        for back in RUNS:
            weights = [f"d_{x}" for x in self.outputs[back]]
            weights = [self.turned.format(x) for x in weights] if back else weights
            weights += [f"d_{x}_T" for x in self.states[back]]
            made = [self.again.get(x, f"d_{x}") if back else f"d_{x}" for x in (*self.moved, *self.slopes[back])]
            more = f"needs={group([needs[x] for x in (*self.moved, *self.slopes[back])])}"
            lines += self._call(made, "backward", [*self._given(back), *self.saved[back], *weights], back, [more])
        sums = [f"d_{x} + {self.turned.format(self.again[x])} if {needs[x]} else None" for x in self.moved]
        sums += [f"d_{x} + {self.again[x]} if {needs[x]} else None" if x in self.again else f"d_{x}" for x in self.own]
        return "\n".join([*lines, returned(sums, 4)])

    def _step(self) -> str:
        lines = [lay(f"def _step_{self.suffix}(", self.arguments, "):"), docstring(["Refused."], 4)]
        return "\n".join([*lines, f'    raise NotImplementedError("{self.why}")'])

    def _ready(self) -> str:
        lines = [lay("def _ready_cpu(", self.arguments, "):"), docstring(["Whether native code can do both runs."], 4)]
        calls = [lay("_one_run_ready_cpu(", [*self.inputs, *self.given[back]], ")") for back in RUNS]
        return "\n".join([*lines, f"    return {' and '.join(calls)}"])
