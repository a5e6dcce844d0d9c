"""The demo runs from end to end, and its model decodes what it computes for whole sequences."""

from pathlib import Path

import pytest
import torch

import seqc
from examples import corpus, demo, speed
from examples.char_model import CharModel
from examples.training import train

SPEC = Path(__file__).parents[1] / "specs" / "gla.seq"


def small_model() -> CharModel:
    torch.manual_seed(0)
    return CharModel(seqc.compile(SPEC, "torch").Module, corpus.SYMBOLS, width=16, heads=2, blocks=2)


def test_demo_runs_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--updates", "2", "--lengths", "16", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gla_kernel.py", "loss.png", "speed.png"]
    said = capsys.readouterr().out
    for words in ("seqc explain", "relative error", "T =    16", "bits per character before", "times as fast"):
        assert words in said


def test_steps_equal_the_sequence() -> None:
    model = small_model()
    text = corpus.encode("def f(x):\n    return x + 1\n")[None]
    with torch.no_grad():
        whole, states = model(text)
        carried: list[torch.Tensor] = []
        for t in range(text.shape[1]):
            logits, carried = model.step(text[:, t], carried)
            torch.testing.assert_close(logits, whole[:, t], rtol=1e-5, atol=1e-5)
    for x, y in zip(carried, states, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def test_training_lowers_the_loss_and_text_can_be_continued() -> None:
    model = small_model()
    text = corpus.encode("for x in range(10):\n    print(x)\n" * 50)
    losses = train(model, text, updates=40, batch=4, steps=32)
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]
    continued = model.continue_text(text[:20], 10, torch.Generator().manual_seed(0))
    assert len(corpus.decode(continued)) == 10


def test_held_out_files_are_not_trained_on() -> None:
    text, held_out = corpus.standard_library()
    assert len(text) > 5 * len(held_out) > 0
    assert int(text.min()) >= 0 and int(text.max()) < corpus.SYMBOLS
    seen, wanted = corpus.windows(text, 3, 7, torch.Generator().manual_seed(0))
    assert torch.equal(seen[:, 1:], wanted[:, :-1])


def test_the_loop_of_the_demo_is_the_recurrence() -> None:
    given = speed.arguments(9)
    want = seqc.oracle(SPEC, **dict(zip("qkvg", given, strict=True)))["o"]
    torch.testing.assert_close(speed.eager_loop(*given).double(), torch.tensor(want), rtol=1e-5, atol=1e-5)
