"""Mappings of the cases whose state is complex: both sides pass real and imaginary parts."""

from __future__ import annotations

import torch

from tests.peers.mapping import Peer, Tensors, renamed


def _parts(name: str, x: torch.Tensor) -> Tensors:
    return {f"{name}_re": x.real, f"{name}_im": x.imag}


def _whole(given: Tensors, name: str) -> torch.Tensor:
    return torch.complex(given[f"{name}_re"], given[f"{name}_im"])


def _starts(given: Tensors) -> Tensors:
    return {f"x_{part}_0": given[f"x0_{part}"] for part in ("re", "im") if f"x0_{part}" in given}


def _s4d(given: Tensors) -> Tensors:
    """One output for each feature, and no input weight."""
    ones = torch.ones_like(given["A_imag"])
    return {
        "u": given["u"], "log_dt": given["log_dt"], "A_log": given["log_A_real"], "A_imag": given["A_imag"],
        "Bm_re": ones, "Bm_im": torch.zeros_like(ones), "Cm_re": given["C_re"][None], "Cm_im": given["C_im"][None],
        "skip": given["D"][None],
    }


def _s4d_results(found: Tensors, given: Tensors) -> Tensors:
    """The convolution's kernel is another output of the peer, and stands beside the recurrence."""
    rate = torch.complex(-torch.exp(given["log_A_real"]), given["A_imag"])
    step = torch.exp(given["log_dt"])[:, None] * rate
    powers = torch.exp(step[..., None] * torch.arange(given["u"].shape[1]))
    weight = _whole(given, "C") * (torch.exp(step) - 1) / rate
    return {"y": found["y"][:, :, 0], "K": 2 * (weight[..., None] * powers).sum(1).real}


def _diagonal(given: Tensors) -> Tensors:
    """The peer's imaginary part enters with a minus sign."""
    return {
        "u": given["u"], "log_dt": given["inv_dt"][:, 0], "A_log": given["A_real"], "A_imag": -given["A_imag"],
        "skip": given["D"], **_starts(given),
        **{f"Bm_{part}": given[f"B_{part}"][0] for part in ("re", "im")},
        **{f"Cm_{part}": given[f"C_{part}"] for part in ("re", "im")},
    }


def _low_rank(given: Tensors) -> Tensors:
    return {**_diagonal(given), **{f"P_{part}": given[f"P_{part}"][0] for part in ("re", "im")}}


def _matrices(given: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """The peer's dense transition [H, 2 N, 2 N] and write [H, 2 N]: vectors doubled by their conjugates."""
    diagonal = torch.complex(-torch.exp(given["A_real"]), -given["A_imag"])
    a, b, p = (torch.cat([x, x.conj()], -1) for x in (diagonal, _whole(given, "B")[0], _whole(given, "P")[0]))
    step = torch.exp(given["inv_dt"])[..., None]
    half = step / 2 * (torch.diag_embed(a) - p[..., :, None] * p[..., None, :].conj())
    eye = torch.eye(half.shape[-1], dtype=torch.complex128)
    write = torch.linalg.solve(eye - half, step * b[..., None])
    return torch.linalg.solve(eye - half, eye + half), write[..., 0]


def _convolution(given: Tensors) -> Tensors:
    """The peer stores C (I - A^T), T the length of the sequence."""
    transition, _ = _matrices(given)
    stored = _whole(given, "Ctilde")
    doubled = torch.cat([stored, stored.conj()], -1)
    eye = torch.eye(transition.shape[-1], dtype=torch.complex128)
    shrunk = eye - torch.linalg.matrix_power(transition, given["u"].shape[1])
    true = torch.linalg.solve(shrunk.mT, doubled[..., None])[..., : stored.shape[-1], 0]
    return _low_rank({**given, **_parts("C", true)})


def _convolution_results(found: Tensors, given: Tensors) -> Tensors:
    transition, write = _matrices(given)
    weight = _whole(_convolution(given), "Cm")
    weight = torch.cat([weight, weight.conj()], -1)
    kernel, x = [], write
    for _ in range(given["u"].shape[1]):
        kernel.append((weight * x).sum(-1).real)
        x = (transition @ x[..., None])[..., 0]
    return {"y": found["y"], "K": torch.stack(kernel, -1)}


def _ends(found: Tensors, _: Tensors) -> Tensors:
    return {"y": found["y"], "xT_re": found["x_re_T"], "xT_im": found["x_im_T"]}


def _mamba(given: Tensors) -> Tensors:
    """The peer passes A itself; the spec has the log of its opposite real part."""
    names = {"B_re": "Bt_re", "B_im": "Bt_im", "C_re": "Ct_re", "C_im": "Ct_im", "D": "skip", "delta_bias": "bias",
             "A_im": "A_imag"}
    rest = {names.get(name, name): x for name, x in given.items() if name != "A_re"}
    return {**rest, "A_log": torch.log(-given["A_re"])}


def _mamba_results(found: Tensors, _: Tensors) -> Tensors:
    return {"y": found["y"], "S_re": found["h_re_T"], "S_im": found["h_im_T"]}


S5 = "u Lambda_re Lambda_im log_step D=skip x0_re=x_re_0 x0_im=x_im_0 B_re=Bm_re B_im=Bm_im C_re=Cm_re C_im=Cm_im"
S5_ENDS = "y xT_re=x_re_T xT_im=x_im_T"
LRU = "u nu_log theta_log gamma_log D=skip x0_re=x_re_0 x0_im=x_im_0 B_re=Bm_re B_im=Bm_im C_re=Cm_re C_im=Cm_im"

COMPLEX = (
    renamed("lru", "lru", LRU, "y"),
    renamed("s5", "s5", S5, S5_ENDS),
    renamed("s5_bilinear", "s5_bilinear", S5, S5_ENDS),
    Peer("s4d", "s4d", _s4d, _s4d_results),
    Peer("s4d_zoh_state", "s4d", _diagonal, _ends),
    Peer("s4d_bilinear_state", "s4d_bilinear", _diagonal, _ends),
    Peer("s4_dplr_step", "s4", _low_rank, _ends),
    Peer("s4_dplr_conv", "s4", _convolution, _convolution_results),
    Peer("mamba1_complex_a", "mamba_complex", _mamba, _mamba_results),
)
