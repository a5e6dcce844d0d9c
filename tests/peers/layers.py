"""Mappings of whole layers: a recurrence with the projections, norms and gates around it, written in one spec."""

from __future__ import annotations

import torch

from tests.peers.mapping import Peer, Tensors, renamed


def _rwkv7(given: Tensors) -> Tensors:
    """Width 8 as 2 heads of 4; vectors lose the peer's leading axes of size 1."""
    heads = given["r_k"].shape

    def split(name: str, axis: int = 0) -> torch.Tensor:
        x = given[name]
        return (x[0, 0] if x.ndim == 3 and len(x) == 1 else x).unflatten(axis, heads)

    matrices = {"receptance": "W_r", "key": "W_k", "value": "W_v"}
    return {
        "x": given["x"],
        "v_first": given["v_first"].unflatten(-1, heads),
        **{f"mix_{n}": given[f"x_{n}"][0, 0] for n in "rwkvag"},
        **{ours: split(f"{theirs}_weight") for theirs, ours in matrices.items()},
        "W_o": split("output_weight", 1),
        **{n: given[n] for n in ("w1", "a1", "v1", "g1", "r_k")},
        **{n: split(n) for n in ("w0", "a0", "v0", "k_k", "k_a")},
        **{n: split(n, 1) for n in ("w2", "a2", "v2", "g2")},
        "gain": split("ln_x_weight"),
        "shift": split("ln_x_bias"),
    }


def _ttt(given: Tensors) -> Tensors:
    """Mini-batches of eight steps."""
    batch, steps = given["lr"].shape[:2]
    place = given["token_eta"].repeat(steps // 8).expand(batch, steps)
    first = (torch.arange(steps) % 8 == 0).double().expand(batch, steps)
    weight, bias = given["W0"], given["b0"].squeeze(-2)
    return {
        **{n: given[n] for n in ("q", "k", "v")},
        "rate": given["lr"], "place": place, "first": first,
        "gain": given["ln_w"], "shift": given["ln_b"], "W_0": weight, "b_0": bias,
    }


def _ttt_results(found: Tensors, _: Tensors) -> Tensors:
    return {"o": found["o"], "WT": found["W_T"], "bT": found["b_T"].unsqueeze(-2)}


def _pgn(given: Tensors) -> Tensors:
    """Rows of a weight are (variable, output); the peer's last tap is the latest step of the past."""
    variables, features = given["mark"].shape[-2], 1 + given["mark"].shape[-1]
    gates = given["W_g"].unflatten(0, (variables, 2, -1))
    offsets = given["b_g"].unflatten(0, (variables, 2, -1))
    return {
        "e": torch.cat([given["x"], given["mark"]], -1),
        "W": given["W_h"].unflatten(0, (variables, -1)).flip(-1).permute(3, 0, 1, 2),
        "b": given["b_h"].unflatten(0, (variables, -1)),
        "Gs": gates[:, 0, :, :features], "Gu": gates[:, 1, :, :features],
        "Rs": gates[:, 0, :, features:], "Ru": gates[:, 1, :, features:],
        "cs": offsets[:, 0], "cu": offsets[:, 1],
    }


def _pvrnn(given: Tensors) -> Tensors:
    """The halves of A and of W_dz are mean and log deviation; d begins as tanh of the given h."""
    mu, log_sd = given["A"].chunk(2, -1)
    mean, spread = given["W_dz"].chunk(2, 0)
    same = {n: given[n] for n in ("x", "W_dh", "W_zh", "W_xh", "bias", "tau")}
    states = {"h_0": given["h0"], "d_0": torch.tanh(given["h0"])}
    return {**same, **states, "noise": given["eps"], "mu": mu, "log_sd": log_sd, "W_m": mean, "W_s": spread}


def _pvrnn_results(found: Tensors, _: Tensors) -> Tensors:
    return {"d": found["activity"], "kl": found["kl"].sum(0), "hT": found["h_T"]}


def _bilinear(given: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """The dense bilinear transform of A [H, N, N] or [N, N] and B [H, N] or [N], with a step for each feature."""
    step = torch.exp(given["inv_dt"] if "inv_dt" in given else given["log_dt"][:, None])
    half = step[..., None] / 2 * given["A"]
    eye = torch.eye(half.shape[-1], dtype=torch.float64)
    write = step * given["B"]
    return torch.linalg.solve(eye - half, eye + half), torch.linalg.solve(eye - half, write[..., None])[..., 0]


def _lssl(given: Tensors) -> Tensors:
    transition, write = _bilinear(given)
    return {"u": given["u"], "Ad": transition, "Bd": write, "Cd": given["C"], "x_0": given["x0"]}


def _lssl_results(found: Tensors, given: Tensors) -> Tensors:
    """The transformed matrices are outputs of the peer; they do not pass through the recurrence."""
    transition, write = _bilinear(given)
    return {"y": found["y"], "xT": found["x_T"], "Abar": transition, "Bbar": write}


def _lssl_conv(given: Tensors) -> Tensors:
    transition, write = _bilinear(given)
    return {"u": given["u"], "Ad": transition, "Bd": write, "Cd": given["C"].transpose(0, 1)}


def _lssl_conv_results(found: Tensors, given: Tensors) -> Tensors:
    """The skip is added here; the kernel of states is another output of the peer, and stands beside the recurrence."""
    transition, write = _bilinear(given)
    kernel = [write]
    for _ in range(1, given["u"].shape[1]):
        kernel.append((transition @ kernel[-1][..., None])[..., 0])
    skip = given["D"] * given["u"][..., None]
    return {"y": found["y"].transpose(-1, -2) + skip, "K": torch.stack(kernel, -1)}


def _held(given: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """The transition and the weight of an input that is held between steps."""
    n, columns = given["Bm"].shape
    wide = torch.cat([torch.cat([given["A"], given["Bm"]], 1), torch.zeros(columns, n + columns, dtype=torch.float64)])
    found = torch.linalg.matrix_exp(given["dt"] * wide)
    return found[:n, :n], found[:n, n:]


def _lti_results(found: Tensors, given: Tensors) -> Tensors:
    """The discretised matrices are outputs of the peer; they do not pass through the recurrence."""
    transition, weight = _held(given)
    return {"y": found["y"], "x_T": found["x_T"], "Ad": transition, "Bd": weight}


def _lti(given: Tensors) -> Tensors:
    return {**{n: x for n, x in given.items() if n != "x0"}, "x_0": given["x0"]}


LAYERS = (
    renamed("kalman_3_2", "kalman", "y mask=observed F Z Q R a0=a_0 P0=P_0", "a ll P_T"),
    Peer("lti_dense_zoh", "lti_zoh", _lti, _lti_results),
    Peer("rwkv7_time_mix", "rwkv7_time_mix", _rwkv7, lambda found, _: {"o": found["y"]}),
    renamed("rwkv4_time_mix", "rwkv4_time_mix", "x mix_r mix_k mix_v W_r W_k W_v W_o w u", "o"),
    renamed("mamba2_state_norm", "state_norm", "X=x A=g B=Bt C=Ct S0=S_0 p=limit", "Y=y S=S_T"),
    Peer("ttt_linear", "ttt_linear", _ttt, _ttt_results),
    Peer("pgn_full_history", "pgn", _pgn, lambda found, _: {"H": found["H"], "o": found["o"]}),
    Peer("pvrnn_layer", "pvrnn_layer", _pvrnn, _pvrnn_results),
    Peer("lssl_recurrence", "dense_ssm", _lssl, _lssl_results),
    Peer("lssl_conv", "dense_ssm", _lssl_conv, _lssl_conv_results),
)
