"""The Python side of kernels that several programs for each head share out: who launches them, and how many at once.

In: a `Schedule` with a team, and the kernels as printed. Out: the functions of `launcher`, which take a team where one program
has no room for what it keeps, and the text of what they ask. Programs of a team wait for each other: `_team_triton` allows no
more of them in a launch than the device runs at once, by the shared memory that the tile model counts (no less than the
toolchain takes), and as many registers as a thread may have. The launch is cooperative: a device refuses what it cannot hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seqc.backends.triton_gpu.extents import TAB
from seqc.backends.triton_gpu.kernel import Array
from seqc.backends.triton_gpu.launcher import Launcher
from seqc.backends.triton_gpu.print_kernel import Printed
from seqc.backends.triton_gpu.roles import ALL, COLUMNS
from seqc.backends.triton_gpu.team import UNITS
from seqc.backends.triton_gpu.tuning.kernel_model import BARRIERS
from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.ir.block import BATCH

WARPS = 4  # of a program, each of which takes a part of what is contracted
BATCHES = (16, 32)  # sequences of a program; backward, which is told more, would spill with 32
NOMINAL = "sm_90"

_TEAM = '''
_COLUMNS = {piece}  # units of a piece of what all programs of a team have


def _machine(device):
    """(multiprocessors, bytes of shared memory of one, registers of one); of {machine} where there is none to ask."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return {units}, {shared}, {registers}
    told = torch.cuda.get_device_properties(device)
    shared = getattr(told, "shared_memory_per_multiprocessor", 0)
    return told.multi_processor_count, shared, getattr(told, "regs_per_multiprocessor", 65536)


def _alone_triton(kernel, x, {sizes}):
    """Whether one program has room for what a kernel keeps of a head."""
    return sum(_needs_triton(x.element_size(), {sizes})[kernel]) <= _room(x.device)


