"""`python -m benchmarks.convolutions`: S4D and S4 over long sequences, by convolution (ours, and by hand) and step by step.

In: nothing. Out: a table of medians, in milliseconds of the processor on one thread, forward and with gradients; the contenders
take turns. By hand: for S4D a Vandermonde product for the kernel, for S4 Cauchy sums at the roots of unity and Woodbury's
identity (arXiv:2111.00396), whose C (I - A^T) is made before, as its authors do; then one real FFT each way. By hand there are
outputs alone, where ours has the last states too; "from C" is S4 by hand with C (I - A^T) made in each call, which is what
ours starts from. Outputs are compared with the recurrence's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from time import thread_time
from typing import Any

import torch
from torch import Tensor

import seqc
from benchmarks.machine import machine, pin
from benchmarks.timing import quartiles, ratio

SHAPES = ((8, 2048, 32, 16), (1, 16384, 16, 16), (16, 1024, 64, 16))  # batch, steps, features, modes


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print the table; 1 where an output is wrong."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.convolutions", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--rounds", type=int, default=9, help="calls of each contender (default: 9)")
    made.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the shapes (default: all)")
    args = made.parse_args(arguments)
    pin(1)
    torch.set_num_threads(1)
    print(f"{machine()['cpu']}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    wrong = False
    for spec, shape in [(spec, shape) for spec in ("s4d", "s4") for shape in SHAPES[: args.shapes]]:
        wrong |= compared(spec, shape, args.rounds)
    return int(wrong)


def by_hand(u: Tensor, own: Any) -> Tensor:
    """S4D by torch.fft: [B, T, H] -> [B, T, H]."""
    a = torch.exp(own.log_dt)[:, None] * torch.complex(-own.A_log.exp(), own.A_imag)
    weight = torch.complex(own.Cm_re[0], own.Cm_im[0]) * torch.complex(own.Bm_re, own.Bm_im)
    weight = weight * torch.expm1(a) / (a / torch.exp(own.log_dt)[:, None])
    powers = torch.exp(a[..., None] * torch.arange(u.shape[1]))
    kernel = 2 * torch.einsum("hn,hnt->ht", weight, powers).real
    return convolved(u, kernel, own)


def convolved(u: Tensor, kernel: Tensor, own: Any) -> Tensor:
    """Inputs [B, T, H] under a kernel [H, T], by one real FFT each way, and what is skipped: [B, T, H]."""
    steps = u.shape[1]
    spectra = torch.fft.rfft(u.mT, 2 * steps) * torch.fft.rfft(kernel, 2 * steps)
    return torch.fft.irfft(spectra, 2 * steps)[..., :steps].mT + own.skip[0] * u


def truncated(own: Any, steps: int) -> Tensor:
    """S4's C (I - A^steps) of the discrete transition A, in float64: [H, N]; its derivative is left out."""
    with torch.no_grad():
        part = {name: x.detach().double() for name, x in own.named_parameters()}
        lam = torch.complex(-part["A_log"].exp(), part["A_imag"])
        P = torch.complex(part["P_re"], part["P_im"])
        lam, P, C = (torch.cat([x, x.conj()], -1) for x in (lam, P, torch.complex(part["Cm_re"][0], part["Cm_im"][0])))
        half = part["log_dt"].exp()[:, None, None] / 2 * (torch.diag_embed(lam) - P[..., :, None] * P.conj()[..., None, :])
        one = torch.eye(lam.shape[-1], dtype=torch.complex128)
        power = torch.matrix_power(torch.linalg.solve(one - half, one + half), steps)
        return (C - (C[:, None] @ power)[:, 0])[:, : lam.shape[-1] // 2].to(torch.complex64)


def s4_by_hand(u: Tensor, own: Any, C: Tensor) -> Tensor:
    """S4 by torch.fft: [B, T, H] -> [B, T, H]. C: as `truncated` gives it."""
    steps, dt = u.shape[1], torch.exp(own.log_dt)[:, None, None]
    lam = torch.complex(-own.A_log.exp(), own.A_imag)[..., None]
    P, B = torch.complex(own.P_re, own.P_im), torch.complex(own.Bm_re, own.Bm_im)
    roots = torch.exp(-2j * torch.pi * torch.arange(steps // 2 + 1) / steps)
    g = 2 / dt * (1 - roots) / (1 + roots)
    near, far = 1 / (g - lam), 1 / (g - lam.conj())

    def cauchy(left: Tensor, right: Tensor) -> Tensor:
        v = (left * right)[..., None]
        return (v * near + v.conj() * far).sum(1)

    inner = cauchy(C, B) - cauchy(C, P) * cauchy(P.conj(), B) / (1 + cauchy(P.conj(), P))
    kernel = torch.fft.irfft(2 / (1 + roots) * inner, steps)
    return convolved(u, kernel, own)


def compared(spec: str, shape: tuple[int, int, int, int], rounds: int) -> bool:
    """One shape; whether an output is wrong."""
    batch, steps, features, modes = shape
    torch.manual_seed(0)
    own = seqc.compile(spec, "cpu").Module(M=1, H=features, N=modes)
    with torch.no_grad():
        own.log_dt.uniform_(-6, -3)
        for part in (own.Cm_re, own.Cm_im, *((own.P_re, own.P_im) if spec == "s4" else ())):
            part.normal_()
    u = torch.randn(batch, steps, features)
    C = truncated(own, steps) if spec == "s4" else u
    ways: dict[str, Callable[[], Tensor]] = {
        "torch.fft by hand": lambda: by_hand(u, own) if spec == "s4d" else s4_by_hand(u, own, C),
        "convolution": lambda: own.convolution(u).y[:, :, 0],
        "native recurrence": lambda: own(u).y[:, :, 0],
    }  # fmt: skip
    if spec == "s4":
        ways["by hand, from C"] = lambda: s4_by_hand(u, own, truncated(own, steps))
    with torch.no_grad():
        want = ways["native recurrence"]()
        errors = {name: float((way() - want).abs().max() / want.abs().max()) for name, way in ways.items()}
    print(f"{spec}: {batch} sequences of {steps:,} steps, {features} features of {modes} modes")
    for gradients in (False, True):
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                start = thread_time()
                with torch.set_grad_enabled(gradients), torch.autograd.set_multithreading_enabled(False):
                    y = way()
                    if gradients:
                        torch.autograd.grad(y.sum(), list(own.parameters()), allow_unused=True)  # C by hand is made before
                seconds[name].append(thread_time() - start)
        for name, times in seconds.items():
            low, middle, high = ratio(seconds["torch.fft by hand"], times)
            told = f"{middle:.1f}x by hand ({low:.1f} to {high:.1f}); off by {errors[name]:.0e}"
            print(f"  {'with gradients' if gradients else 'forward':16}{name:20}{1e3 * quartiles(times)[1]:10.2f} ms   {told}")
    return any(error > 1e-4 for error in errors.values())


if __name__ == "__main__":
    sys.exit(main())
