"""The C++ text that every emitted translation unit begins with: types, a call, loops over vectors, loads and stores.

In: nothing. Out: `RUNTIME`, which opens a namespace; what only some kernels need follows (`needed`).
The element type is the macro SEQC_REAL (float or double). Everything is written on the compiler's generic vectors (gcc and
clang know them), as wide as the host's registers: no fast-math, and the same code for scalars, which go
through one lane of a vector, so that a value does not depend on whether it was computed alone.
"""

from __future__ import annotations

RUNTIME = r"""
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

// Of <algorithm>, <memory> and <thread>, which are more than half of what is read here, a few names are used.
#if __has_include(<bits/stl_algobase.h>) && __has_include(<bits/unique_ptr.h>) && __has_include(<sched.h>)
#include <bits/stl_algobase.h>
#include <bits/unique_ptr.h>
#include <sched.h>
#else
#include <algorithm>
#include <memory>
#include <thread>
#define sched_yield std::this_thread::yield
#endif

using real = SEQC_REAL;
using i64 = std::int64_t;

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__AVX512F__) && defined(__clang__)  // gcc reads this header for as long as all others: its own names are used there
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
constexpr int W = BYTES / int(sizeof(real));  // lanes of a vector
constexpr bool single = sizeof(real) == 4;
constexpr real infinity = std::numeric_limits<real>::infinity();
using whole = std::conditional_t<sizeof(real) == 4, std::int32_t, std::int64_t>;
typedef real vec __attribute__((vector_size(BYTES)));
typedef whole mask __attribute__((vector_size(BYTES)));  // all bits of a lane: its truth value; or integers

// A call: B sequences of T steps, or a pack of B in one row: sequence i has the steps from bounds[i] up to bounds[i + 1].
// way: 1 from the first step to the last, -1 from the last to the first.
struct Call {
  i64 B, T, way;
  const i64* bounds;
  i64 rows() const { return bounds ? bounds[B] : B * T; }
  i64 steps(i64 i) const { return bounds ? bounds[i + 1] - bounds[i] : T; }
  i64 row(i64 i) const { return bounds ? bounds[i] : i * T; }
  // where the segments of sequence i begin: bounds[i] / every + i leaves each sequence of a pack as many as it needs
  i64 segment(i64 i, i64 every) const { return bounds ? bounds[i] / every + i : i * ((T + every - 1) / every); }
};

#define INLINE inline __attribute__((always_inline))
#define ONCE inline __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 32")

constexpr i64 chunks(i64 n) { return (n + W - 1) / W; }  // vectors that n values fill
constexpr i64 padded(i64 n) { return chunks(n) * W; }
constexpr i64 quotient(i64 n, i64 by) { return (n + by - 1) / by; }  // rounded up
constexpr i64 fitting(i64 most, i64 room) { return std::max<i64>(1, std::min(most, room)); }
constexpr i64 divisor(i64 n, i64 most) {  // the largest divisor of n that is at most `most`
  i64 d = std::max<i64>(1, std::min(n, most));
  while (n % d) --d;
  return d;
}
// Loops over the vectors of n values: blocks of CB vectors, as many as leave no rest, at most `most`; c0 is the first of one.
// BLOCKS_OF: those from `first` up to `last`, the b-th at its `place`. VECTORS: of one block; `at` is where a vector begins.
#define BLOCKS(n, most)                                               \
  if constexpr (constexpr i64 CB = divisor((n) / W, most); true)      \
    for (i64 c0 = 0; c0 < (n) / W; c0 += CB)
#define BLOCKS_OF(n, most, first, last, place)                                                        \
  if constexpr (constexpr i64 CB = divisor((n) / W, most), blocks = (n) / W / CB; true)               \
    for (i64 b = first; b < last; ++b)                                                                \
      if (const i64 c0 = CB * (place); true)
#define VECTORS(count) UNROLL for (int c = 0; c < count; ++c) if (const i64 at = (c0 + c) * W; true)
#define EACH_VECTOR(n, most) BLOCKS(n, most) VECTORS(CB)

INLINE vec splat(real x) { return x - vec{}; }
INLINE vec splat(vec x) { return x; }
INLINE vec lanes() {  // 0, 1, 2, ...
  vec r{};
  for (int i = 0; i < W; ++i) r[i] = real(i);
  return r;
}

// Loads and stores. `full`: the extent is a multiple of W, known when compiled; else `left` values are inside. No
// memcpy: GCC 12 stores 64 bytes of known numbers that end in zeros as if the first were repeated in all of them.
typedef vec loose __attribute__((aligned(alignof(real)), may_alias));
INLINE vec load(const real* p) { return *reinterpret_cast<const loose*>(p); }
INLINE void store(real* p, vec x) { *reinterpret_cast<loose*>(p) = x; }
INLINE void store(real* p, real x) { store(p, splat(x)); }
// The first `left` elements, and 0 in the other lanes: one instruction where the processor has it, which touches nothing else.
#if defined(__AVX512F__)
INLINE unsigned first(i64 left) { return left > 0 ? (1u << left) - 1 : 0; }
#endif
#if defined(__AVX__) && !defined(__clang__)
typedef float floats __attribute__((vector_size(BYTES)));
typedef double doubles __attribute__((vector_size(BYTES)));
typedef int ints __attribute__((vector_size(BYTES)));
typedef long long longs __attribute__((vector_size(BYTES)));
#endif
#if defined(__AVX512F__) && defined(__clang__)
INLINE vec load_some(const real* p, i64 left) {
  if constexpr (sizeof(real) == 4) return (vec)_mm512_maskz_loadu_ps(__mmask16(first(left)), p);
  else return (vec)_mm512_maskz_loadu_pd(__mmask8(first(left)), p);
}
INLINE void store_some(real* p, vec x, i64 left) {
  if constexpr (sizeof(real) == 4) _mm512_mask_storeu_ps(p, __mmask16(first(left)), (__m512)x);
  else _mm512_mask_storeu_pd(p, __mmask8(first(left)), (__m512d)x);
}
#elif defined(__AVX512F__)
INLINE vec load_some(const real* p, i64 left) {
  if constexpr (sizeof(real) == 4) return (vec)__builtin_ia32_loadups512_mask((const float*)p, floats{}, short(first(left)));
  else return (vec)__builtin_ia32_loadupd512_mask((const double*)p, doubles{}, char(first(left)));
}
INLINE void store_some(real* p, vec x, i64 left) {
  if constexpr (sizeof(real) == 4) __builtin_ia32_storeups512_mask((float*)p, (floats)x, short(first(left)));
  else __builtin_ia32_storeupd512_mask((double*)p, (doubles)x, char(first(left)));
}
#elif defined(__AVX2__) && !defined(__clang__)
INLINE mask first(i64 left) { return lanes() < splat(real(left)); }
INLINE vec load_some(const real* p, i64 left) {
  if constexpr (sizeof(real) == 4) return (vec)__builtin_ia32_maskloadps256((const floats*)p, (ints)first(left));
  else return (vec)__builtin_ia32_maskloadpd256((const doubles*)p, (longs)first(left));
}
INLINE void store_some(real* p, vec x, i64 left) {
  if constexpr (sizeof(real) == 4) __builtin_ia32_maskstoreps256((floats*)p, (ints)first(left), (floats)x);
  else __builtin_ia32_maskstorepd256((doubles*)p, (longs)first(left), (doubles)x);
}
#else
INLINE vec load_some(const real* p, i64 left) {
  vec r{};
  for (int i = 0; i < W; ++i)
    if (i < left) r[i] = p[i];
  return r;
}
INLINE void store_some(real* p, vec x, i64 left) {
  for (int i = 0; i < W; ++i)
    if (i < left) p[i] = x[i];
}
#endif
template <bool full>
INLINE vec load(const real* p, i64 left) { return full || left >= W ? load(p) : load_some(p, left); }
template <bool full>
INLINE void store(real* p, vec x, i64 left) { return full || left >= W ? store(p, x) : store_some(p, x, left); }
template <bool full>
INLINE void store(real* p, real x, i64 left) { store<full>(p, splat(x), left); }
template <class Scratch>
Scratch* scratch() {  // one per thread and kernel, kept between calls; zero at first
  static thread_local std::unique_ptr<Scratch> kept;
  if (!kept) kept.reset(new (std::nothrow) Scratch());
  return kept.get();
}
"""
