"""Walks over what refers to more of its kind: nodes, names, definitions. Without recursion, for graphs are deep.

In: where a walk begins, and what stands directly below each. Out: what is reached, in an order that depends on structure alone.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def postorder(roots: Iterable[T], below: Callable[[T], Iterable[T]], known: Container[T] = ()) -> list[T]:
    """All that is reached from the roots, each behind what is below it, as far as there are no cycles.

    known: what is left out, and with it whatever is reached through it alone.
    """
    order: list[T] = []
    seen: set[T] = set()
    for root in roots:
        stack: list[tuple[T, Iterator[T]]] = []
        if root not in seen and root not in known:
            seen.add(root)
            stack.append((root, iter(below(root))))
        while stack:
            current, rest = stack[-1]
            for x in rest:
                if x not in seen and x not in known:
                    seen.add(x)
                    stack.append((x, iter(below(x))))
                    break
            else:
                order.append(current)
                stack.pop()
    return order


def reached(roots: Iterable[T], below: Callable[[T], Iterable[T]]) -> dict[T, None]:
    """All that is reached from the roots, these first; a set that keeps its order."""
    found = dict.fromkeys(roots)
    todo = list(found)
    for x in todo:  # it grows meanwhile
        for y in below(x):
            if y not in found:
                found[y] = None
                todo.append(y)
    return found
