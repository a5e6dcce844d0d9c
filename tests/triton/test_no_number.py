"""What `max` and `min` of a NaN are on a GPU is seen in its instructions: Triton's interpreter passes NaN on either way.

A kernel of the spellings of the operator table is compiled for two GPUs; none has to be there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
SOURCE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def both(p_x, p_y, p_o):
    o = tl.arange(0, 128)
    x, y = tl.load(p_x + o), tl.load(p_y + o)
    tl.store(p_o + o, {max})
    tl.store(p_o + 128 + o, {min})


for arch in (80, 90):
    made = triton.compile(ASTSource(both, dict.fromkeys(("p_x", "p_y", "p_o"), "*fp32")), target=GPUTarget("cuda", arch, 32))
    words = [line.split()[0] for line in made.asm["ptx"].splitlines() if line.split()]
    print(sorted(set(w for w in words if w.startswith(("max.", "min.")))))
"""


def test_instructions_pass_nan_on(tmp_path: Path) -> None:
    from seqc.ir.ops import TABLE

    file = tmp_path / "both.py"
    file.write_text(SOURCE.format(**{op: TABLE[op].spell["triton"].format("x", "y") for op in ("max", "min")}))
    own = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    found = subprocess.run([sys.executable, str(file)], env=own, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == ["['max.NaN.f32', 'min.NaN.f32']"] * 2
