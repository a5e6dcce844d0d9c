"""The text of one torch function while it is written.

In: statements, sizes and helpers as they are asked for. Out: lines. Sizes are read from the arguments at the top, only
those that the body needs; `index` arrays and the like stand below them, once each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from seqc.analysis.phases import BLOCK
from seqc.backends.torch_eager.lines import laid
from seqc.emit.expressions import Names, Text
from seqc.emit.names import dim_name
from seqc.emit.text import lay
from seqc.ir.dims import is_rank, rank_size, unprimed
from seqc.ir.graph import BATCH, COL, ROW

LETTERS = "bnts" + "hkvdecfgijlmopqruwxyza" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


NEAR = 2  # rows on either side of a block that a short block has too


def bare(code: str) -> str:
    """The expression without brackets around all of it; a tuple keeps them."""
    depth = 0
    for i, c in enumerate(code):
        depth += (c in "([") - (c in ")]")
        if (depth == 0 and i < len(code) - 1) or (depth == 1 and c == ","):
            return code
    return code[1:-1] if code.startswith("(") else code


class Function:
    """One function. arguments: name -> axes, "T" the time axis of a sequence; like: the argument that tells the dtype."""

    def __init__(self, name: str, doc: str, arguments: Mapping[str, Sequence[str]], rows: int, step: bool,
                 fixed: Mapping[str, int]) -> None:
        self.name = name
        self.doc = doc
        self.arguments = arguments
        self.rows = rows
        self.fixed = fixed  # sizes of dims that no argument tells
        self.step = step
        self.whole = False  # whether it computes products of whole sequences, outside of any autograd: `_product`
        self.short = False  # whether a sequence of fewer steps than a block is a block of its own length
        self.packs = False  # whether the function also takes `cu_seqlens` and `reverse`
        self.differentiated = False  # whether torch differentiates its text, which then says what the spec says of derivatives
        self.like = next(iter(arguments))
        self.used: set[str] = set()
        self.helpers: set[str] = set()
        self.lines: list[str] = []
        self.indent = 4
        self.names = Names((*arguments, "B", "T", "torch", "math", "needs"))
        for d in (*fixed, *(d for axes in arguments.values() for d in axes)):
            self.names.take(dim_name(d))
        self._rows, self._blocks = self.names.fresh("BT"), self.names.fresh("NT")
        self._prelude: dict[str, str] = {}
        self._letters: dict[str, str] = {BATCH: "b", BLOCK: "n", ROW: "t", COL: "s"}
        self._said = ""
        self.held: list[str | list[str]] | None = None  # statements that are not laid out yet, and loops that are
        self.needs: int | None = None  # how many results the caller may leave out: the keyword `needs` tells which

    def say(self, line: str) -> None:
        """One more statement."""
        if self.held is not None:
            self.held.append(line)
            return
        self.lines += laid(line, self.indent) if line else [""]

    def comment(self, text: str) -> None:
        """A comment line, unless it repeats the last one."""
        if text and text != self._said:
            self._said = text
            self.say(f"# {text}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is said inside is one statement: a loop, and what stands before it."""
        if self.held is None:
            yield
            return
        (held, lines), self.held, self.lines = (self.held, self.lines), None, []
        yield
        held.append(self.lines)
        self.held, self.lines = held, lines

    def blank(self, comment: str = "") -> None:
        """An empty line, and a comment that opens the next part."""
        if (last := self.lines if self.held is None else self.held) and last[-1]:
            self.say("")
        if comment:
            self.say(f"# {comment}")
        self._said = comment

    def assign(self, wish: str, x: Text) -> Text:
        """`name = x`; answers the name as a text."""
        name = self.names.fresh(wish)
        self.say(f"{name} = {bare(x.code)}")
        return Text(name, x.axes, scalar=x.scalar)

    def helper(self, name: str) -> str:
        """The name of a helper function, which the file must then hold."""
        self.helpers.add(name)
        return name

    def shifted(self, code: str, by: int, backwards: bool) -> str:
        """An array [B, T, ...] moved to later steps, zero outside of the sequence. backwards: it is the other way round."""
        if not self.packs:
            return f"{self.helper('_shift')}({code}, {by}, 1)"
        bounds = "cu_seqlens"
        if backwards:
            bounds = self.once("bounds", f"None if cu_seqlens is None else {self.size('T')} - cu_seqlens.flip(0)")
        return f"{self.helper('_shift_within')}({code}, {by}, {bounds}, reverse)"

    def size(self, dim: str) -> str:
        """The extent of a dim."""
        if dim[0] == "%" and dim != BLOCK:  # segments and halves of a block, see `segments`
            self.short = False
            return str(self.rows // (2 * int(dim[2:])) if dim[1] == "m" else int(dim[2:]))
        if is_rank(dim):
            return str(rank_size(dim))
        dim = unprimed(dim)
        if dim in (ROW, COL):
            self.used.add("T")
            return self._rows
        if dim == BLOCK:
            self.used.add("T")
            return "T" if self.step else self._blocks
        self.used.add(dim)
        return dim_name(dim)

    def row(self, at: int) -> str:
        """The index of a row of a block: from its end, where it is near that."""
        if self.short:
            at = at - self.rows if at >= self.rows - NEAR else at
            self.short = -NEAR <= at < NEAR
        return str(at)

    def once(self, wish: str, code: str) -> str:
        """A name for an expression that stands at the top of the function."""
        if code not in self._prelude:
            self._prelude[code] = self.names.fresh(wish)
        return self._prelude[code]

    def arange(self, dim: str) -> str:
        """0, 1, 2, ... along a dim, in the dtype of the values."""
        extent = self.size(dim)
        wish = "row" if extent == self._rows else f"i_{extent}"
        return self.once(wish, f"torch.arange({extent}, dtype={self.like}.dtype, device={self.like}.device)")

    def letter(self, dim: str) -> str:
        """The letter of a dim in `einsum`, the same throughout the function."""
        if dim not in self._letters:
            taken = set(self._letters.values())
            wish = dim.lstrip("%")[0]
            wish = wish.upper() if "*" in dim else wish.lower()
            free = wish if wish.isalpha() and wish.isascii() and wish not in taken else ""
            self._letters[dim] = free or next(c for c in LETTERS if c not in taken)
        return self._letters[dim]

    def text(self) -> str:
        """The whole function."""
        calls = ["cu_seqlens=None", "reverse=False"] if self.packs else []
        calls += [f"needs=(True,) * {self.needs}"] if self.needs is not None else []
        calls = ["*", *calls] if calls else []
        head = lay(f"def {self.name}(", [*self.arguments, *calls], "):")
        once: list[str] = []
        words = set(re.findall(r"\w+", "\n".join(self.lines)))
        for code, name in reversed(self._prelude.items()):  # only what is read, by the body or by a later line of these
            if name in words:
                once.insert(0, f"{name} = {code}")
                words |= set(re.findall(r"\w+", code))
        top = [f"    {line}" for line in (*self._sizes(words), *once)]
        doc = [f'    """{self.doc}"""']
        body = [*top, *([""] if top and self.lines and self.lines[0] else []), *self.lines]
        while body and not body[0]:
            body.pop(0)
        return "\n".join([head, *doc, *body])

    def _sizes(self, words: set[str]) -> list[str]:
        out = []
        words = words | ({"T"} if self._blocks in words or (self.short and self._rows in words) else set())
        wanted = {d for d in self.used if dim_name(d) in words}
        known: set[str] = set()
        for name, axes in self.arguments.items():
            plain = [unprimed(d) for d in axes]
            new = [d for d in dict.fromkeys(plain) if d in wanted - known]
            if not new:
                continue
            known.update(new)
            if len(new) == len(plain) > 1:
                out.append(f"{', '.join(map(dim_name, new))} = {name}.shape")
            elif len(new) > 1 and not any(d in known for d in plain if d not in new):
                left = [dim_name(d) if d in new else "_" for d in plain]
                out.append(f"{', '.join(left)} = {name}.shape")
            else:
                out += [f"{dim_name(d)} = {name}.shape[{plain.index(d)}]" for d in new]
        out += [f"{dim_name(d)} = {self.fixed[d]}" for d in sorted(wanted - known)]
        if self._rows in words:
            rows = f"min({self.rows}, max(T, {2 * NEAR}))" if self.short else f"{self.rows}"
            out.append(f"{self._rows} = {rows}  # steps per block")
        if self._blocks in words:
            out.append(f"{self._blocks} = (T + {self.rows - 1}) // {self.rows}  # blocks")
        return out
