"""What one row of the operator table says. A row is all that the compiler knows of an operator.

dims, dtype: rules from the node (its args and attrs) to its named dims and its dtype.
interval: from the intervals of the arguments to that of the result (None: anything).
vjp: one rule per argument, from (node, cotangent of the node) to the cotangent of that argument; the differentiation pass
  sums over the dims that the argument lacks. An argument's rule is None where the derivative is exactly zero.
  `vjp=None` for a whole row means that no derivative is known: differentiation refuses.
ref: the float64 reference on numpy arrays. Elementwise rows get their arguments broadcast to the node's dims; other rows
  get arrays whose axes are each argument's own (sorted) dims, and answer one with the node's (sorted) dims.
spell: per printer ("torch", "triton", "cpp") a format string for elementwise rows; the other rows are emitted by code in
  each backend, or listed as unsupported there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from seqc.ir.graph import Dims, Node
from seqc.ir.intervals import ANY, Interval

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
    laws: frozenset[str] = frozenset()  # "commutative", "associative", "linear"
    linear_backward: bool = True  # whether the rules are linear in the cotangent: else it must be whole when a rule is applied
    safe: str = ""  # numerical form, where it is not the textbook one
