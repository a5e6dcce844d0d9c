"""The nests of a long kernel become functions of their own, which the compiler neither inlines nor looks into.

In: a program function. Out: its lines, where each long nest is a lambda that takes what it mentions. Some
passes of a compiler (allocation of registers, what is live where) take more than twice the time for a function of twice the
length, so a kernel of thousands of instructions is faster to compile in parts. A nest captures nothing: values that it reads
are arguments, so that no store of a vector can be taken for a change of one, and a name that were forgotten would not compile.
A call costs a few nanoseconds, and such a step has thousands of vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqc.backends.native_cpu.code import Code, Declared, Nested, lines_of

LONG = 430  # lines of a program function from which on its nests are functions
NEST = 10  # lines of a nest that is worth a function


def outlined(code: Sequence[Code]) -> list[str]:
    """The lines of a program function, the first its head. Short ones are left as they are."""
    if len(lines_of(code)) <= LONG:
        return lines_of(code)
    known: dict[str, str] = {}
    out: list[str] = []
    for one in code:
        if isinstance(one, Declared):
            known |= one.takes
        out += _function(one, known) if isinstance(one, Nested) and one.kind and len(one.lines) >= NEST else lines_of([one])
    return out


def _function(nest: Nested, known: dict[str, str]) -> list[str]:
    """A nest as the call of a function. known: the names of values outside, and how a function takes each."""
    free = [name for name in known if name in nest.names]
    takes = [f"{known[name] or ('auto&' if name in nest.written else 'const auto')} {name}" for name in free]
    first, *inside, _ = nest.lines
    margin = first[: len(first) - len(first.lstrip())]
    head, given = ", ".join(takes), ", ".join(free)
    if nest.kind == "rows":
        begin = f"{margin}with_rows(m_B, []({', '.join(['auto rows_of_block', head])}) __attribute__((noinline)) {{"
        return [begin, *inside, f"{margin}}}, {given});"]
    inside = [f"  {line}" for line in nest.lines] if nest.kind == "loop" else inside
    return [f"{margin}[]({head}) __attribute__((noinline)) {{", *inside, f"{margin}}}({given});"]
