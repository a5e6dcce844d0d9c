"""Random valid specs: of a number, of a list of choices that can be made smaller, or as a hypothesis strategy.

In: choices. Out: text, the extents of its dims, and the features that it has. One to three families of states, whatever outputs
may be read of them, arguments that nothing reads, a direction, and the statements in any order.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.along_families import BESIDE
from tests.fuzz.families import FAMILIES
from tests.fuzz.further_families import FURTHER, PLANAR, wishes
from tests.fuzz.long_families import FAR_BACK
from tests.fuzz.newer_families import NEW
from tests.fuzz.wider_families import WIDER, fed_back
from tests.fuzz.writer import Expr, Writer, bracketed, shown

ALL = FAMILIES + WIDER
WIDE = 5_000_000  # programs of numbers from here on have ALL families, and what `Writer.wide` adds; others FAMILIES alone
ALONG = 20_000_000  # and from here on those of `BESIDE`, as often as all others
EVERY = ALL + BESIDE * 6
NEWEST = 34_000_000  # and from here on those of `NEW`, as often again, and closed loops in every direction
WHOLE = EVERY + (*NEW, fed_back) * 8
LONG = 36_000_000  # and from here on those of `FAR_BACK`, as often again; native code of half of them has fixed sizes
LONGER = WHOLE + FAR_BACK * 40
LATEST = 38_200_000  # and from here on those of `FURTHER`, as often again; a fifth has two axes; wishes
ALL_THERE_IS = LONGER + FURTHER * 22


@dataclass(frozen=True)
class Program:
    """One random spec: its text, the extents of its dims, what it is made of."""

    text: str
    sizes: dict[str, int]
    features: frozenset[str] = field(default=frozenset())


def program(below: Callable[[int], int], families: tuple[Any, ...] = EVERY) -> Program:
    """The spec that choices make. below: a choice, of 0 to n - 1, of which 0 is the simplest."""
    w = Writer(below, families is not FAMILIES)
    w.further = families is ALL_THERE_IS
    if w.further and w.chance(20):
        families = two_axes(w)
    w.ahead = w.chance(30)
    w.indexed, w.buffered = w.wide and w.chance(20), w.wide and w.chance(20)
    w.noisy = w.wide and w.chance(15) and not w.plane
    read: list[Expr] = []
    for _ in range(1 + (w.below(3) if w.chance(60) else 0)):
        read += w.pick(families)(w)
        if w.alone:
            break
    outputs(w, read)
    if w.chance(10):
        w.features.add("unread argument")
        w.input((), again=0) if w.chance(50) else w.param(())
    if not w.inputs:
        w.input(())
    either = families in (WHOLE, LONGER, ALL_THERE_IS)
    direction = "forward" if w.plane or (w.fed and not either) else w.pick(("forward",) * 10 + ("backward", "both"))
    if direction == "both" and w.wide:
        direction = w.pick(("both", "both", "both sum", "both shared", "both sum shared"))
    if direction != "forward":
        w.features.add(f"scan {direction}")
        w.lines.append(f"scan {direction}")
    if w.wide and w.chance(8):
        w.features.add("checkpoint")
        w.lines.append(f"checkpoint {w.pick((1, 2, 3, 5, 16))}")
    if w.further:
        wishes(w)
    lines = [_sized(line, w) for line in w.lines]
    if w.chance(30):
        w.features.add("statements in any order")
        for i in range(len(lines) - 1, 0, -1):
            j = i - w.below(i + 1)
            lines[i], lines[j] = lines[j], lines[i]
    sizes = {**w.sizes, "U": w.width} if w.plane else dict(w.sizes)
    return Program("\n".join(("spec fuzzed", *lines, "")), sizes, frozenset(w.features))


def two_axes(w: Writer) -> tuple[Any, ...]:
    """Make the spec one of two axes; its families."""
    w.plane, w.width = True, 1 + w.below(5)
    w.taken.add("u")
    w.lines += ["axis t, u"]
    for axis in "tu":
        if w.chance(20):
            w.lines.append(f"scan {axis} backward")
    w.features.add("two axes")
    return PLANAR


def _sized(line: str, w: Writer) -> str:
    """The line of a dim with a size, where no argument tells it."""
    name = line.removeprefix("dim ")
    if name not in w.sizes or name in w.given:
        return line
    arguments = (other.partition("[")[2].partition("]")[0] for other in w.lines if other.startswith(("input", "param")))
    told = any(name in re.findall(r"[^\W\d]\w*", dims) for dims in arguments)
    return line if told else f"{line} = {w.sizes[name]}"


@st.composite
def programs(draw: Callable[[Any], Any], families: tuple[Any, ...] = EVERY) -> Program:
    """A random spec, as a hypothesis strategy."""
    return program(lambda n: int(draw(st.integers(0, n - 1))), families)


def chosen(choices: Sequence[int], families: tuple[Any, ...] = ALL) -> Program:
    """The spec of written choices; those that are missing are 0."""
    rest = iter(choices)
    return program(lambda n: min(next(rest, 0), n - 1), families)


def families_of(number: int) -> tuple[Any, ...]:
    """What the program of a number may be made of."""
    if number >= NEWEST:
        return ALL_THERE_IS if number >= LATEST else LONGER if number >= LONG else WHOLE
    return EVERY if number >= ALONG else ALL if number >= WIDE else FAMILIES


def drawn(number: int, families: tuple[Any, ...] | None = None) -> tuple[Program, list[int]]:
    """The spec of a number, with its choices. families: others than the number's own."""
    rng = Random(number)
    choices: list[int] = []

    def below(n: int) -> int:
        choices.append(rng.randrange(n))
        return choices[-1]

    return program(below, families or families_of(number)), choices


