"""Kernels of slow states, made of those of the recurrence over their groups of steps.

In: a stage that walks over groups (`seqc.passes.plan.slower`), and the kernels that a backend made of its inner program. Out:
`Kernels` whose functions take what is read at the last step of each group, [B, ceil(T / steps), ..], call those kernels, and
hold what they give until the next group ends. Each sequence of a batch may begin anywhere in a group: gathers tell where, and
no call waits for a number. The functions know whole batches and run forward; `scan backward` turns arrays around on their way
in and out. A step in which no sequence's group ends calls no kernel, on CPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from seqc.analysis.boundaries import counters
from seqc.driver.compose.around import Around, as_long, assigned, refusal
from seqc.emit import Kernels, safe_name
from seqc.emit.names import emitted_name
from seqc.emit.text import returned
from seqc.ir.plan import Stage
from seqc.ir.program import Program

HELPERS = '''
def _group_clock(start, steps, length):
    """How many steps of a group are before each of `length` steps [B, length], and before the one that follows [B]."""
    counts = (start.long()[:, None] + torch.arange(length + 1, device=start.device)) % steps
    counts = counts.to(start.dtype)
    return counts[:, :-1].contiguous(), counts[:, -1].clone()


def _group_at(x, t):
    """[B, T, ..] at steps [B, N], whether they exist or not: outside the first step, or the last one."""
    return x[torch.arange(len(x), device=x.device)[:, None], t.clamp(0, x.shape[1] - 1)]


def _group_kept(x, where):
    """[B, N, ..] where [B, N] holds, else 0."""
    return torch.where(where.view(*where.shape, *[1] * (x.dim() - 2)), x, torch.zeros_like(x[:1, :1]))


def _group_ends(first, steps, length):
    """The last step of each group [B, N]; first: how many steps of the first group are before the first step [B]."""
    groups = torch.arange(-(-length // steps), device=first.device)
    return steps - 1 - first[:, None] + steps * groups


def _group_rows(x, first, steps, back):
    """[B, T, ..] as [B, N, ..]: x so many steps before the end of each group, 0 before the sequence and after it."""
    t = _group_ends(first, steps, x.shape[1]).clamp(max=x.shape[1] - 1) - back
    return _group_kept(_group_at(x, t), (t >= 0) & (t < x.shape[1])) if back else _group_at(x, t)


def _group_rows_back(d, first, steps, back, length):
    """The gradient of `_group_rows`: [B, N, ..] as [B, T, ..]."""
    ends = torch.arange(length, device=d.device) + back
    slot = first[:, None] + 1 + ends
    here = (slot % steps == 0) & (slot >= steps) & (ends < length) & (ends >= 0)
    return _group_kept(_group_at(d, slot.div(steps, rounding_mode="floor") - 1), here)


def _group_whole(like, first, steps):
    """[B, N]: 1 for each group that ends in the sequence."""
    return (_group_ends(first, steps, like.shape[1]) < like.shape[1]).to(like.dtype)


def _group_held(start, rows, first, steps, before, length):
    """[B, ..] and the values after each group [B, N, ..] as [B, T, ..]: at each step the last one, or that before the step."""
    slot = first[:, None] + torch.arange(length, device=rows.device) + (0 if before else 1)
    return _group_at(torch.cat([start[:, None].to(rows.dtype), rows], 1), slot // steps)


def _group_held_back(d, first, steps, before):
    """The gradient of `_group_held`: [B, T, ..] as [B, 1 + N, ..], the sums over the steps that have a value."""
    many, length = 1 - (-d.shape[1] // steps), d.shape[1]
    t = torch.arange(many * steps, device=d.device) - first[:, None] - (0 if before else 1)
    d = _group_kept(_group_at(d, t), (t >= 0) & (t < length))
    return d.view(len(d), many, steps, *d.shape[2:]).sum(2)


def _group_none_due(count, steps):
    """Whether a step is the last one of no sequence's group; not asked where that would wait for a GPU, or is traced."""
    if count.device.type != "cpu" or torch.compiler.is_compiling() or type(count) is not torch.Tensor:
        return False
    return not bool((count + 1 >= steps).any())
