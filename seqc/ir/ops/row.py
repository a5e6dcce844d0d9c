"""What one row of the operator table says. A row is all that the compiler knows of an operator.

dims, dtype: rules from the node (its args and attrs) to its named dims and its dtype.
interval: from the intervals of the arguments to that of the result (None: anything).
vjp: one rule per argument, from (node, cotangent of the node) to the cotangent of that argument; the differentiation pass
  sums over the dims that the argument lacks. An argument's rule is None where the derivative is exactly zero.
  `vjp=None` for a whole row means that no derivative is known: differentiation refuses.
ref: the float64 reference on numpy arrays. Elementwise rows get their arguments broadcast to the node's dims; other rows
  get arrays whose axes are each argument's own (sorted) dims, and answer one with the node's (sorted) dims.
spell: per printer ("torch", "triton", "cpp"; "lanes" where C++ spells it otherwise for vectors; "python" for numbers that are
  known when a function is called) a format string for elementwise rows; the other rows are emitted by code in each backend,
  or listed as unsupported there.
laws: words of LAWS, each of which holds for every argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from seqc.ir.graph import Dims, Node
from seqc.ir.intervals import ANY, Interval

LAWS = {
    "commutative": "the two arguments may change places",
    "associative": "so may brackets",
    "linear": "in each real argument, or in two branches or terms together, as the others stay",
    "additive": "linear, and a sum of arguments is a sum of results",
    "alias": "the argument's own numbers, under other dims or with another derivative",
    "zero": "0 where its first argument is",
    "zeros": "0 where all its arguments are",
    "finite": "finite where its arguments are, but for overflows",
    "steep": "infinite, or NaN, at some finite arguments, and not by an overflow",
    "curved": "an exponential or a logarithm in it: a small error of an argument may become a large one",
    "lanes": "written for vectors as for numbers in each of the processors that native code knows",
}
COSTS = {"none": 0.0, "view": 0.25, "cheap": 1.0, "dear": 4.0}  # of an element, in operations such as an addition

Vjp: TypeAlias = "Callable[[Node, Node], Node] | None"
Ref: TypeAlias = "Callable[..., Any]"


def union_dims(n: Node) -> Dims:
    """Elementwise: broadcasting by name."""
    return tuple(sorted({d for a in n.args for d in a.dims}))


def real(n: Node) -> str:
    """The result is a real number; so are the arguments."""
    return "real"


def boolean(n: Node) -> str:
    """The result is a truth value."""
    return "bool"


@dataclass(frozen=True)
class Op:
    """One row; see the file's docstring."""

    name: str
    arity: int
    ref: Ref
    vjp: tuple[Vjp, ...] | None
    interval: Callable[[Node, tuple[Interval, ...]], Interval] = lambda n, a: ANY
    dims: Callable[[Node], Dims] = union_dims
    dtype: Callable[[Node], str] = real
    elementwise: bool = False
    spell: Mapping[str, str] = field(default_factory=dict)
    laws: frozenset[str] = frozenset()
    cost: str = "dear"  # of COSTS; what a scan and a matrix product cost depends on extents: `seqc.analysis.cost`
    takes: tuple[str, ...] = ()  # of each argument "real", "bool", "int" or "any"; real where it is left out
    infix: tuple[str, int] | None = None  # the sign between two arguments in a formula, and how tightly it binds
    word: str = ""  # what a spec calls it, where that is another name
    linear_backward: bool = True  # whether the rules are linear in the cotangent: else it must be whole when a rule is applied
    safe: str = ""  # numerical form, where it is not the textbook one

    def __post_init__(self) -> None:
        unknown = self.laws - set(LAWS)
        assert not unknown and self.cost in COSTS, f"{self.name}: {sorted(unknown) or self.cost} is no word of the table"

    def takes_at(self, i: int) -> str:
        """The dtype of an argument."""
        return self.takes[i] if i < len(self.takes) else "real"
