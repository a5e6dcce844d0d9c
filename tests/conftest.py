"""The order of the tests, what is not run unless asked for, and the compiler of native code.

- What runs for long comes first, so that the last of several workers has little left to wait for.
- Tests marked `long` repeat on more cases what others check of each kind. `make test-all` runs them too.
- Native code is built without optimisation, which halves the time, and with headers compiled ahead, which halves it again,
  except where a test is named in `OPTIMISED`: those hold for the code as users build it, and for what it includes. With
  SEQC_TEST_OPTIMISED=1, as in `make test-all`, all of it is.
- What is there when a file begins is not looked at by the garbage collector from then on: interned nodes, caches and libraries
  are kept until the end anyway, and to walk over them again and again costs a tenth of the time.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache as once
from pathlib import Path

import pytest

from seqc import cache

os.environ.setdefault("SEQC_BATCHES", "all")  # one library for all batches of a test
os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is first imported, and some tests only ask whether it is there
gc.set_threshold(20_000)
cache.KEEPS = False  # tests compile for themselves, and some change the compiler while it runs

LONG = tuple(
    f"tests/{name}.py" for name in ("triton/test_kernels", "native_cpu/test_sanitizers", "emit/test_packs", "cli/test_golden")
)
QUICK = Path(__file__).parent / "native_cpu" / "quick-c++"
OPTIMISED = tuple(
    f"tests/{name}.py" for name in ("native_cpu/test_vector_math", "native_cpu/test_loader", "native_cpu/test_chosen",
                                    "native_cpu/test_prebuilt", "test_examples", "test_benchmarks", "hard/test_counting")
)  # fmt: skip
# of native_cpu/test_specs, and of emit/test_packs, which shares the libraries: a spec of each kind of loop
OPTIMISED_SPECS = ("linear_attention", "retention", "gla", "delta_rule", "hgrn", "mamba", "lstm", "gru")
OTHERWISE = ("panels_of_unequal_width", "processors_with_shorter_vectors")  # builds of their own, about other things


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Without the garbage collector: all that is read stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first; otherwise the order stays."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def optimised(item: pytest.Item) -> bool:
    """Whether native code of a test is built as users build it."""
    if os.environ.get("SEQC_TEST_OPTIMISED") or item.nodeid.startswith(OPTIMISED):
        return True
    if not item.nodeid.startswith(("tests/native_cpu/test_specs.py", "tests/emit/test_packs.py")):
        return False
    spec = getattr(item, "callspec", None)
    of_a_kind = spec is None or spec.params.get("name", "hgrn") in OPTIMISED_SPECS
    return of_a_kind and not any(name in item.nodeid for name in OTHERWISE)


MADE: list[str] = []  # folders of headers


def pytest_sessionfinish() -> None:
    """Remove what was compiled ahead."""
    for folder in MADE:
        shutil.rmtree(folder, ignore_errors=True)


@once
def headers(compiler: str) -> str:
    """The headers that native code includes, compiled by GCC for this process; "" for another compiler, whose rules differ."""
    from seqc.backends.native_cpu import loader
    from seqc.backends.native_cpu.runtime import RUNTIME

    told = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True, check=False).stdout
    if "Free Software Foundation" not in told:
        return ""
    MADE.append(tempfile.mkdtemp(prefix="seqc-headers-"))
    whole = Path(MADE[-1], "headers.h")
    whole.write_text("".join(re.findall(r"^#.*\n", RUNTIME[: RUNTIME.index("namespace {")], re.MULTILINE)))
    flags = [x for x in loader._native_flags()[0] if not x.startswith("-D")]
    command = [*compiler.split(), *flags, "-O0", "-x", "c++-header", str(whole), "-o", f"{whole}.gch"]
    return "" if subprocess.run(command, capture_output=True, check=False).returncode else str(whole)


FILES: list[Path] = []  # of the test that ran last


def settle(file: Path) -> None:
    """Where a file begins: free what the last one left in cycles, and take what stays out of the collector's sight."""
    if file not in FILES:
        FILES[:] = [file]
        gc.collect()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Set the compiler for a test and its fixtures. Modules find it once each, and each test has modules of its own names."""
    from seqc.backends.native_cpu import loader

    settle(item.path)
    before = os.environ.get("CXX")
    if not optimised(item) and shutil.which("c++"):
        os.environ |= {"CXX": str(QUICK), "SEQC_TEST_CXX": before or "c++", "SEQC_TEST_HEADERS": headers(before or "c++")}
    loader._native_search.cache_clear()
    loader._native_flags.cache_clear()
    try:
        return (yield)
    finally:
        if before is None:
            os.environ.pop("CXX", None)
        else:
            os.environ["CXX"] = before
