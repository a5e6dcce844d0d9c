"""Structured pruning, as methods of an emitted file's Module: whole units, heads or channels go, and a smaller layer is left.

In: a signature. Out: the tables of dims, and two methods; nothing where no mask is a buffer.
"""

from __future__ import annotations

from seqc.emit.names import dim_name
from seqc.emit.pruning import pruned
from seqc.emit.signature import Signature
from seqc.emit.text import group


def shrinking_text(sig: Signature) -> str:
    """The tables; "" where nothing can be pruned."""
    if not pruned(sig):
        return ""
    reads, whole = [], []
    for dim, one in sig.units.items():
        if one.held:
            whole.append(f"    \"{dim_name(dim)}\": {one.held!r},")
        else:
            pairs = group([f'("{name}", {axis})' for name, axis in one.reads])
            reads.append(f'    "{dim_name(dim)}": {pairs},')
    lines = ["# dim -> the parameters, and their axes, by which products add up its positions", "_UNITS = {", *reads, "}"]
    return "\n".join([*lines, "# dims that keep all positions, and why", "_WHOLE = {", *whole, "}"])


def shrinking_methods(sig: Signature) -> list[str]:
    """The lines of the Module's methods."""
    text = _METHODS.replace("CLASS", sig.class_name).strip("\n")
    return ["", *(f"    {line}".rstrip() for line in text.splitlines())] if pruned(sig) else []


_METHODS = '''
@torch.no_grad()
def prune_units(self, dim, keep):
    """Leave out all that whole positions of a dim have to do with others, those with the smallest magnitudes of the sparse
    parameters together; answers `sparsity()`. `shrink` then drops them.

    keep: the share of positions that stay, 0 to 1.
    """
    axes = {mask: [i for i, d in enumerate(_DIMS[mask].split()) if d == dim] for mask in _PRUNED}
    if dim not in _UNITS or not any(axes.values()) or not 0 <= keep <= 1:
        why = _WHOLE.get(dim, f"no sparse parameter has it, or keep is {keep}, which is no share")
        raise ValueError(f"positions of {dim} do not go: {why}")
    scores = torch.zeros(self.dims[dim], dtype=torch.float64)
    for mask, places in axes.items():
        found = self._scores(mask, "magnitude")
        for i in places:
            scores += found.sum([j for j in range(found.dim()) if j != i]).double().cpu()
    stays = _largest_of_rows(scores, round(keep * len(scores)))
    for mask, places in axes.items():
        x = getattr(self, mask)
        for i in places:
            x.logical_and_(stays.to(x.device).view([-1 if j == i else 1 for j in range(x.dim())]))
    return self.sparsity()

@torch.no_grad()
def shrink(self, **kept):
    """A smaller layer with the same numbers: without the positions of a dim that no product reads, because it multiplies all
    of them by 0. Its `kept_positions` tells by dim which these are: inputs and states are given at them, outputs come so.

    kept: a dim, and the positions of it that stay, in order; the numbers are then those that this layer gives where the
        parameters that read the others hold 0.
    """
    for dim in kept:
        if dim not in _UNITS:
            raise ValueError(f"positions of {dim} do not go: {_WHOLE.get(dim, 'there is no such dim')}")
        places = torch.as_tensor(kept[dim] if hasattr(kept[dim], "__iter__") else 0.5)
        whole = places.dim() == 1 and places.dtype in (torch.int32, torch.int64)
        if not whole or not set(places.tolist()) <= {*range(self.dims[dim])}:
            raise ValueError(f"{dim}={kept[dim]!r}: say which positions stay, a list of numbers from 0 to {self.dims[dim] - 1}")
    found = {}
    for dim, reads in _UNITS.items():
        if dim in kept:
            found[dim] = torch.as_tensor(kept[dim], dtype=torch.int64)
        elif reads and dim in self.dims:
            read = torch.zeros(self.dims[dim], dtype=torch.bool)
            for name, i in reads:
                x = self._kept_values(name)
                read |= (x != 0).sum([j for j in range(x.dim()) if j != i]).cpu() > 0
            found[dim] = read.nonzero()[:, 0]
            if len(found[dim]) == self.dims[dim]:
                del found[dim]
    if empty := [dim for dim, places in found.items() if not len(places)]:
        raise ValueError(f"nothing reads any position of {empty[0]}: say which stay, shrink({empty[0]}=[..])")
    like = next(self.parameters())
    dims = {**self.dims, **{dim: len(places) for dim, places in found.items()}}
    small = type(self)(**dims, axis=self.axis, device=like.device, dtype=like.dtype).train(self.training)
    for name, x in small.state_dict(keep_vars=True).items():
        old = getattr(self, name)
        for i, d in enumerate(_DIMS[name].split()):
            old = old.index_select(i, found[d].to(old.device)) if d in found else old
        x.copy_(old)
        x.requires_grad_(getattr(self, name).requires_grad)
    small.kept_positions = found
    return small

def _kept_values(self, name):
    """A parameter with 0 in place of what its mask leaves out."""
    x = getattr(self, name)
    for mask, how in _PRUNED.items():
        if name in how.params:
            x = torch.where(getattr(self, mask), x, 0.0)
    return x
'''
