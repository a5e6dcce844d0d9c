"""What a layer computes, against the same by hand; caches; what follows from declarations of every kind."""

import math
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import seqc
from seqc import nn


def close(got: Tensor, want: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def by_hand(layer: Any, x: Tensor) -> Tensor:
    """A layer around gla as one writes it: one sequence at a time, one step after the other."""
    H, K, V = 2, 3, 5
    widths = [H * K, H * K, H * V, H * K]
    rows = []
    for one in x:
        past = [torch.zeros(sum(widths[:3]), dtype=x.dtype)] * 2
        S = torch.zeros(H, K, V, dtype=x.dtype)
        for x_t in one:
            p = layer.project.weight @ x_t + layer.project.bias
            content = p[: sum(widths[:3])]
            mixed = layer.conv[0] * content + layer.conv[1] * past[-1] + layer.conv[2] * past[-2]
            past.append(content)
            q, k, v = (part.view(H, -1) for part in mixed.split(widths[:3]))
            S = F.logsigmoid(p[sum(widths[:3]) :].view(H, K)).exp()[..., None] * S + k[..., None] * v[:, None, :]
            o = (q[..., None] * S).sum(1) / math.sqrt(K)
            o = o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.norm_o.weight
            gate = layer.gate.weight @ x_t
            rows.append(layer.out.weight @ (o.flatten() * gate * torch.sigmoid(gate)))
    return torch.stack(rows).view(*x.shape[:2], -1)


def gla(**options: Any) -> Any:
    torch.manual_seed(1)
    layer = nn.layer("gla", 6, backend="torch", H=2, K=3, V=5, dtype=torch.float64, **options)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    return layer


def test_a_layer_is_what_it_says() -> None:
    layer = gla(conv=3, d_out=4)
    x = torch.randn(2, 7, 6, dtype=torch.float64, requires_grad=True)
    got, want = layer(x), by_hand(layer, x)
    assert got.shape == (2, 7, 4)
    close(got, want)
    given = [x, *layer.parameters()]
    weight = torch.randn_like(got)
    for one, other in zip(torch.autograd.grad(got, given, weight), torch.autograd.grad(want, given, weight), strict=True):
        close(one, other)


def test_a_stack_adds_what_layers_give() -> None:
    torch.manual_seed(0)
    stack = nn.layer("gla", 6, layers=2, backend="torch", H=2, K=3, V=3, dtype=torch.float64)
    x = y = torch.randn(2, 5, 6, dtype=torch.float64)
    for layer, norm in zip(stack.layers, stack.norms, strict=False):
        y = y + layer(norm(y))
    close(stack(x), stack.norms[-1](y))
    with pytest.raises(ValueError, match="a residual adds what a layer gives, 4 numbers"):
        nn.layer("gla", 6, layers=2, backend="torch", d_out=4)


def test_a_pack_goes_on_from_its_cache() -> None:
    """Sequences of several lengths, some without steps, some shorter than the convolution, each in two calls."""
    layer = gla(conv=4)
    x = torch.randn(4, 9, 6, dtype=torch.float64)
    first, whole = torch.tensor([2, 0, 5, 1]), torch.tensor([3, 2, 9, 1])
    cache = layer.cache()
    steps = torch.arange(9)
    one = layer(x, cache, mask=steps < first[:, None])
    two = layer(x, cache, mask=(steps >= first[:, None]) & (steps < whole[:, None]))
    for i, n in enumerate(whole):
        close((one + two)[i, :n], layer(x[i : i + 1, :n])[0])
    after = layer.step(x[:, 8], cache)
    for i, n in enumerate(whole):
        close(after[i], layer(torch.cat([x[i : i + 1, :n], x[i : i + 1, 8:]], 1))[0, -1])


def test_caches_are_copied_chosen_and_cut() -> None:
    stack = nn.layer("lstm", 6, layers=2, backend="torch", H=2, D=3, conv=2, dtype=torch.float64)
    x = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    cache = stack.cache()
    stack(x, cache)
    chosen = cache.select(torch.tensor([2, 0, 2]))
    y = torch.randn(3, 6, dtype=torch.float64)
    close(stack.step(y, chosen), stack(torch.cat([x[[2, 0, 2]], y[:, None]], 1))[:, -1])
    assert torch.autograd.grad(stack.step(y, cache.select(torch.arange(3))).sum(), x)[0].any()
    cut = cache.detach()
    assert torch.autograd.grad(stack.step(y, cut).sum(), x, allow_unused=True)[0] is None
    with torch.inference_mode():
        copy, places = cache.clone(), []
        for inplace in (True, True):
            places.append([s.data_ptr() for one in copy.layers for name, s in one.states.items() if name != "conv"])
            last = stack.step(y, copy, inplace)
    assert places[0] == places[1]
    close(last, stack(torch.cat([x, y[:, None], y[:, None]], 1))[:, -1].detach())


def test_wrong_sequences_are_named() -> None:
    layer = gla()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"mask is \[B, T\] of torch.bool.* it is \[2, 4\] of torch.bool"):
        layer(x, mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"of torch\.int64"):
        layer(x, mask=torch.ones(2, 5, dtype=torch.int64))
    jagged = torch.nested.nested_tensor(list(x), layout=torch.jagged)
    with pytest.raises(ValueError, match="their own lengths"):
        layer(jagged, mask=torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"torch\.jagged"):
        layer(torch.nested.narrow(x, 1, torch.tensor([0, 1]), torch.tensor([2, 3]), layout=torch.jagged))


