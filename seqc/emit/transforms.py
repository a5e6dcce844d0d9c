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
    return _RULES.format(**names, own=own, apart="False" if all(kinds) else "True").strip()


_RULES = '''
_OWN = "{own}"  # B: an argument has a batch axis; -: it is shared by the batch


def _folded(x, dim, members):
    """x [.., members, .., B, ..] as [members * B, ...]; repeated where it is not batched."""
    x = x.unsqueeze(0).expand(members, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def _member(x, dim, i):
    """Member i of an argument, or of a list of them."""
    if isinstance(x, (list, tuple)):
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


def _rule(name, differentiates):
    """How an operator acts on batched arguments. differentiates: whether gradients of shared ones must stay apart."""

    def rule(info, dims, *arguments):
        operator, members = getattr(_OPS, name).default, info.batch_size
        tensors, here = arguments[:{count}], dims[:{count}]
        shared = any(d is not None and own == "-" for d, own in zip(here, _OWN))
        packed = name != "step" and arguments[{count}] is not None
        if shared or packed or differentiates or all(d is None for d in here):
            return _in_turn(operator, members, dims, arguments)
        size = tensors[{clock}].shape[0] if here[{clock}] is None else tensors[{clock}].movedim(here[{clock}], 0).shape[1]
        flat = [x if own == "-" else _folded(x, d, members) for x, d, own in zip(tensors, here, _OWN)]
        if name == "backward":
            *more, saved, needs = arguments[{count}:{after}]
            ends = [None if x is None else _folded(x, d, members) for x, d in zip(arguments[{after}:], dims[{after}:])]
            return _unfolded(operator(*flat, *more, saved, needs, *ends), members, size)
        results = operator(*flat, *arguments[{count}:])
        if name != "forward":
            return _unfolded(results, members, size)
        results, places = _unfolded(results[:-1], members, size), results[-1]
        return (*results[0], places), (*results[1], [None] * len(places))

    return rule


def _unfolded(results, members, size):
    """Results of the larger batch with the members' axis in front again, and the place of that axis."""
    return [x.unflatten(0, (members, size)) for x in results], [0] * len(results)


def _rules():
    """Operator -> its rule."""
    apart = {apart}  # whether an argument is shared, whose gradient each member has for itself
    return {{"run": _rule("run", False), "step": _rule("step", False)}} | {{
        name: _rule(name, apart) for name in ("forward", "backward")
    }}
'''
