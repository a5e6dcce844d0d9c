"""The benchmarks run at tiny shapes, compare before they time, and say what is absent or wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqc
from benchmarks import ceilings, convolutions, layers, ours, page, report, sparse, tasks, tokens
from benchmarks.ceilings import Ceilings, Work, work
from benchmarks.contender import DECODE, FORWARD, TRAIN, Absent, Contender, error, numbers
from benchmarks.entry import Entry, Row, measure
from benchmarks.gpu import calibrate, shapes
from benchmarks.gpu import emit as gpu_emit
from benchmarks.gpu import measure as gpu_measure
from benchmarks.gpu.__main__ import read
from benchmarks.gpu.peers import peers as gpu_peers
from benchmarks.peers import loops
from benchmarks.timing import quartiles, ratio
from seqc.backends.triton_gpu.tuning import pacing
from seqc.check.timing import race

ROOT = Path(__file__).parents[1]
CEILINGS = Ceilings(flops=1e9, bytes=1e9)


def python(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)


def test_sparse_layers_are_compared_and_timed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    assert sparse.main(["gru", "--width", "32", "--steps", "2", "--batch", "2", "--rounds", "1", "--backend", "torch"]) == 0
    said = capsys.readouterr().out
    assert said.count("seqc, sparse") == 4
    assert said.count("torch.sparse, BSR") == 2
    assert "outputs agree" in said


def test_tokens_are_compared_and_timed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the sizes of `tests/native_cpu/test_direct.py`, whose library is there."""
    monkeypatch.setattr(tokens, "pin", lambda _: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    task = tasks.task("gla", {"B": 2, "T": 1, "H": 2, "K": 5, "V": 40})
    found = list(tokens.measured(task, 2))
    assert [name for name, _, _ in found][:3] == ["seqc", "seqc, inplace=True", "seqc, into=r: nothing allocated"]
    assert all(len(seconds) == 2 and min(seconds) > 0 and error < 1e-5 for _, seconds, error in found)
    monkeypatch.setattr(tokens, "measured", lambda *_: [("seqc", [1e-6], 0.0), ("other", [1e-6], 0.5)])
    assert tokens.main(["gla", "--shape", "2,4,64"]) == 1
    assert "wrong by 5.0e-01" in capsys.readouterr().out


def test_one_command_writes_a_table_and_results(tmp_path: Path) -> None:
    words = ["hgrn", "--quick", "--rounds", "2", "--threads", "1", "--out", str(tmp_path), "--size", "T=9"]
    done = python("-m", "benchmarks", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    for said in ("hgrn, forward (B2 T9", "hgrn, decode", "hgrn, forward+backward", "eager loop", "seqc torch"):
        assert said in done.stdout
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["part"] for row in rows} == {FORWARD, TRAIN, DECODE}
    assert all(row["why"] or row["seconds"][0] > 0 for row in rows)
    assert "## hgrn, B2 T9" in (tmp_path / "results.md").read_text()


def test_a_missing_spec_is_told_without_a_traceback(tmp_path: Path) -> None:
    done = python("-m", "benchmarks", "nosuch", "--quick", "--threads", "1", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "cannot read" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("spec", [pytest.param("lstm", marks=pytest.mark.long), *(x for x in layers.CELLS if x != "lstm")])
def test_layers_equal_those_of_torch(spec: str) -> None:
    entry = layers.entry(spec, {"T": 7}, quick=True)
    for part in (FORWARD, TRAIN):
        want = numbers(entry.truth.calls[part]())
        for contender in entry.contenders:
            if isinstance(contender, Contender):
                assert error(contender.calls[part](), want) < 1e-5, (contender.name, part)


def test_a_wrong_contender_is_told_and_not_timed() -> None:
    right = {FORWARD: lambda: {"o": torch.ones(3)}}
    wrong = {FORWARD: lambda: {"o": torch.zeros(3)}}
    contenders = [Contender("seqc torch", right), Contender("wrong", wrong), Absent("absent", "not installed")]
    entry = Entry("x", {"T": 4}, contenders, Contender("truth", right), {FORWARD: Work(1, 1)})
    rows = {row.contender: row for row in measure(entry, [FORWARD, DECODE], CEILINGS, rounds=2)}
    assert rows["seqc torch"].ratio == (1, 1, 1)
    assert rows["wrong"].seconds is None and "wrong" in rows["wrong"].why
    assert rows["absent"].why == "not installed"
    assert "not installed" in report.table(rows.values())


def test_errors_see_what_is_missing_or_not_a_number() -> None:
    want = numbers({"o": torch.ones(3)})
    assert error({}, want) == error({"o": torch.ones(2)}, want) == float("inf")
    assert error({"o": torch.tensor([1, 1, float("nan")])}, want) == float("inf")
    assert error({"o": torch.tensor([1, 1, 1.5])}, want) == 0.5


def test_rounds_alternate() -> None:
    seen: list[str] = []
    made = race({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=4, sample=0)
    assert [len(x) for x in made.seconds.values()] == [4, 4]
    assert 0 <= made.others <= 1
    assert "".join(seen[4:]) == "abbaabba"
    assert quartiles([3.0]) == (3, 3, 3)
    assert ratio([2, 4, 6], [1, 2, 3]) == (2, 2, 2)


def test_work_counts_what_must_be_done() -> None:
    task = tasks.task("gla", {"B": 1, "T": 10, "H": 1, "K": 8, "V": 4})
    matrix = work(task, FORWARD).flops / 10 / (8 * 4)
    assert 4 <= matrix <= 8  # two products and a sum to update, a product and a sum to read; then what has fewer dims
    assert work(task, FORWARD).bytes == 4 * 10 * (3 * 8 + 2 * 4)
    assert work(task, TRAIN).flops == 3 * work(task, FORWARD).flops
    assert Work(2e9, 1).bound(CEILINGS) == 2


def test_gpu_benchmark_says_that_there_is_no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = python("-m", "benchmarks.gpu")
    assert done.returncode == 1 and "no CUDA device" in done.stderr
    assert python("-m", "benchmarks.gpu", "--help").returncode == 0


def test_gpu_benchmark_needs_nothing_of_seqc() -> None:
    code = "import sys, benchmarks.gpu.__main__; print({'seqc', 'z3', 'lark'} & set(sys.modules))"
    assert python("-c", code).stdout.strip() == "set()"


def test_gpu_campaign_goes_on_where_it_stopped_and_its_times_calibrate(tmp_path: Path) -> None:
    """Without a device: the same stages in Triton's interpreter, on one small file, without scans, which take long there."""
    kernels, out, table = tmp_path / "kernels", tmp_path / "out.jsonl", tmp_path / "measured.json"
    assert gpu_emit.main([str(kernels), "--spec", "gla", "--width", "16"]) == 0
    stages = ("--stage", "repeat", "--stage", "kernels")
    run = ("-m", "benchmarks.gpu", "--stub", "--kernels", str(kernels), "--out", str(out), *stages)
    cut = python(*run, "--seconds", "0")
    assert cut.returncode == 3 and [row["stage"] for row in read(out)] == ["machine"]
    out.write_text(out.read_text() + '{"stage": "repeat", "fi', encoding="utf-8")  # a row that was being written
    done = python(*run)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read(out)
    assert [row["stage"] for row in rows] == ["machine", "repeat", "kernels", "kernels"] and "failed" not in str(rows)
    assert read(out) == rows
    assert calibrate.main([str(out), str(kernels), "--write", str(table)]) == 0
    told = json.loads(table.read_text(encoding="utf-8"))
    keys = {kernel["key"] for kernel in json.loads((kernels / gpu_emit.MANIFEST).read_text())[0]["kernels"].values()}
    assert told["paces"] and set(told["paces"]) <= keys
    assert pacing.measured(table) == told["paces"]


def test_calibration_finds_the_constants_that_times_were_made_with() -> None:
    true = {"chain": 2.0, "loads": 0.5, "barriers": 1.0, "overlap": 1.0}
    models = [
        {"resident": 1 + i % 3, "chain": 100 * i, "busy": 40 * i, "overlap": 1.5, "loads": 800 // (1 + i % 2),
         "barriers": i % 4 * 100}
        for i in range(1, 12)
    ]
    made = [calibrate.Turn("f", "c", "k", calibrate.Turn("f", "c", "k", 0, 0, m).modelled(true), 0, m) for m in models]
    assert calibrate.distance(made, calibrate.fitted(made)) < 1.03 < calibrate.distance(made, dict.fromkeys(true, 1.0))


@pytest.mark.parametrize("spec", shapes.SPECS)
def test_gpu_arguments_fit_the_emitted_functions(spec: str) -> None:
    grid = shapes.Grid(1, 5, 2, 8)
    made = seqc.compile(next((ROOT / "specs").rglob(f"{spec}.seq")), "torch", dims=shapes.dims(spec, grid))
    contenders = {"ours": gpu_measure.emitted(made.module, spec)}
    found = gpu_measure.errors(contenders, made.module, spec, grid, "cpu")
    assert found["ours"] < gpu_measure.ROUNDINGS * 2.0**-8
    assert all(isinstance(peer, str) or callable(peer) for peer in gpu_peers(spec).values())


def test_a_run_goes_on_where_it_ended_and_its_losses_are_seen(tmp_path: Path) -> None:
    known = {"cpu": "a", "cores": 2, "threads": 2, "packages": {}}
    rows = [Row("gla", FORWARD, {"B": 2}, name, (t, t, t), (t, t, t), 0.5, work=Work(1.0, 1.0), spec="gla")
            for name, t in (("seqc cpu", 1.0), ("eager loop", 9.0), ("jax lax.scan", 2.0), ("ggml", 0.5))]
    seen = Ceilings(2e9, 1e9, {"torch.mm": 2e9})
    (tmp_path / "results.json").write_text(json.dumps(
        {"machine": known, "ceilings": seen.__dict__, "rows": [row.as_json() for row in rows], "sweeps": {}}))
    again, ceiling = page.kept(tmp_path, known, Ceilings(1e9, 3e9, {"torch.mm": 1e9, "oneDNN": 1e9}))
    assert [(row.contender, row.work, row.spec) for row in again] == [(row.contender, row.work, row.spec) for row in rows]
    assert ceiling == Ceilings(2e9, 3e9, {"torch.mm": 2e9, "oneDNN": 1e9})
    assert page.kept(tmp_path, {**known, "threads": 1}, ceiling) == ([], ceiling)
    assert "| gla, B2 | 2 | 1 s | 9x | **0.5x** (ggml) |" in page.readme([tmp_path])


def test_the_ceiling_is_the_best_of_several() -> None:
    seen = ceilings.measure(64, 1 << 12)
    assert seen.flops == max(seen.ways.values()) > 0 and "torch.mm" in seen.ways and "multiply-adds in registers" in seen.ways


@pytest.mark.parametrize("spec", ["hmm", "rnnt", "gae"])
def test_loops_of_users_equal_ours(spec: str) -> None:
    """Results and gradients, where there are some."""
    task = tasks.task(spec, {"B": 2, "T": 9, "U": 5, "N": 4}, quick=True)
    mine, theirs = ours.emitted(task, "torch"), loops.contender(task)
    assert isinstance(mine, Contender)
    for part, call in theirs.calls.items():
        assert error(call(), numbers(mine.calls[part]())) < 1e-5


def test_s4_by_hand_is_the_convolution() -> None:
    own = seqc.compile("s4", "torch").Module(M=1, H=3, N=4)
    for part in own.parameters():
        torch.nn.init.normal_(part, std=0.3)
    u = torch.randn(2, 64, 3)
    by_hand = convolutions.s4_by_hand(u, own, convolutions.truncated(own, 64))
    torch.testing.assert_close(by_hand, own.convolution(u).y[:, :, 0], rtol=1e-3, atol=1e-3)
