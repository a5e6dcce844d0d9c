"""Program -> the plan of a layer around it: every choice follows from declarations and the step graph, none from a name.

In: a program, the signature of its emitted file, names of inputs that the caller will give. Out: a `LayerPlan`. The rules:

- An input of real numbers is a linear map of the layer's input, brought into its declared range and onto its unit sphere.
- An input without a range that the step reads through products with params alone, `W @ x`, is the layer's input itself: the
  spec projects it. Its dim is then `d_model`.
- Indices, params `per batch` and inputs that were asked for are arguments of the layer.
- Past inputs that a step reads become a `history`, so that the layer can go on from a cache (`with_history`).
- Sizes of open dims: a dim that nothing mixes, and that is not the last of some input, counts heads: 4. The others are d_model
  over the heads. Without heads, a dim that is mixed and stands beside another one in a state is 16, and one that outputs alone
  have is 1.
"""

from __future__ import annotations

from collections.abc import Iterable

from seqc.diagnostics import Unsupported, near_miss
from seqc.driver.layers.gates_at_first import gates_at_first
from seqc.driver.layers.torch_cells import torch_cells
from seqc.emit.layer_plan import LayerPlan, Projected
from seqc.emit.module import module_sizes
from seqc.emit.names import dim_name, safe_name
from seqc.emit.signature import Signature
from seqc.ir.block import free_dims
from seqc.ir.both_ways import one_run
from seqc.ir.dims import unprimed
from seqc.ir.graph import Node, depends, leaves, topological
from seqc.ir.intervals import ANY
from seqc.ir.program import INSIDE, Program, TensorDecl
from seqc.ir.two_axes import lowered
from seqc.ir.windows import lags

HEADS = 4
BESIDE = 16  # a mixed dim of a state beside another one, where there are no heads


def layer_plan(program: Program, sig: Signature, given: Iterable[str] = ()) -> LayerPlan:
    """The plan. given: inputs that the caller of the layer passes. Raises Unsupported for a name that is no input."""
    asked = set(given)
    for name in sorted(asked - set(program.inputs)):
        help = near_miss(name, program.inputs, "the inputs are")
        raise Unsupported.of("no-such-input", f"`{program.name}` has no input `{name}`", help=help)
    made = [d for d in program.inputs.values() if d.plays == "input" and not d.default and d.name not in asked]
    direct = [d for d in made if _projects_itself(program, d)]
    first = gates_at_first(program)
    second = () if program.plane is None else (program.plane.dim,)
    projected = [_projected(d, second, first.get(d.name, (0.0, 0.0))) for d in made if d not in direct]
    others = [d.name for d in (*program.inputs.values(), *program.params.values())
              if d not in made and not d.default and not d.hidden and (d.kind == "input" or d.per_batch)]
    own = {dim_name(d.dims[0]): "d_model" for d in direct}
    return LayerPlan(
        sig=sig,
        direct=tuple(safe_name(d.name) for d in direct),
        projected=tuple(sorted(projected, key=lambda p: not p.mixes)),
        given=tuple(map(safe_name, others)),
        sizes=tuple((name, text) for name, text in _sizes(program, sig).items() if name not in (*own, *second)),
        fixed=tuple(own.items()),
        second=second,
        weights=None if others else torch_cells(
            program, [d.name for d in made if d not in direct], [d.name for d in direct]
        ),
    )


def with_history(program: Program) -> str:
    """The text of the spec; where its steps read past inputs and no later ones, with a `history` of these at its end."""
    if program.direction != "forward" or program.plane is not None:
        return program.source
    longest: dict[str, int] = {}
    for n in leaves(program.graph.values(), "input"):
        if n.text("name") == INSIDE or min(lags(n)) < 0 or program.inputs[n.text("name")].leaf_type != "real":
            return program.source
        longest[n.text("name")] = max(*lags(n), longest.get(n.text("name"), 0))
    lines = [f"history {name} {lag}" for name, lag in longest.items() if lag > 0]
    return "\n".join([program.source.rstrip("\n"), *lines, ""]) if lines else program.source


