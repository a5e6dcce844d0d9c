"""When a call takes which kernels: the rule, as a function and as the text that an emitted file holds of it.

In: what one block costs in each kernel, by the model that chose the tiles. Out: whether blocks run sooner in phases (the
states one block after the other, all else for all blocks at once) than in one kernel; and the same rule as Python text, with
its numbers, so that what a report counts and what a launcher does are one thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LAUNCH = 2000  # nanoseconds from the end of a kernel to the beginning of the next one


@dataclass(frozen=True)
class Pace:
    """One kernel. resident: programs that share a unit; busy: nanoseconds of a block where so many do; moved: bytes that a
    block moves; walks: whether a program does one block after the other; launches: of the kernel, and of what adds up its
    results."""

    resident: int = 1
    busy: int = 1000
    moved: int = 0
    walks: bool = True
    launches: int = 1

    def time(self, programs: int, blocks: int, units: int, bandwidth: int) -> int:
        """Modelled nanoseconds. programs: of one block, where each does one; bandwidth: bytes a nanosecond."""
        programs, turns = (programs, blocks) if self.walks else (programs * blocks, 1)
        waves = -(-programs // (self.resident * units))
        return max(waves * turns * self.busy, programs * turns * self.moved // bandwidth)


@dataclass(frozen=True)
class Pacing:
    """What a launcher is told. few: sequences of up to so many steps take them one by one; kernels: by name, those that the
    model has timed; apart: the phases that do a kernel's work; words: at what sizes, and for what."""

    few: int = 1
    kernels: Mapping[str, Pace] = field(default_factory=dict)
    apart: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bandwidth: int = 1
    words: str = "not timed"

    def pace(self, kernel: str) -> Pace:
        """That of a kernel; where none was timed, one by which phases never pay."""
        return self.kernels.get(kernel, Pace())

    def in_phases(self, kernel: str, programs: int, blocks: int, units: int, phases: Mapping[str, int]) -> bool:
        """Whether the phases are faster than `kernel`. programs, phases: how many programs each has, of one block where
        each does one; blocks: of a sequence; units: of the device. A single block takes the one kernel whatever this says."""
        times = (self.pace(name).time(count, blocks, units, self.bandwidth) for name, count in phases.items())
        return sum(times) + self.more(kernel) < self.pace(kernel).time(programs, blocks, units, self.bandwidth)

    def more(self, kernel: str) -> int:
        """The nanoseconds that the phases' launches take more."""
        return LAUNCH * (sum(self.pace(p).launches for p in self.apart[kernel]) - self.pace(kernel).launches)

    def text(self) -> str:
        """The rule as an emitted file has it."""
        names = dict.fromkeys((*self.apart, *(p for phases in self.apart.values() for p in phases)))
        paces = {name: self.pace(name) for name in names}
        rows = [f'"{name}": ({p.resident}, {p.busy}, {p.moved}, {p.walks}),' for name, p in paces.items()]
        more = ", ".join(f'"{kernel}": {self.more(kernel)}' for kernel in self.apart)
        return _TEXT.format(words=self.words, rows="\n    ".join(rows), more=more, bandwidth=self.bandwidth).strip()


_TEXT = '''
# Programs that share a multiprocessor, nanoseconds of a block there, bytes that it moves, and whether a program does one block
# after the other: by the model of the tiles, for {words}.
_PACE = {{
    {rows}
}}
_MORE_LAUNCHES = {{{more}}}  # nanoseconds, where phases do the same


def _in_phases(kernel, programs, blocks, x, **phases):
    """Whether a kernel's work is sooner done in phases, each of so many programs: of one block where each does one."""
    if x.device.type != "cuda":
        return False
    units = torch.cuda.get_device_properties(x.device).multi_processor_count

    def time(name, programs):
        resident, busy, moved, walks = _PACE[name]
        programs, turns = (programs, blocks) if walks else (programs * blocks, 1)
        return max(-(-programs // (resident * units)) * turns * busy, programs * turns * moved // {bandwidth})

    apart = sum(time(name, count) for name, count in phases.items())
    return apart + _MORE_LAUNCHES[kernel] < time(kernel, programs)
'''