def smaller(
    choices: Sequence[int], wrong: Callable[[Program], bool], seconds: float, families: tuple[Any, ...] = ALL
) -> Program:
    """The smallest spec that can be found, in so many seconds, that is still wrong: of fewer choices or simpler ones, and then
    with fewer lines."""
    best, until, seen = list(choices), time.monotonic() + seconds, {chosen(choices, families).text: True}

    def holds(candidate: list[int]) -> bool:
        made = chosen(candidate, families)
        if made.text not in seen and time.monotonic() < until:
            seen[made.text] = wrong(made)
        return seen.get(made.text, False)

    changed = True
    while changed and time.monotonic() < until:
        changed = False
        width = len(best)
        while width and time.monotonic() < until:
            at = 0
            while at < len(best):
                shorter = best[:at] + best[at + width :]
                zeros = best[:at] + [0] * len(best[at : at + width]) + best[at + width :]
                if holds(shorter):
                    best, changed = shorter, True
                elif any(best[at : at + width]) and holds(zeros):
                    best, changed, at = zeros, True, at + width
                else:
                    at += width
            width //= 2
    return _shorter(chosen(best, families), wrong, until + seconds / 2)


def _shorter(made: Program, wrong: Callable[[Program], bool], until: float) -> Program:
    """The program without the lines that it can do without."""
    at = made.text.count("\n") - 1
    while at > 0 and time.monotonic() < until:
        lines = made.text.splitlines()
        text = "\n".join((*lines[:at], *lines[at + 1 :], ""))
        if at < len(lines) and wrong(replace(made, text=text)):
            made = replace(made, text=text)
        at -= 1
    return made


def ordered(dims: frozenset[str]) -> str:
    """The dims in brackets, where there are several."""
    return shown(sorted(dims)) if len(dims) > 1 else ""


def outputs(w: Writer, read: list[Expr]) -> None:
    """One to three outputs of what may be read."""
    for _ in range(1 + w.below(3)):
        name = w.fresh("o")
        e, dims = w.pick(read)
        kind = 0 if w.alone else w.below(10)
        if kind < 4:
            w.lines.append(f"output {name}{ordered(dims)} = {e}")
        elif kind < 5 and e in w.states and f"output {e}" not in w.lines:
            w.lines.append(f"output {e}")
        elif kind < 7:
            other = w.expr(tuple(sorted(dims)), 1)
            w.lines.append(f"output {name}{shown(sorted(dims | other[1]))} = {bracketed(e)} * {bracketed(other[0])}")
        elif kind < 8:
            second = w.pick(read)
            w.lines.append(f"output {name}{ordered(dims | second[1])} = {bracketed(e)} + {bracketed(second[0])}")
        elif kind < 9:
            dim = w.pick(sorted(dims)) if dims else ""
            left = ordered(dims - {dim})
            w.lines.append(f"output {name}{left} = sum[{dim}]({e})" if dim else f"output {name} = tanh({e})")
        else:
            x, own = w.expr(tuple(w.sizes)[:2], 1)
            w.features.add("output without a state")
            w.lines.append(f"output {name}{shown(sorted(own))} = {x}")


__all__ = ["ALL", "ALONG", "EVERY", "LATEST", "LONG", "NEWEST", "WHOLE", "WIDE", "Program", "chosen", "drawn", "families_of",
           "program", "programs", "smaller"]
