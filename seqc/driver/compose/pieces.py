"""Kernels of a recurrence that is linear in its states, made of those of its step form: time is cut in pieces side by side.

In: a program, its `Pieces`, and the plain torch kernels of the step form. Out: `Kernels` whose functions cut a batch
[B, T, ...] into B * count sequences of T / count steps where a model says that this takes less time. Forward: the end of
each piece run from zero, and its span (what it makes of the states before it), tell the states before each piece, one
after the other; then all pieces run side by side. Backward: all pieces run back with no cotangent behind them, which tells
the cotangents of the states between them through the transposed spans; then all run back again with these. What is saved for
backward is what the step form saves, so each call decides for itself.
"""

from __future__ import annotations

from dataclasses import replace

from seqc.analysis.pieces import CLOCK, Link, Load, Pieces, lags_of
from seqc.driver.compose.around import Composition, behind, extent_of, handed_on
from seqc.driver.compose.piece_algebra import SHARES, Names, added, through
from seqc.emit import Kernels, safe_name
from seqc.emit.beside import renamed
from seqc.emit.names import emitted_name
from seqc.emit.text import docstring, group, lay, returned, unpack
from seqc.ir.arguments import argument_table
from seqc.ir.program import Program


def compose_pieces(program: Program, pieces: Pieces, kernels: Kernels, ends: str, spans: str, mark: str = "") -> Kernels:
    """The kernels of `program`, from those of `pieces.whole`. ends, spans: the text of `_ends` and `_spans`; mark: what the
    names of functions that are this recurrence's alone end with."""
    made = _Cut(program, pieces, kernels, ends, spans).kernels()
    return replace(made, text=renamed(made.text, {name: f"{name}{mark}" for name in OWN})) if mark else made


CALL, ELEMENT = 4e-6, 1.5e-9  # seconds of a call of torch, and of an element that it handles, on a core
OWN = (
    "_whole_forward_torch", "_whole_infer_torch", "_whole_backward_torch", "_whole_step_torch", "_pieces", "_ends", "_spans",
    "_before_pieces", "_behind_pieces", "_in_pieces_forward", "_in_pieces_backward",
)  # fmt: skip


