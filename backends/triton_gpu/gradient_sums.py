"""What follows the kernels of backward: sums of what programs left in parts, and gradients that are one product.

In: a `Schedule`. Out: Python statements for `launcher`. Sums over programs are plain `sum`s of parts in a fixed order.
"""

from __future__ import annotations

from seqc.backends.triton_gpu.extents import Extents, by_block
from seqc.backends.triton_gpu.kernel import BLOCKS, PIECES, STEPS, Array
from seqc.backends.triton_gpu.outer import Factor, Outer
from seqc.emit.names import safe_name
from seqc.ir.block import BATCH
from seqc.ir.graph import Node
from seqc.ir.keys import slope_key, slope_of
from seqc.ir.program import TensorDecl

OF_EACH = '''
def _of_each(parts, B, cu_seqlens, rows):
    """[B, ...]: for each sequence, the sum of what its blocks of so many rows left. parts: [N_BLOCKS, ...]"""
    if cu_seqlens is None:
        return parts.unflatten(0, (B, -1)).sum(1)
    begins = cu_seqlens // rows + torch.arange(B + 1, dtype=cu_seqlens.dtype, device=cu_seqlens.device)
    return torch.segment_reduce(parts, "sum", offsets=begins, axis=0, unsafe=True)
'''


class GradientSums(Extents):
    """See the file's docstring."""

    def add_up(self, array: Array, between: bool = False) -> str:
        """The sum of the programs' parts, if there are any. between: what one kernel hands to another is added up too."""
        name, axes = self.local(array.name), [a for a in array.axes if a not in (STEPS, BLOCKS)]
        parts = [i for i, a in enumerate(axes) if a.startswith(PIECES)]
        if not (array.role == "grad" or (array.role == "scratch" and between)):
            return ""
        over = str(parts[0]) if len(parts) == 1 else str(tuple(parts))
        code = f"{name}.sum({over})" if parts else name
        if by_block(array) and BATCH in axes:
            code = f"{self.helper('_of_each')}({code}, B, cu_seqlens, {self.rows_per_block()})"
        return f"{name} = {code}" if code != name else ""

    def input_gradient(self, x: str) -> list[str]:
        """Add what flows back through shifted reads; zeros where nothing does."""
        backward = self.schedule.backward_graph
        name = self.local(f"d_{x}")
        lines = []
        if _zero(backward.get(slope_key(x))):
            lines.append(f"{name} = torch.zeros_like({safe_name(x)})")
        for key, root in backward.items():
            base, offset, _ = slope_of(key)
            if base != x or not offset or _zero(root):
                continue
            part = self.local(f"d_{slope_of(key).word()}")
            lines.append(f"{self.helper('_add_shifted')}({name}, {part}, {offset} * STEP, cu_seqlens)")
        return lines

    def param_gradient(self, x: str, decl: TensorDecl) -> list[str]:
        """One matrix product over batch and time for outer products; zeros where the parameter has no effect."""
        name = self.local(f"d_{x}")
        if x in self.schedule.outer:
            code = ""
            for term in self.schedule.outer[x]:
                one = self.einsum(term, decl)
                code = f"{code} {'-' if term.sign < 0 else '+'} {one}" if code else f"{'-' if term.sign < 0 else ''}{one}"
            return [f"{name} = {code}"]
        if _zero(self.schedule.backward_graph.get(slope_key(x))):
            return [f"{name} = torch.zeros_like({safe_name(x)})"]
        return []

    def einsum(self, term: Outer, decl: TensorDecl) -> str:
        pieces = [PIECES + d for f in term.factors for d in f.pieces]
        dims = dict.fromkeys((*decl.dims, *(d for f in term.factors for d in f.dims), *pieces))  # programs' are summed here
        letters = {d: chr(ord("c") + i) for i, d in enumerate(dims)}

        def axes(f: Factor) -> str:
            before = "".join(letters[PIECES + d] for d in f.pieces)
            return before + ("" if f.constant else "ab") + "".join(letters[d] for d in f.dims)

        left, right = term.factors
        result = ("a" if decl.per_batch else "") + "".join(letters[d] for d in decl.dims)
        arrays = ", ".join(f"{self.local(f.array)}.float()" for f in (left, right))
        return f'torch.einsum("{axes(left)},{axes(right)}->{result}", {arrays})'


def _zero(root: Node | None) -> bool:
    return root is None or root.op == "const"
