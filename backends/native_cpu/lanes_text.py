"""The C++ of the runs in lanes. In: `Lanes`. Out: a namespace with `lane_long`, which tells whether a sequence runs so, and
`run_lanes`, which runs one: the text of a step, spelled for a vector type, in loops that are the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.analysis.pieces import lags_of
from seqc.backends.native_cpu.lanes import LAGS, Lanes
from seqc.backends.native_cpu.places import ident
from seqc.backends.native_cpu.values import literal, spelled
from seqc.ir.graph import Node, depends, leaves, topological


class _Body:
    """The values of some roots as C++: those of parameters alone are members of `LaneNumbers`."""

    def __init__(self, lanes: Lanes, numbers: dict[Node, str]) -> None:
        self.lanes, self.numbers = lanes, numbers

    def lines(self, roots: Mapping[str, Node], states: Mapping[str, str]) -> list[str]:
        """Statements that make the roots, `const V KEY`. states: the expression of each state that is read."""
        names: dict[Node, str] = {}
        lines = []
        order = topological(roots.values())
        moving = depends(roots.values(), [n for n in order if n.op == "leaf" and n.text("kind") != "param"])
        for n in order:
            if n not in moving:
                continue
            if n.op == "leaf":
                name = n.text("name")
                names[n] = states[name] if n.text("kind") == "state" else self._input(n)
            elif n.op == "expand":
                names[n] = names[n.args[0]]
            else:
                args = [names[a] if a in moving else self.number(a) for a in n.args]
                names[n] = f"x{len(names)}"
                lines.append(f"const V {names[n]} = {spelled(n.op).format(*args)};")
        ends = {key: names[n] if n in moving else f"V{{}} + {self.number(n)}" for key, n in roots.items()}
        return [*lines, *(f"const V {key} = {text};" for key, text in ends.items())]

    def _input(self, n: Node) -> str:
        name, back = n.text("name"), n.number("offset")
        if name not in self.lanes.arrays:
            name, found = self.lanes.cut.shifts[name]
            back = lags_of(found)[0]
        return f"in_{ident(name)}[{back}]"

    def number(self, n: Node) -> str:
        """A value of parameters alone."""
        while n.op == "expand":
            n = n.args[0]
        if n.op == "const":
            return literal(float(f"{n.attr('value')}"))
        if n not in self.numbers:
            self.numbers[n] = f"n{len(self.numbers)}"
        return f"c.{self.numbers[n]}"


def _numbers(numbers: Mapping[Node, str], title: str) -> list[str]:
    """The struct of what is made of parameters alone, and the function that makes it."""
    lines, names = list[str](), dict[Node, str]()
    for n in topological(numbers):
        if n.op == "const":
            names[n] = literal(float(f"{n.attr('value')}"))
        elif n.op == "leaf":
            names[n] = f"a.g_{ident(n.text('name'))}" + ("" if n.dims else "[0]")
        elif n.op == "take":
            names[n] = f"{names[n.args[0]]}[{_place(n)}]"
        elif n.op in ("expand", "rename"):
            names[n] = names[n.args[0]]
        else:
            names[n] = f"x{len(names)}"
            lines.append(f"  const auto {names[n]} = {spelled(n.op).format(*(names[a] for a in n.args))};")
    members = [f"  real {name};" for name in numbers.values()] or ["  real none;"]
    given = [f"real({names[n]})" for n in numbers] or ["real(0)"]
    return ["struct LaneNumbers {", *members, "};", f"INLINE LaneNumbers lane_numbers(const {title}& a) {{", *lines,
            f"  return {{{', '.join(given)}}};", "}"]


def _place(n: Node) -> str:
    at = n.number("at")
    return str(at) if at >= 0 else f"n_{ident(n.text('dim'))} - {-at}"


def lanes_text(lanes: Lanes) -> str:
    """The C++ of the runs in lanes."""
    numbers: dict[Node, str] = {}
    body = _Body(lanes, numbers)
    program, states = lanes.program, list(lanes.program.states)
    old = {x: f"s[{k}]" for k, x in enumerate(states)}
    updates = {f"next_{k}": program.updates[x] for k, x in enumerate(states)}
    results = {f"result_{k}": n for k, n in enumerate(lanes.results.values())}
    sums = {f"sum_{k}": n for k, (_, _, n) in enumerate(lanes.sums)}
    moved = [f"s[{k}] = next_{k};" for k in range(len(states))]
    stored = [f"out[{k}] = result_{k};" for k in range(len(results))]
    stored += [f"sum[{k}] = sum[{k}] + sum_{k};" for k in range(len(sums))]
    links = {f"next_{k}": n for k, n in enumerate(lanes.links.values())}
    held = {x: f"m[{k}]" for k, x in enumerate(lanes.links)}
    early = _early(lanes)
    inputs = sorted(lanes.arrays, key=lambda x: x not in early)
    bind = [f"const V* const in_{ident(x)} = in[{k}];" for k, x in enumerate(inputs)]
    linked = [*([] if lanes.cut.fixed else bind), *body.lines(links, held), *(f"m[{k}] = next_{k};" for k in range(len(links)))]
    steps = body.lines({**updates, **results, **sums}, old)
    texts = [
        _function("lane_ends", "V* s", [*bind, *body.lines(updates, old), *moved]),
        _function("lane_steps", "V* s, V* out, V* sum", [*bind, *steps, *moved, *stored]),
        _function("lane_spans", "V* m", linked),
    ]
    # the links as a matrix: row of the state that is reached, column of that it comes from
    spots = [f"{{{states.index(i)}, {states.index(j)}}}" for i, j in lanes.cut.links]
    title = "Forward" if lanes.forth else "Backward"
    starts, ends = ("{}_0", "{}_T") if lanes.forth else ("d_{}_T", "d_{}_0")
    names = {
        "LAGS": str(LAGS), "INPUTS": str(len(inputs)), "STATES": str(len(states)), "OUTPUTS": str(max(len(results), 1)),
        "GIVEN": str(len(results)), "ALONE": str(len(results) - len(lanes.kept)), "LINKS": str(len(links)),
        "BESIDE": str(lanes.beside), "EARLY": str(len(early)), "SUMS": str(len(sums)), "TITLE": title,
        "GROUPS": "4" if len(states) < 5 and lanes.forth else "2", "PLACES": ", ".join(spots),
        "FIXED": "true" if lanes.cut.fixed else "false", "AHEAD": ", ".join(str(lanes.arrays[x][1]) for x in inputs),
        "ARRAYS": ", ".join(f"a.g_{ident(lanes.arrays[x][0])}" for x in inputs),
        "STARTS": ", ".join(f"a.g_{ident(starts.format(x))}" if ".due" not in x else "nullptr" for x in states),
        "BACKS": ", ".join(str(lanes.backs[x]) for x in inputs),
        "RESULTS": ", ".join(f"a.g_{ident(x)}" for x in lanes.results) or "nullptr",
        "ENDS": ", ".join(f"a.g_{ident(ends.format(x))}" if ".due" not in x else "nullptr" for x in states),
        "ALTS": ", ".join(f"{{{', '.join(_other(lanes, x, k) for k in range(LAGS + 1))}}}" for x in inputs),
        "SIZED": " && ".join(["true", *(f"n_{ident(d)} == {size}" for d, size in lanes.sizes if not lanes.forth)]),
        "LEFT": "0" if lanes.forth else str(LAGS),
    }
    text = LANES
    for name, value in names.items():
        text = text.replace(f"${name}$", value)
    added = [f"  a.g_{ident(x)}[i_B{_extent(lanes, x)} + {at}] = total[{k}];" for k, (x, at, _) in enumerate(lanes.sums)]
    place = "row + (onward ? {0} : T - 1 - {0})"
    added += [f"  if (save) a.g_{ident(x)}[{place.format(t)}] = a.g_{ident(y)}[i_B];" for x, t, y in lanes.firsts]
    text = text.replace("$ADDED$", "\n".join(added))
    space = "lanes_forward" if lanes.forth else "lanes_backward"
    made = [*_numbers(numbers, title), *texts, text.strip()]
    return "\n".join([f"namespace {space} {{", *made, f"}}  // namespace {space}", ""])


def _other(lanes: Lanes, name: str, back: int) -> str:
    """The array of an input that stands before the first step."""
    return f"a.g_{ident(lanes.early[name, back])}" if (name, back) in lanes.early else "nullptr"


def _extent(lanes: Lanes, array: str) -> str:
    """How many numbers a sequence has in an array of sums."""
    return f" * {sum(name == array for name, _, _ in lanes.sums)}"


def _early(lanes: Lanes) -> set[str]:
    """The inputs that the states or the spans read."""
    read = leaves([*lanes.program.updates.values(), *lanes.links.values()], "input")
    return {lanes.cut.shifts.get(n.text("name"), (n.text("name"), 0))[0] for n in read}


def _function(name: str, given: str, lines: list[str]) -> str:
    head = f"template <class V>\nINLINE void {name}(const LaneNumbers& c, const V (*in)[{LAGS + 1}], {given})"
    return "\n".join([f"{head} {{", *(f"  {line}" for line in lines), "}"])


LANES = """
constexpr int GROUPS = $GROUPS$, SETS = 4, PIECES = SETS * GROUPS * W;  // pieces: the same for every number of threads
struct LaneStates { vec s[$STATES$][GROUPS], m[$BESIDE$ + 1][GROUPS], sum[$SUMS$ + 1][GROUPS]; };

