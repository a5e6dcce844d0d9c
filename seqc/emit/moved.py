"""Which arguments of an emitted file have a gradient. In: a signature. Out: the text of the functions that pick them and put
gradients at their places, and the words by which the other texts call these; all empty where every argument has one.
"""

from __future__ import annotations

from seqc.emit.signature import Signature
from seqc.emit.text import group


def moved_text(sig: Signature) -> str:
    """The functions."""
    if sig.all_gradients:
        return ""
    places = group([str(i) for i, a in enumerate(sig.table) if a.gradient])
    return _MOVED.format(places=places, count=len(sig.table)).strip()


def moved_fields(sig: Signature) -> dict[str, object]:
    """What stands around a list of arguments to pick those with a gradient, and around a list of gradients to place them."""
    fields: dict[str, object] = {"before": sum(a.gradient and a.kind != "state" for a in sig.table)}
    if sig.all_gradients:
        fields |= dict.fromkeys(("picked", "picked_end", "placed", "placed_end", "asked"), "")
        return fields | {"asking": ".requires_grad_()", "wrt": "tensors", "again": _AGAIN}
    fields |= {"picked": "_with_gradient(", "placed": "_placed(", "picked_end": ")", "placed_end": ")"}
    asked = "        moved = [x.requires_grad_() for x in _with_gradient(tensors)]\n"
    return fields | {"asking": "", "asked": asked, "wrt": "moved", "again": _AGAIN_OF_SOME}


_AGAIN = """        alike = [x if x is None else x.detach().requires_grad_() for x in (*kept[:{count}], *kept[{given_count}:])]
        tensors, cu_seqlens, cotangents = alike[:{count}], kept[{count}], alike[{count}:]
        with torch.enable_grad():
            asked = _asked(ctx.needs, tensors)
            gradients = _pulled(_plain(*tensors, cu_seqlens, ctx.reverse), cotangents, asked, create_graph=True)
        found = iter(_pulled(gradients, weights, [x for x in alike if x is not None]))
        left = [None if x is None else next(found) for x in alike]
"""

_AGAIN_OF_SOME = """        alike = [x if x is None else x.detach() for x in (*kept[:{count}], *kept[{given_count}:])]
        tensors, cu_seqlens, cotangents = alike[:{count}], kept[{count}], alike[{count}:]
        moved = _with_gradient(tensors)
        wrt = [x.requires_grad_() for x in (*moved, *cotangents) if x is not None]
        with torch.enable_grad():
            asked = _asked(ctx.needs, moved)
            gradients = _pulled(_plain(*tensors, cu_seqlens, ctx.reverse), cotangents, asked, create_graph=True)
        found = iter(_pulled(gradients, weights, wrt))
        left = _placed([next(found) for _ in moved]) + [None if x is None else next(found) for x in cotangents]
"""

_MOVED = '''
_MOVED = {places}  # the arguments that have a gradient


def _with_gradient(tensors):
    """Those of the arguments that have a gradient."""
    return [tensors[i] for i in _MOVED]


def _placed(gradients):
    """Gradients at the places of their arguments; None at the others."""
    found = dict(zip(_MOVED, gradients, strict=True))
    return [found.get(i) for i in range({count})]
'''
