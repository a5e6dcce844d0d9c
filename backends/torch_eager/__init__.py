"""The torch backend: a block of any form as plain torch source, for every device and dtype.

In: a `Block`. Out: `Kernels` with the text of `_forward_torch`, `_backward_torch` and `_step_torch`, and their helpers.
Three phases: what needs no state, for all blocks at once; a loop over blocks; the rest, for all blocks at once.
No autograd inside, nothing of seqc at run time. A block on its way:

    functions                   which functions there are, what each takes, gives and saves
    layout                      the order of axes
    sequence, loop              the phases of a function over a sequence
    values, printer, scans,     nodes -> statements and expressions
      segments, pack, contract, products, views
    function, lines             the text of a function while it grows
    gradients_asked_for         what runs only where a call asks for a gradient
    runtime                     helpers, as texts
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from seqc.analysis.derivative import vjp
from seqc.backends.torch_eager.function import Function
from seqc.backends.torch_eager.functions import backward, fixed, forward, saved_states, step
from seqc.backends.torch_eager.layout import layout_of
from seqc.backends.torch_eager.runtime import helper_texts
from seqc.emit.names import dim_name, emitted_name, safe_name
from seqc.emit.signature import Kernels, Saved
from seqc.emit.text import join
from seqc.ir.arguments import argument_table
from seqc.ir.block import Block
from seqc.ir.graph import leaf
from seqc.ir.program import Program


def emit(block: Block, beside: Mapping[str, tuple[Block, str]] | None = None, once: Program | None = None) -> Kernels:
    """The torch part of an emitted file.

    beside: name -> (block, documentation) of stages that other backends leave to torch: `_NAME` and `_NAME_backward` are
    written too. once: values of parameters alone that other backends read: `_once` and `_once_backward` are written.
    """
    functions = [forward(block), backward(block), step(block)]
    for name, (part, doc) in (beside or {}).items():
        functions += _both(part, f"_{name}", doc)
    if once is not None:
        functions += _once(once)
    stretched = _stretched(block)
    return Kernels(join(_text(functions), *stretched), saved(block), infer=bool(stretched), float64=True)


def _stretched(block: Block) -> list[str]:
    """`_infer_torch` of a scan, whose rows hold the states of every step: a stretch of them at a time."""
    program = block.program
    if block.form != "scan" or block.rows == 1 or program.no_step:
        return []
    given = [a for a in argument_table(program) if a.kind != "state"]
    kinds = "".join("T" if a.timed else "-" for a in given)
    ends = {"outputs": len(program.outputs), "results": len(program.outputs) + len(program.states)}
    return [_INFER.format(rows=block.rows, kinds=kinds, given=len(given), first=kinds.index("T"), **ends)]


_INFER = '''
# Elements of the states of a stretch of steps: a CPU without gradients runs one stretch after the other, each in its caches.
_STRETCH = 1 << 21


def _infer_torch(*tensors):
    """Forward without what backward needs, one stretch after the other."""
    x, states, made = tensors[{first}], tensors[{given}:], []
    per_step = max(sum(s.numel() for s in states), 1)
    steps = x.shape[1] if x.device.type != "cpu" else max(_STRETCH // per_step // {rows}, 1) * {rows}
    for t in range(0, x.shape[1], steps):
        parts = [y[:, t : t + steps] if kind == "T" else y for y, kind in zip(tensors, "{kinds}")]
        made.append(_forward_torch(*parts, *states)[:{results}])
        states = made[-1][{outputs}:]
    outputs = list(zip(*made))[:{outputs}]
    return [*(y[0] if len(made) == 1 else torch.cat(y, 1) for y in outputs), *states]
'''


def lone(block: Block, name: str, doc: str) -> str:
    """The text of `NAME(inputs, params, NAME_0) -> (outputs, NAME_T)`, which saves nothing, and of its helpers."""
    return _text([forward(replace(block, backward={}), name, doc)])


def one_step(block: Block) -> str:
    """The text of `_differentiated_step_torch(inputs, params, NAME_0) -> (outputs, NAME_T)`, one step, and of its helpers."""
    return _text([step(block, "_differentiated_step_torch")])


def apart(block: Block, name: str, doc: str) -> str:
    """The text of `NAME` and `NAME_backward` of a stage without states, and of their helpers."""
    return _text(_both(block, name, doc))


def _both(block: Block, name: str, doc: str) -> list[Function]:
    """`NAME` and `NAME_backward` of a stage without states."""
    return [forward(block, name, doc), backward(block, f"{name}_backward")]


def _text(functions: Sequence[Function]) -> str:
    """The text of functions, behind that of their helpers."""
    return join(*helper_texts(helper for fn in functions for helper in fn.helpers), *(fn.text() for fn in functions))


def _once(once: Program) -> list[Function]:
    """`_once(params) -> values`, and `_once_backward(params, d_values) -> d_params`; of no params, the first argument tells the
    dtype."""
    table = argument_table(once)
    given = {emitted_name(a): a.axes for a in table}
    made = {x: d.axes for x, d in once.output_decls.items()}
    values = fixed(once, "_once", "What is made of parameters alone: once a call.", given or {"x": ()}, once.outputs, made)
    moved = {a.of: once.params[a.of] for a in table if a.gradient}
    if not moved:
        return [values]
    cotangents = {x: leaf("cot", x, axes) for x, axes in made.items()}
    slopes = vjp(once.outputs, cotangents, [d.leaf() for d in moved.values()])
    arguments = given | {f"d_{safe_name(x)}": axes for x, axes in made.items()}
    roots, axes = {x: slopes[d.leaf()] for x, d in moved.items()}, {x: d.axes for x, d in moved.items()}
    doc = "Gradients of the parameters behind what `_once` gives."
    return [values, fixed(once, "_once_backward", doc, arguments, roots, axes, cotangents.values())]


def saved(block: Block) -> tuple[Saved, ...]:
    """What forward keeps for backward: states as the blocks begin, and the final ones."""
    count = "T + 1" if block.form == "step" else f"(T + {block.rows - 1}) // {block.rows} + 1"
    lead = ("B", count) if layout_of(block).at else (count, "B")
    return tuple(
        Saved(f"{safe_name(d.name)}_all", (*lead, *map(dim_name, d.dims))) for d in saved_states(block)
    )


__all__ = ["apart", "emit", "lone", "one_step", "saved"]
