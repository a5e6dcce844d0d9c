"""The operators under `torch.func.vmap`. In: a signature. Out: the text of their batching rules.

What every batched argument has as its batch axis takes the new axis in: one call of a larger batch. Where an argument without a
batch is batched, or a gradient of a shared parameter must stay apart for each member, and for packs, the members run in turn.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqc.emit.derivatives import batched_arguments
from seqc.emit.signature import Signature


def transforms_text(sig: Signature, names: Mapping[str, object]) -> str:
    """The rules of `run`, `forward`, `backward` and `step`. names: what the texts of the boundary are filled with."""
    kinds = batched_arguments(sig)
    own = "".join("B" if batched else "-" for batched in kinds)
    behind = f'\n_BEHIND = {{"step": "", "backward": "----{"B" * len(sig.results)}"}}  # of the arguments that follow these'
    joined = (_BATCHED if all(kinds) else _SHARED).lstrip("\n").format(**names)
    more = {"apart": "", "shared": "", "behind": behind} if all(kinds) else {**_APART, "behind": ""}
    return _RULES.format(**names, own=own, joined=joined, **more).strip()


_RULES = '''
_OWN = "{own}"  # B: an argument has a batch axis; -: it is shared by the batch{behind}


def _folded(x, dim, members):
    """x [.., members, .., B, ..] as [members * B, ...]; repeated where it is not batched."""
    x = x.unsqueeze(0).expand(members, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def _member(x, dim, i):
    """Member i of an argument, or of a list of them."""
    if isinstance(dim, (list, tuple)):
        return [_member(y, d, i) for y, d in zip(x, dim, strict=True)]
    return x if dim is None else x.select(dim, i)


def _in_turn(operator, members, dims, arguments):
    """The results for one member after the other, put together along a new first axis."""
    found = [operator(*_member(arguments, dims, i)) for i in range(members)]
    together = [
        [torch.stack(part) for part in zip(*column)] if isinstance(column[0], (list, tuple)) else torch.stack(column)
        for column in zip(*found)
    ]
    return together, [[0] * len(x) if isinstance(x, list) else 0 for x in together]


def _rule(name):
    """How an operator acts on batched arguments: as one call of a larger batch, or on each member in turn."""

    def rule(info, dims, *arguments):
        operator, members = getattr(_OPS, name).default, info.batch_size
{shared}        packed = name != "step" and arguments[{count}] is not None
        if {apart}packed or all(d is None for d in dims[:{count}]):
            return _in_turn(operator, members, dims, arguments)
{joined}
    return rule
'''

_BATCHED = '''
        kinds = _OWN + _BEHIND.get(name, "--")
        flat = [x if k == "-" or x is None else _folded(x, d, members) for x, d, k in zip(arguments, dims, kinds)]
        results = operator(*flat)
        kept = len(results) - (name == "forward")  # what it saves has a layout of its own
        apart = [x.unflatten(0, (members, x.shape[0] // members)) for x in results[:kept]]
        return (*apart, *results[kept:]), (*[0] * kept, *([None] * len(x) for x in results[kept:]))
'''

_SHARED = '''
        flat = [x if own == "-" else _folded(x, d, members) for x, d, own in zip(arguments, dims, _OWN)]
        results = operator(*flat, *arguments[{count}:])
        return [x.unflatten(0, (members, x.shape[0] // members)) for x in results], [0] * len(results)
'''

_APART = {  # a gradient of what the batch shares is each member's own
    "apart": 'name in ("forward", "backward") or shared or ',
    "shared": "        shared = any(d is not None and own == \"-\" for d, own in zip(dims, _OWN))\n",
}
