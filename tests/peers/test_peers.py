"""Numbers of other projects' code, reproduced from specs: outputs and every gradient, by each way to run a spec.

"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seqc.diagnostics import Unsupported
from seqc.driver.pipeline import lower
from seqc.frontend import elaborate
from seqc.ir.dims import extent
from seqc.semantics import reference
from tests.block_runner import run_block
from tests.peers.mapping import CASES, Arrays, Peer
from tests.peers.mappings import PEERS
from tests.peers.running import compare, emitted
from tests.peers.specs_table import INDEX, PAGE, index, table

ROWS = 16
# one of each kind: no decay, fixed, by rows and strong; feedback; micro-steps; scan; maximum; dense cells; boundaries; complex
NATIVE = {"linear_attn_normalized", "retention", "gla_strong_decay", "delta_rule", "gated_delta_product", "hgrn",
          "mamba1_selective_scan", "rwkv6", "gsa", "mlstm_parallel", "nn_lstm", "nn_gru", "lif_atan", "mamba2_state_norm",
          "lru", "mamba1_complex_a"}
each = pytest.mark.parametrize("peer", PEERS, ids=lambda p: f"{p.case}-{p.spec}")


@each
def test_oracle(peer: Peer) -> None:
    program = elaborate.load(peer.path)
    compare(peer, lambda arrays, cotangents: reference.gradients(program, arrays, cotangents))


@pytest.mark.long  # `torch_eager/test_specs` runs each block of these specs, `test_torch` the form that is chosen
@each
@pytest.mark.parametrize("form", ["step", "scan", "chunkwise"])
def test_block(peer: Peer, form: str) -> None:
    program = elaborate.load(peer.path)
    try:
        block = lower(program, form, ROWS if form != "step" else None)
    except Unsupported as refusal:
        assert form != "step"
        assert "cannot run as" in str(refusal)
        return

    def run(arrays: Arrays, cotangents: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
        sizes = reference.sizes_of(program, arrays)
        starts = {f"{n}_0": x for n, x in reference.initial_states(program, arrays, sizes).items()}
        ends = {f"{n}_T": cotangents.get(f"{n}_T", np.zeros_like(starts[f"{n}_0"])) for n in program.states}
        steps = next(np.shape(arrays[n])[1] for n in program.inputs)
        outputs = {n: cotangents.get(n, np.zeros([sizes["B"], steps, *(extent(x, sizes) for x in d.dims)]))
                   for n, d in program.output_decls.items()}
        return run_block(block, {**arrays, **starts}, {**outputs, **ends})

    with np.errstate(all="ignore"):
        compare(peer, run)


@each
def test_torch(peer: Peer) -> None:
    """The emitted file as a user has it, in the form that the compiler chooses."""
    compare(peer, emitted(peer, "torch"))


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.case in NATIVE], ids=lambda p: f"{p.case}-{p.spec}")
def test_native(peer: Peer) -> None:
    """The same in native code, where compiling takes seconds a case; `tests.peers.native` runs all of them."""
    compare(peer, emitted(peer, "cpu"))


def test_every_case_is_mapped() -> None:
    assert {path.stem for path in CASES.glob("*.npz")} == {peer.case for peer in PEERS}


def test_table_is_true() -> None:
    """`docs/specs.md` and `seqc list` name every spec, its recurrence, the forms that it can take and its cases.

    Which form is chosen (in bold there) is the cost model's, and not compared.
    """
    told = PAGE.read_text(encoding="utf-8").replace("**", "")
    assert told.endswith(table().replace("**", "")), "write it anew: python -m tests.peers.specs_table"
    assert INDEX.read_text(encoding="utf-8").replace("*", "") == index().replace("*", ""), "the same"