class _Cut(Composition):
    """Writes the functions of the torch part of the file."""

    def __init__(self, program: Program, pieces: Pieces, kernels: Kernels, ends: str, spans: str) -> None:
        super().__init__(program, replace(kernels, infer=True), "torch")
        self.cut, self.texts = pieces, (ends, spans)
        self.states = [safe_name(x) for x in program.states]
        self.timed = [safe_name(x) for x in pieces.whole.inputs]  # those of other steps too

    def _functions(self) -> list[str]:
        made = [self._inner_text(), self._forward("infer"), self._forward("forward"), self._backward(), self._step()]
        return list(dict.fromkeys(part for text in made for part in text.split("\n\n\n")))  # the texts have helpers in common

    def _inner_text(self) -> str:
        moved = sum(a.kind == "param" for a in self.moved)
        counts = {"states": len(self.states), "outputs": len(self.outputs)}
        counts |= {"results": counts["states"] + counts["outputs"], "moved": moved}
        text = _HELP.format(**counts, **self._model()).strip()
        made = [behind(self.run, "torch", "whole"), *(x.strip() for x in self.texts), text]
        made += [_SHIFTED.strip()] if self.cut.shifts else []
        made += [_CHOSEN.strip()] if self.cut.selects else []
        made += [_UNIT.strip()] if any(link.columns for link in self.cut.links.values()) else []
        made += [self._between()]
        if self.cut.algebra != "max":
            made += [_BACKWARD.format(**counts).strip(), self._cotangents()]
        made += [SHARES.strip()] if self.cut.algebra == "log" else []
        return "\n\n\n".join(made)

    def _step(self) -> str:
        return handed_on(self.program, self.arguments, "_whole_step_torch")

    # ---- the model ----

    def _model(self) -> dict[str, object]:
        loads = self.cut.loads
        calls = sum(x.calls for x in loads.values())
        sizes = {"whole": loads["whole"].calls, "all": calls, "links": 3 * len(self.cut.links) + 3}
        return {**sizes, "cpu": f"({CALL:g}, {ELEMENT:g})".replace("e-0", "e-"), "gpu": "(7e-6, 2e-11)"}

    def _elements(self, load: Load) -> str:
        sums = []
        for dims, count in sorted(load.elements.items()):
            sizes = [extent_of(d, self.table, self.program) for d in dims]
            sums.append(" * ".join([str(count), *sizes]))
        return " + ".join(sums) or "0"

    def _choice(self) -> list[str]:
        loads = self.cut.loads
        sizes = [self._elements(loads["whole"]), " + ".join(self._elements(loads[x]) for x in ("ends", "spans"))]
        return [lay("_count, _head = _pieces(", [self.inputs[0], *sizes], ")", 4)]

    # ---- functions ----

    def _lists(self) -> list[str]:
        lines = [
            f"    _shifted_{x} = _earlier({safe_name(source)}, {lags_of(back)[0]})"
            for x, (source, back) in ((safe_name(n), s) for n, s in self.cut.shifts.items())
        ]
        shifted = {safe_name(x) for x in self.cut.shifts}
        return [*lines, lay("_inputs = [", [f"_shifted_{x}" if x in shifted else x for x in self.timed], "]", 4)]

    def _forward(self, name: str) -> str:
        words = {"infer": "Results.", "forward": "Results, and what backward needs."}
        lines = self._head(name, f"{words[name]} In pieces of time side by side, where that takes less.")
        lines += [*self._choice(), *self._lists()]
        given = ["_count", "_head", str(name == "forward"), "_inputs"]
        given += [f"[{', '.join(x)}]" for x in (self.params, self.starts)]
        return "\n".join([*lines, lay("return _in_pieces_forward(", given, ")", 4)])

    def _backward(self) -> str:
        ends = [f"d_{x}" for x in (*self.outputs, *self.ends)]
        moved = [a for a in argument_table(self.cut.whole) if a.gradient]
        place = {a.of: i for i, a in enumerate(self.moved)}
        asked = {**place, **{x: place[source] for x, (source, _) in self.cut.shifts.items() if source in place}}
        if self.cut.algebra == "max":  # which of the past a maximum is of is asked at each step, where there are ties
            given, called = ["*_inputs", *self.params, *self.starts, *self.saved, *ends], "_whole_backward_torch"
            lines = [*self._head_of_backward("Gradients, step by step.", self.saved), *self._lists()]
        else:
            given = ["_count", "_head", "_inputs"]
            given += [f"[{', '.join(x)}]" for x in (self.params, self.starts, self.saved, ends)]
            called = "_in_pieces_backward"
            lines = [*self._head_of_backward("Gradients, likewise.", self.saved), *self._choice(), *self._lists()]
        names = [f"d_{emitted_name(a)}" for a in moved]
        needs = group([f"needs[{asked[a.of]}]" for a in moved])
        lines.append(lay(f"{unpack(names)} = {called}(", [*given, f"needs={needs}"], ")", 4))
        answers = []
        for a in self.moved:
            terms = [f"d_{emitted_name(a)}"]
            if a.kind == "input":
                later = {n: -lags_of(back)[0] for n, (x, back) in self.cut.shifts.items() if x == a.of}
                terms += [f"_earlier(d_{safe_name(n)}, {by})" for n, by in later.items()]
            answers.append(" + ".join(terms) + f" if needs[{place[a.of]}] else None" * (len(terms) > 1))
        return "\n".join([*lines, returned(answers, 4)])

    def _given(self, program: Program, batch: str) -> list[str]:
        """What `_ends` or `_spans` takes but states: from the lists of parts and params."""
        at = {x: i for i, x in enumerate(self.cut.whole.inputs)}
        given = []
        for a in argument_table(program):
            if a.of == CLOCK.name:
                given.append(f"_parts[0].new_zeros({batch}, _parts[0].shape[1])")
            elif a.kind == "input":
                given.append(f"_parts[{at[a.of]}]")
            elif a.kind == "param":
                given.append(f"_params[{self.params.index(emitted_name(a))}]")
        return given

    def _runs(self) -> list[str]:
        """Lines that make the links: of each a list with one for each piece, [B, dims], or of batch 1."""
        cut = self.cut
        batch = "1" if cut.fixed else "len(_parts[0])"
        units = [self._unit(i, j, link, batch) for (i, j), link in cut.links.items()]
        call = lay("_spans_ = _spans(", [*self._given(cut.spans, batch), *units], ")", 4).split("\n")
        each = "[x] * _count" if cut.fixed else "x.unflatten(0, (-1, _count)).unbind(1)"
        return [*call, f"    _spans_ = [{each} for x in _spans_]"]

    def _unit(self, i: str, j: str, link: Link, batch: str) -> str:
        """What a link is before the first step."""
        sizes = [batch, *(self._extent(d) for d in link.free)]
        if i != j:
            sizes += [self._extent(d) for d in (*link.rows, *(d for d, _ in link.columns))]
            return self._filled(self.starts[0], group(sizes))
        if not link.columns:
            return f"{self.starts[0]}.new_{'ones' if self.cut.algebra == 'sum' else 'zeros'}({', '.join(sizes)})"
        one = f"_unit({self.starts[0]}, {group(sizes)}, {group([self._extent(d) for d in link.rows])})"
        return one if self.cut.algebra == "sum" else f"{one}.log()"  # 0 and -inf: the one and the zero of a semiring

    def _filled(self, like: str, sizes: str) -> str:
        """A tensor of the algebra's zero."""
        return f"{like}.new_zeros({sizes})" if self.cut.algebra == "sum" else f"{like}.new_full({sizes}, -math.inf)"

    def _extent(self, dim: str) -> str:
        """The extent of a dim of a state, from the states before the first step."""
        return next(f"{x}.shape[{1 + d.dims.index(dim)}]"
                    for x, d in zip(self.starts, self.program.states.values(), strict=True) if dim in d.dims)

    def _through(self, i: str, j: str, back: bool) -> str:
        """What a state [B, dims] is over a piece in another; back: a cotangent of the second, in the first."""
        link = self.cut.links[(i, j)]
        matrix, left, right = link.letters(self.program.states[i].dims, self.program.states[j].dims)
        if self.cut.algebra != "sum":
            names = Names(f"_{safe_name(link.name)}", safe_name(i), safe_name(j))
            return through(self.cut.algebra, names, (matrix, left, right), back)
        name, value = f"_{safe_name(link.name)}", f"_d_{safe_name(i)}" if back else safe_name(j)
        if left == right == matrix:
            return f"_chosen({name}, {value})" if self.cut.selects else f"{name} * {value}"
        taken, given = (left, right) if back else (right, left)
        if self.cut.selects:
            axes = ", ".join(":" if c in matrix else "None" for c in given)
            return f"_chosen({name}[{axes}], {value})"
        return f'torch.einsum("{matrix},{taken}->{given}", {name}, {value})'

    def _walk(self, values: list[str], own: list[str], back: bool) -> list[str]:
        """The loop over pieces: each value is its own part, and what passes through the links."""
        links = [f"_{safe_name(link.name)}" for link in self.cut.links.values()]
        sums = []
        for x, part in zip(self.program.states, own, strict=True):
            pairs = [key for key in self.cut.links if key[back] == x]
            sums.append(added("sum" if back else self.cut.algebra, [part, *(self._through(*key, back) for key in pairs)]))
        over = [*(f"_own[{k}]" for k in range(len(own))), *(f"_spans_[{k}]" for k in range(len(links)))]
        if back and self.cut.algebra == "log":  # the states before each piece, and after
            links += [name for x in self.states for name in (x, f"_after_{x}")]
            over += [text for k in range(len(own)) for text in (f"_at[{k}][:-1]", f"_at[{k}][1:]")]
        head = lay(f"for {unpack([*own, *links])} in list(zip(", over, f"))[{':0:-1' if back else ':-1'}]:", 4)
        flat = f"        {', '.join(values)} = {', '.join(sums)}"
        made = flat if len(values) == 1 or len(flat) <= 120 else lay(f"{', '.join(values)} = (", sums, ")", 8)
        return [head, made, f"        _rows.append({group(values)})"]

    def _between(self) -> str:
        """The function that tells the states before each piece."""
        states = [safe_name(x) for x in self.program.states]
        zeros = [self._filled(x, f"(len(_parts[0]), *{x}.shape[1:])") for x in self.starts]
        lines = [
            "def _before_pieces(_count, _parts, _params, _starts):",
            docstring(["[B, count, dims]: each state before each piece. starts: before the first one."], 4),
            f"    {unpack(self.starts)} = _starts",
            lay("_own = _ends(", [*self._given(self.cut.ends, "len(_parts[0])"), *zeros], ")", 4),
            "    _own = [x.unflatten(0, (-1, _count)).unbind(1) for x in _own]",
            *self._runs(),
            f"    {unpack(states)} = _starts",
            f"    _rows = [{group(states)}]",
            *self._walk(states, [f"_own_{x}" for x in states], False),
            "    return [torch.stack(x, 1) for x in zip(*_rows)]",
        ]
        return "\n".join(lines)

    def _cotangents(self) -> str:
        """The function that tells the cotangents of the states behind each piece."""
        states = [safe_name(x) for x in self.program.states]
        values = [f"_d_{x}" for x in states]
        words = [
            "[B, count, dims]: the cotangent of each state behind each piece.", "",
            "own: of the states before each piece, [B * count, dims], with nothing behind it; d_ends: behind the last one;",
            "at: what is saved of the states, before each piece and after the last.",
        ]
        lines = [
            "def _behind_pieces(_count, _parts, _params, _starts, _own, _d_ends, _at):",
            docstring(words, 4),
            f"    {unpack(self.starts)} = _starts",
            *self._runs(),
            "    _own = [x.unflatten(0, (-1, _count)).unbind(1) for x in _own]",
            "    _rows = [tuple(_d_ends)]",
            f"    {unpack(values)} = (torch.zeros_like(x) for x in _d_ends)  # `own` of the last piece has seen these",
            *self._walk(values, [f"_own_{x}" for x in states], True),
            "    return [torch.stack(x[::-1], 1) for x in zip(*_rows)]",
        ]
        return "\n".join(lines)


