"""The process that runs emitted Triton kernels in Triton's interpreter, on the CPU, against the float64 reference.

In: one JSON object a line on standard input: a spec's path, a form (or null), rows, runs, packs (lengths, and whether
reversed), "steps", the length at which a loop of single steps is compared with a run (0: none), "golden", whether a digest
of the text is kept, "enough", how many programs walk spans side by side (left out: 1), and "listed", the
forms of the spec in `tests/forms.tsv` (null: it is not there). A run is its steps,
whether arguments are extreme (true, false, or "half": those of the second sample, at the tolerance of ordinary ones), and
sizes. Where there are phases, packs take these; without packs the last two runs take them as well. Out: one JSON line each:
null, or what went wrong. It is a process of its own because the interpreter is chosen when Triton is first imported.

Tolerance: fp32 roundoff (6e-8) times the operations on the longest path (at most 2 * 16 + 1 steps of a few roundings each,
and sums of 16), with a factor of 10 for the growth of triangular inverses on repeated keys: 1e-4 of the largest element
there, 2e-5 on ordinary arguments.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.triton import interpreter, lockstep

if TYPE_CHECKING:
    from seqc.ir.program import Program
    from tests.harness import Case

EASY, HARD = 2e-5, 1e-4


def functions(text: str, folder: Path, name: str) -> dict[str, Any]:
    """The emitted definitions; Triton reads the source of a kernel from its file."""
    import importlib.util

    path = folder / f"{name}.py"
    path.write_text("import math\n\nimport torch\nimport triton\nimport triton.language as tl\n\n\n" + text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


def _drawn(program: Program, steps: int, hard: bool | str, sizes: dict[str, int]) -> Case:
    from tests.harness import draw

    drawn = draw(program, steps, sizes, hard is True)
    if hard == "half":
        extreme = draw(program, steps, sizes, True).arrays
        for name in program.inputs:
            drawn.arrays[name][1] = extreme[name][1]
    return drawn


def _runs(case: Any, program: Any, ways: bool) -> list[tuple[bool, Any, bool]]:
    """(whether other ways to work are tried too, arguments, whether they are extreme) of each run. ways: whether any are."""
    from tests.harness import draw

    runs = [(False, _drawn(program, *run), run[1] is True) for run in case["runs"]]
    if ways:
        sizes = case["runs"][-1][2]
        packs = [draw(program, sum(own), sizes, lengths=own, reverse=back) for own, back in case["packs"]]
        runs += [(True, drawn, False) for drawn in packs] or [(True, drawn, hard) for _, drawn, hard in runs[-2:]]
    return runs


def main() -> None:
    """Answer every case."""
    interpreter.choose()
    lockstep.choose()
    import numpy as np
    import torch

    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.backends.triton_gpu.tuning.pace import Pacing
    from seqc.diagnostics import Unsupported
    from seqc.driver.pipeline import fix_dims, lower
    from seqc.frontend.elaborate import load
    from seqc.ir.both_ways import one_run
    from tests import forms
    from tests.cli import digests
    from tests.harness import compare, compare_steps, draw

    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")  # `torch.empty` is all NaN then: what no kernel wrote is seen where it is read
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(sys.stdin):
            case = json.loads(line)
            program = fix_dims(forms.for_kernels(one_run(load(Path(case["path"])))), case.get("dims", {}))
            try:
                block = lower(program, case["form"], case["rows"])
                text = triton_kernels(block, pacing=Pacing(enough=case.get("enough", 1))).alone
                made = functions(text, Path(folder), f"case_{number}")
                if case.get("team"):
                    lockstep.in_pieces(made["_pad"].__globals__)
            except Unsupported as refusal:
                print(json.dumps(f"refused: {str(refusal).splitlines()[0]}"), flush=True)
                continue
            listed = case["listed"]
            if listed and case["form"] is None and block.form != listed[-1]:
                print(json.dumps(forms.changed(program.name, "triton", ["step", block.form])), flush=True)
                continue
            digest = digests.changed(Path(case["path"]).stem, "triton", digests.digest(text)) if case["golden"] else ""
            said = ""
            runs = _runs(case, program, (block.rows > 1 or case.get("team")) and bool(program.states))
            several = (0, 1) if "_pairs_kernel(" in text else (1,)
            for way, drawn, hard in [(way, *run) for phases, *run in runs for way in (several if phases else (0,))]:
                made["_pad"].__globals__["_way"] = lambda x, blocks, *ways, way=way: min(way, len(ways) - 1)
                tolerance = HARD if hard else EASY
                both = made["_forward_triton"], made["_backward_triton"]
                infer = made["_infer_triton"] if way else None
                try:
                    with np.errstate(all="ignore"):
                        compare(drawn, *both, tolerance, torch.float32, infer)
                except AssertionError as error:
                    how = f"hard={hard} bounds={drawn.bounds} reverse={drawn.reverse} way={way}"
                    said = said or f"{how}: {' '.join(str(error).split())[:600]}"
            if case.get("steps") and not program.no_step:
                try:
                    drawn = draw(program, case["steps"], seed=3)
                    compare_steps(drawn, made["_infer_triton"], made["_step_triton"], EASY, torch.float32)
                    if "_FEW_STEPS" in made:  # the same call, its steps taken one by one
                        made["_pad"].__globals__["_FEW_STEPS"] = case["steps"]
                        compare_steps(drawn, made["_infer_triton"], made["_step_triton"], EASY, torch.float32)
                except AssertionError as error:
                    said = said or f"steps: {' '.join(str(error).split())[:600]}"
            print(json.dumps("; ".join(x for x in (said, digest) if x) or None), flush=True)


if __name__ == "__main__":
    main()
