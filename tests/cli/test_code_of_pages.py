"""The Python of pages runs as it stands there, at small sizes: calls.md, cli.md, coming-from.md; other pages have tests
of their own. Plain torch, which builds nothing. What a block takes as given (`q`, `bounds`, `layer`) is made before it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import seqc

ROOT = Path(__file__).parents[2]
H, K = 2, 4
RUNNING = "spec running\ndim D\ninput x[D]\nstate h[D] = 0\nh = 0.5 * h[t-1] + x\noutput h\n"
CELL = "dim D\ninput x[D]\nparam W[D, D]\nstate h[D] = 0\nh = tanh(x + W @ h[t-1])\noutput y[D] = h\n"
SPARSE, LOOP = f"spec thin\n{CELL}sparse W by magnitude keep 50%\n", f"spec loop\n{CELL}feedback x = h[t-1]\n"
ELASTIC = "spec wide\ndim I, D {64, 256}\ninput x[I]\nparam W[D, I]\nstate h[D] = 0\nh = h[t-1] + W @ x\noutput y[D] = h\n"
GATES = "spec gates\ndim D\ninput x[D]\nparam u[D], w[D]\nstate h[D] = 0\nh = tanh(x + u * h[t-1] * w)\noutput h\n"
AHEAD = "spec ahead\ndim D\ninput x[D]\nstate h[D] = 0\nh = 0.5 * h[t-1] + x[t+3]\noutput y[D] = h\n"


def blocks(page: str) -> list[str]:
    """The Python of a page, block by block."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def small(text: str) -> str:
    """The same with small dims."""
    return text.replace("H=4, K=64, V=64", f"H={H}, K={K}, V={K}")


def drawn(*axes: int) -> dict[str, torch.Tensor]:
    """q, k, v and g over the leading axes, and of one step: q1, ..; q2: another sequence."""
    found = {}
    for end in ("", "1", "2"):
        q, k, v, g = torch.randn(4, *(axes[:1] if end == "1" else axes), H, K)
        found |= {f"q{end}": q, f"k{end}": k, f"v{end}": v, f"g{end}": -g.abs()}
    return found


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of one process."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield None
    torch.distributed.destroy_process_group()


def givens(group: None) -> Iterator[dict[str, Any]]:
    """What each block of calls.md takes as given, in their order."""
    made = lambda text: seqc.compile(text, backend="torch")  # noqa: E731
    gla, running, thin = made("gla"), made(RUNNING), made(SPARSE)
    layer, x = thin.Module(D=4), torch.randn(2, 3, 4)
    yield {"gla": gla, **drawn(2, 5), "S_T": None}
    yield {**drawn(1, 40), "S_0": torch.randn(3, H, K, K)}
    yield {"f": running, "x": torch.randn(2, 3, 5, 8)}
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    yield {"layer": layer, "x": x, "loss": lambda r: r[0].square().mean(), "optimizer": optimizer}
    yield {"f": made(ELASTIC), "x": torch.randn(2, 3, 40), "loss": lambda y: y.sum()}
    s4d = made("s4d")
    sizes = {"M": 1, "H": 3, "N": 2}
    axes = {name: [{"B": 2, "T": 9}.get(a) or sizes[a] for a in text.split()] for name, text in s4d.module._AXES.items()}
    u, *params, x_re, x_im = (-torch.rand(shape) for shape in axes.values())
    yield {"s4d": s4d, "u": u, "params": params, "x_re": x_re, "x_im": x_im}
    yield {"seqc": seqc, "text": GATES, "x": torch.randn(2, 9, 3), "u": torch.randn(3), "w": torch.randn(3)}
    yield {**drawn(1, 7), **{f"{n}1": x for n, x in zip("qkvg", -torch.rand(4, 2, H, K), strict=True)},
           "bounds": torch.tensor([0, 4, 7]), "tokens": 2}
    yield {}
    yield drawn(1, 1024)
    yield {"layer": made(AHEAD).Module(D=4), "source": torch.randn(2, 20, 4).split([0, 9, 11], 1), "use": lambda y: y}
    yield {**drawn(2, 5), "S_0": torch.zeros(2, H, K, K), "group": group}
    yield {"f": made(LOOP), "prompt": torch.randn(2, 20, 3), "W": torch.randn(3, 3), "h": torch.zeros(2, 3),
           "x": torch.randn(2, 300, 3), "mask": torch.rand(300) < 0.5, "prompts": torch.randn(1, 20, 3),
           "runs": torch.tensor([0, 400, 900]), "bounds": torch.tensor([0, 12, 20])}


def test_calls(group: None) -> None:
    names: dict[str, Any] = {"torch": torch}
    found = blocks("docs/calls.md")
    for text, given in zip(found, givens(group), strict=True):
        names |= given
        exec(compile(small(text), "calls.md", "exec"), names)
    assert names["r"].y.shape == (1, 900, 3) and len(found) == 13


def test_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = blocks("docs/cli.md")
    names: dict[str, Any] = {"inspect": __import__("inspect"), "bounds": [0, 2, 5], **drawn(1, 5)}
    exec(compile(small(text).replace('compile("gla")', 'compile("gla", "torch")'), "cli.md", "exec"), names)
    assert "chunkwise" in capsys.readouterr().out


def test_the_specs_of_the_page_for_those_who_come_from_elsewhere() -> None:
    page = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```seq\n(.*?)```", page, re.DOTALL)
    f = seqc.compile(text, backend="torch")
    e, A = torch.randn(2, 5, 3), torch.randn(3, 3)
    want = e[:, 0] + torch.logsumexp(torch.zeros(3, 3) + A, 0)
    torch.testing.assert_close(f(e, A).a[:, 0], want)
