"""The values of one loop nest, in single assignment form: what is loaded, what is computed, and on which loops it depends.

In: a nest, places of everything in memory, the dim that vectors run along. Out: `Value`s grouped by the loops that they
depend on, so that each is computed in the outermost loop that determines it. Spelling comes from the operator table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from seqc.backends.native_cpu.places import Place, ident
from seqc.backends.native_cpu.refusal import refused
from seqc.ir.graph import BATCH, Node
from seqc.ir.ops import TABLE
from seqc.ir.views import Index, Moved, View, view


# C++ of the operators whose scalar spelling in the table does not serve vectors
def spelled(op: str) -> str:
    """The format string of an elementwise operator; functions of the C library become those of the runtime."""
    spell = TABLE[op].spell
    text = spell.get("lanes") or spell.get("cpp", "")
    if not text:
        raise refused("native-operator", f"operator '{op}' has no C++ spelling")
    return text.replace("std::", "seqc_")


def called(op: str) -> set[str]:
    """The function of the runtime that an operator's spelling calls; none where it is written with C++'s own operators."""
    name = spelled(op).partition("(")[0]
    return {name} if name.isidentifier() else set()


def literal(x: float) -> str:
    """A number as C++."""
    if math.isnan(x):
        return "std::numeric_limits<real>::quiet_NaN()"
    if math.isinf(x):
        return "infinity" if x > 0 else "(-infinity)"
    return f"real({x!r})"


def _key(v: View) -> object:
    return v.base if v.plain else v


@dataclass(frozen=True, eq=False)
class Value:
    """One assignment. text: a format string over its arguments; deps: loop dims (the vector dim and the batch too)."""

    name: str
    text: str
    args: tuple[Operand, ...]
    deps: frozenset[str]
    type: str  # "real" | "vec" | "bool" | "mask"
    node: Node | None = None
    apart: bool = False  # a vector whose lanes lie apart in memory


@dataclass(frozen=True)
class Operand:
    """A use of a value, or (value None) an expression that needs none."""

    text: str
    value: Value | None = None


@dataclass
class Values:
    """Builds the values of a nest. `axis`: the dim along vectors, or None; `index`: loop dim -> C++ index."""

    axis: str | None
    panel: str | None
    space: tuple[str, ...]
    place: Callable[[Node], Place | None]
    names: Mapping[Node, str]
    index: Mapping[str, str]
    grid: tuple[str, ...]
    mentions: set[str] = field(default_factory=set)  # what the values name of what stands outside of the nest
    made: dict[object, Operand] = field(default_factory=dict)
    order: list[Value] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def operand(self, n: Node) -> Operand:
        """The value of a node at the current point."""
        stack = [n]
        while stack:
            v = view(stack[-1])
            key = _key(v)
            computed = key not in self.made and self.place(v.base) is None
            waiting = [a for a in v.base.args if computed and _key(view(a)) not in self.made]
            if waiting:
                stack += reversed(waiting)
                continue
            if key not in self.made:
                self.made[key] = self._make(v)
            stack.pop()
        return self.made[_key(view(n))]

    def assign(
        self, n: Node | None, text: str, args: tuple[Operand, ...], deps: frozenset[str], kind: str, apart: bool = False
    ) -> Operand:
        """A new value."""
        base = f"v_{ident(self.names[n])}" if n is not None and n in self.names else f"x{len(self.order)}"
        name = base
        while name in self.taken:
            name = f"{base}_{len(self.order)}" if name == base else name + "_"
        self.taken.add(name)
        made = Value(name, text, args, deps, kind, n, apart)
        self.order.append(made)
        return Operand(name, made)

    def _make(self, v: View) -> Operand:
        n = v.base
        if n.op == "const":
            x = n.attr("value")
            assert isinstance(x, float)
            return Operand(literal(x))
        if n.op == "size":
            d = n.text("dim")
            self.mentions |= {"B"} & {d}
            return Operand("real(B)" if d == BATCH else f"real(n_{ident(d)})")
        if n.op == "index":
            return self._index(n.text("dim"), dict(v.index)[n.text("dim")])
        place = self.place(n)
        if place is not None:
            return self._load(n, place, v)
        asks = n.op in ("and", "or", "not")  # a truth value stays one where it is asked for; a renamed one is a real number
        args = tuple(self.operand(a) if asks or (n.op == "where" and not i) else self._number(a, self.operand(a))
                     for i, a in enumerate(n.args))
        deps = frozenset(d for a in args if a.value for d in a.value.deps)
        vector = any(a.value is not None and a.value.type in ("vec", "mask") for a in args)
        kind = ("mask" if vector else "bool") if n.dtype == "bool" else ("vec" if vector else "real")
        self.mentions |= called(n.op)
        return self.assign(n, spelled(n.op), args, deps, kind)

    def _number(self, n: Node, o: Operand) -> Operand:
        """A number: of a truth value that stands for one, 1 or 0."""
        if n.dtype == "bool" or o.value is None or o.value.type not in ("mask", "bool"):
            return o
        key = ("number", o.value.name)
        if key not in self.made:
            self.mentions.add("as_real")
            kind = "vec" if o.value.type == "mask" else "real"
            self.made[key] = self.assign(None, "as_real({0})", (o,), o.value.deps, kind)
        return self.made[key]

    def _index(self, dim: str, d: Index) -> Operand:
        if not isinstance(d, str):
            return Operand(f"real({self._at(dim, d)})")
        start = f"o_{ident(d)} + " if d == self.panel else ""
        self.mentions |= {f"o_{ident(d)}", f"i_{ident(d)}"}
        if d == self.axis:
            return self.assign(None, f"lanes() + real({start}{self.index[d]})", (), frozenset((d,)), "vec")
        if d in self.space:
            return self.assign(None, f"real({start}{self.index[d]})", (), frozenset((d,)), "real")
        return Operand(f"real(i_{ident(d)})")

    def _load(self, n: Node, place: Place, v: View) -> Operand:
        axes = {d: i for d, i in v.index if d in place.strides}
        loops = {d: i.i if isinstance(i, Moved) else i for d, i in axes.items()}
        deps = frozenset(i for i in loops.values() if isinstance(i, str))
        index = {d: self._at(d, i) for d, i in axes.items()}
        along = [d for d, i in loops.items() if i == self.axis]
        inside = " && ".join(x for d, i in axes.items() if isinstance(i, Moved) and d not in along for x in self._inside(d, i))
        kind = "vec" if along else "real"
        if place.scalar and n.dtype != "bool":
            self.mentions |= place.names
            return Operand(place.base)
        if along and isinstance(moved := axes[along[0]], Moved):
            text = self._moved_load(place, index, along[0], moved)
        else:
            text = self.read(place, index, along[0] if along else None)
        if inside:
            text = f"({inside} ? {text} : {'vec{}' if kind == 'vec' else 'real(0)'})"
        apart = bool(along) and not inside and not isinstance(axes[along[0]], Moved) and not place.whole(along[0])
        got = self.assign(n if v.plain else None, text.replace("{", "{{").replace("}", "}}"), (), deps, kind, apart)
        if n.dtype == "bool":
            got = self.assign(None, "({0} != real(0))", (got,), deps, "mask" if kind == "vec" else "bool")
        return got

    def _at(self, d: str, i: Index) -> str:
        """The C++ index of an axis."""
        if isinstance(i, Moved):
            at = self._at(d, i.i)
            return f"{at} {'-' if i.by > 0 else '+'} {abs(i.by)}" if i.by else at
        return self.index[i] if isinstance(i, str) else f"{i}" if i >= 0 else f"n_{ident(d)} - {-i}"

    def _inside(self, d: str, i: Moved) -> list[str]:
        """The conditions under which a moved index lies inside."""
        at = self._at(d, i.i)
        return [*([f"{at} >= {i.low}"] if i.low else []), *([f"{at} < n_{ident(d)} - {i.high}"] if i.high else [])]

    def _moved_load(self, place: Place, index: Mapping[str, str], along: str, i: Moved) -> str:
        """A vector whose lanes are moved along their axis."""
        stride = "1" if place.whole(along) else "*".join(place.strides[along])
        high = f"n_{ident(along)}" + (f" - {i.high}" if i.high else "")
        self.mentions |= {"moved", *place.names}
        return f"moved({place.at(index)}, {stride}, {self._at(along, i.i)}, {i.low}, {high})"

    def left(self, axis: str) -> str:
        """How many elements remain from the current vector on."""
        start = f" - o_{ident(axis)}" if axis == self.panel else ""
        self.mentions.add(f"o_{ident(axis)}")
        return f"n_{ident(axis)}{start} - {self.index[axis]}"

    def read(self, place: Place, index: Mapping[str, str], along: str | None) -> str:
        """The element of a place, or the vector along one of its axes."""
        if along is None:
            self.mentions |= place.names
            return place.element(index)
        function, address, rest = self._vector(place, index, along, ("load", "load_early", "gather"), [])
        return f"{function}({', '.join([address, *rest])})"

    def write(self, place: Place, index: Mapping[str, str], along: str | None, value: str) -> str:
        """The statement that writes one; of a vector, what is written may be a number for all lanes."""
        if along is None:
            self.mentions |= place.names
            return f"{place.element(index)} = {value};"
        function, address, rest = self._vector(place, index, along, ("store", "store_early", "scatter"), ["large"])
        return f"{function}({', '.join([address, value, *rest])});"

    def _vector(
        self, place: Place, index: Mapping[str, str], along: str, functions: tuple[str, str, str], large: list[str]
    ) -> tuple[str, str, list[str]]:
        """What of the runtime is called for the vector along an axis: for neighbours, for those of the next step too, for what
        lies apart; its address, and what follows."""
        axis = str(self.axis)
        plain, early, apart = functions
        address, full = place.at(index), f"<e_{ident(axis)}>"
        self.mentions |= place.names
        if not place.whole(along):
            self.mentions |= {apart, *([f"m_{ident(axis)}"] if place.inside else [])}
            left = f"m_{ident(axis)} - {self.index[axis]}" if place.inside else self.left(axis)
            return apart + full, address, ["*".join(place.strides[along]), left]
        if place.inside:
            return plain, address, []
        if not place.ahead:
            return plain + full, address, [self.left(axis)]
        self.mentions |= {early, "onward", *large}
        return early + full, address, [self.left(axis), place.ahead, *large]
