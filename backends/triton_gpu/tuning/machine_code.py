"""Machine code of an NVIDIA kernel -> how often a program runs what: the figures that the model of a multiprocessor prices.

In: SASS as `cuobjdump -sass` prints it, and the text of Triton's IR, whose loops tell how often a program runs each loop of the
machine code. Out: `Work` by kind, of one warp, as run and not as written. It is plain Python that imports nothing of the
compiler: the toolchain's worker loads it as a file.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

Executed = dict[str, float]
"""How often one warp of a program does what:

issue: instructions; lsu: cycles of the load/store unit (a shuffle 1; a load or store 1, 2 or 4 by its width); special: MUFU;
half: instructions that half of a multiprocessor's lanes do; mma: cycles of a quarter's tensor core by mma.sync;
wgmma: cycles of all four by products of a warp group, both at the full rate of Hopper; barrier: barriers and waits for
products; wait: groups of loads that are waited for at once, and of loads from local memory; bytes: between a warp and the
second-level cache; shuffle: shuffles.
"""

LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.x]*)([^;]*);", re.MULTILINE)
STEPS = 64
LEAVES = 30  # instructions of a program that has nothing to do
CHAIN = 2.2  # cycles from an instruction of a warp to the next one, where no other warp fills them
MISS = 700  # cycles of a load that nothing fetched ahead, half of them from the second-level cache
AHEAD = int(MISS / CHAIN)  # instructions of a warp that take as long as a load
TOGETHER = 48  # instructions between two loads that are waited for together
MMA, WGMMA = 4 / 2048, 1 / 2048  # cycles of one of Hopper's tensor cores, and of all four, for a multiply-add in bf16
RATES = {"TF32": 2.0, "S8": 0.5, "E4M3": 0.5, "E5M2": 0.5}  # cycles for bf16's one
HALF = ("IMAD", "LOP3", "SHF", "ISETP", "SEL", "FSEL", "PRMT", "FSETP", "PLOP3", "F2FP", "FMNMX", "LEA", "SGXT", "P2R", "R2P")


@dataclass(frozen=True)
class Instruction:
    """One line of SASS: its address, its name with all that follows dots, its operands."""

    at: int
    name: str
    operands: str


@dataclass(frozen=True)
class Loop:
    """A loop of the machine code: from its first address to the branch back."""

    first: int
    last: int

    def holds(self, at: int) -> bool:
        """Whether an address lies in it."""
        return self.first <= at <= self.last


class Text:
    """A kernel's machine code: what is run together, and in which loops."""

    def __init__(self, sass: str) -> None:
        lines = list(instructions(sass))
        self.loops = _loops(lines)
        self.parts: list[tuple[tuple[int, ...], Executed]] = []
        for inside, group in groupby(lines, key=lambda one: tuple(i for i, x in enumerate(self.loops) if x.holds(one.at))):
            self.parts.append((inside, _work(list(group), bool(inside))))

    def executed(self, ir: str, values: Mapping[str, int]) -> Executed:
        """What one warp of a program runs. values: of the kernel's arguments, and under ".x", ".y" and ".z" the
        program's numbers, 0 where not given."""
        told = trips(ir, values)
        if told is None:
            return {"issue": LEAVES}
        counts = matched(self.loops, told)
        total: Executed = defaultdict(float)
        for inside, work in self.parts:
            for name, amount in work.items():
                total[name] += prod(counts[i] for i in inside) * amount
        return dict(total)


def turns(sass: str, ir: str, arguments: Iterable[str]) -> dict[str, tuple[float, float]]:
    """By kind: what one warp runs for each `STEPS` steps of a sequence that its program walks, and what once."""
    text = Text(sass)
    few, many = (dict.fromkeys(arguments, 1 << 20) | {"T": n * STEPS, "N_STEPS": n * STEPS} for n in (64, 128))
    at_few, at_many = text.executed(ir, few), text.executed(ir, many)
    found = {}
    for name, amount in at_many.items():
        each = (amount - at_few.get(name, 0.0)) / 64
        found[name] = (round(each, 2), round(amount - 128 * each, 2))
    return {name: both for name, both in sorted(found.items()) if any(both)}


