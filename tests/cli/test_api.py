"""A compiled spec as Python sees it: signature, documentation, arguments by name, graphs, copies, one compile of one text."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import seqc
from seqc import cache

ROOT = Path(__file__).parents[2]
LEAKY = """\
spec leaky
\"\"\"A leaky average.\"\"\"
dim D
input x[D], lambda[D] in [0, 1]
param w[D]
state h[D] = 0
h = lambda * h[t-1] + w * x
output y = h
"""
X = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def leaky() -> seqc.Recurrence:
    return seqc.compile(LEAKY, backend="torch")


def test_signature_and_documentation(leaky: seqc.Recurrence) -> None:
    want = "(x, lambda_, w, *, h_0=None, cu_seqlens=None, reverse=False, axis=None, states_every=None)"
    found = inspect.signature(leaky)
    assert str(found.replace(parameters=[p.replace(annotation=p.empty) for p in found.parameters.values()])).startswith(want)
    assert str(found).replace("'", "") == str(inspect.signature(leaky.module.leaky)).replace("'", "")
    assert leaky.__doc__.startswith("A leaky average.\n\nRun leaky over a sequence.") and "x: [B, T, D]" in leaky.__doc__
    assert leaky.__name__ == "leaky" and seqc.Recurrence.__doc__.startswith("A compiled spec.")
    assert "(face:" in str(inspect.signature(seqc.Recurrence))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: f(X, X.sigmoid()), "leaky: no `w` given: leaky(x, lambda_, w, *, h_0=None, cu_seqlens=None, reverse=False,"),
        (lambda f: f(X), "leaky: no `lambda_` and no `w` given"),
        (lambda f: f(X, X, X[0, 0], X[:, 0]), "leaky takes 3 arguments by position, and 4 were given"),
        (lambda f: f(X, X, X[0, 0], x=X), "leaky: `x` is given by position and by name"),
        (lambda f: f(X, X, X[0, 0], h0=X[:, 0]), "leaky has no argument `h0`; did you mean `h_0`?"),
        (lambda f: f(X.numpy(), X, X[0, 0]), "leaky: x is a numpy array, and it takes a torch.Tensor: write torch.from_"),
        (lambda f: f(X, [[1.0]], X[0, 0]), "leaky: lambda_ is a list, and it takes a torch.Tensor: write torch.t"),
        (lambda f: f(X, X, 0.5), "leaky: w is a number, and it takes a torch.Tensor"),
        (lambda f: f(X, X, None), "leaky: w is None, and it takes a torch.Tensor"),
        (lambda f: f(X, X, X[0, 0], reverse="no"), "leaky: reverse is True or False, not a str"),
        (lambda f: f(X, X, X[0, 0], cu_seqlens=[0, 1.5]), "leaky: cu_seqlens is a list"),
        (lambda f: f.step(X[:, 0]), "leaky_step: no `lambda_` and no `w` given: leaky_step(x, lambda_, w, *, h_0=None, "),
    ],
)
def test_wrong_arguments_are_named(leaky: seqc.Recurrence, call: Callable[[seqc.Recurrence], object], words: str) -> None:
    with pytest.raises(TypeError) as told:
        call(leaky)
    assert str(told.value).startswith(words)


def test_lists_are_bounds_of_packs(leaky: seqc.Recurrence) -> None:
    told = leaky(X, X.sigmoid(), X[0, 0], cu_seqlens=[0, 4, 9])
    want = leaky(X, X.sigmoid(), X[0, 0], cu_seqlens=torch.tensor([0, 4, 9]))
    assert torch.equal(told.y, want.y) and told.h_T.shape == (2, 4)
    assert torch.equal(leaky(X, w=X[0, 0], **{"lambda": X.sigmoid()}).y, leaky(X, X.sigmoid(), X[0, 0]).y)


def test_one_text_is_compiled_once(leaky: seqc.Recurrence, tmp_path: Path) -> None:
    assert seqc.compile(LEAKY, backend="torch").module is leaky.module
    path = tmp_path / "leaky.seq"
    path.write_text(LEAKY)
    first = seqc.compile(path, backend="torch")
    path.write_text(LEAKY.replace("w * x", "2 * w * x"))
    second = seqc.compile(path, backend="torch")
    assert first.source == leaky.source != second.source
    assert seqc.compile(LEAKY, backend="torch", dims={"D": 4}).source != leaky.source


def test_graph_and_explanation(leaky: seqc.Recurrence) -> None:
    assert leaky.graph().startswith('digraph "leaky after spec"')
    assert "leaky after assemble: backward" in leaky.graph("assemble")
    picture = leaky.graph()._repr_svg_()  # type: ignore[attr-defined]
    assert "<svg" in picture
    assert leaky.explain()._repr_html_().startswith("<pre>leaky: ")  # type: ignore[attr-defined]
    with pytest.raises(seqc.Unsupported, match="there is no graph `asemble`"):
        leaky.graph("asemble")


def test_a_copy_by_pickle(leaky: seqc.Recurrence) -> None:
    other = pickle.loads(pickle.dumps(leaky))
    assert other.source == leaky.source
    assert torch.equal(other(X, X.sigmoid(), X[0, 0]).y, leaky(X, X.sigmoid(), X[0, 0]).y)


ELSEWHERE = """
import pickle, sys, torch
layer, result = pickle.load(open(sys.argv[1], "rb"))
other = torch.load(sys.argv[2], weights_only=False)
x = torch.full((1, 3, 4), 0.5)
print(torch.equal(other(x, x).y, layer(x, x).y), other.dims, type(other) is type(layer), result._fields, result.y.sum().item())
"""


def test_layers_and_results_go_to_other_processes(leaky: seqc.Recurrence, tmp_path: Path) -> None:
    """By pickle, and so by spawn, and by torch.save; a copy here is of the same class."""
    layer = leaky.Module(D=4)
    with torch.no_grad():
        layer.w.normal_()
        result = leaky(X, X.sigmoid(), X[0, 0])
    (tmp_path / "both").write_bytes(pickle.dumps((layer, result)))
    torch.save(layer, tmp_path / "saved")
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "both"), str(tmp_path / "saved")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.stdout == f"True {{'D': 4}} True ('y', 'h_T') {result.y.sum().item()}\n", done.stderr
    twin = copy.deepcopy(layer)
    assert type(twin) is type(layer) and torch.equal(twin.w, layer.w) and twin.w is not layer.w


def test_torch_compiles_the_object(leaky: seqc.Recurrence) -> None:
    quick = torch.compile(lambda *given: leaky(*given).y, fullgraph=True, backend="eager")
    assert torch.equal(quick(X, X.sigmoid(), X[0, 0]), leaky(X, X.sigmoid(), X[0, 0]).y)


def test_torch_compiles_an_object_that_was_never_called() -> None:
    """Calls, steps and closed loops: the emitted file is loaded while the graph is made."""
    text = LEAKY.replace("spec leaky", "spec never_called") + "feedback x = y[t-1]\n"
    for name, given in (("__call__", (X, X.sigmoid(), X[0, 0])), ("step", (X[:, 0], X[:, 0].sigmoid(), X[0, 0]))):
        cold, warm = (seqc.compile(text, "torch") for _ in range(2))
        quick = torch.compile(lambda *given: getattr(cold, name)(*given).y, fullgraph=True, backend="eager")  # noqa: B023
        assert torch.equal(quick(*given), getattr(warm, name)(*given).y)
    again = seqc.compile(text, "torch")
    loop = torch.compile(lambda *given: again.generate(*given, steps=X.shape[1]).y, fullgraph=True, backend="eager")
    assert torch.equal(loop(X, X.sigmoid(), X[0, 0]), warm.generate(X, X.sigmoid(), X[0, 0], steps=X.shape[1]).y)


KEPT = """
import sys
from pathlib import Path
import seqc
f = seqc.compile(Path({path!r}), backend="torch")
assert f.step.__name__ == "step" and "lambda_" in str(__import__("inspect").signature(f)) and f.__doc__.startswith("A leaky")
print("compiled" if "lark" in sys.modules else "read", len(f.source))
if "explain" in sys.argv:
    print(f.explain().splitlines()[0])
