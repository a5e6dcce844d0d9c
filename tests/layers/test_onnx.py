"""Models in ONNX, run by onnxruntime: the recurrence is the standard LinearAttention where a rule fits, else Scan."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import seqc
import seqc.onnx
from seqc import nn

NEEDED = ("onnx", "onnxscript", "onnxruntime")
MISSING = [name for name in NEEDED if find_spec(name) is None]
if not MISSING:
    import onnx
    import onnxruntime
with_onnx = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install 'seqc[onnx]'")
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own

OPEN = ({0: "batch", 1: "steps"},)
OTHERWISE = '''
spec otherwise
"""The gated delta rule with other names and written otherwise."""
dim N, A, C
input read[N, A], what[N, C], rate[N] in [0, 1], where_[N, A] unit[A], keep[N, A] in [-inf, 0]
state M[N, A, C] = 0
old = M[t-1] / exp(-keep)
M = old - rate * (sum[A](where_ * old) - what) * where_
output y = 0.25 * sum[A](M * read)
'''
SIGNED = OTHERWISE.replace("spec otherwise", "spec signed").replace("- what", "+ what")


def exported(model: Any, args: tuple[Any, ...], path: Path, **options: Any) -> tuple[list[str], Any]:
    """(the operators of recurrences, the session)."""
    program = seqc.onnx.export(model, args, path, **options)
    onnx.checker.check_model(str(path), full_check=True)
    kinds = [node.op_type for node in program.model.graph if node.op_type in ("Scan", "LinearAttention")]
    assert not [node for node in program.model.graph if node.domain]
    return kinds, onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(session: Any, *given: Tensor) -> list[Tensor]:
    named = {one.name: x.numpy() for one, x in zip(session.get_inputs(), given, strict=True)}
    return [torch.from_numpy(x) for x in session.run(None, named)]


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def fits(spec: str, **others: int) -> tuple[str, float] | None:
    """(rule, scale) of LinearAttention that a recurrence is, at sizes of its own."""
    emitted = seqc.compile(spec, "torch").module
    shape = ("batch", 2, others.get("K", 3), others.get("V", 5))
    node = SimpleNamespace(
        inputs=[SimpleNamespace(shape=shape)], outputs=[None, None], attributes={"reverse": SimpleNamespace(as_int=lambda: 0)}
    )
    found = seqc.onnx._rule(emitted, node)
    return None if found is None else (found[0], round(found[2], 9))


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ("linear_attention", ("linear", round(3**-0.5, 9))),
        ("gla", ("gated", round(3**-0.5, 9))),
        ("simple_gla", ("gated", round(3**-0.5, 9))),
        ("delta_rule", ("delta", round(3**-0.5, 9))),
        ("gated_delta_rule", ("gated_delta", round(3**-0.5, 9))),
        ("kda", ("gated_delta", round(3**-0.5, 9))),
        (OTHERWISE, ("gated_delta", 0.25)),
        (SIGNED, None),
        *((name, None) for name in ("retention", "rwkv6", "hgrn2", "mlstm_sigmoid", "oja", "iplr", "lstm", "mamba2", "gsa")),
    ],
)
def test_rules_of_linear_attention_are_told_by_numbers(spec: str, want: tuple[str, float] | None) -> None:
    assert fits(spec) == want


@with_onnx
@pytest.mark.parametrize(
    ("spec", "version", "kind"),
    [
        ("lstm", None, "Scan"),
        (OTHERWISE, 27, "LinearAttention"),
        pytest.param("gla", 27, "LinearAttention", marks=pytest.mark.long),
        pytest.param(SIGNED, 27, "Scan", marks=pytest.mark.long),
        pytest.param("gla", None, "Scan", marks=pytest.mark.long),
        pytest.param("linear_attention", 27, "LinearAttention", marks=pytest.mark.long),
        pytest.param("delta_rule", 27, "LinearAttention", marks=pytest.mark.long),
        pytest.param("gated_delta_rule", 27, "LinearAttention", marks=pytest.mark.long),
        pytest.param("simple_gla", 27, "LinearAttention", marks=pytest.mark.long),
        pytest.param("mamba", 27, "Scan", marks=pytest.mark.long),
        pytest.param("s4d", None, "Scan", marks=pytest.mark.long),
        pytest.param("rwkv4", None, "Scan", marks=pytest.mark.long),
        pytest.param("delta_product", 27, "Scan", marks=pytest.mark.long),
        pytest.param("qrnn", None, "Scan", marks=pytest.mark.long),
    ],
)
def test_a_layer_in_onnx(spec: str, version: int | None, kind: str, tmp_path: Path) -> None:
    """Any batch, any number of steps, one and none too."""
    torch.manual_seed(0)
    layer = nn.layer(spec, 8, backend="torch", conv=2).eval()
    example = torch.randn(2, 5, 8)
    kinds, session = exported(layer, (example,), tmp_path / "m.onnx", dynamic_shapes=OPEN, opset_version=version)
    assert kinds == [kind]
    with torch.no_grad():
        for shape in ((2, 5, 8), (3, 11, 8), (1, 1, 8)):
            x = torch.randn(shape)
            close(run(session, x)[0], layer(x))


class Both(torch.nn.Module):
    """Two recurrences of one file, forward and back, with states in and out, and a step behind them."""

    def __init__(self, gru: Any) -> None:
        super().__init__()
        self.one, self.other = gru.Module(H=2, D=3), gru.Module(H=2, D=3)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        ahead = self.one(x, x, x, h_0=h)
        back = self.other(ahead.h, x, x, reverse=True)
        return back.h, self.one.step(x[:, 0], x[:, 0], x[:, 0], h_0=back.h_T).h


@with_onnx
def test_states_directions_and_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Both(seqc.compile("gru", "torch")).eval()
    x, h = torch.randn(2, 4, 2, 3), torch.randn(2, 2, 3)
    kinds, session = exported(model, (x, h), tmp_path / "m.onnx")
    assert kinds == ["Scan", "Scan"]
    with torch.no_grad():
        for got, want in zip(run(session, x, h), model(x, h), strict=True):
            close(got, want)


@with_onnx
@pytest.mark.long
def test_more_tensors_than_a_schema_has(tmp_path: Path) -> None:
    names = [f"a{i}" for i in range(61)]
    text = f'spec many\n"""Many."""\ndim D\ninput x[D], {", ".join(f"{n}[D]" for n in names)}\nstate h[D] = 0\n'
    layer = nn.layer(f"{text}h = 0.5 * h[t-1] + x + {' + '.join(names)}\noutput h\n", 4, backend="torch").eval()
    x = torch.randn(2, 5, 4)
    kinds, session = exported(layer, (x,), tmp_path / "m.onnx", dynamic_shapes=OPEN)
    assert kinds == ["Scan"]
    close(run(session, x)[0], layer(x).detach())


def test_a_package_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seqc.onnx, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'seqc.onnx needs the package onnx: pip install "seqc\[onnx\]"'):
        seqc.onnx.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))


@with_onnx
def test_what_has_no_form_in_onnx() -> None:
    layer = nn.layer("hgrn", 8, backend="torch").eval()
    x = torch.randn(1, 5, 8)
    with pytest.raises(ValueError, match="a pack of sequences has no form in ONNX"):
        seqc.onnx.export(layer, (x,), kwargs={"cu_seqlens": torch.tensor([0, 2, 5])})
    with pytest.raises(ValueError, match="bidirectional_gru has no step"):
        seqc.onnx.export(nn.layer("bidirectional_gru", 8, backend="torch").eval(), (x,))
    close(layer(x), layer(x))  # calls are as they were
