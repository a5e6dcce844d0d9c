"""The nests of a long kernel become functions of their own, which the compiler neither inlines nor looks into.

In: the lines of a program function. Out: the same lines, where each long nest is a lambda that takes what it reads. Some
passes of a compiler (allocation of registers, what is live where) take more than twice the time for a function of twice the
length, so a kernel of thousands of instructions is faster to compile in parts. A nest captures nothing: values that it reads
are arguments, so that no store of a vector can be taken for a change of one, and a name that were forgotten would not compile.
A call costs a few nanoseconds, and such a step has thousands of vectors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LONG = 430  # lines of a program function from which on its nests are functions
NEST = 10  # lines of a nest that is worth a function

KINDS = "i64|int|bool|real|vec|mask|\\w+Scratch"
DECLARED = re.compile(rf"^(?:alignas\(64\) )?(?:const )?(?:{KINDS})[*&]* (?:__restrict )?(?:const )?(\w+)(?= =|;|\[|\{{)")
MORE = re.compile(r", (\w+)(?= = )")  # the others that one line declares
LOOP = re.compile(r"^(?:UNROLL )?for \((?:i64|int) (\w+) =")
ARGUMENT = re.compile(r"(\w+)&? (\w+)(?=[,)])")
WORD = re.compile(r"(?<![.\w])[A-Za-z_]\w*")
ROWS = "with_rows(m_B, [&](auto rows_of_block) __attribute__((always_inline)) {"
LOOPS = ("BLOCKS(", "BLOCKS_OF(", "EACH_VECTOR(")  # loops over vectors, which are nests too
THEIRS = ("blocks", "b", "c0", "c", "at")  # what these loops declare


def outlined(lines: Sequence[str]) -> list[str]:
    """The lines of a program function, the first its head. Short ones are left as they are."""
    if len(lines) <= LONG:
        return list(lines)
    out = list[str]()
    values = ("i64", "bool")
    known = {name: f"{'auto' if kind in values else 'const auto&'} {name}" for kind, name in ARGUMENT.findall(lines[0])}
    number = 0
    while number < len(lines):
        line = lines[number]
        if line.strip() not in ("{", ROWS) and not line.strip().startswith(LOOPS):
            known |= _declared(line.strip())
            out.append(line)
            number += 1
            continue
        closing = line[: len(line) - len(line.lstrip())] + ("});" if line.strip() == ROWS else "}")
        end = next(i for i in range(number + 1, len(lines)) if lines[i] == closing)
        out += _function(lines[number : end + 1], known)
        number = end + 1
    return out


def _declared(line: str) -> dict[str, str]:
    """The names that a line declares, each with the parameter that takes it."""
    first = DECLARED.match(line) or LOOP.match(line)
    if first is None:
        return {}
    names = [first[1], *MORE.findall(line)]
    lasting = " = " not in line or "Scratch& " in line  # what a nest may write: a variable of all threads' own, buffers
    kind = "auto* __restrict" if " __restrict " in line else "auto&" if lasting else "auto"
    return {name: f"{kind} {name}" for name in names}


def _function(nest: Sequence[str], known: dict[str, str]) -> list[str]:
    """A nest as the call of a function. known: the names of values outside, each with the parameter that takes it."""
    if len(nest) < NEST:
        return list(nest)
    loop = nest[0].strip().startswith(LOOPS)
    body = nest if loop else nest[1:-1]
    inner = [*THEIRS, *(x for line in nest[1:-1] for x in _declared(line.strip()))]
    words = dict.fromkeys(word for line in body for word in WORD.findall(line.partition("//")[0]))
    free = [word for word in words if word in known and word not in inner]
    text = "\n".join(nest)
    takes = [known[x] if "&" not in known[x] or x[:2] != "s_" or re.search(rf"\b{x} \+?=", text) else f"const auto {x}"
             for x in free]
    margin, head = nest[0][: len(nest[0]) - len(nest[0].lstrip())], ", ".join(takes)
    if loop or nest[0].strip() == "{":
        inside = [f"  {line}" for line in nest] if loop else nest[1:-1]
        return [f"{margin}[]({head}) __attribute__((noinline)) {{", *inside, f"{margin}}}({', '.join(free)});"]
    begin = f"{margin}with_rows(m_B, []({', '.join(['auto rows_of_block', head])}) __attribute__((noinline)) {{"
    return [begin, *nest[1:-1], f"{margin}}}, {', '.join(free)});"]