RANGES = '''
spec ranges
"""Every kind of range."""
dim D
input below[D] in [-inf, -1], above[D] in [2, inf], odd[D] in [-3, 3], unit[D] in [-1, 1], share[D] in [0, 1], span[D] in [1, 4]
input key[D] unit[D], scalar in [0, 1], free
state h[D] = 0
h = 0.5 * h[t-1] + below + above
output o[D] = h + odd * unit + share * span + key * scalar + free
'''


def test_ranges_and_norms() -> None:
    torch.manual_seed(0)
    layer = nn.layer(RANGES, 6, backend="torch", dtype=torch.float64)
    x = 5 * torch.randn(2, 40, 6, dtype=torch.float64)
    inputs = layer.inputs(x, {}, None)
    found = dict(zip(layer.shapes, inputs, strict=True))
    parts = dict(zip(layer.shapes, layer.project(x).split(layer.widths, -1), strict=True))
    close(found["below"], -1 - torch.log1p(torch.exp(-parts["below"])))
    close(found["above"], 2 + torch.log1p(torch.exp(parts["above"])))
    close(found["odd"], 3 * torch.tanh(parts["odd"]))
    close(found["unit"], torch.tanh(parts["unit"]))
    close(found["share"], torch.sigmoid(parts["share"]))
    close(found["span"], 1 + 3 * torch.sigmoid(parts["span"]))
    close(found["scalar"], torch.sigmoid(parts["scalar"][..., 0]))
    close(found["key"], parts["key"] / parts["key"].square().sum(-1, keepdim=True).sqrt())
    assert found["free"].shape == (2, 40)
    assert layer(x).isfinite().all()


def memories(decay: Tensor) -> Tensor:
    return -1 / decay.log()


def test_gates_begin_open() -> None:
    """By hand for four kinds of gate: the memories of a new layer reach from 4 to 256 steps."""
    x = torch.zeros(1, 1, 32, dtype=torch.float64)

    def inputs(name: str, **sizes: int) -> dict[str, Tensor]:
        layer = nn.layer(name, 32, backend="torch", dtype=torch.float64, **sizes)
        return dict(zip(layer.shapes, layer.inputs(x, {}, None), strict=True))

    for found in (
        memories(inputs("gla")["g"][0, 0].exp()),  # the logarithm of a decay
        memories(torch.sigmoid(inputs("lstm")["x_f"][0, 0])),  # an LSTM's forget gate
        memories(1 - torch.sigmoid(inputs("min_gru")["z"][0, 0])),  # a gate that closes as it grows
        memories(torch.exp(-F.softplus(inputs("mamba2", H=4)["delta"][0, 0]))),  # a step size
    ):
        ends = torch.tensor([4.0, 256.0], dtype=torch.float64).expand(*found.shape[:-1], 2)
        # biases are written with three decimals: 5e-4 off, and a memory changes relatively by no more than its bias does
        torch.testing.assert_close(found[..., [0, -1]], ends, rtol=5e-4, atol=0)
        assert (found.diff(dim=-1) > 0).all()
    assert not inputs("delta_rule")["beta"].sub(1).abs().max()  # how much is written is no gate of what is kept
    assert not nn.layer("rnn", 32, backend="torch").project.bias.any()


