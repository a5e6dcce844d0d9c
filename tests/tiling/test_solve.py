"""The tile solver against enumeration on random problems, its answers in English, and its ties."""

from __future__ import annotations

import random

import pytest

from seqc.solver.enumerate import solve_by_enumeration
from seqc.solver.expression import Const, Expr, Name, ceil_div, evaluate, most, names
from seqc.solver.problem import Clash, Constraint, Problem, Solution, Variable
from seqc.solver.solve import solve


def _random_expr(rng: random.Random, variables: list[str], depth: int) -> Expr:
    if depth == 0 or rng.random() < 0.1:
        return Name(rng.choice(variables)) if rng.random() < 0.7 else Const(rng.randint(0, 40))
    one, two = (_random_expr(rng, variables, depth - 1) for _ in range(2))
    match rng.randrange(5):
        case 0 | 1:
            return one + two
        case 2:
            return one * two
        case 3:
            return most(one, two)
    return ceil_div(one, two + 1)


def _random_problem(seed: int) -> Problem:
    rng = random.Random(seed)
    variables = tuple(
        Variable(name, tuple(rng.sample([1, 2, 3, 4, 8, 12, 16, 32, 64, 128], rng.randint(1, 5)))) for name in "abcde"
    )
    known = [variable.name for variable in variables]
    constraints = []
    for at in range(rng.randint(1, 6)):
        relation = rng.choice(["<=", "<=", "<=", ">=", "is a multiple of"])
        left, right = _random_expr(rng, known, 2), _random_expr(rng, known, 1) + 1
        if relation == "<=":
            right = right * Const(rng.choice([1, 4, 40]))
        constraints.append(Constraint(f"sentence {at}", left, relation, right))  # type: ignore[arg-type]
    cost = _random_expr(rng, known, 4)
    return Problem(f"problem {seed}", variables, tuple(constraints), cost, (("first", Name("a") * 2),))


@pytest.mark.parametrize("block", range(6))
def test_solver_equals_enumeration(block: int) -> None:
    solved = clashed = bound = 0
    for seed in range(20 * block, 20 * block + 20):
        problem = _random_problem(seed)
        answer = solve(problem)
        assert answer == solve_by_enumeration(problem), problem
        if isinstance(answer, Clash):
            clashed += 1
        else:
            solved += 1
            bound += bool(answer.binding)
            values = dict(answer.assignment)
            assert all(constraint.holds(values) for constraint in problem.constraints)
            assert evaluate(problem.cost, values) == answer.cost
    assert solved and clashed and bound


def _problem(memory: int, chunks: tuple[int, ...] = (16, 32, 64, 128)) -> Problem:
    c, v = Name("C"), Name("BV")
    return Problem(
        "toy",
        (Variable("C", chunks, "rows of a chunk"), Variable("BV", (16, 32, 64), "columns of the state")),
        (
            Constraint(f"two tiles of C x BV take at most {memory} bytes", 8 * c * v, "<=", Const(memory)),
            Constraint("a chunk has at least as many rows as a block has columns", c, ">=", v),
        ),
        ceil_div(4096, c) * ceil_div(64, v) * (c + v + 10),
        (("bytes", 8 * c * v),),
    )


def test_binding_constraint_and_what_it_costs() -> None:
    answer = solve(_problem(16384))
    assert isinstance(answer, Solution)
    assert answer["C"] * answer["BV"] == 2048 and answer["C"] >= answer["BV"]
    assert dict(answer.parts)["bytes"] == 8 * answer["C"] * answer["BV"] <= 16384
    assert [one.sentence for one in answer.binding] == ["two tiles of C x BV take at most 16384 bytes"]
    free = solve(_problem(10**9))
    assert isinstance(free, Solution) and free.binding == () and free.cost == answer.binding[0].cost_without


def test_clash_is_told_in_sentences_that_matter() -> None:
    problem = _problem(16 * 16 * 8, chunks=(32, 64))
    assert solve(problem) == Clash(("two tiles of C x BV take at most 2048 bytes",))
    more = Problem(
        "more",
        problem.variables,
        (
            Constraint("a chunk has at most 32 rows", Name("C"), "<=", Const(32)),
            Constraint("the block divides 96", Const(96), "is a multiple of", Name("BV")),
            Constraint("a block has at least 64 columns", Name("BV"), ">=", Const(64)),
            Constraint("a chunk has at least as many rows as a block has columns", Name("C"), ">=", Name("BV")),
        ),
        Name("C"),
    )
    answer = solve(more)
    assert answer == Clash(("the block divides 96", "a block has at least 64 columns")) == solve_by_enumeration(more)


def test_ties_follow_the_order_of_the_domains() -> None:
    a, b = Variable("a", (4, 1, 2)), Variable("b", (1, 4, 2))
    problem = Problem("tie", (a, b), (Constraint("a times b is 4", Name("a") * Name("b"), "==", Const(4)),), Const(7))
    answer = solve(problem)
    assert isinstance(answer, Solution) and answer.assignment == (("a", 4), ("b", 1)) and answer.cost == 7
    assert solve_by_enumeration(problem) == answer


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="each value once"):
        Variable("a", (1, 1))
    with pytest.raises(ValueError, match="not declared as variables: b"):
        Problem("p", (Variable("a", (1,)),), (), Name("b"))
    with pytest.raises(ValueError, match="use the solver"):
        solve_by_enumeration(Problem("p", tuple(Variable(f"v{i}", tuple(range(100))) for i in range(4)), (), Const(0)))


def test_expressions() -> None:
    expr = ceil_div(Name("T"), Name("C")) * most(Name("C"), 5) + 3
    assert evaluate(expr, {"T": 65, "C": 16}) == 83 and names(expr) == {"T", "C"}
    assert str(expr) == "ceil(T / (C)) * max(C, 5) + 3"
