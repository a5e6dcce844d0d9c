"""The C++ text that every emitted translation unit begins with: vectors, loads, stores, horizontal sums.

In: nothing. Out: `RUNTIME`, and `functions(used)`: the mathematical functions (see `vector_math`) that a kernel needs.
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
INLINE mask truth(bool x) { return mask{} - whole(x); }
INLINE mask truth(mask x) { return x; }
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
// The same, and the next step's element is fetched into the cache: `ahead` is the distance to it.
template <bool full>
INLINE vec load_early(const real* p, i64 left, i64 ahead) {
  __builtin_prefetch(p + ahead, 0);
  return load<full>(p, left);
}
INLINE void stream(real* p, vec x) {  // past the caches, so that the memory there need not be read first; p is aligned
#if defined(__AVX__) && defined(__clang__)
  __builtin_nontemporal_store(x, reinterpret_cast<vec*>(p));
#elif defined(__AVX512F__)
  __builtin_ia32_movntdq512(reinterpret_cast<longs*>(p), (longs)x);
#elif defined(__AVX__)
  __builtin_ia32_movntdq256(reinterpret_cast<longs*>(p), (longs)x);
#else
  store(p, x);
#endif
}
INLINE void streamed() {  // what was streamed is visible to other threads from here on
#if defined(__AVX__)
  __builtin_ia32_sfence();
#endif
}
template <bool full, class X>
INLINE void store_early(real* p, X x, i64 left, i64 ahead, bool large) {  // large: too large an array for the caches
  if (full && large && reinterpret_cast<std::uintptr_t>(p) % BYTES == 0) return stream(p, splat(x));
  __builtin_prefetch(p + ahead, 1);
  store<full>(p, x, left);
}
// Elements that lie apart. A part of a vector is rare, and of many instructions: compiled once.
INLINE vec gather_all(const real* p, i64 stride) {
  vec r{};
  UNROLL for (int i = 0; i < W; ++i) r[i] = p[i * stride];
  return r;
}
ONCE vec gather_some(const real* p, i64 stride, i64 low, i64 high) {  // the lanes from low up to high, and 0 in the others
  vec r{};
  for (int i = 0; i < W; ++i)
    if (i >= low && i < high) r[i] = p[i * stride];
  return r;
}
template <bool full>
INLINE vec gather(const real* p, i64 stride, i64 left) {
  return full || left >= W ? gather_all(p, stride) : gather_some(p, stride, 0, left);
}
ONCE void scatter_some(real* p, vec x, i64 stride, i64 left) {
  for (int i = 0; i < W; ++i)
    if (i < left) p[i * stride] = x[i];
}
template <bool full>
INLINE void scatter(real* p, vec x, i64 stride, i64 left) {
  if (!full && left < W) return scatter_some(p, x, stride, left);
  UNROLL for (int i = 0; i < W; ++i) p[i * stride] = x[i];
}
template <bool full>
INLINE void scatter(real* p, real x, i64 stride, i64 left) { scatter<full>(p, splat(x), stride, left); }
// The vector of elements from `at` on that lie between `low` and `high`, and 0 elsewhere; p points at the first of them.
INLINE vec moved(const real* p, i64 stride, i64 at, i64 low, i64 high) {
  if (at < low || at + W > high) return gather_some(p, stride, low - at, high - at);
  return stride == 1 ? load(p) : gather_all(p, stride);
}
template <bool full>
INLINE vec keep(vec x, i64 left, real otherwise) {  // lanes outside are replaced before a sum over lanes
  return full || left >= W ? x : lanes() < splat(real(left)) ? x : splat(otherwise);
}

// Sums over lanes, for W rows at once: lane r of the result is the sum (or the maximum) of row r, in a fixed order.
template <int d, int... l>
INLINE vec pair_low(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? l + W : l)...);
}
template <int d, int... l>
INLINE vec pair_high(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? (l ^ d) + W : (l ^ d))...);
}
INLINE real seqc_max(real a, real b) { return a > b || a != a ? a : b; }
INLINE vec seqc_max(vec a, vec b) { return ((a > b) | (a != a)) ? a : b; }
INLINE real seqc_min(real a, real b) { return a < b || a != a ? a : b; }
INLINE vec seqc_min(vec a, vec b) { return ((a < b) | (a != a)) ? a : b; }
template <bool most, int d>
INLINE void fold_rows(vec* r) {
  if constexpr (d > 0) {
    constexpr auto l = std::make_integer_sequence<int, W>{};
    UNROLL for (int i = 0; i < d; ++i) {
      const vec low = pair_low<d>(r[i], r[i + d], l), high = pair_high<d>(r[i], r[i + d], l);
      r[i] = most ? seqc_max(low, high) : low + high;
    }
    fold_rows<most, d / 2>(r);
  }
}
template <bool most = false>
ONCE void across(const real* rows, real* out, i64 n) {  // rows: n vectors; out: n values, padded
  for (i64 i = 0; i < n; i += W) {
    vec r[W];
    UNROLL for (int j = 0; j < W; ++j) r[j] = i + j < n ? load(rows + (i + j) * W) : vec{};
    fold_rows<most, W / 2>(r);
    store(out + i, r[0]);
  }
}
template <bool most>
INLINE real total(vec x) {
  alignas(BYTES) real out[W];
  alignas(BYTES) real row[W];
  store(row, x);
  across<most>(row, out, 1);
  return out[0];
}

// Choice and truth values, for scalars and vectors alike.
template <class C, class A, class B>
INLINE auto seqc_where(C c, A a, B b) {
  if constexpr (std::is_same_v<C, bool>)
    return c ? splat(a) : splat(b);
  else
    return c ? splat(a) : splat(b);
}
INLINE real seqc_where(bool c, real a, real b) { return c ? a : b; }
INLINE bool seqc_and(bool a, bool b) { return a && b; }
INLINE bool seqc_or(bool a, bool b) { return a || b; }
INLINE bool seqc_not(bool a) { return !a; }
template <class A, class B>
INLINE mask seqc_and(A a, B b) { return truth(a) & truth(b); }
template <class A, class B>
INLINE mask seqc_or(A a, B b) { return truth(a) | truth(b); }
INLINE mask seqc_not(mask a) { return ~a; }
INLINE real as_real(bool x) { return x ? real(1) : real(0); }
INLINE vec as_real(mask x) { return x ? splat(real(1)) : vec{}; }
INLINE real as_real(real x) { return x; }
INLINE vec as_real(vec x) { return x; }

template <int d, int... l>
INLINE vec pair_first(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? (l ^ d) + W : l)...);
}
template <int d, int... l>
INLINE vec pair_second(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? l + W : (l ^ d))...);
}
template <int d>
INLINE void turn(vec* r) {
  if constexpr (d > 0) {
    constexpr auto l = std::make_integer_sequence<int, W>{};
    UNROLL for (int i = 0; i < W; ++i)
      if (!(i & d)) {
        const vec first = pair_first<d>(r[i], r[i + d], l), second = pair_second<d>(r[i], r[i + d], l);
        r[i] = first, r[i + d] = second;
      }
    turn<d / 2>(r);
  }
}
// to[j * to_stride + i] = from[i * from_stride + j] for i < rows, j < columns. Of many instructions: compiled once.
ONCE void transpose(const real* from, i64 from_stride, real* to, i64 to_stride, i64 rows, i64 columns) {
  for (i64 i0 = 0; i0 < rows; i0 += W)
    for (i64 j0 = 0; j0 < columns; j0 += W) {
      vec r[W];
      UNROLL for (int i = 0; i < W; ++i)
        r[i] = i0 + i < rows ? load<false>(from + (i0 + i) * from_stride + j0, columns - j0) : vec{};
      turn<W / 2>(r);
      UNROLL for (int j = 0; j < W; ++j)
        if (j0 + j < columns) store<false>(to + (j0 + j) * to_stride + i0, r[j], rows - i0);
    }
}

// Threads that share a program: each takes a part of the vectors of every loop nest, and all meet after it.
struct Team {
  struct Common {
    alignas(64) std::atomic<i64> arrived{0};
    alignas(64) std::atomic<i64> turn{0};
    void* memory = nullptr;
  };
  Common* common;
  i64 member, members;
  bool first() const { return member == 0; }
  i64 from(i64 blocks) const { return blocks * member / members; }
  i64 upto(i64 blocks) const { return blocks * (member + 1) / members; }
  // every second step goes backwards, so that it begins with what the caches still have of the step before
  i64 there(i64 b, i64 blocks, i64 step) const { return step & 1 ? from(blocks) + upto(blocks) - 1 - b : b; }
  void meet() const {
    if (members > 1) wait();
  }
  __attribute__((noinline)) void wait() const {
    const i64 now = common->turn.load(std::memory_order_relaxed);
    if (common->arrived.fetch_add(1, std::memory_order_acq_rel) == members - 1) {
      common->arrived.store(0, std::memory_order_relaxed);
      common->turn.store(now + 1, std::memory_order_release);
      return;
    }
    for (int waited = 0; common->turn.load(std::memory_order_acquire) == now; ++waited) {
      if (waited > 64) sched_yield();  // another one may need this core to arrive
#if defined(__x86_64__)
      else __builtin_ia32_pause();
#endif
    }
  }
};

// Runs all programs on so many threads: each by one of them, or (wide, and fewer programs than half the threads) by a team.
template <class Run>
int run_programs(i64 programs, i64 threads, bool wide, const Run& run) {
  int failed = 0;
#if defined(_OPENMP)
  const i64 members = wide && programs ? threads / programs : 1;
  if (members > 1) {
    std::unique_ptr<Team::Common[]> teams(new (std::nothrow) Team::Common[programs]);
    if (!teams) return 1;
    bool alone = false;
#pragma omp parallel num_threads(int(members * programs)) reduction(| : failed)
    {
      const i64 thread = omp_get_thread_num();
      if (omp_get_num_threads() == members * programs)
        failed |= run(thread / members, Team{&teams[thread / members], thread % members, members});
      else if (thread == 0)
        alone = true;  // the system has not as many threads to give
    }
    if (!alone) return failed;
  }
#endif
#pragma omp parallel for num_threads(int(threads)) schedule(dynamic) reduction(| : failed) if (threads > 1)
  for (i64 program = 0; program < programs; ++program) {
    Team::Common own;
    failed |= run(program, Team{&own, 0, 1});
  }
  return failed;
}

template <class Scratch>
Scratch* scratch() {  // one per thread and kernel, kept between calls; zero at first
  static thread_local std::unique_ptr<Scratch> kept;
  if (!kept) kept.reset(new (std::nothrow) Scratch());
  return kept.get();
}
"""
