"""Recurrences of neighbouring fields as a user of jax would write them, for `benchmarks.peers.jax_scans`.

In: inputs and params, initial states. Out: outputs. SCANS run step by step under `lax.scan`, TREES as an `associative_scan`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax, nn
from jax.nn import logsumexp

from benchmarks.peers.jax_base import Arrays, Results, Run, affine, combine, over_time


@jax.custom_jvp
def _spike(u: Array) -> Array:
    """1 where the potential u [B, D] has come to 1; its slope is an arctangent's."""
    return (u >= 1).astype(u.dtype)


@_spike.defjvp
def _spike_jvp(at: tuple[Array], along: tuple[Array]) -> tuple[Array, Array]:
    (u,), (tangent,) = at, along
    return _spike(u), 2.5 / (1 + (2.5 * jnp.pi * (u - 1)) ** 2) * tangent


def _lif(x: Arrays, states: Arrays) -> Results:
    def step(v: Array, now: tuple[Array]) -> tuple[Array, tuple[Array, Array]]:
        u = x["decay"] * v + now[0]
        z = _spike(u)
        v = (1 - lax.stop_gradient(z)) * u
        return v, (z, v)

    spikes, potential = lax.scan(step, states["v_0"], (jnp.swapaxes(x["x"], 0, 1),))[1]
    return {"s": jnp.swapaxes(spikes, 0, 1), "potential": jnp.swapaxes(potential, 0, 1)}


def _variances(x: Arrays, states: Arrays) -> tuple[Array, Array]:
    """What the variance is multiplied by, and what is added, at each step [B, T, D]."""
    squares = x["r"] * x["r"]
    last = jnp.concatenate([states["last_0"][:, None], squares[:, :-1]], 1)
    return jnp.broadcast_to(x["beta"], last.shape), x["omega"] + x["alpha"] * last


def _likelihood(x: Arrays, s: Array) -> Results:
    return {"s": s, "ll": -(jnp.log(2 * jnp.pi * s) + x["r"] * x["r"] / s) / 2}


def _garch(x: Arrays, states: Arrays) -> Results:
    return _likelihood(x, over_time(affine, states["s_0"], *_variances(x, states)))


def _garch_tree(x: Arrays, states: Arrays) -> Results:
    decay, added = lax.associative_scan(combine, _variances(x, states), axis=1)
    return _likelihood(x, added + decay * states["s_0"][:, None])


def _hmm(x: Arrays, states: Arrays) -> Results:
    """Probabilities of a step are a product with the matrix of transitions, scaled by the largest."""
    moves = nn.softmax(x["A"], axis=-1)

    def step(a: Array, now: tuple[Array]) -> tuple[Array, Array]:
        most = lax.stop_gradient(jnp.max(a, -1, keepdims=True))
        a = now[0] + most + jnp.log(jnp.exp(a - most) @ moves)
        return a, a

    return {"ll": logsumexp(over_time(step, states["a_0"], x["e"]), axis=-1)}


def _later(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """Two stretches of a log-linear recurrence, the first before the second."""
    return first[0] + second[0], jnp.logaddexp(second[0] + first[1], second[1])


def _rnnt(x: Arrays, states: Arrays) -> Results:
    """Frame by frame; within a frame all labels at once. A way that does not exist has the weight -1e30."""
    B, T, U = x["blank"].shape
    never = jnp.full((B, T, 1), -1e30)
    blank = jnp.concatenate([jnp.full((B, 1, U), -1e30), x["blank"][:, :-1]], 1)
    begins = x["first"] > 0
    label = jnp.where(begins, -1e30, jnp.concatenate([never, x["label"][:, :, :-1]], 2))

    def step(A: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        blank, label, begins = now
        A = lax.associative_scan(_later, (label, jnp.where(begins, 0.0, jnp.maximum(A + blank, -1e30))), axis=1)[1]
        return A, A

    A = over_time(step, jnp.full((B, U), -1e30), blank, label, begins)
    return {"A": A, "A_u_T": A[:, :, -1]}


def _lfilter(x: Arrays, states: Arrays) -> Results:
    taps, order = len(x["b"]), len(x["a"])
    T = x["x"].shape[1]
    ahead = jnp.pad(x["x"], ((0, 0), (taps - 1, 0), (0, 0)))
    driven = sum(x["b"][i] * ahead[:, taps - 1 - i : taps - 1 - i + T] for i in range(taps))

    def step(past: tuple[Array, ...], now: tuple[Array]) -> tuple[tuple[Array, ...], Array]:
        y = now[0] - sum(a * earlier for a, earlier in zip(x["a"], past, strict=True))
        return (y, *past[:-1]), y

    start = (jnp.zeros_like(x["x"][:, 0]),) * order
    return {"y": over_time(step, start, driven)}


def _advantages(x: Arrays, states: Arrays) -> tuple[Array, Array]:
    """What A is multiplied by, and what is added, at each step: rlax's form of generalised advantages."""
    kept = x["gamma"] * (1 - x["done"])
    after = jnp.concatenate([x["v"][:, 1:], states["after_0"][:, None]], 1)
    return x["lambda_"] * kept, x["r"] + kept * after - x["v"]


def _gae(x: Arrays, states: Arrays) -> Results:
    A = over_time(affine, states["A_0"], *_advantages(x, states), reverse=True)
    return {"A": A, "returns": A + x["v"]}


def _gae_tree(x: Arrays, states: Arrays) -> Results:
    A = lax.associative_scan(combine, _advantages(x, states), axis=1, reverse=True)[1]
    return {"A": A, "returns": A + x["v"]}


SCANS: dict[str, Run] = {
    "gae": _gae, "garch": _garch, "hmm": _hmm, "lfilter": _lfilter, "lif": _lif, "rnnt": _rnnt,
}
TREES: dict[str, Run] = {"gae": _gae_tree, "garch": _garch_tree}
