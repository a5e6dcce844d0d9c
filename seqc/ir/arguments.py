"""The arguments of a recurrence as one table: what a caller passes, made once from a `Program`.

In: declarations. Out: `Argument`s in the order in which every function of an emitted file takes them. Whoever needs a part of
them (what has a time axis, what has a gradient, what a caller may leave out) filters this table; nobody counts.

The order is: what comes with every step; what is the same at every step, first what a call must give, then what has a default;
the initial states. A new role is one row of `ROLES`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seqc.ir.graph import BATCH

if TYPE_CHECKING:
    from seqc.ir.program import Program

STEPS = "T"  # the time axis of an array


@dataclass(frozen=True)
class Role:
    """What all arguments of a role have in common.

    leaf: the kind of leaf by which the step graph reads it: "input" (a value for each step), "param" (the same value at every
    step) or "state" (the value before the first step). gradient: whether it has one. default: whether a call may leave out what
    has an initial value (a state always has one). type: "real", or "int" for whole numbers that tell positions.
    """

    leaf: str
    gradient: bool = True
    default: bool = False
    type: str = "real"


ROLES = {
    "input": Role("input"),
    "inside": Role("input", gradient=False),
    "index": Role("input", gradient=False, type="int"),
    "edge": Role("input", default=True),  # what precedes the first place of a second axis
    "place": Role("input", gradient=False),  # says where a step stands
    "param": Role("param"),
    "buffer": Role("param", gradient=False, default=True),
    "mask": Role("param", gradient=False),
    "state": Role("state", default=True),
}


@dataclass(frozen=True)
class Argument:
    """One array that a call takes. name: the array's own (`S_0` of a state S); of: the declaration's (`S`).

    axes: of the batch, the time axis and the declared dims those that it has. default: whether a call may leave it out.
    """

    name: str
    of: str
    role: str
    axes: tuple[str, ...]
    default: bool = False

    @property
    def kind(self) -> str:
        """The kind of its leaf: "input", "param" or "state"."""
        return ROLES[self.role].leaf

    @property
    def gradient(self) -> bool:
        """Whether it has a gradient."""
        return ROLES[self.role].gradient

    @property
    def whole(self) -> bool:
        """Whether it is an array of whole numbers."""
        return ROLES[self.role].type == "int"

    @property
    def timed(self) -> bool:
        """Whether it has an entry for each step."""
        return STEPS in self.axes

    @property
    def batched(self) -> bool:
        """Whether it has an entry for each sequence."""
        return BATCH in self.axes

    @property
    def dims(self) -> tuple[str, ...]:
        """The declared dims."""
        return tuple(a for a in self.axes if a not in (BATCH, STEPS))

    def at_step(self) -> tuple[str, ...]:
        """The axes of the array that a function of one step takes."""
        return tuple(a for a in self.axes if a != STEPS)


def argument(name: str, role: str, dims: Iterable[str], per_batch: bool = False, default: bool = False) -> Argument:
    """The argument of a declaration with these dims."""
    kind = ROLES[role].leaf
    front = {"input": (BATCH, STEPS), "param": (BATCH,) if per_batch else (), "state": (BATCH,)}[kind]
    array = f"{name}_0" if kind == "state" else name
    return Argument(array, name, role, (*front, *dims), default or kind == "state")


def ordered(rows: Iterable[Argument]) -> tuple[Argument, ...]:
    """The rows in the order of a call; see the file's docstring."""
    places = ("input", "param", "state")
    return tuple(sorted(rows, key=lambda a: (places.index(a.kind), a.default)))


def argument_table(program: Program) -> tuple[Argument, ...]:
    """The table of a program."""
    decls = [*program.inputs.values(), *program.params.values(), *program.states.values()]
    return ordered(argument(d.name, d.plays, d.dims, d.per_batch, d.default) for d in decls)
