"""A layer with a compiled spec in it, written down by others: torch.export with steps of any number, and torch.fx."""

from __future__ import annotations

import io

import torch

import seqc
from tests.emit.packed import text


class Net(torch.nn.Module):
    """A projection, the recurrence, and its first result."""

    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.Linear(8, 4 * 2 * 4)
        self.memory = seqc.compile(text("gla"), backend="torch").Module(H=2, K=4, V=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v, g = self.project(x).unflatten(-1, (4, 2, 4)).unbind(-3)
        o: torch.Tensor = self.memory(q, k, v, -g.abs()).o
        return o


def test_export_with_any_number_of_steps() -> None:
    net, x = Net(), torch.randn(2, 6, 8)
    steps = torch.export.Dim("T", min=2, max=100)
    program = torch.export.export(net, (x,), dynamic_shapes={"x": {1: steps}})
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert [name for name in targets if name.startswith("seqc_gla_")] == [name for name in targets if ".run" in name] != []
    kept = io.BytesIO()
    torch.export.save(program, kept)
    kept.seek(0)
    loaded = torch.export.load(kept).module()
    for length in (6, 9):
        x = torch.randn(2, length, 8)
        assert torch.equal(loaded(x), net(x))


def test_fx_keeps_a_call_whole() -> None:
    net, x = Net(), torch.randn(2, 6, 8)
    traced = torch.fx.symbolic_trace(net)
    assert [node.name for node in traced.graph.nodes if "gla" in str(node.target)] == ["gla"]
    assert torch.equal(traced(x), net(x))
    got, want = (torch.autograd.grad(f(x).square().sum(), net.project.weight)[0] for f in (traced, net))
    assert torch.equal(got, want)
