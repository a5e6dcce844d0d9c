"""Kernels of a recurrence over two axes, made of those over its diagonals.

In: the program of the caller, that over diagonals (`seqc.ir.two_axes`), and the kernels that a backend made of the
second. Out: `Kernels` whose functions bring arrays [B, T, U, dims] onto diagonals, [B, T + U - 1, U, dims], call those
kernels, and bring results and gradients back. Outside of the plane a diagonal holds the nearest row of its column, so
that what is computed there is as finite as inside; the program over diagonals keeps nothing of it. Cotangents are zero
there. The functions know whole batches and run forward; `scan backward` of either axis turns arrays around on their way
in and out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from seqc.driver.compose.around import Around, as_long, assigned, header
from seqc.emit import Kernels, safe_name
from seqc.emit.names import dim_name
from seqc.emit.text import lay, returned, unpack
from seqc.ir.plan import Stage
from seqc.ir.two_axes import Edges, edges, inside, reads


class Waves(Around):
    """The functions of a stage that walks over diagonals."""

    called = "wave"

    def __init__(self, stage: Stage, kernels: Kernels, suffix: str) -> None:
        super().__init__(stage, kernels, suffix)
        program = self.program
        assert program.plane is not None
        self.plane = program.plane
        self.edges = {edge.state: edge for edge in edges(program)}
        self.after = {edge.end for edge in self.edges.values()}
        self.corners: dict[str, Edges] = {edge.corner: edge for edge in self.edges.values() if edge.crosses}
        given = [d for name, d in program.inputs.items() if name not in {edge.start for edge in self.edges.values()}]
        whole = next((d for d in given if not d.places), given[0])  # its dtype is that of places: an index has none of theirs
        self.main, self.width = safe_name(whole.name), -len(whole.dims)  # and where U stands
        self.size = f"    steps, width = {self.main}.shape[1:3]"

    def kernels(self) -> Kernels:
        """All functions of the part, and what they save."""
        saved = as_long(self.run.saved, f"(T + {dim_name(self.plane.dim)} - 1)")
        return replace(super().kernels(), saved=saved, packs=False, writes=False)

    def _inner_text(self) -> str:
        more = [_HELP.strip(), self._onto()] if self.suffix == "torch" else []
        return "\n\n\n".join([super()._inner_text(), *more])

    # ---- pieces ----

    def _turned(self, name: str, text: str) -> str:
        """An array with steps, or its gradient, in the order of the scan; or back from it. name: of an input or an output."""
        decl = self.program.inputs.get(name) or self.program.output_decls[name]
        turns = ["1"] if self.program.direction == "backward" else []
        turns += ["2"] if self.plane.backward and self.plane.dim in decl.dims else []
        return f"{text}.flip({', '.join(turns)})" if turns else text

    def _turned_state(self, text: str) -> str:
        """The same of what stands before the first step, or after the last."""
        return f"{text}.flip(1)" if self.plane.backward else text

    def _call(self, results: Sequence[str], function: str, arguments: Sequence[str], more: Sequence[str] = ()) -> list[str]:
        packs = ["cu_seqlens=None, reverse=False"] if self.run.packs else []
        return assigned(results, f"_wave_{function}_{self.suffix}", [*arguments, *packs, *more])

    def _made(self) -> list[str]:
        """What the functions over diagonals give, in local names."""
        wave = self.inner
        return [*(f"w_{safe_name(x)}" for x in wave.outputs), *(f"w_{safe_name(x)}_T" for x in wave.states)]

    # ---- functions ----

    def _onto(self) -> str:
        lines = header("_onto_waves", self.arguments, "Arguments of the recurrence over diagonals, in the scan's order.")
        lines.append(f"    width = {self.main}.shape[2]")
        made = {
            read.name: f"_diagonals({_moved(self._turned(read.source, safe_name(read.source)), read.back, read.beside)})"
            for read in reads(self.program)
        }
        for edge in self.edges.values():
            start = self._turned(edge.start, safe_name(edge.start))
            made[edge.start] = f"_edge({start}, width)"
            if edge.crosses:
                made[edge.crossed] = f"_edge(_one_later({start}, {safe_name(edge.corner)}_0), width)"
        made[inside(self.program)] = f"_in_plane({self.main})"
        held = {edge.held: edge.state for edge in self.edges.values()}
        starts = [held.get(x, x) for x in self.inner.states]
        states = [self._turned_state(f"{safe_name(x)}_0") for x in starts]
        return "\n".join([*lines, returned([*(made[x] for x in self.inner.inputs), *self.params, *states], 4)])

    def _results(self, steps: str = "steps") -> list[str]:
        """The results of the caller, from those over diagonals."""
        found = []
        for x in self.program.outputs:
            own = f"w_{safe_name(x)}"
            cut = f"{own}[:, width - 1 :]" if x in self.after else f"_rows({own}, {steps})"
            found.append(self._turned(x, cut))
        for x in self.program.states:
            if x in self.corners:
                start = self.corners[x].start
                found.append(f"{self._turned(start, safe_name(start))}[:, -1].clone()")
            else:
                found.append(self._turned_state(f"w_{safe_name(x)}_T"))
        return found

    def _forward(self, name: str) -> str:
        save = name == "forward"
        doc = f"The recurrence over diagonals: results{', and what backward needs' if save else ''}."
        lines = [*self._head(name, doc), self.size]
        saved = self.saved if save else []
        lines += self._call([*self._made(), *saved], name, [f"*_onto_waves({', '.join(self.arguments)})"])
        return "\n".join([*lines, returned([*self._results(), *saved], 4)])

    def _backward(self) -> str:
        doc = "Gradients, over diagonals; those of inputs and states all."
        lines = [*self._head_of_backward(doc, self.saved), self.size]
        weights = []
        for x in self.inner.outputs:
            own = self._turned(x, f"d_{safe_name(x)}")
            weights.append(f"_late({own}, width)" if x in self.after else f"_diagonals({own}, spread=True)")
        for x in self.inner.states:
            held = x not in self.program.states
            base = next(e.state for e in self.edges.values() if e.held == x) if held else x
            own = f"d_{safe_name(base)}_T"
            weights.append(f"torch.zeros_like({own})" if held else self._turned_state(own))
        given = [f"*_onto_waves({', '.join(self.arguments)})", *self.saved, *weights]
        made = [f"d_w_{safe_name(a.name)}" for a in self.own if a.gradient]
        lines += self._call(made, "backward", given, [self._asked()])
        answers = [self._slope(a.of) for a in self.moved if a.kind == "input"]
        answers += [f"d_w_{safe_name(a.of)}" for a in self.moved if a.kind == "param"]
        return "\n".join([*lines, returned([*answers, *(self._start_slope(x) for x in self.program.states)], 4)])

    def _slope(self, name: str) -> str:
        """The gradient of an input."""
        terms = [
            _moved(f"_rows(d_w_{safe_name(read.name)}, steps)", -read.back, -read.beside)
            for read in reads(self.program) if read.source == name
        ]
        for edge in (e for e in self.edges.values() if e.start == name):
            terms += [f"d_w_{safe_name(name)}[:, :steps]"] if edge.reads else []
            if edge.crosses:
                terms.append(f"_one_earlier(d_w_{safe_name(edge.crossed)}[:, :steps], d_{safe_name(edge.corner)}_T)")
        if not terms:
            return f"torch.zeros_like({safe_name(name)})"
        return self._turned(name, terms[0] if len(terms) == 1 else f"({' + '.join(terms)})")

    def _start_slope(self, name: str) -> str:
        """The gradient of what precedes the first places."""
        if name in self.corners:
            return f"d_w_{safe_name(self.corners[name].crossed)}[:, 0]"
        edge = self.edges.get(name)
        own = f"d_w_{safe_name(name)}_0"
        return self._turned_state(f"({own} + d_w_{safe_name(edge.held)}_0)" if edge and edge.crosses else own)

    def _step(self) -> str:
        """One step of the first axis is a plane of one row."""
        if self.suffix == "torch":
            return self._plain_step()
        lines = self._head("step", "One step: a plane of one row.")
        given = [*(f"{x}[:, None]" for x in self.inputs), *self.params, *self.starts]
        count, outputs = len(self.program.outputs) + len(self.program.states), len(self.program.outputs)
        function = "infer" if self.run.infer else "forward"
        lines.append(lay(f"results = _{function}_{self.suffix}(", given, f")[:{count}]", 4))
        lines.append(f"    return *(y[:, 0] for y in results[:{outputs}]), *results[{outputs}:]")
        return "\n".join(lines)

    def _plain_step(self) -> str:
        """The same by single diagonals, whose derivatives torch knows."""
        lines = self._head("step", "One step: a plane of one row, one diagonal after the other.")
        given = [*(f"{x}[:, None]" for x in self.inputs), *self.params, *self.starts]
        inputs, states, outputs = len(self.inner.inputs), len(self.inner.states), len(self.inner.outputs)
        lines += [
            f"    width = {self.main}.shape[1]",
            lay("given = _onto_waves(", given, ")", 4),
            f"    inputs, params, states = given[:{inputs}], given[{inputs}:-{states}], given[-{states}:]",
            "    rows = []",
            "    for d in range(width):",
            "        results = _wave_step_torch(*(x[:, d] for x in inputs), *params, *states)",
            f"        rows.append(results[:{outputs}])",
            f"        states = results[{outputs}:]",
        ]
        if outputs:
            lines.append(f"    {unpack(self._made()[:outputs])} = (torch.stack(y, 1) for y in zip(*rows))")
        lines.append(f"    {unpack(self._made()[outputs:])} = states")
        starts = (safe_name(edge.start) for edge in self.corners.values())
        lines += [f"    {x} = {x}[:, None]" for x in starts]
        found = self._results("1")
        count = len(self.program.outputs)
        return "\n".join([*lines, returned([*(f"{y}[:, 0]" for y in found[:count]), *found[count:]], 4)])

    def _shapes(self) -> list[str]:
        """Of arrays of a sequence, a pack or one step: the last axes are the same."""
        found = {read.name: safe_name(read.source) for read in reads(self.program)}
        for edge in self.edges.values():
            found[edge.start] = found[edge.crossed] = safe_name(edge.start)
        found[inside(self.program)] = f"_Places({self.main}.dtype, ({self.main}.shape[0], {self.main}.shape[{self.width}]))"
        held = {edge.held: edge.state for edge in self.edges.values()}
        states = [f"{safe_name(held.get(x, x))}_0" for x in self.inner.states]
        return [*(found[x] for x in self.inner.inputs), *self.params, *states]


def _moved(text: str, back: int, beside: int) -> str:
    return f"_moved({text}, {back}, {beside})" if back or beside else text


_HELP = '''
class _Places(NamedTuple):
    """Dtype, batch and last axes of what says where a cell stands."""

    dtype: torch.dtype
    shape: tuple


def _diagonals(x, spread=False):
    """[B, T, U, ...] as [B, T + U - 1, U, ...]: at [d, u] what x has at [d - u, u]; outside the nearest row, or zero (spread).

    Where x stands between U - 1 such rows on either side, its columns turned around, the places of a diagonal have one stride.
    """
    x, more = x.flip(2), x.shape[2] - 1
    around = (torch.zeros_like(y) if spread else y for y in (x[:, :1], x[:, -1:]))
    first, last = (y.expand(-1, more, *y.shape[2:]) for y in around)
    x = torch.cat([first, x, last], 1)
    batch, row, column, *rest = x.stride()
    return x.as_strided((len(x), x.shape[1] - more, *x.shape[2:]), (batch, row, row + column, *rest)).contiguous().flip(2)


def _rows(x, steps):
    """[B, T + U - 1, U, ...] as [B, T, U, ...]."""
    batch, row, column, *rest = x.stride()
    return x.as_strided((len(x), steps, *x.shape[2:]), (batch, row, row + column, *rest))


def _in_plane(x):
    """[B, T + U - 1, U]: 1 for a cell of the plane, 0 outside."""
    return _diagonals(torch.ones_like(x[:, :, :, *[0] * (x.dim() - 3)]), spread=True)


def _moved(x, back, beside):
    """At [t, u] what x has at [t - back, u - beside]; zero outside."""
    for dim, by in ((1, back), (2, beside)):
        size = x.shape[dim]
        left, kept = max(min(by, size), -size), max(size - abs(by), 0)
        part = x.narrow(dim, max(-left, 0), kept)
        zero = torch.zeros_like(x.narrow(dim, 0, size - kept))
        x = torch.cat([zero, part] if left > 0 else [part, zero], dim)
    return x


def _edge(x, width):
    """[B, T, ...] as [B, T + width - 1, ...]: the last step is repeated."""
    return torch.cat([x, x[:, -1:].expand(-1, width - 1, *x.shape[2:])], 1)


def _late(x, width):
    """The cotangent of what stands at the end of the rows: zero on the diagonals before the first row's end."""
    return torch.cat([torch.zeros_like(x[:, :1]).expand(-1, width - 1, *x.shape[2:]), x], 1)


def _one_later(x, first):
    """x one step later, behind `first`."""
    return torch.cat([first[:, None].to(x.dtype), x[:, :-1]], 1)


def _one_earlier(x, last):
    """x one step earlier, with `last` at the end: the gradient of `_one_later`, and of its last step."""
    return torch.cat([x[:, 1:], last[:, None].to(x.dtype)], 1)
'''
