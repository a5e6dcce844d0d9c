"""What a piece makes of the states before it, over a semiring, as torch expressions.

    after = own (+) span (x) before,    (+) log-sum-exp or the maximum, (x) a sum

In: names and axes of a span and of states. Out: expressions. The derivative of a log-sum-exp by each of its terms is the
term's share, exp(term - whole).
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

SHARES = """
def _shares(x, whole):
    \"\"\"What terms x have of their log-sum-exp; 0 of nothing.\"\"\"
    return torch.where(whole == -math.inf, 0.0, torch.exp(x - whole))
"""

TWO = {"sum": "{} + {}", "log": "torch.logaddexp({}, {})", "max": "torch.maximum({}, {})"}
MANY = {"log": "torch.logsumexp({}, {})", "max": "({}).amax({})"}


class Names(NamedTuple):
    """Variables: a span, the state that is reached, the one that it comes from."""

    span: str
    one: str
    other: str


def added(algebra: str, terms: list[str]) -> str:
    """The sum of an algebra."""
    return reduce(lambda a, b: TWO[algebra].format(a, b), terms)


def through(algebra: str, names: Names, axes: tuple[str, str, str], back: bool) -> str:
    """What a state is over a piece in another; back: a cotangent of the second, in the first. axes: of the span and of both
    states, a letter each."""
    matrix, left, right = axes
    columns = "".join(c for c in matrix if c not in left)
    whole = left + columns
    terms = f"{_aligned(names.span, matrix, whole)} + {_aligned(names.other, right, whole)}"
    if not back:
        over = ", ".join(str(k - len(columns)) for k in range(len(columns)))
        return MANY[algebra].format(terms, f"({over},)" if len(columns) == 1 else f"({over})") if columns else terms
    shares = f"_shares({terms}, {_aligned(f'_after_{names.one}', left, whole)})"
    return f'torch.einsum("{whole},{left}->{right}", {shares}, _d_{names.one})'


def _aligned(name: str, have: str, want: str) -> str:
    """A tensor with its axes in an order, and an axis of one for each that it lacks."""
    order = [have.index(c) for c in want if c in have]
    name = name if order == sorted(order) else f"{name}.permute({', '.join(map(str, order))})"
    if len(order) == len(want):
        return name
    return f"{name}[{', '.join(':' if c in have else 'None' for c in want)}]"
