"""Products with spikes: a sum over neurons most of which are silent takes the columns of those that are not.

In: a nest of sums, and the recurrence. Out: the vector whose zeros decide, and the lines around two texts of the nest: one that
walks a list of columns, one that walks all. Which of them runs is asked at each step, of the vector as it is. What is left out
is a product with an exact 0, so that sums are the same to the bit where the matrix is finite. `withgrad` alone makes such
vectors: half of what `relu` gives is 0, too little for a list (docs/decisions/sparsity.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seqc.backends.native_cpu.code import Code, Nested, indented, joined
from seqc.backends.native_cpu.parts import Part
from seqc.backends.native_cpu.places import Place, ident, product
from seqc.backends.native_cpu.plan import Plan
from seqc.backends.native_cpu.schedule import Item, Nest
from seqc.ir.graph import BATCH, Node, topological
from seqc.ir.views import View, view

ACTIVE = Part("active_columns", "", r"""
// The columns in which a row of x is not 0, in rising order, and how many; -1 where they are more than a quarter, or the matrix
// is small.
template <int w_B, i64 columns>
INLINE i64 active_columns(const real* x, i64 x_row, std::uint32_t* list) {
  if (columns < 128) return -1;
  i64 n = 0;
  for (i64 j = 0; j < columns; j += W) {
    mask any{};
    UNROLL for (int b = 0; b < w_B; ++b) any |= load<columns % W == 0>(x + b * x_row + j, columns - j) != vec{};
    typedef i64 wide __attribute__((vector_size(BYTES)));
    const wide r = reinterpret_cast<wide>(any);
    i64 found = 0;
    for (int i = 0; i < BYTES / 8; ++i) found |= r[i];
    if (!found) continue;
    for (int l = 0; l < W; ++l)
      if (any[l]) {
        if (n == columns / 4) return -1;
        list[n++] = std::uint32_t(j + l);
      }
  }
  return n;
}
""")


def spiking(plan: Plan, n: Node, depth: int = 8) -> bool:
    """Whether a value is 0 or 1 by its making, or a product with such a value; of a state, what it is after a step."""
    if n.op == "leaf" and n.text("kind") == "state":
        return depth > 0 and spiking(plan, plan.updates[n.text("name")], depth - 1)
    if n.op in ("expand", "rename", "stopgrad"):
        return spiking(plan, n.args[0], depth)
    if n.op == "surrogate":
        return n.args[0].dtype == "bool"
    return n.op == "mul" and any(spiking(plan, a, depth) for a in n.args)


def spikes_of(plan: Plan, nest: Nest, places: Mapping[Node, Place]) -> dict[tuple[View, str, str] | None, Nest]:
    """(vector, its axis, loop over it) -> the items of a nest that sum products with that vector of spikes; None -> others."""
    found: dict[tuple[View, str, str] | None, list[Item]] = {}
    for item in nest.items:
        found.setdefault(_spikes(plan, item, places), []).append(item)
    return {spikes: Nest(nest.space, tuple(items)) for spikes, items in found.items()}


def _spikes(plan: Plan, item: Item, places: Mapping[Node, Place]) -> tuple[View, str, str] | None:
    value = item.value
    if item.kind != "reduce" or value.op != "sum" or value.args[0].op != "mul" or BATCH not in item.space:
        return None
    over = [d for d in value.names("over") if d in item.space]
    rows = [d for d in item.space if d not in (BATCH, *over)]
    if len(over) != 1 or len(rows) != 1:
        return None
    for one in map(view, value.args[0].args):
        local = {d: i for d, i in one.index if d not in plan.roles.grid}
        place = places.get(one.base)
        if place is None or place.scalar or set(local.values()) != {BATCH, over[0]} or not spiking(plan, one.base):
            continue
        axis = next(d for d, i in local.items() if i == over[0])
        if {BATCH, axis} <= place.strides.keys() and not place.strides[axis]:
            return one, axis, over[0]
    return None


def products_of_spikes(plan: Plan) -> list[tuple[Node, Node]]:
    """(sum, vector) of the products with a vector of spikes whose silent neurons forward skips."""
    found = []
    for n in topological(plan.forward.values()) if plan.roles.blocked else ():
        if n.op != "sum" or n.args[0].op != "mul" or BATCH not in n.dims:
            continue
        over = plan.roles.local(n.names("over"))
        factors = [view(a).base for a in n.args[0].args]
        for vector, other in (factors, factors[::-1]):
            matrix = other.op == "leaf" and other.text("kind") == "param"
            if matrix and len(over) == 1 and len(plan.roles.local(vector.dims)) == 2 and spiking(plan, vector):
                found.append((n, vector))
    return found


def two_ways(spikes: tuple[View, str, str], place: Place, listed: Sequence[Code], whole: Sequence[Code]) -> Nested:
    """The code that takes a list of columns where it is short, and all columns elsewhere."""
    _, axis, loop = spikes
    size = f"n_{ident(loop)}"
    read = f"{place.at({BATCH: '0', axis: '0'})}, {product(list(place.strides[BATCH]))}"
    head = [f"  std::uint32_t columns[{size}];", f"  const i64 active = active_columns<r_B, {size}>({read}, columns);"]
    ways = ["if (active >= 0) {", *indented(listed, 1), "} else {", *indented(whole, 1), "}"]
    return joined(ways, "block", ["{", *head], {*place.names, "r_B", "active_columns"}, "}")
