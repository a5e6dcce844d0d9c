"""The gradient of stages that follow one another: the stages of forward, the last one first.

In: the stages, and what was made of them. Out: the text of `_backward_SUFFIX`. A stage's gradient runs where that of an
argument is asked for that it reads, or one behind a value that it reads. A stage that makes no output (`lone`) saves
nothing. Where the last value of a state of one has a cotangent, all of these run forward again, and then back; where none
has, none runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seqc.driver.compose.around import switches
from seqc.driver.compose.stages import Stages, ends_of, shifts, stored
from seqc.emit.names import emitted_name
from seqc.emit.text import lay, returned
from seqc.ir.plan import Stage


class Gradients(Stages):
    """Writes the function; see the file's docstring."""

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
        lines += self._again()
        for stage in reversed(self.stages):
            cotangents = [self._total(terms, self.called[x]) for x in stage.program.outputs]
            if stage.name in self.kernel:
                cotangents = [f"({x}).contiguous()" if " " in x else f"{x}.contiguous()" for x in cotangents]
            if stage.walk not in ("ones", "clocks"):
                lines += self._part(stage, cotangents, terms)
        answers = [f"{self._total(terms, x)} if {self.switch[x]} else None" for x in moved]
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
        moved, mark = self._moved(stage.program), stage.name.removesuffix("_core")
        made = [f"d_{x}" if self.parts[x] == 1 else f"d_{x}_{mark}" for x in moved]
        for x, d in zip(moved, made, strict=True):
            terms[x].append(d)
        lines = self._gradient(stage, cotangents, made)
        asked = [self.asked[stage.name]] * (self.asked[stage.name] != "True")
        if stage.name not in self.lone or not made:
            return [f"    if {asked[0]}:", *(f"    {line}" for line in lines)] if asked and lines else lines
        self.absent |= {*made}
        head = [f"    {' = '.join([*made, 'None'])}", f"    if {' and '.join([*asked, self.wanted])}:"]
        return [*head, *(f"    {line}" for line in lines)]

    def _again(self) -> list[str]:
        """The lines that run lone stages forward where one of their states has a cotangent: they have saved nothing."""
        ends, rounded = [f"{x}_T" for x in self.run.optional], set[str]()
        if not ends:
            return []
        self.wanted = self.names.fresh("need_ends")
        lines = [f"    {self.wanted} = {' or '.join(f'd_{x} is not None' for x in ends)}", f"    if {self.wanted}:"]
        for x in ends:
            lines.append(f"        d_{x} = torch.zeros_like({x.removesuffix('_T')}_0) if d_{x} is None else d_{x}")
        again = [line for stage in self.stages if stage.name in self.lone for line in self._run(stage, True, rounded)]
        return [*lines, *(f"    {line}" for line in again)]

    def _total(self, terms: Mapping[str, Sequence[str]], name: str) -> str:
        """The sum of the contributions to a gradient; those of lone stages may not be there."""
        if self.absent & {*terms[name]}:
            return f"_plus({', '.join([name, *terms[name]])})"
        return " + ".join(terms[name]) or f"torch.zeros_like({name})"  # of a count there is none

    def _gradient(self, stage: Stage, cotangents: Sequence[str], made: Sequence[str]) -> list[str]:
        """The gradient of one stage. made: the names of its results."""
        part = stage.program
        if stage.walk == "once":
            wide = f"*_wide({', '.join([*self._params(stage), *cotangents])})"
            return self._call(made, "_once_backward", [wide]) if made else []
        given = [*self._taken(part), *self.own[stage.name], *cotangents, *(f"d_{x}" for x in ends_of(part))]
        needs = [self.switch[x] for x in self._moved(part)]
        if stage.name in self.kernel:
            return self._call(made, f"_{stage.name}_backward_{self.suffix}", given, shifts=True, needs=needs)
        return self._call(made, f"_{stage.name}_backward", given, stored(stage), shifts=shifts(stage), needs=needs)
