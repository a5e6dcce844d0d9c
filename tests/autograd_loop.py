"""The judge of gradients: a spec's step as plain torch operators, run in a loop and differentiated by torch's autograd.

In: a program, and tensors by name (inputs, params, NAME_0). Out: outputs NAME and final states NAME_T, which autograd knows
the way to. It shares the front end with the compiler, and no derivative rule: those of torch are its truth. `where` is
torch's: the derivative of the branch that is not taken must be finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqc.ir.both_ways import one_run, twins
from seqc.ir.graph import Node, constant, leaves, topological
from seqc.ir.program import Program
from seqc.semantics.packed_arrays import part

Given = Mapping[str, Tensor]

WORDS: dict[str, Callable[..., Any]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "neg": torch.neg, "pow": torch.pow,
    "min": torch.minimum, "max": torch.maximum, "abs": torch.abs, "sign": torch.sign, "exp": torch.exp, "expm1": torch.expm1,
    "log": torch.log, "log1p": torch.log1p, "sqrt": torch.sqrt, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "erf": torch.erf,
    "logsigmoid": torch.nn.functional.logsigmoid, "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "logaddexp": torch.logaddexp, "sin": torch.sin, "cos": torch.cos, "lt": torch.lt, "le": torch.le, "gt": torch.gt,
    "ge": torch.ge, "eq": torch.eq, "ne": torch.ne, "and": torch.logical_and, "or": torch.logical_or,
    "not": torch.logical_not, "where": torch.where, "stopgrad": lambda x: x.detach(),
    "surrogate": lambda y, x, slope: y.detach().to(x.dtype) + slope.detach() * (x - x.detach()),
}


def run(program: Program, given: Given, cu_seqlens: tuple[int, ...] | None = None, reverse: bool = False) -> dict[str, Tensor]:
    """Every result by name. cu_seqlens: the bounds of a pack's sequences, each of which has steps."""
    if cu_seqlens is not None:
        parts = [run(program, part(program, given, cu_seqlens, i), None, reverse) for i in range(len(cu_seqlens) - 1)]
        return {name: torch.cat([p[name] for p in parts], int(name in program.output_decls)) for name in parts[0]}
    if program.direction != "both":
        return _once(program, given, reverse != (program.direction == "backward"))
    one = one_run(program)
    names = twins(program)
    first = _once(one, given, reverse)
    second = _once(one, {**given, **{own: given[other] for own, other in names.items() if other in given}}, not reverse)
    if program.added:
        out = {n: first[n] + second[n] for n in one.outputs}
    else:
        out = {n: (torch.cat if one.output_decls[n].dims else torch.stack)((first[n], second[n]), -1) for n in one.outputs}
    out |= {n: first[n] for n in names if n in first}
    return out | {names[n]: second[n] for n in names if n in second}


def _once(program: Program, given: Given, back: bool) -> dict[str, Tensor]:
    sizes = {d.name: d.default for d in program.dims.values() if d.default is not None}
    for name, decl in {**program.inputs, **program.params, **program.states}.items():
        axes = (decl.axes[0], "T", *decl.dims) if decl.kind == "input" else decl.axes
        x = given.get(f"{name}_0" if decl.kind == "state" else name)
        sizes |= {} if x is None else {axis.rstrip("'"): n for axis, n in zip(axes, x.shape, strict=True)}
    params = {d.leaf(): given[n] for n, d in program.params.items()}
    states = {}
    for name, decl in program.states.items():
        start = given.get(f"{name}_0")
        if start is None:
            assert decl.init is not None
            start = _exactly(*_values([decl.init], params, sizes)[decl.init], decl.axes, sizes)
        states[decl.leaf()] = start
    steps, ahead = sizes["T"], -1 if back else 1
    read = leaves(program.graph.values(), "input")
    rows: dict[str, list[Any]] = {name: [None] * steps for name in program.outputs}
    for t in reversed(range(steps)) if back else range(steps):
        env = {**params, **states}
        for n in read:
            whole, at = given[n.text("name")], t - ahead * n.number("offset")
            env[n] = whole[:, at] if 0 <= at < steps else torch.zeros_like(whole[:, 0])
        known = _values(program.graph.values(), env, sizes)
        for name, decl in program.output_decls.items():
            rows[name][t] = _exactly(*known[program.outputs[name]], decl.axes, sizes)
        states = {d.leaf(): _exactly(*known[program.updates[s]], d.axes, sizes) for s, d in program.states.items()}
    results = {name: torch.stack(found, 1) for name, found in rows.items()}
    return results | {f"{s}_T": states[d.leaf()] for s, d in program.states.items()}


def _values(roots: Any, given: Mapping[Node, Tensor], sizes: Mapping[str, int]) -> dict[Node, tuple[Tensor, tuple[str, ...]]]:
    """Node -> (value, its axes)."""
    known: dict[Node, tuple[Tensor, tuple[str, ...]]] = {}
    for n in topological(roots):
        args = [known[a] for a in n.args]
        known[n] = (given[n], n.names("shape")) if n in given else (_value(n, args, sizes), n.dims)
    return known


def _value(n: Node, args: list[tuple[Tensor, tuple[str, ...]]], sizes: Mapping[str, int]) -> Tensor:
    if n.op in WORDS:
        return WORDS[n.op](*(_exactly(x, axes, n.dims, sizes) for x, axes in args))
    match n.op:
        case "const":
            return torch.tensor(constant(n), dtype=torch.float64)
        case "size":
            return torch.tensor(float(sizes[n.text("dim").rstrip("'")]), dtype=torch.float64)
        case "index":
            return torch.arange(sizes[n.text("dim").rstrip("'")], dtype=torch.float64)
    (x, axes), *_ = args
    match n.op:
        case "sum":
            return _exactly(x, axes, n.args[0].dims, sizes).sum([n.args[0].dims.index(d) for d in n.names("over")])
        case "amax":
            return _exactly(x, axes, n.args[0].dims, sizes).amax([n.args[0].dims.index(d) for d in n.names("over")])
        case "expand":
            return _exactly(x, axes, n.dims, sizes)
        case "rename":
            return _exactly(x, tuple(n.text("new") if d == n.text("old") else d for d in axes), n.dims, sizes)
        case "take":
            return _exactly(x.select(axes.index(n.text("dim")), n.number("at")),
                            tuple(d for d in axes if d != n.text("dim")), n.dims, sizes)
    raise AssertionError(f"the judge does not know the operator `{n.op}`")


def _exactly(x: Tensor, axes: tuple[str, ...], want: tuple[str, ...], sizes: Mapping[str, int]) -> Tensor:
    """x with exactly the axes `want`."""
    x = x.permute([axes.index(d) for d in want if d in axes])
    x = x[tuple(slice(None) if d in axes else None for d in want)]
    return x.expand([sizes[d] if d in sizes else sizes[d.rstrip("'")] for d in want])
