"""The forms that every spec has on every backend: `tests/forms.tsv`, held against the compiler where tests lower specs anyhow.

In: specs. Out: a line `SPEC TORCH CPU TRITON` each, forms joined by `+`. TORCH: every form that the spec has, each of which is
printed as torch source. CPU: `step`, the form of the native part. TRITON: `step`, and the form that a GPU takes, if another.
A form that is lost, and one that is won, changes the file: `python -m tests.forms` writes it again; the diff is the review.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from seqc.backends.native_cpu import native_source
from seqc.diagnostics import Unsupported
from seqc.driver.backends import OUTSIDE
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.ir.block import Block
from seqc.ir.both_ways import one_run
from seqc.ir.plan import planned
from seqc.ir.program import Program

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests" / "forms.tsv"
PLANES = ("chimera", "rnnt", "soft_dtw")  # of two axes: `tests/planes` judges them
PATHS = {p.stem: p for folder in ("specs", "tests/recurrences") for p in sorted((ROOT / folder).rglob("*.seq"))
         if p.stem not in PLANES}
REPEATING = (
    "ct_lstm", "forward_local_rnn", "hyper_rnn", "jordan", "layer_norm_gru", "lif_alif", "peephole_lstm", "phased_lstm",
    "projected_lstm", "random_graph_rnn", "recoding_lstm", "variational_lstm", "caption_lstm",
    "gae", "garch", "vtrace", "bidirectional_mamba", "conformer_cache", "crf", "dss", "ets", "frcrn_memory", "graph_mamba",
    "gss", "hyena", "liquid_s4", "log_linear_attention", "lssl", "mamba3", "mamba_block", "mesa_net", "mh_ssm",
    "mossformer_memory", "regenn", "tpgn",
)  # fmt: skip
"""Cells whose kernels are of a kind that other specs have: native code and Triton run them in the long tests, torch always."""
BACKENDS = ("torch", "cpu", "triton")
FORMS = ("step", "scan", "chunkwise")
GPU_ROWS = 16


def for_kernels(program: Program) -> Program:
    """What kernels have to do of a program: without rows that an index tells, which plain torch reads and writes."""
    if all(not d.places for d in program.inputs.values()):
        return program
    return planned(program, OUTSIDE).cores[0].program


@cache
def kept() -> dict[tuple[str, str], list[str]]:
    """(spec, backend) -> its forms, as the file has them."""
    lines = [line.split("\t") for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {(name, b): forms.split("+") for name, *row in lines for b, forms in zip(BACKENDS, row, strict=True)}


def changed(name: str, backend: str, found: list[str]) -> str:
    """What to tell where a spec's forms are not those of the file; "" where they are."""
    before = kept().get((name, backend), [])
    if before == found:
        return ""
    return (f"the forms of {name} on {backend} are {'+'.join(found)}, and {'+'.join(before) or 'nothing'} in tests/forms.tsv; "
            "if that is meant, write the file again with `python -m tests.forms`")


def blocks(program: Program, rows: int) -> dict[str, Block]:
    """A block of each form that a program can take; the others are refused with a reason, and a step never is."""
    found = {}
    for form in FORMS:
        try:
            found[form] = lower(program, form, rows if form != "step" else None)
        except Unsupported as refusal:
            assert form != "step" and "cannot run as" in str(refusal), refusal
    return found


def on_gpu(program: Program) -> list[str]:
    """`step`, and the form that a GPU takes."""
    return list(dict.fromkeys(["step", lower(program, rows=GPU_ROWS).form]))


def natively(block: Block) -> list[str]:
    """The form of a block of one step, or none where native code refuses it."""
    try:
        native_source(block)
    except Unsupported:
        return ["none"]
    return [block.form]


def main() -> None:
    """Write the file."""
    lines = ["# spec\ttorch\tcpu\ttriton: see tests/forms.py"]
    for name, path in PATHS.items():
        program = one_run(load(path))
        found = blocks(program, GPU_ROWS)
        inner = for_kernels(program)
        lines.append("\t".join([name, "+".join(found), "+".join(natively(lower(inner, "step"))), "+".join(on_gpu(inner))]))
    FILE.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
