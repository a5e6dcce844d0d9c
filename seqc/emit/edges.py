"""Edges of two axes that begin with the number of their place: `before u: d = index[t] + 1`. In: a signature. Out: text."""

from __future__ import annotations

from seqc.emit.signature import Signature

EDGE_PLACES = "_edge_places(T, cu_seqlens, reverse, device)"
"""The numbers of the places along the steps, in a function over a sequence."""


def edge_places_text(sig: Signature) -> str:
    """What counts the places of an edge along the steps; "" where no edge begins with their number."""
    back = "not reverse" if sig.backwards else "reverse"
    return _TEXT.format(back=back).strip() if _counted(sig) else ""


def _counted(sig: Signature) -> list[str]:
    """The edges that begin with a number of steps, which only a whole run knows."""
    return [x.name for x in sig.inputs if EDGE_PLACES in (x.init or "")]


def uncounted(sig: Signature, indent: int) -> list[str]:
    """The lines that refuse such an edge where it is left out of a part of a run."""
    pad = " " * indent
    why = "is what the spec says of a whole run: pass it where a part runs alone"
    return [line for x in _counted(sig) for line in (
        f"{pad}if {x} is None:", f'{pad}    raise ValueError("{sig.spec}: {x} {why}")')]


_TEXT = '''
def _edge_places(steps, cu_seqlens, reverse, device):
    """How many steps of its sequence the run has before each step of the row."""
    at = torch.arange(steps, device=device)
    bounds = torch.tensor([0, steps], device=device) if cu_seqlens is None else cu_seqlens
    bounds = torch.nn.functional.pad(bounds, (0, 1), value=steps)  # what follows the last sequence
    own = torch.searchsorted(bounds[:-1].contiguous(), at, right=True)
    return (bounds[own] - 1 - at if {back} else at - bounds[own - 1]).to(torch.float64)
'''
