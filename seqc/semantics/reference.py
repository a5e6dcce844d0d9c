"""The truth: the recurrence run step by step in float64 numpy, straight from the step graph, with its gradients.

In: a `Program` and arrays. Out: outputs and final states; `gradients` adds the cotangents of everything. It shares the
operator table with the compiler and nothing else: no pass but the derivative of one step, no block form, no backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from seqc.ir.arguments import argument_table
from seqc.ir.dims import extent, unprimed
from seqc.ir.graph import Node, leaf, leaves
from seqc.ir.keys import next_key
from seqc.ir.program import INSIDE, Program, TensorDecl
from seqc.ir.support import mask
from seqc.ir.windows import lags, window_of
from seqc.semantics import both_ways, packed_arrays, two_axes
from seqc.semantics.evaluate import evaluate, to_order

Arrays = Mapping[str, Any]


def sizes_of(program: Program, arrays: Arrays) -> dict[str, int]:
    """Extents of all dims, the batch and "T", from the arrays (inputs [B, T, dims], states NAME_0 [B, dims], params).

    ValueError if two arrays disagree, or a dim has neither an array nor a default.
    """
    sizes = {d.name: d.default for d in program.dims.values() if d.default is not None}
    found: dict[str, tuple[int, str]] = {}
    for a in argument_table(program):
        if arrays.get(a.name) is None:
            continue
        shape = np.shape(arrays[a.name])
        if len(shape) != len(a.axes):
            raise ValueError(f"{a.name} has shape {shape}, expected axes [{', '.join(a.axes)}]")
        for axis, long in zip(a.axes, shape, strict=True):
            base = unprimed(axis)
            if found.setdefault(base, (long, a.name))[0] != long:
                raise ValueError(f"{base} is {found[base][0]} in {found[base][1]} but {long} in {a.name}")
    sizes.update({d: long for d, (long, _) in found.items()})
    missing = [d for d in program.dims if d not in sizes]
    if missing:
        raise ValueError(f"the size of {', '.join(missing)} is not known: no array has it and it has no default")
    return sizes


def initial_states(program: Program, arrays: Arrays, sizes: Mapping[str, int]) -> dict[str, Any]:
    """NAME -> array [B, dims]: what the caller passed as NAME_0, else the spec's initial value."""
    params = _param_values(program, arrays, sizes)
    out = {}
    for name, decl in program.states.items():
        given = arrays.get(f"{name}_0")
        if given is not None:
            out[name] = np.asarray(given, dtype=np.float64)
            continue
        assert decl.init is not None
        value = evaluate({"v": decl.init}, params, sizes)["v"]
        out[name] = np.array(to_order(value, decl.init.dims, decl.axes, sizes))
    return out


def run(
    program: Program, arrays: Arrays, cu_seqlens: Sequence[int] | None = None, reverse: bool = False
) -> dict[str, Any]:
    """Outputs NAME [B, T, dims] and final states NAME_T [B, dims], float64.

    arrays: inputs [B, T, dims], params [dims], and optional initial states NAME_0 [B, dims]. cu_seqlens: the bounds of a
    pack's sequences (see `seqc.semantics.packed_arrays`); reverse: from the last step to the first.
    """
    return gradients(program, arrays, None, cu_seqlens, reverse)[0]


