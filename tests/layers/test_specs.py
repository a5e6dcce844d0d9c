"""A layer around every spec that ships: its shapes, and that every way to give it sequences gives the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqc import nn
from seqc.check.promises import watch
from seqc.driver.layer import compile_layer
from seqc.driver.load_emitted import load_emitted
from seqc.driver.options import Options
from seqc.frontend.sources import read

SPECS = sorted(path.stem for path in (Path(__file__).parents[2] / "specs").glob("*.seq"))
ONLY_WHOLE = {"bidirectional_gru", "fsmn_centred"}  # they read what lies ahead
BATCH, STEPS, WIDTH = 3, 6, 8
LENGTHS = torch.tensor([4, 6, 1])


def loaded(name: str) -> Any:
    """The module of a layer, whose calls of the recurrence are watched: ranges and norms as the spec promises."""
    made = compile_layer(read(name), Options("torch"))
    module = load_emitted(f"{made.text}# watched\n", name)
    watch(module, made.compiled.program, made.compiled.signature.renamed)
    return module


def of(module: Any, what: str) -> Any:
    return next(x for name, x in vars(module).items() if name.endswith(what) and not name.startswith("_"))


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", SPECS)
def test_layer_of_a_spec(name: str) -> None:
    module = loaded(name)
    torch.manual_seed(0)
    layer = of(module, "Layer")(WIDTH, conv=3, dtype=torch.float64)
    with torch.no_grad():
        layer.conv.normal_()
    x = torch.randn(BATCH, STEPS, WIDTH, dtype=torch.float64, requires_grad=True)
    whole = layer(x)
    assert whole.shape == x.shape and whole.isfinite().all()
    assert of(module, "Layer")(WIDTH, d_out=5, norm=False, gate=False)(x.float().detach()).shape == (BATCH, STEPS, 5)
    gradients = torch.autograd.grad(whole.square().sum(), [x, *layer.parameters()])
    assert all(g.isfinite().all() for g in gradients) and gradients[0].any()
    if name in ONLY_WHOLE:
        with pytest.raises((RuntimeError, ValueError, NotImplementedError), match="on the sequence"):
            layer.step(x[:, 0], layer.cache())
    else:
        decoded(layer, x.detach(), whole.detach())
    ragged(layer, x.detach(), whole.detach(), name in ONLY_WHOLE)
    stack = of(module, "Stack")(WIDTH, 2, conv=2, dtype=torch.float64)
    assert stack(x).shape == x.shape
    if name not in ONLY_WHOLE:
        decoded(stack, x.detach(), stack(x).detach())


def decoded(layer: Any, x: Tensor, whole: Tensor) -> None:
    """A prompt in two parts and then steps equal the whole."""
    cache = layer.cache()
    parts = [layer(x[:, :2], cache), layer(x[:, 2:3], cache)]
    parts += [layer.step(x[:, t], cache)[:, None] for t in range(3, STEPS)]
    close(torch.cat(parts, 1), whole)


def ragged(layer: Any, x: Tensor, whole: Tensor, ahead: bool) -> None:
    """Padded rows, a PackedSequence, a jagged tensor and a pack are the same sequences; each is what its own call gives."""
    mask = torch.arange(STEPS) < LENGTHS[:, None]
    padded = layer(torch.where(mask[..., None], x, float("nan")), mask=mask)
    assert not padded[~mask].any()
    for i, length in enumerate(LENGTHS):
        close(padded[i, :length], layer(x[i : i + 1, :length])[0] if ahead else whole[i, :length])
    packed = layer(pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False))
    close(pad_packed_sequence(packed, batch_first=True)[0], padded)
    jagged = layer(torch.nested.nested_tensor([x[i, :n] for i, n in enumerate(LENGTHS)], layout=torch.jagged))
    close(jagged.values(), padded[mask])
    bounds = torch.tensor([0, *LENGTHS.cumsum(0)])
    close(layer(x[mask][None], cu_seqlens=bounds)[0], padded[mask])


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
