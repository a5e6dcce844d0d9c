"""What a file's functions do where no output is made of some states: their last values may come back without a cotangent.

In: text of the boundary, a signature. Out: the text, in which such a cotangent stays None on its way to the backward functions,
which run nothing of these states then. Text is returned as it is where a file has no such state.
"""

from __future__ import annotations

from collections.abc import Iterable

from seqc.emit.signature import Signature
from seqc.emit.text import group

PLUS = '''
def _plus(like, *terms):
    """The sum of the terms that are there; zeros where none is."""
    first, *rest = [x for x in terms if x is not None] or [torch.zeros_like(like)]
    return sum(rest, first)
'''

_CHANGES = (
    (
        '    """The cotangents, with zeros for those that are not there."""\n',
        '    """The cotangents, with zeros for those that are not there; of {names} None is told to the form."""\n',
    ),
    (
        "    return [*outputs, *(torch.zeros_like(s, dtype=carry) if d is None else d for d, s in starts)]\n",
        "    filled = [torch.zeros_like(s, dtype=carry) if d is None else d for d, s in starts]\n"
        "    return [*outputs, *(states[i] if i in {places} else d for i, d in enumerate(filled))]\n\n\n"
        "def _prepared(form, carry, cotangents):\n"
        '    """The cotangents as a form takes them; one that is not there stays so."""\n'
        "    return [d if d is None else form.prepare(carry, d)[0] for d in cotangents]\n",
    ),
    (
        "*(_copy(d, s.dtype) for s, d in final)]",
        "*(torch.zeros_like(s) if d is None else _copy(d, s.dtype) for s, d in final)]",
    ),
    ("*saved, *form.prepare(carry, *whole)\n", "*saved, *_prepared(form, carry, whole)\n"),
)

_OF_PACKS = (
    (
        " + [d.clone() for d in cotangents[{outputs}:]]\n",
        "\n        starts = zip(cotangents[{outputs}:], tensors[{given}:], strict=True)\n"
        "        gradients += [torch.zeros_like(s) if d is None else d.clone() for d, s in starts]\n",
    ),
    ('x if kind == "-" else x.clone()', 'x if kind == "-" or x is None else x.clone()'),
    (
        "    return [views[kind](x) for x, kind in zip(tensors, kinds)]",
        "    return [x if x is None else views[kind](x) for x, kind in zip(tensors, kinds)]",
    ),
)


def leaving_ends(sig: Signature, text: str) -> str:
    """The boundary's backward function."""
    places = group([str(i) for i, s in enumerate(sig.states) if s.name in sig.optional])
    names = ", ".join(f"{name}_T" for name in sig.optional)
    told = tuple((old, new.replace("{places}", places).replace("{names}", names)) for old, new in _CHANGES)
    return _changed(text, told if sig.optional else ())


def leaving_ends_of_packs(sig: Signature, text: str) -> str:
    """The functions that run the sequences of a pack one by one."""
    return _changed(text, _OF_PACKS if sig.optional else ())


def _changed(text: str, changes: Iterable[tuple[str, str]]) -> str:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text
