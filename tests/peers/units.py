"""Mappings of elementwise cells, networks with a full matrix and forcing, and filters over past and future."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.peers.mapping import Peer, Tensors


def _indrnn(given: Tensors) -> Tensors:
    return {"x": given["x"] @ given["W"].T + given["b"], "u": given["u"], "h_0": given["h0"]}


def _leaky(given: Tensors) -> Tensors:
    drive = given["x"] @ given["W_input"].T + given["b_input"] + given["b_rec0"]
    return {"x": drive, "R": given["W_rec0"], "tau": given["tau0"], "h_0": given["h0_0"]}


def _lif(given: Tensors) -> Tensors:
    """tau = 2, so half of the potential stays."""
    return {"x": given["x"], "decay": torch.full([given["x"].shape[-1]], 0.5, dtype=torch.float64)}


def _forced(x: torch.Tensor, units: int, strength: torch.Tensor) -> Tensors:
    """The first units are pulled towards x with `strength` [T]; the others run free."""
    batch, steps, seen = x.shape
    rest = x.new_zeros(batch, steps, units - seen)
    alpha = strength[None, :, None].expand(batch, steps, seen)
    return {"x": torch.cat([x, rest], -1), "alpha": torch.cat([alpha, rest], -1)}


def _plrnn(given: Tensors) -> Tensors:
    """The diagonal of AW is A, the rest W; every fifth step but the first replaces the observed units."""
    diagonal = torch.diagonal(given["AW"])
    steps = torch.arange(given["x"].shape[1])
    strength = ((steps > 0) & (steps % 5 == 0)).double()
    basis = {"slope": given["alphas"], "theta": given["thetas"]} if "alphas" in given else {}
    return {
        **_forced(given["x"], len(diagonal), strength),
        "A": diagonal,
        "W": given["AW"] - torch.diag(diagonal),
        "h": given["h"],
        "z_0": given["z0"],
        **basis,
    }


def _shplrnn(given: Tensors) -> Tensors:
    """Every step but the first mixes in x with weight alpha; the start comes from the first observation."""
    x, steps = given["x"], given["x"].shape[1]
    strength = given["alpha"] * (torch.arange(steps) > 0).double()
    start = torch.cat([x[:, 0], (x[:, 0] @ given["Bobs"])[:, x.shape[-1] :]], -1)
    params = {n: given[n] for n in ("A", "W1", "W2", "h1", "h2")}
    return {**_forced(x, len(given["A"]), strength), **params, "z_0": start}


def _taps(given: Tensors) -> Tensors:
    """The peer's last tap (of 20), or its middle one (of 39), is the current step; ours counts away from it."""
    taps = given["a"].T
    out = {"a": taps[:20].flip(0)}
    return {**out, "c": taps[20:]} if len(taps) > 20 else out


def _memory(given: Tensors) -> Tensors:
    return {"p": given["p"], **_taps(given)}


def _projected(given: Tensors) -> Tensors:
    """Look-ahead needs the projected layer as an input, so that it is computed here."""
    hidden = torch.relu(given["x"] @ given["W1"].T + given["b1"])
    return {"p": hidden @ given["Wp"].T, **_taps(given)}


def _fsmn(given: Tensors) -> Tensors:
    return {"x": given["x"], "W": given["W1"], "b": given["b1"], "W_p": given["Wp"], **_taps(given)}


def _output(theirs: str, ours: str) -> Callable[[Tensors, Tensors], Tensors]:
    return lambda found, _: {theirs: found[ours]}


def _spikes(found: Tensors, _: Tensors) -> Tensors:
    return {"s": found["s"], "v": found["potential"]}


UNITS = (
    Peer("indrnn", "indrnn", _indrnn, _output("h", "h")),
    Peer("leaky_rnn", "leaky_rnn", _leaky, _output("h0", "h")),
    Peer("leaky_rnn_inside", "leaky_rnn_inside", _leaky, _output("h0", "h")),
    Peer("lif_atan", "lif", _lif, _spikes),
    Peer("lif_atan_reset_gradient", "lif_reset_gradient", _lif, _spikes),
    Peer("plrnn", "plrnn", _plrnn, _output("z", "z")),
    Peer("plrnn_dendritic", "plrnn_dendritic", _plrnn, _output("z", "z")),
    Peer("plrnn_clipped", "plrnn_clipped", _plrnn, _output("z", "z")),
    Peer("shplrnn_gtf", "shplrnn", _shplrnn, _output("z", "z")),
    Peer("fsmn_causal", "fsmn", _fsmn, _output("o", "o")),
    Peer("fsmn_causal_memory", "fsmn_memory", _memory, _output("o", "o")),
    Peer("fsmn_centred_memory", "fsmn_centred", _memory, _output("o", "o")),
    Peer("fsmn_centred", "fsmn_centred", _projected, lambda found, given: {"o": given["x"] + found["o"]}),
)
