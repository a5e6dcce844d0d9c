"""`jax.lax.scan`, and `associative_scan` where the recurrence is elementwise and linear, both under jit on the CPU.

In: a task. Out: contenders. A step is written as a user of jax would write it: what depends on no state stands before the
scan. Arrays keep the layout [B, T, dims]; the change to time-first is part of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, nn

from benchmarks.contender import DECODE, FORWARD, TRAIN, Absent, Contender, Results
from benchmarks.peers import jax_fields
from benchmarks.peers.jax_base import Arrays, Run, affine, combine, over_time
from benchmarks.tasks import Task


def _readout(q: Any, S: Any) -> Any:
    return jnp.einsum("bhk,bhkv->bhv", q, S)


def _linear(decay: Callable[[Arrays], Any]) -> Run:
    def run(x: Arrays, states: Arrays) -> dict[str, Any]:
        d = decay(x)

        def step(S: Any, now: Any) -> Any:
            q, k, v, *gate = now
            S = (gate[0][..., None] if gate else d) * S + k[..., None] * v[..., None, :]
            return S, _readout(q, S)

        gates = (d,) if jnp.ndim(d) == 4 else ()
        o = over_time(step, states["S_0"], x["q"], x["k"], x["v"], *gates)
        return {"o": o / jnp.sqrt(x["q"].shape[-1])}

    return run


def _gamma(x: Arrays) -> Any:
    return (1 - 2.0 ** (-5 - jnp.arange(x["q"].shape[2], dtype=jnp.float32)))[:, None, None]


def _delta_rule(x: Arrays, states: Arrays) -> dict[str, Any]:
    def step(S: Any, now: Any) -> Any:
        q, k, v, beta = now
        S = S + (beta[..., None] * k)[..., None] * (v - _readout(k, S))[..., None, :]
        return S, _readout(q, S)

    o = over_time(step, states["S_0"], x["q"], x["k"], x["v"], x["beta"])
    return {"o": o / jnp.sqrt(x["q"].shape[-1])}


def _hgrn(x: Arrays, states: Arrays) -> dict[str, Any]:
    return {"o": over_time(affine, states["h_0"], jnp.exp(x["g"]), x["x"])}


def _mamba(x: Arrays, states: Arrays) -> dict[str, Any]:
    A = -jnp.exp(x["A_log"])
    dt = nn.softplus(x["delta"] + x["bias"])

    def step(h: Any, now: Any) -> Any:
        dt, B, C, u = now
        h = jnp.exp(dt[..., None] * A) * h + (dt * u)[..., None] * B[:, None, :]
        return h, jnp.einsum("bn,bdn->bd", C, h)

    y = over_time(step, states["h_0"], dt, x["Bt"], x["Ct"], x["u"])
    return {"y": (y + x["skip"] * x["u"]) * nn.silu(x["z"])}


def _lstm(x: Arrays, states: Arrays) -> dict[str, Any]:
    R = jnp.stack([x[f"R_{gate}"] for gate in "ifzo"])
    whole = jnp.stack([x[f"x_{gate}"] for gate in "ifzo"], axis=2)

    def step(carry: Any, now: Any) -> Any:
        h, c = carry
        a = now[0] + jnp.einsum("ghij,bhj->bghi", R, h)
        i, f, o = nn.sigmoid(a[:, 0]), nn.sigmoid(a[:, 1]), nn.sigmoid(a[:, 3])
        c = f * c + i * jnp.tanh(a[:, 2])
        h = o * jnp.tanh(c)
        return (h, c), h

    return {"h": over_time(step, (states["h_0"], states["c_0"]), whole)}


def _gru(x: Arrays, states: Arrays) -> dict[str, Any]:
    R = jnp.stack([x[f"R_{gate}"] for gate in "rzn"])
    b = jnp.stack([x[f"b_{gate}"] for gate in "rzn"])

    def step(h: Any, now: Any) -> Any:
        x_r, x_z, x_n = now
        a = jnp.einsum("ghij,bhj->bghi", R, h) + b
        r, z = nn.sigmoid(x_r + a[:, 0]), nn.sigmoid(x_z + a[:, 1])
        n = jnp.tanh(x_n + r * a[:, 2])
        h = n + z * (h - n)
        return h, h

    return {"h": over_time(step, states["h_0"], x["x_r"], x["x_z"], x["x_n"])}


def _hgrn_tree(x: Arrays, states: Arrays) -> dict[str, Any]:
    return {"o": lax.associative_scan(combine, (jnp.exp(x["g"]), x["x"]), axis=1)[1]}


def _mamba_tree(x: Arrays, states: Arrays) -> dict[str, Any]:
    dt = nn.softplus(x["delta"] + x["bias"])
    a = jnp.exp(-dt[..., None] * jnp.exp(x["A_log"]))
    b = (dt * x["u"])[..., None] * x["Bt"][:, :, None, :]
    h = lax.associative_scan(combine, (a, b), axis=1)[1]
    return {"y": (jnp.einsum("btn,btdn->btd", x["Ct"], h) + x["skip"] * x["u"]) * nn.silu(x["z"])}


SCANS: dict[str, Run] = {
    **jax_fields.SCANS,
    "linear_attention": _linear(lambda x: 1.0),
    "retention": _linear(_gamma),
    "gla": _linear(lambda x: jnp.exp(x["g"])),
    "delta_rule": _delta_rule,
    "hgrn": _hgrn,
    "mamba": _mamba,
    "lstm": _lstm,
    "gru": _gru,
}
TREES: dict[str, Run] = {**jax_fields.TREES, "hgrn": _hgrn_tree, "mamba": _mamba_tree}


def contenders(task: Task) -> list[Contender | Absent]:
    """The scans of a task."""
    if task.name not in SCANS:
        return [Absent("jax lax.scan", f"no step of {task.name} is written for it")]
    found: list[Contender | Absent] = [contender(task, "jax lax.scan", SCANS[task.name], True)]
    if task.name in TREES:  # from zero states, and without a decoding step
        found.append(contender(task, "jax associative_scan", TREES[task.name], False))
    return found


def contender(task: Task, name: str, run: Run, decodes: bool) -> Contender:
    """The calls of a function of arrays, each jitted as a whole."""
    arrays = {k: jnp.asarray(x.numpy()) for k, x in {**task.inputs, **task.params}.items()}
    states = {k: jnp.asarray(x.numpy()) for k, x in task.zeros.items()}
    cotangents = {k: jnp.asarray(x.numpy()) for k, x in task.cotangents.items()}
    token = {k: x[:, :1] if k in task.inputs else x for k, x in arrays.items()}
    forward = jax.jit(run)
    one = jax.jit(lambda arrays, states: {k: x[:, 0] for k, x in run(arrays, states).items()})

    @jax.jit
    def train(arrays: Arrays, states: Arrays, cotangents: Arrays) -> Results:
        return jax.vjp(lambda a: run(a, states), arrays)[1](cotangents)[0]

    calls = {
        FORWARD: lambda: jax.block_until_ready(forward(arrays, states)),
        TRAIN: lambda: jax.block_until_ready(train(arrays, states, cotangents)),
    }
    if decodes:
        calls[DECODE] = lambda: jax.block_until_ready(one(token, states))
    return Contender(name, calls)
