"""The loop tree of a team's kernel -> the text of one `@triton.jit` function.

As `print_kernel`, and: a program knows its team; what the next step loads is held as it came (`n_x`) until its turn; programs
meet (`device_team`). All units of the shared dim lie in pieces: a value that has them is a tuple of tiles, each in as many
parts as a program has warps, which add up what they have of a product at its end. A launch does some of all teams, from the
program FIRST on, as many as the device has room for.
"""

from __future__ import annotations

from collections.abc import Iterable

from seqc.backends.triton_gpu.address import Scope
from seqc.backends.triton_gpu.kernel import MODES, Four, Held, Item, Kernel, Loop, Meet, Outputs
from seqc.backends.triton_gpu.print_kernel import KernelPrinter, Printed
from seqc.backends.triton_gpu.schedule import Schedule
from seqc.backends.triton_gpu.team import BACKWARD, FORWARD, INFER
from seqc.backends.triton_gpu.texts import TAB
from seqc.backends.triton_gpu.uses import used_inside
from seqc.emit.expressions import Text
from seqc.ir.graph import Node


def print_team(plan: Schedule) -> dict[str, Printed]:
    """The kernels of a team, by name."""
    forward = _TeamPrinter(plan, plan.kernel(FORWARD)).print()
    backward = _TeamPrinter(plan, plan.kernel(BACKWARD)).print()
    return {FORWARD: forward, INFER: forward.as_in(plan.kernel(INFER), MODES["infer"]), BACKWARD: backward}


