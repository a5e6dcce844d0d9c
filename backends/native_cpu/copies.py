"""Nests that only copy, between places whose neighbours in memory differ -> calls of the runtime's `transpose`.

In: a nest, its scene. Out: lines of C++, or None where the nest is something else and `seqc.backends.native_cpu.nest` prints
it. Initial states, checkpoints and packed parameters are such copies.
"""

from __future__ import annotations

from seqc.backends.native_cpu.nest_body import Scene
from seqc.backends.native_cpu.places import Place, ident, product
from seqc.backends.native_cpu.schedule import Item, Nest
from seqc.ir.views import view


def transposed(nest: Nest, scene: Scene) -> list[str] | None:
    """The lines of a nest of transposing copies; None if any item is not one."""
    lines: list[str] = []
    for item in nest.items:
        more = _copy(item, nest, scene)
        if more is None:
            return None
        lines += more
    return lines


def _copy(item: Item, nest: Nest, scene: Scene) -> list[str] | None:
    if item.kind != "out" or item.value.op != "leaf" or not view(item.value).plain:
        return None
    source, target = scene.places[item.value], scene.targets[item.target]
    column, row = _unit(source), target.tiled or _unit(target)
    if column is None or row is None or column == row or not {column, row} <= set(nest.space):
        return None
    if set(source.strides) != set(nest.space) or set(target.strides) != set(nest.space):
        return None
    outer = [d for d in nest.space if d not in (column, row)]
    first = "at" if target.tiled else "0"
    index = {d: f"i_{ident(d)}" for d in outer} | {column: "0", row: first}
    lines = []
    guard = scene.guards.get(item.target)
    if guard:
        lines.append(f"if ({guard})")
    for depth, d in enumerate(outer):
        i = ident(d)
        lines.append(f"{'  ' * depth}for (i64 i_{i} = 0; i_{i} < m_{i}; ++i_{i})")
    count = f"m_{ident(row)}"
    if target.tiled:
        lines.append(f"{'  ' * len(outer)}for (i64 at = 0; at < {count}; at += W)")
        count = f"std::min<i64>(W, {count} - at)"
    call = ", ".join((source.at(index), product(list(source.strides[row])), target.at(index),
                      product(list(target.strides[column])), count, f"m_{ident(column)}"))
    return [*lines, f"{'  ' * (len(outer) + bool(target.tiled))}transpose({call});"]


def _unit(place: Place) -> str | None:
    """The axis along which elements are neighbours."""
    return next((d for d, stride in place.strides.items() if not stride), None)
