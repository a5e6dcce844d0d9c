"""components -> components in which a linear state that another one reads whole is one component with it; None where none is.

    M = eta * M[t-1] + k * v,    S = decay * S[t-1] + M        ->    M and S together

Alone, M would have to be materialised at every row, because S takes it as it is; as coupled states both are read through
contractions. Needs: classify. Criterion: both linear, without boundaries, and matrices; the reader's update is affine in both.
"""

from __future__ import annotations

from dataclasses import replace

from seqc.analysis.affine import NotAffine, affine
from seqc.analysis.component import Component
from seqc.ir.program import Program

LINEAR = ("diagonal", "low rank", "coupled")


def joined(program: Program, components: tuple[Component, ...]) -> tuple[Component, ...] | None:
    """The components with those joined that read each other whole, in their order; None if nothing is to be joined."""
    out = list(components)
    for reader in components:
        for read in [c for c in out if reader.states[0] not in c.states]:
            mine = next(c for c in out if reader.states[0] in c.states)
            whole = _together(program, read, mine)
            if whole is not None:
                out[out.index(mine)] = whole
                out.remove(read)
    return tuple(out) if len(out) < len(components) else None


def _together(program: Program, read: Component, reader: Component) -> Component | None:
    """Both as one component, if the reader takes a matrix state of the other whole."""
    if any(c.kind not in LINEAR or c.hook is not None for c in (read, reader)):
        return None
    names = (*read.states, *reader.states)
    olds = [program.states[name].leaf() for name in names]
    if min(len(x.dims) for x in olds) < 3:  # the batch, and two dims
        return None
    try:
        forms = {name: affine(program.updates[name], olds) for name in names}
    except NotAffine:
        return None
    own = [program.states[x].leaf() for x in read.states]
    if not any(t.state in own and not t.over for name in reader.states for t in forms[name].terms):
        return None
    return replace(reader, states=names, kind="coupled", why=f"{', '.join(names)} feed each other linearly", forms=forms)