"""


def test_a_later_process_reads_what_an_earlier_one_compiled(tmp_path: Path) -> None:
    path = tmp_path / "leaky.seq"
    path.write_text(LEAKY)

    def run(*words: str) -> list[str]:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "error", "-c", KEPT.format(path=str(path)), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split("\n")

    how, length = run()[0].split()
    assert how == "compiled"
    again = run("explain")  # which needs the compiler after all
    assert again[0] == f"read {length}" and again[1].startswith("leaky: ")


def test_a_record_is_read_where_it_is_whole_and_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = tmp_path / "seqc" / "compiled"
    cache.remember("x", {"text": "def f"})
    assert cache.recall("x") is None and not kept.exists()  # tests keep nothing
    monkeypatch.setattr(cache, "KEEPS", True)
    cache.remember("x", {"text": "def f"})
    assert cache.recall("x") == {"text": "def f"} and cache.recall("y") is None
    assert [path.name for path in kept.iterdir()] == ["x.json"] and kept.stat().st_mode & 0o777 == 0o700
    for place, mode in ((kept / "x.json", 0o666), (kept, 0o777), (tmp_path / "seqc", 0o770)):
        before = place.stat().st_mode & 0o777
        place.chmod(mode)
        assert cache.recall("x") is None, place
        if place.is_dir():
            cache.remember("z", {})
            assert not (kept / "z.json").exists()
        place.chmod(before)
    text = (kept / "x.json").read_text()
    for other in (text.replace("def f", "def g"), text[:-5], "[]", ""):
        (kept / "x.json").write_text(other)
        assert cache.recall("x") is None
    (tmp_path / "elsewhere.json").write_text(text)
    (kept / "x.json").unlink()
    (kept / "x.json").symlink_to(tmp_path / "elsewhere.json")
    assert cache.recall("x") is None
    cache.remember("x", {"text": "def f"})  # in the place of the link
    assert cache.recall("x") == {"text": "def f"}
    os.utime(kept / "x.json", (0, 0))
    cache.remember("y", {})
    assert cache.recall("x") is None and cache.recall("y") == {}


def test_another_compiler_has_other_records(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.key(LEAKY, ())
    assert cache.key(LEAKY, ()) == before != cache.key(LEAKY, ("cpu",))
    monkeypatch.setattr(cache, "compiler", lambda: "another")
    assert cache.key(LEAKY, ()) != before
    monkeypatch.undo()
    read = Path.read_bytes
    cache.compiler.cache_clear()
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"#" if path.name == "pieces.py" else b""))
    assert cache.key(LEAKY, ()) != before
    cache.compiler.cache_clear()
