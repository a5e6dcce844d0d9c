"""The demo runs from end to end, and its model decodes what it computes for whole sequences."""

from pathlib import Path

import pytest
import torch

import seqc
from examples import (
    ar_net,
    classifier,
    corpus,
    delays,
    demo,
    filter,
    forecaster,
    language_model,
    lorenz,
    parity,
    pruned_gru,
    speed,
    time_scale,
    training,
    turning,
)  # fmt: skip
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


def test_demo_keeps_its_results_when_it_is_slow_or_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No time for more than one length; Ctrl-C ends the training as it begins."""
    usual = training.bits

    def bits(*given: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise KeyboardInterrupt
        return usual(*given)

    monkeypatch.setattr(training, "bits", bits)
    monkeypatch.setattr(demo, "check", lambda module: None)
    words = ["--updates", "500", "--lengths", "8", "400", "--seconds", "1", "--out", str(tmp_path)]
    assert demo.main(words) == 130
    said = capsys.readouterr().out
    assert "T =   400   left out" in said and "0 updates (of 500: stopped)" in said and "load " in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gla_kernel.py", "loss.png", "speed.png"]


def test_training_ends_with_its_time() -> None:
    text = corpus.encode("for x in range(10):\n    print(x)\n" * 50)
    losses = train(small_model(), text, updates=100_000, batch=2, steps=8, seconds=0.3)
    assert 0 < len(losses) < 100_000
    assert training.height(0, 0.0) < 0.1 and training.height(1000, 0.5) == pytest.approx(0.525)
    assert training.height(1000, 1.0) == pytest.approx(0.05)


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


def test_smaller_examples_run_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--backend", "torch", "--out", str(tmp_path)]
    assert pruned_gru.main([*few, "--strings", "64", "--epochs", "1", "--units", "8", "--wide", "16"]) == 0
    assert lorenz.main([*few, "--updates", "2", "--data", "210", "--units", "4", "--free", "30"]) == 0
    assert ar_net.main([*few, "--steps", "60", "--updates", "3", "--ahead", "5"]) == 0
    assert parity.main([*few, "--seconds", "0.2", "--units", "4", "--batch", "4"]) == 0
    assert delays.main([*few, "--updates", "2", "--units", "3", "--channels", "3", "--classes", "2"]) == 0
    names = ["ar_net", "delays", "lorenz", "parity", "pruned_gru"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == names
    assert "one epoch later" in capsys.readouterr().out


def test_examples_of_layers_run(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--backend", "torch", "--width", "8", "--updates"]
    assert language_model.main([*few, "1", "--layers", "1", "--spec", "gla"]) == 0
    assert forecaster.main([*few, "1", "--hours", "380", "--spec", "gla"]) == 0
    assert filter.main([*few, "1", "--steps", "24"]) == 0
    assert classifier.main([*few, "1"]) == 0
    said = capsys.readouterr().out
    for words in ("bits per character of a page", "A state is ", "as a week ago", "1 hours before the end", "the Kalman filter",
                  "80 to 120 steps", "as it comes in"):
        assert words in said


def test_studies_of_what_a_scan_can_tell_run(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--backend", "torch", "--width", "8", "--updates", "2", "--batch", "4"]
    assert time_scale.main([*few, "--steps", "8", "--longest", "2"]) == 0
    assert turning.main([*few, "--bits", "8", "--longest", "20"]) == 0
    said = capsys.readouterr().out
    assert "16 samples: " in said and "with the step size as it was" in said and "transitions in [-1, 1]: " in said


def test_a_signal_means_the_same_at_all_rates() -> None:
    torch.manual_seed(0)
    model = time_scale.Judge(8, "torch")
    with torch.no_grad():
        signals = torch.sin(torch.linspace(0, 9, 65)[None, 1:]) + 0.5
        held = signals.repeat_interleave(16, 1)
        # the mean sees values inside of a hold too: 3e-3 off; with the step size as it was, 0.17
        torch.testing.assert_close(model(held, 16.0), model(signals), rtol=0, atol=0.01)
        assert (model(held) - model(signals)).abs().max() > 0.1


def test_the_filter_to_beat_is_the_kalman_filter() -> None:
    """By hand, for one sequence: predict, weigh, correct; and it is the better the more it is told."""
    torch.manual_seed(0)
    target, observed = filter.drawn(64, 60)
    found = filter.kalman(observed, "torch")
    F = torch.tensor([[filter.FIRST, filter.SECOND], [1.0, 0.0]], dtype=torch.float64)
    noise = (1 - filter.OUTLIERS) * filter.NOISE**2 + filter.OUTLIERS * filter.FAR**2
    a, P = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    for y, x in zip(observed[0, :, 0].double(), found[0, :, 0], strict=True):
        a, P = F @ a, F @ P @ F.T
        P[0, 0] += filter.DRIVE**2
        gain = P[:, 0] / (P[0, 0] + noise)
        a, P = a + gain * (y - a[0]), P - torch.outer(gain, P[0])
        assert abs(float(x) - float(a[0])) < 1e-4
    assert filter.error(found, target) < 0.7 * filter.error(observed, target)


def test_a_stream_is_judged_as_its_sequence() -> None:
    torch.manual_seed(0)
    model = classifier.Classifier("min_gru", 8, "torch")
    sequences, _ = classifier.drawn(3)
    last = [classifier.KINDS[int(i)] for i in model(sequences).argmax(-1)]
    assert [model.judged(one)[-1] for one in sequences] == last


def test_strings_are_of_the_grammar_or_not() -> None:
    found = pruned_gru.strings(40, 0)
    assert [yes for _, yes in found] == [pruned_gru.valid(text) for text, _ in found] == [True, False] * 20


def test_the_lorenz_system_is_scaled() -> None:

    found = lorenz.trajectory(500)
    assert found.shape == (500, 3) and found.mean(0).abs().max() < 1e-5
    assert (found.std(0) - 1).abs().max() < 1e-5


def test_parity_and_patterns_are_what_they_are_told_to_be() -> None:
    x = torch.tensor([[1.0, -1.0, 1.0, 1.0], [1.0, 1.0, 1.0, -1.0]])
    assert parity.parity(x, 2).tolist() == [0, 1] and parity.parity(x, 3).tolist() == [0, 0]
    torch.manual_seed(0)
    spikes, labels = delays.drawn(delays.templates(3, 5), 7, 0.5)
    assert spikes.sum(1).unique().tolist() == [1.0] and labels.max() < 3  # a channel fires once, whatever the class
