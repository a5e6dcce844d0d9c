"""Mappings of the cases with a nonlinear cell: packed weights become one matrix for each gate, one head where it has none."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.peers.mapping import Peer, Tensors


def parts(x: torch.Tensor, names: str, axis: int) -> Tensors:
    """Equal parts of x along an axis, under names in the peer's order."""
    return dict(zip(names.split(), x.chunk(len(names.split()), axis), strict=True))


def one_head(inputs: Tensors, params: Tensors, states: Tensors) -> Tensors:
    """[.., D] as a single head: [.., 1, D], and [1, ..] for parameters."""
    batched = {n: x.unsqueeze(-2) for n, x in (*inputs.items(), *states.items())}
    return {**batched, **{n: x[None] for n, x in params.items()}}


def gated(
    names: str, weight_ih: str, weight_hh: str, bias_ih: str, bias_hh: str, inner: bool = False, masks: bool = False,
    layered: bool = False,
) -> Callable[[Tensors], Tensors]:
    """Cells with all gates in one matrix; `names`: the suffixes of the gates in the peer's order ("" for a plain cell).

    inner: the recurrent bias stays with the recurrent product (inside a reset gate); masks: weights times constant
    masks; layered: states have an axis of layers. A bias named "" is absent.
    """

    def arrays(given: Tensors) -> Tensors:
        weights = {w: given[w] * given[f"mask_{w[2:]}"] if masks else given[w] for w in (weight_ih, weight_hh)}
        drive = given["x"] @ weights[weight_ih].T + given[bias_ih]
        suffixes = [f"_{n}" for n in names.split()] or [""]
        params = parts(weights[weight_hh], " ".join(f"R{s}" for s in suffixes), 0)
        if inner:
            zero = torch.zeros_like(given[bias_ih])
            params |= parts(given[bias_hh] if bias_hh else zero, " ".join(f"b{s}" for s in suffixes), 0)
        elif bias_hh:
            drive = drive + given[bias_hh]
        states = {f"{s}_0": given[f"{s}0"][0] if layered else given[f"{s}0"] for s in "hc" if f"{s}0" in given}
        return one_head(parts(drive, " ".join(f"x{s}" for s in suffixes), -1), params, states)

    return arrays


def nn(names: str, inner: bool = False) -> Callable[[Tensors], Tensors]:
    """torch.nn's layer 0."""
    return gated(names, "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", inner, layered=True)


def masked(names: str, inner: bool = False) -> Callable[[Tensors], Tensors]:
    """Pruned weights: constant masks on both matrices."""
    return gated(names, "W_ih", "W_hh", "b_ih", "b_hh", inner, masks=True)


def layered_results(found: Tensors, _: Tensors) -> Tensors:
    """Outputs without the head, final states with an axis of layers."""
    out = {"o": found["h"].squeeze(-2), "h": found["h_T"].squeeze(-2)[None]}
    if "c_T" in found:
        out["c"] = found["c_T"].squeeze(-2)[None]
    return out


def headless(found: Tensors, _: Tensors) -> Tensors:
    """The output without the head, and the final cell where there is one."""
    out = {"h": found["h"].squeeze(-2)}
    if "c_T" in found:
        out["cT"] = found["c_T"].squeeze(-2)
    return out


def flash(names: str) -> Callable[[Tensors], Tensors]:
    """FlashRNN's layout: Wx [B, T, gate, head, D], R [head, from, gate, to], b [gate, head, D] added to the input."""

    def arrays(given: Tensors) -> Tensors:
        suffixes = [f"_{n}" for n in names.split()] or [""]
        drive, weight = given["Wx"] + given["b"], given["R"].permute(2, 0, 3, 1)
        out = {f"x{s}": drive[:, :, i] for i, s in enumerate(suffixes)}
        out |= {f"R{s}": weight[i] for i, s in enumerate(suffixes)}
        return {**out, **{f"{s}_0": given[f"{s}0"] for s in "hcnm" if f"{s}0" in given}}

    return arrays


def flash_gru(given: Tensors) -> Tensors:
    """Inputs r, z, n and recurrent parts n, r, z; of four biases the first is that of the recurrent candidate."""
    x, b, weight = given["Wx"], given["b"], given["R"].permute(2, 0, 3, 1)
    zero = torch.zeros_like(b[0])
    return {
        "x_r": x[:, :, 0] + b[1],
        "x_z": x[:, :, 1] + b[2],
        "x_n": x[:, :, 2] + b[3],
        "R_n": weight[0], "R_r": weight[1], "R_z": weight[2], "b_n": b[0], "b_r": zero, "b_z": zero,
        "h_0": given["h0"],
    }


def flash_results(found: Tensors, _: Tensors) -> Tensors:
    """The output, and the final cell where there is one."""
    return {"h": found["h"], **({"cT": found["c_T"]} if "c_T" in found else {})}


def layer_norm(given: Tensors) -> Tensors:
    """28 = 4 gates f, i, o, g of 7 units, split into [gate, unit]."""
    gate = {"b": "b", "g1": "gain_h", "b1": "bias_h", "g2": "gain_x", "b2": "bias_x"}
    out = {ours: given[theirs].unflatten(0, (4, 7)) for theirs, ours in gate.items()}
    return {
        **out,
        "x": (given["x"] @ given["W_x"].T).unflatten(-1, (4, 7)),
        "R": given["W_h"].unflatten(0, (4, 7)),
        "gain_c": given["g3"], "bias_c": given["b3"], "h_0": given["h0"], "c_0": given["c0"],
    }


GATED = (
    Peer("nn_lstm", "lstm", nn("i f z o"), layered_results),
    Peer("nn_gru", "gru", nn("r z n", inner=True), layered_results),
    Peer("nn_rnn_tanh", "rnn", nn(""), layered_results),
    Peer("masked_lstm", "lstm", masked("i f z o"), headless),
    Peer("masked_gru", "gru", masked("r z n", inner=True), headless),
    Peer("masked_rnn_tanh", "rnn", masked(""), headless),
    Peer("mridc_gru", "gru", gated("r z n", "W", "U", "b", "", inner=True), headless),
    Peer("mgu", "mgu", gated("f c", "W", "U", "b", ""), headless),
    Peer("flashrnn_elman", "rnn", flash(""), flash_results),
    Peer("flashrnn_lstm", "lstm", flash("i f z o"), flash_results),
    Peer("flashrnn_slstm", "slstm", flash("i f z o"), lambda found, _: {"h": found["h"]}),
    Peer("flashrnn_gru", "gru", flash_gru, flash_results),
    Peer("layer_norm_lstm", "layer_norm_lstm", layer_norm,
         lambda found, _: {"o": found["h"], "h": found["h_T"], "c": found["c_T"]}),
)
