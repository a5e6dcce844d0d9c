"""Combinations of target, toolchain version and kernel shape that are known to give wrong results, as a table.

Comes in: what a kernel does and how it would be launched. Goes out: the entries that forbid it, each with its reason
and what to do instead. An entry holds for every emitted file as long as any supported Triton is affected, since a file
does not know which version will run it. Entries leave the table when `SUPPORTED` has moved past them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Version = tuple[int, int, int]

SUPPORTED: tuple[Version, Version] = ((3, 6, 0), (3, 9, 99))
"""First and last version of Triton that emitted files run on."""

TURNED_ROWS = 64
"""Rows from which on a product with a transposed, cast result is at fault; with fewer, other instructions are used."""


@dataclass(frozen=True)
class Use:
    """A kernel as the table sees it."""

    target: str
    warps: int
    stages: int
    carries_state: bool
    """A loop over time that carries tiles computed by `tl.dot`."""
    turned_rows: int = 0
    """The most rows of a `tl.dot(tl.trans(x), y)` where x is the cast result of another `tl.dot`; 0 where there is none."""
    columns: frozenset[int] = frozenset()
    """The columns of its products whose rows are `TURNED_ROWS` or more steps of a block."""


@dataclass(frozen=True)
class Quarantine:
    """One known fault. None in `most_warps` or `most_stages` sets no limit: the fault needs more than either."""

    reason: str
    remedy: str
    source: str
    targets: tuple[str, ...]
    first: Version
    fixed: Version | None
    most_warps: int | None = None
    """The fault needs more warps than this."""
    most_stages: int | None = None
    """The fault needs more stages than this."""
    needs_state: bool = False
    least_turned_rows: int = 0
    """The fault needs a product with a transposed, cast result of at least so many rows."""
    columns: int | None = None
    """The fault needs a product whose rows are `TURNED_ROWS` or more steps of a block, with so many columns."""
    checked: bool = False
    """The toolchain's worker looks for the fault in the machine code of each kernel, and refuses that one alone."""

    def forbids(self, use: Use, version: Version | None = None) -> bool:
        """Whether `use` may meet the fault, on that version of Triton or on any supported one."""
        first, last = (version, version) if version is not None else SUPPORTED
        return (
            use.target in self.targets
            and last >= self.first
            and (self.fixed is None or first < self.fixed)
            and (self.most_warps is None or use.warps > self.most_warps)
            and (self.most_stages is None or use.stages > self.most_stages)
            and (use.carries_state or not self.needs_state)
            and use.turned_rows >= self.least_turned_rows
            and (self.columns is None or self.columns in use.columns)
            and not self.checked
        )


QUARANTINE: tuple[Quarantine, ...] = (
    Quarantine(
        reason="software pipelining of a loop that carries a state races on Blackwell with four warps or more",
        remedy="one stage, or two warps",
        source="triton-lang/triton issues 9871 and 10590",
        targets=("sm_100",),
        first=(3, 0, 0),
        fixed=(3, 8, 0),
        most_warps=2,
        most_stages=1,
        needs_state=True,
    ),
    Quarantine(
        reason="chunk kernels with eight warps give results that differ from run to run on Hopper and Blackwell",
        remedy="four warps or fewer",
        source="fla-org/flash-linear-attention pull requests 988 and 1229",
        targets=("sm_90", "sm_100"),
        first=(3, 0, 0),
        fixed=(3, 8, 0),
        most_warps=4,
    ),
    Quarantine(
        reason="a product of 64 rows or more with a transposed, cast result is miscompiled on Hopper with four warps",
        remedy="fewer rows, or two warps",
        source="fla-org/flash-linear-attention issues 640 and 984",
        targets=("sm_90",),
        first=(3, 4, 0),
        fixed=(3, 7, 1),
        most_warps=2,
        least_turned_rows=TURNED_ROWS,
    ),
    Quarantine(
        reason="a product of a block of 64 rows or more with 32 columns reads outside of its shared memory on Hopper",
        remedy="16 or 64 columns, or fewer rows",
        source="triton-lang/triton issue 11366",
        targets=("sm_90",),
        first=(3, 6, 0),
        fixed=(3, 8, 0),
        columns=32,
    ),
    Quarantine(
        reason="ptxas before 13.3 may overwrite register operands of an asynchronous product on Hopper",
        remedy="other tiles: the machine code of each kernel that the toolchain is asked about is searched for it",
        source="triton-lang/triton issues 9433 and 11781",
        targets=("sm_90",),
        first=(3, 0, 0),
        fixed=None,
        checked=True,
    ),
)


def quarantined(use: Use, version: Version | None = None) -> Iterator[Quarantine]:
    """The entries that forbid `use`, in table order; `version` narrows from every supported Triton to one."""
    return (entry for entry in QUARANTINE if entry.forbids(use, version))
