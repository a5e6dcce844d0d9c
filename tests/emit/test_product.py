"""`_product` of emitted files: what einsum gives, in the order that the word asks for, however the arrays lie in memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqc.emit.product import PRODUCT

SIZES = {"b": 2, "t": 1030, "h": 1, "H": 2, "c": 40, "d": 48}
WORDS = ("btc,btd->cd", "btc,btd->dc", "bthc,bthd->hcd", "bthc,bthd->chd", "bthc,bthd->hdc", "btHc,btHd->Hcd", "hcd,btd->bthc",
         "btd,hcd->bthc", "bcd,btd->btc", "Hcd,btd->btHc")


@pytest.mark.parametrize("word", WORDS)
def test_it_is_einsum(word: str) -> None:
    space: dict[str, Any] = {"torch": torch, "math": math}
    exec(PRODUCT, space)
    torch.manual_seed(0)
    first, second = word.partition("->")[0].split(",")
    arrays = [torch.randn([SIZES[c] for c in axes], dtype=torch.float64) for axes in (first, second)]
    truth = torch.einsum(word, *arrays)
    for laid in (contiguous, backwards, with_gaps):
        x, y = (laid(array.float()) for array in arrays)
        made = space["_product"](word, x, y)
        assert made.shape == truth.shape and made.dtype == torch.float32
        assert (made - truth).abs().max() < 1e-5 * truth.abs().max()


def contiguous(x: Tensor) -> Tensor:
    return x


def backwards(x: Tensor) -> Tensor:
    """The last axis lies outermost."""
    return x.movedim(-1, 0).contiguous().movedim(0, -1)


def with_gaps(x: Tensor) -> Tensor:
    """Every second element of a row."""
    return torch.stack([x, x], -1)[..., 0]