ODD = {
    "grid": ('spec grid\n"""A plane."""\naxis t, u\ndim D\ninput x[D], a[D] in [0, 1]\nstate h[D] = 0\nbefore u: h = 1\n'
             "h = a * h[t-1] + 0.5 * h[u-1] + 0.1 * h[t-1, u-1] + x\noutput h\n", ()),
    "words": ('spec words\n"""An index."""\ndim V, D\ninput w index V\nparam E[V, D], R[D, D], C[V, D]\nstate h[D] = 0\n'
              "h = tanh(E[w] + R @ h[t-1])\noutput logits = C @ h\n", (torch.randint(0, 8, (2, 6)),)),
    "noise": ('spec noise\n"""Drawn."""\ndim D\ninput x[D]\nparam R[D, D]\nstate h[D] = 0\n'
              "h = tanh(R @ (bernoulli[D](0.75, once) * h[t-1]) + x + 0.1 * normal[D]())\noutput h\n", ()),
    "samples": ('spec samples\n"""A param of each sequence, a buffer, a mask."""\ndim D\ninput x[D]\nparam a[D] per batch\n'
                "buffer M[D, D] init where(index[D] == index[D'], 0, 1)\nparam R[D, D]\nstate h[D] = 0\n"
                "h = tanh(a * h[t-1] + R * M @ h[t-1] + x)\noutput h\nsparse R by magnitude keep 50%\n",
                (torch.linspace(-1, 1, 16, dtype=torch.float64).view(2, 8),)),
    "words_of_python": ('spec words_of_python\n"""Names that the layer has too."""\ndim D\ninput x[D], cache[D], y[D] unit[D]\n'
                        "input lambda[D] in [-inf, -1], result[D]\nstate states[D] = 0\n"
                        "states = exp(lambda) * states[t-1] + x * cache + y * result\noutput parts[D] = states\n", ()),
    "history": ('spec taps\n"""The past of inputs."""\ndim D, L = 3\ninput x[D], g[D] in [0, 1]\nparam a[L, D]\n'
                "state h[D] = 0\nh = g[t-1] * h[t-1] + sum[L](a * x[t - index[L]])\noutput h\n", ()),
    "bounded": ('spec bounded\n"""A boundary."""\ndim K, V\ninput q[K], k[K], v[V], g in [-inf, 0]\nstate S[K, V] = 0\n'
                "S = exp(g) * S[t-1] + k * v\noutput o = sum[K](q * S)\nevery 3: S = S / 2\n", ()),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_a_spec_may_say_besides(name: str) -> None:
    """Each in a stack: a prompt, then steps, equal the whole; a mask leaves what a shorter call has."""
    text, others = ODD[name]
    torch.manual_seed(0)
    stack = nn.layer(text, 8, layers=2, conv=0 if name == "words" else 2, backend="torch", dtype=torch.float64)
    x = torch.randn(2, 6, *((3,) if name == "grid" else ()), 8, dtype=torch.float64)
    timed = name == "words"

    def cut(steps: Any) -> tuple[Tensor, ...]:
        return tuple(o[:, steps] if timed else o for o in others)

    torch.manual_seed(7)
    whole = stack(x, *others)
    assert whole.shape == x.shape
    torch.manual_seed(7)
    cache = stack.cache()
    parts = [stack(x[:, :3], *cut(slice(3)), cache)]
    parts += [stack.step(x[:, t], *cut(t), cache)[:, None] for t in range(3, 6)]
    close(torch.cat(parts, 1), whole, 1e-9)
    torch.manual_seed(7)
    mask = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    masked = stack(x, *others, mask=mask)
    close(masked[mask], whole[mask], 1e-9)
    assert not masked[~mask].any()


def test_inputs_that_the_caller_gives() -> None:
    layer = nn.layer("plrnn", 6, backend="torch", given=["alpha"], dtype=torch.float64)
    x, alpha = torch.randn(2, 4, 6, dtype=torch.float64), torch.rand(2, 4, 6, dtype=torch.float64)
    assert list(layer.shapes) == ["x"]
    assert not torch.equal(layer(x, alpha), layer(x, 1 - alpha))
    with pytest.raises(TypeError, match="alpha"):
        layer(x)
    with pytest.raises(seqc.Unsupported, match=r"has no input `alfa`[\s\S]*alpha"):
        nn.layer("plrnn", 6, given=["alfa"])


def test_nothing_to_convolve_is_said() -> None:
    with pytest.raises(ValueError, match="words has no input for a convolution"):
        nn.layer(ODD["words"][0], 8, conv=2, backend="torch")


def test_names_that_a_layer_cannot_have() -> None:
    with pytest.raises(seqc.Unsupported, match="the dim `conv` would be called as an argument of its layer is"):
        nn.layer('spec s\n"""s"""\ndim conv\ninput x[conv]\nstate h[conv] = 0\nh = 0.5 * h[t-1] + x\noutput h\n', 4)


def test_a_layer_can_be_sent_and_compiled_once() -> None:
    layer = gla(conv=2)
    x = torch.randn(1, 3, 6, dtype=torch.float64)
    cache = layer.cache()
    layer(x, cache)
    again, kept = pickle.loads(pickle.dumps((layer, cache)))
    close(again(x), layer(x))
    close(again.step(x[:, 0], kept), layer.step(x[:, 0], cache))
    assert nn.module("gla", backend="torch") is nn.module("gla", backend="torch")
    compile(nn.source("gla", backend="torch"), "gla_layer.py", "exec")


@torch.no_grad()
def test_a_stack_is_compiled_whole() -> None:
    """By torch.compile, without a break: a call, a call with a cache, and steps."""
    stack = nn.layer("gla", 6, layers=2, backend="torch", conv=3)
    compiled = torch.compile(stack, fullgraph=True, dynamic=True, backend="eager")
    step = torch.compile(stack.step, fullgraph=True, backend="eager")
    one, other = stack.cache(), stack.cache()
    for T in (5, 9):
        x = torch.randn(2, T, 6)
        close(compiled(x, one), stack(x, other), 1e-6)
    for x in torch.randn(3, 2, 6):
        close(step(x, one), stack.step(x, other), 1e-6)


def test_half_precision() -> None:
    """Under autocast, and in a dtype of its own: gates and states keep their digits."""
    torch.manual_seed(0)
    stack = nn.layer("gla", 16, layers=2, backend="torch", conv=3)
    x = torch.randn(2, 30, 16)
    with torch.autocast("cpu", torch.bfloat16):
        cast = stack(x)
    assert float((cast - stack(x)).detach().abs().max()) < 0.05
    cast.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in stack.parameters())
    half = nn.layer("gla", 16, backend="torch", conv=3, dtype=torch.bfloat16)
    cache = half.cache()
    assert half(x.bfloat16(), cache).dtype == half.step(x[:, 0].bfloat16(), cache).dtype == torch.bfloat16
    assert cache.states["S"].dtype == torch.float32


