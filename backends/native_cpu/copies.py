"""Nests that only copy -> calls of functions that are compiled once: `copy` (in `COPIES`), and the runtime's `transpose`
between places whose neighbours in memory differ.

In: a nest, its scene. Out: C++, or nothing where the nest is something else and `seqc.backends.native_cpu.nest` prints
it. Initial and last states, checkpoints, gradients of parameters and packed parameters are such copies.
"""

from __future__ import annotations

from seqc.backends.native_cpu.code import MEET, Code, Nested, indented
from seqc.backends.native_cpu.nest_body import Scene
from seqc.backends.native_cpu.parts import Part
from seqc.backends.native_cpu.places import Place, condition, ident, product
from seqc.backends.native_cpu.schedule import Item, Nest
from seqc.ir.views import view

COPIES = (
    Part("fill", "", """
ONCE void fill(real* p, i64 n, real x) {
  for (i64 i = 0; i < n; i += W) store<false>(p + i, x, n - i);
}
"""),
    Part("copy", "", """
// Copies `rows` of `columns` numbers that are neighbours. Vectors of a row are W * apart numbers apart where they go to:
// neighbours too (apart: 1), or in tiles. begin: the first column that is copied. Compiled once.
ONCE void copy(
    const real* from, i64 from_stride, real* to, i64 to_stride, i64 apart, i64 rows, i64 columns, i64 begin = 0) {
  for (i64 j0 = begin; j0 < columns; j0 += 8 * W)
    for (i64 i = 0; i < rows; ++i)
      for (i64 j = j0; j < std::min(columns, j0 + 8 * W); j += W)
        store<false>(to + i * to_stride + j * apart, load<false>(from + i * from_stride + j, columns - j), columns - j);
}
"""),
    Part("copy_part", "copy Team", """
// The same by a team: each thread takes its share of the columns.
INLINE void copy_part(
    const Team& team, const real* from, i64 from_stride, real* to, i64 to_stride, i64 apart, i64 rows, i64 columns) {
  const i64 all = chunks(columns);
  copy(from, from_stride, to, to_stride, apart, rows, std::min(columns, W * team.upto(all)), W * team.from(all));
}
"""),
)


def copied(nest: Nest, scene: Scene, team: bool, plain: bool) -> list[Code]:
    """The copies of a nest; none if any item is not one. plain: whether those along the same axis are meant too, of
    which each thread of a team takes a part."""
    found = [_copy(item, nest, scene, team, plain) for item in nest.items]
    if not all(found):
        return []
    lines: list[Code] = []
    for one in found:
        assert one
        alone = team and "transpose" in one.names
        lines += ["if (team.first()) {", *indented([one], 1), "}"] if alone else [one]
    return [*lines, MEET] if team else lines


def _copy(item: Item, nest: Nest, scene: Scene, team: bool, plain: bool) -> Nested | None:
    if item.kind != "out" or item.value.op != "leaf" or item.value.dtype == "bool" or not view(item.value).plain:
        return None
    source, target = scene.places[item.value], scene.targets[item.target]
    column, row = _unit(source), target.tiled or _unit(target)
    if column is None or row is None or not {column, row} <= set(nest.space) or (column == row and not plain):
        return None
    if set(source.strides) != set(nest.space) or set(target.strides) != set(nest.space):
        return None
    outer = [d for d in nest.space if d not in (column, row)]
    guard = scene.guards.get(item.target, ())
    names = frozenset({*source.names, *target.names, *guard, *(f"m_{ident(d)}" for d in nest.space)})
    lines = [f"if ({condition(guard)})"] if guard else []
    inner = outer.pop() if column == row and outer else None
    for depth, d in enumerate(outer):
        i = ident(d)
        lines.append(f"{'  ' * depth}for (i64 i_{i} = 0; i_{i} < m_{i}; ++i_{i})")
    index = {d: f"i_{ident(d)}" for d in outer} | {column: "0", row: "0"}
    if column == row:
        strides = [product(list(x.strides[inner])) if inner else "0" for x in (source, target)]
        index |= {inner: "0"} if inner else {}
        count, apart = f"m_{ident(inner)}" if inner else "1", product(list(target.strides[column]))
        places = source.at(index), strides[0], target.at(index), strides[1], apart, count, f"m_{ident(column)}"
        call = f"copy_part(team, {', '.join(places)});" if team else f"copy({', '.join(places)});"
        called = {"copy_part", "team"} if team else {"copy"}
        return Nested((*lines, f"{'  ' * len(outer)}{call}"), names | called)
    count = f"m_{ident(row)}"
    if target.tiled:
        lines.append(f"{'  ' * len(outer)}for (i64 at = 0; at < {count}; at += W)")
        count, index[row] = f"std::min<i64>(W, {count} - at)", "at"
    call = ", ".join((source.at(index), product(list(source.strides[row])), target.at(index),
                      product(list(target.strides[column])), count, f"m_{ident(column)}"))
    return Nested((*lines, f"{'  ' * (len(outer) + bool(target.tiled))}transpose({call});"), names | {"transpose"})


def _unit(place: Place) -> str | None:
    """The axis along which elements are neighbours."""
    return next((d for d, stride in place.strides.items() if not stride), None)