def instructions(sass: str) -> Iterator[Instruction]:
    """The lines of SASS, without what does nothing."""
    for at, _, name, operands in LINE.findall(sass):
        if name != "NOP":
            yield Instruction(int(at, 16), name, operands)


def _loops(lines: Iterable[Instruction]) -> list[Loop]:
    """Every branch back, outer loops first; several to one place are one loop."""
    found: dict[int, int] = {}
    for one in lines:
        target = re.search(r"0x([0-9a-f]+)", one.operands) if one.name.startswith("BRA") else None
        if target is not None and int(target[1], 16) < one.at:
            first = int(target[1], 16)
            found[first] = max(found.get(first, 0), one.at)
    return [Loop(first, last) for first, last in sorted(found.items())]


def matched(loops: list[Loop], told: list[float]) -> list[float]:
    """How often each loop of the machine code runs. Those of the IR come in the same order; where some were unrolled, the
    shortest are; where the machine code has more, such as what is left of a loop in parts, these run once."""
    while len(told) > len(loops):
        told = [n for i, n in enumerate(told) if i != told.index(min(told))]
    longest = sorted(loops, key=lambda one: one.first - one.last)[: len(told)]
    counts = iter(told)
    return [next(counts) if one in longest else 1.0 for one in loops]


def _work(group: list[Instruction], again: bool) -> Executed:
    """What one run of neighbouring instructions is. again: whether it lies in a loop."""
    total: Executed = defaultdict(float)
    last = -TOGETHER
    for at, one in enumerate(group):
        name, _, rest = one.name.partition(".")
        total["issue"] += 1
        if name == "SHFL":
            total["shuffle"] += 1
        if name in ("LDG", "LD", "LDL"):
            total["wait"] += _waited(_distance(group, at, again)) if at - last >= TOGETHER else 0.0
            last = at
        if name in ("LDG", "STG", "LDGSTS"):
            total["bytes"] += 128 * width(rest)
        if name in ("SHFL", "LDS", "STS", "LDSM", "STSM", "LDG", "STG", "LDGSTS", "LDL", "STL", "ATOMS", "ATOMG", "RED"):
            total["lsu"] += width(rest)
        if name == "MUFU":
            total["special"] += 1
        if name in ("BAR", "SYNCS") or one.name.startswith("WARPGROUP.DEPBAR"):
            total["barrier"] += 1
        if name in HALF:
            total["half"] += 1
        if name in ("HMMA", "HGMMA", "QGMMA", "IMMA"):
            total["wgmma" if "GMMA" in name else "mma"] += _product(one)
    return total


def _waited(distance: int) -> float:
    """The part of a load's time for which a warp waits that goes on with so many instructions."""
    return max(0.0, 1 - distance / AHEAD) if distance >= TOGETHER else 1.0


def _distance(group: list[Instruction], at: int, again: bool) -> int:
    """How many instructions after a load something takes what it loads; in a loop that may be in its next turn."""
    found = re.match(r"\s*R(\d+)\b", group[at].operands)
    if found is None:
        return 0
    loaded = {str(int(found[1]) + i) for i in range(width(group[at].name))}
    order = [*range(at + 1, len(group)), *(range(at) if again else ())]
    for steps, i in enumerate(order, 1):
        _, _, given = group[i].operands.partition(",")
        if loaded & set(re.findall(r"\bR(\d+)\b", given)):
            return steps
    return 0


def width(rest: str) -> int:
    """Words of four bytes a lane."""
    parts = rest.split(".")
    if "128" in parts or "4" in parts:
        return 4
    return 2 if "64" in parts or "2" in parts else 1


