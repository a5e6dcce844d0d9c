"""The C++ that some kernels need besides `runtime.RUNTIME`: memory that is read otherwise, sums over lanes, truth, threads.

In: nothing. Out: `PARTS`, each with the names that kernels mention, and those of other parts that it mentions itself.
"""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """gives, needs: names, with spaces between them; text: C++ in the kernels' namespace."""

    gives: str
    needs: str
    text: str


PARTS = (
    Part("load_early store_early stream streamed", "", r"""
// A load or a store, and the next step's element is fetched into the cache: `ahead` is the distance to it.
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
"""),
    Part("gather gather_all gather_some", "", r"""
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
"""),
    Part("scatter", "", r"""
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
"""),
    Part("moved", "gather", r"""
// The vector of elements from `at` on that lie between `low` and `high`, and 0 elsewhere; p points at the first of them.
INLINE vec moved(const real* p, i64 stride, i64 at, i64 low, i64 high) {
  if (at < low || at + W > high) return gather_some(p, stride, low - at, high - at);
  return stride == 1 ? load(p) : gather_all(p, stride);
}
"""),
    Part("keep", "", r"""
template <bool full>
INLINE vec keep(vec x, i64 left, real otherwise) {  // lanes outside are replaced before a sum over lanes
  return full || left >= W ? x : lanes() < splat(real(left)) ? x : splat(otherwise);
}
"""),
    Part("seqc_max", "", r"""
INLINE real seqc_max(real a, real b) { return a > b || a != a ? a : b; }
INLINE vec seqc_max(vec a, vec b) { return ((a > b) | (a != a)) ? a : b; }
INLINE vec seqc_max(real a, vec b) { return seqc_max(splat(a), b); }
INLINE vec seqc_max(vec a, real b) { return seqc_max(a, splat(b)); }
"""),
    Part("seqc_min", "", r"""
INLINE real seqc_min(real a, real b) { return a < b || a != a ? a : b; }
INLINE vec seqc_min(vec a, vec b) { return ((a < b) | (a != a)) ? a : b; }
INLINE vec seqc_min(real a, vec b) { return seqc_min(splat(a), b); }
INLINE vec seqc_min(vec a, real b) { return seqc_min(a, splat(b)); }
"""),
    Part("across total fold_rows", "seqc_max", r"""
// Sums over lanes, for W rows at once: lane r of the result is the sum (or the maximum) of row r, in a fixed order.
template <int d, int... l>
INLINE vec pair_low(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? l + W : l)...);
}
template <int d, int... l>
INLINE vec pair_high(vec a, vec b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, ((l & d) ? (l ^ d) + W : (l ^ d))...);
}
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
"""),
    Part("seqc_where", "", r"""
template <class C, class A, class B>
INLINE auto seqc_where(C c, A a, B b) {
  if constexpr (std::is_same_v<C, bool>)
    return c ? splat(a) : splat(b);
  else
    return c ? splat(a) : splat(b);
}
INLINE real seqc_where(bool c, real a, real b) { return c ? a : b; }
"""),
    Part("seqc_and seqc_or seqc_not", "", r"""
INLINE mask truth(bool x) { return mask{} - whole(x); }
INLINE mask truth(mask x) { return x; }
INLINE bool seqc_and(bool a, bool b) { return a && b; }
INLINE bool seqc_or(bool a, bool b) { return a || b; }
INLINE bool seqc_not(bool a) { return !a; }
template <class A, class B>
INLINE mask seqc_and(A a, B b) { return truth(a) & truth(b); }
template <class A, class B>
INLINE mask seqc_or(A a, B b) { return truth(a) | truth(b); }
INLINE mask seqc_not(mask a) { return ~a; }
"""),
    Part("as_real", "", r"""
INLINE real as_real(bool x) { return x ? real(1) : real(0); }
INLINE vec as_real(mask x) { return x ? splat(real(1)) : vec{}; }
INLINE real as_real(real x) { return x; }
INLINE vec as_real(vec x) { return x; }
"""),
    Part("turn transpose", "", r"""
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
"""),
    Part("Team run_programs", "", r"""
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
"""),
    Part("some", "", r"""
INLINE bool some(mask x) {  // whether any lane holds
  typedef i64 wide __attribute__((vector_size(BYTES)));
  const wide r = reinterpret_cast<wide>(x);
  i64 any = 0;
  for (int i = 0; i < BYTES / 8; ++i) any |= r[i];
  return any;
}
"""),
)
