"""What a tile holds beyond the extent of a dim: whether a reduction may include it as it is.

Tiles are padded to powers of two and loaded as zeros there. In: nodes and a dim. Out: `clean` (the padding is zero) and
`bounded` (it is finite). A reduction over a dim includes padding that is not clean only behind a mask. A carried value
is clean if it starts so and its next value is, given that all carried values are: the largest such set is found first.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.ir.dims import is_rank
from seqc.ir.graph import Node
from seqc.ir.ops import holds


class Padding:
    """Answers for one kernel. following: carried leaf -> its next value."""

    def __init__(self, following: Mapping[Node, Node]) -> None:
        self.following = following
        self.dirty: set[tuple[Node, str]] = set()
        self.memo: dict[tuple[str, Node, str], bool] = {}
        dims = sorted({d for n in following for d in n.dims})
        changed = True
        while changed:
            changed = False
            self.memo.clear()
            for n, after in following.items():
                for d in dims:
                    if d in n.dims and (n, d) not in self.dirty and not self.clean(after, d):
                        self.dirty.add((n, d))
                        changed = True
        self.memo.clear()

    def clean(self, n: Node, dim: str) -> bool:
        """Whether n is zero beyond the extent of dim."""
        key = ("clean", n, dim)
        if key not in self.memo:
            self.memo[key] = self._clean(n, dim)
        return self.memo[key]

    def bounded(self, n: Node, dim: str) -> bool:
        """Whether n is finite beyond the extent of dim, where it is finite within."""
        key = ("bounded", n, dim)
        if key not in self.memo:
            self.memo[key] = self._bounded(n, dim)
        return self.memo[key]

    def _clean(self, n: Node, dim: str) -> bool:
        if n.op == "const":
            return n.attr("value") == 0.0
        if dim not in n.dims:
            return False
        if n.op == "leaf":
            return n.text("kind") != "mask" and (n, dim) not in self.dirty
        if n.op == "rename":
            return self.clean(n.args[0], n.text("old") if n.text("new") == dim else dim)
        if n.op == "tri_inv":
            return is_rank(dim)
        if n.op in ("shift", "cumsum") and n.text("dim") == dim:  # their argument's padding is masked (`values.on_rows`)
            return n.number("by") < 0 if n.op == "shift" else bool(n.number("reverse"))
        if n.op == "mul":
            a, b = n.args
            return self._product(a, b, dim) or self._product(b, a, dim)
        if holds(n, "zeros"):
            return all(self.clean(a, dim) for a in n.args)
        if n.op == "where":
            return all(self.clean(a, dim) for a in n.args[1:])
        if n.op == "div":
            return self.clean(n.args[0], dim) and dim not in n.args[1].dims
        if n.op == "affine_scan" and n.text("dim") == dim:  # masked so, if it comes from the end
            return bool(n.number("reverse")) and n.args[2].op == "const" and n.args[2].attr("value") == 0.0
        if n.op == "affine_scan":
            return self.clean(n.args[1], dim) and self.clean(n.args[2], dim) and self.bounded(n.args[0], dim)
        return holds(n, "zero") and n.op not in ("amax", "expand") and self.clean(n.args[0], dim)

    def _product(self, zero: Node, other: Node, dim: str) -> bool:
        return self.clean(zero, dim) and self.bounded(other, dim)

    def _bounded(self, n: Node, dim: str) -> bool:
        if dim not in n.dims or n.dtype == "bool" or n.op in ("index", "block_index") or self.clean(n, dim):
            return True
        if n.op == "rename":
            return self.bounded(n.args[0], n.text("old") if n.text("new") == dim else dim)
        if n.op == "tri_inv":
            return is_rank(dim)
        if n.op == "surrogate":
            return self.bounded(n.args[0], dim)
        if holds(n, "finite"):
            return all(self.bounded(a, dim) for a in n.args)
        if n.op == "exp":
            return self.clean(n.args[0], dim)
        return n.op == "div" and self.bounded(n.args[0], dim) and dim not in n.args[1].dims