def _held_triton(kernel, x, {sizes}, each=16):
    """(pieces of its matrices that a program of a team holds, pieces of what it is told that it takes at once, bytes of shared
    memory, programs of a multiprocessor), or None where the device has no room for {per} programs at once.

    How many a multiprocessor runs follows from the shared memory that the kernel needs by the tile model, and from the most
    registers that {threads} threads have; on AMD it is one. Only a program that has one for itself may read again in every step
    what it has no room for.
    """
    units, shared, registers = _machine(x.device)
    kept, told, held, again = _needs_triton(x.element_size(), {sizes}, each)[kernel]
    pieces, found = -(-{dim} // _COLUMNS), None
    share = -(-({per}) // units)
    if share > (1 if torch.version.hip else registers // {held}):
        return None
    room = min(_room(x.device), shared // share - 1024)
    for most in (4, 3, 2, 1):
        at_once = -(-pieces // -(-pieces // most))  # no less in the last turn than in the first
        passing = {barriers} + max(kept, at_once * told)  # sums of the warps' parts take the place of what was told
        rest = room - passing
        fit = pieces if rest >= pieces * held else (rest - again) // held if share == 1 else -1
        if fit >= 0 and (found is None or fit > found[0]):
            need = passing + fit * held + (again if fit < pieces else 0)
            many = 1 if torch.version.hip else max(1, min(shared // (need + 1024), registers // {held}))
            found = fit, at_once, need, many if fit == pieces else 1
    return found


def _team_triton(kernel, x, B, heads, {sizes}, packed):
    """(sequences of a program, programs of a launch, pieces that it holds, pieces that it takes at once) of a kernel whose
    programs wait for each other, {per} for each head: all programs of a launch run at once. A program takes more sequences if
    fewer launches do, and it holds as much then."""
    found, least = None, None
    for each in (16,) if packed or kernel == "team_backward" else {batches}:
        held = _held_triton(kernel, x, {sizes}, each)
        if held is None or (found is not None and held[0] < found[2]):
            break
        many = _machine(x.device)[0] * held[3]
        many -= many % ({per})
        launches = -(-(B if packed else -(-B // each)) * heads * ({per}) // many)
        if found is None or launches < least:
            found, least = (each, many, *held[:2]), launches
    return found


def _least_triton(kernel, needs, x, {sizes}):
    """Bytes of shared memory of a program that does a kernel's work by itself, or as one of a team that the device holds."""
    alone, team = sum(needs[kernel]), _held_triton("team_" + kernel, x, {sizes})
    return alone if team is None else min(alone, team[2])
'''


def team_text(launcher: TeamLauncher) -> str:
    """What the functions ask: whether a team does a kernel's work, and how many programs a launch may have."""
    machine = target_named(NOMINAL)
    threads = WARPS * machine.warp
    held = threads * -(-machine.registers_per_thread // machine.register_granule) * machine.register_granule
    return _TEAM.format(
        machine=f"an {machine.machine}", units=machine.units, shared=machine.shared_per_unit,
        registers=machine.registers_per_unit, sizes=launcher.open_sizes, per=launcher.per_head, threads=threads, held=held,
        batches=BATCHES, dim=launcher.dims[launcher.dim], piece=COLUMNS,
        barriers=BARRIERS,
    ).strip()


class TeamLauncher(Launcher):
    """Prints the functions of a schedule with a team. team: its kernels as printed."""

    team: Mapping[str, Printed]

    def join(self, team: Mapping[str, Printed]) -> None:
        """Take the team's kernels."""
        assert self.schedule.team is not None
        self.team = team
        (self.dim,) = (d for d in self.schedule.team.roles.blocked if d != BATCH)
        self.blocks[self.dim + ALL] = self.fresh(f"{self.blocks[self.dim]}_ALL")
        self.many = self.fresh("many")
        self.first = self.fresh("FIRST")

    @property
    def open_sizes(self) -> str:
        """The sizes that only a call knows."""
        return ", ".join(self.dims[d] for d in self.open)

    @property
    def per_head(self) -> str:
        """How many programs a head has."""
        return f"-(-{self.dims[self.dim]} // {UNITS})"

    def joins(self) -> bool:
        return False

    def unpack(self, kernels: Sequence[Printed], saves: bool, rows: int, chooses: bool = False) -> list[str]:
        """The sizes that the kernels take, and those that teams' kernels take in their place."""
        teams = [self.team[name] for k in kernels if (name := f"team_{k.kernel.name}") in self.team]
        return super().unpack([*kernels, *teams], saves, rows, chooses)

    def sizes_before(self, first: Sequence[Printed]) -> list[str]:
        return []

    def work(self, what: str, there: Sequence[str]) -> list[str]:
        """One program for each head, or a team; what multiplies no matrices needs no room that one program may lack."""
        alone = [*self.sizes([self.printed[what]]), *super().work(what, there)]
        if f"team_{what}" not in self.team:
            return alone
        head = f'if _alone_triton("{what}", {self.main}, {self.open_sizes}):'
        return [head, *(TAB + x for x in alone), "else:", *(TAB + x for x in self.together(self.team[f"team_{what}"]))]

    def together(self, printed: Printed) -> list[str]:
        """The launches of a team's kernel: of as many programs as the device runs at once."""
        assert self.schedule.team is not None
        d, roles = self.dim, self.schedule.team.roles
        heads = " * ".join(self.dims[x] for x in roles.grid) or "1"
        batch, count = self.blocks[BATCH], self.counts[BATCH]
        packed = "cu_seqlens is not None"
        given = f'"{printed.kernel.name}", {self.main}, B, {heads}, {self.open_sizes}, {packed}'
        lines = [
            f"{batch}, {self.many}, HELD, AT_ONCE = _team_triton({given})",
            f"{count} = B if {packed} else -(-B // {batch})",
            f"{self.blocks[d]}, {self.blocks[d + ALL]} = {UNITS}, min(_pad({self.dims[d]}, 16), _COLUMNS)",
        ]
        lines += [line for x in self.program.dims if x != d for line in self.size(x, [printed])]
        mine = [a for a in printed.arrays if a.role in ("grad", "scratch", "factor", "told", "met")]
        programs = f"{count} * {heads} * {self.pieces(d)}" if roles.grid else f"{count} * {self.pieces(d)}"
        lines += [self.allocate(a) for a in mine]
        lines.append(f"for {self.first} in range(0, {programs}, {self.many}):")
        lines += [TAB + x for x in self.launch(printed)]
        return [*lines, *(x for a in mine if (x := self.add_up(a)))]

    def allocate(self, array: Array) -> str:
        if array.role == "met":
            assert self.schedule.team is not None
            teams = " * ".join([self.counts[BATCH], *(self.dims[x] for x in self.schedule.team.roles.grid)])
            return f"{self.local(array.name)} = torch.zeros({teams}, dtype=torch.int32, device={self.any}.device)"
        return super().allocate(array)

    def runtime(self, name: str) -> str:
        return self.first if name == "FIRST" else name

    def grid(self, printed: Printed) -> str:
        if printed.kernel.name not in self.team:
            return super().grid(printed)
        return f"min({self.many}, {super().grid(printed)} - {self.first})"

    def launch(self, printed: Printed) -> list[str]:
        lines = super().launch(printed)
        if printed.kernel.name not in self.team:
            return lines
        lines[-2] += f" launch_cooperative_grid={self.any}.device.type == \"cuda\","
        return lines
