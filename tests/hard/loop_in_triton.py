"""A process that runs the Triton kernels of closed loops in Triton's interpreter, against the float64 reference.

Out: a line for each spec: what is wrong with it, or nothing. A process of its own: the interpreter is chosen when Triton is
imported.
"""

from __future__ import annotations

from tests.triton import interpreter


def main() -> None:
    """Judge an AR process, a cell and a model of words."""
    interpreter.choose()
    import tempfile
    from pathlib import Path

    import torch

    from seqc.backends.triton_gpu.emit import triton_kernels
    from seqc.driver.pipeline import lower
    from seqc.frontend.elaborate import load
    from seqc.passes.plan.chosen_rows import chosen_rows
    from seqc.passes.plan.products_outside import split_parallel
    from tests.hard.loop_cases import AR, CELL, WORDS
    from tests.harness import compare, draw
    from tests.triton.interpret import functions

    for number, text in enumerate((AR, CELL, WORDS)):
        loop = load(text).loop
        assert loop is not None
        core = chosen_rows(split_parallel(loop.program).core)
        with tempfile.TemporaryDirectory() as folder:
            made = functions(triton_kernels(lower(core)).alone, Path(folder), f"loop_{number}")
        case = draw(core, 5)
        try:
            compare(case, made["_forward_triton"], made["_backward_triton"], 2e-5, torch.float32)
        except AssertionError as failure:
            print(f"{failure}".replace("\n", " "), flush=True)
        else:
            print(flush=True)
    in_other_ways()


def in_other_ways() -> None:
    """Packs of prompts, the last step first, both directions, an image, complex values, against plain torch in float64."""
    import torch

    from seqc.driver.compile import Options, compile_spec
    from seqc.driver.load_emitted import load_emitted
    from tests.hard.test_closed_ways import CELL, PIXELS, TURNS, drawn
    from tests.hard.test_loops_ahead import DRIVEN, LATE, READOUT

    bounds, own = torch.tensor([0, 3, 3, 8, 11]), torch.tensor([0, 2, 2, 2, 5])
    pack = {"steps": 11, "cu_seqlens": bounds, "cu_prompts": own}
    cell, second = ((5, 3), (5, 5), (3, 5)), {"both": 2}
    for text, way, shapes, how in (
        (CELL, "backward", ((1, 5, 3), (1, 11)), pack),
        (CELL, "both", ((1, 5, 3), (1, 11)), {**pack, "reverse": True}),
        (PIXELS, "", ((2, 2, 3, 3), (5, 3), (5, 5), (5, 5), (3, 5)), {"steps": 4, "reverse": True}),
        (TURNS, "", ((2, 3, 4), (2, 3, 4), (4,), (4,)), {"steps": 8}),
        *((text, "", ((2, 3, 4), (2, 7, 4), (4, 4)), {"steps": 7}) for text in (READOUT, DRIVEN, LATE)),
    ):
        given = drawn(2, *shapes, *(cell if way else ()) * second.get(way, 1))
        spec, found = text.replace("WAY", f"scan {way}"), []
        for backend in ("torch", "triton"):
            made = compile_spec(spec, Options(backend))
            module = load_emitted(made.text, made.signature.spec)
            if backend == "triton":
                kernels = module._loop_TRITON
                module._loop_form = lambda *_, kernels=kernels: kernels
            passed = [x if backend == "torch" else x.detach().float().requires_grad_() for x in given]
            outputs = getattr(module, f"{made.signature.spec}_generate")(*passed, **how)[: len(made.signature.outputs)]
            loss = sum((x * torch.cos(torch.arange(x.numel()).reshape(x.shape))).sum() for x in outputs)
            found.append([*outputs, *torch.autograd.grad(loss, passed)])
        off = max(float((a - b).abs().max() / a.abs().max().clamp(min=1)) for a, b in zip(*found, strict=True))
        print("" if off < 2e-5 else f"{way or text.split()[1]} is {off:.1e} off", flush=True)


if __name__ == "__main__":
    main()
