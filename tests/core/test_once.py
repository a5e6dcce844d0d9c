"""One compile asks each question once: no analysis, pass or printer works twice on the same graph."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from seqc.analysis.ranges import interval_of
from seqc.analysis.workload import lane, nominal_sizes
from seqc.backends.triton_gpu.print_kernel import print_kernel
from seqc.backends.triton_gpu.schedule import schedule
from seqc.driver.compile import Options, compile_spec
from seqc.ir.block import Block
from seqc.ir.graph import Node
from seqc.ir.once import found_once
from seqc.ir.program import Program
from seqc.passes.blocks.eliminate import _written
from seqc.passes.blocks.form import BlockForm
from seqc.passes.claims import check_claims
from seqc.passes.classify import classify
from seqc.passes.derive_backward import derive_backward
from seqc.passes.plan.components import components
from seqc.passes.plan.outside_of_time import once
from seqc.passes.plan.products_outside import products
from seqc.passes.plan.pruned import idle
from seqc.passes.simplify.simplify import simplify, simplify_named

SPECS = Path(__file__).parents[2] / "specs"
WATCHED = (
    interval_of, nominal_sizes, lane, classify, check_claims, simplify, simplify_named, derive_backward, BlockForm.__init__,
    _written, schedule, print_kernel, idle, once, products, components,
)  # fmt: skip


def code(function: Any) -> CodeType:
    """The code that does the work, below what remembers it."""
    return getattr(function, "__wrapped__", function).__code__  # type: ignore[no-any-return]


def meaning(x: object) -> object:
    """What an argument is, whichever object holds it: graphs by their interned nodes."""
    match x:
        case Program():
            return "program", meaning(x.graph), meaning(x.states), meaning(x.dims), repr(x.wishes)
        case Block():
            return "block", x.form, x.rows, meaning(x.forward), meaning(x.backward)
        case Node():
            return x
        case Mapping():
            return tuple((meaning(k), meaning(v)) for k, v in x.items())
        case tuple() | list():
            return tuple(map(meaning, x))
    return x if type(x).__repr__ is not object.__repr__ and isinstance(x, str | int | float | frozenset) else str(x)


def counted(spec: str, backend: str) -> Counter[tuple[object, ...]]:
    """(function, its arguments) -> how often it worked on them in one compile."""
    names = {code(f): f.__qualname__ for f in WATCHED}
    found: Counter[tuple[object, ...]] = Counter()

    def watch(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code in names:
            values = [frame.f_locals[name] for name in frame.f_code.co_varnames[: frame.f_code.co_argcount] if name != "self"]
            found[names[frame.f_code], *map(meaning, values)] += 1

    sys.setprofile(watch)
    try:
        compile_spec(SPECS / f"{spec}.seq", Options(backend))
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("spec", ["gla", "lstm"])
def test_nothing_is_worked_out_twice(spec: str) -> None:
    found = counted(spec, "auto")
    seen = {name for name, *_ in found}
    assert {"interval_of", "classify", "check_claims", "derive_backward", "simplify", "schedule", "print_kernel"} <= seen
    assert {key[0]: n for key, n in found.items() if n > 1} == {}


def test_what_is_remembered_goes_with_what_it_is_about() -> None:
    """Equal arguments and the same objects are found again; other objects, and the copy of one, begin anew."""
    asked: list[object] = []

    class Thing:
        pass

    @found_once
    def work(about: Thing, more: object = None) -> int:
        asked.append(more)
        return len(asked)

    one, graph = Thing(), {"a": 1}
    assert [work(one), work(one), work(one, None), work(one, more=None)] == [1, 1, 1, 1]
    assert [work(one, ("x", 2)), work(one, ("x", 2)), work(one, more=("x", 2))] == [2, 2, 2]
    assert [work(one, graph), work(one, graph), work(one, dict(graph)), work(Thing(), graph)] == [3, 3, 4, 5]
