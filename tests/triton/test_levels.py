"""What levels of decayed products have alike: one device function in a kernel, the same one where kernels add up the same.

That the results are right, `test_kernels` shows in Triton's interpreter.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from seqc.backends.triton_gpu.emit import print_all
from seqc.backends.triton_gpu.kernel import Let, Levels, Load, Loop, Note, Plus, Store
from seqc.backends.triton_gpu.levels import by_level, level_masks
from seqc.backends.triton_gpu.schedule import schedule
from seqc.driver.compile import Options, compile_spec
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.ir.graph import topological

SPECS = Path(__file__).parents[2] / "specs"
OTHERS = Path(__file__).parents[1] / "literature" / "specs"


@pytest.mark.parametrize("rows", [16, 32])
def test_a_kernel_has_one_function_for_its_levels(rows: int) -> None:
    """Those of gla but the neighbours', whose decay is no sum: from half of a block down to two steps."""
    printed = print_all(schedule(lower(load(SPECS / "gla.seq"), "chunkwise", rows)))
    for name in ("pairs", "gradients_K"):
        (function,) = printed[name].functions
        levels, widest = re.search(rf"static_range\((\d)\):\s+.*{function}\([^>]* (\d+) >> i_l", printed[name].text).groups()
        assert (int(levels), int(widest)) == (rows.bit_length() - 2, rows // 2)
    assert not printed["forward"].functions and not printed["outputs"].functions
    assert " += " in printed["gradients_K"].functions["dg_dk_dq_of_level"]


PATHS = [*(SPECS / f"{name}.seq" for name in ("gla", "kda", "gsa", "rwkv7")), OTHERS / "kda_short.seq"]


@pytest.mark.parametrize("spec", PATHS, ids=lambda path: path.stem)
def test_the_same_values_are_added_up(spec: Path) -> None:
    """A function computes what stood in the kernel, of its widest level, and what it adds is a term of the sum as it was."""
    plan = schedule(lower(load(spec), "chunkwise", 16))
    for name in plan.kernels:
        kernel = plan.kernel(name)
        loops = [item for item in kernel.body if isinstance(item, Loop)]
        items = loops[-1].body if loops else kernel.body
        made = by_level(items, level_masks(16), (), lambda n: n in plan.names, lambda n: "x")
        stood = {i.node for i in items if isinstance(i, Let)}
        stands = {i.node for i in made if isinstance(i, Let)}
        assert stands <= stood
        for kind in (Load, Store, Note):  # what stores a sum of levels may have to wait for more loads
            assert [i for i in items if isinstance(i, kind)] == [i for i in made if isinstance(i, kind)]
        for one in (i for i in made if isinstance(i, Levels)):
            inside = {i.node for i in one.function.items if isinstance(i, Let)}
            assert inside.isdisjoint(one.function.given) and one.blocks == (8, 4, 2) and one.function.totals
            for total in one.function.totals:
                own = [i.node for i in one.function.items if isinstance(i, Plus) and i.total is total]
                others = [i.node for i in made if isinstance(i, Plus) and i.total is total]
                assert {*own, *others} <= {*topological([total])} and own


BESIDE = """spec beside
dim P = 1
dim D
state h[D, P]
input x[D, P]
h = where(mod(index[P], 2) == 0, shift[P](h[t-1], 1), h[t-1]) * 0.7 + x * (index[P] == P - 1)
dim H = 2
state S[D, H]
param p3[D] per batch
input x7[D] in [-inf, 0]
dim K = 3
input x8[K, D] unit[D]
input x9[K, H]
input x10[K] in [0, 2]
S = fold[K](exp(-exp(p3)) * exp(x7) * S[t-1], R -> R + x10 * x8 * (x9 - sum[D](x8 * R)))
"""


def test_extents_of_ranks_are_no_arguments() -> None:
    made = compile_spec(BESIDE, Options("triton", form="chunkwise", rows=16))
    ast.parse(made.text)
    assert "_of_level(" in made.text and ", 4: tl.constexpr" not in made.text