def _product(one: Instruction) -> float:
    """Cycles of a product: `HMMA.16816.F32.BF16`, `HGMMA.64x64x16.F32.BF16`."""
    rate = next((cycles for kind, cycles in RATES.items() if f".{kind}" in one.name), 1.0)
    wide = re.search(r"GMMA\.(\d+)x(\d+)x(\d+)", one.name)
    if wide:
        m, n, k = map(int, wide.groups())
        return m * n * k * WGMMA * rate
    small = re.search(r"MMA\.(\d+)", one.name)
    m, n, k = {"1688": (16, 8, 8), "1684": (16, 8, 4), "16832": (16, 8, 32)}.get(small[1] if small else "", (16, 8, 16))
    return m * n * k * MMA * rate


def trips(ir: str, values: Mapping[str, int]) -> list[float] | None:
    """How often each loop of the IR runs, in the order of the text; 1 where that depends on data. None for a program that has
    nothing to do and leaves."""
    known: dict[str, int] = {f"%{name}": n for name, n in values.items()}
    leaving = set(_LEAVING.findall(ir))
    found = []
    for line in ir.splitlines():
        given = _ASSIGNED.match(line)
        if given is not None:
            value = _value(given[2], given[3], known)
            if value is not None:
                known[given[1]] = value
        branch = _BRANCH.search(line)
        if branch is not None and branch[1] in known and branch[2 if known[branch[1]] else 3] in leaving:
            return None
        loop = _FOR.search(line)
        if loop is not None:
            first, end, step = (known.get(name) for name in loop.groups()[1:])
            whole = first is not None and end is not None and step
            found.append(float(max(0, -(-(end - first) // step))) if whole else 1.0)  # type: ignore[operator]
            if first is not None:
                known[loop[1]] = first
    return found


_LEAVING = re.compile(r"\^(bb\d+):[^\n]*\n\s*tt\.return")
_BRANCH = re.compile(r"cf\.cond_br (%[\w#-]+), \^(\w+), \^(\w+)")
_ASSIGNED = re.compile(r"\s*(%[\w#-]+) = ([\w.]+) (.*)")
_FOR = re.compile(r"scf\.for (%[\w-]+) = (%[\w#-]+) to (%[\w#-]+) step (%[\w#-]+)")
_TWO: Mapping[str, Any] = {
    "addi": lambda a, b: a + b, "subi": lambda a, b: a - b, "muli": lambda a, b: a * b,
    "divsi": lambda a, b: int(a / b) if b else 0, "divui": lambda a, b: a // b if b else 0,
    "remsi": lambda a, b: a - b * int(a / b) if b else 0, "ceildivsi": lambda a, b: -(-a // b) if b else 0,
    "minsi": min, "maxsi": max, "shli": lambda a, b: a << b, "shrsi": lambda a, b: a >> b, "andi": lambda a, b: a & b,
}  # fmt: skip
_COMPARED: Mapping[str, Any] = {
    "slt": lambda a, b: a < b, "sle": lambda a, b: a <= b, "sgt": lambda a, b: a > b, "sge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
}  # fmt: skip


def _value(op: str, rest: str, known: Mapping[str, int]) -> int | None:
    """The value of an integer operation of the IR, as far as it is known."""
    if "tensor<" in rest:
        return None
    kind = op.rpartition(".")[2]
    if kind == "constant":
        number = re.match(r"(-?\d+|true|false)\b", rest)
        if number is None or "." in rest.split(" ")[0]:
            return None
        return int({"true": "1", "false": "0"}.get(number[1], number[1]))
    if kind == "get_program_id":
        return known.get(f"%.{rest[0]}", 0)
    args = [known.get(name) for name in re.findall(r"%[\w#-]+", rest)]
    if not args or any(a is None for a in args):
        return None
    if kind in ("extsi", "extui", "trunci", "index_cast"):
        return args[0]
    if kind == "cmpi" and len(args) == 2:
        compare = _COMPARED.get(rest.partition(",")[0].strip())
        return None if compare is None else int(compare(*args))
    if kind == "select" and len(args) == 3:
        return args[1] if args[0] else args[2]
    return _TWO[kind](*args) if kind in _TWO and len(args) == 2 else None
