"""Packs and reversed calls of an emitted file, on one backend: what `test_packs` runs, for Triton in a process of its own.

In: a spec, a backend, a dtype. Out: the findings that do not hold. `python -m tests.emit.packed SPEC...` runs the Triton
kernels in Triton's interpreter, on the CPU, and prints a JSON list per spec.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from seqc.check.sampling import sample_sizes
from seqc.check.verify_emitted import Case, Finding, against_oracle, against_separate_calls, in_phases, pack
from seqc.driver.compile import Compiled, Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from tests.harness import usual_sizes
from tests.triton import interpreter

ROOT = Path(__file__).parents[2]
ROWS = 16
OURS = ("conv", "lagged", "sampled", "layer", "both_ways")  # of tests/recurrences, others are of specs
FEWER = {"dim L = 20": "dim L = 3", "dim R = 19": "dim R = 2"}  # taps
BACKWARD = "backward:"  # before the name of a spec: the same recurrence, declared `scan backward`


def text(name: str) -> str:
    """A spec's text; `backward:lstm` is `lstm.seq`, declared to run from the last step to the first."""
    path = ROOT / ("tests/recurrences" if name.removeprefix(BACKWARD) in OURS else "specs")
    source = (path / f"{name.removeprefix(BACKWARD)}.seq").read_text()
    for wide, narrow in FEWER.items():
        source = source.replace(wide, narrow)
    if not name.startswith(BACKWARD):
        return source
    head, doc, rest = source.partition("\ndim ")
    return f"{head}\nscan backward{doc}{rest}"


class Padded(Case):
    """A pack whose last sequence ends before the row does. What stands behind it is not a number; outputs and gradients are
    zero there, and cotangents there count for nothing."""

    def sample(self) -> tuple[dict[str, Any], dict[str, Any]]:
        arrays, cotangents = super().sample()
        assert self.bounds is not None
        for name in self.program.inputs:
            arrays[name][:, self.bounds[-1] :] = np.nan
        return arrays, cotangents


@cache
def compiled(name: str, backend: str) -> Compiled:
    """The file, in blocks of few rows where the form has rows."""
    wish = Options(backend)
    made = compile_spec(text(name), wish)
    block = made.blocks[backend]
    if block.rows > ROWS:
        made = compile_spec(text(name), replace(wish, form=block.form, rows=ROWS))
    return made


@cache
def module(name: str, backend: str) -> ModuleType:
    """The file, loaded. On Triton's interpreter every call takes the Triton form."""
    made = compiled(name, backend)
    found = load_emitted(made.text, made.signature.spec)
    if backend == "triton":
        vars(found)["_form"] = lambda *_: found._TRITON
        vars(found)["_steps"] = lambda cu_seqlens, x: x.shape[1]  # as of a GPU's bounds, which the host does not read
    return found


def cases(name: str, backend: str, dtype: str, hard: bool) -> Iterator[Case]:
    """A pack of the lengths where blocks begin and end; a pack of short ones; a reversed batch; each both ways."""
    made = compiled(name, backend)
    rows = max(block.rows for block in made.blocks.values())
    short = tuple(accumulate((0, 2, 1, 0, 0, 3), initial=0))
    # few programs, which the interpreter runs one after the other; and sizes for which other tests have built the libraries
    sizes = sample_sizes(made.program, given={"H": 2} if backend == "triton" else usual_sizes(made.program))
    for bounds in (pack(rows), short, None):
        for reverse in (False, True):
            if bounds or reverse:
                steps = bounds[-1] if bounds else 2 * rows + 1
                yield Case(made.program, module(name, backend), sizes, steps, dtype, hard, bounds=bounds, reverse=reverse)
    for reverse in (False, True)[: 1 if backend == "triton" else 2]:
        steps = short[-1] + 5
        yield Padded(made.program, module(name, backend), sizes, steps, dtype, hard, bounds=short, reverse=reverse)


def failures(name: str, backend: str, dtype: str, hard: bool = False) -> list[str]:
    """What does not hold: against the oracle, and to the bit against a call for each sequence."""
    found: list[Finding] = []
    for case in cases(name, backend, dtype, hard):
        found += against_oracle(case)
        if isinstance(case, Padded):
            continue
        if case.bounds is not None and compiled(name, backend).plan.whole:
            found += against_separate_calls(case)
        elif backend == "triton" and hasattr(case.module, "_way"):
            found += in_phases(case)
    return [f"{f.what}, T = {f.steps}: {f.error:.1e} of {f.allowed:.1e}" for f in found if not f.ok]


def main() -> None:
    """Answer every spec on the command line."""
    import warnings

    interpreter.choose()
    warnings.simplefilter("ignore")  # numpy's, of infinities that masks take out again
    for name in sys.argv[1:]:
        answer: Any = failures(name, "triton", "float32")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
