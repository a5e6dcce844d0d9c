"""Specs that drop something, and calls in which what they drop is not finite.

In: a name of MASKED or RESET. Out: programs and arrays. MASKED: where m is 0 a step leaves the state as it is, whatever the
inputs named beside the spec hold. RESET: where z is 1 the state is new, whatever it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from seqc.frontend import elaborate
from seqc.ir.program import Program
from seqc.semantics import reference
from tests.harness import Case, draw

STEPS, ROWS = 40, 16
BAD = (math.nan, math.inf)
READ = "output o = sum[K](q * S)\n"
MATRIX = "dim K, V\ninput q[K], k[K], v[V], {more}\nstate S[K, V] = 0\n"
DELTA = "dim K, V\ninput q[K], k[K] unit[K], v[V], b in [0, 1], {more}\nstate S[K, V] = 0\n"
M, Z = "m in [0, 1]", "z in [0, 1]"

MASKED: dict[str, tuple[str, str]] = {
    "element": ("dim D\ninput x[D], a[D] in [0, 1], m[D] in [0, 1]\nstate h[D] = 0\n"
                "h = where(m > 0, a * h[t-1] + x, h[t-1])\noutput h\n", "xa"),
    "matrix": (MATRIX.format(more=f"g[K] in [-inf, 0], {M}")
               + "S = where(m > 0, exp(g) * S[t-1] + k * v, S[t-1])\n" + READ, "kvg"),
    "value decay": (MATRIX.format(more=f"g[V] in [-inf, 0], {M}")
                    + "S = where(m > 0, exp(g) * S[t-1] + k * v, S[t-1])\n" + READ, "kvg"),
    "signed": (MATRIX.format(more=f"a[K] in [-1, 1], {M}") + "S = where(m > 0, a * S[t-1] + k * v, S[t-1])\n" + READ, "kva"),
    "value channel": (MATRIX.format(more="m[V] in [0, 1]") + "S = where(m > 0, 0.9 * S[t-1] + k * v, S[t-1])\n" + READ, "v"),
    "nested": (MATRIX.format(more=f"n in [0, 1], {M}")
               + "S = where(m > 0, where(n > 0.5, 0.5 * S[t-1] - k * v, 0.9 * S[t-1] + k * v), S[t-1])\n" + READ, "kvn"),
    "delta": (DELTA.format(more=M) + "S = where(m > 0, S[t-1] + b * k * (v - sum[K](k * S[t-1])), S[t-1])\n" + READ, "kvb"),
    "kda": (DELTA.format(more=f"g[K] in [-inf, 0], {M}") + "A = exp(g) * S[t-1]\n"
            "S = where(m > 0, A + b * k * (v - sum[K](k * A)), S[t-1])\n" + READ, "kvbg"),
    "micro-steps": (DELTA.format(more=f"u[K] unit[K], {M}") + "A = S[t-1] + k * (v - sum[K](k * S[t-1]))\n"
                    "B = A + u * (v - sum[K](u * A))\nS = where(m > 0, B, S[t-1])\n" + READ, "kuv"),
    "momentum": (DELTA.format(more=f"e in [0, 1], {M}").replace("S[K, V] = 0", "M[K, V] = 0, S[K, V] = 0")
                 + "N = e * M[t-1] + b * k * (v - sum[K](k * S[t-1]))\nM = where(m > 0, N, M[t-1])\n"
                 "S = where(m > 0, 0.9 * S[t-1] + N, S[t-1])\n" + READ, "kvbe"),
    "complex": ("dim D\ninput x[D], w[D], m in [0, 1]\nstate h[D] complex = 0\n"
                "h = where(m > 0, exp(1i * w) * h[t-1] + x, h[t-1])\noutput y = re(h)\n", "xw"),
    "maximum": ("dim D\ninput x[D], m in [0, 1]\nstate h[D] = -inf\nh = where(m > 0, max(h[t-1], x), h[t-1])\noutput h\n", "x"),
}
RESET: dict[str, tuple[str, str]] = {
    "element": ("dim D\ninput x[D], a[D] in [0, 1], z in [0, 1]\nstate h[D] = 0\n"
                "h = a * where(z > 0, 0, h[t-1]) + x\noutput h\n", "x"),
    "masked too": ("dim D\ninput x[D], z in [0, 1], m in [0, 1]\nstate h[D] = 0\n"
                   "h = where(m > 0, 0.9 * where(z > 0, 0, h[t-1]) + x, h[t-1])\noutput h\n", "x"),
    "matrix": (MATRIX.format(more=f"g[K] in [-inf, 0], {Z}")
               + "S = exp(g) * where(z > 0, 0, S[t-1]) + k * v\n" + READ, "kvg"),
    "value decay": (MATRIX.format(more=f"g[V] in [-inf, 0], {Z}")
                    + "S = exp(g) * where(z > 0, 0, S[t-1]) + k * v\n" + READ, "kvg"),
    "read before": (MATRIX.format(more=f"g[K] in [-inf, 0], {Z}") + "P = where(z > 0, 0, S[t-1])\n"
                    "S = exp(g) * P + k * v\noutput o = sum[K](q * P)\n", "kvg"),
    "delta": (DELTA.format(more=Z) + "P = where(z > 0, 0, S[t-1])\nS = P + b * k * (v - sum[K](k * P))\n" + READ, "kvb"),
    "complex": ("dim D\ninput x[D], r[D] in [-2, 0], w[D], z in [0, 1]\nstate h[D] complex = 0\n"
                "h = exp(r + 1i * w) * where(z > 0, 0, h[t-1]) + x\noutput y = re(h)\n", "xrw"),
}


def load(table: Mapping[str, tuple[str, str]], name: str) -> tuple[Program, Case, str]:
    """The program, a call without anything that is not finite, and the inputs that may hold that."""
    text, hidden = table[name]
    program = elaborate.load("spec s\n" + text)
    case = draw(program, STEPS)
    arrays, rng = case.arrays, np.random.default_rng(0)
    if "m" in arrays:
        arrays["m"] = (rng.random(arrays["m"].shape) > 0.3).astype(float)
    if "z" in arrays:
        arrays["z"] = np.zeros_like(arrays["z"])
        arrays["z"][0, [20, 37]] = arrays["z"][1, 9] = 1
        arrays |= {"m": np.maximum(arrays["m"], arrays["z"])} if "m" in arrays else {}
    return program, case, hidden


def masked_out(case: Case, names: str, bad: float) -> dict[str, Any]:
    """The arrays with `bad` in the steps of some inputs that m leaves out."""
    m, out = case.arrays["m"], dict(case.arrays)
    for name in names:
        x = out[name]
        kept = m if m.ndim == x.ndim else m[..., None] if m.ndim < x.ndim else m.max(-1)
        out[name] = np.where(kept > 0, x, bad)
    return out


def before_resets(case: Case, name: str, bad: float) -> dict[str, Any]:
    """The arrays with `bad` in a step of an input before the first reset of each sequence."""
    out = {**case.arrays, name: case.arrays[name].copy()}
    out[name][0, 5] = out[name][1, 3] = bad
    return out


def finite(program: Program, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Where the results of a run step by step are finite."""
    with np.errstate(all="ignore"):
        return {name: np.isfinite(x) for name, x in reference.run(program, arrays).items()}


