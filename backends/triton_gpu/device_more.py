'''Device functions that few kernels need, beside those of `device`, as source texts in the same style.

Comes in: nothing. Goes out: `MORE`, name -> text; a text calls only functions of `device` and earlier ones of this table.
'''

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SIGN = '''
@triton.jit
def sign(x):
    """-1, 0 or 1."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)
'''

POW = '''
@triton.jit
def pow(x, y):
    """x to the power y: by the logarithm of |x|; a negative x takes its sign from an odd whole y, else it gives NaN."""
    y = y + 0.0 * x
    size = tl.where(y == 0, 1.0, tl.exp(y * tl.log(tl.abs(x))))
    whole = tl.floor(y) == y
    odd = whole & (tl.floor(0.5 * y) != 0.5 * y)
    signed = tl.where(odd, -size, size)
    return tl.where(x < 0, tl.where(whole, signed, float("nan")), size)
'''

LOGADDEXP = '''
@triton.jit
def logaddexp(a, b):
    """log(exp(a) + exp(b)); equal infinities give themselves."""
    high = tl.maximum(a, b)
    gap = tl.where(a == b, 0.0, -tl.abs(a - b))
    return high + log1p(tl.exp(gap))
'''

AFFINE_SCAN_FROM = '''
@triton.jit
def affine_scan_from(a, b, start, REVERSE: tl.constexpr):
    """h[t] = a[t] * h[t-1] + b[t] along axis 0 from `start` (which broadcasts against a row), from the end where REVERSE."""
    slope, offset = affine_scan(a, b, REVERSE)
    return offset + slope * start
'''

RESET_SCAN = '''
@triton.jit
def affine_after_resets(a_past, b_past, k_past, a_now, b_now, k_now):
    """`affine_after`, where k_now is 0 if one of its steps drops what was before, else 1."""
    return a_now * a_past, tl.where(k_now == 0, 0.0, a_now * b_past) + b_now, k_now * k_past


@triton.jit
def reset_scan_from(a, b, start, REVERSE: tl.constexpr):
    """`affine_scan_from`, where a[t] = 0 drops what was before, whatever it is."""
    slope, offset, kept = tl.associative_scan((a, b, (a != 0).to(a.dtype)), 0, affine_after_resets, reverse=REVERSE)
    return offset + tl.where(kept == 0, 0.0, slope * start)
'''

MAX_SCAN = '''
@triton.jit
def max_after(a_past, b_past, a_now, b_now):
    """The map m -> max(m + a, b) of two steps as its pair."""
    return a_past + a_now, tl.maximum(b_past + a_now, b_now)


@triton.jit
def max_scan(a, b, start):
    """m[t] = max(m[t-1] + a[t], b[t]) along axis 0 from `start`."""
    gain, floor = tl.associative_scan((a, b), 0, max_after)
    return tl.maximum(start + gain, floor)
'''

MORE: Mapping[str, str] = MappingProxyType(
    {
        "sign": SIGN.strip(),
        "pow": POW.strip(),
        "logaddexp": LOGADDEXP.strip(),
        "affine_scan_from": AFFINE_SCAN_FROM.strip(),
        "reset_scan_from": RESET_SCAN.strip(),
        "max_scan": MAX_SCAN.strip(),
    }
)
"""Name -> source text, callees before callers."""
