"""A program cut in two: values of parameters alone, that are computed once a call, and the rest, which has them as params.

Data only: `seqc.passes.plan.outside_of_time` makes it, the torch backend prints the values, the driver joins the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.ir.graph import Node, leaf
from seqc.ir.program import Program, TensorDecl


@dataclass(frozen=True)
class Outside:
    """values: what is computed once, by the name of the param (in `decls`) that `rest` has for it.

    params: those that the values read; gradient: of each of them, in terms of the values' cotangents.
    """

    values: Mapping[str, Node]
    decls: Mapping[str, TensorDecl]
    params: Mapping[str, TensorDecl]
    gradient: Mapping[str, Node]
    rest: Program

    @property
    def cotangents(self) -> dict[str, Node]:
        """The leaves of the values' cotangents, by name."""
        return cotangents(self.decls)


def cotangents(decls: Mapping[str, TensorDecl]) -> dict[str, Node]:
    """The leaves of cotangents of values, by name."""
    return {name: leaf("cot", name, d.axes) for name, d in decls.items()}


__all__ = ["Outside", "cotangents"]
