"""An emitted file alone names the argument that is no tensor, and says what it is instead."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import seqc

X = torch.zeros(1, 6, 2, 4)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda f: f(X.numpy(), X, X, X), r"q is an array of numpy; it is a tensor: torch.from_numpy\(q\)"),
        (lambda f: f(X, X, X.numpy(), X), r"v is an array of numpy; it is a tensor: torch.from_numpy\(v\)"),
        (lambda f: f(X, X, X, X, cu_seqlens=[0, 6]), r"cu_seqlens is a list; it is a tensor: torch.tensor\(\[0, 6\]\)"),
    ],
)
def test_what_is_no_tensor_is_named(call: Callable[[Any], Any], told: str) -> None:
    function = seqc.compile("gla", backend="torch").module.gla
    assert function(X, X, X, X, cu_seqlens=torch.tensor([0, 6]))[0].shape == X.shape
    with pytest.raises(TypeError, match=f"^gla: {told}$"):
        call(function)
