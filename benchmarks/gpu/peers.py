"""Peers on CUDA: flash-linear-attention, mamba-ssm, mlstm_kernels, and causal softmax attention on the same shapes.

In: a spec's name. Out: functions from the spec's arguments to its output, or the reason why there is none. Peers are called
by their public names with their defaults; all return outputs in the layout [B, T, ...] of the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[[Mapping[str, Tensor]], Tensor]

FLA = {
    "linear_attention": ("fla.ops.linear_attn", "chunk_linear_attn", "q k v", {"normalize": False}),
    "retention": ("fla.ops.retention", "chunk_retention", "q k v", {}),
    "simple_gla": ("fla.ops.simple_gla", "chunk_simple_gla", "q k v g", {}),
    "gla": ("fla.ops.gla", "chunk_gla", "q k v g", {}),
    "delta_rule": ("fla.ops.delta_rule", "chunk_delta_rule", "q k v beta", {}),
    "gated_delta_rule": ("fla.ops.gated_delta_rule", "chunk_gated_delta_rule", "q k v g beta", {}),
    "kda": ("fla.ops.kda", "chunk_kda", "q k v g beta", {}),
    "gsa": ("fla.ops.gsa", "chunk_gsa", "q k v s g", {}),
    "hgrn": ("fla.ops.hgrn", "chunk_hgrn", "x g", {}),
}


def peers(spec: str) -> dict[str, Function | str]:
    """Name -> function, or why it is absent. Softmax attention computes something else: it is there for scale."""
    found: dict[str, Function | str] = {}
    if spec in FLA:
        found["flash-linear-attention"] = fla(spec) if find_spec("fla") else "flash-linear-attention is not installed"
    if spec in ("mamba", "mamba2"):
        made = {"mamba": mamba, "mamba2": mamba2}[spec]
        found["mamba-ssm"] = made() if find_spec("mamba_ssm") else "mamba-ssm is not installed"
    if spec == "mlstm":
        found["mlstm_kernels"] = mlstm() if find_spec("mlstm_kernels") else "mlstm_kernels is not installed"
    if spec == "gla":
        found["softmax attention (scale only)"] = softmax
    return found


def fla(spec: str) -> Function:
    """The chunked form of flash-linear-attention."""
    module, name, names, options = FLA[spec]
    function = getattr(import_module(module), name)
    return lambda x: function(**{k: x[k] for k in names.split()}, **options)[0]


def mamba() -> Function:
    """The selective scan, which takes [B, D, T]."""
    function = import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn

    def run(x: Mapping[str, Tensor]) -> Tensor:
        u, delta, Bt, Ct, z = (x[k].transpose(1, 2) for k in ("u", "delta", "Bt", "Ct", "z"))
        A = -torch.exp(x["A_log"])
        return function(u, delta, A, Bt, Ct, x["skip"], z, x["bias"], delta_softplus=True).transpose(1, 2)

    return run


def mamba2() -> Function:
    """State space duality with one group."""
    function = import_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined

    def run(x: Mapping[str, Tensor]) -> Tensor:
        A = -torch.exp(x["A_log"][0])
        rest = {"D": x["skip"][0], "dt_bias": x["bias"][0], "dt_softplus": True}
        y = function(x["x"][:, :, 0], x["delta"][:, :, 0], A, x["Bt"], x["Ct"], 256, **rest)
        return y[:, :, None]

    return run


def mlstm() -> Function:
    """The chunkwise form with exponential gates, which takes [B, H, T, ...]."""
    function = import_module("mlstm_kernels.torch.chunkwise.triton_xl_chunk.fwbw").mlstm_chunkwise__xl_chunk

    def run(x: Mapping[str, Tensor]) -> Tensor:
        q, k, v, i, f = (x[name].transpose(1, 2) for name in "qkvif")
        return function(q, k, v, i, f, autocast_kernel_dtype=q.dtype).transpose(1, 2)

    return run


def softmax(x: Mapping[str, Tensor]) -> Tensor:
    """torch's fused causal attention on the same q, k, v."""
    q, k, v = (x[name].transpose(1, 2) for name in "qkv")
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
