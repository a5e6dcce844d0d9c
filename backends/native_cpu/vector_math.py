"""Mathematical functions on vectors, as C++ text: branch free, without fast-math, exact on infinities, NaN and -0.

In: nothing. Out: `MATH`, a part for each function, which follow `runtime.RUNTIME` in a translation unit.
exp and expm1 reduce by n ln 2 (in two parts) and evaluate 1 + r + r^2 q(r); log reduces to [sqrt 1/2, sqrt 2) and evaluates
2 s + s^3 p(s^2) with s = (m - 1) / (m + 1). The coefficients of q and p are Chebyshev fits of those two functions, computed in
40 digits: the error of the polynomial is below 0.1 unit in the last place. The others are numerically split forms of these.
Where AVX-512 has an instruction for a step of exp, it is used. Roots, rounding, erf, sin, cos, atan, log2 and pow go to the C
library lane by lane. Scalars go through one lane, so that they agree with vectors to the bit.
"""

from __future__ import annotations

from seqc.backends.native_cpu.parts import Part

MATH = (
    Part("bits number", "", r"""
INLINE mask bits(vec x) {
  mask r;
  std::memcpy(&r, &x, sizeof r);
  return r;
}
INLINE vec number(mask x) {
  vec r;
  std::memcpy(&r, &x, sizeof r);
  return r;
}
"""),
    Part("seqc_abs", "bits", r"""
INLINE vec seqc_abs(vec x) { return number(bits(x) & std::numeric_limits<whole>::max()); }
INLINE real seqc_abs(real x) { return std::fabs(x); }
"""),
    Part("horner", "", r"""
template <int n>
INLINE vec horner(vec x, const real (&c)[n]) {
  vec r = splat(c[n - 1]);
  UNROLL for (int i = n - 2; i >= 0; --i) r = r * x + c[i];
  return r;
}
"""),
    Part("FRACTION", "", r"""
constexpr int FRACTION = single ? 23 : 52;  // bits of a fraction
"""),
    Part("reduce", "bits horner FRACTION", r"""
constexpr int BIAS = single ? 127 : 1023;
INLINE vec power2(mask n) { return number((n + whole(BIAS)) << FRACTION); }  // 2^n, n a normal exponent
#if defined(__AVX512F__) && defined(__clang__)  // one instruction each; NaN passes through all of them
INLINE vec at_most(real top, vec x) {
  if constexpr (single) return (vec)_mm512_min_ps((__m512)splat(top), (__m512)x);
  else return (vec)_mm512_min_pd((__m512d)splat(top), (__m512d)x);
}
INLINE vec at_least(real bottom, vec x) {
  if constexpr (single) return (vec)_mm512_max_ps((__m512)splat(bottom), (__m512)x);
  else return (vec)_mm512_max_pd((__m512d)splat(bottom), (__m512d)x);
}
INLINE vec scaled(vec x, vec n) {  // x 2^n, n whole
  if constexpr (single) return (vec)_mm512_scalef_ps((__m512)x, (__m512)n);
  else return (vec)_mm512_scalef_pd((__m512d)x, (__m512d)n);
}
#elif defined(__AVX512F__)  // the same as gcc names them: all lanes, and the direction of rounding that is set
INLINE vec at_most(real top, vec x) {
  if constexpr (single) return (vec)__builtin_ia32_minps512_mask((floats)splat(top), (floats)x, floats{}, -1, 4);
  else return (vec)__builtin_ia32_minpd512_mask((doubles)splat(top), (doubles)x, doubles{}, -1, 4);
}
INLINE vec at_least(real bottom, vec x) {
  if constexpr (single) return (vec)__builtin_ia32_maxps512_mask((floats)splat(bottom), (floats)x, floats{}, -1, 4);
  else return (vec)__builtin_ia32_maxpd512_mask((doubles)splat(bottom), (doubles)x, doubles{}, -1, 4);
}
INLINE vec scaled(vec x, vec n) {  // x 2^n, n whole
  if constexpr (single) return (vec)__builtin_ia32_scalefps512_mask((floats)x, (floats)n, floats{}, -1, 4);
  else return (vec)__builtin_ia32_scalefpd512_mask((doubles)x, (doubles)n, doubles{}, -1, 4);
}
#else
INLINE vec at_most(real top, vec x) { return x > top ? splat(top) : x; }
INLINE vec at_least(real bottom, vec x) { return x < bottom ? splat(bottom) : x; }
INLINE vec scaled(vec x, vec n) {  // in two factors: the result may lie outside of the normal exponents
  const mask k = __builtin_convertvector(n == n ? n : vec{}, mask), half = k >> 1;
  return x * power2(half) * power2(k - half);
}
#endif
struct Reduced {
  vec n;  // x = n ln 2 + r, n whole
  vec p;   // exp(r) - 1
};
INLINE Reduced reduce(vec x) {
  constexpr real magic = single ? real(12582912.0) : real(6755399441055744.0);  // 1.5 * 2^FRACTION: rounds to integers
  constexpr real high = single ? real(0.693145751953125) : real(0.69314718036912381649);
  constexpr real low = single ? real(1.4286068203094172e-6) : real(1.9082149292705877e-10);
  const vec shifted = x * real(1.4426950408889634074) + magic;
  const vec n = shifted - magic;
  const vec r = (x - n * high) - n * low;
  vec q;
  if constexpr (single) {
    constexpr real c[] = {0.5, 0.16666576666119928, 0.041666554212984150, 0.0083632328836826182, 0.0013926250831497612};
    q = horner(r, c);
  } else {
    constexpr real c[] = {0.5, 0.1666666666666667103, 0.041666666666666669783, 0.0083333333333260831202,
                          0.0013888888888883711167, 0.00019841269875002278793, 0.0000248015873256774619,
                          2.7557255170000887438e-6, 2.7557273478718580474e-7, 2.5105312729622101787e-8,
                          2.09147553258932022e-9};
    q = horner(r, c);
  }
  return {n, r + r * r * q};
}
"""),
    Part("seqc_exp", "reduce", r"""
INLINE vec seqc_exp(vec x) {
  constexpr real top = single ? 89 : 710, bottom = single ? -104 : -746;
  const Reduced e = reduce(at_least(bottom, at_most(top, x)));
  return scaled(e.p + real(1), e.n);
}
INLINE real seqc_exp(real x) { return seqc_exp(splat(x))[0]; }
"""),
    Part("seqc_expm1", "reduce", r"""
INLINE vec seqc_expm1(vec x) {
  constexpr real top = single ? 89 : 710;
  const Reduced e = reduce(at_least(real(-50), at_most(top, x)));
  const vec scale = scaled(splat(real(1)), e.n - real(1));
  const vec y = (e.p * scale + (scale - real(0.5))) * real(2);
  return x == vec{} ? x : y;
}
INLINE real seqc_expm1(real x) { return seqc_expm1(splat(x))[0]; }
"""),
    Part("seqc_log", "bits horner FRACTION", r"""
INLINE vec seqc_log(vec x) {
  constexpr real high = single ? real(0.693145751953125) : real(0.69314718036912381649);
  constexpr real low = single ? real(1.4286068203094172e-6) : real(1.9082149292705877e-10);
  constexpr real lift = single ? real(33554432.0) : real(18014398509481984.0);  // 2^25, 2^54: out of the subnormals
  constexpr whole root = single ? whole(0x3f3504f3) : whole(0x3fe6a09e667f3bcdLL);  // sqrt(1/2)
  const mask tiny = x < std::numeric_limits<real>::min();
  const mask raw = bits(tiny ? x * lift : x);
  const mask n = (raw - root) >> FRACTION;
  const vec f = number(raw - (n << FRACTION)) - real(1);
  const mask down = tiny & whole(single ? 25 : 54);
  const vec k = __builtin_convertvector(n - down, vec);
  const vec s = f / (f + real(2)), z = s * s;
  vec p;
  if constexpr (single) {
    constexpr real c[] = {0.6666666655404201243, 0.40000122211810649396, 0.28550778633191965434,
                          0.23331614471843499235};
    p = z * horner(z, c);
  } else {
    constexpr real c[] = {0.66666666666666666463, 0.40000000000000883236, 0.28571428570799785031,
                          0.22222222392581045097, 0.18181795547521136235, 0.15386244737621666606,
                          0.13268638369266823879, 0.1308803485092755383};
    p = z * horner(z, c);
  }
  const vec square = f * f * real(0.5);
  const vec y = k * high - ((square - (s * (square + p) + k * low)) - f);
  const vec outside = x == vec{} ? splat(-infinity) : x < vec{} ? splat(std::numeric_limits<real>::quiet_NaN()) : x;
  return ((x > vec{}) & (x < infinity)) ? y : outside;  // inf and NaN are their own logarithms
}
INLINE real seqc_log(real x) { return seqc_log(splat(x))[0]; }
"""),
    Part("seqc_log1p", "seqc_log", r"""
INLINE vec seqc_log1p(vec x) {
  const vec u = x + real(1);
  const vec y = seqc_log(u) + (x - (u - real(1))) / u;
  return ((x > real(-1)) & (x < infinity)) ? (x == vec{} ? x : y) : seqc_log(u);
}
INLINE real seqc_log1p(real x) { return seqc_log1p(splat(x))[0]; }
"""),
    Part("seqc_sigmoid", "seqc_abs seqc_exp", r"""
INLINE vec seqc_sigmoid(vec x) {
  const vec e = seqc_exp(-seqc_abs(x)), r = real(1) / (e + real(1));
  return x >= vec{} ? r : e * r;
}
INLINE real seqc_sigmoid(real x) { return seqc_sigmoid(splat(x))[0]; }
"""),
    Part("seqc_softplus", "seqc_abs seqc_exp seqc_log1p", r"""
INLINE vec seqc_softplus(vec x) {
  const vec positive = x < vec{} ? vec{} : x;  // NaN stays
  return positive + seqc_log1p(seqc_exp(-seqc_abs(x)));
}
INLINE real seqc_softplus(real x) { return seqc_softplus(splat(x))[0]; }
"""),
    Part("seqc_logsigmoid", "seqc_softplus", r"""
INLINE vec seqc_logsigmoid(vec x) { return -seqc_softplus(-x); }
INLINE real seqc_logsigmoid(real x) { return seqc_logsigmoid(splat(x))[0]; }
"""),
    Part("seqc_logaddexp", "seqc_max seqc_abs seqc_exp seqc_log1p", r"""
INLINE vec seqc_logaddexp(vec a, vec b) {
  const vec high = seqc_max(a, b), gap = seqc_abs(a - b);
  return a == b ? a + real(0.693147180559945309417) : high + seqc_log1p(seqc_exp(-gap));
}
INLINE vec seqc_logaddexp(real a, vec b) { return seqc_logaddexp(splat(a), b); }
INLINE vec seqc_logaddexp(vec a, real b) { return seqc_logaddexp(a, splat(b)); }
INLINE real seqc_logaddexp(real a, real b) { return seqc_logaddexp(splat(a), splat(b))[0]; }
"""),
    Part("seqc_tanh", "seqc_abs seqc_expm1", r"""
INLINE vec signed_as(vec x, vec sign) {
  return number(bits(seqc_abs(x)) | (bits(sign) & std::numeric_limits<whole>::min()));
}
INLINE vec seqc_tanh(vec x) {
  const vec e = seqc_expm1(seqc_abs(x) * real(-2));
  return signed_as(e / (e + real(2)), x);
}
INLINE real seqc_tanh(real x) { return seqc_tanh(splat(x))[0]; }
"""),
    Part("seqc_sign", "", r"""
INLINE vec seqc_sign(vec x) {
  const vec one = splat(real(1));
  return x > vec{} ? one : (x < vec{} ? -one : vec{});
}
INLINE real seqc_sign(real x) { return real((x > 0) - (x < 0)); }
"""),
    Part("seqc_pow", "", r"""
INLINE vec seqc_pow(vec x, vec y) {
  vec r;
  for (int i = 0; i < W; ++i) r[i] = std::pow(x[i], y[i]);
  return r;
}
INLINE vec seqc_pow(vec x, real y) {
  if (y == real(2)) return x * x;
  if (y == real(1)) return x;
  if (y == real(-1)) return real(1) / x;
  return seqc_pow(x, splat(y));
}
INLINE vec seqc_pow(real x, vec y) { return seqc_pow(splat(x), y); }
INLINE real seqc_pow(real x, real y) { return y == real(2) ? x * x : std::pow(x, y); }
"""),
    Part("seqc_draw", "", r"""
// A multiple of 2^-24 in [0, 1) for whole numbers: a word of Threefry-2x32-20 (Salmon et al. 2011).
// The key is (low, high) with the bits of the site above, the counter (clock, element).
typedef std::uint32_t words __attribute__((vector_size(4 * W)));
typedef std::int32_t signed_words __attribute__((vector_size(4 * W)));
INLINE words as_words(vec x) { return (words)__builtin_convertvector(x, signed_words); }
INLINE words as_words(real x) { return words{} + std::uint32_t(std::int32_t(x)); }
template <int by>
INLINE words turned(words x) { return (x << by) | (x >> (32 - by)); }
INLINE vec hashed(words low, words high, words clock, words element, std::uint32_t site, bool second) {
  const words k0 = low ^ (site << 24), k1 = high ^ (site >> 8 << 24), k2 = k0 ^ k1 ^ 0x1BD11BDAu;
  words x0 = clock + k0, x1 = element + k1;
#define SEQC_ROUND(by) x0 += x1, x1 = turned<by>(x1) ^ x0;
#define SEQC_ROUNDS(a, b, c, d) SEQC_ROUND(a) SEQC_ROUND(b) SEQC_ROUND(c) SEQC_ROUND(d)
  SEQC_ROUNDS(13, 15, 26, 6) x0 += k1, x1 += k2 + 1u;
  SEQC_ROUNDS(17, 29, 16, 24) x0 += k2, x1 += k0 + 2u;
  SEQC_ROUNDS(13, 15, 26, 6) x0 += k0, x1 += k1 + 3u;
  SEQC_ROUNDS(17, 29, 16, 24) x0 += k1, x1 += k2 + 4u;
  SEQC_ROUNDS(13, 15, 26, 6) x0 += k2, x1 += k0 + 5u;
  return __builtin_convertvector((signed_words)((second ? x1 : x0) >> 8), vec) * real(5.9604644775390625e-8);
}
template <class A, class B, class C, class D>
INLINE auto seqc_draw(A low, B high, C clock, D element, real site, real word) {
  const vec x = hashed(as_words(low), as_words(high), as_words(clock), as_words(element), std::uint32_t(site), word != 0);
  if constexpr (std::is_arithmetic_v<A> && std::is_arithmetic_v<B> && std::is_arithmetic_v<C> && std::is_arithmetic_v<D>)
    return real(x[0]);
  else
    return x;
}
"""),
    *(
        Part(f"seqc_{name}", "", f"""
INLINE vec seqc_{name}(vec x) {{
  vec r;
  for (int i = 0; i < W; ++i) r[i] = std::{name}(x[i]);
  return r;
}}
INLINE real seqc_{name}(real x) {{ return std::{name}(x); }}
""")
        for name in ("sqrt", "erf", "sin", "cos", "atan", "floor", "log2", "rint")
    ),
)