class _TeamPrinter(KernelPrinter):
    def __init__(self, schedule: Schedule, kernel: Kernel) -> None:
        super().__init__(schedule, kernel)
        self.adding: dict[Node, str] = {}  # by what is added up, its variable
        self.left: dict[Node, set[Node]] = {}  # and what has not been added to it yet
        self.some = False  # whether some pieces are gone through, of all
        self.fours = {n: four for loop in kernel.loops() for four in loop.fours for n in four.sums}
        self.rows: dict[Four, str] = {}  # what is held of four matrices as one,
        self.last = set[Node]()  # values of the piece at hand that are kept, and that nothing else takes
        self.now: dict[Four, str] = {}  # the piece of it at hand,
        self.together: dict[Four, str] = {}  # and the four sums as one

    def program_id(self) -> str:
        """Which program of all launches it is."""
        return "i_p = tl.program_id(0).to(tl.int64) + " + self.names.use("FIRST")

    def setup_sequence(self) -> None:
        names = self.names
        for d in self.roles.passed:
            extent, tile = names.extent(d), names.tile(d)
            self.scope.lines.append(f"{names.count[d]}: tl.constexpr = ({extent} + {tile} - 1) // {tile}")
        super().setup_sequence()

    def item(self, item: Item) -> None:
        match item:
            case Meet(array, dim, nth, times, reverse):
                step = "T - 1 - i_t" if reverse else "i_t"
                before = f"({step}) * {times} + {nth}" if times > 1 else step
                count, meet = self.names.count[dim], self.names.call("meet")
                self.scope.lines.append(f"{meet}({self.pointers[array.name]} + i_p // {count}, ({before} + 1) * {count})")
            case Held():
                self.held(item)
            case _:
                super().item(item)

    def is_staged(self, item: Loop) -> bool:
        """Never: what a step loads of other programs may not be sent for before they meet."""
        return False

    # ---- pieces ----

    def pass_through(self, item: Loop) -> None:
        """A loop over the pieces of all units, which keeps values of each, and adds up its sums."""
        names, index, several = self.names, self.names.program(item.over), self.names.use(self.names.count[item.over])
        for total, terms in item.totals:
            if total not in self.adding:
                self.begin(total, terms)
        kept = {n: names.fresh(f"held_{self.label(n)}") if item.held else self.var(n) for n in item.keeps}
        self.scope.lines += [f"{name} = ()" for name in kept.values()]
        more = [f"{name} = {name} + ({{{i}}},)" for i, name in enumerate(kept.values())]
        fours = item.fours if item.held else ()
        self.rows |= {four: names.fresh("held_rows") for four in fours}
        self.scope.lines += [f"{self.rows[four]} = ()" for four in fours]
        more += [f"{name} = {name} + ({{{len(kept) + i}}},)" for i, name in enumerate(self.rows[four] for four in fours)]
        within, self.some = self.some, self.some or item.some
        inner = self.each(item.body, list(kept), more, fours)
        self.some = within
        each = f"min({names.use('HELD')}, {several})" if item.held else several
        if item.some:
            step = names.use("AT_ONCE")
            self.scope.lines.append(f"for i_some in tl.static_range(0, {several}, {step}):")
        elif within:
            self.scope.lines.append(f"for {index} in tl.static_range(i_some, min(i_some + AT_ONCE, {several})):")
        else:
            self.scope.lines.append(f"for {index} in tl.static_range({each}):")
        self.scope.lines += [f"{TAB}{line}" for line in inner]
        at = f"{index} - i_some" if within else index
        self.texts[-1].update({n: Text(f"{name}[{at}]", self.values.axes(n)) for n, name in kept.items()})
        for total, _ in item.totals if not within else ():
            self.left[total] -= set(item.sums)
            if not self.left[total]:
                self.end(total)

    def each(self, body: Iterable[Item], kept: list[Node], more: list[str], fours: tuple[Four, ...] = ()) -> list[str]:
        """The lines for one piece. more: what is done with those that are kept, and with four matrices as one, by number."""
        outer, inner = self.scope, Scope(self.scope.rank + 1, self.scope)
        self.scope = inner
        self.texts.append({})
        self.last = {*kept} - used_inside([Outputs(tuple(body))]) - {n for four in fours for n in four.matrices}
        self.body(body)
        codes = [self.find(n).code for n in kept]
        codes += [self.one(four) for four in fours]
        self.texts.pop()
        self.scope, self.values.scope = outer, outer.places
        return [*inner.lines, *(line.format(*codes) for line in more)]

    def one(self, four: Four) -> str:
        """Four matrices as one; zeros for the fourth where there are three."""
        codes = [self.find(x).code for x in four.matrices]
        codes += [f"tl.zeros_like({codes[0]})" for _ in range(4 - len(codes))]
        return f"{self.names.call('four_as_one')}({', '.join(codes)})"

    def define(self, n: Node, text: Text, named: Node | str) -> None:
        """What is only kept is written where it is kept."""
        if n not in self.last:
            return super().define(n, text, named)
        self.texts[-1][n] = text

    def held(self, item: Held) -> None:
        """What is held of the piece; where it is none of those that are, it is loaded."""
        index = self.names.program(self.schedule.roles.passed[0])
        found = [self.find(n).code for n in item.nodes]
        labels = [self.label(n) for n in item.nodes]
        found += [f"{self.rows[four]}[{index}]" for four in item.fours]
        labels += ["rows" for _ in item.fours]
        places = [f"{{{i}}}" for i in range(len(labels))]
        codes = self.each(item.items, list(item.nodes), places, item.fours)
        names = [self.names.fresh(f"b_{label}") for label in labels]
        at = len(codes) - len(places)
        again = [*codes[:at], *(f"{name} = {code}" for name, code in zip(names, codes[at:], strict=True))]
        lines = [f"if {index} < {self.names.use('HELD')}:"]
        lines += [f"{TAB}{name} = {code}" for name, code in zip(names, found, strict=True)]
        self.scope.lines += [*lines, "else:", *(f"{TAB}{line}" for line in again)]
        self.texts[-1].update({n: Text(x, self.values.axes(n)) for n, x in zip(item.nodes, names, strict=False)})
        self.now |= dict(zip(item.fours, names[len(item.nodes) :], strict=True))

    def begin(self, total: Node, terms: tuple[Node, ...]) -> None:
        """What sums are added to: zeros, one of each part of a product."""
        axes = self.values.axes(total)
        shape, name = self.values.shape(axes), self.var(total)
        four = self.fours.get(total)
        if four is not None:
            self.adding[total], self.left[total] = name, set(terms)
            if total is four.sums[0]:
                lengths = [self.names.tile(axis) for axis in axes]
                self.together[four] = self.names.fresh("b_four")
                self.scope.lines.append(f"{self.together[four]} = tl.zeros((4 * {lengths[1]}, {lengths[0]}), tl.float32)")
            return
        self.adding |= dict.fromkeys((total, *terms), name)
        self.left[total] = set(terms)
        products = [n in self.products.of for n in terms]
        if all(products):
            shape = f"({self.names.use('PARTS')}, {shape[1:]}"
        start = f"tl.full({shape}, float('-inf'), tl.float32)" if terms[0].op == "amax" else f"tl.zeros({shape}, tl.float32)"
        self.scope.lines.append(f"{name} = {start}")

    def end(self, total: Node) -> None:
        """What has been added up."""
        name, four = self.adding[total], self.fours.get(total)
        if four is not None:
            if total is four.sums[-1]:
                names = ", ".join([*(self.adding[n] for n in four.sums), *("_" for _ in range(4 - len(four.sums)))])
                self.scope.lines.append(f"{names} = {self.names.call('one_as_four')}({self.together[four]})")
        elif total in self.products.of or total.op == "add":
            self.scope.lines.append(f"{name} = tl.sum({name}, 0)")
        self.texts[-1][total] = Text(name, self.values.axes(total))

    def let(self, n: Node) -> None:
        if n not in self.passed_sums:
            return super().let(n)
        name, product, four = self.adding[n], self.products.of.get(n), self.fours.get(n)
        if four is not None:
            if n is four.sums[0]:
                assert product is not None
                shape = ", ".join(self.names.tile(d) for d in (*product.rows, *product.over))
                told = f"tl.trans(tl.reshape({self.values.operand(product.left)}, ({shape})))"
                name = self.together[four]
                code = f"tl.dot({self.now[four]}, {told}, {name}, input_precision={self.names.use('PRECISION')})"
                self.scope.lines.append(f"{name} = {code}")
            return
        if product is not None:
            left, right = self.values.operands(product)
            line = f"{name} = tl.dot({left}, {right}, {name}, input_precision={self.names.use('PRECISION')})"
        else:
            text = self.values.full(self.values.text(n), self.values.axes(n)).code
            line = f"{name} = tl.maximum({name}, {text})" if n.op == "amax" else f"{name} += {text}"
        self.scope.lines.append(line)
