"""Closed loops: `feedback`, and `generate` over a prompt and what follows, in values and gradients.

Judged by numbers of other code (an AR(3) and a shallow piecewise-linear network, `numbers/README.md`), and by loops of steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.diagnostics import Refusal
from tests.hard.loop_cases import AR, CELL, DRAWN, PLRNN, SHALLOW, TOKENS, WORDS
from tests.triton import processes

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "hard" / "numbers"
BACKENDS = ("torch", "cpu")


def case(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(arguments that take a gradient, everything by the names of the file)."""
    with np.load(CASES / f"{name}.npz") as found:
        every = {key: torch.tensor(found[key]) for key in found.files}
    return {key[3:]: x.clone().requires_grad_() for key, x in every.items() if key.startswith("in.")}, every


def judge(every: dict[str, torch.Tensor], results: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> None:
    """Results and gradients against those of the file, to 1e-9 of the largest element."""
    loss = torch.zeros((), dtype=torch.float64)
    for name, x in results.items():
        want = every[f"out.{name}"]
        torch.testing.assert_close(x, want, rtol=0, atol=1e-9 * float(want.abs().max()))
        loss = loss + (x * every[f"cot.{name}"]).sum()
    names = [name for name in given if f"grad.{name}" in every]
    for name, x in zip(names, torch.autograd.grad(loss, [given[name] for name in names]), strict=True):
        want = every[f"grad.{name}"]
        torch.testing.assert_close(x, want, rtol=0, atol=1e-9 * float(want.abs().max()), msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_ar_process_of_a_prompt(backend: str) -> None:
    """Taps on the past of what is fed back; the output of the same step is what goes in."""
    given, every = case("closed_loop_ar3")
    got = seqc.compile(AR, backend).generate(given["x"], given["a"], given["c"], steps=320)
    judge(every, {"y": got.y}, given)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_shallow_network_that_is_forced_now_and_then(backend: str) -> None:
    """No prompt, but some steps given: what stands at the others is never read, NaN or not."""
    given, every = case("closed_loop_shallow_plrnn")
    at = torch.arange(0, 300, 30)
    obs = torch.full((2, 300, 2), torch.nan, dtype=torch.float64).index_copy(1, at, given["x_obs"])
    which = torch.zeros(300, dtype=torch.bool).index_fill(0, at, True)
    params = [given[name] for name in ("A", "W1", "W2", "h1", "h2", "Bo")]
    got = seqc.compile(SHALLOW, backend).generate(obs, *params, steps=300, given=which, z_0=given["z0"])
    judge(every, {"x": got.x, "z_T": got.z_T}, given)


@pytest.fixture(scope="module")
def cell() -> dict[str, Any]:
    """A recurrent cell with an input from outside, noise, and an output through a matrix that is fed back."""
    return {backend: seqc.compile(CELL, backend) for backend in BACKENDS}


def arguments(steps: int) -> dict[str, torch.Tensor]:
    """Of the cell: a prompt of 4 steps, an input of all of them, and params."""
    made = torch.Generator().manual_seed(0)
    shapes = {"x": (2, 4, 3), "u": (2, steps), "W": (5, 3), "R": (5, 5), "C": (3, 5)}
    return {name: torch.randn(shape, generator=made, dtype=torch.float64).requires_grad_() for name, shape in shapes.items()}


def stepped(one: Any, given: dict[str, torch.Tensor], steps: int) -> torch.Tensor:
    """A loop of single steps of the ordinary function, which takes its own output once the prompt is over."""
    params = {name: given[name] for name in ("W", "R", "C")}
    states: dict[str, Any] = {"seed": 7}
    rows: list[torch.Tensor] = []
    for t in range(steps):
        x = given["x"][:, t] if t < given["x"].shape[1] else rows[-1]
        got = one.step(x, given["u"][:, t], **params, **states)
        states = {f"{name[:-2]}_0": s for name, s in got._asdict().items() if name.endswith("_T")}
        rows.append(got.y)
    return torch.stack(rows, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_generate_is_a_loop_of_steps(backend: str, cell: dict[str, Any]) -> None:
    """With noise, an input from outside, and gradients through the whole rollout."""
    given = arguments(11)
    got = cell[backend].generate(**given, steps=11, seed=7).y
    want = stepped(cell["torch"], given, 11)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)
    weights = torch.randn(got.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    slopes = [torch.autograd.grad((y * weights).sum(), list(given.values()), retain_graph=True) for y in (got, want)]
    for name, a, b in zip(given, *slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_over_a_prompt_alone_it_is_the_ordinary_call(backend: str, cell: dict[str, Any]) -> None:
    given = arguments(4)
    loop, plain = cell[backend].generate(**given, steps=4, seed=3), cell[backend](**given, seed=3)
    torch.testing.assert_close(loop.y, plain.y, rtol=0, atol=1e-12)
    torch.testing.assert_close(loop.h_T, plain.h_T, rtol=0, atol=1e-12)


def test_it_goes_on_from_its_states(cell: dict[str, Any]) -> None:
    one, given = cell["cpu"], arguments(11)
    whole = one.generate(**given, steps=11, seed=5)
    first = one.generate(**{**given, "u": given["u"][:, :6]}, steps=6, seed=5)
    states = {f"{name[:-2]}_0": x for name, x in first._asdict().items() if name.endswith("_T")}
    rest = {**given, "x": given["x"][:, :0], "u": given["u"][:, 6:]}
    second = one.generate(**rest, steps=5, **states)
    torch.testing.assert_close(torch.cat([first.y, second.y], 1), whole.y, rtol=0, atol=1e-12)


def test_each_sequence_has_a_prompt_of_its_own(cell: dict[str, Any]) -> None:
    one, given = cell["torch"], arguments(9)
    x = torch.cat([given["x"], torch.full((2, 5, 3), torch.nan, dtype=torch.float64)], 1)
    which = torch.arange(9) < torch.tensor([[4], [2]])
    got = one.generate(**{**given, "x": x}, steps=9, given=which, seed=torch.tensor([1, 2]))
    for i, length in enumerate((4, 2)):
        alone = {name: value[i : i + 1] if name in "xu" else value for name, value in given.items()}
        own = one.generate(**{**alone, "x": alone["x"][:, :length]}, steps=9, seed=torch.tensor([i + 1]))
        torch.testing.assert_close(got.y[i], own.y[0], rtol=0, atol=1e-12)


def test_the_module_generates(cell: dict[str, Any]) -> None:
    layer = cell["torch"].Module(D=5, M=3, dtype=torch.float64)
    given = arguments(8)
    got = layer.generate(given["x"], given["u"], steps=8, seed=1)
    want = cell["torch"].generate(given["x"], given["u"], layer.W, layer.R, layer.C, steps=8, seed=1)
    assert torch.equal(got.y, want.y)
    got.y.sum().backward()
    assert layer.C.grad is not None and layer.C.grad.abs().sum() > 0


def test_mixing_is_said_in_the_spec() -> None:
    """Generalised teacher forcing, with alpha at run time: the network of `plrnn`, forced by a weighted mean."""
    one = seqc.compile(PLRNN, "torch")
    made = torch.Generator().manual_seed(3)
    A, W, h, x = (torch.randn(s, generator=made, dtype=torch.float64) * 0.3 for s in ((3,), (3, 3), (3,), (1, 6, 3)))
    for value in (1.0, 0.3, 0.0):
        alpha = torch.full((1, 6), value, dtype=torch.float64)
        z = torch.zeros(1, 3, dtype=torch.float64)
        rows = []
        for t in range(6):
            used = value * x[:, t] + (1 - value) * z
            z = A * used + torch.relu(used) @ W.T + h
            rows.append(z)
        torch.testing.assert_close(one(x, alpha, A, W, h).z, torch.stack(rows, 1), rtol=0, atol=1e-12)
        free = one.generate(x[:, :0], alpha, A, W, h, steps=6).z
        torch.testing.assert_close(free, one(x, alpha * 0, A, W, h).z, rtol=0, atol=1e-12)


def test_tokens_are_chosen_and_drawn() -> None:
    """One-hot tokens: the likeliest by a plain loop, drawn ones by their frequencies, within six standard errors."""
    one = seqc.compile(TOKENS, "torch")
    made = torch.Generator().manual_seed(5)
    E, R, C, b = (torch.randn(s, generator=made, dtype=torch.float64) for s in ((4, 5), (4, 4), (5, 4), (5,)))
    prompt = torch.eye(5, dtype=torch.float64)[torch.tensor([[1, 3]])]
    greedy = torch.ones(1, 12, dtype=torch.float64)
    got = one.generate(prompt, greedy, E, R, C, b, steps=12).chosen.argmax(-1)
    h, token, want = torch.zeros(4, dtype=torch.float64), 0, []
    for t in range(12):
        h = torch.tanh(R @ h + E @ (prompt[0, t] if t < 2 else torch.eye(5, dtype=torch.float64)[token]))
        token = int((C @ h + b).argmax())
        want.append(token)
    assert got[0].tolist() == want
    count = 4000
    free = prompt[:, :0], torch.zeros(1, count, dtype=torch.float64)
    drawn = one.generate(*free, E * 0, R * 0, C, b, steps=count, seed=1).chosen[0]
    assert torch.equal(drawn.sum(-1), torch.ones(count, dtype=drawn.dtype))
    chance = torch.softmax(b, 0)
    assert ((drawn.double().mean(0) - chance).abs() < 6 * (chance * (1 - chance) / count).sqrt()).all()


def words(seed: int) -> list[torch.Tensor]:
    """E, R, C and b of the models of words."""
    made = torch.Generator().manual_seed(seed)
    shapes = (5, 3), (3, 3), (5, 3), (5,)
    return [torch.randn(shape, generator=made, dtype=torch.float64).requires_grad_() for shape in shapes]


def spoken(E: Any, R: Any, C: Any, b: Any, prompt: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Words that a plain loop chooses, and their scores: of each sequence a table of its own, written row by row."""
    h, notes = E.new_zeros(len(prompt), 3), [[E.new_zeros(3) for _ in range(5)] for _ in prompt]
    chosen, scores = [], []
    for t in range(steps):
        w = prompt[:, t] if t < prompt.shape[1] else chosen[-1]
        least = [min(range(5), key=lambda v: float(rows[v][0].detach())) for rows in notes]
        read = torch.stack([rows[int(i)] for rows, i in zip(notes, w, strict=True)])
        h = torch.tanh(E[w] + h @ R.T + 0.5 * read + 0.1 * E[least])
        scores.append(h @ C.T + b)
        chosen.append(scores[-1].argmax(-1))
        for i, rows in enumerate(notes):
            rows[int(chosen[-1][i])] = h[i]
    return torch.stack(chosen, 1), torch.stack(scores, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_words_are_chosen_and_read_and_written_by(backend: str) -> None:
    """An index is fed what the step chooses, which also tells rows of params and states; gradients pass the rows."""
    one, prompt = seqc.compile(WORDS, backend), torch.tensor([[1, 3], [2, 2]])
    mine, plain = words(2), words(2)
    got = one.generate(prompt, *mine, steps=9)
    chosen, scores = spoken(*plain, prompt, 9)
    assert torch.equal(got.chosen.long(), chosen) and len(chosen.unique()) > 2
    torch.testing.assert_close(got.score, scores, rtol=0, atol=1e-12)
    weights = torch.randn(scores.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pairs = zip(*(torch.autograd.grad((x * weights).sum(), p) for x, p in ((got.score, mine), (scores, plain))), strict=True)
    for name, (a, b) in zip("ERCb", pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11, msg=name)


def test_a_word_that_is_not_given_is_never_read() -> None:
    """Not even looked at: it may be no position at all."""
    one, params = seqc.compile(WORDS, "torch"), [x.detach() for x in words(2)]
    given = torch.tensor([True, False, False, True, False])
    garbage = one.generate(torch.tensor([[1, 99, -3, 2, 7]]), *params, steps=5, given=given)
    assert torch.equal(garbage.score, one.generate(torch.tensor([[1, 0, 0, 2, 0]]), *params, steps=5, given=given).score)
    with pytest.raises(IndexError, match="is 99 at B = 0, T = 0"):
        one.generate(torch.tensor([[99, 1, 1, 1, 1]]), *params, steps=5, given=given)


def test_words_are_drawn() -> None:
    """By their frequencies, within six standard errors; the same on both backends."""
    E, R, C, b = (x.detach() for x in words(3))
    one, count = seqc.compile(DRAWN, "torch"), 4000
    none = torch.zeros(1, 0, dtype=torch.long)
    drawn = one.generate(none, E * 0, R * 0, C, b, steps=count, seed=1).word[0].long()
    chance = torch.softmax(b, 0)
    assert ((drawn.bincount(minlength=5) / count - chance).abs() < 6 * (chance * (1 - chance) / count).sqrt()).all()
    runs = [seqc.compile(DRAWN, backend).generate(none, E, R, C, b, steps=50, seed=4).word for backend in BACKENDS]
    assert torch.equal(*runs)


def test_a_choice_among_numbers_that_are_none_is_a_position() -> None:
    one = seqc.compile(WORDS, "torch")
    E, R, C, b = (x.detach() for x in words(3))
    got = one.generate(torch.tensor([[1]]), E, R, C, b * torch.nan, steps=3)
    assert got.chosen.tolist() == [[4.0, 4.0, 4.0]] and got.score.isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_position_that_is_passed_is_cut_to_one(backend: str) -> None:
    """An earlier choice is a state, which may begin as any number: it is rounded down, and lies within the dim."""
    E, R, C, b = (x.detach() for x in words(3))
    h = torch.zeros(4, 3, dtype=torch.float64)
    start = torch.tensor([2.7, -1.0, 9.0, torch.nan], dtype=torch.float64)
    got = seqc.compile(WORDS, backend).generate(torch.zeros(4, 0, dtype=torch.long), E, R, C, b, steps=1, h_0=h, chosen_0=start)
    want = torch.tanh(E[[2, 0, 4, 0]] + 0.1 * E[0]) @ C.T + b
    torch.testing.assert_close(got.score[:, 0], want, rtol=0, atol=1e-12)


def test_what_is_wrong_is_said(cell: dict[str, Any]) -> None:
    one, given = cell["torch"], arguments(6)
    for wrong, words in (
        ({"steps": 3}, "a run of 3 steps, and x has more"),
        ({"steps": 6, "given": torch.ones(6)}, "has all of them where given= tells"),
        ({"steps": 4, "given": torch.ones(3)}, r"given has shape \[3\]"),
    ):
        with pytest.raises(ValueError, match=words):
            one.generate(**given, **wrong)
    with pytest.raises(AttributeError, match="no closed loop"):
        seqc.compile("lstm", "torch").generate(torch.zeros(1))
    for line, words in (
        ("feedback y = u", "is no input"),
        ("feedback x = C @ h", "in the same step"),
        ("feedback x = h[t-1]", "dims"),
        ("feedback x = u", "fed back twice"),
    ):
        text = CELL if words == "fed back twice" else CELL.replace("feedback x = y[t-1]\n", "")
        with pytest.raises(Refusal, match=words):
            seqc.compile(f"{text}{line}\n", "torch")


def test_without_feedback_nothing_is_emitted() -> None:
    plain = seqc.compile(CELL.replace("feedback x = y[t-1]\n", ""), "torch").source
    assert "_generate" not in plain and "_loop" not in plain


def test_triton_runs_the_loop() -> None:
    """The loop's own kernels in Triton's interpreter, values and gradients against the reference."""
    answers = processes.run(["-m", "tests.hard.loop_in_triton"])
    assert answers.returncode == 0, answers.stderr
    assert [line.strip() for line in answers.stdout.splitlines()] == [""] * 10, answers.stdout
