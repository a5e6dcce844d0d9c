"""Indices at the boundary of an emitted file: arrays of whole numbers that tell positions of a dim.

In: a signature. Out: the text that brings them into one dtype and refuses those that are outside of their dim, and the words by
which operators ask for it.
"""

from __future__ import annotations

from seqc.emit.names import dim_name
from seqc.emit.signature import Signature
from seqc.emit.sizes import clock, extent, main_input
from seqc.emit.text import group


def bound(sig: Signature) -> str:
    """The lines of an operator that name the tensor which tells the batch and the steps, and the one which tells the dtype."""
    main, at = main_input(sig), sig.arguments.index(clock(sig))
    like = "" if main == clock(sig) else f"    like = tensors[{sig.arguments.index(main)}]\n"
    return f"    x = tensors[{at}]\n{like}"


def prepared(sig: Signature) -> dict[str, str]:
    """How the torch and cpu forms have a tensor `x`, in words and as an expression."""
    if not any(a.whole for a in sig.table):
        return {"told": "", "each": "x if x.dtype == carry and x.is_contiguous() else x.to(carry).contiguous()"}
    each = "x.to(x.dtype if x.dtype == torch.int64 else carry).contiguous()"
    return {"told": "; indices stay as they are", "each": each}


def cast_lines(sig: Signature) -> list[str]:
    """The lines of a call that bring its indices into one dtype."""
    return [f'    {a.name} = _as_places("{a.name}", {a.name})' for a in sig.table if a.whole]


def places_text(sig: Signature) -> str:
    """The functions behind these words; "" where no argument is an index."""
    places = {x.name: dim_name(x.places) for x in sig.inputs if x.places}
    if not places:
        return ""
    rows = [f'("{name}", tensors[{sig.arguments.index(name)}], "{dim}", {extent(sig, dim)})' for name, dim in places.items()]
    return _PLACES.format(spec=sig.spec, rows=group(rows)).strip()


_PLACES = '''
CHECK_PLACES = False  # whether indices on a GPU are read and checked too: a call then waits for it


def _as_places(name, x):
    """An index as int64."""
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"{spec}: {{name}} is {{x.dtype}}; an index is an array of whole numbers: {{name}}.long()")
    return x.to(torch.int64)


def _check_places(tensors):
    """IndexError where an index is no position of its dim. Those on a GPU are not read, for it would have to be waited for."""
    for name, x, dim, size in {rows}:
        if x.numel() == 0 or (x.device.type != "cpu" and not CHECK_PLACES):
            continue
        low, high = torch.aminmax(x)
        if low >= 0 and high < size:
            continue
        at = ((x < 0) | (x >= size)).nonzero()[0].tolist()
        axes = [axis for axis in _AXES[name].split() if axis != "T" or x.dim() == len(_AXES[name].split())]
        where = ", ".join(f"{{axis}} = {{i}}" for axis, i in zip(axes, at, strict=True))
        words = f"{{name}} is {{x[tuple(at)].item()}} at {{where}}; {{dim}} has the positions 0 to {{size - 1}}"
        raise IndexError(f"{spec}: {{words}}")
'''