def gradients(
    program: Program, arrays: Arrays, cotangents: Arrays | None, cu_seqlens: Sequence[int] | None = None,
    reverse: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(results, gradients): d sum(cotangent * result) by input, param and NAME_0.

    cotangents: by output name and NAME_T; a missing one is zero. None: results only.
    """
    from seqc.analysis.derivative import vjp

    if program.direction == "both":
        return both_ways.joined(program, arrays, cotangents, lambda one, given, weights, back: gradients(
            one, given, weights, cu_seqlens, reverse != back))
    if reverse:
        program = replace(program, direction="backward" if program.direction == "forward" else "forward")
    if cu_seqlens is not None:
        return packed_arrays.joined(program, arrays, cotangents, list(cu_seqlens), gradients)
    sizes = sizes_of(program, arrays)
    if program.plane is not None:
        results, slopes = two_axes.gradients(program, arrays, cotangents, sizes, _param_values(program, arrays, sizes))
        return results, _where_kept(program, arrays, sizes, slopes)
    steps = sizes["T"]
    graph = program.graph
    inputs = {n: arrays_of_input(program, n, arrays) for n in leaves(graph.values(), "input")}
    fixed = _param_values(program, arrays, sizes)
    states = {d.leaf(): v for d, v in zip(
        program.states.values(), initial_states(program, arrays, sizes).values(), strict=True)}
    order = range(steps) if program.direction == "forward" else range(steps - 1, -1, -1)
    ahead = 1 if program.direction == "forward" else -1
    history: dict[int, dict[Node, Any]] = {}
    outputs: dict[str, list[Any]] = {name: [None] * steps for name in program.outputs}
    for t in order:
        history[t] = dict(states)
        env = {**fixed, **states, **_inputs_at(inputs, t, steps, ahead)}
        now = evaluate(graph, env, sizes)
        for name, decl in program.output_decls.items():
            outputs[name][t] = to_order(now[name], graph[name].dims, decl.axes, sizes)
        for d in program.states.values():
            key = next_key(d.name)
            states[d.leaf()] = np.array(to_order(now[key], graph[key].dims, d.axes, sizes))
    results = {name: _stack(rows, program.output_decls[name].axes, sizes) for name, rows in outputs.items()}
    results.update({f"{d.name}_T": states[d.leaf()] for d in program.states.values()})
    if cotangents is None:
        return results, {}
    return results, _backward(
        program, arrays, graph, inputs, fixed, history, list(order), ahead, cotangents, sizes, vjp
    )


def _backward(
    program: Program, arrays: Arrays, graph: dict[str, Node], inputs: dict[Node, Any], fixed: dict[Node, Any],
    history: dict[int, dict[Node, Any]], order: list[int], ahead: int, cotangents: Arrays,
    sizes: Mapping[str, int], vjp: Callable[..., dict[Node, Node]],
) -> dict[str, Any]:
    steps = len(order)
    decls = {**program.output_decls, **{next_key(n): d for n, d in program.states.items()}}
    given = {name: leaf("cot", name, decl.axes) for name, decl in decls.items()}
    wrt = [n for n in (*inputs, *fixed) if program.declared(n).gradient] + [d.leaf() for d in program.states.values()]
    rules = vjp(graph, given, wrt)
    named = {str(i): rules[n] for i, n in enumerate(wrt)}
    given_values = {**inputs, **fixed}
    grads: dict[Node, Any] = {n: np.zeros(v.shape) for n, v in given_values.items() if n in wrt}
    carried = {}
    for d in program.states.values():
        zero = np.zeros([extent(x, sizes) for x in d.axes])
        carried[d.name] = np.asarray(cotangents.get(f"{d.name}_T", zero), dtype=np.float64)
    for t in reversed(order):
        env = {**fixed, **history[t], **_inputs_at(inputs, t, steps, ahead)}
        for name, decl in decls.items():
            if decl.kind == "state":
                env[given[name]] = carried[decl.name]
            elif cotangents.get(name) is not None:
                env[given[name]] = np.asarray(cotangents[name], dtype=np.float64)[:, t]
            else:
                env[given[name]] = np.zeros([extent(x, sizes) for x in decl.axes])
        now = evaluate(named, env, sizes)
        for i, n in enumerate(wrt):
            value = to_order(now[str(i)], rules[n].dims, n.names("shape"), sizes)
            if n in inputs:
                for j, lag in enumerate(lags(n)):
                    at = t - ahead * lag
                    if 0 <= at < steps:
                        grads[n][:, at] += value[:, j] if window_of(n) else value
            elif n in fixed:
                grads[n] = grads[n] + value
            else:
                carried[n.text("name")] = np.array(value)
    own = {a.name for a in argument_table(program) if a.gradient and a.timed}
    out = {name: np.zeros(np.shape(v)) for name, v in arrays.items() if name in own}
    for n in grads:
        out[n.text("name")] = out.get(n.text("name"), 0.0) + grads[n]
    for name, d in program.states.items():
        if arrays.get(f"{name}_0") is not None:
            out[f"{name}_0"] = carried[name]
        else:  # the spec's own initial value may depend on params
            assert d.init is not None
            start = leaf("cot", name, d.axes)
            through = vjp({name: d.init}, {name: start}, [n for n in fixed if n in grads])
            values = evaluate({p.text("name"): g for p, g in through.items()}, {**fixed, start: carried[name]}, sizes)
            for p, g in through.items():
                shape = p.names("shape")
                out[p.text("name")] = out[p.text("name")] + to_order(values[p.text("name")], g.dims, shape, sizes)
    return _where_kept(program, arrays, sizes, out)


def _where_kept(program: Program, arrays: Arrays, sizes: Mapping[str, int], slopes: dict[str, Any]) -> dict[str, Any]:
    """The gradients; those of sparse params are 0 where nothing is kept."""
    for name, d in program.params.items():
        if d.support is not None and name in slopes:
            slopes[name] = np.where(kept(d, arrays, sizes), slopes[name], 0.0)
    return slopes


def arrays_of_input(program: Program, n: Node, arrays: Arrays) -> Any:
    """The whole array behind an input leaf; ValueError if it was not given."""
    name = n.text("name")
    if name == INSIDE and arrays.get(name) is None:
        return np.ones(next(np.shape(arrays[x])[:2] for x in program.inputs if arrays.get(x) is not None))
    if arrays.get(name) is None:
        raise ValueError(f"input {name} is missing")
    return np.asarray(arrays[name], dtype=np.int64 if n.dtype == "int" else np.float64)


def _param_values(program: Program, arrays: Arrays, sizes: Mapping[str, int]) -> dict[Node, Any]:
    """The values of params and buffers; what has a default may be left out, and what is sparse is 0 where it is not kept."""
    out = {}
    for name, d in program.params.items():
        if d.mask:
            continue
        if arrays.get(name) is not None:
            value = np.asarray(arrays[name], dtype=np.float64)
            out[d.leaf()] = value if d.support is None else np.where(kept(d, arrays, sizes), value, 0.0)
        elif d.default and d.init is not None:
            value = evaluate({"v": d.init}, {}, sizes)["v"]
            out[d.leaf()] = np.array(to_order(value, d.init.dims, d.axes, sizes))
        else:
            raise ValueError(f"{'parameter' if d.plays == 'param' else d.plays} {name} is missing")
    return out


def kept(decl: TensorDecl, arrays: Arrays, sizes: Mapping[str, int]) -> Any:
    """Where a sparse param is kept, as booleans that broadcast to it: by the rules of the spec, and by the caller's mask."""
    assert decl.support is not None
    found = mask(decl.support, decl.dims, sizes)
    if decl.support.pruning is None:
        return found
    if arrays.get(decl.support.mask) is None:
        raise ValueError(f"mask {decl.support.mask} is missing")
    return found & (np.asarray(arrays[decl.support.mask]) != 0)


def _inputs_at(inputs: dict[Node, Any], t: int, steps: int, ahead: int) -> dict[Node, Any]:
    out = {}
    for n, whole in inputs.items():
        zero = np.zeros(whole.shape[:1] + whole.shape[2:], whole.dtype)
        rows = [whole[:, at] if 0 <= at < steps else zero for at in (t - ahead * lag for lag in lags(n))]
        out[n] = np.stack(rows, 1) if window_of(n) else rows[0]
    return out


def _stack(rows: list[Any], axes: tuple[str, ...], sizes: Mapping[str, int]) -> Any:
    if rows:
        return np.stack(rows, axis=1)
    return np.zeros([sizes[axes[0]], 0, *(extent(a, sizes) for a in axes[1:])])
