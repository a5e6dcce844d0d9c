"""When a call takes which kernels: the rule, as a function and as the text that an emitted file holds of it.

In: what one block costs in each kernel, by the model that chose the tiles. Out: whether blocks run sooner in two phases (the
states first, one block after the other; then all blocks at once) than in one kernel; and the same rule as Python text, with
its numbers, so that what a report counts and what a launcher does are one thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LAUNCH = 2000  # nanoseconds from the end of a kernel to the beginning of the next one
PHASES = {"forward": ("states", "outputs"), "infer": ("states", "outputs"), "backward": ("cotangents", "gradients")}


@dataclass(frozen=True)
class Pace:
    """One kernel. resident: programs that share a unit; busy: nanoseconds of a block where so many do; moved: bytes that a
    block moves; launches: of the kernel, and of what adds up its results."""

    resident: int = 1
    busy: int = 1000
    moved: int = 0
    launches: int = 1

    def time(self, programs: int, turns: int, units: int, bandwidth: int) -> int:
        """Modelled nanoseconds where so many programs do so many blocks each. bandwidth: bytes a nanosecond."""
        waves = -(-programs // (self.resident * units))
        return max(waves * turns * self.busy, programs * turns * self.moved // bandwidth)


@dataclass(frozen=True)
class Pacing:
    """What a launcher is told. few: sequences of up to so many steps take them one by one; kernels: by name, those that the
    model has timed; words: at what sizes, and for what."""

    few: int = 1
    kernels: Mapping[str, Pace] = field(default_factory=dict)
    bandwidth: int = 1
    words: str = "not timed"

    def pace(self, kernel: str) -> Pace:
        """That of a kernel; where none was timed, one by which two phases never pay."""
        return self.kernels.get(kernel, Pace())

    def in_two(self, kernel: str, programs: int, pieces: int, blocks: int, units: int) -> bool:
        """Whether two phases are faster than `kernel`. programs: of the one kernel; pieces: of the first phase; units: of
        the device. A pack, or a single block, takes the one kernel whatever this says."""
        first, second = map(self.pace, PHASES[kernel])
        whole = self.pace(kernel)
        apart = first.time(pieces, blocks, units, self.bandwidth) + second.time(pieces * blocks, 1, units, self.bandwidth)
        more = LAUNCH * (first.launches + second.launches - whole.launches)
        return apart + more < whole.time(programs, blocks, units, self.bandwidth)

    def text(self) -> str:
        """The rule as an emitted file has it."""
        names = list(dict.fromkeys((*PHASES, *(p for two in PHASES.values() for p in two))))
        rows = [f'"{k}": ({p.resident}, {p.busy}, {p.moved}),' for k, p in ((k, self.pace(k)) for k in names)]
        more = {k: LAUNCH * (sum(self.pace(p).launches for p in two) - self.pace(k).launches) for k, two in PHASES.items()}
        phases = [f'"{k}": ("{one}", "{two}", {more[k]}),' for k, (one, two) in PHASES.items()]
        return _TEXT.format(
            words=self.words, rows="\n    ".join(rows), phases="\n    ".join(phases), bandwidth=self.bandwidth
        ).strip()


_TEXT = '''
# Programs that share a multiprocessor, nanoseconds of a block there, bytes that it moves: by the model of the tiles, for
# {words}.
_PACE = {{
    {rows}
}}
# The two phases that do the same, and the nanoseconds that more launches take.
_PHASES = {{
    {phases}
}}


def _in_two(kernel, programs, pieces, blocks, x):
    """Whether a kernel's work is sooner done in two: the first phase of `pieces` programs, the second all blocks at once."""
    if x.device.type != "cuda":
        return False
    units = torch.cuda.get_device_properties(x.device).multi_processor_count

    def time(name, programs, turns):
        resident, busy, moved = _PACE[name]
        return max(-(-programs // (resident * units)) * turns * busy, programs * turns * moved // {bandwidth})

    first, second, launches = _PHASES[kernel]
    apart = time(first, pieces, blocks) + time(second, pieces * blocks, 1) + launches
    return apart < time(kernel, programs, blocks)
'''
