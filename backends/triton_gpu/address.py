"""Where a kernel's tiles lie in memory: index, offset and mask expressions, each written once where it belongs.

In: arrays of `kernel`, and the scope at hand. Out: `At`, the text of a pointer and a mask. A pointer is the array, plus a
64-bit scalar for everything that is one index in this scope, plus a 32-bit tile (64-bit along the batch).
In blocks of rows, rows past the end of the sequence read the last row; masks keep them from being written.

A program's sequence is T steps, from the row `first` of all rows [B * T] on, or down where STEP is -1: of a batch of equal
sequences or of a pack, the addresses are the same. Saved blocks likewise stand from `first_block` on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

from seqc.backends.triton_gpu.kernel import (
    ALL_BLOCKS,
    ALL_SPANS,
    BLOCKS,
    PIECES,
    SCRATCH,
    SPANS,
    STEPS,
    TURN,
    Array,
    Kernel,
    tile_axes,
)
from seqc.backends.triton_gpu.names import Names
from seqc.backends.triton_gpu.roles import ALL, Roles
from seqc.ir.block import BATCH, ROW
from seqc.ir.dims import base, is_piece, is_time, piece


@dataclass
class Scope:
    """Lines at one level of the loop tree. rank: 0 setup, 1 loop, 2 inner loop. branch: they are run under a condition."""

    rank: int
    parent: Scope | None = None
    lines: list[str] = field(default_factory=list)
    known: dict[object, str] = field(default_factory=dict)
    branch: bool = False

    @property
    def places(self) -> Scope:
        """Where addresses are written: what follows a branch may need them too."""
        return self.parent.places if self.branch and self.parent is not None else self

    def look(self, key: object) -> str | None:
        """What `key` was called here or outside."""
        scope: Scope | None = self
        while scope is not None:
            if key in scope.known:
                return scope.known[key]
            scope = scope.parent
        return None

    def root(self) -> Scope:
        """The setup."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope


@dataclass(frozen=True)
class At:
    """pointer: text after the array's name ("" or "+ ..."); axes: tile axes in order; mask: text, or None.

    only: a condition on the program or the step under which there is anything to read or write, or None.
    """

    pointer: str
    axes: tuple[str, ...]
    mask: str | None
    only: str | None = None


SEQUENCE_ROWS = "rows"  # the batch and the steps as one axis
SEQUENCE_BLOCKS = "blocks"  # the batch and the blocks as one axis
SEQUENCE_SPANS = "spans"  # the batch and the spans as one axis


def spread(code: str, axis: str, axes: tuple[str, ...]) -> str:
    """A one-axis tile as it broadcasts against `axes`: `o_k[None, :]`."""
    return code if len(axes) < 2 else f"{code}[{among((axis,), axes)}]"


def among(own: tuple[str, ...], axes: tuple[str, ...]) -> str:
    """An index by which a tile with some of these axes has all: what has all units of a dim lies in parts, an axis in front."""
    parts = [a for a in axes if a.endswith(ALL)]
    return ", ".join(":" if a in own else "None" for a in (*parts, *axes))


