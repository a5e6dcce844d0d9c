"""States at positions: what a call with `states_every=N` gives besides its result. In: a signature. Out: text.

A run goes on from any state that a run has left, so the call is made in pieces of N steps, each from the states that the
last piece left. That holds for every recurrence with a step, on every backend, and autograd joins the pieces' gradients.
"""

from __future__ import annotations

from seqc.emit.call import caller
from seqc.emit.names import past_locals
from seqc.emit.signature import Signature
from seqc.emit.sizes import clock, layouts
from seqc.emit.text import docstring, group, lay


def states_text(sig: Signature) -> str:
    """The result of such a call; "" where a run cannot be cut."""
    if sig.no_step:
        return ""
    axes = layouts(sig)
    words = [
        "What a call with `states_every` gives: its result, and each state after every so many steps as NAME_every.",
        "",
        "NAME_every has the pieces as an axis where inputs have the steps: [B, T // N, dims]. Of a pack it is [pieces, dims]:",
        "those of the first sequence, then those of the next; a sequence of n steps has n // N of them.",
    ]
    rows = [f"    {s.name}_every: Tensor  # [{', '.join(['B', 'pieces', *axes[f'{s.name}_0'][1:]])}]" for s in sig.states]
    head = f"class {sig.class_name}States({sig.class_name}Result):"
    return "\n".join([head, docstring(words, 4), *(["", *rows] if rows else [])])


def pieces_text(sig: Signature) -> str:
    """The function that makes such a call."""
    if sig.no_step:
        return _REFUSED.format(spec=sig.spec, why=f"a run cannot be cut: {sig.no_step}").strip()
    axes = layouts(sig)
    timed = [a.name for a in caller(sig) if a.timed]
    main = clock(sig)
    keys = ["seed=seed"] if sig.keys else []
    names = {
        "spec": sig.spec, "kind": f"{sig.class_name}States", "main": main, "timed": " ".join(timed),
        "dims": len(axes[main]) - 2, "outputs": len(sig.outputs), "backwards": sig.backwards,
        "initial": group([f'"{x}"' for x in sig.initial]),
        "seed": "seed, " if sig.keys else "",
        "taken": "        seed = None  # a run that goes on draws on\n" if sig.keys else "",
    }
    given = ["**given | own", *keys, "cu_seqlens=cuts", "reverse=reverse", "axis=axis"]

    def written(itself: str) -> str:
        return _PIECES.format(**names, call=lay(f"result = {itself}(", given, ")", 8)).strip()

    return past_locals(sig.spec, written)


_REFUSED = '''
def _in_pieces(*given, **tensors):
    """Refused."""
    raise ValueError("{spec}: states_every: {why}")
'''

_PIECES = '''
def _in_pieces(every, axis, cu_seqlens, reverse, {seed}/, **given):
    """The call in pieces of `every` steps, each from the states that the last one left."""
    main, packed = given["{main}"], cu_seqlens is not None
    count = main.dim() - {dims}
    at = 1 if axis is None else axis % count
    if every < 1:
        raise ValueError(f"{spec}: states_every is {{every}}; states are kept after every so many steps, 1 or more")
    if axis is not None and (packed or not -count <= axis < count):
        why = "states_every of a pack takes none" if packed else f"{main} has {{count}} axes before its dims"
        raise ValueError(f"{spec}: axis is {{axis}}; {{why}}")
    bounds = [0, main.shape[at]]
    if packed:  # pieces are cut from each sequence: its bounds are read, and a GPU is waited for
        _sequences(cu_seqlens, main)
        _steps(cu_seqlens.cpu(), main)
        bounds = cu_seqlens.tolist()
    last = reverse is not {backwards}  # whether runs begin at the last step
    lengths = [after - before for before, after in zip(bounds, bounds[1:])]
    results, places, kept = [], [], []
    for start in range(0, max(lengths + [1]), every):
        rows = []
        for before, size in zip(bounds, lengths):
            low, high = min(start, size), min(start + every, size)
            rows.append((before + size - high, before + size - low) if last else (before + low, before + high))
        own, cuts = {{x: given[x] for x in "{timed}".split() if given[x] is not None}}, None
        if packed:
            places.append(torch.cat([torch.arange(*row, device=main.device) for row in rows or [(0, 0)]]))
            own = {{name: x.index_select(1, places[-1]) for name, x in own.items()}}
            sizes = torch.tensor([0] + [high - low for low, high in rows], device=main.device)
            cuts = sizes.cumsum(0).to(cu_seqlens.dtype)
        else:
            own = {{name: x.narrow(at, rows[0][0], rows[0][1] - rows[0][0]) for name, x in own.items()}}
{call}
{taken}        given |= dict(zip({initial}, result[{outputs}:]))
        results.append(result)
        kept.append([i for i, size in enumerate(lengths) if start + every <= size])
    whole = []
    for parts in zip(*(result[:{outputs}] for result in results)):
        joined = torch.cat(parts[::-1] if last and not packed else parts, at)
        if packed:
            joined = joined.new_zeros(1, main.shape[1], *joined.shape[2:]).index_copy(1, torch.cat(places), joined)
        whole.append(joined)
    found = {kind}(*whole, *results[-1][{outputs}:])
    order = sorted((i, piece) for piece, ones in enumerate(kept) for i in ones)
    for name, state in zip(found._fields[{outputs}:], found[{outputs}:]):
        parts = [getattr(results[piece], name) for _, piece in order]
        if packed:
            parts, nothing = [part[i] for part, (i, _) in zip(parts, order)], state[:0]
        else:
            nothing = state.unsqueeze(at).narrow(at, 0, 0)
        setattr(found, name[:-1] + "every", torch.stack(parts, 0 if packed else at) if parts else nothing)
    return found
'''
