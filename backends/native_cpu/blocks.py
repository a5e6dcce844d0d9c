"""Blocks of rows of the batch: how many rows one reading of the matrices serves, and how many blocks a program takes.

In: a `Plan`. Out: the C++ that shares out the rows of a call (`BUILT`, `WIDE`), and whether a kernel's programs take several
blocks (`joins`). A block has as many rows as there are registers for their sums. A program of several blocks goes through a
matrix once a step, and through its blocks at each piece of it: the first block brings the piece into the second-level cache,
where the others find it.
"""

from __future__ import annotations

from seqc.backends.native_cpu.active import products_of_spikes
from seqc.backends.native_cpu.plan import Plan
from seqc.backends.native_cpu.schedule import REDUCTIONS
from seqc.ir.graph import BATCH, topological
from seqc.ir.keys import slope_key

# SEQC_ROWS: 4 where the batch has blocks of four rows, plus the rows that remain; 8: all batches; see `_native_rows`
BUILT = """// The blocks of rows that there is a kernel for: those of the batches of this library. Three that remain are one.
#ifndef SEQC_ROWS
#define SEQC_ROWS 8
#endif
constexpr bool threes = SEQC_ROWS % 4 == 3 && chosen_rows == 4;
constexpr bool built(i64 rows) {
  if (rows == 3 || (threes && rows < 3)) return threes && rows == 3;
  return rows == chosen_rows ? SEQC_ROWS >= rows : rows < chosen_rows && (SEQC_ROWS == 8 || (SEQC_ROWS & rows) != 0);
}
// The most rows of a block that is built, and their number where all have the same, else 0.
constexpr int w_B = built(4) ? 4 : built(3) ? 3 : built(2) ? 2 : 1;
constexpr int only = built(4) + built(3) + built(2) + built(1) == 1 ? w_B : 0;
constexpr i64 z_B = padded(w_B);
// The blocks that programs take: full ones, `each` of them in a program where threads have enough to do, then a block of three,
// of two and of one.
constexpr i64 joined = 16 / chosen_rows;
struct Blocks {
  i64 full, three, twos, ones, each;
  explicit Blocks(i64 rows, i64 threads = 0, i64 beside = 1) : full(rows / chosen_rows) {
    const i64 rest = rows % chosen_rows;
    three = threes && rest == 3, twos = (rest - 3 * three) / 2, ones = rest - 3 * three - 2 * twos;
    each = threads ? fitting(joined, full * beside / threads) : 1;
  }
  i64 programs() const { return quotient(full, each); }  // of full blocks
  i64 all() const { return programs() + three + twos + ones; }
  i64 rows(i64 block) const {
    const i64 past = block - programs();
    return past < 0 ? chosen_rows * std::min(each, full - each * block) : past < three ? 3 : past < twos ? 2 : 1;
  }
  i64 first(i64 block) const {  // the first row of a block
    const i64 past = block - programs();
    return past < 0 ? chosen_rows * each * block : chosen_rows * full + past + std::min(past, twos);
  }
  bool served() const {
    return (!full || built(chosen_rows)) && (!three || built(3)) && (!twos || built(2)) && (!ones || built(1));
  }
};
inline bool serves(i64 rows) { return Blocks(rows).served(); }
// Calls f with the number of rows of a block as a constant: for loops that are unrolled. All others serve every number.
template <class F, class... A>
INLINE void with_rows(i64 rows, const F& f, A&... a) {
  if constexpr (built(4)) if (rows % 4 == 0 || only) return f(std::integral_constant<int, 4>{}, a...);
  if constexpr (built(3)) if (rows == 3 || only) return f(std::integral_constant<int, 3>{}, a...);
  if constexpr (built(2)) if (rows % 2 == 0 || only) return f(std::integral_constant<int, 2>{}, a...);
  if constexpr (built(1)) return f(std::integral_constant<int, 1>{}, a...);
}""".splitlines()
WIDE = ["// The most rows of a program that joins blocks.",
        "constexpr i64 wide = built(chosen_rows) ? joined * chosen_rows : w_B;"]


def joins(plan: Plan, kernel: str) -> bool:
    """Whether a program of a kernel takes several blocks of rows: for cells. Not for steps, whose matrices lie as they are
    given; nor for lists of rows and columns; nor where rows are added up: sums would depend on the number of threads."""
    if not plan.teams or kernel == "step" or any(x.support for x in plan.program.params.values()) or products_of_spikes(plan):
        return False
    added = any(slope_key(x.name) in plan.backward and not x.per_batch for x in plan.program.params.values())
    graph = plan.forward.values() if kernel == "forward" else [*plan.backward.values(), *plan.factors.values()]
    summed = any(n.op in REDUCTIONS and BATCH in n.names("over") for n in topological(graph))
    return not summed and not (added and kernel == "backward")