def called(program: Program, case: Case, arrays: Mapping[str, Any], both: tuple[Any, Any], dtype: Any) -> dict[str, Any]:
    """Results, and gradients as d.NAME, of a backend's forward and backward functions."""
    import torch

    args = [torch.tensor(arrays[name], dtype=dtype) for name in case.arguments]
    weights = [torch.tensor(case.cotangents[name], dtype=dtype) for name in case.results]
    with torch.no_grad():
        got = both[0](*args)
        gradients = both[1](*args, *got[len(weights):], *weights)
    out = dict(zip(case.results, got, strict=False)) | dict(zip((f"d.{x}" for x in case.arguments), gradients, strict=True))
    return {name: x.double().numpy() for name, x in out.items()}


def judged(kind: str, name: str, both: tuple[Any, Any], dtype: Any, tolerance: float) -> str:
    """What is wrong with a backend at a spec; "" where nothing is."""
    program, case, hidden = load(MASKED if kind == "mask" else RESET, name)
    plain = called(program, case, case.arrays, both, dtype)
    with np.errstate(all="ignore"):
        want, slopes = reference.gradients(program, case.arrays, case.cotangents)
    for key, x in {**want, **{f"d.{key}": x for key, x in slopes.items()}}.items():
        if np.abs(plain[key] - x).max() > tolerance * (1 + np.abs(x).max()):
            return f"{key} is off by {np.abs(plain[key] - x).max():.1e}"
    single = "float32" in str(dtype)  # kernels in an interpreter take their time
    for bad in BAD[: 1 if single else 2]:
        for inputs in dict.fromkeys((hidden if kind == "mask" else hidden[-1],) if single else (*hidden, hidden)):
            if kind == "mask":
                got = called(program, case, masked_out(case, inputs, bad), both, dtype)
                wrong = [key for key in plain if not np.array_equal(got[key], plain[key])]
                wrong = [key for key in wrong if key[:2] != "d." or not np.allclose(got[key], plain[key], tolerance, tolerance)]
                if wrong:
                    return f"{bad} in {inputs}: {', '.join(wrong)}"
            elif len(inputs) == 1:
                arrays = before_resets(case, inputs, bad)
                got, where = called(program, case, arrays, both, dtype), finite(program, arrays)
                for key in case.results:
                    same = np.abs(np.where(where[key], got[key], 0.0) - np.where(where[key], plain[key], 0.0))
                    changed = got[key][:, 20:] if key in program.outputs else got[key]
                    if not np.array_equal(np.isfinite(got[key]), where[key]) or not np.isfinite(changed).all():
                        return f"{bad} in {inputs}: {key} is finite elsewhere than step by step"
                    if (same[:, 20:] if key in program.outputs else same).max(initial=0.0) > tolerance * 10:
                        return f"{bad} in {inputs}: {key} changes after the reset"
    return ""
