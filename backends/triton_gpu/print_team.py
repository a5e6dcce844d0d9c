"""The loop tree of a team's kernel -> the text of one `@triton.jit` function.

As `print_kernel`, and: a program knows its team; what the next step loads is held as it came (`n_x`) until its turn; programs
meet (`device_team`). A launch does some of all teams, from the program FIRST on, as many as the device has room for.
"""

from __future__ import annotations

from seqc.backends.triton_gpu.kernel import Fetch, Item, Kernel, Load, Loop, Meet
from seqc.backends.triton_gpu.print_kernel import KernelPrinter, Printed
from seqc.backends.triton_gpu.schedule import Schedule
from seqc.backends.triton_gpu.team import BACKWARD, FORWARD, INFER
from seqc.backends.triton_gpu.values import Text
from seqc.ir.graph import Node


def print_team(plan: Schedule) -> dict[str, Printed]:
    """The kernels of a team, by name."""
    forward = _TeamPrinter(plan, plan.kernel(FORWARD)).print()
    backward = _TeamPrinter(plan, plan.kernel(BACKWARD)).print()
    return {FORWARD: forward, INFER: forward.without_saving(plan.kernel(INFER)), BACKWARD: backward}


class _TeamPrinter(KernelPrinter):
    def __init__(self, schedule: Schedule, kernel: Kernel) -> None:
        super().__init__(schedule, kernel)
        self.sent: dict[Node, str] = {}

    def program_id(self) -> str:
        """Which program of all launches it is."""
        return "i_p = tl.program_id(0).to(tl.int64) + " + self.names.use("FIRST")

    def item(self, item: Item) -> None:
        match item:
            case Fetch():
                self.fetch(item)
            case Meet(array, dim, nth, times, reverse):
                step = "T - 1 - i_t" if reverse else "i_t"
                before = f"({step}) * {times} + {nth}" if times > 1 else step
                count = self.names.count[dim]
                self.scope.lines.append(f"meet({self.pointers[array.name]} + i_p // {count}, ({before} + 1) * {count})")
            case Load(ahead=True):
                name = self.var(item.node)
                self.scope.lines.append(f"{name} = {self.sent[item.node]}.to(tl.float32)")
                only = " & ".join(f"({self.names.program(d)} == 0)" for d in item.first_only)
                if only:
                    self.scope.lines.append(f"{name} = tl.where({only}, {name}, 0.0)")
                self.texts[-1][item.node] = Text(name, self.addresses.tile_axes(item.array))
            case _:
                super().item(item)

    def fetch(self, item: Fetch) -> None:
        """Raw loads, of the first step or of the next one; after the last step it is that one again."""
        lines = self.scope.lines
        if item.start:
            lines.append(f"i_start = {'T - 1' if item.reverse else '0'}")
        else:
            lines.append(f"i_next = {'tl.maximum(i_t - 1, 0)' if item.reverse else 'tl.minimum(i_t + 1, T - 1)'}")
        self.addresses.step = "i_start" if item.start else "i_next"
        for load in item.loads:
            at = self.addresses.at(load.array, self.scope, 0, False, load.first_only)
            parts = [*([at.mask] if at.mask else []), *(["T > 0"] if item.start else [])]
            mask = " & ".join(f"({x})" for x in parts) if len(parts) > 1 else "".join(parts)
            name = self.sent.setdefault(load.node, self.names.fresh(f"n_{self.label(load.node)}"))
            masked = f", mask={mask}, other=0.0" if mask else ""
            lines.append(f"{name} = tl.load({self.pointers[load.array.name]}{at.pointer}{masked})")
        self.addresses.step = "i_t"

    def is_staged(self, item: Loop) -> bool:
        """Never: what a step loads of other programs may not be sent for before they meet."""
        return False
