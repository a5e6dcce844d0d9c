"""Buffers: values without a gradient that live in a Module's `state_dict` and may be given at the call.

Judged by a plain torch loop, on plain torch, native code and Triton's interpreter: forward, a step, packs, reverse, prebuilt
libraries' readiness, shapes for tracing, and the gradient of everything else.
"""

import copy
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from seqc.diagnostics import SpecError
from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from seqc.frontend.elaborate import load
from seqc.ir.arguments import argument_table
from seqc.semantics.reference import run
from tests.triton import processes

ROOT = Path(__file__).parents[2]

SPEC = '''spec masked_cell
"""A cell whose recurrent matrix is masked and whose inputs are scaled, by values that nothing trains.

h_t = tanh(s x_t + b + (R * M) h_{t-1})
"""
dim D
input x[D]
param R[D, D], b[D]
buffer M[D, D] init where(index[D] == index[D'], 0, 1), s[D] in [0, 2]
state h[D] = 0
h = tanh(s * x + b + (R * M) @ h[t-1])
output y = 2 * h
'''
D = 4


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The emitted file."""
    return load_emitted(compile_spec(SPEC, Options(dims={"D": D})).text, "masked_cell")


def data(T: int = 5) -> list[torch.Tensor]:
    """x, R, b, s, M, h_0 in the order of the table."""
    made = torch.Generator().manual_seed(T)
    shapes = [(2, T, D), (D, D), (D,), (D,), (D, D), (2, D)]
    x, R, b, s, M, h_0 = (torch.randn(shape, generator=made, dtype=torch.float64) for shape in shapes)
    return [x.requires_grad_(), R.requires_grad_(), b.requires_grad_(), s, (M > 0).double(), h_0.requires_grad_()]


def loop(x, R, b, s, M, h, backwards=False):
    """The recurrence in plain torch."""
    rows = {}
    for t in reversed(range(x.shape[1])) if backwards else range(x.shape[1]):
        h = torch.tanh(s * x[:, t] + b + h @ (R * M).T)
        rows[t] = 2 * h
    return torch.stack([rows[t] for t in sorted(rows)], 1), h


def slopes(results, arguments):
    """The gradients of what asks for one, under random cotangents."""
    made = torch.Generator().manual_seed(9)
    loss = sum((r * torch.randn(r.shape, generator=made, dtype=r.dtype)).sum() for r in results)
    return torch.autograd.grad(loss, [a for a in arguments if a.requires_grad])


def same(found, wanted, tolerance=1e-12):
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1.0, float(b.detach().abs().max())))


def test_table() -> None:
    """What a call must give stands before what it may leave out."""
    table = argument_table(load(SPEC))
    assert [(a.name, a.role, a.gradient, a.default) for a in table] == [
        ("x", "input", True, False), ("R", "param", True, False), ("b", "param", True, False),
        ("s", "buffer", False, False), ("M", "buffer", False, True), ("h_0", "state", True, True),
    ]


@pytest.mark.parametrize("form", ["_CPU", "_TORCH"])
@pytest.mark.parametrize("reverse", [False, True])
def test_sequences(module: ModuleType, monkeypatch: pytest.MonkeyPatch, form: str, reverse: bool) -> None:
    monkeypatch.setattr(module, "_form", lambda *_: getattr(module, form))
    x, R, b, s, M, h_0 = arguments = data()
    found = module.masked_cell(x, R, b, s, M=M, h_0=h_0, reverse=reverse)
    wanted = loop(*arguments, backwards=reverse)
    same(found, wanted)
    same(slopes(found, arguments), slopes(wanted, arguments))
    whole = [part[None] for part in x.detach().flatten(0, 1).split([3, 2, 5])]
    starts = torch.cat([h_0, h_0[:1]])
    pack = torch.cat(whole, 1).requires_grad_()
    found = module.masked_cell(pack, R, b, s, M=M, h_0=starts, cu_seqlens=torch.tensor([0, 3, 5, 10]), reverse=reverse)
    parts = [loop(part, R, b, s, M, starts[i : i + 1], reverse) for i, part in enumerate(pack.split([3, 2, 5], 1))]
    wanted = torch.cat([y for y, _ in parts], 1), torch.cat([h for _, h in parts])
    same(found, wanted)
    same(slopes(found, [pack, *arguments[1:]]), slopes(wanted, [pack, *arguments[1:]]))


@pytest.mark.parametrize("form", ["_CPU", "_TORCH"])
def test_step_and_defaults(module: ModuleType, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """A step; the default of M; nothing flows into a buffer, even where it asks."""
    monkeypatch.setattr(module, "_form", lambda *_: getattr(module, form))
    x, R, b, s, M, h_0 = arguments = data()
    found = module.masked_cell_step(x[:, 0], R, b, s, M=M, h_0=h_0)
    same(found, (lambda y, h: (y[:, 0], h))(*loop(x[:, :1], *arguments[1:])))
    same(slopes(found, arguments)[1:], slopes(loop(x[:, :1], *arguments[1:]), arguments)[1:])
    usual = 1.0 - torch.eye(D, dtype=torch.float64)
    same(module.masked_cell(x, R, b, s), loop(x, R, b, s, usual, torch.zeros_like(h_0)))
    asking = M.clone().requires_grad_()
    (none,) = torch.autograd.grad(module.masked_cell(x, R, b, s, M=asking).y.sum(), [asking], allow_unused=True)
    assert none is None
    with pytest.raises(ValueError, match="M has shape"):
        module.masked_cell(x, R, b, s, M=M[:2])


def test_oracle() -> None:
    arguments = data()
    arrays = {a.name: x.detach().numpy() for a, x in zip(argument_table(load(SPEC)), arguments, strict=True)}
    results = run(load(SPEC), arrays)
    same([torch.tensor(results["y"]), torch.tensor(results["h_T"])], [x.detach() for x in loop(*arguments)])
    del arrays["M"]
    usual = 1.0 - torch.eye(D, dtype=torch.float64)
    wanted = loop(*arguments[:4], usual, arguments[5])
    same([torch.tensor(run(load(SPEC), arrays)["y"])], [wanted[0].detach()])


def test_module(module: ModuleType) -> None:
    """State dict, training, deepcopy, the meta device, a trace."""
    layer = module.MaskedCell(D=D, dtype=torch.float64)
    assert sorted(layer.state_dict()) == ["M", "R", "b", "s"]
    assert sorted(name for name, _ in layer.named_parameters()) == ["R", "b"]
    assert torch.equal(layer.M, 1.0 - torch.eye(D, dtype=torch.float64)) and not layer.s.any()
    x, R, b, s, M, _ = data()
    layer.load_state_dict({"R": R, "b": b, "s": s, "M": M})
    twin = copy.deepcopy(layer)
    wanted = loop(x, R, b, s, M, torch.zeros(2, D, dtype=torch.float64))
    same(twin(x), wanted)
    same(twin.step(x[:, 0]), [wanted[0][:, 0], wanted[0][:, 0] / 2])
    twin(x).y.sum().backward()
    assert twin.R.grad is not None and twin.M.grad is None
    meta = module.MaskedCell(D=D, device="meta")
    assert meta(torch.empty(2, 3, D, device="meta")).y.shape == (2, 3, D)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    same(compiled(x), wanted)


def test_higher_derivatives(module: ModuleType) -> None:
    """Second derivatives leave the buffers out too; forward mode and vmap take them along."""
    x, R, b, s, M, h_0 = data(3)
    assert torch.autograd.gradgradcheck(lambda x, R, h: module.masked_cell(x, R, b, s, M=M, h_0=h).y, (x, R, h_0))
    pushed = torch.func.jvp(lambda R: module.masked_cell(x, R, b, s, M=M).y, (R,), (R,))[1]
    same([pushed], [torch.func.jvp(lambda R: loop(x, R, b, s, M, torch.zeros_like(h_0))[0], (R,), (R,))[1]])
    many = torch.stack([x.detach(), x.detach() + 1])
    rows = torch.vmap(lambda x: module.masked_cell(x, R, b, s, M=M).y)(many)
    same(rows, [module.masked_cell(one, R, b, s, M=M).y for one in many])
    per = torch.func.vmap(torch.func.grad(lambda x: module.masked_cell(x, R, b, s, M=M).y.square().sum()))(many)
    for one, slope in zip(many, per, strict=True):
        one = one.requires_grad_()
        same([slope], torch.autograd.grad(module.masked_cell(one, R, b, s, M=M).y.square().sum(), [one]))


def test_both_directions() -> None:
    """Each run has buffers of its own."""
    text = SPEC.replace("input x", "scan both\ninput x")
    made = load_emitted(compile_spec(text, Options("torch")).text, "masked_cell")
    x, R, b, s, M, _ = data()
    zero = torch.zeros(2, D, dtype=torch.float64)
    second = [R.detach() * 0.5, b.detach() - 1, s + 1, 1 - M]
    arguments = [x, R, b, s, M]
    own = dict(zip(("R_reverse", "b_reverse", "s_reverse", "M_reverse"), second, strict=True))
    found = made.masked_cell(x, R, b, s=s, M=M, **own)
    y, h = loop(*arguments, zero)
    back, h_back = loop(x, *second, zero, backwards=True)
    wanted = [torch.cat([y, back], -1), h, h_back]
    same(found, wanted)
    same(slopes(found, arguments), slopes(wanted, arguments))
    assert made.MaskedCell(D=D).state_dict().keys() == {f"{x}{run}" for x in "RbsM" for run in ("", "_reverse")}


def test_triton() -> None:
    """In Triton's interpreter, which a process of its own runs."""
    code = f"""
from seqc.check.verify_emitted import Case, against_oracle
from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted
compiled = compile_spec({SPEC!r}, Options("triton"))
module = load_emitted(compiled.text, "masked_cell")
vars(module)["_form"] = lambda *_: module._TRITON
sizes = dict(B=2, D=4)
cases = [Case(compiled.program, module, sizes, steps, "float32", False, "cpu", bounds, reverse)
         for steps, bounds, reverse in ((5, (0, 3, 3, 5), True),)]
found = [f for case in cases for f in against_oracle(case)]
assert len(found) == 2 and all(f.ok for f in found), [f for f in found if not f.ok]
"""
    done = processes.run(["-c", code])
    assert done.returncode == 0, done.stderr[-2000:]


def test_initial_value_is_made_of_numbers() -> None:
    with pytest.raises(SpecError, match="cannot depend on `R`"):
        load("spec a\ndim D\ninput x[D]\nparam R[D]\nbuffer M[D] init R\nstate h[D] = 0\nh = M * h[t-1] + R * x\noutput h\n")


def test_four_files_outside_the_backends_name_the_role() -> None:
    """As docs/decisions/arguments.md tells how a role is added; the editor and the advice on spelling have a line each."""
    page = (ROOT / "docs" / "decisions" / "arguments.md").read_text(encoding="utf-8")
    steps = page[page.index("**How to add a role.**") :].split("\n\n")[0]
    told = set(re.findall(r"^\d\. `([\w/.]+)`", steps, re.M))
    tops = ("grammar", "seqc", "passes", "backends")
    files = {path for top in tops for path in (ROOT / top).rglob("*") if path.suffix in (".py", ".lark")}
    named = {str(p.resolve().relative_to(ROOT)) for p in files if re.search(r"[\"']buffer[\"']", p.read_text(encoding="utf-8"))}
    assert named == told | {"seqc/editor/words.py", "seqc/frontend/idioms.py"} and len(told) == 4
