"""The loop tree of a team's kernel -> the text of one `@triton.jit` function.

As `print_kernel`, and: a program knows its team; what the next step loads is held as it came (`n_x`) until its turn; programs
meet (`device_team`). A launch does some of all teams, from the program FIRST on, as many as the device has room for.
"""

from __future__ import annotations

from seqc.backends.triton_gpu.kernel import MODES, Item, Loop, Meet
from seqc.backends.triton_gpu.print_kernel import KernelPrinter, Printed
from seqc.backends.triton_gpu.schedule import Schedule
from seqc.backends.triton_gpu.team import BACKWARD, FORWARD, INFER


def print_team(plan: Schedule) -> dict[str, Printed]:
    """The kernels of a team, by name."""
    forward = _TeamPrinter(plan, plan.kernel(FORWARD)).print()
    backward = _TeamPrinter(plan, plan.kernel(BACKWARD)).print()
    return {FORWARD: forward, INFER: forward.as_in(plan.kernel(INFER), MODES["infer"]), BACKWARD: backward}


class _TeamPrinter(KernelPrinter):
    def program_id(self) -> str:
        """Which program of all launches it is."""
        return "i_p = tl.program_id(0).to(tl.int64) + " + self.names.use("FIRST")

    def item(self, item: Item) -> None:
        match item:
            case Meet(array, dim, nth, times, reverse):
                step = "T - 1 - i_t" if reverse else "i_t"
                before = f"({step}) * {times} + {nth}" if times > 1 else step
                count, meet = self.names.count[dim], self.names.call("meet")
                self.scope.lines.append(f"{meet}({self.pointers[array.name]} + i_p // {count}, ({before} + 1) * {count})")
            case _:
                super().item(item)

    def is_staged(self, item: Loop) -> bool:
        """Never: what a step loads of other programs may not be sent for before they meet."""
        return False
