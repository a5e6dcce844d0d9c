"""The spec of `tests.emit.test_sparse` in Triton's interpreter: prints the largest error of results and gradients.

A process of its own: the interpreter is chosen before Triton is imported.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

import seqc
from tests.emit.test_sparse import SPEC, arguments, loop


def main() -> None:
    """See the file's docstring."""
    kept = seqc.compile(SPEC, backend="triton")
    vars(kept.module)["_form"] = lambda *tensors: kept.module._TRITON
    given = {name: x.detach().to(torch.float32 if x.requires_grad else x.dtype).requires_grad_(x.requires_grad)
             for name, x in arguments(2).items()}
    exact = {name: x.detach().double().requires_grad_() if x.requires_grad else x for name, x in given.items()}
    want, got = loop(exact), kept(**given)
    errors = [(a.double() - b).abs().max() for a, b in zip((got.h, got.y), want, strict=True)]
    torch.manual_seed(0)
    weights = [torch.randn_like(y) for y in want]
    pairs = [zip(ys, weights, strict=True) for ys in ((got.h, got.y), want)]
    losses = [torch.stack([(y.double() * w).sum() for y, w in pair]).sum() for pair in pairs]
    names = [name for name, x in given.items() if x.requires_grad and name != "M_im"]
    found = [torch.autograd.grad(one, [ys[n] for n in names]) for one, ys in zip(losses, (given, exact), strict=True)]
    errors += [(a.double() - b).abs().max() for a, b in zip(*found, strict=True)]
    print(float(max(errors)))


if __name__ == "__main__":
    main()
