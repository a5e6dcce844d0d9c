"""The operators as torch sees them: opcheck, torch.compile, several imports of one file, autocast, dtypes."""

import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from seqc.emit import emit
from tests.emit import bodies
from tests.emit.data import cell_data, decay_data

SPECS = Path(__file__).parents[2] / "specs"


@pytest.mark.parametrize("T", [0, 5])
@pytest.mark.parametrize("grad", [False, True])
def test_opcheck(decay: ModuleType, cell: ModuleType, square: ModuleType, T: int, grad: bool) -> None:
    torch.library.opcheck(decay._OPS.run.default, (*decay_data(T, torch.float32, grad), None, False))
    torch.library.opcheck(cell._OPS.run.default, (*cell_data(T, torch.float32, grad), None, False))
    torch.library.opcheck(square._OPS.run.default, (torch.randn(2, T, 3, requires_grad=grad), None, False))


def test_opcheck_of_the_inner_operators(cell: ModuleType) -> None:
    args = (*cell_data(5, torch.float32, grad=False), None, False)
    torch.library.opcheck(cell._OPS.forward.default, args)
    *results, saved = cell._OPS.forward.default(*args)
    for needs in ([True] * 6, [True, False] * 3):
        torch.library.opcheck(cell._OPS.backward.default, (*args, saved, needs, *results))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch hides it where it looks at tensors of a run of one step
@pytest.mark.parametrize("grad", [False, True])
def test_opcheck_of_a_step(decay: ModuleType, cell: ModuleType, square: ModuleType, grad: bool) -> None:
    for module, data in ((decay, decay_data), (cell, cell_data)):
        x, *rest = data(1, torch.float32, grad)
        gates = [y[:, 0] if y.dim() > 2 and module is decay else y for y in rest]
        arguments = [y.detach().requires_grad_(grad) for y in (x[:, 0], *gates)]
        torch.library.opcheck(module._OPS.step.default, arguments)
    torch.library.opcheck(square._OPS.step.default, [torch.randn(2, 3, requires_grad=grad)])


def test_a_step_returns_memory_of_its_own(decay: ModuleType) -> None:
    x, g, h_0 = (y.detach() for y in decay_data(1, torch.float32))
    y, h_T = decay.decay_step(x[:, 0], g[:, 0], h_0=h_0)
    assert torch.equal(y, h_T)
    y.zero_()
    assert h_T.abs().sum() > 0


