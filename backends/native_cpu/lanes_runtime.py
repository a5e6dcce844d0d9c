"""The C++ of the runs in lanes that is the same for all recurrences: `LANES`, with `$NAMES$` that `lanes_text` fills in.

A sequence is cut in stretches of W pieces of C steps, few enough that the first cache holds what a stretch reads; lane l runs
piece l. A step has D channels, which lie side by side: they are run one after the other, so that the
steps of all channels are one row of elements, and an element's past is D elements before it. Rows of W elements of W pieces
are turned in registers, so that memory is read along the row.

What is read ends in a cache before it is wanted: a stretch is fetched while the one before it is run.
"""

from __future__ import annotations

NEEDS = frozenset(("gather_all", "streamed", "turn"))  # of `LANES`, and of `ANSWERS` too
ANSWERS_NEED = frozenset(("fold_rows", "some"))

LANES = """
constexpr int D = $CHANNELS$;
constexpr int lane_backs[] = {$BACKS$}, lane_aheads[] = {$AHEAD$};  // steps that an input is read before: in the run, in memory
constexpr i64 lane_most = i64(SEQC_L1) * 3 / 4 / ($INPUTS$ * D * W * i64(sizeof(real))) / W * W;
constexpr i64 LONG = lane_most < 2 * W ? 2 * W : lane_most;  // steps of a piece of a whole stretch
constexpr i64 lane_shortest = $SIZED$ ? i64(8) * W * W : std::numeric_limits<i64>::max();
INLINE bool lane_long(i64 T) { return T >= lane_shortest; }

struct LaneArrays { const real* x[$INPUTS$]; real* y[$OUTPUTS$]; };
struct LaneStates { vec s[$STATES$][D], m[$BESIDE$ + 1][D], sum[$SUMS$ + 1][D]; };

// Pieces of C steps from step `from` on; the sequence lies at `row` and has T steps.
struct Stretch { i64 row, T, from, C; };

// Where the first W elements of a piece of a stretch lie.
template <bool onward>
INLINE i64 lane_place(const Stretch& at, int piece) {
  const i64 t = at.from + piece * at.C;
  return onward ? (at.row + t) * D : (at.row + at.T - t) * D - W;
}

// The element k + 1 before each piece.
template <bool onward>
INLINE vec lane_before(const real* x, int ahead, const Stretch& at, int k) {
  const i64 place = lane_place<onward>(at, 0) + (onward ? ahead * D - 1 - k : W - ahead * D + k);
  const i64 apart = (onward ? at.C : -at.C) * D, low = at.row * D, high = (at.row + at.T) * D;
  if (at.from > 0) return gather_all(x + place, apart);
  vec r{};
  for (int l = 0; l < W; ++l) r[l] = place + l * apart < low || place + l * apart >= high ? real(0) : x[place + l * apart];
  return r;
}

// A stretch's pieces; ends: from zero, with the spans beside; else the run itself. c: the numbers of each channel, twice.
template <bool onward, bool ends, bool save>
void lane_run(const LaneArrays& a, const LaneNumbers* c, const Stretch& at, LaneStates& w) {
  const i64 C = at.C * D, apart = onward ? C : -C;
  constexpr int read = ends ? $EARLY$ : $INPUTS$, given = ends ? 0 : save ? $GIVEN$ : $ALONE$, far = $LAGS$ * D;
  vec before[$INPUTS$][far];
  for (int n = 0; n < read; ++n)
    for (int k = 0; k < lane_backs[n] * D; ++k) before[n][k] = lane_before<onward>(a.x[n], lane_aheads[n], at, k);
  bool past[$OUTPUTS$];  // what is too large for the caches is written past them, where a row begins as a vector does
  for (int i = 0; i < given; ++i) {
    const auto begin = reinterpret_cast<std::uintptr_t>(a.y[i] + lane_place<onward>(at, 0));
    past[i] = at.T * D * i64(sizeof(real)) > 1048576 && begin % BYTES == 0;
  }
  int from = 0;  // the channel of a tile's first element
  for (i64 e = 0; e < C; e += W, from = (from + W) % D) {
    const i64 first = lane_place<onward>(at, 0) + (onward ? e : -e);
    vec tile[$INPUTS$][W], made[$OUTPUTS$][W], s[$STATES$][D + W], m[$BESIDE$ + 1][D + W];
    UNROLL for (int n = 0; n < read; ++n) {
      const real* p = a.x[n] + first + (onward ? lane_aheads[n] : -lane_aheads[n]) * D;
      UNROLL for (int l = 0; l < W; ++l, p += apart) {
        if constexpr (!ends) __builtin_prefetch(p + W * apart, 0, 2);
        tile[n][l] = load(p);
      }
      turn<W / 2>(tile[n]);
    }
    UNROLL for (int d = 0; d < D; ++d) {
      UNROLL for (int i = 0; i < $STATES$; ++i) s[i][d] = w.s[i][d];
      if constexpr (ends) UNROLL for (int i = 0; i < $BESIDE$; ++i) m[i][d] = w.m[i][d];
    }
    UNROLL for (int j = 0; j < W; ++j) {
      const LaneNumbers& own = c[D == 1 ? 0 : from + j % D];
      vec in[$INPUTS$][$LAGS$ + 1], now[$STATES$], out[$OUTPUTS$], sum[$SUMS$ + 1], link[$BESIDE$ + 1];
      UNROLL for (int n = 0; n < read; ++n)
        UNROLL for (int k = 0; k <= lane_backs[n]; ++k)
          in[n][k] = k * D <= j ? tile[n][onward ? j - k * D : W - 1 - j + k * D] : before[n][k * D - j - 1];
      UNROLL for (int i = 0; i < $STATES$; ++i) now[i] = s[i][j];
      if constexpr (ends) {
        lane_ends<vec>(own, in, now);
        UNROLL for (int i = 0; i < $BESIDE$; ++i) link[i] = m[i][j];
        if constexpr ($BESIDE$ > 0) lane_spans<vec>(own, in, link);
        UNROLL for (int i = 0; i < $BESIDE$; ++i) m[i][j + D] = link[i];
      } else {
        const int d = D == 1 ? 0 : (from + j) % D;
        UNROLL for (int i = 0; i < $SUMS$; ++i) sum[i] = w.sum[i][d];
        lane_steps<vec>(own, in, now, out, sum);
        UNROLL for (int i = 0; i < $SUMS$; ++i) w.sum[i][d] = sum[i];
        UNROLL for (int i = 0; i < given; ++i) made[i][onward ? j : W - 1 - j] = out[i];
      }
      UNROLL for (int i = 0; i < $STATES$; ++i) s[i][j + D] = now[i];
    }
    UNROLL for (int d = 0; d < D; ++d) {
      UNROLL for (int i = 0; i < $STATES$; ++i) w.s[i][d] = s[i][W + d];
      if constexpr (ends) UNROLL for (int i = 0; i < $BESIDE$; ++i) w.m[i][d] = m[i][W + d];
    }
    UNROLL for (int n = 0; n < read; ++n)
      UNROLL for (int k = lane_backs[n] * D - 1; k >= 0; --k)
        before[n][k] = k < W ? tile[n][onward ? W - 1 - k : k] : before[n][k - W];
    UNROLL for (int i = 0; i < given; ++i) {
      turn<W / 2>(made[i]);
      real* q = a.y[i] + first;
      if (past[i]) UNROLL for (int l = 0; l < W; ++l, q += apart) stream(q, made[i][l]);
      else UNROLL for (int l = 0; l < W; ++l, q += apart) store(q, made[i][l]);
    }
  }
}
$ANSWERS$
constexpr int lane_links[][2] = {$PLACES$};

INLINE void lane_squared(real* m, const real* by) {  // a matrix of links times m, which may lack what no state comes of
  real whole[$STATES$][$STATES$] = {}, left[$STATES$][$STATES$] = {}, right[$STATES$][$STATES$] = {};
  for (int k = 0; k < $LINKS$; ++k) {
    left[lane_links[k][0]][lane_links[k][1]] = m[k];
    right[lane_links[k][0]][lane_links[k][1]] = by[k];
  }
  for (int i = 0; i < $STATES$; ++i)
    for (int j = 0; j < $STATES$; ++j)
      for (int k = 0; k < $STATES$; ++k) whole[i][j] += right[i][k] * left[k][j];
  for (int k = 0; k < $LINKS$; ++k) m[k] = whole[lane_links[k][0]][lane_links[k][1]];
}

// The span of C steps, where a step's is the same at all: powers of one.
INLINE void lane_power(const LaneNumbers& c, i64 C, real* span) {
  real one[$LINKS$], again[$LINKS$];
  for (int k = 0; k < $LINKS$; ++k) one[k] = span[k] = real(lane_links[k][0] == lane_links[k][1]);
  lane_spans<real>(c, nullptr, one);
  for (i64 left = C; left; left >>= 1) {
    if (left & 1) lane_squared(span, one);
    std::copy(one, one + $LINKS$, again);
    lane_squared(one, again);
  }
}

// The states before each piece of a stretch, from those before the stretch: s, which becomes those after it.
INLINE void lane_joined(LaneStates& w, const real (*span)[$LINKS$], real (*s)[D]) {
  for (int d = 0; d < D; ++d)
    for (int l = 0; l < W; ++l) {
      real after[$STATES$];
        for (int i = 0; i < $STATES$; ++i) after[i] = w.s[i][d][l];
        for (int k = 0; k < $LINKS$; ++k)
          after[lane_links[k][0]] += ($FIXED$ ? span[d][k] : w.m[k < $BESIDE$ ? k : 0][d][l]) * s[lane_links[k][1]][d];
        for (int i = 0; i < $STATES$; ++i) w.s[i][d][l] = s[i][d], s[i][d] = after[i];
      }
}

template <bool onward, bool save>
int run_lanes(const $TITLE$& a, const Call& call, i64 i_B, i64 threads) {
  const i64 T = call.steps(i_B), row = call.row(i_B);
  const LaneArrays arrays{{$ARRAYS$}, {$RESULTS$}};
  LaneNumbers c[2 * D];
  for (int d = 0; d < 2 * D; ++d) c[d] = lane_numbers(a, onward ? d % D : D - 1 - d % D);
  const bool several = threads > 1 && T * D > 131072;  // else one thread is faster
  const i64 most = several ? 8 * threads : 1;  // stretches that are cut before they are run
  const std::unique_ptr<LaneStates[]> states(new (std::nothrow) LaneStates[most]);
  if (!states) return 1;
  const real* const starts[] = {$STARTS$};
  real s[$STATES$][D], span[D][$LINKS$] = {};
  vec sums[$SUMS$ + 1][D] = {};
  for (int i = 0; i < $STATES$; ++i)
    for (int d = 0; d < D; ++d) s[i][d] = starts[i] ? starts[i][i_B * D + (onward ? d : D - 1 - d)] : real(0);
  i64 from = 0;
  const LaneStates* last = nullptr;
$ANSWERED$
  for (i64 C = LONG, known = 0, many; ; from += many * W * C) {
    const i64 left = T - $LEFT$ - from;
    if (left < W * C) C = left / W / W * W;
    if (C <= 0) break;
    many = std::min(most, left / (W * C));
    for (int d = 0; $FIXED$ && C != known && d < D; ++d) lane_power(c[d], C, span[d]);
    known = C;
    const auto each = [&](auto run) {
      if (many == 1) return run(Stretch{row, T, from, C}, states[0]);  // a team of one would take long to meet
#pragma omp parallel for num_threads(int(std::min(threads, many)))
      for (i64 k = 0; k < many; ++k) run(Stretch{row, T, from + k * W * C, C}, states[k]);
    };
    each([&](const Stretch& at, LaneStates& w) {
      w = LaneStates{};
      for (int k = 0; k < $BESIDE$; ++k)
        for (int d = 0; d < D; ++d)
          w.m[k][d] = splat(real(lane_links[k][0] == lane_links[k][1]));
      $ENDED$
    });
    for (i64 k = 0; k < many; ++k) lane_joined(states[k], span, s);
    each([&](const Stretch& at, LaneStates& w) { lane_run<onward, false, save>(arrays, c, at, w); });
    for (i64 k = 0; k < many; ++k)
      for (int i = 0; i < $SUMS$; ++i)
        for (int d = 0; d < D; ++d)
          sums[i][d] += states[k].sum[i][d];
    last = &states[many - 1];
  }
  streamed();
  for (int i = 0; last && i < $STATES$; ++i)
    for (int d = 0; d < D; ++d) s[i][d] = last->s[i][d][W - 1];  // as the outputs have them
  // the steps that are left, one by one
  const real* const alts[][$LAGS$ + 1] = {$ALTS$};
  real total[D][$SUMS$ + 1] = {};
  for (int i = 0; i < $SUMS$; ++i)
    for (int d = 0; d < D; ++d)
      for (int l = 0; l < W; ++l) total[d][i] += sums[i][d][l];
  for (i64 t = from; t < T; ++t)
    for (int d = 0; d < D; ++d) {
      const int channel = onward ? d : D - 1 - d;
      const i64 here = (row + (onward ? t : T - 1 - t)) * D + channel;
      real in[$INPUTS$][$LAGS$ + 1], now[$STATES$], out[$OUTPUTS$];
      for (int n = 0; n < $INPUTS$; ++n)
        for (int k = 0; k <= lane_backs[n]; ++k) {
          const i64 place = onward ? t - k + lane_aheads[n] : T - 1 - t + k - lane_aheads[n];
          const real* const other = alts[n][k];
          in[n][k] = place >= 0 && place < T ? arrays.x[n][(row + place) * D + channel] : other ? other[here] : real(0);
        }
      for (int i = 0; i < $STATES$; ++i) now[i] = s[i][d];
      lane_steps<real>(c[d], in, now, out, total[d]);
      for (int i = 0; i < $STATES$; ++i) s[i][d] = now[i];
      for (int i = 0; i < (save ? $GIVEN$ : $ALONE$); ++i) arrays.y[i][here] = out[i];
    }
  real* const ends[] = {$ENDS$};
  for (int d = 0; d < D; ++d) {
    const int channel = onward ? d : D - 1 - d;
    for (int i = 0; i < $STATES$; ++i) if (ends[i]) ends[i][i_B * D + channel] = s[i][d];
$ADDED$
  }
  return 0;
}
"""

