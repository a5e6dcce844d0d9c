"""The answer to a tile problem by z3, of which this module is the one owner.

Comes in: a `Problem`. Goes out: its `Solution`, or the `Clash` that leaves none; both are the same on every run and
machine, and for every version of z3: each is defined by the problem alone, and effort is bounded by counted steps
(`rlimit`), never by time. Every variable is one choice among named values, an expression over few variables a table
over their choices, and a product a case for each value of one factor, so that z3 never multiplies unknowns.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from seqc.solver.expression import Case, CeilDiv, Chosen, Const, Expr, Most, Product, Sum, evaluate, names
from seqc.solver.problem import COMPARE, Binding, Clash, Constraint, Problem, Solution, grid

TABLE = 32
"""Expressions over at most so many joint choices become tables."""
STEPS = 50_000_000
"""z3's own count of work after which a question is given up; a kernel's problem takes a hundredth of it."""


class Undecided(RuntimeError):
    """z3 gave up within its bound of steps: the problem is larger than any that a kernel poses."""


def solve(problem: Problem) -> Solution | Clash:
    """The assignment of least cost, or the constraints that clash. Raises `Undecided` past the bound of effort."""
    question = _Question(problem)
    every = tuple(range(len(problem.constraints)))
    best = question.least(every, None)
    if best is None:
        return Clash(tuple(problem.constraints[i].sentence for i in question.clash(every)))
    suspects = question.core
    cost = evaluate(problem.cost, best)
    assignment = question.first(every, cost, best)
    binding = []
    for i in suspects:
        without = question.least(tuple(j for j in every if j != i), cost)
        if without is not None:
            binding.append(Binding(problem.constraints[i].sentence, int(evaluate(problem.cost, without))))
    binding.sort(key=lambda one: one.cost_without)
    parts = tuple((name, int(evaluate(expr, assignment))) for name, expr in problem.parts)
    return Solution(tuple(assignment.items()), int(cost), parts, tuple(binding))


class _Question:
    """A problem as z3 sees it: one Boolean per variable and value, one switch per constraint."""

    def __init__(self, problem: Problem) -> None:
        import z3

        self.z3, self.problem = z3, problem
        self.context = z3.Context()
        self.solver = z3.SolverFor("QF_LIA", ctx=self.context)
        self.solver.set("random_seed", 1)
        self.solver.set("rlimit", STEPS)
        self.core: tuple[int, ...] = ()
        self.domain = {variable.name: variable.domain for variable in problem.variables}
        self.chosen = {
            variable.name: {value: z3.Bool(f"{variable.name}={value}", self.context) for value in variable.domain}
            for variable in problem.variables
        }
        self.known: dict[Expr, Any] = {}
        self.range: dict[Expr, list[int]] = {}
        for choices in self.chosen.values():
            literals = list(choices.values())
            self.solver.add(z3.Or(*literals, self.context))
            for i, one in enumerate(literals):
                for other in literals[:i]:
                    self.solver.add(z3.Or(z3.Not(one), z3.Not(other)))
        self.switch = [z3.Bool(f"constraint {i}", self.context) for i in range(len(problem.constraints))]
        for on, constraint in zip(self.switch, problem.constraints, strict=True):
            self.solver.add(z3.Implies(on, self.relation(constraint)))
        self.cost = self.term(problem.cost)

    def least(self, constraints: tuple[int, ...], below: int | None) -> dict[str, int] | None:
        """An assignment of least cost under these constraints, and under the bound; None where there is none.

        Leaves in `core` constraints that together forbid a lesser cost.
        """
        best: dict[str, int] | None = None
        self.solver.push()
        if below is not None:
            self.solver.add(self.cost < below)
        while self.holds(*(self.switch[i] for i in constraints)):
            best = self.model()
            self.solver.add(self.cost < int(evaluate(self.problem.cost, best)))
        inside = {str(literal) for literal in self.solver.unsat_core()}
        self.core = tuple(i for i in constraints if str(self.switch[i]) in inside)
        self.solver.pop()
        return best

    def first(self, constraints: tuple[int, ...], cost: int, best: dict[str, int]) -> dict[str, int]:
        """Of the assignments of that cost, the first in the order of the variables and their domains."""
        on = [self.switch[i] for i in constraints]
        self.solver.push()
        self.solver.add(self.cost <= cost)
        for name, domain in self.domain.items():
            for value in domain[: domain.index(best[name])]:
                if self.holds(*on, self.chosen[name][value]):
                    best = self.model()
                    break
            self.solver.add(self.chosen[name][best[name]])
        self.solver.pop()
        return best

    def clash(self, constraints: tuple[int, ...]) -> tuple[int, ...]:
        """Of constraints that clash, some that still do and of which none can be spared; earlier ones stay."""
        kept = constraints
        for i in reversed(constraints):
            rest = tuple(j for j in kept if j != i)
            if not self.holds(*(self.switch[j] for j in rest)):
                kept = rest
        return kept

    def holds(self, *assumed: Any) -> bool:
        answer = self.solver.check(*assumed)
        if answer == self.z3.unknown:
            raise Undecided(f"{self.problem.name}: z3 gave up: {self.solver.reason_unknown()}")
        return bool(answer == self.z3.sat)

    def model(self) -> dict[str, int]:
        model = self.solver.model()
        return {
            name: next(value for value, literal in choices.items() if self.z3.is_true(model.eval(literal, True)))
            for name, choices in self.chosen.items()
        }

    def joint(self, over: frozenset[str]) -> list[tuple[dict[str, int], Any]]:
        """Every joint choice of the variables, with the formula that says that it is made."""
        ordered = [name for name in self.domain if name in over]
        out = []
        for values in product(*(self.domain[name] for name in ordered)):
            at = dict(zip(ordered, values, strict=True))
            out.append((at, self.made(at)))
        return out

    def made(self, at: dict[str, int]) -> Any:
        """That these variables have these values; false where a value is not in its domain."""
        if any(value not in self.domain[name] for name, value in at.items()):
            return self.z3.BoolVal(False, self.context)
        literals = [self.chosen[name][value] for name, value in at.items()]
        return literals[0] if len(literals) == 1 else self.z3.And(*literals, self.context)

    def relation(self, constraint: Constraint) -> Any:
        over = names(constraint.left) | names(constraint.right)
        match constraint:
            case Constraint(left=Sum(parts), relation="<=", right=Const(0)) if all(
                isinstance(p, Chosen) for p in parts
            ):
                barred = [self.made(dict(part.values)) for part in parts if isinstance(part, Chosen)]
                return self.z3.And(*(self.z3.Not(made) for made in barred), self.context)
        if not over:
            return self.z3.BoolVal(bool(constraint.holds({})), self.context)
        if self.problem.size(over) <= TABLE:
            forbidden = [made for values, made in self.joint(over) if not constraint.holds(values)]
            return self.z3.And(*(self.z3.Not(made) for made in forbidden), self.context)
        left, right = self.term(constraint.left), self.term(constraint.right)
        if constraint.relation == "is a multiple of":
            return left == self.term(CeilDiv(constraint.left, constraint.right)) * right
        return COMPARE[constraint.relation](left, right)

    def term(self, expr: Expr) -> Any:
        """The z3 integer of an expression."""
        if expr not in self.known:
            self.known[expr] = self._term(expr)
        return self.known[expr]

    def _term(self, expr: Expr) -> Any:
        over = names(expr)
        if not over:
            return self.z3.IntVal(int(evaluate(expr, {})), self.context)
        if isinstance(expr, Chosen):
            return self.z3.If(
                self.made(dict(expr.values)), self.z3.IntVal(1, self.context), self.z3.IntVal(0, self.context)
            )
        if self.problem.size(over) <= TABLE:
            return self.cases([(made, int(evaluate(expr, at))) for at, made in self.joint(over)])
        match expr:
            case Sum(parts):
                return self.z3.Sum([self.term(part) for part in parts])
            case Case(variable, cases):
                known = dict(cases)
                return self.cases(
                    [(made, self.term(known[at]) if at in known else 0) for at, made in self.chosen[variable].items()]
                )
            case Most(parts):
                value = self.fresh()
                self.solver.add(*(value >= self.term(part) for part in parts))
                self.solver.add(self.z3.Or([value == self.term(part) for part in parts]))
                return value
            case Product(parts):
                if len(parts) == 1:
                    return self.term(parts[0])
                small = min(parts, key=lambda part: len(self.values(part)))
                others = list(parts)
                others.remove(small)
                factor, rest = self.term(small), self.term(Product(tuple(others)))
                return self.cases([(factor == value, value * rest) for value in self.values(small)])
            case CeilDiv(dividend, divisor):
                value, above, below = self.fresh(), self.term(dividend), self.term(divisor)
                for by in self.values(divisor):
                    exact = self.z3.And(value * by >= above, value * by < above + by)
                    self.solver.add(self.z3.Implies(below == by, exact))
                return value
        raise TypeError(f"no integer expression: {expr!r}")

    def values(self, expr: Expr) -> list[int]:
        """Every value that an expression takes on its variables' domains."""
        if expr not in self.range:
            over = names(expr)
            among = [variable for variable in self.problem.variables if variable.name in over]
            self.range[expr] = [int(value) for value in np.unique(evaluate(expr, grid(among)))]
        return self.range[expr]

    def cases(self, pairs: list[tuple[Any, Any]]) -> Any:
        value = self.fresh()
        self.solver.add(*(self.z3.Implies(made, value == result) for made, result in pairs))
        return value

    def fresh(self) -> Any:
        return self.z3.FreshInt("x", ctx=self.context)
