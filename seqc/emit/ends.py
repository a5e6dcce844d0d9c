"""What a file's functions do where no output is made of some states: their last values may come back without a cotangent.

In: a signature. Out: fields of the boundary's text, by which such a cotangent stays None on its way to the backward functions,
which run nothing of these states then; where a file has no such state, what stands in the text otherwise.
"""

from __future__ import annotations

from seqc.emit.signature import Signature
from seqc.emit.text import group

PLUS = '''
def _plus(like, *terms):
    """The sum of the terms that are there; zeros where none is."""
    first, *rest = [x for x in terms if x is not None] or [torch.zeros_like(like)]
    return sum(rest, first)
'''

_FILLED = "    return [*outputs, *(torch.zeros_like(s, dtype=carry) if d is None else d for d, s in starts)]"
_KEPT = '''    filled = [torch.zeros_like(s, dtype=carry) if d is None else d for d, s in starts]
    return [*outputs, *(states[i] if i in {places} else d for i, d in enumerate(filled))]


def _prepared(form, carry, cotangents):
    """The cotangents as a form takes them; one that is not there stays so."""
    return [d if d is None else form.prepare(carry, d)[0] for d in cotangents]'''
_CLONED = '''
        starts = zip(cotangents[{outputs}:], tensors[{given}:], strict=True)
        gradients += [torch.zeros_like(s) if d is None else d.clone() for d, s in starts]'''


def ends_fields(sig: Signature) -> dict[str, str]:
    """Those of the backward operator."""
    if not sig.optional:
        return {"told": "", "filled": _FILLED, "end": "_copy(d, s.dtype)", "handed": "form.prepare(carry, *whole)"}
    places = group([str(i) for i, s in enumerate(sig.states) if s.name in sig.optional])
    return {
        "told": f"; of {', '.join(f'{name}_T' for name in sig.optional)} None is told to the form",
        "filled": _KEPT.format(places=places),
        "end": "torch.zeros_like(s) if d is None else _copy(d, s.dtype)",
        "handed": "_prepared(form, carry, whole)",
    }


def ends_fields_of_packs(sig: Signature) -> dict[str, str]:
    """Those of the functions that run the sequences of a pack one by one."""
    outputs = len(sig.outputs)
    if not sig.optional:
        return {"view": "views[kind](x)", "shared": 'kind == "-"', "starts": f" + [d.clone() for d in cotangents[{outputs}:]]"}
    return {
        "view": "x if x is None else views[kind](x)",
        "shared": 'kind == "-" or x is None',
        "starts": _CLONED.format(outputs=outputs, given=sig.stateless),
    }
