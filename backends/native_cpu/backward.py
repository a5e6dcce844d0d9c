"""The backward kernel: time from the end to the begin. In: a `Plan`. Out: its arrays, and its C++ text.

Where states are saved at every step, there is one loop over time. Otherwise each segment is run twice: forward from its
checkpoint, which leaves the state before every step in a buffer, and backward. Gradients that need no carried cotangent
(such as that of a query) are computed on the way forward, where the new state is at hand; vectors and dear values that both
ways need are kept for every step of the segment.
"""

from __future__ import annotations

from seqc.backends.native_cpu.arrays import Array
from seqc.backends.native_cpu.assemble import entry, first_only, lead, opened, pointer, struct, zeros
from seqc.backends.native_cpu.code import Code, Declared, Text, declared, indented, mentioned
from seqc.backends.native_cpu.forward import (
    TIME,
    Guards,
    first_member,
    in_lanes,
    input_pointers,
    lists,
    onward,
    open_program,
    param_pointers,
    saved_arrays,
    settle,
)
from seqc.backends.native_cpu.kernel import KernelWriter
from seqc.backends.native_cpu.lanes import lanes_back
from seqc.backends.native_cpu.outlined import outlined
from seqc.backends.native_cpu.places import Place, buffer_size, condition, ident
from seqc.backends.native_cpu.plan import Plan
from seqc.backends.native_cpu.schedule import Item, maker
from seqc.ir.arguments import argument_table
from seqc.ir.graph import BATCH, Node, const, depends, leaf, leaves
from seqc.ir.keys import next_key, prev_key, slope_key, slope_of


def input_gradients(plan: Plan) -> dict[str, tuple[str, str, int]]:
    """Key of an input's gradient -> (array name, input, offset)."""
    out = {}
    for key in plan.backward:
        slope = slope_of(key)
        if not slope.carried and slope.name in plan.program.inputs:
            out[key] = f"d_{slope.word('_at_', '_at_m')}", slope.name, slope.offset
    return out


def backward_arrays(plan: Plan) -> tuple[Array, ...]:
    """The backward kernel's arrays, in order: inputs, params, saved, cotangents, then what it writes."""
    p, roles = plan.program, plan.roles
    out = [
        *(Array(x.name, x.axes) for x in argument_table(p) if x.kind != "state"),
        *saved_arrays(plan, written=False),
        *(Array(f"d_{x.name}", (BATCH, "T", *x.dims)) for x in p.output_decls.values()),
        *(Array(f"d_{x.name}_T", x.axes) for x in p.states.values()),
    ]
    for _, (array, name, _) in input_gradients(plan).items():
        front = lead(roles, p.inputs[name].dims, True)
        out.append(Array(array, (*front, BATCH, "T", *p.inputs[name].dims), len(front), True))
    for name, dims in plan.factor_dims.items():
        # what depends on no cotangent is the same in every program: the first stores it
        front = lead(roles, dims, True) if leaves([plan.factors[name]], "cot") else ()
        out.append(Array(name, (*front, BATCH, "T", *dims), len(front), True))
    for name, param in p.params.items():
        if slope_key(name) in plan.backward:
            front = lead(roles, param.dims, param.per_batch)
            out.append(Array(f"d_{name}", (*front, *param.axes), len(front), True))
    for s in p.states.values():
        front = lead(roles, s.dims, True)
        out.append(Array(f"d_{s.name}_0", (*front, *s.axes), len(front), True))
    return tuple(out)


def backward_text(plan: Plan) -> Text:
    """The backward kernel in C++."""
    return _Backward(plan).text()


def used(pointers: list[Code], region: list[Code]) -> list[Code]:
    """The declarations of pointers and strides that a region mentions."""
    names = mentioned(region)
    return [one for one in pointers if isinstance(one, Declared) and names & one.takes.keys()]


