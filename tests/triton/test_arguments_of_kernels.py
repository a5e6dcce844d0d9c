"""The arguments of printed kernels and device functions: what their code names, and nothing that a comment alone names."""

import ast

import pytest

from seqc.backends.triton_gpu.emit import print_all
from seqc.backends.triton_gpu.print_team import print_team
from seqc.backends.triton_gpu.schedule import schedule
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from tests.cli.digests import SPECS

IN_A_COMMENT = """spec comment
dim K, L = 4
state h[K]
input x[K]
h = 0.5 * h[t-1] + x / sqrt(L)
output y = sum[K](h)
"""


def kinds(function: ast.FunctionDef) -> tuple[set[str], set[str]]:
    """(compile-time and run-time arguments, names that the code reads) of a kernel or a device function."""
    arguments = {one.arg for one in function.args.args if not one.arg.startswith("p_") or one.arg == "p_cu_seqlens"}
    return arguments, {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


@pytest.mark.parametrize(
    ("spec", "form", "rows"),
    [("gla", "chunkwise", 16), ("kda", "chunkwise", 16), ("gated_delta_rule", "chunkwise", 16), ("lstm", "step", 1),
     ("hyena", "step", 1),
     ("stuffed_mamba_window", "step", 1)],
)  # fmt: skip
def test_every_argument_is_read(spec: str, form: str, rows: int) -> None:
    plan = schedule(lower(load(SPECS[spec]), form, rows))
    printed = [*print_all(plan).values(), *(print_team(plan.team).values() if plan.team is not None else ())]
    texts = {text for one in printed for text in (one.text, *one.functions.values())}
    for text in texts:
        (function,) = ast.parse(text).body
        assert isinstance(function, ast.FunctionDef)
        arguments, read = kinds(function)
        assert arguments <= read, function.name


def test_a_dim_in_a_comment_is_no_argument() -> None:
    """Of `x / sqrt(L)` the kernel prints the line, and the launcher gives the root: no code reads L."""
    (forward, *_) = print_all(schedule(lower(load(IN_A_COMMENT), "step", 1))).values()
    assert "sqrt(L)" in forward.text and "L" not in forward.arguments and "SQRT_L" in forward.arguments
