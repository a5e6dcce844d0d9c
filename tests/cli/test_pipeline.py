"""The pipeline: what it needs and gives fits, the verifier stands after every stage."""

from dataclasses import replace
from pathlib import Path

import pytest

from seqc.diagnostics import SeqcBug
from seqc.driver.pipeline import fix_dims, lower, run
from seqc.frontend.elaborate import load
from seqc.ir.graph import Node, node
from seqc.passes import CHECKS, GIVEN, PIPELINE, Stage, ordered
from seqc.passes.blocks.choose import GPU

GLA = Path(__file__).parents[2] / "specs" / "gla.seq"


def test_every_stage_says_what_it_is_for() -> None:
    for stage in PIPELINE:
        assert (stage.run.__doc__ or "").strip(), stage.name
    assert {stage.name for stage in PIPELINE} >= set(CHECKS)
    assert PIPELINE[-1].gives == "block"


def test_stages_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="stage classify needs program"):
        ordered(PIPELINE, GIVEN[1:])
    with pytest.raises(ValueError, match="stage classify gives components, which is there already"):
        ordered((PIPELINE[0], PIPELINE[0]))
    with pytest.raises(ValueError, match="two stages have one name"):
        ordered((PIPELINE[0], replace(PIPELINE[0], gives="other")))


def test_the_verifier_blames_the_stage() -> None:
    def spoiled() -> dict[str, Node]:
        bad = node("exp", node("const", value=1.0))
        bad.dims = ("K",)
        return {"o": bad}

    given = {"program": load(GLA), "form": None, "rows": None, "machine": GPU}
    with pytest.raises(SeqcBug, match="failed in spoil"):
        run((Stage("spoil", spoiled, (), "spoiled"),), given)


def test_watching_sees_every_stage_in_order() -> None:
    seen: list[str] = []
    lower(load(GLA), watch=lambda stage, value: seen.append(stage))
    assert seen == ["spec", *(stage.name for stage in PIPELINE)]


def test_fixed_dims() -> None:
    program = fix_dims(load(GLA), {"K": 64})
    assert program.dims["K"].choices == (64,) and program.dims["V"].choices == ()
