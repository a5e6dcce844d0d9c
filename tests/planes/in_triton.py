"""The Triton form of a spec in Triton's interpreter against the oracle: prints the worst error over what is allowed.

A process of its own, for the interpreter is chosen before Triton is first imported: `python -m tests.planes.in_triton
SPEC`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from seqc.check.emitted_case import Case
from seqc.check.sampling import sample_sizes
from seqc.check.verify_emitted import against_oracle
from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted


def main(path: str) -> None:
    compiled = compile_spec(Path(path), Options(backend="triton"))
    module = load_emitted(compiled.text, compiled.signature.spec)
    vars(module)["_form"] = lambda *tensors: module._TRITON
    sizes = {**sample_sizes(compiled.program), "D": 3}
    case = Case(compiled.program, module, sizes, 2, "float32", False)
    with np.errstate(all="ignore"):
        found = list(against_oracle(case))
    print(json.dumps({"worst": max(one.error / one.allowed for one in found), "count": len(found)}))


main(sys.argv[1])
