"""The kernels under the address and undefined-behaviour sanitizers, in a program of their own.

Every array is a separate block of exactly its size, so that a read or write past any end is seen. Batches and packs (of an
empty sequence too), from the first step to the last and back. Without optimisation every access of the text is made, and
building takes half the time.
"""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from seqc.backends.native_cpu import NativeSource, native_source
from seqc.backends.native_cpu.arrays import PANELS, SEGMENTS, Array
from seqc.backends.native_cpu.loader import _native_compiler
from seqc.driver.pipeline import lower
from seqc.frontend import elaborate
from tests.native_cpu.test_lists import SPEC as LISTS

ROOT = Path(__file__).parents[2]
SIZES = {"H": 2, "K": 19, "V": 37, "D": 21, "E": 13, "N": 3, "B": 3}
FLAGS = ("-std=c++17", "-O0", "-g", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-w",
         "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

pytestmark = pytest.mark.skipif(_native_compiler() is None, reason="no C++ compiler")


def size(source: NativeSource, array: Array) -> str:
    every, axes = source.plan.every, list(array.axes)
    special = {"rows": "rows", "blocks": f"(bounds ? T / {every} + B : B * ((T + {every - 1}) / {every}))"}
    special |= {PANELS: "seqc_panels()", "B": "B"}
    for i, pair in enumerate(pairwise(array.axes)):
        if pair in (("B", "T"), ("B", SEGMENTS)):
            axes[i : i + 2] = ["rows" if pair[1] == "T" else "blocks"]
    return " * ".join(special.get(a) or str(SIZES[a.rstrip("'")]) for a in axes) or "1"


def program(source: NativeSource) -> str:
    """A main function that runs forward and backward at several lengths on arrays of their exact sizes."""
    lines = ["#include <cstdio>", "#include <map>", "#include <string>", "#include <vector>",
             "int main() {", f"const i64 B = {SIZES['B']};",
             "for (i64 T : {0, 1, 31, 32, 33, 65}) for (i64 way : {1, -1}) for (bool pack : {false, true}) {",
             "const std::vector<i64> cuts{0, T / 2, T / 2, T};",
             "const i64* const bounds = pack ? cuts.data() : nullptr;", "const i64 rows = pack ? T : B * T;",
             "std::map<std::string, std::vector<real>> all; std::vector<void*> p;",
             "auto use = [&](const char* name, i64 n) {", "  auto& x = all[name];",
             "  if (x.empty()) { x.resize(n); for (i64 i = 0; i < n; ++i) x[i] = real(0.1) * ((i * 7) % 11) - real(0.5);",
             '    if (std::string(name) == "R_mask") for (i64 i = 0; i < n; ++i) x[i] = i % 17 == 0;  // rows; others: panels',
             '    else if (std::strstr(name, "_mask")) for (i64 i = 0; i < n; ++i) x[i] = i / 8 % 3 == 0; }',
             "  x.shrink_to_fit(); p.push_back(x.data()); };"]
    for kernel, arrays in (("forward", source.forward), ("backward", source.backward)):
        lines.append("p.clear();")
        lines += [f'use("{a.name}", {size(source, a)});' for a in arrays]
        lines.append(f"if (seqc_{kernel}(B, T, way, bounds, 1, 1, p.data())) return 1;")
    if "seqc_outer_kept(" in source.text:
        d, e, rows = SIZES["D"], SIZES["E"], "std::vector<real>(rows *"
        lines += [f"std::vector<real> out({d} * {e});",
                  f"if (seqc_outer_kept(1, rows, 1, {d}, {e}, {rows} {d}).data(), {rows} {e}).data(), all[\"Q_mask\"].data(),",
                  "    out.data())) return 1;"]
    return "\n".join([source.text, *lines, "}", 'std::puts("clean");', "return 0; }", ""])


OTHERS = [pytest.param(name, marks=pytest.mark.long) for name in ("delta_rule", "mamba", "lstm")]


@pytest.mark.parametrize("name", ["gla", "hgrn", "lists", *OTHERS])
def test_clean(name: str, tmp_path: Path) -> None:
    compiler = _native_compiler()
    assert compiler is not None
    spec = LISTS if name == "lists" else ROOT / "specs" / f"{name}.seq"
    source = native_source(lower(elaborate.load(spec), "step"))
    main = tmp_path / "main.cpp"
    main.write_text(program(source))
    macros = [f"-DSEQC_DIM_{d}={SIZES[d]}" for d in source.dims]
    command = [*compiler[0], *FLAGS, "-DSEQC_REAL=float", *macros, str(main), "-o", str(tmp_path / "main")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr[:3000]
    ran = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and ran.stdout.strip() == "clean", ran.stderr[:3000]
