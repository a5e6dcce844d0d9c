"""A layer around every spec that ships: its shapes, and that every way to give it sequences gives the same."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqc import nn
from seqc.check.promises import watch
from seqc.driver.layers.layer import compile_layer
from seqc.driver.load_emitted import load_emitted
from seqc.driver.options import Options
from seqc.frontend.sources import read

OF_A_KIND = {  # the others are marked `long`
    "aaren", "ar_net", "bidirectional_gru", "caption_lstm", "delta_product", "fsmn_centred", "gated_delta_rule", "gla", "gru",
    "hyper_rnn", "layer_norm_lstm", "lif", "lru", "lstm", "mamba2", "memory_gru", "mlstm", "plrnn", "pv_rnn", "qrnn", "rwkv4",
    "s4", "slstm", "stuffed_mamba", "stuffed_mamba_window", "variational_lstm",
}
SPECS = [
    path.stem if path.stem in OF_A_KIND else pytest.param(path.stem, marks=pytest.mark.long)
    for path in sorted((Path(__file__).parents[2] / "specs").glob("*.seq"))
]
ONLY_WHOLE = {"bidirectional_gru", "fsmn_centred"}  # they read what lies ahead
BATCH, STEPS, WIDTH = 3, 6, 8
LENGTHS = torch.tensor([4, 6, 1])


def loaded(name: str) -> Any:
    """The module of a layer, whose calls of the recurrence are watched: ranges and norms as the spec promises."""
    made = compile_layer(read(name), Options("torch"))
    module = load_emitted(f"{made.text}# watched\n", name)
    watch(module, made.compiled.program, made.compiled.signature.renamed)
    vars(module)["INDICES"] = {one.name for one in made.plan.sig.inputs if one.role == "index"}
    return module


def of(module: Any, what: str) -> Any:
    return next(x for name, x in vars(module).items() if name.endswith(what) and not name.startswith("_"))


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


class Case:
    """A layer or a stack with what its calls take besides x: indices and params of each sequence. Noise is drawn alike."""

    def __init__(self, module: Any, what: str, **options: Any) -> None:
        torch.manual_seed(0)
        self.layer = of(module, what)(WIDTH, dtype=torch.float64, **options)
        sizes = dict((self.layer.layers[0] if what == "Stack" else self.layer).recurrence.dims)
        self.given: list[tuple[Tensor, bool]] = []  # and whether it has an entry for each step
        for name in list(inspect.signature(self.layer.run).parameters)[1:-2]:
            axes = module._AXES[name].split()
            whole = name in module.INDICES
            shape = [{"B": BATCH, "T": STEPS}.get(axis) or sizes[axis] for axis in axes]
            self.given.append((torch.randint(2, shape) if whole else torch.randn(shape, dtype=torch.float64), "T" in axes))
        with torch.no_grad():
            for p in self.layer.parameters():
                if not p.any():
                    p.normal_(std=0.1)

    def __call__(self, x: Any, cache: Any = None, steps: Any = slice(None), rows: Any = slice(None), **named: Any) -> Any:
        torch.manual_seed(5)
        given = [(one[rows][:, steps] if timed else one[rows]) for one, timed in self.given]
        return self.layer(x, *given, cache, **named)

    def step(self, x: Tensor, cache: Any, t: int) -> Tensor:
        return self.layer.step(x, *(one[:, t] if timed else one for one, timed in self.given), cache)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", SPECS)
def test_layer_of_a_spec(name: str) -> None:
    module = loaded(name)
    content = "conv: torch.nn.Parameter" in inspect.getsource(of(module, "Layer"))
    case = Case(module, "Layer", conv=3 if content else 0)
    if content:
        with torch.no_grad():
            case.layer.conv.normal_()
    x = torch.randn(BATCH, STEPS, WIDTH, dtype=torch.float64, requires_grad=True)
    whole = case(x)
    assert whole.shape == x.shape and whole.isfinite().all()
    assert Case(module, "Layer", d_out=5, norm=False, gate=False)(x).shape == (BATCH, STEPS, 5)
    gradients = torch.autograd.grad(whole, [x, *case.layer.parameters()], torch.randn_like(whole), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients) and gradients[0].any()
    if name in ONLY_WHOLE:
        with pytest.raises((RuntimeError, ValueError, NotImplementedError), match="on the sequence"):
            case.layer.step(x[:, 0], case.layer.cache())
    else:
        decoded(case, x.detach(), whole.detach())
    ragged(case, x.detach(), whole.detach(), name, module)
    stack = Case(module, "Stack", layers=2, conv=2 if content else 0)
    assert stack(x).shape == x.shape
    if name not in ONLY_WHOLE:
        decoded(stack, x.detach(), stack(x).detach())


def decoded(case: Case, x: Tensor, whole: Tensor) -> None:
    """A prompt in two parts and then steps equal the whole."""
    cache = case.layer.cache()
    parts = [case(x[:, :2], cache, slice(2)), case(x[:, 2:3], cache, slice(2, 3))]
    parts += [case.step(x[:, t], cache, t)[:, None] for t in range(3, STEPS)]
    close(torch.cat(parts, 1), whole)


def ragged(case: Case, x: Tensor, whole: Tensor, name: str, module: Any) -> None:
    """Padded rows, a PackedSequence, a jagged tensor and a pack are the same sequences; each is what its own call gives."""
    mask = torch.arange(STEPS) < LENGTHS[:, None]
    padded = case(torch.where(mask[..., None], x, float("nan")), mask=mask)
    assert not padded[~mask].any()
    alone = BATCH if "_draw" not in vars(module) else 1  # noise is counted by the number of the sequence
    for i, length in enumerate(LENGTHS[:alone]):
        own = case(x[i : i + 1, :length], None, slice(length), slice(i, i + 1))[0] if name in ONLY_WHOLE else whole[i, :length]
        close(padded[i, :length], own)
    row, bounds = x[mask][None], torch.tensor([0, *LENGTHS.cumsum(0)])
    if any(timed for _, timed in case.given):  # which come as x does
        return
    close(case(row, cu_seqlens=bounds)[0], padded[mask])
    packed = case(pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False))
    close(pad_packed_sequence(packed, batch_first=True)[0], padded)
    jagged = case(torch.nested.nested_tensor([x[i, :n] for i, n in enumerate(LENGTHS)], layout=torch.jagged))
    close(jagged.values(), padded[mask])


def test_sizes_follow_from_the_width() -> None:
    """Heads where nothing mixes them, a wide state where one is a vector, 16 beside it where it is not."""

    def sizes(name: str) -> dict[str, int]:
        return dict(nn.layer(name, 64, backend="torch").recurrence.dims)

    assert sizes("gla") == {"H": 4, "K": 16, "V": 16}
    assert sizes("lstm") == {"H": 4, "D": 16}
    assert sizes("hgrn") == {"D": 64}
    assert sizes("mamba") == {"D": 64, "N": 16}
    assert sizes("mamba2") == {"G": 1, "H": 4, "P": 16, "N": 16}
    assert sizes("s4d") == {"M": 1, "H": 64, "N": 16}
    assert sizes("lru") == {"D": 64, "N": 64, "M": 64}
    assert dict(nn.layer("gla", 64, H=2, K=8, backend="torch").recurrence.dims) == {"H": 2, "K": 8, "V": 32}
