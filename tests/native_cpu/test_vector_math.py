"""The vectors' functions against numpy in extended precision: at most 3 units in the last place, exact where it matters."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from seqc.backends.native_cpu.loader import _native_compiler, _native_library
from seqc.backends.native_cpu.needed import needed, runtime_of

EXACT = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sigmoid": lambda x: np.where(x >= 0, 1 / (1 + np.exp(-abs(x))), np.exp(-abs(x)) / (1 + np.exp(-abs(x)))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
    "logsigmoid": lambda x: -(np.maximum(-x, 0) + np.log1p(np.exp(-abs(x)))),
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "abs": np.abs,
    "sign": lambda x: np.where(np.isnan(x), 0, np.sign(x)),  # as torch's
}
WRAPPER = """
extern "C" void many_{0}(const real* x, real* y, i64 n) {{
  for (i64 i = 0; i < n; i += W) store<false>(y + i, seqc_{0}(load<false>(x + i, n - i)), n - i);
}}
extern "C" void each_{0}(const real* x, real* y, i64 n) {{
  for (i64 i = 0; i < n; ++i) y[i] = seqc_{0}(x[i]);
}}
"""
# Numbers that are known when the text is compiled, as a mask over positions is: ones in the first FROM lanes, then zeros.
KNOWN = """
template <int from>
ONCE void known(real* y) {
  constexpr i64 at = 0;
  store(y, as_real(lanes() + real(at) < splat(real(from))));
}
template <int... from>
void all_known(real* y, std::integer_sequence<int, from...>) { (known<from>(y + from * W), ...); }
extern "C" i64 known_numbers(real* y) { return all_known(y, std::make_integer_sequence<int, W + 1>{}), W; }
"""

pytestmark = pytest.mark.skipif(_native_compiler() is None, reason="no C++ compiler")


def library(dtype: Any) -> ctypes.CDLL:
    names = ["as_real", *(f"seqc_{name}" for name in EXACT)]
    text = runtime_of(needed(names)) + "".join(WRAPPER.format(name) for name in EXACT) + KNOWN
    return _native_library(text, {"SEQC_REAL": "float" if dtype is np.float32 else "double"})


def arguments(dtype: Any) -> Any:
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    hard = [0.0, -0.0, np.inf, -np.inf, np.nan, info.tiny, -info.tiny, info.tiny / 8, info.smallest_subnormal, info.max,
            -info.max, 1.0, -1.0, 88.7, -103.9, 709.7, -745.0, 1e-20, -1e-20]
    parts = [np.array(hard, dtype), rng.normal(size=5000), rng.normal(size=5000) * 1e-4, rng.uniform(-100, 100, 5000),
             10 ** rng.uniform(-30, 30, 2000), 1 + rng.normal(size=2000) * 1e-3]
    return np.concatenate([p.astype(dtype) for p in parts])


def apply(function: Any, x: Any) -> Any:
    y = np.empty_like(x)
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, y)]
    function(*pointers, ctypes.c_int64(len(x)))
    return y


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_extended_precision(name: str, dtype: Any) -> None:
    x = arguments(dtype)
    made = library(dtype)
    y = apply(getattr(made, f"many_{name}"), x)
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(np.longdouble))
        rounded = exact.astype(dtype)
        both = np.isfinite(rounded) & np.isfinite(y)
        same = (rounded == y) | (np.isnan(rounded) & np.isnan(y))
        ulps = np.where(both, abs(y - exact) / np.spacing(abs(rounded)), 0)
    assert (both | same).all(), x[~(both | same)]
    assert ulps.max() <= 3.0, (x[ulps.argmax()], ulps.max())
    alone = apply(getattr(made, f"each_{name}"), x)
    np.testing.assert_array_equal(alone, y)  # a value does not depend on whether it was computed alone


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_odd_functions_keep_the_sign_of_zero(dtype: Any) -> None:
    made = library(dtype)
    x = np.array([0.0, -0.0], dtype)
    for name in ("expm1", "log1p", "tanh", "sqrt"):
        assert list(np.signbit(apply(getattr(made, f"many_{name}"), x))) == [False, True], name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_known_numbers_are_stored_as_they_are(dtype: Any) -> None:
    made = library(dtype)
    made.known_numbers.restype = ctypes.c_int64
    found = np.full(17 * 16, np.nan, dtype)
    lanes = made.known_numbers(found.ctypes.data_as(ctypes.c_void_p))
    want = np.tri(lanes + 1, lanes, -1, dtype=dtype)
    np.testing.assert_array_equal(found[: want.size].reshape(want.shape), want)
