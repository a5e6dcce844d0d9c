"""Program -> which cell of torch.nn has its equations, and where that cell keeps what each param of the spec holds.

In: a program; which inputs its layer projects, and which are the layer's own input. Out: `Weights`, or nothing. It is
decided by numbers, never by names: the step graph is evaluated in float64 on random values, and so are the equations of
`torch.nn.LSTM`, `GRU` and `RNN` (as their documentation states them, written here in numpy). Gates are found by trying: first
the input's part of each, with no state behind it, then the recurrent one, then each bias alone. In the end everything is
random at once, and must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np

from seqc.emit.layer_plan import Slot, Weights
from seqc.emit.names import dim_name, safe_name
from seqc.ir.both_ways import one_run
from seqc.ir.dims import is_primed, unprimed
from seqc.ir.graph import constant, leaves
from seqc.ir.intervals import ANY
from seqc.ir.keys import next_key
from seqc.ir.program import Program, TensorDecl
from seqc.ir.windows import lags
from seqc.semantics.evaluate import evaluate, to_order

Array = Any  # of float64
Cell = Callable[[Sequence[Array], Sequence[Array], Array, Array], tuple[Array, Array]]
BATCHES, WIDTH, INPUTS = 2, 3, 4


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _lstm(ih: Sequence[Array], hh: Sequence[Array], h: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = (a + b for a, b in zip(ih, hh, strict=True))
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru(ih: Sequence[Array], hh: Sequence[Array], h: Array, c: Array) -> tuple[Array, Array]:
    r, z = (_sigmoid(a + b) for a, b in zip(ih[:2], hh[:2], strict=True))
    return (1 - z) * np.tanh(ih[2] + r * hh[2]) + z * h, c


CELLS: tuple[tuple[str, str, int, int, Cell], ...] = (
    ("LSTM", "", 4, 2, _lstm), ("GRU", "", 3, 1, _gru),
    ("RNN", "tanh", 1, 1, lambda ih, hh, h, c: (np.tanh(ih[0] + hh[0]), c)),
    ("RNN", "relu", 1, 1, lambda ih, hh, h, c: (np.maximum(ih[0] + hh[0], 0), c)),
)  # class, nonlinearity, gates, states, equations


def torch_cells(program: Program, projected: Sequence[str], direct: Sequence[str]) -> Weights | None:
    """The weights of the cell that has the program's equations; None where no cell has."""
    parts = _parts(program, projected, direct)
    if parts is None:
        return None
    for kind, nonlinearity, gates, states, cell in CELLS:
        counts = len(parts.gates) == gates and len(parts.hh) == gates and len(parts.one.states) == states
        for order in permutations(parts.one.states) if counts else ():
            found = _Match(parts, order, cell, gates).weights(kind, nonlinearity)
            if found is not None:
                return found
    return None


@dataclass(frozen=True)
class _Parts:
    """The arguments of a step by what they can be. gates: projected inputs, or params [D, M] behind the input x[M] (`raw`);
    hh: square params; biases: params [D]. stack: a dim of a known size that counts gates, `R[G, D, D]`: its array is so many
    arguments, `R@0@2` of R the third one along its axis 0."""

    one: Program
    both: bool
    hidden: str
    single: tuple[str, ...]
    raw: str
    gates: tuple[str, ...]
    hh: tuple[str, ...]
    biases: tuple[str, ...]
    sizes: Mapping[str, int]
    stack: str = ""