'''


def clock_lines(program: Program, called: Mapping[str, str], main: str) -> list[str]:
    """The lines of a stage `clocks`. called: the names of values; main: an array with steps, or "" for one step."""
    lines = []
    for name, steps in counters(program).items():
        start, end = f"{safe_name(name)}_0", f"{safe_name(name)}_T"
        made = next((called[x] for x, n in program.outputs.items() if n is program.states[name].leaf()), "_")
        turned = ".flip(1)" if program.direction == "backward" else ""
        if main:
            lines.append(f"    {made}, {end} = _group_clock({start}, {steps}, {main}.shape[1])")
            lines += [f"    {made} = {made}{turned}"] if turned and made != "_" else []
        else:
            lines += [f"    {made} = {start}"] if made != "_" else []
            lines.append(f"    {end} = ({start} + 1) % {steps}")
    return lines


class Slow(Around):
    """The functions of a stage that walks over groups."""

    called = "slow"

    def __init__(self, stage: Stage, kernels: Kernels, suffix: str) -> None:
        super().__init__(stage, kernels, suffix)
        assert stage.groups is not None
        self.groups, self.steps = stage.groups, stage.groups.steps
        self.count = safe_name(self.groups.count)
        self.within = ["cu_seqlens=None", "reverse=False"] if kernels.packs else []
        self.rows = {name: f"g_{safe_name(out)}" for name, out in self.groups.made.items()}

    def kernels(self) -> Kernels:
        """All functions of the part, and what they save."""
        runtime = tuple(dict.fromkeys([HELPERS.strip(), *self.run.runtime]))
        saved = as_long(self.run.saved, f"(-(-T // {self.steps}))")
        return replace(super().kernels(), saved=saved, packs=False, writes=False, direct=False, runtime=runtime)

    # ---- pieces ----

    def _first(self) -> str:
        return f"    first, length = {self._turned(self.count)}[:, 0].long(), {self.count}.shape[1]"

    def _turned(self, text: str) -> str:
        """An array with steps in the order of the scan, or back from it."""
        return f"{text}.flip(1)" if self.program.direction == "backward" else text

    def _taken(self, given: Mapping[str, str]) -> list[str]:
        """What the inner functions take. given: their inputs."""
        return [given[a.of] if a.kind == "input" else emitted_name(a) for a in self.own]

    def _given(self) -> list[str]:
        """What the functions over groups take."""
        given = {self.groups.whole: f"_group_whole({self.count}, first, {self.steps}).contiguous()"}
        for name, (source, back) in self.groups.picked.items():
            given[name] = f"_group_rows({self._turned(safe_name(source))}, first, {self.steps}, {back}).contiguous()"
        return self._taken(given)

    def _results(self) -> list[str]:
        """The stage's, of those over groups."""
        found = []
        for name in self.program.outputs:
            state, before = self.groups.held[name]
            held = f"_group_held({safe_name(state)}_0, {self.rows[state]}, first, {self.steps}, {before}, length)"
            found.append(self._turned(held))
        return [*found, *self.ends]

    # ---- functions ----

    def _forward(self, name: str) -> str:
        save = name == "forward"
        doc = f"Over groups of {self.steps} steps{', and what backward needs' if save else ''}."
        lines = [*self._head(name, doc), self._first()]
        saved = self.saved if save else []
        results = [*self.rows.values(), *self.ends, *saved]
        lines += assigned(results, f"_slow_{name}_{self.suffix}", [*self._given(), *self.within])
        return "\n".join([*lines, returned([*self._results(), *saved], 4)])

    def _backward(self) -> str:
        doc = "Gradients, over groups; those of inputs and states all."
        lines = [*self._head_of_backward(doc, self.saved), self._first()]
        weights = []
        for state, rows in self.rows.items():
            terms = [
                f"_group_held_back({self._turned(f'd_{safe_name(name)}')}, first, {self.steps}, {before})"
                for name, (of, before) in self.groups.held.items() if of == state
            ]
            end = f"{safe_name(state)}_T"
            zero = f"d_{end}.new_zeros((len(d_{end}), 1 - (-length // {self.steps}), *d_{end}.shape[1:]))"
            lines.append(f"    d_{rows} = {' + '.join(terms) or zero}")
            weights.append(f"d_{rows}[:, 1:].contiguous()")
        given = [*self._given(), *self.saved, *weights, *(f"d_{x}" for x in self.ends), *self.within]
        made = [f"d_g_{safe_name(a.name)}" for a in self.own if a.gradient]
        lines += assigned(made, f"_slow_backward_{self.suffix}", [*given, self._asked()])
        return "\n".join([*lines, returned([self._slope(a.of, a.kind) for a in self.moved], 4)])

    def _slope(self, name: str, kind: str) -> str:
        """The gradient of an argument."""
        if kind == "state":
            return f"d_g_{safe_name(name)}_0 + d_{self.rows[name]}[:, 0]"
        own = {a.of for a in self.own if a.kind == "param"}
        if kind == "param":
            return f"d_g_{safe_name(name)}" if name in own else f"torch.zeros_like({safe_name(name)})"
        terms = [
            f"_group_rows_back(d_g_{safe_name(x)}, first, {self.steps}, {back}, length)"
            for x, (source, back) in self.groups.picked.items() if source == name
        ]
        return self._turned(f"({' + '.join(terms)})") if terms else f"torch.zeros_like({safe_name(name)})"

    def _step(self) -> str:
        lines = self._head("step", "One step: the last one of a group, or nothing changes.")
        if self.program.no_step:
            return "\n".join([*lines, refusal(self.program)])
        old = {s: f"{safe_name(s)}_0" for s in self.program.states}
        outputs = [self.groups.held[name] for name in self.program.outputs]
        same = [f"{old[s]}.clone()" for s in (*(s for s, _ in outputs), *old)]
        lines += [f"    if _group_none_due({self.count}, {self.steps}):", f"    {returned(same, 4)}"]
        given = {self.groups.whole: f"({self.count} + 1 >= {self.steps}).to({self.count}.dtype)"}
        given |= {name: safe_name(source) for name, (source, _) in self.groups.picked.items()}
        lines += assigned([*self.rows.values(), *self.ends], f"_slow_step_{self.suffix}", self._taken(given))
        new = [f"{old[s]}.clone()" if before else f"{self.rows[s]}.clone()" for s, before in outputs]
        return "\n".join([*lines, returned([*new, *self.ends], 4)])

    def _shapes(self) -> list[str]:
        picked = {name: safe_name(source) for name, (source, _) in self.groups.picked.items()}
        return self._taken({self.groups.whole: self.count, **picked})
