"""A process that judges emitted Triton kernels, in Triton's interpreter, by loops written by hand.

In: names of `by_hand.HAND`. Out: a line each, what is wrong with it, or nothing. A process of its own: the interpreter is
chosen when Triton is imported. Tolerance: fp32 roundoff over the steps of a run, 2e-5 of the largest element of a result,
2e-4 of a gradient's.
"""

from __future__ import annotations

import sys

from tests.triton import interpreter


def main() -> None:
    """Judge every name."""
    interpreter.choose()
    import tempfile
    from pathlib import Path

    import torch

    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.driver.pipeline import fix_dims, lower
    from seqc.emit.names import emitted_name, safe_name
    from seqc.frontend.elaborate import load
    from seqc.ir.arguments import argument_table
    from tests.hard.by_hand import HAND
    from tests.hard.test_by_hand_too import arguments
    from tests.triton.interpret import functions

    for number, name in enumerate(sys.argv[1:]):
        block = lower(fix_dims(load(HAND[name].spec), HAND[name].sizes), "step")
        table = argument_table(block.program)
        given, weights = arguments(name)
        given = {x: value.float().double().requires_grad_() for x, value in given.items()}
        want = HAND[name].loop(given)
        steps = next(x.shape[:2] for x in want.values() if x.dim() > 1)
        taken = [given[emitted_name(a)].detach().float() if a.of != "steps.inside" else torch.ones(steps) for a in table]
        with tempfile.TemporaryDirectory() as folder:
            made = functions(triton_kernels(block).alone, Path(folder), f"case_{number}")
            names = [*block.program.outputs, *(f"{safe_name(s)}_T" for s in block.program.states)]
            results = made["_forward_triton"](*(x.contiguous() for x in taken))
            got = dict(zip(names, results, strict=False))
            cots = [weights[x].float() if x in want else torch.zeros_like(got[x]) for x in names]
            slopes = made["_backward_triton"](*taken, *results[len(names):], *cots)
        loss = sum((want[x] * weights[x].float().double()).sum() for x in want)
        moved = [given[emitted_name(a)] for a in table if a.gradient]
        exact = torch.autograd.grad(loss, moved, allow_unused=True)  # type: ignore[arg-type]
        pairs = [(x, got[x], want[x], 2e-5) for x in want]
        pairs += [(emitted_name(a), d, torch.zeros_like(x) if e is None else e, 2e-4)
                  for a, d, e, x in zip([a for a in table if a.gradient], slopes, exact, moved, strict=True)]
        wrong = [x for x, a, b, most in pairs if not (a.double() - b).abs().max() <= most * b.abs().max().clamp_min(1.0)]
        print(f"{name}: {', '.join(wrong)}" if wrong else "", flush=True)


if __name__ == "__main__":
    main()
