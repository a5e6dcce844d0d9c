"""A step block -> one C++ translation unit. In: a `Block`. Out: `NativeSource`: the text and the arrays of its functions."""

from __future__ import annotations

from dataclasses import dataclass

from seqc.backends.native_cpu.arrays import Array
from seqc.backends.native_cpu.assemble import sizes_text
from seqc.backends.native_cpu.backward import backward_arrays, backward_text
from seqc.backends.native_cpu.direct import ENTRY
from seqc.backends.native_cpu.forward import call_arrays, forward_arrays, forward_text, shifted_zeros
from seqc.backends.native_cpu.lanes import lanes_back
from seqc.backends.native_cpu.needed import needed, runtime_of
from seqc.backends.native_cpu.plan import Plan, plan
from seqc.backends.native_cpu.sparse import kept_sides
from seqc.backends.native_cpu.sparse_runtime import OUTER, OUTER_NEEDS
from seqc.backends.native_cpu.step import step_text
from seqc.backends.native_cpu.tiles import processor_text
from seqc.ir.block import Block
from seqc.ir.dims import unprimed


@dataclass(frozen=True)
class NativeSource:
    """kernels: what is the recurrence's own, between what it needs of the runtime and, where there is a step, `ENTRY`.

    text: all of it: C++17, to be compiled with SEQC_REAL (float or double) and SEQC_DIM_NAME for every dim of `dims` defined.
    own: the same without what it needs of the runtime. needs: the parts of the runtime that it needs.
    SEQC_KERNELS says which of `seqc_forward`, `seqc_backward` and `seqc_step` are compiled: all three where it is not defined.

    `extern "C" int seqc_forward(i64 B, i64 T, i64 way, const i64* bounds, i64 threads, i64 save, void* const* arrays)`, arrays
    as in `forward`, `way` and `bounds` as in the text's `Call`;
    `extern "C" int seqc_backward(...)` and `seqc_step(...)`, the same with the arrays of `backward` and `step`; no `seqc_step`
    where one step reads other steps. `extern "C" Object* seqc_direct(...)`: the step as a function of Python (`direct.py`);
    `extern "C" i64 seqc_joined()`, where backward runs in lanes that join gradients of an input at several steps: from how many
    steps on;
    `extern "C" int seqc_panels()`: how many panels the last free dim is cut into;
    `extern "C" void seqc_large_pages(void* array, i64 bytes)`: asks for large pages under a new array.
    A result other than 0: out of memory. steps: whether there is `seqc_step` alone.
    """

    kernels: str
    dims: tuple[str, ...]
    forward: tuple[Array, ...]
    backward: tuple[Array, ...]
    step: tuple[Array, ...]
    plan: Plan
    needs: tuple[str, ...]
    steps: bool = False

    @property
    def own(self) -> str:
        """The kernels and, where there is a step, its function of Python."""
        return "".join(f"\n{part}" for part in (self.kernels, *([] if self.plan.program.no_step else [ENTRY.strip("\n")])))

    @property
    def text(self) -> str:
        """As the emitted file puts it together where it has no other recurrence."""
        return f"\n{runtime_of(self.needs)}{self.own}"


def native_source(block: Block, steps: bool = False) -> NativeSource:
    """The source of a block's kernels. steps: of single steps alone. Raises Unsupported where the block has no loop form."""
    p = plan(block)
    dims = tuple(dict.fromkeys(unprimed(d) for d in (*p.roles.order[1:], *p.roles.sized)))
    head = f"// seqc: {p.program.name}, native CPU kernels. Dims are compile-time constants (SEQC_DIM_NAME), B and T are not."
    whole = (None, None) if steps else (forward_text(p), backward_text(p))
    texts = dict(zip(("FORWARD", "BACKWARD", "STEP"), (*whole, step_text(p)), strict=True))
    parts = [head, "", "namespace {", *processor_text(), "", *sizes_text(p)]
    parts += [*([] if steps else shifted_zeros(p)), "}  // namespace", ""]
    outer = any(kept_sides(p, x) for x in p.products)
    last = [OUTER.strip()] if outer else []
    if (lanes := lanes_back(p)) and lanes.joined:
        last.append('extern "C" i64 seqc_joined() { return lanes_backward::lane_shortest; }')
    for name, made in texts.items():
        if made:
            more = last if name == "BACKWARD" else []
            parts += [f"#if SEQC_KERNELS & {name}", "namespace {", made.text, *more, "#endif", ""]
    parts.append('extern "C" int seqc_panels() { return int(panels); }')
    names = (OUTER_NEEDS if outer else frozenset[str]()).union(*(made.names for made in texts.values() if made))
    arrays = forward_arrays(p), backward_arrays(p), call_arrays(p, step=True)
    return NativeSource("\n".join(parts), dims, *arrays, p, needed(names), steps)
