"""Runs a `Block` on numpy, block after block, by the float64 interpreter: checks the middle of the compiler alone.

In: a block, arrays as for the oracle. Out: the same results and gradients as the oracle's. No backend takes part.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqc.ir.block import COL, ROW, VALID, Block
from seqc.ir.graph import BATCH, Node, leaves
from seqc.semantics.evaluate import evaluate, to_order
from seqc.semantics.reference import initial_states, sizes_of


def run_block(
    block: Block, arrays: dict[str, Any], cotangents: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(results, gradients by NAME and NAME_0); every NAME_0 must be given.

    Where the recurrence runs from the last step to the first, that is the order of steps inside: what has a time axis is
    turned on its way in and out.
    """
    program = block.program
    if program.direction == "backward":
        arrays = {n: np.flip(x, 1) if n in program.inputs else x for n, x in arrays.items()}
        cotangents = {n: np.flip(x, 1) if n in program.output_decls else x for n, x in cotangents.items()}
        results, grads = _run(block, arrays, cotangents)
        results = {n: np.flip(x, 1) if n in program.output_decls else x for n, x in results.items()}
        return results, {n: np.flip(x, 1) if n in program.inputs else x for n, x in grads.items()}
    return _run(block, arrays, cotangents)


def _run(
    block: Block, arrays: dict[str, Any], cotangents: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same, all arrays in the order in which the recurrence takes its steps."""
    program, rows = block.program, block.rows
    sizes = sizes_of(program, arrays)
    steps = sizes["T"]
    count = -(-steps // rows)
    timed = block.form != "step"
    env_sizes = {**sizes, ROW: rows, COL: rows}
    params = {d.leaf(): np.asarray(arrays[n], dtype=np.float64) for n, d in program.params.items()}
    inputs = leaves({**block.forward, **block.backward}.values(), "input")

    def cut(whole: Any, i: int, offset: int, pad: str) -> Any:
        if not timed:
            at = i - offset
            return whole[:, at] if 0 <= at < steps else np.zeros(whole.shape[:1] + whole.shape[2:])
        index = np.minimum(np.arange(i * rows, (i + 1) * rows), steps - 1) - offset
        inside = (index >= 0) & (index < steps)
        if pad == "zero":
            inside &= np.arange(i * rows, (i + 1) * rows) < steps
        part = whole[:, np.clip(index, 0, steps - 1)]
        return np.where(inside.reshape(1, -1, *[1] * (whole.ndim - 2)), part, 0.0)

    def environment(i: int, states: dict[str, Any]) -> dict[Node, Any]:
        env = {**params, VALID: np.arange(i * rows, (i + 1) * rows) < steps}
        env.update({program.states[s].leaf(): v for s, v in states.items()})
        for n in inputs:
            env[n] = cut(np.asarray(arrays[n.text("name")], dtype=np.float64), i, n.number("offset"), "last")
        return env

    states = initial_states(program, arrays, sizes)
    saved = []
    results = {n: np.zeros([sizes[BATCH], steps, *(sizes[x.rstrip("'")] for x in d.dims)])
               for n, d in program.output_decls.items()}
    for i in range(count):
        saved.append(dict(states))
        now = evaluate(block.forward, environment(i, states), env_sizes)
        for n, d in program.output_decls.items():
            axes = (BATCH, ROW, *d.dims) if timed else d.axes
            value = to_order(now[n], block.forward[n].dims, axes, env_sizes)
            if timed:
                results[n][:, i * rows : (i + 1) * rows] = value[:, : steps - i * rows]
            else:
                results[n][:, i] = value
        states = {n: np.array(to_order(now[f"{n}.next"], block.forward[f"{n}.next"].dims, d.axes, env_sizes))
                  for n, d in program.states.items()}
    results.update({f"{n}_T": v for n, v in states.items()})
    carried = {n: np.asarray(cotangents[f"{n}_T"]) for n in program.states}
    grads = {n: np.zeros(np.shape(arrays[n])) for n in (*program.inputs, *program.params)}
    given = leaves(block.backward.values(), "cot")
    for i in reversed(range(count)):
        env = environment(i, saved[i])
        for n in given:
            name = n.text("name")
            env[n] = carried[name[:-5]] if name.endswith(".next") else cut(cotangents[name], i, 0, "zero")
        now = evaluate(block.backward, env, env_sizes)
        for key, node in block.backward.items():
            name = key[2:]
            if name.endswith(".prev"):
                state = program.states[name[:-5]]
                carried[state.name] = np.array(to_order(now[key], node.dims, state.axes, env_sizes))
                continue
            name, _, offset = name.partition("@")
            if name in program.params:
                grads[name] = grads[name] + to_order(now[key], node.dims, program.params[name].axes, env_sizes)
                continue
            dims = program.inputs[name].dims
            axes = (BATCH, ROW, *dims) if timed else (BATCH, *dims)
            value = to_order(now[key], node.dims, axes, env_sizes)
            for r in range(rows):
                at = i * rows + r - int(offset or 0)
                if i * rows + r < steps and 0 <= at < steps:
                    grads[name][:, at] += value[:, r] if timed else value
    grads.update({f"{n}_0": v for n, v in carried.items()})
    return results, grads
