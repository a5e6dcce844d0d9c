'''Device functions that few kernels need, beside those of `device`, as source texts in the same style.

Comes in: nothing. Goes out: `MORE`, name -> text; a text calls only functions of `device` and earlier ones of this table.
'''

from __future__ import annotations

from seqc.backends.triton_gpu.texts import each

MORE = each('''
@triton.jit
def sign(x):
    """-1, 0 or 1."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


@triton.jit
def pow(x, y):
    """x to the power y: by the logarithm of |x|; a negative x takes its sign from an odd whole y, else it gives NaN.

    A whole power of a whole number is a whole number, or one divided by it.
    """
    y = y + 0.0 * x
    x = tl.where(y == y, x, x)
    size = tl.exp(tl.abs(y) * tl.log(tl.abs(x)))
    whole = tl.floor(y) == y
    size = tl.where(whole & (tl.floor(x) == x) & (size < 16777216.0), tl.floor(size + 0.5), size)
    size = tl.where(y == 0, 1.0, tl.where(y < 0, 1.0 / size, size))
    odd = whole & (tl.floor(0.5 * y) != 0.5 * y)
    signed = tl.where(odd, -size, size)
    return tl.where(x < 0, tl.where(whole, signed, float("nan")), size)


@triton.jit
def logaddexp(a, b):
    """log(exp(a) + exp(b)); equal infinities give themselves."""
    high = tl.maximum(a, b)
    gap = tl.where(a == b, 0.0, -tl.abs(a - b))
    return high + log1p(tl.exp(gap))


@triton.jit
def mix_four(x0, x1, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, D: tl.constexpr):
    """Four rounds of Threefry-2x32 with these rotations."""
    x0 = x0 + x1
    x1 = ((x1 << A) | (x1 >> (32 - A))) ^ x0
    x0 = x0 + x1
    x1 = ((x1 << B) | (x1 >> (32 - B))) ^ x0
    x0 = x0 + x1
    x1 = ((x1 << C) | (x1 >> (32 - C))) ^ x0
    x0 = x0 + x1
    x1 = ((x1 << D) | (x1 >> (32 - D))) ^ x0
    return x0, x1


@triton.jit
def draw(low, high, clock, element, site, word):
    """A multiple of 2^-24 in [0, 1) for whole numbers: a word of Threefry-2x32-20 (Salmon et al. 2011).

    The key is (low, high) with the bits of the site above, the counter (clock, element).
    """
    zero = (low + high + clock + element) * 0.0
    s = (zero + site).to(tl.int32).to(tl.uint32, bitcast=True)
    k0 = (zero + low).to(tl.int32).to(tl.uint32, bitcast=True) ^ (s << 24)
    k1 = (zero + high).to(tl.int32).to(tl.uint32, bitcast=True) ^ ((s >> 8) << 24)
    k2 = k0 ^ k1 ^ 0x1BD11BDA
    x0 = (zero + clock).to(tl.int32).to(tl.uint32, bitcast=True) + k0
    x1 = (zero + element).to(tl.int32).to(tl.uint32, bitcast=True) + k1
    x0, x1 = mix_four(x0, x1, 13, 15, 26, 6)
    x0, x1 = mix_four(x0 + k1, x1 + k2 + 1, 17, 29, 16, 24)
    x0, x1 = mix_four(x0 + k2, x1 + k0 + 2, 13, 15, 26, 6)
    x0, x1 = mix_four(x0 + k0, x1 + k1 + 3, 17, 29, 16, 24)
    x0, x1 = mix_four(x0 + k1, x1 + k2 + 4, 13, 15, 26, 6)
    x = tl.where(zero + word == 0.0, x0 + k2, x1 + k0 + 5) >> 8
    return x.to(tl.int32, bitcast=True).to(tl.float32) * 5.9604644775390625e-8


@triton.jit
def affine_scan_from(a, b, start, REVERSE: tl.constexpr):
    """h[t] = a[t] * h[t-1] + b[t] along axis 0 from `start` (which broadcasts against a row), from the end where REVERSE."""
    slope, offset = affine_scan(a, b, REVERSE)
    return offset + slope * start


@triton.jit
def affine_after_resets(a_past, b_past, k_past, a_now, b_now, k_now):
    """`affine_after`, where k_now is 0 if one of its steps drops what was before, else 1."""
    return a_now * a_past, tl.where(k_now == 0, 0.0, a_now * b_past) + b_now, k_now * k_past


@triton.jit
def reset_scan_from(a, b, start, REVERSE: tl.constexpr):
    """`affine_scan_from`, where a[t] = 0 drops what was before, whatever it is."""
    slope, offset, kept = tl.associative_scan((a, b, (a != 0).to(a.dtype)), 0, affine_after_resets, reverse=REVERSE)
    return offset + tl.where(kept == 0, 0.0, slope * start)


@triton.jit
def max_after(a_past, b_past, a_now, b_now):
    """The map m -> max(m + a, b) of two steps as its pair."""
    return a_past + a_now, tl.maximum(b_past + a_now, b_now, tl.PropagateNan.ALL)


@triton.jit
def max_scan(a, b, start):
    """m[t] = max(m[t-1] + a[t], b[t]) along axis 0 from `start`."""
    gain, floor = tl.associative_scan((a, b), 0, max_after)
    return tl.maximum(start + gain, floor, tl.PropagateNan.ALL)


@triton.jit
def added_in_two(a_high, a_low, b_high, b_low):
    """a + b, each a number and what rounding has taken off it (Knuth's sum without an error)."""
    high = a_high + b_high
    of_b = high - a_high
    return high, a_low + b_low + ((a_high - (high - of_b)) + (b_high - of_b))


@triton.jit
def pair_decay(x, EXCLUSIVE: tl.constexpr):
    """[C, C]: exp of the sum of x [C] over the steps after s up to t (t itself left out where EXCLUSIVE), for x <= 0.

    It is the difference of two sums from the first step, which lack nothing that rounding takes off, so that it is as exact as
    a sum of its own. A step below -128 counts as -128: with either the exponential of a sum is 0.
    """
    o_t = tl.arange(0, x.shape[0])
    x = tl.where(x < -128.0, -128.0, x)
    high, low = tl.associative_scan((x, 0.0 * x), 0, added_in_two)
    to_high, to_low = high, low
    if EXCLUSIVE:
        to_high, to_low = shift_rows(high, 1), shift_rows(low, 1)
    span = (to_high[:, None] - high[None, :]) + (to_low[:, None] - low[None, :])
    return tl.exp(tl.where(o_t[:, None] > o_t[None, :], span, 0.0))


@triton.jit
def crossing_sums(x, EXCLUSIVE: tl.constexpr):
    """[C]: for each step i the sum of x [C, C] over the pairs (t, s) with s < i <= t (i < t where EXCLUSIVE)."""
    o_t = tl.arange(0, x.shape[0])
    behind = o_t[:, None] > o_t[None, :] + (1 if EXCLUSIVE else 0)
    return shift_rows(tl.sum(tl.where(behind, tl.cumsum(x, 1), 0.0), 0), 1)
''')
"""Name -> source text, callees before callers."""