@pytest.mark.parametrize("start", ["0", "0.5"])
def test_a_state_that_a_caller_does_not_give_is_kept_as_one_number(start: str) -> None:
    """Files with GPU kernels: what a gradient keeps of an initial state is one element; results are as if it was given."""
    text = (SPECS / "simple_gla.seq").read_text().replace("state S[H, K, V] = 0", f"state S[H, K, V] = {start}")
    module = load_emitted(compile_spec(text, Options("triton")).text, "started")
    B, T, H, D = 2, 20, 3, 16
    x = {name: torch.randn(B, T, H, D, requires_grad=True) for name in "qkv"}
    x["g"] = (-torch.rand(B, T, H)).requires_grad_()
    given = {y.untyped_storage().data_ptr() for y in x.values()}

    def run(**states: torch.Tensor) -> tuple[list[torch.Tensor], int]:
        kept: dict[int, int] = {}

        def pack(y: torch.Tensor) -> torch.Tensor:
            kept[y.untyped_storage().data_ptr()] = y.untyped_storage().nbytes()
            return y

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda y: y):
            o, last = module.simple_gla(**x, **states)
        slopes = torch.autograd.grad(o.square().sum() + last.sum(), list(x.values()))
        return [o, last, *slopes], sum(size for place, size in kept.items() if place not in given)

    alone, few = run()
    both, many = run(S_0=torch.full((B, H, D, D), float(start)))
    assert many - few == 4 * (B * H * D * D - 1)
    assert all(torch.equal(a, b) for a, b in zip(alone, both, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(decay: ModuleType, dtype: torch.dtype) -> None:
    carry = torch.float64 if dtype == torch.float64 else torch.float32
    x, g, h_0 = args = decay_data(5, dtype)
    y, h_T = decay.decay(x, g, h_0=h_0.to(dtype))
    assert (y.dtype, h_T.dtype) == (dtype, carry)
    assert [d.dtype for d in torch.autograd.grad(y.sum() + h_T.sum(), args)] == [dtype, dtype, carry]
    step = decay.decay_step(x[:, 0], g[:, 0], h_0=h_0)
    assert (step.y.dtype, step.h_T.dtype) == (dtype, carry)
    decay.decay(x, g.to(carry), h_0=h_0)  # a gate may be more precise
    if dtype == torch.bfloat16:
        with pytest.raises(TypeError, match=r"decay: g is torch.float16, x is torch.bfloat16; inputs share a dtype"):
            decay.decay(x, g.to(torch.float16))


def test_integers_are_refused(decay: ModuleType) -> None:
    with pytest.raises(TypeError, match=r"decay: x is torch.int64; inputs are floating-point numbers"):
        decay.decay(torch.ones(1, 2, 3, dtype=torch.int64), torch.ones(1, 2, 3))


def test_native_form_where_it_is_ready() -> None:
    native = "ready = True\n\n\ndef _ready_cpu(*_):\n    return ready\n\n\n" + bodies.DECAY
    native = native.replace("_torch", "_cpu").replace("* h + x_t", "* h - x_t").replace("* h_0 + x", "* h_0 - x")
    native = native.replace("return h, h\n", "return h, h.clone()\n")
    sig = bodies.decay()
    module = load_emitted(emit(replace(sig, cpu=replace(sig.torch, text=native))), "native")
    x, g, _ = decay_data(4, torch.float32)
    torch.library.opcheck(module._OPS.run.default, (*decay_data(5, torch.float32), None, False))
    first, step = module.decay(x, g).y, module.decay_step(x[:, 0].detach(), g[:, 0].detach()).y
    module.ready = False
    assert torch.equal(first, -module.decay(x, g).y)
    assert torch.equal(step, -module.decay_step(x[:, 0].detach(), g[:, 0].detach()).y)


def test_autocast_keeps_gates_and_states_in_float32(decay: ModuleType, cell: ModuleType) -> None:
    x, g, h_0 = decay_data(5, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, h_T = decay.decay(x, g, h_0=h_0)
        assert (y.dtype, h_T.dtype) == (torch.bfloat16, torch.float32)
        d_x, d_g = torch.autograd.grad(y.sum(), (x, g))
        mixed = decay.decay(x.bfloat16(), g, h_0=h_0)
        assert torch.equal(mixed.y, y) and torch.equal(mixed.h_T, h_T)
    exact = decay.decay(x.bfloat16().float(), g, h_0=h_0)
    assert torch.equal(exact.y.bfloat16(), y) and torch.equal(exact.h_T, h_T)
    assert (d_x.dtype, d_g.dtype) == (torch.float32, torch.float32)
    # inside the operator autocast is off: a matrix product of its body keeps float32
    args = cell_data(5, torch.float32, grad=False)
    plain = cell.cell(args[0].bfloat16(), *args[1:4]).h_T
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cell.cell(*args[:4]).h_T, plain)
        assert decay.decay(x.double(), g.double()).y.dtype == torch.float64


def test_file_imported_twice_and_two_versions(decay: ModuleType) -> None:
    text = emit(bodies.decay())
    again = load_emitted(text, "another_name")
    other = load_emitted(text.replace("torch.exp(g_t) * h + x_t", "torch.exp(g_t) * h - x_t"), "edited")
    names = {str(m._OPS.run.default) for m in (decay, again, other)}
    assert len(names) == 3
    x, g, _ = decay_data(4)
    assert torch.equal(decay.decay(x, g).y, again.decay(x, g).y)
    assert torch.equal(decay.decay(x, g).y, -other.decay(x, g).y)
    assert load_emitted(text, "another_name") is again


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_compile_without_a_break(cell: ModuleType, backend: str) -> None:
    def run(*args: torch.Tensor) -> torch.Tensor:
        y, h_T, c_T = cell.cell(args[0].sin(), *args[1:4])
        return y.square().sum() + h_T.sum() + c_T.cos().sum()

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend=backend)
    for T in (127, 193):
        args = cell_data(T, torch.float32)
        mine, truth = compiled(*args), run(*args)
        torch.testing.assert_close(mine, truth)
        torch.testing.assert_close(torch.autograd.grad(mine, args[:4]), torch.autograd.grad(truth, args[:4]))
        with torch._dynamo.config.patch(error_on_recompile=True):
            compiled(*cell_data(T + 2, torch.float32))


@pytest.mark.parametrize("grad", [False, True])
def test_compiled_step(cell: ModuleType, grad: bool) -> None:
    def run(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        y, h_T, c_T = cell.cell_step(x.sin(), *rest[:3], h_0=rest[3], c_0=rest[4])
        return y.square().sum() + h_T.sum() + c_T.cos().sum()

    torch._dynamo.reset()
    x, *rest = cell_data(1, torch.float32, grad)
    args = [x.detach()[:, 0].requires_grad_(grad), *rest]
    compiled = torch.compile(run, fullgraph=True)
    torch.testing.assert_close(compiled(*args), run(*args))
    if grad:
        mine, truth = torch.autograd.grad(compiled(*args), rest), torch.autograd.grad(run(*args), rest)
        torch.testing.assert_close(mine, truth)


def test_compiled_step_and_autocast(decay: ModuleType) -> None:
    def run(x: torch.Tensor, g: torch.Tensor, h_0: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            y, h_T = decay.decay(x, g, h_0=h_0)
            return y, *decay.decay_step(x[:, 0], g[:, 0], h_0=h_T)

    torch._dynamo.reset()
    args = decay_data(5, torch.float32)
    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(*args), run(*args), strict=True))


def test_sizes_that_outgrow_a_gpu_run_in_plain_torch_and_say_so() -> None:
    """Four matrices stay in shared memory, of one program or shared out over a team in pieces: 16 units of a head for each of
    its programs, all of which run at once."""
    module = load_emitted(compile_spec(SPECS / "lstm.seq", Options("triton")).text, "limited")
    with FakeTensorMode(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        small, large = module._TRITON, module._TORCH
        for size, form in ((64, small), (1025, small), (2048, small), (2304, large), (4096, large), (4096, large)):
            x, state = (torch.empty(*axes, 2, size, device="cuda", dtype=torch.bfloat16) for axes in ((3, 5), (3,)))
            matrix = torch.empty(2, size, size, device="cuda", dtype=torch.bfloat16)
            assert module._form(x, x, x, x, *[matrix] * 4, state, state) is form
    words = [str(one.message) for one in said]
    assert len(words) == 2 and "D = 4096" in words[1] and "232448 on cuda" in words[1] and "plain torch runs" in words[1]
    assert module._stages("backward", 3, torch.empty(1, dtype=torch.bfloat16), 64) == 3
    assert module._stages("backward", 3, torch.empty(1, dtype=torch.float32), 64) == 3
    assert module._stages("backward", 3, torch.empty(1, dtype=torch.float32), 112) == 1
    assert module._stages("backward", 3, torch.empty(1, dtype=torch.bfloat16), 112) == 3
