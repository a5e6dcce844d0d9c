"""Golden digests: what is emitted for every spec, by backend, as a line of `tests/golden/digests.txt` each.

In: specs. Out: `SPEC BACKEND LINES DIGEST`, the last two of a text: "torch" is the whole file of plain torch, "cpu" the native
part, "triton" the kernels of the form that a GPU takes, in blocks of 16 steps. None depends on recorded verdicts. They are
compared where tests emit these texts anyhow; `python -m tests.cli.golden` writes them again. The line of a spec that a backend
refuses ends in `refused CODE`.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from seqc.diagnostics import Unsupported
from seqc.driver.compile import Options, compile_spec
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from tests.forms import for_kernels

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "golden" / "digests.txt"
SPECS = {path.stem: path for path in sorted((ROOT / "specs").rglob("*.seq"))}
BACKENDS = ("torch", "cpu", "triton")
ROWS = 16


def digest(text: str) -> str:
    """What the file says of a text: its number of lines, and the start of its sha256."""
    return f"{text.count(chr(10))} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


@cache
def kept() -> dict[tuple[str, str], str]:
    """(spec, backend) -> the digest that was kept."""
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    return {(spec, backend): rest for spec, backend, rest in (line.split(" ", 2) for line in lines)}


def changed(spec: str, backend: str, found: str) -> str:
    """What to tell where a text is not what it was; "" where it is, and of a spec that is not published."""
    before = kept().get((spec, backend), "nothing")
    if spec not in SPECS or before == found:
        return ""
    command = f"seqc compile specs/{spec}.seq --backend {backend} -o -"
    return (
        f"what is emitted for {spec} ({backend}) has changed: {before} was kept, {found} is made. Compare what `{command}` "
        "prints with and without the change; if it is meant, write the digests again with `python -m tests.cli.golden`"
    )


def native_part(path: Path) -> str:
    """The CPU part of an emitted file, of the loop form."""
    from seqc.backends import native_cpu

    return native_cpu.emit(lower(for_kernels(load(path)), "step")).alone


def text(spec: str, backend: str) -> str:
    """The text behind a line, as it is now."""
    if backend == "cpu":
        return native_part(SPECS[spec])
    if backend == "triton":
        from seqc.backends.triton_gpu.emit import triton_kernels

        return triton_kernels(lower(for_kernels(load(SPECS[spec])), rows=ROWS)).alone
    return compile_spec(SPECS[spec], Options("torch")).text


def line(spec: str, backend: str) -> str:
    """What the file says of a spec on a backend, as it is now."""
    try:
        return f"{spec} {backend} {digest(text(spec, backend))}\n"
    except Unsupported as problem:
        return f"{spec} {backend} refused {problem.diagnostics[0].code}\n"


def write() -> None:
    """Write the file again."""
    rows = [line(spec, backend) for spec in SPECS for backend in BACKENDS]
    FILE.write_text("".join(rows), encoding="utf-8")
