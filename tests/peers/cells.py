"""Mappings of the cases with a nonlinear cell: packed weights become one matrix for each gate."""

from __future__ import annotations

import torch

from tests.peers.mapping import Peer, Tensors


def _gates(x: torch.Tensor, names: str, axis: int) -> Tensors:
    """Parts of equal size along an axis, under the gates' names in the peer's order."""
    parts = x.chunk(len(names.split()), axis)
    return dict(zip(names.split(), parts, strict=True))


def _head(x: torch.Tensor) -> torch.Tensor:
    """[.., D] as one head: [.., 1, D]."""
    return x.unsqueeze(-2)


def _nn_lstm(given: Tensors) -> Tensors:
    """One head; both biases act alike, so the input of a gate holds them."""
    bias = given["bias_ih_l0"] + given["bias_hh_l0"]
    inputs = _gates(given["x"] @ given["weight_ih_l0"].T + bias, "x_i x_f x_z x_o", -1)
    weights = _gates(given["weight_hh_l0"], "R_i R_f R_z R_o", 0)
    states = {"h_0": _head(given["h0"][0]), "c_0": _head(given["c0"][0])}
    return {**{n: _head(x) for n, x in inputs.items()}, **{n: x[None] for n, x in weights.items()}, **states}


def _nn_gru(given: Tensors) -> Tensors:
    """One head; the recurrent bias of the candidate stands inside the reset gate, so it stays a parameter."""
    inputs = _gates(given["x"] @ given["weight_ih_l0"].T + given["bias_ih_l0"], "x_r x_z x_n", -1)
    weights = _gates(given["weight_hh_l0"], "R_r R_z R_n", 0)
    biases = _gates(given["bias_hh_l0"], "b_r b_z b_n", 0)
    return {
        **{n: _head(x) for n, x in inputs.items()},
        **{n: x[None] for n, x in (*weights.items(), *biases.items())},
        "h_0": _head(given["h0"][0]),
    }


def _sequence(found: Tensors, _: Tensors) -> Tensors:
    """The peer's outputs without the head, and its layer axis on final states."""
    out = {"o": found["h"].squeeze(-2), "h": found["h_T"].squeeze(-2)[None]}
    if "c_T" in found:
        out["c"] = found["c_T"].squeeze(-2)[None]
    return out


CELLS = (
    Peer("nn_lstm", "lstm", _nn_lstm, _sequence),
    Peer("nn_gru", "gru", _nn_gru, _sequence),
)