@pytest.mark.parametrize("name", ["hgrn", "delta_rule"])
def test_native_code_in_a_layer(name: str) -> None:
    """The same numbers from the form that CPUs run."""
    torch.manual_seed(0)
    plain = nn.layer(name, 8, backend="torch")
    native = nn.layer(name, 8, backend="cpu")
    native.load_state_dict(plain.state_dict())
    x = torch.randn(2, 20, 8)
    mask = torch.arange(20) < torch.tensor([[20], [3]])
    close(native(x, mask=mask), plain(x, mask=mask), 1e-5)


@pytest.mark.parametrize("layers", [None, 2])
def test_what_a_layer_is_given_fits_it(layers: int | None) -> None:
    """Inputs of another width, without a batch, of another kind; a cache that is none; sizes that are no sizes."""
    layer = nn.layer("gla", 8, layers=layers, H=2, backend="torch")
    name, x = type(layer).__name__, torch.zeros(2, 5, 8)
    for wrong in (x[..., :6], x[0]):
        with pytest.raises(ValueError, match=re.escape(f"{name}: x has shape {list(wrong.shape)}; it is [B, T, d_model = 8]")):
            layer(wrong)
    for wrong in (x, x[:, 0, :6]):
        with pytest.raises(ValueError, match=re.escape(f"{name}: x has shape {list(wrong.shape)}; it is [B, d_model = 8]")):
            layer.step(wrong, layer.cache())
    for args in ((x.numpy(),), (None,), (x, x)):
        with pytest.raises(TypeError, match="x is a tensor or a PackedSequence, and cache what `cache\\(\\)` gives"):
            layer(*args)
    with pytest.raises(ValueError, match=r"mask is \[B, T\] of torch.bool, .*; it is \[\] of list"):
        layer(x, mask=[True])
    for sizes in ({"d_model": 8.0}, {"d_model": 0}, {"d_model": True}, {"H": 0}, {"K": -1}, {"K": True}):
        with pytest.raises(ValueError, match="a size is a whole number, 1 or more"):
            nn.layer("gla", **{"d_model": 8, **sizes}, layers=layers, backend="torch")