// A stretch of a sequence: PIECES pieces of C steps, from step `from` on; the sequence lies at `row` and has T steps.
struct Stretch { i64 row, T, from, C; };

// Where the W steps from step t of a stretch lie.
template <bool onward>
INLINE i64 lane_place(const Stretch& at, i64 t) { return at.row + (onward ? at.from + t : at.T - W - at.from - t); }

// One set of a stretch's pieces; ends: from zero, with the spans beside; else the run itself.
template <bool onward, bool ends, bool save>
void lane_run(const $TITLE$& a, const LaneNumbers& c, const Stretch& at, int set, LaneStates& w) {
  const i64 C = at.C;
  const bool large = at.T * i64(sizeof(real)) > 1048576;
  const real* const arrays[] = {$ARRAYS$};
  real* const results[] = {$RESULTS$};
  constexpr int backs[] = {$BACKS$}, aheads[] = {$AHEAD$};  // steps that an input is read before; in memory, and in the run
  constexpr int read = ends ? $EARLY$ : $INPUTS$, given = save ? $GIVEN$ : $ALONE$;
  vec tile[$INPUTS$][GROUPS][W], before[$INPUTS$][GROUPS][$LAGS$], made[$OUTPUTS$][GROUPS][W];
  for (int n = 0; n < read; ++n)
    for (int g = 0; g < GROUPS; ++g)
      for (int k = 0; k < backs[n]; ++k)
        for (int l = 0; l < W; ++l) {
          const i64 t = at.from + ((set * GROUPS + g) * W + l) * C - 1 - k;
          const i64 place = onward ? t + aheads[n] : at.T - 1 - t - aheads[n];
          before[n][g][k][l] = place < 0 || place >= at.T ? real(0) : arrays[n][at.row + place];
        }
  for (i64 t = 0; t < C; t += W) {
    for (int n = 0; n < read; ++n)
      for (int g = 0; g < GROUPS; ++g) {
        UNROLL for (int l = 0; l < W; ++l) {
          const i64 place = lane_place<onward>(at, ((set * GROUPS + g) * W + l) * C + t);
          const real* const p = arrays[n] + place + (onward ? aheads[n] : -aheads[n]);
          if constexpr (ends) __builtin_prefetch(p + (onward ? 6 * W : -6 * W));
          tile[n][g][l] = load(p);
        }
        turn<W / 2>(tile[n][g]);
      }
    UNROLL for (int j = 0; j < W; ++j) {
      UNROLL for (int g = 0; g < GROUPS; ++g) {
        vec in[$INPUTS$][$LAGS$ + 1], s[$STATES$], m[$BESIDE$ + 1], out[$OUTPUTS$], sum[$SUMS$ + 1];
        UNROLL for (int n = 0; n < read; ++n)
          UNROLL for (int k = 0; k <= backs[n]; ++k)
            in[n][k] = k <= j ? tile[n][g][onward ? j - k : W - 1 - j + k] : before[n][g][k - j - 1];
        UNROLL for (int i = 0; i < $STATES$; ++i) s[i] = w.s[i][g];
        if constexpr (ends) {
          lane_ends<vec>(c, in, s);
          if constexpr ($BESIDE$ > 0) {
            UNROLL for (int i = 0; i < $BESIDE$; ++i) m[i] = w.m[i][g];
            lane_spans<vec>(c, in, m);
            UNROLL for (int i = 0; i < $BESIDE$; ++i) w.m[i][g] = m[i];
          }
        } else {
          UNROLL for (int i = 0; i < $SUMS$; ++i) sum[i] = w.sum[i][g];
          lane_steps<vec>(c, in, s, out, sum);
          UNROLL for (int i = 0; i < $SUMS$; ++i) w.sum[i][g] = sum[i];
          UNROLL for (int i = 0; i < given; ++i) made[i][g][onward ? j : W - 1 - j] = out[i];
        }
        UNROLL for (int i = 0; i < $STATES$; ++i) w.s[i][g] = s[i];
      }
    }
    for (int n = 0; n < read; ++n)
      for (int g = 0; g < GROUPS; ++g)
        for (int k = backs[n] - 1; k >= 0; --k)
          before[n][g][k] = k < W ? tile[n][g][onward ? W - 1 - k : k] : before[n][g][k - W];
    if constexpr (!ends)
      for (int i = 0; i < given; ++i)
        for (int g = 0; g < GROUPS; ++g) {
          turn<W / 2>(made[i][g]);
          UNROLL for (int l = 0; l < W; ++l) {
            real* const p = results[i] + lane_place<onward>(at, ((set * GROUPS + g) * W + l) * C + t);
            store_early<true>(p, made[i][g][l], W, 0, large);
          }
        }
  }
}