_HELP = '''
PIECES = True  # whether time may be cut in pieces that run side by side


def _pieces(x, whole, beside):
    """How a batch x [B, T, ...] is cut: how many pieces, and how many steps before the first; (1, 0): not at all.

    whole, beside: elements that a step handles, and that its pieces' ends and spans handle besides. A piece of n steps
    calls torch for its steps, and between pieces for their spans: the best n is a root. What a call costs, and an element,
    was measured on a CPU and is an estimate for a GPU; values of pieces leave a cache, so an element costs twice as much there.
    """
    batch, steps = x.shape[:2]
    call, element = {gpu} if x.is_cuda else {cpu}
    size = max(round((steps * {links} / {all}) ** 0.5), 8)
    size = min(range(size, size + size // 4 + 1), key=lambda n: steps % n)
    count = steps // size
    apart = steps * ({whole} * call + batch * whole * element)
    cut = (size + steps % size) * {all} * call + count * {links} * call + 2 * steps * batch * (whole + beside) * element
    return (count, steps % size) if PIECES and count > 1 and cut < 0.7 * apart else (1, 0)


def _parted(tensors, count):
    """[B, T, ...] as [B * count, T / count, ...]."""
    return [x.reshape(x.shape[0] * count, x.shape[1] // count, *x.shape[2:]) for x in tensors]


def _together(tensors, count):
    """And back; what is not there stays so."""
    return [x if x is None else x.reshape(x.shape[0] // count, x.shape[1] * count, *x.shape[2:]) for x in tensors]


def _in_pieces_forward(count, head, save, inputs, params, starts):
    """Results, and (save) what backward needs: the states before each step and the last, [T + 1, B, ...]."""
    if count < 2:
        return _whole_forward_torch(*inputs, *params, *starts)[: None if save else {results}]
    if head:
        first = _whole_forward_torch(*(x[:, :head].contiguous() for x in inputs), *params, *starts)
        inputs, starts = [x[:, head:].contiguous() for x in inputs], first[{outputs}:{results}]
    parts = _parted(inputs, count)
    begins = [x.flatten(0, 1) for x in _before_pieces(count, parts, params, starts)]
    results = _whole_forward_torch(*parts, *params, *begins)
    outputs = _together(results[:{outputs}], count)
    states = [x.unflatten(0, (-1, count))[:, -1].clone() for x in results[{outputs}:{results}]]
    saved = []
    for x in results[{results}:] if save else ():
        x = x.unflatten(1, (-1, count))
        saved.append(torch.cat([x[0, :, :1].movedim(1, 0), x[1:].movedim(2, 0).flatten(0, 1)]))
    if head:
        outputs = [torch.cat(pair, 1) for pair in zip(first[:{outputs}], outputs)]
        saved = [torch.cat([x[:-1], y]) for x, y in zip(first[{results}:], saved)]
    return (*outputs, *states, *saved)
'''