# Of a recurrence that answers the same at all steps, the ends of pieces are sums of inputs by answers to single ones.
ANSWERS = """
constexpr bool lane_reads[][$INPUTS$] = {$READS$};  // whether a state comes of an input
struct LaneAnswers {  // by: as the inputs of a piece lie in memory; late: to those before the piece
  alignas(BYTES) real by[$STATES$][$INPUTS$][LONG];
  real late[$STATES$][$INPUTS$][$LAGS$];
};

// The states after a piece, for a 1 at each place. False where an answer is nothing for good: 0 of a NaN would be one.
template <bool onward>
bool lane_answers(const LaneNumbers& c, LaneAnswers& to) {
  constexpr real least = std::numeric_limits<real>::min();
  const real tiny = std::sqrt(least);
  bool serves = true;
  for (int n = 0; n < $EARLY$; ++n)
    for (int lag = 0; lag <= lane_backs[n]; lag += W) {  // lane l: a 1 that is read l steps back at the first step
      vec s[$STATES$] = {};
      vec in[$INPUTS$][$LAGS$ + 1] = {};
      for (i64 t = 0; t < LONG; ++t) {
        for (int k = 0; t <= lane_backs[n] + 1 && k <= lane_backs[n]; ++k) {
          in[n][k] = vec{};
          if (k - lag - t >= 0 && k - lag - t < W) in[n][k][k - lag - t] = 1;
        }
        lane_ends<vec>(c, in, s);
        real largest = 0;
        for (int i = 0; i < $STATES$; ++i) largest = std::max(largest, std::abs(s[i][0]));
        for (int i = 0; lag == 0 && i < $STATES$; ++i) {
          real x = s[i][0];
          if (lane_reads[i][n] && std::abs(x) < least) {  // so small that it is a sign alone
            if (largest < tiny) x = std::copysign(least, x);
            else if (t >= W) serves = false;
          }
          to.by[i][n][onward ? LONG - 1 - t : t] = x;
        }
      }
      for (int i = 0; i < $STATES$; ++i)
        for (int l = 0; l < W; ++l)
          if (lag + l > 0 && lag + l <= lane_backs[n]) to.late[i][n][lag + l - 1] = s[i][l];
    }
  return serves;
}

// The ends of a stretch's pieces, from zero.
template <bool onward>
void lane_answered(const LaneArrays& a, const LaneAnswers& to, const Stretch& at, LaneStates& w) {
  constexpr int some = 8 * $STATES$ <= BYTES / 2 ? 4 : 2;  // pieces at once, as registers allow
  constexpr i64 last = onward ? LONG - W : 0;
  vec rows[$STATES$][W];
  for (int l = 0; l < W; l += some) {
    vec all[$STATES$][some] = {};
    UNROLL for (int n = 0; n < $EARLY$; ++n) {
      const real* const p = a.x[n] + lane_place<onward>(at, l) + (onward ? lane_aheads[n] : W - LONG - lane_aheads[n]);
      const auto add = [&](i64 e, auto whole) {
        vec x[some];
        UNROLL for (int q = 0; q < some; ++q) x[q] = load(p + (onward ? q : -q) * LONG + e);
        UNROLL for (int i = 0; i < $STATES$; ++i)
          if (lane_reads[i][n]) {
            const vec by = load(to.by[i][n] + e);
            UNROLL for (int q = 0; q < some; ++q) all[i][q] += by * (whole.value ? x[q] : by == vec{} ? vec{} : x[q]);
          }
      };
      for (i64 e = onward ? 0 : W; e < (onward ? LONG - W : LONG); e += W) add(e, std::true_type{});
      add(last, std::false_type{});
    }
    UNROLL for (int i = 0; i < $STATES$; ++i) UNROLL for (int q = 0; q < some; ++q) rows[i][l + q] = all[i][q];
  }
  UNROLL for (int i = 0; i < $STATES$; ++i) {
    fold_rows<false, W / 2>(rows[i]);
    w.s[i][0] = rows[i][0];
  }
  for (int n = 0; n < $EARLY$; ++n)
    for (int k = 0; k < lane_backs[n]; ++k) {
      const vec x = lane_before<onward>(a.x[n], lane_aheads[n], at, k);
      UNROLL for (int i = 0; i < $STATES$; ++i)
        if (lane_reads[i][n]) w.s[i][0] += to.late[i][n][k] * x;
    }
}
"""

ANSWERED = """
  const std::unique_ptr<LaneAnswers> answers(T >= 4 * W * LONG ? new (std::nothrow) LaneAnswers : nullptr);
  const bool answered = answers && lane_answers<onward>(c[0], *answers);""".strip("\n")
ENDS = "lane_run<onward, true, false>(arrays, c, at, w);"
ENDED = f"""if (answered && at.C == LONG) lane_answered<onward>(arrays, *answers, at, w);
      else {ENDS}"""