class Addresses:
    """Writes the offsets and masks of one kernel into its scopes."""

    def __init__(self, kernel: Kernel, roles: Roles, names: Names) -> None:
        self.kernel, self.roles, self.names = kernel, roles, names
        self.step = "i_t"  # the step that loads and stores are of,
        self.block, self.near = "i_0", "o_r"  # or the first step of the block that they are of, and its rows
        self.columns = ""  # the dim that threads share out, so that each has whole columns of a block

    def merged(self, array: Array) -> tuple[str, ...]:
        """The array's axes, with the batch and the steps (or the blocks) in one."""
        every_step = self.kernel.rows == 1 and self.kernel.every == 1  # what is saved at every step lies where its step does
        axes = list(array.axes)
        for i in range(len(axes) - 1):
            if axes[i] == BATCH and (axes[i + 1] == STEPS or (axes[i + 1] == BLOCKS and every_step)):
                return (*axes[:i], SEQUENCE_ROWS, *axes[i + 2 :])
            if axes[i] == BATCH and axes[i + 1] == SPANS:
                return (*axes[:i], SEQUENCE_SPANS, *axes[i + 2 :])
            if axes[i].strip(PIECES) == BATCH and axes[i + 1] == BLOCKS:
                return (*axes[:i], SEQUENCE_BLOCKS, *axes[i + 2 :])
        return array.axes

    def tile_axes(self, array: Array) -> tuple[str, ...]:
        """The tile axes of an array in the global order."""
        return tile_axes(array, self.roles, self.kernel.rows)

    def at(self, array: Array, scope: Scope, offset: int, writes: bool, first_only: tuple[str, ...]) -> At:
        """The address of an array in this scope. Rows past the end are masked in writes, and in cotangents read."""
        axes = self.tile_axes(array)
        terms = [t for t in (self.scalar(array, scope, offset), self.tile(array, axes, scope)) if t]
        parts = [spread(self.mask(d, scope), d, axes) for d in axes if not is_time(d)]
        if ROW in axes and offset:
            parts.insert(0, spread(self.row_mask(scope, offset), ROW, axes))
        elif ROW in axes and STEPS in array.axes and (writes or array.role == "cot"):
            parts.insert(0, spread(self.inside(scope), ROW, axes))
        only = [f"{self.names.program(d)} == 0" for d in first_only]
        if STEPS in array.axes and ROW not in axes and offset:
            only.append(f"i_t >= {offset}" if offset > 0 else f"i_t < T - {-offset}")
        whole = " & ".join(parts) if parts else None
        if whole is not None and len(parts) > 1:
            whole = self.shared_mask(axes, whole, scope, ROW in axes)
        both = only[0] if len(only) == 1 else " & ".join(f"({x})" for x in only)
        return At("".join(f" + {t}" for t in terms), axes, whole, both or None)

    def of_block(self, scope: Scope) -> Scope:
        """Where what all of a block has is written: a program that does one block has it throughout."""
        return scope.root() if self.kernel.block_in_grid else scope

    # ---- the scalar part ----

    def scalar(self, array: Array, scope: Scope, offset: int) -> str:
        """Name of the scalar offset, "" where it is zero."""
        merged = self.merged(array)
        index = [self.index(a, offset) for a in merged]
        if not any(index):
            return ""
        used = [i for i, one in enumerate(index) if one]
        code = ""
        for i in range(len(index)):
            one = index[i]
            if i > 0 and code:
                code = f"{_paren(code)} * {self.extent(merged[i])}"
            if one:
                code = f"{code} + {one}" if code else one
        key = ("at", code)
        found = scope.look(key)
        if found:
            return found
        late = any(merged[i] in (SEQUENCE_ROWS, SEQUENCE_BLOCKS, SEQUENCE_SPANS, SCRATCH, TURN) for i in used)
        home = self.of_block(scope) if late else scope.root()
        suffix = self.suffix(array)
        if code.isidentifier():
            return code
        name = self.names.fresh(f"at_{suffix}")
        home.lines.append(f"{name} = {code}")
        home.known[key] = name
        return name

    def index(self, axis: str, offset: int) -> str:
        """The scalar index along an array's axis, "" where it is a tile axis or zero."""
        whole = BATCH not in self.roles.blocked  # else where sequences begin is a tile
        if axis == SEQUENCE_ROWS:
            row = self.block if self.kernel.rows > 1 else self.step
            if offset:
                row = f"({row}{_signed(-offset)})"
                if self.kernel.rows == 1:  # where there is no such step, any other is read and not used
                    row = f"tl.maximum{row[:-1]}, 0)" if offset > 0 else f"tl.minimum{row[:-1]}, T - 1)"
            return f"{'first + ' if whole else ''}{self.names.use('STEP')} * {row}"
        if axis == SEQUENCE_BLOCKS:
            return "i_s" if self.kernel.block_in_grid else f"{'first_block + ' if whole else ''}i_n"
        if axis == SEQUENCE_SPANS:
            return "i_s" if self.kernel.span_in_grid else f"first_span + i_n // {self.names.use('EVERY')}"
        if axis == SCRATCH:
            return f"({self.step} - i_n * {self.names.use(SCRATCH)})"
        if axis == TURN:
            return "i_t % 2"
        if axis.startswith(PIECES):
            return self.names.program(axis[1:])
        return self.names.program(axis) if axis in self.roles.grid else ""

    def extent(self, axis: str) -> str:
        """The length of an array's axis."""
        if axis == SEQUENCE_ROWS:
            return self.names.use("N_STEPS")
        if axis == SEQUENCE_BLOCKS:
            return self.names.use(ALL_BLOCKS)
        if axis == SEQUENCE_SPANS:
            return ALL_SPANS
        if axis == STEPS:
            return axis
        if axis == SCRATCH:
            return self.names.use(SCRATCH)
        if axis.startswith(PIECES):
            dim = axis[1:]
            return self.names.count[dim] if dim not in self.roles.grid else self.names.extent(dim)
        return self.names.extent(axis)

    def suffix(self, array: Array) -> str:
        """Letters of the axes: [B, T, H, K] is `thk`."""
        low = {STEPS: "t", BLOCKS: "n", SPANS: "s", SCRATCH: "r", TURN: "2"}
        letters = [low.get(a) or self.names.low[base(a.strip(PIECES))] for a in array.axes if a != BATCH]
        return ("" if all(len(x) == 1 for x in letters) else "_").join(letters) or "b"

    # ---- the tile part ----

    def tile(self, array: Array, axes: tuple[str, ...], scope: Scope) -> str:
        """Name of the tile of offsets, "" where the array is one element here."""
        if not axes:
            return ""
        terms = []
        merged = self.merged(array)
        for i, axis in enumerate(merged):
            later = merged[i + 1 :]
            if axis == SEQUENCE_ROWS and ROW in axes:
                terms.append(spread(self.positions(ROW, scope), ROW, axes) + self.stride(later, ("STEP",)))
            elif axis == SEQUENCE_ROWS and BATCH in axes:
                terms.append(spread("first", BATCH, axes) + self.stride(later))
            elif axis == SEQUENCE_BLOCKS and BATCH in axes:
                terms.append(spread("first_block", BATCH, axes) + self.stride(later))
            elif is_time(axis):
                terms.append(spread(self.row_numbers(scope), axis, axes) + self.stride(later))
            elif axis in axes:
                terms.append(spread(self.positions(axis, scope), axis, axes) + self.stride(later))
        code = " + ".join(terms)
        if code.isidentifier():
            return code
        key = ("tile", code)
        found = scope.look(key)
        if found:
            return found
        home = self.of_block(scope) if ROW in axes and SEQUENCE_ROWS in merged else scope.root()
        home = scope if self.roles.is_passed(axes) else home
        name = self.names.fresh(f"o_{'b' if BATCH in axes else ''}{self.suffix(array)}")
        home.lines.append(f"{name} = {code}")
        home.known[key] = name
        return name

    def stride(self, later: tuple[str, ...], factor: tuple[str, ...] = ()) -> str:
        """` * T * (H * K)`: run-time extents first, so that a 64-bit index stays one."""
        special = (SEQUENCE_ROWS, SEQUENCE_BLOCKS, SEQUENCE_SPANS, STEPS, BATCH, PIECES + BATCH)
        runtime = [self.extent(a) for a in later if a in special]
        fixed = [*factor, *(self.extent(a) for a in later if self.extent(a) not in runtime)]
        text = "".join(f" * {x}" for x in runtime)
        return text + (f" * ({' * '.join(fixed)})" if len(fixed) > 1 else "".join(f" * {x}" for x in fixed))

    def positions(self, dim: str, scope: Scope) -> str:
        """Name of the positions along a tile axis."""
        names = self.names
        if is_time(dim):
            self.rows(scope)
            return self.near
        home, name = scope if dim in self.roles.passed else scope.root(), names.offsets(dim)
        if ("o", name) not in home.known:
            home.known["o", name] = name
            arange = f"tl.arange(0, {names.tile(dim)})"
            if dim.endswith(ALL):
                given = names.program(dim), names.tile(dim), names.use("PARTS")
                home.lines.append(f"{name} = {names.call('in_parts')}({', '.join(given)})")
                return name
            if dim == self.columns:
                arange = f"tl.max_contiguous({arange}, {names.use('COLUMNS')})"
            if piece(dim):
                many = f"{piece(dim)} * " if piece(dim) > 1 else ""
                home.lines.append(f"{name} = {many}{names.tile(dim)} + {arange}")
            elif dim not in (*self.roles.blocked, *self.roles.passed):
                home.lines.append(f"{name} = {arange}")
            elif dim == BATCH:  # a program does one sequence of a pack
                count = names.tile(dim)
                home.lines.append(f"{name} = {names.program(dim)} * ({count} if p_cu_seqlens is None else 1) + {arange}")
            else:
                start = f"{names.program(dim)} * {names.tile(dim)}"
                home.lines.append(f"{name} = {start if dim in self.roles.passed else f'({start}).to(tl.int32)'} + {arange}")
        return name

    def rows(self, scope: Scope) -> None:
        """`o_r`, the rows of the block that a load reads: past the end it is the last row."""
        self.row_numbers(scope)
        scope = self.of_block(scope)
        if scope.look(self.near) is None:
            scope.known[self.near] = self.near
            scope.lines.append(f"{self.near} = tl.minimum(o_t, T - 1 - {self.block})")

    def row_numbers(self, scope: Scope) -> str:
        """`o_t`, 0 .. BT-1."""
        home = scope.root()
        if "o_t" not in home.known:
            home.known["o_t"] = "o_t"
            home.lines.append(f"o_t = tl.arange(0, {self.names.use('BT')})")
        return "o_t"

    # ---- masks ----

    def mask(self, dim: str, scope: Scope) -> str:
        """Name of the mask of a dim; all true, and known to be, where the tile is as long as the dim."""
        names = self.names
        home, name = scope if dim in self.roles.passed else scope.root(), names.mask(dim)
        if ("m", name) not in home.known:
            home.known["m", name] = name
            o, extent, tile = self.positions(dim, scope), names.extent(dim), names.tile(dim)
            if dim == BATCH:
                home.lines.append(f"{name} = {o} < ({names.use('B')} if p_cu_seqlens is None else {names.program(dim)} + 1)")
            else:
                pieces = dim in (*self.roles.blocked, *self.roles.passed) or is_piece(dim)
                whole = f"{extent} % {tile} == 0" if pieces else f"{extent} == {tile}"
                home.lines.append(f"{name} = ({o} < {extent}) | ({whole})")
        return name

    def inside(self, scope: Scope) -> str:
        """Name of the mask of rows that lie in the sequence."""
        scope = self.of_block(scope)
        if scope.look("m_t") is None:
            self.row_numbers(scope)
            scope.known["m_t"] = "m_t"
            scope.lines.append("m_t = o_t < T - i_0")
        return "m_t"

    def row_mask(self, scope: Scope, offset: int) -> str:
        """Name of the mask of rows whose shifted row lies in the sequence."""
        key = ("m_t", offset)
        scope = self.of_block(scope)
        found = scope.look(key)
        if found is None:
            self.rows(scope)
            found = self.names.fresh(f"m_t{'m' if offset > 0 else 'p'}{abs(offset)}")
            scope.known[key] = found
            bound = f"i_0 + o_r >= {offset}" if offset > 0 else f"i_0 + o_r < T - {-offset}"
            scope.lines.append(f"{found} = {bound}")
        return found

    def shared_mask(self, axes: tuple[str, ...], code: str, scope: Scope, per_block: bool) -> str:
        """A name for a mask of several axes."""
        key = ("mask", code)
        found = scope.look(key)
        if found is None:
            home = scope if self.roles.is_passed(axes) else self.of_block(scope) if per_block else scope.root()
            letters = [self.names.low[base(d)] if d != ROW else "t" for d in axes]
            found = self.names.fresh("m_" + ("" if all(len(x) == 1 for x in letters) else "_").join(letters))
            home.lines.append(f"{found} = {code}")
            home.known[key] = found
        return found


def _signed(number: int) -> str:
    return "" if number == 0 else f" + {number}" if number > 0 else f" - {-number}"


def _paren(code: str) -> str:
    """The code in parentheses, if it has a sum and no pair encloses all of it."""
    depths = list(accumulate((c == "(") - (c == ")") for c in code))
    enclosed = code.startswith("(") and 0 not in depths[:-1]
    return f"({code})" if " + " in code and not enclosed else code
