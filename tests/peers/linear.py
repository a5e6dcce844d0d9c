"""Mappings of the cases whose state enters linearly."""

from __future__ import annotations

import torch

from tests.peers.mapping import Peer, Tensors, renamed

QKV = "q k v S0=S_0"
STATE = "o S=S_T"


def _mamba(given: Tensors) -> Tensors:
    """The peer passes A itself; the spec has the log of its opposite."""
    names = {"B": "Bt", "C": "Ct", "D": "skip", "delta_bias": "bias"}
    rest = {names.get(name, name): x for name, x in given.items() if name != "A"}
    return {**rest, "A_log": torch.log(-given["A"])}


LINEAR = (
    renamed("gla", "gla", f"{QKV} g", STATE),
    renamed("gla_strong_decay", "gla", f"{QKV} g", STATE),
    renamed("retention", "retention", "q k v", "o"),
    renamed("linear_attn", "linear_attention", QKV, STATE),
    renamed("linear_attn_normalized", "linear_attention_normalized", "q k v", "o"),
    renamed("delta_rule", "delta_rule", f"{QKV} beta", STATE),
    renamed("hgrn", "hgrn", "x g h0=h_0", "o h=h_T"),
    Peer("mamba1_selective_scan", "mamba", _mamba, lambda found, _: {"y": found["y"], "S": found["h_T"]}),
)
