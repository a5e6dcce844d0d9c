"""What is to be chosen: variables with finite domains, constraints with a sentence each, and a cost to be least.

Comes in: expressions. Goes out: a frozen `Problem`; what answers it is in `solve` and `enumerate`: a `Solution`, or the
`Clash` of sentences that leaves none. Nothing here knows kernels.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seqc.solver.expression import Expr, evaluate, names

Relation = Literal["<=", "==", ">=", "is a multiple of"]
COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {"<=": operator.le, "==": operator.eq, ">=": operator.ge}


@dataclass(frozen=True)
class Variable:
    """Something to choose. The domain is in order of preference: of equally good choices the earlier value wins."""

    name: str
    domain: tuple[int, ...]
    meaning: str = ""

    def __post_init__(self) -> None:
        if not self.domain or len(set(self.domain)) != len(self.domain):
            raise ValueError(f"variable {self.name}: {self.domain} must hold each value once, and one at least")


@dataclass(frozen=True)
class Constraint:
    """A relation that must hold, and the sentence that says so to a reader."""

    sentence: str
    left: Expr
    relation: Relation
    right: Expr

    def holds(self, values: Mapping[str, Any]) -> Any:
        """Whether it holds at the values: a bool, or an array of them."""
        left, right = evaluate(self.left, values), evaluate(self.right, values)
        return left % right == 0 if self.relation == "is a multiple of" else COMPARE[self.relation](left, right)


@dataclass(frozen=True)
class Problem:
    """Choose every variable from its domain so that all constraints hold and `cost` is least."""

    name: str
    variables: tuple[Variable, ...]
    constraints: tuple[Constraint, ...]
    cost: Expr
    parts: tuple[tuple[str, Expr], ...] = ()
    """Named quantities that a reader wants to see at the solution."""

    def __post_init__(self) -> None:
        known = [variable.name for variable in self.variables]
        if len(set(known)) != len(known):
            raise ValueError(f"{self.name}: a variable is declared twice among {', '.join(known)}")
        exprs = [self.cost, *(expr for _, expr in self.parts)]
        exprs += [side for constraint in self.constraints for side in (constraint.left, constraint.right)]
        unknown = sorted(frozenset().union(*map(names, exprs)) - set(known))
        if unknown:
            raise ValueError(f"{self.name}: not declared as variables: {', '.join(unknown)}")

    def size(self, among: frozenset[str] | None = None) -> int:
        """How many assignments the variables have, or those of them that `among` names."""
        return prod(len(variable.domain) for variable in self.variables if among is None or variable.name in among)


def grid(variables: Sequence[Variable]) -> dict[str, NDArray[np.int64]]:
    """The domains as arrays that broadcast to every joint assignment, one axis each in the given order."""
    axes = np.meshgrid(*(np.array(variable.domain, np.int64) for variable in variables), indexing="ij", sparse=True)
    return {variable.name: axis for variable, axis in zip(variables, axes, strict=True)}


@dataclass(frozen=True)
class Binding:
    """A constraint without which the cost would be less, and the least cost then."""

    sentence: str
    cost_without: int


@dataclass(frozen=True)
class Solution:
    """The best assignment: the least cost, and among equals the one that comes first in the order of the domains."""

    assignment: tuple[tuple[str, int], ...]
    cost: int
    parts: tuple[tuple[str, int], ...]
    binding: tuple[Binding, ...]
    """What keeps the cost from being less, what helps most first; empty where no single constraint does."""

    def __getitem__(self, name: str) -> int:
        return dict(self.assignment)[name]


@dataclass(frozen=True)
class Clash:
    """No assignment satisfies these sentences together; any one of them dropped, the others can be satisfied."""

    sentences: tuple[str, ...]