def _parts(program: Program, projected: Sequence[str], direct: Sequence[str]) -> _Parts | None:
    """What the arguments can be, or None where their dims are no cell's."""
    one = one_run(program)
    both = program.direction == "both"
    square = {unprimed(p.dims[-1]) for p in one.params.values() if p.dims[-1:] and is_primed(p.dims[-1])}
    states = list(one.states.values())
    if len(square) != 1 or program.plane is not None or program.direction == "backward" or program.added or program.shared:
        return None
    (hidden,) = square
    single = tuple(d for d in states[0].dims if d != hidden)
    plain = (*single, hidden)
    every = [*one.params.values(), *(one.inputs[x] for x in projected)]
    stacks = {d for x in every for d in x.dims if d not in plain and d[:-1] != hidden and one.dims[d].default is not None}
    if len(stacks) > 1:
        return None
    stack = next(iter(stacks), "")
    units = {x.name: _units(x, stack, one) for x in every}
    lagged = any(any(lags(n)) for n in leaves(one.graph.values(), "input"))
    if lagged or len(one.outputs) != 1 or len(direct) > 1 or bool(projected) == bool(direct) or (both and projected):
        return None
    if any(s.hidden or s.dims != plain or not _zero(s) for s in states) or any(one.dims[d].default for d in plain):
        return None
    raw = direct[0] if direct else ""
    inner = one.inputs[raw].dims[0] if raw else ""
    shapes = {x.name: tuple(d for d in x.dims if d != stack) for x in every}
    if any(shapes[x] != plain or one.inputs[x].range != ANY or one.inputs[x].unit for x in projected):
        return None
    hh = [name for name in one.params if shapes[name] == (*plain, f"{hidden}'")]
    ih = [name for name in one.params if raw and shapes[name] == (*plain, inner)]
    biases = [name for name in one.params if shapes[name] == plain]
    odd = any(p.plays != "param" or p.per_batch or p.support for p in one.params.values())
    if odd or len(hh) + len(ih) + len(biases) < len(one.params):
        return None
    sizes = {"B": BATCHES, hidden: WIDTH, inner: INPUTS} | dict.fromkeys(single, 1)
    sizes |= {stack: one.dims[stack].default or 0} if stack else {}
    gates, hh, biases = ([unit for name in names for unit in units[name]] for names in (ih if raw else projected, hh, biases))
    return _Parts(one, both, hidden, single, raw, tuple(gates), tuple(hh), tuple(biases), sizes, stack)


def _units(x: TensorDecl, stack: str, one: Program) -> list[str]:
    """The arguments that an array is."""
    if stack not in x.dims:
        return [x.name]
    return [f"{x.name}@{x.dims.index(stack)}@{i}" for i in range(one.dims[stack].default or 0)]


def _emitted(unit: str) -> str:
    """An argument by the emitted name of its array."""
    name, at, place = unit.partition("@")
    return safe_name(name) + at + place


def _zero(s: TensorDecl) -> bool:
    return s.init is not None and s.init.op == "const" and constant(s.init) == 0