constexpr int lane_links[][2] = {$PLACES$};

INLINE void lane_squared(real* m, const real* by) {  // m times a matrix of links
  real whole[$STATES$][$STATES$] = {}, left[$STATES$][$STATES$] = {}, right[$STATES$][$STATES$] = {};
  for (int k = 0; k < $LINKS$; ++k) {
    left[lane_links[k][0]][lane_links[k][1]] = m[k];
    right[lane_links[k][0]][lane_links[k][1]] = by[k];
  }
  for (int i = 0; i < $STATES$; ++i)
    for (int j = 0; j < $STATES$; ++j)
      for (int k = 0; k < $STATES$; ++k) whole[i][j] += left[i][k] * right[k][j];
  for (int k = 0; k < $LINKS$; ++k) m[k] = whole[lane_links[k][0]][lane_links[k][1]];
}

constexpr i64 lane_shortest = $SIZED$ ? i64(8) * W * PIECES : std::numeric_limits<i64>::max();
INLINE bool lane_long(i64 T) { return T >= lane_shortest; }
// Steps of a stretch: few stay in the cache, many are worth threads. Pieces do not begin a page apart: see W.
INLINE i64 lane_stretch(i64 T) { return (T < 1048576 ? 65536 : 262144) + W * PIECES; }

// The span of C steps, where a step's is the same at all: powers of one.
INLINE void lane_power(const LaneNumbers& c, i64 C, real* span) {
  real one[$LINKS$], again[$LINKS$];
  for (int k = 0; k < $LINKS$; ++k) one[k] = span[k] = real(lane_links[k][0] == lane_links[k][1]);
  lane_spans<real>(c, nullptr, one);
  for (i64 left = C; left; left >>= 1) {
    if (left & 1) lane_squared(span, one);
    std::copy_n(one, $LINKS$, again);
    lane_squared(one, again);
  }
}

