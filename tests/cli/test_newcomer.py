"""A newcomer's first hour, as one script: new, check, compile, bench, train ten updates, decode. And the paths of bench."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch

from seqc.check import races
from seqc.check.races import sizes_of
from seqc.diagnostics import Unsupported
from seqc.driver.compile import Options, compile_spec
from seqc.frontend.elaborate import load

Seqc = Callable[..., tuple[int, str, str]]
LEAKY = "spec leaky\ndim D\ninput x[D], a[D] in [0, 1]\nstate h[D] = 0\nh = a * h[t-1] + x\noutput h\n"


def imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An emitted file, imported as a person's own code would."""
    found = spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    module = module_from_spec(found)
    monkeypatch.setitem(sys.modules, path.stem, module)
    found.loader.exec_module(module)
    return module


def test_the_first_hour(seqc: Seqc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert seqc("new", "memory", "--scan")[0] == 0
    assert "ok (h: diagonal)" in seqc("check", "memory.seq")[1]
    assert seqc("compile", "memory.seq", "-o", "memory_kernel.py")[0] == 0
    code, out, _ = seqc("bench", "memory.seq", "--quick", "--rounds", "1", "--size", "D=16")  # builds what training runs
    assert code == 0 and "eager loop" in out and "plain torch" in out and "native" in out and "WRONG" not in out
    memory = imported(tmp_path / "memory_kernel.py", monkeypatch)
    torch.manual_seed(0)
    layer, read, head = memory.Memory(D=16), torch.nn.Linear(1, 32), torch.nn.Linear(16, 1)
    wanted = [*layer.parameters(), *read.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(wanted, lr=0.02)
    signal = torch.sin(torch.arange(65) / 5.0).view(1, -1, 1)
    losses = []
    for _ in range(10):
        x, f = read(signal[:, :-1]).chunk(2, -1)
        loss = torch.nn.functional.mse_loss(head(layer(x, f).h), signal[:, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    with torch.no_grad():
        x, f = read(signal).chunk(2, -1)
        whole = layer(x, f)
        state = layer(x[:, :40], f[:, :40]).h_T
        for t in range(40, 65):
            one = layer.step(x[:, t], f[:, t], h_0=state)
            state = one.h_T
            torch.testing.assert_close(one.h, whole.h[:, t], rtol=1e-5, atol=1e-5)


def test_bench_for_a_machine_to_read(seqc: Seqc, tmp_path: Path) -> None:
    spec = tmp_path / "leaky.seq"
    spec.write_text(LEAKY)
    code, out, _ = seqc("bench", spec, "--size", "T=20", "--size", "D=3", "--rounds", "1", "--json")
    told = json.loads(out)
    (race,) = told["races"]
    assert code == 0 and told["ok"] and race["sizes"] == {"B": 2, "T": 20, "D": 3}
    rows = {(row["name"], row["part"]): row for row in race["rows"]}
    assert len(rows) == 6 and all(row["seconds"][1] > 0 and row["error"] < 1e-5 for row in rows.values())
    code, _, err = seqc("bench", spec, "--size", "Q=20")
    assert code == 1 and "`leaky` has no size `Q`" in err


def raced(text: str) -> list[races.Row]:
    """The rows of a spec without its native form, which would have to be built."""
    return list(races.rows(compile_spec(text, Options("torch")), {"B": 2, "T": 8, "D": 3}, rounds=1))


def test_a_wrong_result_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A form that adds a little in float32 is found before it is timed, in the part where it does so."""
    usual = races.Course.called

    def bent(self: races.Course, given: races.Results) -> races.Results:
        found = usual(self, given)
        return found if next(iter(given.values())).dtype == torch.float64 else {k: x + 0.1 for k, x in found.items()}

    monkeypatch.setattr(races.Course, "called", bent)
    found = raced(LEAKY)
    bad = [(row.name, row.part) for row in found if not row.good]
    assert bad == [("plain torch", races.FORWARD)] and races.table(found).count("WRONG") == 1


@pytest.mark.parametrize(
    ("update", "count", "reason"),
    [("a * h[t-1] + x[t+1]", 2, "one step of leaky reads other steps of x"),
     ("a * stopgrad(h[t-1]) + x", 1, "the spec states a gradient of its own")],
)
def test_what_cannot_race_is_told(update: str, count: int, reason: str) -> None:
    told = races.table(raced(LEAKY.replace("a * h[t-1] + x", update)))
    assert told.count(f"eager loop   not run: {reason}") == count and "WRONG" not in told
    assert told.count("native       not run: the backend `torch` leaves it out") == 2


def test_sizes() -> None:
    program = load("gla")
    assert sizes_of(program, {"T": 5}, False) == {"B": 2, "T": 5, "H": 4, "K": 64, "V": 64}
    assert sizes_of(load("hgrn"), {}, True) == {"B": 2, "T": 48, "D": 8}
    with pytest.raises(Unsupported, match="no size `k`"):
        sizes_of(program, {"k": 5}, False)


def test_the_readme_trains(seqc: Seqc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands and the snippet under "Train with it", as they stand there; plain torch, which builds nothing."""
    monkeypatch.chdir(tmp_path)
    part = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").partition("## Train with it")[2]
    shell, snippet = part.split("```")[1], part.partition("```python\n")[2].partition("```")[0]
    commands = [line.partition("#")[0].split()[1:] for line in shell.strip().splitlines()]
    assert [words[0] for words in commands] == ["new", "check", "compile", "bench"]
    for words in commands[:3]:
        assert seqc(*words, *(["--backend", "torch"] if words[0] == "compile" else []))[0] == 0
    imported(tmp_path / "memory_kernel.py", monkeypatch)
    torch.manual_seed(0)
    made: dict[str, object] = {}
    exec(snippet, made)
    one = made["one"]
    assert isinstance(one, tuple) and one[0].shape == (2, 4, 16) and torch.isfinite(one[0]).all()