@dataclass
class _Match:
    """A search for the gates of one cell. order: the states that are its h and, of an LSTM, its c."""

    parts: _Parts
    order: tuple[str, ...]
    cell: Cell
    gates: int
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def weights(self, kind: str, nonlinearity: str) -> Weights | None:
        """What is found, or None."""
        parts, every = self.parts, range(self.gates)
        tried = (dict(zip(parts.gates, g, strict=True)) for g in permutations(every))
        inputs = next((one for one in tried if self.agrees(one, {}, {}, still=True)), None)
        if inputs is None:
            return None
        tried = (dict(zip(parts.hh, g, strict=True)) for g in permutations(every))
        matrices = next((one for one in tried if self.agrees(inputs, one, {})), None)
        if matrices is None:
            return None
        slots: list[Slot] = [(side, g) for g in every for side in ("ih", "hh")]
        held = {b: [s for s in slots if self.agrees(inputs, matrices, {b: (s,)})] for b in parts.biases}
        if not all(held.values()):
            return None
        homes = self.homes(inputs, held, slots)
        if homes is None:
            return None
        biases: dict[str, tuple[Slot, ...]] = {b: tuple(s for s in slots if homes[s] == b) for b in parts.biases}
        rest = {x: tuple(s for s in slots if homes[s] == x) for x in parts.gates if not parts.raw}
        if not self.agrees(inputs, matrices, biases):
            return None
        placed: dict[str, Slot] = {_emitted(p): ("hh", g) for p, g in matrices.items()}
        placed |= {_emitted(p): ("ih", g) for p, g in inputs.items() if parts.raw}
        return Weights(
            kind, nonlinearity, self.gates, {} if parts.raw else {_emitted(x): g for x, g in inputs.items()}, placed,
            {_emitted(b): s for b, s in biases.items()}, {_emitted(x): s for x, s in rest.items()},
            dim_name(parts.hidden), tuple(map(dim_name, parts.single)), parts.both,
        )

    def homes(
        self, inputs: Mapping[str, int], held: Mapping[str, Sequence[Slot]], slots: Sequence[Slot]
    ) -> dict[Slot, str] | None:
        """Slot -> the param, or the projected input, whose bias it is added to; None where one has no home."""
        homes: dict[Slot, str] = {}
        for side, g in slots:
            own = [b for b, could in held.items() if (side, g) in could]
            alike = side == "ih" or self.additive(g)
            linear = [x for x, gate in inputs.items() if gate == g and alike and not self.parts.raw]
            found = linear + own if side == "ih" else own + linear
            if not found:
                return None
            homes[side, g] = found[0]
        return homes

    def additive(self, g: int) -> bool:
        """Whether the two parts of a gate are added in the cell, so that one bias can hold both."""
        ih, hh = ([self.draw(BATCHES, WIDTH) for _ in range(self.gates)] for _ in range(2))
        h, c, b = (self.draw(BATCHES, WIDTH) for _ in range(3))
        one = self.cell([x + b * (i == g) for i, x in enumerate(ih)], hh, h, c)
        other = self.cell(ih, [x + b * (i == g) for i, x in enumerate(hh)], h, c)
        return all(np.allclose(x, y, rtol=1e-12, atol=1e-12) for x, y in zip(one, other, strict=True))

    def draw(self, *shape: int) -> Array:
        """Random numbers."""
        return self.random.uniform(-1, 1, shape)

    def agrees(
        self, inputs: Mapping[str, int], matrices: Mapping[str, int], biases: Mapping[str, Sequence[Slot]], still: bool = False
    ) -> bool:
        """Whether a step of the spec and one of the cell give the same. still: with h = 0, where no matrix counts."""
        parts, h, c = self.parts, self.draw(BATCHES, WIDTH) * (not still), self.draw(BATCHES, WIDTH)
        x = self.draw(BATCHES, INPUTS)
        values: dict[str, Array] = {parts.raw: x} if parts.raw else {}
        ih, hh = ([np.zeros((BATCHES, WIDTH)) for _ in range(self.gates)] for _ in range(2))
        for name, g in inputs.items():
            if parts.raw:
                values[name] = self.draw(WIDTH, INPUTS)
                ih[g] = ih[g] + x @ values[name].T
            else:
                values[name] = self.draw(BATCHES, WIDTH)
                ih[g] = ih[g] + values[name]
        for name in parts.hh:
            values[name] = self.draw(WIDTH, WIDTH)
            if name in matrices:
                hh[matrices[name]] = hh[matrices[name]] + h @ values[name].T
        for name in parts.biases:
            values[name] = np.zeros(WIDTH)
            for side, g in biases.get(name, ()):
                b = self.draw(WIDTH)
                values[name] = values[name] + b
                (ih if side == "ih" else hh)[g] = (ih if side == "ih" else hh)[g] + b
        want_h, want_c = self.cell(ih, hh, h, c)
        got = self.step(values | dict(zip(self.order, (h, c), strict=False)))
        wanted = [want_h, *[want_h, want_c][: len(self.order)]]
        return all(np.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(got, wanted, strict=True))

    def step(self, values: Mapping[str, Array]) -> Iterator[Array]:
        """The output of the spec's step, and its new states in the cell's order, [B, D] each."""
        one, sizes = self.parts.one, self.parts.sizes
        given = {}
        for n in leaves(one.graph.values()):
            dims, name = n.names("shape"), n.text("name")
            shape = [sizes[unprimed(d)] for d in dims if d != self.parts.stack]
            if self.parts.stack not in dims:
                given[n] = np.reshape(values[name], shape)
                continue
            axis = one.declared(n).dims.index(self.parts.stack)
            rows = [np.reshape(values[f"{name}@{axis}@{i}"], shape) for i in range(sizes[self.parts.stack])]
            given[n] = np.stack(rows, dims.index(self.parts.stack))
        found = evaluate(one.graph, given, sizes)
        for name in (*one.outputs, *(next_key(s) for s in self.order)):
            axes = ("B", *self.parts.single, self.parts.hidden)
            yield to_order(found[name], one.graph[name].dims, axes, sizes).reshape(BATCHES, WIDTH)
