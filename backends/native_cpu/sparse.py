"""Products with sparse matrices: which reductions of a nest walk the lists of a mask, and what is printed for them.

In: the items of a nest, and the program's declarations. Out: `SparseProduct`s, the lines that pack their matrices, and those
that multiply. A reduction walks a list where it is a product of one sparse matrix, whose rows are the lanes of vectors, and one
vector of every row of the batch that lies in memory. Every other reading of the matrix is dense, and right all the same: what
is left out holds zeros. The C++ of lists is `sparse_runtime`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.backends.native_cpu.active import spiking
from seqc.backends.native_cpu.code import Nested
from seqc.backends.native_cpu.places import Place, ident, product
from seqc.backends.native_cpu.plan import Factor, Plan, Product
from seqc.backends.native_cpu.schedule import Item
from seqc.ir.graph import BATCH, Node
from seqc.ir.views import View, view


@dataclass(frozen=True)
class SparseProduct:
    """item = sum over the loop `column` of matrix * vector. rows, columns: the matrix's axes; spikes: whether the vector holds
    spikes."""

    item: Item
    matrix: Node
    vector: View
    column: str
    rows: str
    columns: str
    spikes: bool

    @property
    def name(self) -> str:
        """The list in the kernel's buffers."""
        return f"l_{ident(self.matrix.text('name'))}_by_{ident(self.rows)}{'_of_spikes' if self.spikes else ''}"

    @property
    def type(self) -> str:
        """Its C++ type."""
        return f"Sparse<n_{ident(self.rows)}, n_{ident(self.columns)}{', true' if self.spikes else ''}>"


def sparse_product(
    plan: Plan, item: Item, cone: tuple[list[Node], list[View]], given: Mapping[Node, Place]
) -> SparseProduct | None:
    """The product that an item is; None where a list does not serve it. given: where leaves lie."""
    value = item.value
    if item.kind != "reduce" or value.op != "sum" or value.args[0].op != "mul" or cone[0] != [value.args[0]]:
        return None
    over = [d for d in value.names("over") if d in item.space]
    rows = [d for d in item.space if d not in (BATCH, *over)]
    if len(over) != 1 or len(rows) != 1 or BATCH not in item.space:
        return None
    left, right = map(view, value.args[0].args)
    for matrix, vector in ((left, right), (right, left)):
        found = _matrix(plan, matrix, rows[0], over[0], given)
        if found and _vector(plan, vector, over[0], given):
            return SparseProduct(item, matrix.base, vector, over[0], *found, spiking(plan, vector.base))
    return None


def _matrix(
    plan: Plan, matrix: View, row: str, over: str, given: Mapping[Node, Place]
) -> tuple[str, str] | None:
    """The axes of a sparse matrix that are its rows and columns, indexed by the loops `row` and `over`."""
    base = matrix.base
    if base.op != "leaf" or base.text("kind") != "param" or base not in given:
        return None
    decl = plan.program.params[base.text("name")]
    if decl.support is None or decl.per_batch or decl.support.mask not in plan.program.params:
        return None
    strides = given[base].strides
    axes = {i: d for d, i in matrix.index if d in strides}
    if len(strides) != 2 or set(axes) != {row, over} or all(strides.values()):
        return None
    return axes[row], axes[over]


def _vector(plan: Plan, vector: View, over: str, given: Mapping[Node, Place]) -> bool:
    """Whether a factor is a vector of each row of the batch, whose elements are neighbours."""
    local = {d: i for d, i in vector.index if d not in plan.roles.grid}
    if vector.base.dtype != "real" or len(local) != 2 or set(local.values()) != {BATCH, over} or local.get(BATCH) != BATCH:
        return False
    place = given.get(vector.base)
    if place is None:
        return True  # a buffer of the kernel
    return local.keys() <= place.strides.keys() and not place.strides[next(d for d in local if d != BATCH)]


def packing(products: list[SparseProduct], given: Mapping[Node, Place], masks: Mapping[str, str], team: bool) -> list[str]:
    """The lines that pack matrices. masks: matrix -> the pointer to its mask."""
    lines = []
    for x in products:
        place = given[x.matrix]
        turned = bool(place.strides[x.columns])
        stride = product(list(place.strides[x.columns] or place.strides[x.rows]))
        first = "if (team.first()) " if team else ""
        read = f"{place.base}, {masks[x.matrix.text('name')]}, {stride}"
        lines.append(f"{first}w.{x.name}.template pack<{str(turned).lower()}>({read});")
    return [*lines, "team.meet();"] if team and lines else lines


def multiplying(products: list[SparseProduct], places: Mapping[Node, Place], team: bool) -> Nested:
    """The products that share a nest. A list lays out one vector at a time: products with one matrix take turns."""
    turns: list[list[SparseProduct]] = []
    for x in products:
        free = next((turn for turn in turns if x.name not in [other.name for other in turn]), None)
        if free is None:
            turns.append([x])
        else:
            free.append(x)
    around = {name for x in products for n in (x.vector.base, x.item.value) for name in places[n].names}
    lines = [line for turn in turns for line in _turn(turn, places, team)]
    return Nested(tuple(lines), frozenset({*around, "w", "r_B", "Sparse", *(["team"] if team else [])}))


def _turn(products: list[SparseProduct], places: Mapping[Node, Place], team: bool) -> list[str]:
    """The lines of products with different matrices."""
    member = "team" if team else "Team{nullptr, 0, 1}"
    ahead, calls = [], []
    for x in products:
        place, out = places[x.vector.base], places[x.item.value]
        axis = next(d for d, i in x.vector.index if i == x.column and d in place.strides)
        read = f"{place.at({BATCH: '0', axis: '0'})}, {product(list(place.strides[BATCH]))}"
        write = f"{out.base}, {product(list(out.strides[BATCH]))}"
        ahead.append(f"if (w.{x.name}.single) w.{x.name}.template lay<r_B>({member}, {read});")
        calls.append(f"w.{x.name}.template multiply<r_B>({member}, {read}, {write});")
    if not team:
        return [*ahead, *calls]
    single = " || ".join(f"w.{x.name}.single" for x in products)
    return [*ahead, f"if ({single}) team.meet();", *calls, "team.meet();"]


def kept_sides(plan: Plan, x: Product) -> tuple[Factor, Factor] | None:
    """The factors of a sparse matrix's gradient, rows first, where it is summed for kept elements alone; None where not."""
    decl = plan.program.params[x.param]
    if decl.support is None or decl.support.mask not in plan.program.params or len(decl.dims) < 2:
        return None
    *lead, row, column = decl.dims
    for rows, columns in ((x.left, x.right), (x.right, x.left)):
        if rows.dims == (*lead, row) and columns.dims == (*lead, column):
            return rows, columns
    return None
