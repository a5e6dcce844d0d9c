"""What kernels need of the C++ that all have: each instruction set finds all that it names, and nothing else is left."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from seqc.backends.native_cpu import loader
from seqc.backends.native_cpu.needed import ALL, needed, runtime_of
from seqc.driver.compile import compile_spec
from seqc.driver.options import Options
from tests.emit.test_index import MEMORY
from tests.native_cpu.syntax import sizes_of, sources_of

SPECS = Path(__file__).parents[2] / "specs"
KINDS = ("gla", "lstm", "hgrn", "mlstm", "random_graph_rnn", "lif", "pv_rnn")  # loops, functions, lists, spikes; noise, long
FILES = ("soft_dtw", "bidirectional_gru", "mamba_block")  # of several stages
SETS = ("-march=x86-64", "-march=x86-64-v3", "-march=x86-64-v4")


@pytest.mark.parametrize("name", KINDS)
def test_all_that_is_named_is_there(name: str) -> None:
    words = loader._native_compiler()
    assert words is not None
    bare = {**os.environ, "SEQC_TEST_HEADERS": ""}  # the text brings its own
    for source in sources_of((SPECS / f"{name}.seq").read_text()):
        sizes = [f"-DSEQC_DIM_{d}={n}" for d, n in sizes_of(source).items()]
        for instructions in SETS:
            flags = ["-std=c++17", instructions, "-fsyntax-only", "-w", "-DSEQC_REAL=float", "-DSEQC_ROWS=8", *sizes]
            command = [*words[0], *flags, "-x", "c++", "-"]
            done = subprocess.run(command, input=source.text, capture_output=True, text=True, check=False, env=bare)
            assert not done.returncode, done.stderr[:2000]


def test_nothing_is_left_that_no_kernel_reaches() -> None:
    text = runtime_of(needed({"store", "seqc_sigmoid", "load", "p_x"}))
    assert "INLINE vec seqc_exp(vec x)" in text and "at_most" in text
    others = "seqc_log", "seqc_tanh", "gather", "transpose", "run_programs", "seqc_draw"
    assert not any(f" {name}(" in text for name in others)
    assert "struct Team" not in text and "seqc_large_pages" in text


@pytest.mark.parametrize("spec", [*(SPECS / f"{name}.seq" for name in (*KINDS, *FILES)), MEMORY])
def test_a_file_has_the_parts_that_it_names_and_no_others(spec: str | Path) -> None:
    """Of several stages, and of walks around an inner plan too: its kernels are a library of their own."""
    texts = re.findall(r'^_(\w+) = r"""(.*?)"""', compile_spec(spec, Options("cpu")).text, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in texts].count("NATIVE_RUNTIME") == 1
    before = dict(texts)["NATIVE_RUNTIME"]
    kernels = "\n".join(text for name, text in texts if name != "NATIVE_RUNTIME")
    assert "forward_program" in kernels
    there = [part for part in ALL if part.text in before]
    for part in ALL:
        users = [kernels, *(other.text for other in there if other != part)]
        named = any(re.search(rf"\b{name}\b", re.sub("//.*", "", text)) for name in part.gives.split() for text in users)
        assert named or part not in there, part.gives
        called = any(re.search(rf"(?<![.:\w]){name}[(<]", kernels) for name in part.gives.split())
        assert part in there or not called, part.gives


def test_recurrences_of_a_file_share_what_they_need() -> None:
    text = compile_spec(SPECS / "pv_rnn.seq", Options("cpu")).text
    assert text.count("_NATIVE_RUNTIME = ") == 1 and text.count("typedef real vec") == 1
