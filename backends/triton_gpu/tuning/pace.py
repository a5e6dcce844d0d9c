"""When a call takes which kernels: the rule, as a function and as the text that an emitted file holds of it.

In: what one block costs in each kernel, by the model that chose the tiles. Out: whether blocks run sooner in phases (the
states one block after the other, all else for all blocks at once) than in one kernel; and the same rule as Python text, with
its numbers, so that what a report counts and what a launcher does are one thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LAUNCH = 2000  # nanoseconds from the end of a kernel to the beginning of the next one


@dataclass(frozen=True)
class Pace:
    """One kernel. resident: programs that share a unit; alone, busy: nanoseconds of a block where a program has the unit to
    itself, and where so many share it; moved: bytes that a block moves; walks: whether a program does one block after the
    other; launches: of the kernel, and of what adds up its results."""

    resident: int = 1
    alone: int = 1000
    busy: int = 1000
    moved: int = 0
    walks: bool = True
    launches: int = 1

    def time(self, programs: int, blocks: int, units: int, bandwidth: int) -> int:
        """Modelled nanoseconds. programs: of one block, where each does one; bandwidth: bytes a nanosecond."""
        programs, turns = (programs, blocks) if self.walks else (programs * blocks, 1)
        waves, rest = divmod(-(-programs // units), self.resident)
        last = max(self.alone, self.busy * rest // self.resident) if rest else 0  # fewer programs share a unit in the last wave
        return max(turns * (waves * self.busy + last), programs * turns * self.moved // bandwidth)


@dataclass(frozen=True)
class Pacing:
    """What a launcher is told. few: sequences of up to so many steps take them one by one; enough: programs of the kernel
    `again`, of which more would not be done sooner; kernels: by name, those that the
    model has timed; words: at what sizes, and for what."""

    few: int = 1
    enough: int = 1
    kernels: Mapping[str, Pace] = field(default_factory=dict)
    bandwidth: int = 1
    words: str = "not timed"

    def pace(self, kernel: str) -> Pace:
        """That of a kernel; where none was timed, one by which several kernels never pay."""
        return self.kernels.get(kernel, Pace())

    def way(self, blocks: int, units: int, ways: Sequence[Mapping[str, int]]) -> int:
        """Which of several ways takes least time, of equals the first. ways: the kernels of each, and how many programs they
        have, of one block where each does one; blocks: of a sequence; units: of the device. One block takes the first."""
        times = [sum(self.time(name, n, blocks, units) for name, n in way.items()) for way in ways]
        return times.index(min(times)) if blocks > 1 else 0

    def time(self, kernel: str, programs: int, blocks: int, units: int) -> int:
        """Modelled nanoseconds of a kernel, with its launches."""
        one = self.pace(kernel)
        return LAUNCH * one.launches + one.time(programs, blocks, units, self.bandwidth)

    def text(self, ways: Mapping[str, Sequence[Sequence[str]]]) -> str:
        """The rule as an emitted file has it. ways: by what is done, the kernels of each way to do it."""
        several = (one for some in ways.values() if len(some) > 1 for one in some)
        names = dict.fromkeys(name for one in several for name in one)
        paces = {name: self.pace(name) for name in names}
        told = ((name, (p.resident, p.alone, p.busy, p.moved, p.walks, p.launches)) for name, p in paces.items())
        rows = [f'"{name}": {row},' for name, row in told]
        return _TEXT.format(words=self.words, rows="\n    ".join(rows)).strip()

    @property
    def function(self) -> str:
        """What asks it."""
        return _FUNCTION.format(bandwidth=self.bandwidth, launch=LAUNCH).strip()


_TEXT = '''
# Programs that share a multiprocessor, nanoseconds of a block of one alone there and of so many, bytes that a block moves,
# whether a program does one block after the other, and launches: by the model of the tiles, for {words}.
_PACE = {{
    {rows}
}}
'''
_FUNCTION = '''
def _way(paces, x, blocks, *ways):
    """Which of several ways to do a call's work takes least time by the model. Each is its kernels and how many programs they
    have: of one block, where each does one."""
    if blocks <= 1 or x.device.type != "cuda":
        return 0
    units = torch.cuda.get_device_properties(x.device).multi_processor_count

    def time(name, programs):
        resident, alone, busy, moved, walks, launches = paces[name]
        programs, turns = (programs, blocks) if walks else (programs * blocks, 1)
        waves, rest = divmod(-(-programs // units), resident)
        last = max(alone, busy * rest // resident) if rest else 0
        return {launch} * launches + max(turns * (waves * busy + last), programs * turns * moved // {bandwidth})

    return min(range(len(ways)), key=lambda i: sum(time(*one) for one in ways[i].items()))
'''
