"""States that are cut out of a program as tables, and those that are not."""

import pytest

from seqc.frontend.elaborate import load
from seqc.ir.graph import topological
from seqc.ir.plan import Plan, Stage
from seqc.passes.plan.tables import rows

HEAD = "spec a\ndim N = 4, D\ninput x[D], r index N, w index N\nstate M[N, D] = 0, h[D] = 0\n"


def cut(text: str) -> Plan | None:
    return rows(Stage("core", "steps", load(text)))


def test_rows_come_in_and_go_out() -> None:
    found = cut(HEAD + "h = tanh(x + M[t-1, r])\nM[w] = h * M[t-1, w]\noutput h\n")
    assert found is not None
    (stage,) = found.stages
    (table,) = stage.tables
    assert stage.inner is not None
    core = stage.inner.program
    assert (table.state, table.axis, table.written.place) == ("M", 1, "w")
    assert sorted((read.name, read.place) for read in table.reads) == [("M_read", "r"), ("M_read_2", "w")]
    assert list(core.states) == ["h"] and list(core.outputs) == ["h", "M_rows"]
    assert set(core.inputs) == {"x", "M_read", "M_read_2"}
    assert not {"put", "gather"} & {n.op for n in topological(core.graph.values())}


@pytest.mark.parametrize(
    "step",
    [
        "M = 0.5 * M[t-1] + x\nh = M[t-1, r]",  # every row changes
        "M[w] = x\nh = sum[N](M[t-1])",  # every row is read
        "M[w] = x\nh = M[r]",  # a row is read after it was written
        "M[w] = x\nh = M[t-1, r] + x[t-1]",  # a step alone says too little
        "M[w] = x\nh = M[t-1, r[t-1]]",
    ],
)
def test_other_states_stay(step: str) -> None:
    assert cut(f"{HEAD}{step}\noutput h\n") is None