class _Backward:
    """Collects the regions of the kernel, then prints it."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.roles, self.program = plan, plan.roles, plan.program
        self.arrays = {a.name: a for a in backward_arrays(plan)}
        self.writer = KernelWriter(plan, "backward")
        self.roots = [*plan.backward.values(), *plan.factors.values()]
        self.again = [plan.updates[s] for s in plan.saved_states] if plan.recompute else []
        self.start: list[Code] = []
        self.end: list[Code] = []
        self.zeros: list[str] = []
        self.clear: list[str] = []  # buffers of gradients, zero at first
        self.begin: list[Item] = []
        self.finish: list[Item] = []
        self.items: list[Item] = []
        self.guards: Guards = {}  # what all programs compute alike, and when one stores it
        self.carried: dict[Node, str] = {}
        self.segment_start: list[Code] = []
        self.segment: list[Item] = []

    def point(self, name: str, when: tuple[str, ...] = ()) -> tuple[list[Code], Place]:
        """Pointer lines and place of one array; its zeros, where a condition needs them."""
        if when:
            self.zeros.append(zeros(self.arrays[name]))
        return pointer(self.writer, self.arrays[name], "t", condition(when))

    def value(self, name: str, axes: tuple[str, ...], place: Place) -> Node:
        """A leaf for what lies in memory under a name."""
        n = leaf("value", name, axes)
        self.writer.given[n] = place
        return n

    def text(self) -> Text:
        """The whole kernel."""
        writer, roles = self.writer, self.roles
        every_root = [*self.roots, *self.again]
        params = param_pointers(writer, self.arrays, every_root)
        token = input_pointers(writer, self.arrays, every_root, 0)
        token += self._saved(every_root)
        token += self._cotangents()
        token += self._gradients()
        self._parameters()
        self._states(token)
        fixed = writer.invariants(every_root)
        writer.add("fixed", [maker(roles, n) for n in fixed])
        writer.add("begin", self.begin)
        writer.add("load", self.segment)
        self._steps(fixed)
        writer.add("end", self.finish)
        settle(writer, self.carried, ("token", "again"))
        self._segment_targets()
        return self._print(params, token)

    def _steps(self, fixed: list[Node]) -> None:
        """The regions of a step: run again, and backward."""
        writer = self.writer
        if not self.plan.recompute:
            writer.add("again", [])
            writer.add("token", self.items, self.carried, fixed).guards = self.guards
            return
        late = depends([i.value for i in self.items], self.carried)
        forth = self._again_items() + [i for i in self.items if i.value not in late and i.kind != "state"]
        back = [i for i in self.items if i not in forth]
        first, second = writer.add("again", forth, None, fixed), writer.add("token", back, self.carried, fixed)
        needed = set(second.region.dear(second.nests))
        both = [n for n in first.region.dear(first.nests) if n in needed]
        writer.slotted = set(both)
        writer.add("again", forth, None, fixed, both).guards = self.guards
        writer.add("token", back, self.carried, [*fixed, *both]).guards = self.guards

    def _saved(self, roots: list[Node]) -> list[Code]:
        lines: list[Code] = []
        for n in leaves(roots, "value"):
            more, self.writer.given[n] = self.point(n.text("name"))
            lines += more
        return lines

    def _cotangents(self) -> list[Code]:
        lines: list[Code] = []
        for n in leaves(self.roots, "cot"):
            name = n.text("name")
            if name in self.program.output_decls:
                when = first_only(self.roles, self.program.output_decls[name].dims)
                more, self.writer.given[n] = self.point(f"d_{name}", when)
                lines += more
        return lines

    def _gradients(self) -> list[Code]:
        lines: list[Code] = []
        wanted = [(array, self.plan.backward[key], self.program.inputs[name].axes)
                  for key, (array, name, _) in input_gradients(self.plan).items()]
        factors = [(name, self.plan.factors[name], dims) for name, dims in self.plan.factor_dims.items()]
        wanted += [(name, n, (BATCH, *dims)) for name, n, dims in factors]
        self.guards = {name: first_only(self.roles, dims) for name, n, dims in factors if not leaves([n], "cot")}
        for array, n, axes in wanted:
            more, self.writer.targets[array] = self.point(array)
            lines += more
            self.items.append(Item("out", n, self.roles.local(axes), array))
        return lines

    def _parameters(self) -> None:
        for name, param in self.program.params.items():
            root = self.plan.backward.get(slope_key(name))
            if root is None:
                continue
            local = self.roles.local(param.axes)
            buffer = f"g_{ident(name)}"
            *rest, last = local or ("",)
            swapped = bool(rest) and rest[-1] != BATCH and self.writer.few(last) and not self.writer.few(rest[-1])
            self.writer.buffers[buffer] = (*rest[:-1], last, rest[-1]) if swapped else local
            self.items.append(Item("grow", root, local, f"w.{buffer}"))
            self.clear.append(buffer)
            n = self.value(f"w.{buffer}", tuple(local), self.writer.place_of(buffer))
            more, self.writer.targets[f"d_{name}"] = self.point(f"d_{name}")
            self.end += more
            self.finish.append(Item("out", n, local, f"d_{name}"))

    def _states(self, token: list[Code]) -> None:
        plan, writer, roles = self.plan, self.writer, self.roles
        for s in self.program.states.values():
            local = roles.local(s.axes)
            buffer = f"d_{ident(s.name)}"
            writer.buffers[buffer] = local
            cot = leaf("cot", next_key(s.name), s.axes)
            writer.given[cot] = writer.place_of(buffer)
            self.carried[cot] = f"w.{buffer}"
            more, place = self.point(f"d_{s.name}_T", first_only(roles, s.dims))
            self.start += more
            self.begin.append(Item("out", self.value(f"d_{s.name}_T", s.axes, place), local, f"w.{buffer}"))
            self.items.append(Item("state", plan.backward.get(prev_key(s.name), const(0.0)), local, f"w.{buffer}"))
            more, writer.targets[f"d_{s.name}_0"] = self.point(f"d_{s.name}_0")
            self.end += more
            self.finish.append(Item("out", cot, local, f"d_{s.name}_0"))
        for name in plan.saved_states:
            s = self.program.states[name]
            more, place = self.point(f"{name}_kept")
            if not plan.recompute:
                token += more
                writer.given[s.leaf()] = place
                continue
            self.segment_start += more
            buffer = f"seg_{ident(name)}"
            writer.buffers[buffer] = roles.local(s.axes)
            writer.segments[buffer] = 1
            writer.given[s.leaf()] = writer.place_of(buffer)
            self.segment.append(Item("out", self.value(f"{name}_kept", s.axes, place), roles.local(s.axes), f"first.{buffer}"))

    def _again_items(self) -> list[Item]:
        if not self.plan.recompute:
            return []
        return [Item("out", self.plan.updates[s], self.roles.local(self.program.states[s].axes), f"next.seg_{ident(s)}")
                for s in self.plan.saved_states]

    def _segment_targets(self) -> None:
        writer = self.writer
        for name in self.plan.saved_states if self.plan.recompute else ():
            buffer = f"seg_{ident(name)}"
            place = writer.place_of(buffer)
            writer.given[self.program.states[name].leaf()] = place
            writer.targets[f"first.{buffer}"] = Place(f"w.{buffer}", place.strides, inside=True)
            writer.targets[f"next.{buffer}"] = Place(f"next_{buffer}", place.strides, inside=True)
        for n in list(writer.given):
            if n.op == "leaf" and n.text("kind") == "value" and n.text("name").startswith("w."):
                writer.given[n] = writer.place_of(n.text("name")[2:])

    def _print(self, params: list[Code], token: list[Code]) -> Text:
        plan, writer, roles = self.plan, self.writer, self.roles
        every = plan.every
        clear: list[Code] = [f"fill(w.{name}, {buffer_size(writer.buffers[name])}, real(0));" for name in self.clear]
        arrays = tuple(self.arrays.values())
        head = [*struct("Backward", arrays), "", *writer.scratch("BackwardScratch"), "", *dict.fromkeys(self.zeros)]
        lines: list[Code] = [
            opened(roles, "backward", plan.teams), *open_program(plan, "backward"), *params, *indented(self.start, 1),
            *indented(first_member(plan, clear), 1),
            *writer.region("pack", 1), *lists(writer, self.arrays), *writer.region("fixed", 1), *writer.region("begin", 1),
        ]
        if plan.recompute:
            sizes = {b: buffer_size(writer.buffers[b]) for b in sorted(writer.segments)}
            slots = [declared(f"real* const p_{b} = w.{b} + slot * ({size});", f"p_{b}") for b, size in sizes.items()]
            ahead = [declared(f"real* const next_{b} = w.{b} + (slot + 1) * ({size});", f"next_{b}")
                     for b, size in sizes.items()]
            step: list[Code] = [declared("const i64 step = first + slot;", "step"), TIME]
            again_text, token_text = writer.region("again", 3, ("fixed",)), writer.region("token", 3, ("fixed",))
            lines += [
                declared(f"  const i64 segments = (T + {every - 1}) / {every};", "segments"),
                "  for (i64 segment = segments - 1; segment >= 0; --segment) {",
                f"    const i64 first = segment * {every}, count = std::min<i64>({every}, T - first);",
                *indented(self.segment_start, 2), *writer.region("load", 2),
                "    for (i64 slot = 0; slot < count; ++slot) {  // the states of the segment, again",
                *indented([*step, *used([*token, *slots, *ahead], again_text)], 3),
                *again_text,
                "    }",
                "    for (i64 slot = count - 1; slot >= 0; --slot) {",
                *indented([*step, *used([*token, *slots], token_text)], 3),
                *token_text,
                "    }",
                "  }",
            ]
        else:
            lines += [
                declared("  for (i64 step = T - 1; step >= 0; --step) {", "step"),
                f"    {TIME}", *onward(plan, "-way", 2),
                *indented(token, 2),
                *writer.region("token", 2, ("fixed",)),
                "  }",
            ]
        lines += [*indented(self.end, 1), *writer.region("end", 1), "  return 0;", "}", ""]
        lanes = lanes_back(plan)
        text = [*head, *outlined(lines), *in_lanes(writer, lanes)]
        text += entry(writer, "backward", arrays, instead=lanes.instead if lanes else None)
        return Text("\n".join(text), frozenset(writer.mentions | ({"fill"} if clear else set())))
