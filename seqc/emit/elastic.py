"""Elastic widths: a layer of a dim with a set of sizes serves the smaller ones with the first positions of its parameters.

In: a signature. Out: the methods of the Module; nothing where no dim of its parameters has several sizes.
"""

from __future__ import annotations

from seqc.emit.names import dim_name
from seqc.emit.signature import Dim, Param, Signature
from seqc.ir.dims import unprimed


def owned(sig: Signature) -> list[Param]:
    """The parameters, buffers and masks that a Module has."""
    return [p for p in sig.params if not p.per_batch and not (p.mask and p.hidden)]


def elastic(sig: Signature) -> list[Dim]:
    """The dims with several sizes that a Module's arrays have."""
    used = {unprimed(d) for p in owned(sig) for d in p.dims}
    return [d for d in sig.dims if len(d.choices) > 1 and d.name in used]


def dims_text(sig: Signature) -> str:
    """The table of what a layer owns, and that of its widths."""
    lines = ["# the dims of what a layer owns", "_DIMS = {"]
    lines += [f'    "{p.name}": "{" ".join(map(unprimed, p.dims))}",' for p in owned(sig)]
    if elastic(sig):
        lines += ["}", "# the sizes that a layer serves", "_WIDTHS = {"]
        lines += [f'    "{dim_name(d.name)}": {tuple(d.choices)},' for d in elastic(sig)]
    return "\n".join([*lines, "}"])


def elastic_methods(sig: Signature) -> list[str]:
    """The lines of the Module's methods."""
    if not elastic(sig):
        return []
    text = _METHODS.replace("EXAMPLE", elastic(sig)[0].name).strip("\n")
    return ["", *(f"    {line}".rstrip() for line in text.splitlines())]


_METHODS = '''
def at(self, **widths):
    """This layer at smaller widths, at(EXAMPLE=..): a layer that has the first positions of this one's parameters.

    It neither copies nor owns them. Its gradients are gradients of these, and what trains either trains both.
    """
    for dim, size in widths.items():
        if size not in _WIDTHS.get(dim, ()) or size > self.dims[dim]:
            sizes = [n for n in _WIDTHS.get(dim, ()) if n <= self.dims[dim]]
            said = f"{dim} may be {sizes}" if sizes else f"the widths are {[*_WIDTHS]}"
            raise ValueError(f"no width {dim} = {size}; {said}")
    narrow = type(self).__new__(type(self))
    torch.nn.Module.__init__(narrow)
    narrow.axis, narrow.dims, narrow.training = self.axis, {**self.dims, **widths}, self.training
    narrow.__dict__["_whole"] = self  # not a part of it, but what it is a part of
    return narrow

def __getattr__(self, name):
    whole = self.__dict__.get("_whole")
    if whole is None or name not in _DIMS:
        return super().__getattr__(name)
    x = getattr(whole, name)
    for i, d in enumerate(_DIMS[name].split()):
        x = x.narrow(i, 0, self.dims[d]) if d in self.dims and self.dims[d] < x.shape[i] else x
    return x
'''
