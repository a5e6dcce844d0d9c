"""Mappings of the cases whose state enters linearly."""

from __future__ import annotations

import torch

from tests.peers.mapping import Peer, Tensors, renamed

QKV = "q k v S0=S_0"
STATE = "o S=S_T"
SCAN = "y S=h_T"


def _mamba(given: Tensors) -> Tensors:
    """The peer passes A itself; the spec has the log of its opposite."""
    names = {"B": "Bt", "C": "Ct", "D": "skip", "delta_bias": "bias"}
    rest = {names.get(name, name): x for name, x in given.items() if name != "A"}
    return {**rest, "A_log": torch.log(-given["A"])}


def _scan_results(found: Tensors, _: Tensors) -> Tensors:
    return {"y": found["y"], "S": found["h_T"]}


def _mamba2(given: Tensors) -> Tensors:
    """The peer passes the log decay and the input times the step: the step is minus the log decay where A_log is 0.

    Every head is a group of its own.
    """
    step = -given["A"]
    zero = torch.zeros(given["A"].shape[-1], 1, dtype=torch.float64)
    return {
        "x": (given["X"] / step[..., None])[:, :, :, None],
        "delta": torch.log(torch.expm1(step))[..., None],
        "Bt": given["B"],
        "Ct": given["C"],
        "A_log": zero,
        "bias": zero,
        "skip": zero,
        "h_0": given["S0"][:, :, None],
    }


def _mamba2_results(found: Tensors, _: Tensors) -> Tensors:
    return {"Y": found["y"].squeeze(3), "S": found["h_T"].squeeze(2)}


def _transposed(given: Tensors) -> Tensors:
    """The same case as gated attention: B is the key, C the query without its scale, the state transposed."""
    query = given["C"] * given["C"].shape[-1] ** 0.5
    return {"q": query, "k": given["B"], "v": given["X"], "g": given["A"], "S_0": given["S0"].mT}


def _transposed_results(found: Tensors, _: Tensors) -> Tensors:
    return {"Y": found["o"], "S": found["S_T"].mT}


def _micro_steps(given: Tensors) -> Tensors:
    """[B, 3 T, ..] -> [B, T, 3, ..]: the peer lays the micro-steps of a token one after the other."""
    steps = given["q"].shape[1]
    out = {n: given[n].unflatten(1, (steps, -1)) for n in ("k", "v", "beta")}
    return {**out, "q": given["q"], "g": given["g"], "S_0": given["S0"]}


def _rwkv6(given: Tensors) -> Tensors:
    """The peer scales its query by K^-1/2; RWKV-6 itself has no scale."""
    scaled = given["q"] * given["q"].shape[-1] ** -0.5
    return {"r": scaled, **{n: given[n] for n in ("k", "v", "w", "u")}, "S_0": given["S0"]}


def _min_gru(given: Tensors) -> Tensors:
    x, z = (given["x"] @ given["W"].T).chunk(2, -1)
    return {"x": x, "z": z, "h_0": given["h0"].squeeze(1)}


def _min_gru_results(found: Tensors, _: Tensors) -> Tensors:
    return {"h": found["o"], "hT": found["h_T"][:, None]}


LINEAR = (
    renamed("gla", "gla", f"{QKV} g", STATE),
    renamed("gla_strong_decay", "gla", f"{QKV} g", STATE),
    renamed("simple_gla", "simple_gla", f"{QKV} g", STATE),
    renamed("retention", "retention", "q k v", "o"),
    renamed("linear_attn", "linear_attention", QKV, STATE),
    renamed("linear_attn_normalized", "linear_attention_normalized", "q k v", "o"),
    renamed("delta_rule", "delta_rule", f"{QKV} beta", STATE),
    renamed("gated_delta_rule", "gated_delta_rule", f"{QKV} g beta", STATE),
    renamed("kda", "kda", f"{QKV} g beta", STATE),
    renamed("dplr", "dplr", f"{QKV} g alpha=a beta=b", STATE),
    Peer("gated_delta_product", "gated_delta_product", _micro_steps, lambda found, _: {"o": found["o"], "S": found["S_T"]}),
    renamed("gsa", "gsa", "q k v s g", "o Sk=A_T Sv=Z_T"),
    renamed("rwkv4_wkv", "rwkv4", "r k v w u aa0=a_0 bb0=b_0 pp0=m_0", "o"),
    Peer("rwkv6", "rwkv6", _rwkv6, lambda found, _: {"o": found["o"], "S": found["S_T"]}),
    renamed("rwkv7_op", "rwkv7", "r w k v a b S0=S_0", STATE),
    renamed("mlstm", "mlstm", "q k v i f C0=C_0 n0=n_0 m0=m_0", "h"),
    renamed("mlstm_parallel", "mlstm", "q k v i f", "h"),
    renamed("aaren", "aaren", "q k v", "o"),
    renamed("hgrn", "hgrn", "x g h0=h_0", "o h=h_T"),
    Peer("min_gru", "min_gru", _min_gru, _min_gru_results),
    Peer("mamba1_selective_scan", "mamba", _mamba, _scan_results),
    Peer("mamba1_negative_eigenvalues", "mamba_signed", _mamba, _scan_results),
    renamed("mamba1_constant_bc", "constant_scan", "u delta A B=Bm C=Cm D=skip", SCAN),
    Peer("mamba2_ssd", "mamba2", _mamba2, _mamba2_results),
    Peer("mamba2_ssd", "simple_gla", _transposed, _transposed_results),
)