def _projected(d: TensorDecl, second: tuple[str, ...], bias: tuple[float, float]) -> Projected:
    """An input. second: the dim of a second axis, which the layer's own input has beside its steps."""
    dims = tuple(x for x in d.dims if x not in second)
    axes = tuple(d.dims.index(x) - len(d.dims) for x in d.unit)
    return Projected(safe_name(d.name), tuple(map(dim_name, dims)), d.range.lo, d.range.hi, axes, bias)


def _projects_itself(program: Program, d: TensorDecl) -> bool:
    """Whether the step reads an input, one without a range and of one open dim, through products with params alone."""
    if len(d.dims) != 1 or d.range != ANY or d.unit:
        return False
    decl = program.dims[d.dims[0]]
    if decl.default is not None or decl.choices:
        return False
    roots = list(lowered(one_run(program)).graph.values())
    order = topological(roots)
    read = [n for n in leaves(roots, "input") if n.text("name") == d.name]
    seen = depends(roots, [n for n in leaves(roots) if n.text("kind") in ("input", "state")])
    return bool(read) and not any(n in roots for n in read) and all(
        _contracted(user, n, d.dims[0], seen, order, roots) for n in read for user in order if n in user.args
    )


def _contracted(user: Node, n: Node, dim: str, seen: set[Node], order: list[Node], roots: list[Node]) -> bool:
    """Whether a user of the leaf n is a product with what is made of params, and is summed over the leaf's dim at once."""
    if user.op != "mul" or user in roots:
        return False
    other = user.args[0] if user.args[1] is n else user.args[1]
    above = [x for x in order if user in x.args]
    return other not in seen and dim in other.dims and all(x.op == "sum" and dim in x.names("over") for x in above)


def _sizes(program: Program, sig: Signature) -> dict[str, str]:
    """Emitted dim -> the expression of its default, of every dim that the layer must know."""
    shapes = [*(x.dims for x in sig.inputs), *(o.dims for o in sig.outputs)]
    needed = {unprimed(d) for dims in shapes for d in dims} | {d.name for d in module_sizes(sig)}
    one = one_run(program)
    delayed = [s for s in one.states.values() if s.hidden]
    lines = {x for s in delayed for x in s.dims if x == f"{s.name.partition('.')[0]}_lags"}
    free = free_dims(lowered(one).graph)
    inputs = [x.dims for x in one.inputs.values() if x.plays == "input"]
    states = [x.dims for x in one.states.values() if not x.hidden]
    open_dims = [d.name for d in one.dims.values() if d.default is None and not d.choices]
    heads = [d for d in open_dims if d in free and any(d in dims[:-1] for dims in inputs)]
    told = {d for dims in (*inputs, *states, *(x.dims for x in one.params.values())) for d in dims}
    told -= {unprimed(d) for d in _of_outputs_alone(one, inputs, states)}
    found = {}
    for d in one.dims.values():
        if dim_name(d.name) not in needed or d.name in lines:
            continue
        beside = any(d.name in dims and len(set(dims)) > 1 for dims in states)
        if d.default is not None or d.choices:
            found[dim_name(d.name)] = f"{d.default or d.choices[0]}"
        elif d.name in heads:
            found[dim_name(d.name)] = f"{HEADS if d.name == heads[-1] else 1}"
        elif heads:
            found[dim_name(d.name)] = f"max(d_model // {_product(heads)}, 1)"
        elif beside and d.name not in free:
            found[dim_name(d.name)] = f"{BESIDE}"
        else:
            found[dim_name(d.name)] = "d_model" if d.name in told else "1"
    return found


def _of_outputs_alone(one: Program, inputs: list[tuple[str, ...]], states: list[tuple[str, ...]]) -> set[str]:
    """Dims of outputs that no input or state has, of outputs that have another dim which one has."""
    carried = {d for dims in (*inputs, *states) for d in dims}
    return {d for o in one.output_decls.values() if carried & set(o.dims) for d in o.dims if d not in carried}


def _product(heads: list[str]) -> str:
    names = [dim_name(d) for d in heads]
    return names[0] if len(names) == 1 else f"({' * '.join(names)})"
