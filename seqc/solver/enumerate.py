"""The answer to a tile problem by trying every assignment: the cross-check of the solver, and sooner had for small problems.

Comes in: a `Problem` of at most `MOST` assignments. Goes out: the same `Solution` or `Clash` that `solve` returns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seqc.solver.expression import evaluate
from seqc.solver.problem import Binding, Clash, Problem, Solution, grid

MOST = 4_000_000
"""Assignments that are still tried."""


def solve_by_enumeration(problem: Problem, why: bool = True) -> Solution | Clash:
    """The best assignment, found by evaluating all of them; ValueError where there are more than `MOST`.

    why: tell what binds.
    """
    if problem.size() > MOST:
        raise ValueError(f"{problem.name}: {problem.size()} assignments are more than {MOST}: use the solver")
    shape = tuple(len(variable.domain) for variable in problem.variables)
    values = grid(problem.variables)
    cost = np.broadcast_to(np.asarray(evaluate(problem.cost, values)), shape)
    held = [np.broadcast_to(np.asarray(constraint.holds(values)), shape) for constraint in problem.constraints]
    allowed = _all(held, shape)
    if not allowed.any():
        return Clash(tuple(problem.constraints[i].sentence for i in _clash(held, shape)))
    least = int(cost[allowed].min())
    at = np.unravel_index(int(np.argmax((allowed & (cost == least)).ravel())), shape)
    assignment = {v.name: v.domain[i] for v, i in zip(problem.variables, at, strict=True)}
    binding = []
    for i, constraint in enumerate(problem.constraints if why else ()):
        without = int(cost[_all(held[:i] + held[i + 1 :], shape)].min())
        if without < least:
            binding.append(Binding(constraint.sentence, without))
    binding.sort(key=lambda one: one.cost_without)
    parts = tuple((name, int(evaluate(expr, assignment))) for name, expr in problem.parts)
    return Solution(tuple(assignment.items()), least, parts, tuple(binding))


def _all(held: Sequence[NDArray[np.bool_]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    allowed = np.ones(shape, bool)
    for one in held:
        allowed &= one
    return allowed


def _clash(held: Sequence[NDArray[np.bool_]], shape: tuple[int, ...]) -> list[int]:
    """Positions of a set of constraints that clash and of which none can be spared, earlier ones stay."""
    kept = list(range(len(held)))
    for i in reversed(range(len(held))):
        rest = [j for j in kept if j != i]
        if not _all([held[j] for j in rest], shape).any():
            kept = rest
    return kept