_BACKWARD = '''
def _in_pieces_backward(count, head, inputs, params, starts, saved, ends, needs):
    """Gradients of inputs, parameters and initial states."""
    if count < 2:
        return _whole_backward_torch(*inputs, *params, *starts, *saved, *ends, needs=needs)
    timed = len(needs) - {states} - {moved}
    alone, needs = (False,) * (timed + {moved}) + (True,) * {states}, (*needs[:-{states}], *(True,) * {states})
    if head:
        rest = [x[:, head:].contiguous() for x in inputs], params, starts, [x[head:] for x in saved]
        weights = [x[:, head:].contiguous() for x in ends[:{outputs}]]
        behind = _in_pieces_backward(count, 0, *rest, [*weights, *ends[{outputs}:]], needs)
        first = [x[:, :head].contiguous() for x in inputs], [x[: head + 1] for x in saved]
        ends = [*(x[:, :head].contiguous() for x in ends[:{outputs}]), *behind[-{states}:]]
        before = _whole_backward_torch(*first[0], *params, *starts, *first[1], *ends, needs=needs)
        own = [None if x is None else torch.cat([x, y], 1) for x, y in zip(before[:timed], behind[:timed])]
        shared = [None if x is None else x + y for x, y in zip(before[timed:-{states}], behind[timed:-{states}])]
        return (*own, *shared, *before[-{states}:])
    parts = _parted(inputs, count)
    kept = []
    for x in saved:  # [T + 1, B, ...] as [T / count + 1, B * count, ...]
        rows = x[:-1].unflatten(0, (count, -1))
        last = torch.cat([rows[1:, 0], x[-1:]])
        kept.append(torch.cat([rows, last[:, None]], 1).movedim(0, 2).flatten(1, 2).contiguous())
    begins = [x.new_zeros(len(parts[0]), *x.shape[1:]) for x in starts]
    weights = _parted(ends[:{outputs}], count)
    d_ends = [torch.cat([x.new_zeros(len(x), count - 1, *x.shape[1:]), x[:, None]], 1) for x in ends[{outputs}:]]
    given = *parts, *params, *begins, *kept, *weights
    own = _whole_backward_torch(*given, *(x.flatten(0, 1) for x in d_ends), needs=alone)[-{states}:]
    at = [x[:: parts[0].shape[1]].unbind() for x in saved]
    d_ends = _behind_pieces(count, parts, params, starts, own, ends[{outputs}:], at)
    found = _whole_backward_torch(*given, *(x.flatten(0, 1).contiguous() for x in d_ends), needs=needs)
    states = [x.unflatten(0, (-1, count))[:, 0].clone() for x in found[-{states}:]]
    return (*_together(found[:timed], count), *found[timed:-{states}], *states)
'''

_UNIT = '''
def _unit(x, lead, mixed):
    """The unit matrix over the dims `mixed`, in as many places as there are in `lead`."""
    one = torch.eye(math.prod(mixed), dtype=x.dtype, device=x.device).view(*mixed, *mixed)
    return one.expand(*lead, *mixed, *mixed).contiguous()
'''

_CHOSEN = '''
def _chosen(a, x):
    """a * x; nothing where a is 0, whatever x is: a step has dropped it."""
    return torch.where(a == 0, 0.0, a * x)
'''

_SHIFTED = '''
def _earlier(x, by):
    """x [B, T, ...] so many steps earlier, or later; zero outside of the sequence."""
    out, kept = torch.zeros_like(x), max(x.shape[1] - abs(by), 0)
    out.narrow(1, min(max(by, 0), x.shape[1]), kept).copy_(x.narrow(1, min(max(-by, 0), x.shape[1]), kept))
    return out
'''