template <bool onward, bool save>
int run_lanes(const $TITLE$& a, const Call& call, i64 i_B, i64 threads) {
  const i64 T = call.steps(i_B), row = call.row(i_B);
  const LaneNumbers c = lane_numbers(a);
  const std::unique_ptr<LaneStates[]> sets(new (std::nothrow) LaneStates[SETS]);
  if (!sets) return 1;
  Stretch at{row, T, 0, 0};
  const auto each = [&](auto run) {
#pragma omp parallel for num_threads(int(std::min<i64>(threads, SETS))) if (threads > 1 && at.C * PIECES > 131072)
    for (int set = 0; set < SETS; ++set) run(set);
  };
  const real* const starts[] = {$STARTS$};
  real s[$STATES$], span[$LINKS$] = {}, total[$SUMS$ + 1] = {};
  for (int i = 0; i < $STATES$; ++i) s[i] = starts[i] ? starts[i][i_B] : real(0);
  for (; (at.from += at.C * PIECES) + W * PIECES <= T - $LEFT$;) {
    const i64 C = std::min(T - $LEFT$ - at.from, lane_stretch(T)) / PIECES / W * W;
    if ($FIXED$ && C != at.C) lane_power(c, C, span);
    at.C = C;
    each([&](int set) {
      LaneStates w{};
      for (int k = 0; k < $BESIDE$; ++k)
        if (lane_links[k][0] == lane_links[k][1])
          for (int g = 0; g < GROUPS; ++g) w.m[k][g] = splat(real(1));
      lane_run<onward, true, false>(a, c, at, set, w);
      sets[set] = w;
    });
    for (int set = 0; set < SETS; ++set)
      for (int g = 0; g < GROUPS; ++g)
        for (int l = 0; l < W; ++l) {
          LaneStates& w = sets[set];
          real after[$STATES$];
          for (int i = 0; i < $STATES$; ++i) after[i] = w.s[i][g][l];
          for (int k = 0; k < $LINKS$; ++k)
            after[lane_links[k][0]] += ($FIXED$ ? span[k] : w.m[k < $BESIDE$ ? k : 0][g][l]) * s[lane_links[k][1]];
          for (int i = 0; i < $STATES$; ++i) w.s[i][g][l] = s[i], s[i] = after[i];
        }
    each([&](int set) { lane_run<onward, false, save>(a, c, at, set, sets[set]); });
    for (int i = 0; i < $SUMS$; ++i)
      for (int set = 0; set < SETS; ++set)
        for (int g = 0; g < GROUPS; ++g)
          for (int l = 0; l < W; ++l) total[i] += sets[set].sum[i][g][l];
    for (int i = 0; i < $STATES$; ++i) s[i] = sets[SETS - 1].s[i][GROUPS - 1][W - 1];
  }
  streamed();
  // the steps that are left, one by one
  const real* const arrays[] = {$ARRAYS$};
  real* const results[] = {$RESULTS$};
  const real* const alts[][$LAGS$ + 1] = {$ALTS$};
  constexpr int backs[] = {$BACKS$}, aheads[] = {$AHEAD$};
  for (i64 t = at.from; t < T; ++t) {
    real in[$INPUTS$][$LAGS$ + 1], out[$OUTPUTS$];
    for (int n = 0; n < $INPUTS$; ++n)
      for (int k = 0; k <= backs[n]; ++k) {
        const i64 place = onward ? t - k + aheads[n] : T - 1 - t + k - aheads[n];
        const real* const other = alts[n][k];
        in[n][k] = place >= 0 && place < T ? arrays[n][row + place] : other ? other[row + (onward ? t : T - 1 - t)] : real(0);
      }
    lane_steps<real>(c, in, s, out, total);
    for (int i = 0; i < (save ? $GIVEN$ : $ALONE$); ++i) results[i][row + (onward ? t : T - 1 - t)] = out[i];
  }
  real* const ends[] = {$ENDS$};
  for (int i = 0; i < $STATES$; ++i) if (ends[i]) ends[i][i_B] = s[i];
$ADDED$
  return 0;
}
"""
